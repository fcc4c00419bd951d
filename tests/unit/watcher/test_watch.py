"""The watch of switches on a store: what is stored, what outlives a restart, and what operators command."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.engine.silence import Beat
from killswitch.graph.nodes import HeartbeatWay, PendingRule, Place, SilenceRule
from killswitch.model.instant import SECOND
from killswitch.model.store import Store
from killswitch.watcher.watch import DeadManWatch, SwitchCommand, put_command, switch_views
from killswitch.watcher.ways import WayListener

RULE = SilenceRule(
    name="maker", accounts=("first", "second"), watches="strategy", beats="maker", ways=(HeartbeatWay("file", "/a"),),
    every=10 * SECOND, timeout=60 * SECOND, check=5 * SECOND, checks=3, pending=PendingRule(600 * SECOND, "page"),
    on_one_way="page", progress_timeout=None, on_silence="close", force=False, place=Place("", 0, 0, ""),
)  # fmt: skip
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class ManualClock:
    """A clock that is set by the test."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("the watch does not sleep on this clock")


class Bot:
    """A bot as its way shows it: its last heartbeat."""

    def __init__(self) -> None:
        self.last: Beat | None = None

    def read(self, now: float) -> Beat | None:
        return self.last


class Desk:
    """A watch, its clock, and one bot."""

    def __init__(self, store: Store, rule: SilenceRule = RULE) -> None:
        self.store, self.rule, self.clock, self.bot = store, rule, ManualClock(), Bot()
        self.calls = 0
        self.start()

    def start(self) -> None:
        """Start the watcher, also once more after a crash."""
        self.watch = DeadManWatch((self.rule,), self.store, self.clock, self.listen)
        self.watch.on_firing = self.called

    def called(self) -> None:
        self.calls += 1

    def listen(self, _rule: SilenceRule) -> Mapping[str, WayListener]:
        self.listener = WayListener(self.bot, 1.0, self.clock.monotonic)
        return {"/a": self.listener}

    def go(self, seconds: float, *, beats: bool = False) -> None:
        """Let time pass, with a check and a read every five seconds."""
        for _ in range(int(seconds / 5)):
            self.clock.seconds += 5
            if beats:
                self.bot.last = Beat(self.clock.seconds, int(self.clock.seconds))
            self.listener.read()
            self.watch.check_due()

    def command(self, kind: Any, seconds: float | None = None) -> None:
        put_command(self.store, "maker", SwitchCommand(f"c{self.clock.seconds}", kind, BEGIN, "ann", "test", seconds))

    @property
    def phase(self) -> str:
        return switch_views(self.store)[0].phase

    @property
    def events(self) -> list[tuple[str, str | None, str | None, bool]]:
        return [(each.kind, each.scope, each.cause, each.force) for each in self.store.pending_events()]


CLOSED = [("close", "account/first", "dead-man", False), ("close", "account/second", "dead-man", False)]


def test_a_firing_stores_a_close_of_each_account_and_calls_for_a_tick(store: Store) -> None:
    """Once: a switch that has fired fires no more."""
    desk = Desk(store)
    desk.go(60, beats=True)
    desk.go(300)
    assert (desk.events, desk.calls, desk.phase) == (CLOSED, 1, "fired")
    assert [each.key for each in desk.watch.alerts.found] == ["silence/maker"]
    event = store.pending_events()[0]
    assert (event.author, event.lock) == ("switch maker", "reduce_only")
    assert event.reason == "no heartbeat of the strategy maker for 70 s, at 3 checks in a row"


@pytest.mark.parametrize(
    ("changed", "events"),
    [
        ({"on_silence": "page"}, []),
        ({"on_silence": "lock"}, [("lock", "account/first", None, False), ("lock", "account/second", None, False)]),
        ({"force": True}, [(kind, scope, cause, True) for kind, scope, cause, _ in CLOSED]),
    ],
)
def test_what_follows_is_what_is_declared(store: Store, changed: dict[str, Any], events: list[Any]) -> None:
    """A page alone sends nothing."""
    desk = Desk(store, replace(RULE, **changed))
    desk.go(60, beats=True)
    desk.go(300)
    assert desk.events == events
    assert desk.watch.alerts.found


def test_a_restart_keeps_a_switch_armed_and_a_fired_one_fired(store: Store) -> None:
    """Silence counts from the start of the watcher, and a firing is repeated by nobody."""
    desk = Desk(store)
    desk.go(60, beats=True)
    desk.start()
    desk.go(5)
    assert desk.phase == "armed"
    desk.go(50)
    assert desk.events == []
    desk.go(20)
    assert desk.events == CLOSED
    desk.start()
    desk.go(300)
    assert (desk.events, desk.phase, desk.calls) == (CLOSED, "fired", 1)


def test_a_crash_between_the_events_and_the_state_closes_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The id of an event is that of the firing."""
    desk = Desk(store)
    desk.go(60, beats=True)
    with monkeypatch.context() as patch:
        patch.setattr(store, "put_live", failing_to_keep_the_state)
        with pytest.raises(OSError, match="no space"):
            desk.go(300)
    assert desk.events == CLOSED
    desk.start()
    desk.go(300)
    assert desk.events == CLOSED


def failing_to_keep_the_state(name: str, _blob: bytes) -> None:
    """A disk that fills up just then."""
    if name.startswith("switch-state/"):
        raise OSError("no space")


def test_a_disarm_outlives_a_restart_for_the_rest_of_its_time(store: Store) -> None:
    """By the wall clock, since the monotonic one may have begun again."""
    desk = Desk(store)
    desk.go(60, beats=True)
    desk.command("disarm", 300.0)
    desk.go(100)
    desk.start()
    desk.go(195)
    assert (desk.phase, desk.events) == ("disarmed", [])
    desk.go(85)
    assert (desk.phase, desk.events) == ("fired", CLOSED)


def test_an_arm_ends_a_disarm_and_returns_a_fired_switch_to_service(store: Store) -> None:
    """It is pending then, and its next firing has events of its own."""
    desk = Desk(store)
    desk.go(60, beats=True)
    desk.command("disarm", 300.0)
    desk.go(10)
    desk.command("arm")
    desk.go(10)
    assert desk.phase == "armed"
    desk.go(100)
    assert desk.phase == "fired"
    desk.command("arm")
    desk.go(300)
    assert desk.phase == "pending"
    desk.go(60, beats=True)
    assert desk.phase == "armed"
    desk.go(300)
    assert desk.events == CLOSED * 2


def test_a_command_is_carried_out_once(store: Store) -> None:
    """Also after a restart: an old disarm disarms nothing a second time."""
    desk = Desk(store)
    desk.go(60, beats=True)
    desk.command("disarm", 50.0)
    desk.go(100, beats=True)
    desk.start()
    desk.go(100)
    assert desk.events == CLOSED


def test_a_switch_that_is_declared_no_more_is_not_shown(store: Store) -> None:
    """Its view is from another set."""
    Desk(store).go(10)
    Desk(store, replace(RULE, name="other")).go(10)
    assert [each.name for each in switch_views(store)] == ["other"]
