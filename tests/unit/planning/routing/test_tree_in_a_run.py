"""A tree of routes in a run: one transaction, suppressions, one message a target, fallbacks, acknowledgements."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.engine.alerts import AlertState
from killswitch.graph.routing import (
    Escalation,
    MessageSilence,
    NotificationRoot,
    Receiver,
    Route,
    RouteRule,
    RouteTarget,
)
from killswitch.incident.notify.custom_target import register_target
from killswitch.incident.notify.fallback import Fallbacks
from killswitch.incident.notify.message import Message, decode_message
from killswitch.incident.notify.targets import NotSentError, RejectedError
from killswitch.model.decision import Decision, Notice
from killswitch.model.instant import HOUR, MINUTE, to_micros
from killswitch.model.snapshot import Closing, Event, Residual, Snapshot
from killswitch.model.store import Outgoing, TickRecord
from killswitch.operations.notifying import UnknownPageError, acknowledgeable, log_rows
from killswitch.planning.scopes.trigger_status import MachineStatus
from killswitch.runner.notify.notifier import Notifier
from killswitch.store.sql import SqlStore
from tests import graphs
from tests.outboxes import Scripted, lane, message
from tests.runner_world import World, crash_policy
from tests.worlds import START

DESK = Receiver("desk", (RouteTarget("file", "/desk"),), HOUR, "phone")
PHONE = Receiver("phone", (RouteTarget("file", "/phone"),), HOUR)
ANY = RouteRule(None, None, None, None, None, None, ())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def policies(**keys: object) -> object:
    root = replace(NotificationRoot("tree", "desk", (DESK, PHONE), graphs.HERE), **keys)
    return replace(graphs.policy_set(crash_policy()), notification=root)


def firing(name: str, scope: str = "account/main") -> Decision:
    return Decision(name, START, "crash", "sha256:test", scope, "enforce", "close", 3, 0)


class Run:
    """Ticks of a notifier that are committed to a store."""

    def __init__(self, world: World, policies: object, store: SqlStore | None = None) -> None:
        self.store = store or world.open()
        self.notifier = Notifier(policies, self.store, world.clock)  # type: ignore[arg-type] # a policy set
        self.notifier.start()

    def tick(
        self, *decisions: Decision, after: timedelta = timedelta(0), notices: tuple[Notice, ...] = (),
        events: tuple[Event, ...] = (),
    ) -> tuple[Outgoing, ...]:  # fmt: skip
        at = Snapshot(START + after, (), "killswitch.snapshot/v1", events=events)
        found = self.notifier.outgoing(at, decisions, notices, decisions, AlertState())
        suppressed, live = self.notifier.to_commit()
        self.store.commit_tick(
            TickRecord(at.as_of, "sha256:0", (), (), decisions, (), (), None, (), 0, found, suppressed, live)
        )
        return found


def test_500_scopes_that_fire_in_one_tick_are_one_message_to_each_target(world: World) -> None:
    run = Run(world, policies())
    found = run.tick(*(firing(f"d{number}", f"account/{number}") for number in range(500)))
    assert [each.target for each in found] == ["file /desk"]
    sent = decode_message(found[0].body)
    assert (len(sent.members), sent.count) == (500, 500)
    assert sent.title.startswith("[page] 500 stages have fired; ")
    assert sum("account/" in line for line in sent.body.partition("\n\n")[0].split("\n")) == 500


def test_what_a_silence_holds_is_recorded_with_its_author_and_a_firing_is_not_held(world: World) -> None:
    end = to_micros(START + timedelta(hours=1))
    quiet = MessageSilence("upgrade", replace(ANY, policies=("crash",)), "ada", "venue upgrade", end)
    run = Run(world, replace(policies(), message_silences=(quiet,)))  # type: ignore[type-var] # a policy set
    held = Notice(START, "crash", "account/main", "unknown", "page", "no data")
    assert [decode_message(each.body).event for each in run.tick(firing("d1"), notices=(held,))] == ["fired"]
    (row,) = run.store.suppressions(9)
    assert (row.why, row.receiver) == ("silenced", "desk")
    assert "by ada" in row.by
    assert {each.state for each in log_rows(run.store, 9)} == {"pending", "suppressed"}


def test_an_escalation_that_fell_due_while_the_runner_was_down_is_sent_at_its_start_and_once(world: World) -> None:
    tree = policies(escalate=(Escalation(5 * MINUTE, "phone"),))
    first = Run(world, tree)
    first.tick(firing("d1"))
    second = Run(world, tree, first.store)
    (escalated,) = second.tick(after=timedelta(hours=1))
    assert (escalated.target, decode_message(escalated.body).purpose) == ("file /phone", "escalation")
    third = Run(world, tree, first.store)
    assert third.tick(after=timedelta(hours=2)) == ()


def test_an_acknowledgement_covers_what_its_page_showed_and_no_later_firing(world: World) -> None:
    run = Run(world, policies(escalate=(Escalation(5 * MINUTE, "phone"),)))
    run.tick(firing("d1"))
    shown = acknowledgeable(run.store, "d1")
    later = replace(firing("d2"), as_of=START + timedelta(seconds=1), level=4, previous_level=3)
    run.tick(later, after=timedelta(seconds=1))
    given = Event("hand-1", START, "acknowledge", author="bob", decision=shown.about, number=shown.number)
    run.tick(after=timedelta(seconds=2), events=(given,))
    (escalated,) = run.tick(after=timedelta(minutes=6))
    assert decode_message(escalated.body).decision == "d2"
    assert acknowledgeable(run.store, "d").number == 2


def test_a_message_names_the_firings_that_it_joins_for_an_acknowledgement(world: World) -> None:
    run = Run(world, policies(escalate=(Escalation(5 * MINUTE, "phone"),)))
    (found,) = run.tick(firing("d1"), firing("d2", "account/b"))
    assert len(acknowledgeable(run.store, found.id).pages) == 2
    with pytest.raises(UnknownPageError, match="waiting: d1, d2"):
        acknowledgeable(run.store, "nothing")


def hop(run: Run, world: World, seconds: float) -> Fallbacks:
    found = Fallbacks(run.store, world.clock, lambda: None)
    world.clock.set(world.clock.now() + timedelta(seconds=seconds))
    found.step()
    return found


def test_a_target_that_accepts_nothing_for_ten_seconds_falls_back_with_the_same_id(world: World) -> None:
    run = Run(world, policies())
    (sent,) = run.tick(firing("d1"))
    hop(run, world, 9.0)
    assert run.store.waiting("file /phone").pending == 0
    hop(run, world, 10.5)
    (second,) = [each for each in run.store.deliveries(9) if each.message.target == "file /phone"]
    assert decode_message(second.message.body).id == decode_message(sent.body).id
    assert run.store.waiting("file /desk").pending == 1, "the first is still tried"
    assert hop(run, world, 21.0).unreached == 1
    assert len(run.store.deliveries(9)) == 2, "a fallback that was tried is not tried again"


def test_a_fallback_gets_a_page_although_another_page_of_the_same_tick_leads_to_it(world: World) -> None:
    """A page of the policy to `desk`, and one of another scope to `phone`: neither has the other's content."""
    of_b = Route("b", replace(ANY, scopes=("account/b",)), (), HOUR, graphs.HERE, receiver="phone")
    run = Run(world, replace(policies(children=("b",)), routes=(of_b,)))  # type: ignore[type-var] # a policy set
    sent = {each.target: each for each in run.tick(firing("d1"), firing("d2", "account/b"))}
    assert {to: decode_message(each.body).decision for to, each in sent.items()} == {
        "file /desk": "d1", "file /phone": "d2",
    }  # fmt: skip
    assert (sent["file /desk"].hops, sent["file /phone"].hops) == ((("file /phone",),), (("file /desk",),))


