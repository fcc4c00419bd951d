"""One policy watching one scope: its history, its stage machine, and how both are kept."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.engine.state import State, StoredState, from_stored, initial, to_stored
from killswitch.engine.step import Step, step
from killswitch.model.snapshot import Closing
from killswitch.planning.prepared import Prepared
from killswitch.signals.columns import Columns
from killswitch.signals.history import History, HistoryState, Interval, StoredRow, Unexplained, stored
from killswitch.signals.position import ZERO
from killswitch.signals.view import ScopeView


class Memory(Struct):
    """A watch as serialised, but for its history's rows."""

    engine: StoredState
    history: HistoryState
    decision: str | None
    cost: Decimal


_MEMORY = msgjson.Decoder(Memory)
_ROW = msgjson.Decoder(StoredRow)
_ENCODER = msgjson.Encoder(decimal_format="string")


class Watch:
    """The memory of one policy on one scope. `decision` is its last firing, `cost` what closing it has cost."""

    def __init__(self, prepared: Prepared, scope: str) -> None:
        self.prepared = prepared
        self.scope = scope
        self.history = History(prepared.windows, prepared.keep, prepared.terms)
        self.state: State = initial()
        self.columns: Columns | None = None
        self.decision: str | None = None
        self.cost = ZERO

    @property
    def policy(self) -> str:
        return self.prepared.graph.policy

    def observe(self, view: ScopeView, closings: tuple[Closing, ...]) -> Unexplained | None:
        """Take the scope's view into the history, and what its last close has cost."""
        for closing in closings:
            if closing.decision == self.decision and closing.cost is not None:
                self.cost = closing.cost
        return self.history.observe(view)

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
            cost=float(self.cost) / self.history.main.units if latched and self.history.main.units else 0.0,
        )
        self.state = moved.state
        return moved

    def unit_value(self) -> Interval | None:
        """The unit value now; None where it is unknown."""
        return None if self.history.unknown is not None else self.history.unit_value()

    def supposed(self, view: ScopeView, equity: Decimal) -> int:
        """Mask of the conditions that would be true if equity were another."""
        history = self.history.supposing(float(equity))
        columns = self.prepared.reader.read(history, view)
        true, _ = self.prepared.machine.evaluate(columns.lo, columns.hi, columns.text)
        return true

    def remember_barren(self, stage: str) -> bool:
        """Note that `stage` could not fire; True the first time, so that it is told once and not every tick."""
        new = self.state.barren != stage
        if new:
            self.state = replace(self.state, barren=stage)
        return new

    def forget_barren(self) -> None:
        """No trigger holds any more: the next time is news again."""
        self.state = replace(self.state, barren=None)

    # Serialising

    def memory(self) -> bytes:
        """Everything but the rows, as JSON."""
        names = self.prepared.trigger_names
        return _ENCODER.encode(Memory(to_stored(self.state, names), self.history.state(), self.decision, self.cost))

    def newest_row(self, at: int) -> bytes | None:
        """The row that the tick at `at` appended, or None."""
        rows = self.history.rows
        return _ENCODER.encode(stored(rows[-1])) if rows and rows[-1].at == at else None

    def restore(self, memory: bytes, rows: list[bytes]) -> None:
        """Take up where the stored watch left off; `rows` oldest first."""
        kept = _MEMORY.decode(memory)
        self.state = from_stored(kept.engine, self.prepared.trigger_names)
        self.history.restore(kept.history, [_ROW.decode(row) for row in rows])
        self.decision, self.cost = kept.decision, kept.cost
