"""The stored form of a history: its state and its rows."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Raw, Struct
from msgspec.structs import replace

from killswitch.pnl_explain.account_trail import AccountTrailState
from killswitch.pnl_explain.explanation import Arrival
from killswitch.pnl_explain.ledger import ScopeLedgerState
from killswitch.pnl_explain.pending_changes import UnexplainedChange
from killswitch.signals.history.marks import MarkKey
from killswitch.valuation.scope_view import PnlKey
from killswitch.valuation.unit_value import UnitValueTrackState


class UnitValueRow(Struct, frozen=True, gc=False):
    """One observation: unit value, each position's P&L since the start of observation, and sampled marks."""

    at: int
    value: float
    pnl: dict[PnlKey, Decimal] | None
    marks: dict[MarkKey, float] | None = None


class StoredUnitValueRow(Struct, frozen=True, array_like=True, omit_defaults=True):
    """The serialised form of a row, without tuple keys, which JSON does not support."""

    at: int
    value: float
    pnl: list[tuple[str, str, str, Decimal]] | None
    marks: list[tuple[str, str, float]] | None = None


class Correction(Struct, frozen=True):
    """A correction of rows stored from `start` until before `end`, because a change was identified as a transfer.

    `undone`: a change is no longer treated as a transfer. `amount`: the transfer, in the scope's currency, negative if
    it is undone.
    """

    start: int
    end: int
    factor: float
    value: float
    undone: bool = False
    amount: Decimal = Decimal(0)


class HistoryState(Struct):
    """The serialised part of a history that is not in rows."""

    begun_at: int | None
    rebased: bool
    rebase_due: bool | None
    last_at: int | None
    gaps: list[tuple[int, int]]
    track: UnitValueTrackState
    changes: list[UnexplainedChange]
    peak: float
    corrections: list[Correction]
    equity: Decimal | None
    failures: int
    members: list[str]
    ledger: ScopeLedgerState
    open_pnl: Decimal | None = None
    """Only in state stored by versions without trails."""
    trails: dict[str, AccountTrailState] = {}
    observed: dict[str, int] = {}
    """Account → time of its last observation, microseconds."""
    awaited: dict[str, int] = {}
    """Account → since when it is watched without an observation."""
    peak_at: int = 0
    """When `peak` was observed, microseconds."""
    arrived: list[Arrival] = []
    """Money that arrived in an account a short time ago, and may come from another one of the scope."""
    collected: dict[str, Raw] = {}
    """The state of each collector, by its name."""


def corrected(row: UnitValueRow, correction: Correction) -> UnitValueRow:
    """The row with the correction applied."""
    value = restated(row.at, row.value, correction)
    return row if value == row.value else replace(row, value=value)


def restated(at: int, value: float, correction: Correction) -> float:
    """The unit value of `at` with the correction applied."""
    if at < correction.start:
        return value
    if correction.undone:
        return value * correction.factor if correction.factor > 0.0 else value
    return value / correction.factor if correction.factor > 0.0 else correction.value


def encode_row(row: UnitValueRow) -> StoredUnitValueRow:
    """The serialised form of a row."""
    pnl = None if row.pnl is None else [(*key, value) for key, value in row.pnl.items()]
    marks = None if row.marks is None else [(*key, mark) for key, mark in row.marks.items()]
    return StoredUnitValueRow(row.at, row.value, pnl, marks)


def decode_row(row: StoredUnitValueRow) -> UnitValueRow:
    """The row of its serialised form."""
    pnl = None if row.pnl is None else {(a, s, side): v for a, s, side, v in row.pnl}
    marks = None if row.marks is None else {(a, s): mark for a, s, mark in row.marks}
    return UnitValueRow(row.at, row.value, pnl, marks)
