"""One policy watching one scope: its history, its stage machine, and when it is at rest."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from decimal import Decimal

from msgspec import MsgspecError, Struct
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.engine.state import State, StoredState, Waiting, after_outage, from_stored, initial, to_stored
from killswitch.engine.step import Step, rests_until, stage_told, stands, step
from killswitch.graph.nodes import Stage
from killswitch.model.effects import Effect, Lock, LockOrder
from killswitch.model.snapshot import Closing
from killswitch.model.store import DamagedMemoryError, MachineState
from killswitch.planning.scopes.compiled_policy import Prepared
from killswitch.planning.scopes.corroboration import corroborate
from killswitch.signals.equity.explanation import ChangeEvent
from killswitch.signals.history.marks import Marks
from killswitch.signals.history.rows import Correction, HistoryState, StoredRow, restated, stored
from killswitch.signals.history.scope import History
from killswitch.signals.history.windows import Interval, unit_value
from killswitch.signals.position import ZERO
from killswitch.signals.signal_values import Columns
from killswitch.signals.view import ScopeView


class Suspected(Struct, frozen=True, omit_defaults=True):
    """What was done on suspicion last, and the stage that fires if it was a loss: its lock, and what else there is."""

    stage: str
    lock: LockOrder | None
    further: tuple[Effect, ...] = ()

    @property
    def effects(self) -> tuple[Effect, ...]:
        """All of it."""
        return self.further if self.lock is None else (Lock(self.lock), *self.further)


class Paged(Struct, frozen=True):
    """The last page about an unexplained fall: when (microseconds), and how much it told.

    `count`: the falls since, that one included; `fallen`: what those came to that did not page. Amounts are in the
    scope's currency.
    """

    at: int
    count: int
    amount: Decimal = ZERO
    fallen: Decimal = ZERO


class Memory(Struct):
    """A watch as serialised, but for its history's rows."""

    engine: StoredState
    history: HistoryState
    decision: str | None
    costs: dict[str, Decimal]
    cost: float
    suspicions: list[int] = []
    suspected: Suspected | None = None
    paged: Paged | None = None


_MEMORY = msgjson.Decoder(Memory)
_ROW = msgjson.Decoder(StoredRow)
_ENCODER = msgjson.Encoder(decimal_format="string")


def require_readable(memory: MachineState, rows: Iterable[bytes]) -> tuple[Memory, list[StoredRow]]:
    """What was kept of a watch; DamagedMemoryError where `Watch.restore` could not read it."""
    try:
        return _MEMORY.decode(memory.blob), [_ROW.decode(row) for row in rows]
    except (MsgspecError, ValueError) as error:
        what = f"what was kept of {memory.policy} on {memory.scope} cannot be read ({error})"
        raise DamagedMemoryError(what) from error