def test_a_definite_refusal_falls_back_at_once(world: World) -> None:
    run = Run(world, policies())
    run.tick(firing("d1"))
    found = Fallbacks(run.store, world.clock, lambda: None)
    world.clock.set(world.clock.now() + timedelta(seconds=10))  # what a start waits

    class Refusing(Scripted):
        def send(self, message: Message) -> None:
            raise RejectedError("401")

    run.store.settle(run.store.deliveries(1)[0].message.id, 0, "401", is_rejected=True)
    found.step()
    assert run.store.waiting("file /phone").pending == 1


def test_an_urgent_message_that_is_over_before_it_is_sent_says_so(world: World) -> None:
    store = world.open()
    begun, over = message("begun", at=START), message("over", at=START + timedelta(minutes=3), event="reset")
    from killswitch.incident.notify.message import encode_message

    rows = tuple(
        Outgoing(each.id, to_micros(each.at), "r", "t", encode_message(each), "firing/p/s", each is over)
        for each in (begun, over)
    )
    store.commit_tick(TickRecord(START, "sha256:0", (), (), (), (), (), None, (), 0, rows))
    seen: list[Message] = []

    class Keeping(Scripted):
        def send(self, message: Message) -> None:
            seen.append(message)

        def check(self) -> None:
            pass

    work = lane(store, Keeping(), world.clock, target="t")
    work.step()
    work.step()
    assert [each.id for each in seen] == ["begun", "over"]
    assert seen[0].body.startswith("ended at 2024-01-01T00:03:00Z, before this could be sent")


