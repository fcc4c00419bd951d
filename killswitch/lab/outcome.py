"""Results of a backtest as frozen records, from which pages, tables and summaries are made.

Money and quantities are Decimal in the accounts' currency and in contracts; a `RunCurve` is for charts and has floats.
The JSON answer contains everything except curves.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal

from msgspec import Struct, field

from killswitch.model.decision import TriggerReading
from killswitch.model.snapshot import ClosingStatus, Instant, Side
from killswitch.model.words import Source

BACKTEST_FORMAT: Final = "killswitch.backtest/v1"

Hedge = Literal["open", "reduced", "closed"]
"""What was left of the side that did not lose when the close of the losing one was verified."""


TransferStatus = Literal["moved", "refused", "unknown", "planned"]
"""`unknown`: sent, and never answered. `planned`: the run ended before it was sent."""


class ClosedAmount(Struct, frozen=True):
    """What was traded of one position: contracts, and their value at the average price."""

    account: str
    symbol: str
    side: Side
    contracts: Decimal
    notional: Decimal


class FiredTransfer(Struct, frozen=True):
    """Margin that a stage moves from one account of the book to another, and what has become of it."""

    source: str = field(name="from")
    account: str = field(name="to")
    currency: str
    amount: Decimal
    status: TransferStatus


class BacktestFiring(Struct, frozen=True):
    """A stage that fired, and the result of its close.

    `verified_at` is when the venue showed every target reached, None where it never did. `hedge` and `hedge_kept` (the
    fraction of its notional) are None where no side lost or nothing hedged it.
    """

    decision: str
    at: Instant
    policy: str
    scope: str
    stage: str | None
    level: int
    source: Source | None
    triggers: tuple[TriggerReading, ...]
    gross_before: Decimal | None
    gross_after: Decimal | None
    ended: ClosingStatus | None
    """None: there was nothing to close."""
    verified_at: Instant | None
    hedge: Hedge | None
    hedge_kept: Decimal | None
    orders: int
    closed: tuple[ClosedAmount, ...]
    cost: Decimal | None
    """Fees and slippage of its close; None where unknown."""
    opened: tuple[ClosedAmount, ...] = ()
    """What it opened as a hedge."""
    transfer: FiredTransfer | None = None
    effects: tuple[str, ...] = ()
    """Every effect of its decision, in words, in the order of execution."""
    reason: str | None = None
    """What its actions computed, or why they did nothing; None where there is nothing to add."""


class Liquidation(Struct, frozen=True):
    """What the venue liquidated of a position inside one bar, and the average price."""

    at: Instant
    account: str
    symbol: str
    side: Side
    contracts: Decimal
    price: Decimal


class RunCurve(Struct, frozen=True):
    """The equity curve of a run, one entry for each bar close, oldest first: sums over all accounts.

    `at` is in microseconds. P&L by side is realised and unrealised since the start, before fees. `held` is each
    symbol's signed notional: below zero is short.
    """

    at: list[int]
    equity: list[float]
    long_pnl: list[float]
    short_pnl: list[float]
    held: dict[str, list[float]]


class Run(Struct, frozen=True):
    """One book through one market under one rule.

    `worst_drawdown` is the greatest fall of equity from an earlier peak, as a fraction of the peak, at bar closes; more
    than 1 is a debt. `turnover` is all notional traded. `gross_mean` is the mean over the bars of gross notional at bar
    closes. `complete` is false where the run was stopped before the last bar.
    """

    rule: str
    book: str
    market: str
    begins: Instant
    ends: Instant
    bars: int
    complete: bool
    start_equity: Decimal
    final_equity: Decimal
    lowest_equity: Decimal
    lowest_at: Instant
    worst_drawdown: Decimal
    worst_from: Instant
    worst_at: Instant
    gross_start: Decimal
    gross_end: Decimal
    gross_mean: Decimal
    turnover: Decimal
    fees: Decimal
    slippage: Decimal
    firings: tuple[BacktestFiring, ...]
    liquidations: tuple[Liquidation, ...]
    notices: int
    course: RunCurve | None = None