class Watch:
    """The memory of one policy on one scope.

    `decision` is its last firing. `costs` are the decisions whose closing it waits for (its own, and those that its
    orders were merged into) with what each has cost so far; `cost` is all of it in unit value.
    """

    def __init__(self, prepared: Prepared, scope: str) -> None:
        self.prepared = prepared
        self.scope = scope
        every = prepared.sample
        marks = None if every is None else Marks(every, prepared.keep, prepared.terms.max_gap)
        self.history = History(prepared.windows, prepared.keep, prepared.terms, marks)
        self.state: State = initial()
        self.columns: Columns | None = None
        self.eligible: frozenset[str] = frozenset()
        """The stages that may fire by what was observed last."""
        self.decision: str | None = None
        self.costs: dict[str, Decimal] = {}
        self.cost = 0.0
        self.doubted: dict[str, int] = {}
        """Stage → since when its prices have failed the second look."""
        self.paged: Paged | None = None
        """The last page of an unexplained fall, with those that were counted since."""
        self.suspicions: list[int] = []
        """When locks were last written on suspicion, or would have been."""
        self.suspected: Suspected | None = None
        """What is suspected now."""

    @property
    def policy(self) -> str:
        return self.prepared.graph.policy

    def observe(self, view: ScopeView, closings: tuple[Closing, ...]) -> list[ChangeEvent]:
        """Take the scope's view into the history, and what its last close has cost."""
        units = self.history.track.units
        for closing in closings:
            if closing.decision in self.costs and closing.cost is not None and units > 0.0:
                # in unit value as it was when it was paid: money moved later does not make it more or less
                self.cost += float(closing.cost - self.costs[closing.decision]) / units
                self.costs[closing.decision] = closing.cost
        events = self.history.observe(view)
        if self.prepared.corroborates and view.unknown is None and self.history.jumped():
            # a stray print upwards would be a peak that good prints then fall from
            seen = corroborate(view)
            if seen.failing and seen.view is not None and seen.view.equity is not None:
                self.history.doubt(seen.view.equity)
        if any(each.kind == "anew" for each in events) and self.state.fired_value is not None:
            self.state = replace(self.state, fired_value=self.history.track.value)
        for correction in self.history.corrected_now:
            self._restate(correction)
        return events

    def _restate(self, correction: Correction) -> None:
        """Unit values from before count anew where the past was corrected, so the last firing's must follow."""
        fired, fired_at = self.state.fired_value, self.state.fired_at
        if fired is None or fired_at is None:
            return
        value = restated(fired_at, fired, correction)
        self.state = replace(self.state, fired_value=value)
        self.cost *= value / fired if fired > 0.0 else 1.0

    def fired(self, decision: str) -> None:
        """Wait for the closing of `decision` from now on."""
        self.decision, self.costs, self.cost = decision, {decision: ZERO}, 0.0
        self.suspected = None

    def share(self, decision: str, paid: Decimal) -> None:
        """Another decision took some of this one's orders: what it costs beyond `paid` is this one's cost too."""
        self.costs.setdefault(decision, paid)

    def step(self, view: ScopeView) -> Step:
        """Evaluate the conditions on what was observed, and move the machine."""
        columns = self.columns = self.prepared.reader.read(self.history, view)
        latched = self.state.level > 0
        moved = step(
            self.prepared.machine,
            self.state,
            (columns.lo, columns.hi, columns.text),
            view.as_of,
            scheduled=view.scheduled,
            unit_value=self.unit_value() if latched else None,
            cost=self.cost,
        )
        self.state = moved.state
        self.eligible = frozenset(stage.name for stage in moved.eligible)
        return moved

    def excuse(self, triggers: Collection[int]) -> None:
        """Triggers that cannot be known yet: of them it is reported when they stay unknown from now on."""
        state, graph = self.state.triggers, self.prepared.graph
        since, mask, due = dict(state.unknown_since), 0, state.due
        for i in triggers:
            since[i] = self.history.last_at or since[i]
            mask |= 1 << i
            due = min(due, since[i] + (graph.triggers[i].grace or 0))
        moved = replace(state, unknown_since=since, reported=state.reported & ~mask, due=due)
        self.state = replace(self.state, triggers=moved)

    def unit_value(self) -> Interval | None:
        """The unit value now, to stand beside that of the last firing; None where it is unknown."""
        if self.history.unknown is not None and self.history.dark is None:
            return None
        since = self.state.fired_at if self.state.fired_at is not None else self.history.last_at
        return unit_value(self.history, since or 0)

    def value_at_firing(self) -> Interval | None:
        """The unit value to be remembered of a firing now: the last that was known; None where none ever was."""
        if self.history.last_at is None:
            return None
        value = self.history.track.value
        return (value, value) if self.history.dark is None else (self.unit_value() or (value, value))

    def supposed(self, view: ScopeView, moved: Decimal = ZERO) -> int:
        """Mask of the conditions that would be true if the scope looked so, after `moved` came in since."""
        equity = ZERO if view.equity is None else view.equity - moved
        dark = self.history.dark is not None
        history = self.history.supposing_dark(view) if dark else self.history.supposing(equity)
        return self._true(history, view)

    def suspecting(self, view: ScopeView) -> int:
        """Mask of the conditions that would be true if every open fall of equity were a loss."""
        return self._true(self.history.suspecting(), view)

    def _true(self, history: History, view: ScopeView) -> int:
        columns = self.prepared.reader.read(history, view)
        return self.prepared.machine.evaluate(columns.lo, columns.hi, columns.text)[0]

    def may_suspect(self, now: int, most: int, within: int) -> bool:
        """Whether fewer than `most` suspicions lie within the time before now; this one is counted."""
        self.suspicions = [at for at in self.suspicions if now - at < within]
        self.suspicions.append(now)
        return len(self.suspicions) <= most

    def remember_barren(self, stage: str, why: str) -> bool:
        """Note that `stage` could not fire; True the first time, so that it is told once and not every tick."""
        told = f"{stage}/{why}"
        new = told not in self.state.barren
        if new:
            self.state = replace(self.state, barren=(*self.state.barren, told))
        return new

    def forget_barren(self, eligible: Collection[str]) -> None:
        """A stage that may not fire any more is news again the next time."""
        kept = tuple(told for told in self.state.barren if stage_told(told) in eligible)
        if kept != self.state.barren:
            self.state = replace(self.state, barren=kept)

    def fired_on(self, stage: Stage) -> int:
        """Mask of the triggers that are confirmed, or were when the stage fired that waits for an account."""
        confirmed, waiting = self.state.triggers.confirmed, self.waiting_for(stage)
        if waiting is not None and not stands(stage, confirmed):
            return sum(1 << i for i, name in enumerate(self.prepared.trigger_names) if name in waiting.triggers)
        return confirmed

    def waiting_for(self, stage: Stage) -> Waiting | None:
        """The close of `stage` that waits for accounts that cannot be read; None where there is none."""
        waiting = self.state.waiting
        return waiting if waiting is not None and waiting.stage == stage.name else None

    def remember_reported(self, stage: Stage, why: str) -> bool:
        """Note that people are told why `stage` does not fire; False where they were, and its close has waited since.

        Its triggers may come and go meanwhile: then it is decided on anew, and told no second time.
        """
        waiting = self.waiting_for(stage)
        if waiting is None:
            return True
        new = why not in waiting.reported
        if new:
            self.state = replace(self.state, waiting=replace(waiting, reported=(*waiting.reported, why)))
        return new

    def resting(self, stage: str, now: int) -> frozenset[str]:
        """Accounts on which `stage` has acted without latching, and not long enough ago to act again."""
        acted = self.state.acted
        return frozenset(
            key.partition("/")[2] for key, until in acted.items() if until > now and stage_told(key) == stage
        )

    def act_without_latching(self, stage: Stage, accounts: Collection[str], now: int) -> None:
        """Let the accounts rest for the stage's cooldown."""
        until = {f"{stage.name}/{account}": now + stage.cooldown for account in accounts}
        kept = {key: at for key, at in self.state.acted.items() if at > now}
        self.state = replace(self.state, acted={**kept, **until})

    # Serialising

    def memory(self) -> bytes:
        """Everything but the rows, as JSON."""
        names = self.prepared.trigger_names
        return _ENCODER.encode(
            Memory(
                to_stored(self.state, names), self.history.state(), self.decision, self.costs, self.cost,
                self.suspicions, self.suspected, self.paged,
            )
        )  # fmt: skip

    def newest_row(self, at: int) -> bytes | None:
        """The row that the tick at `at` appended, or None."""
        rows = self.history.rows
        return _ENCODER.encode(stored(rows[-1])) if rows and rows[-1].at == at else None

    def restore(self, memory: bytes, rows: list[bytes], outage: tuple[int, int] | None = None) -> None:
        """Take up where the stored watch left off; `rows` oldest first. DamagedMemoryError.

        `outage`: from when until when nothing has measured the time since.
        """
        kept, stored_rows = require_readable(MachineState(self.policy, self.scope, memory), rows)
        try:
            engine = kept.engine
            if outage is not None:
                cooldowns = {stage.name: stage.cooldown for stage in self.prepared.graph.stages}
                engine = after_outage(engine, *outage, cooldowns)
            self.state = from_stored(engine, self.prepared.trigger_names)
            self.history.restore(kept.history, stored_rows)
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:
            what = f"what was kept of {self.policy} on {self.scope} makes no sense ({type(error).__name__}: {error})"
            raise DamagedMemoryError(what) from error
        self.decision, self.costs, self.cost = kept.decision, kept.costs, kept.cost
        self.suspicions, self.suspected, self.paged = kept.suspicions, kept.suspected, kept.paged


class Rest(Struct, frozen=True):
    """A watch that only other conditions move before `until` (microseconds).

    `true` and `unknown` are the masks of its conditions now; `places` says which accounts of the snapshot it sums.
    """

    watch: Watch
    places: tuple[int, ...]
    until: int
    true: int
    unknown: int


def rest_of(watch: Watch, places: tuple[int, ...] | None, now: int) -> Rest | None:
    """The watch's rest after its last step at `now`, or None if it has none."""
    columns = watch.columns
    if places is None or columns is None or not watch.history.explained or watch.history.last_at != now:
        return None
    true, unknown = watch.prepared.machine.evaluate(columns.lo, columns.hi, columns.text)
    until = rests_until(watch.prepared.machine, watch.state, true, unknown)
    return Rest(watch, places, until, true, unknown) if until > now else None