def test_a_callback_is_a_target_and_its_refusal_is_definite() -> None:
    from killswitch.incident.notify.custom_target import custom_sender

    seen: list[str] = []
    register_target("mine", lambda each: seen.append(each.id))
    custom_sender("mine").send(message("m1"))
    assert seen == ["m1"]

    def refusing(_message: Message) -> None:
        raise RejectedError("no such number")

    register_target("mine", refusing)
    with pytest.raises(RejectedError):
        custom_sender("mine").send(message("m1"))
    with pytest.raises(NotSentError, match="no package has the target other"):
        custom_sender("other").check()


def test_a_defect_in_what_holds_messages_loses_none_and_is_a_problem(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(world, policies())

    def broken(*_: object) -> None:
        raise ValueError("no such group")

    monkeypatch.setattr("killswitch.runner.notify.notifier.route", broken)
    assert [each.target for each in run.tick(firing("d1"))] == ["file /desk"]
    assert any("no such group" in text for text in run.notifier.alerts.texts)


def test_what_the_close_of_a_drill_has_left_is_no_drill_and_nothing_holds_it(world: World) -> None:
    """The orders of a live drill are real, and so is what is left: also while a firing has ended drills, and silenced.

    What such a close has done in full is a message of the drill.
    """
    everything = MessageSilence("all", ANY, "ada", "test", to_micros(START) + HOUR)
    run = Run(world, replace(policies(), message_silences=(everything,)))  # type: ignore[type-var] # a policy set
    drills = [
        replace(firing(name), kind="manual", policy="operator", cause="drill", stage=None, author="ada")
        for name in ("left", "flat")
    ]
    run.tick(*drills)
    run.tick(firing("d1"))
    residual = Residual("main", "BTC", "long", Decimal(1))
    ended = (Closing("left", "blocked", (residual,)), Closing("flat", "flat"))
    at = Snapshot(START, (), "killswitch.snapshot/v1", closings=ended)
    (sent,) = run.notifier.outgoing(at, (), (), (), AlertState())
    found = decode_message(sent.body)
    assert (sent.target, found.event, found.decision) == ("file /desk", "residual", "left")
    assert "LEFT 1 BTC long on main (blocked): DRILL" in found.title


def test_a_firing_that_nothing_has_in_force_any_more_ends_no_drill(world: World) -> None:
    """Its stage does not latch, or its policy is gone: nobody is notified of its end, and drills are notified again."""
    run = Run(world, policies())
    run.tick(firing("d1"))
    in_force = MachineStatus("crash", "account/main", "enforce", 3, "close", START, None, "d1", ())

    def drilled(name: str, machines: tuple[MachineStatus, ...] | None) -> int:
        drill = replace(firing(name), kind="manual", policy="operator", cause="drill", stage=None, author="ada")
        at = Snapshot(START, (), "killswitch.snapshot/v1")
        return len(run.notifier.outgoing(at, (drill,), (), (drill,), AlertState(), machines=machines))

    assert drilled("a", (in_force,)) == 0
    assert drilled("b", None) == 0, "what is not known to be over is not over"
    assert drilled("c", (replace(in_force, level=0),)) == 1
    run.tick(firing("d2"))
    assert drilled("d", ()) == 1, "its policy is gone"
