"""Watches the dead man's switches of a policy set in a process of its own, and stores the commands that follow.

The checks run next to the ticks of the watcher's runner, at their own interval. What a switch decides becomes an event
of the next tick, as an operator's command does: one mechanism closes, locks, records and notifies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from killswitch.engine.silence import Phase, SwitchCheck, SwitchState, WayAnswer, armed, check, disarmed
from killswitch.graph.nodes import SilenceRule
from killswitch.model.alert import NO_ALERTS, Alert, Alerts
from killswitch.model.clock import Clock
from killswitch.model.instant import SECOND
from killswitch.model.snapshot import Event, Instant
from killswitch.model.store import Store, decoded
from killswitch.runner.observers import TickReport

if TYPE_CHECKING:
    from killswitch.watcher.ways import WayListener  # `ksctl status` reads the views, and needs no requests

VIEWS: Final = "switch-view/"
"""How the names of the live blobs begin that `ksctl deadman status` reads."""
COMMANDS: Final = "switch-command/"
"""How the names of the live blobs begin that `ksctl deadman arm` and `disarm` write."""
_STORED: Final = "switch-state/"

BY_SWITCH: Final = "dead-man-"
"""How the ids of the events begin that a switch stores."""


class SwitchCommand(Struct, frozen=True, omit_defaults=True):
    """An operator's `arm` or `disarm` of one switch. `seconds`: how long a disarm lasts."""

    id: str
    kind: Literal["arm", "disarm"]
    at: Instant
    author: str
    reason: str
    seconds: float | None = None


class StoredSwitch(Struct, frozen=True, omit_defaults=True):
    """What outlives a restart of the watcher. `firings`: how often the switch has fired; `why`: the last time."""

    is_heard: bool = False
    is_fired: bool = False
    firings: int = 0
    why: str | None = None
    disarmed_until: Instant | None = None
    command: str | None = None
    """The id of the last command that was carried out."""


class WayView(Struct, frozen=True):
    """One way of a switch. `error`: why it has no answer; null if it has one."""

    way: str
    error: str | None


class SwitchView(Struct, frozen=True):
    """A switch as of the watcher's last check."""

    name: str
    watches: str
    beats: str
    accounts: tuple[str, ...]
    on_silence: str
    phase: Phase
    checked_at: Instant
    timeout: float
    """Seconds of silence after which it fires."""
    check_every: float
    """Seconds between two checks."""
    age: float | None
    """Seconds since the last heartbeat; null if none was heard since the watcher listens."""
    progress: int | None
    fires_in: float | None
    """Seconds until it may fire, if nothing is heard; null unless it is armed."""
    ways: tuple[WayView, ...]
    disarmed_until: Instant | None = None
    why: str | None = None
    """Why it has fired."""
    command: str | None = None
    """The id of the last command that was carried out."""


_ENCODER = msgspec.json.Encoder()
_COMMAND = msgspec.json.Decoder(SwitchCommand)
_STATE = msgspec.json.Decoder(StoredSwitch)
_VIEW = msgspec.json.Decoder(SwitchView)


def put_command(store: Store, switch: str, command: SwitchCommand) -> None:
    """Leave a command for the watcher's next check of the switch; a newer one replaces it."""
    store.put_live(COMMANDS + switch, _ENCODER.encode(command))


def switch_views(store: Store) -> tuple[SwitchView, ...]:
    """The switches of a watcher's store as of its last checks, by name; without those of another version."""
    found = (decoded(_VIEW.decode, blob) for _, blob in sorted(store.live_under(VIEWS).items()))
    return tuple(each for each in found if each is not None)


class WatchedSwitch:
    """One switch: its ways, what is remembered of it, and what its last check has found."""

    def __init__(self, rule: SilenceRule, ways: Mapping[str, WayListener], stored: StoredSwitch, now: float) -> None:
        self.rule = rule
        self.ways = ways
        self.stored = stored
        self.state = SwitchState(since=now, floor=now, is_heard=stored.is_heard, is_fired=stored.is_fired)
        self.due = now
        """When the next check is due, in seconds of the clock."""
        self.last: SwitchCheck | None = None

    def answers(self, now: float) -> dict[str, WayAnswer]:
        """The newest answer of each way that has one."""
        found = {way: listener.answer(now) for way, listener in self.ways.items()}
        return {way: answer for way, answer in found.items() if answer is not None}

    @property
    def alerts(self) -> Alerts:
        """A page while it is fired, and for each reason why it could not be trusted."""
        name = self.rule.name
        found = []
        if self.stored.is_fired:
            after = f"`ksctl deadman arm {name} --reason '' --store STORE` returns it to service"
            closes = "the positions of its accounts are closed, and their lock stays"
            done = {"page": "nothing is closed", "lock": "its accounts are locked", "close": closes}
            text = f"the switch {name} has fired: {self.stored.why}; {done[self.rule.on_silence]}; {after}"
            found.append(Alert(f"silence/{name}", "page", text, over=f"the switch {name} is armed again"))
        problems = () if self.last is None else self.last.problems
        found += [Alert(f"heartbeat/{name}/{each.key}", "page", f"switch {name}: {each.text}") for each in problems]
        return Alerts(tuple(found))


class DeadManWatch:
    """The switches of a watcher, as an observer of its runner: `run` checks them until it is cancelled."""

    def __init__(
        self,
        rules: tuple[SilenceRule, ...],
        store: Store,
        clock: Clock,
        listen: Callable[[SilenceRule], Mapping[str, WayListener]],
    ) -> None:
        """`listen`: the listeners of a switch."""
        self._store = store
        self._clock = clock
        self.on_firing: Callable[[], None] = lambda: None
        """Called when a firing is stored: it calls for a tick at once."""
        now = clock.monotonic()
        stored = {each.name: decoded(_STATE.decode, store.live(_STORED + each.name)) for each in rules}
        self.switches = tuple(
            WatchedSwitch(each, listen(each), stored[each.name] or StoredSwitch(), now) for each in rules
        )
        for each in self.switches:
            self._restore_disarm(each)
        for name in store.live_under(VIEWS):
            if name not in stored:
                store.put_live(VIEWS + name, b"")

    def _restore_disarm(self, switch: WatchedSwitch) -> None:
        """A disarm goes on after a restart, for at most the rest of its time by the wall clock."""
        until = switch.stored.disarmed_until
        left = 0.0 if until is None else (until - self._clock.now()).total_seconds()
        if left > 0:
            switch.state = disarmed(switch.state, self._clock.monotonic() + left)

    def start(self) -> None:
        """Begin to listen on every way."""
        for switch in self.switches:
            for listener in switch.ways.values():
                listener.start()

    def stop(self) -> None:
        """Listen no more."""
        for switch in self.switches:
            for listener in switch.ways.values():
                listener.stop()

    async def run(self) -> None:
        """Check each switch at its interval. Raises StoreError."""
        self.start()
        try:
            while True:
                self.check_due()
                now = self._clock.monotonic()
                await asyncio.sleep(max(0.0, min(each.due for each in self.switches) - now))
        finally:
            self.stop()

    def check_due(self) -> None:
        """Check the switches that are due, and store the commands of those that fire."""
        now = self._clock.monotonic()
        for switch in self.switches:
            if switch.due <= now:
                # After a pause the next check is one interval from now: missed ones are not made up for.
                switch.due = now + switch.rule.check / SECOND
                self._check(switch, now)

    def _check(self, switch: WatchedSwitch, now: float) -> None:
        stored = switch.stored
        self._obey(switch, now)
        found = switch.last = check(switch.rule, switch.state, now, switch.answers(now))
        switch.state = found.state
        if found.fires is not None:
            switch.stored = replace(switch.stored, firings=switch.stored.firings + 1, why=found.fires)
            self._fire(switch, found.fires)
        until = switch.stored.disarmed_until if found.phase == "disarmed" else None
        switch.stored = replace(
            switch.stored, is_heard=found.state.is_heard, is_fired=found.state.is_fired, disarmed_until=until
        )
        if switch.stored != stored:
            self._store.put_live(_STORED + switch.rule.name, _ENCODER.encode(switch.stored))
        self._store.put_live(VIEWS + switch.rule.name, _ENCODER.encode(self._view(switch, found, now)))
        if found.fires is not None:
            self.on_firing()

    def _obey(self, switch: WatchedSwitch, now: float) -> None:
        """Carry out the newest command of an operator, once."""
        command = decoded(_COMMAND.decode, self._store.live(COMMANDS + switch.rule.name))
        if command is None or command.id == switch.stored.command:
            return
        if command.kind == "arm":
            switch.state = armed(switch.state, now)
            switch.stored = replace(switch.stored, command=command.id, disarmed_until=None)
        else:
            seconds = command.seconds or 0.0
            switch.state = disarmed(switch.state, now + seconds)
            until = self._clock.now() + timedelta(seconds=seconds)
            switch.stored = replace(switch.stored, command=command.id, disarmed_until=until)

    def _fire(self, switch: WatchedSwitch, why: str) -> None:
        """Store the events of a firing. Their ids are those of this firing, so that a crash in between repeats none."""
        rule, at = switch.rule, self._clock.now()
        for account in rule.accounts if rule.on_silence != "page" else ():
            event = _event(rule, account, switch.stored.firings, at, why)
            self._store.put_event(event)

    def _view(self, switch: WatchedSwitch, found: SwitchCheck, now: float) -> SwitchView:
        rule, state = switch.rule, found.state
        errors = {way: deaf.error for way, deaf in state.deaf.items()}
        return SwitchView(
            rule.name, rule.watches, rule.beats, rule.accounts, rule.on_silence, found.phase, self._clock.now(),
            rule.timeout / SECOND, rule.check / SECOND, None if state.beat is None else round(now - state.beat.at, 3),
            None if state.beat is None else state.beat.progress,
            None if found.fires_in is None else round(found.fires_in, 3),
            tuple(WayView(way, errors.get(way)) for way in switch.ways),
            switch.stored.disarmed_until if found.phase == "disarmed" else None,
            switch.stored.why if state.is_fired else None, switch.stored.command,
        )  # fmt: skip

    def ticked(self, _report: TickReport) -> None:
        """Checks do not depend on ticks."""

    @property
    def judges(self) -> tuple[str, ...]:
        return ("silence", "heartbeat")

    @property
    def alerts(self) -> Alerts:
        """The alerts of all switches."""
        return sum((each.alerts for each in self.switches), NO_ALERTS)


def _event(rule: SilenceRule, account: str, number: int, at: datetime, why: str) -> Event:
    id_ = BY_SWITCH + sha256(f"{rule.name}/{account}/{number}".encode()).hexdigest()[:16]
    author, scope = f"switch {rule.name}", f"account/{account}"
    if rule.on_silence == "lock":
        return Event(id_, at, "lock", scope, author, why, lock="reduce_only")
    return Event(id_, at, "close", scope, author, why, cause="dead-man", force=rule.force, lock="reduce_only")
