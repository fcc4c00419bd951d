"""Snapshots of many accounts with 50 positions each, and the same facts as arrays for a reference in NumPy.

Prices walk at random in steps of a thousandth, with the same prices for all accounts of a tick. Each account holds
every symbol, half of them short, in quantities of its own; its equity is its wallet plus its unrealised profit, so that
prices explain every change. Each account has its own numbers in memory, as after decoding a venue's answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.snapshot import AccountSnapshot, Balance, Instrument, Position, Snapshot

HELD = 50
"""Positions of an account."""
WALLET = Decimal(100_000)
BEGINS = datetime(2026, 1, 1, tzinfo=UTC)
SYMBOLS = tuple(f"COIN{number}/USDT:USDT" for number in range(HELD))

Array = np.ndarray[Any, Any]


class Holdings(Struct, frozen=True):
    """What the accounts hold. `contracts` and `entries`: accounts × 50; `signs`: ±1 for each symbol."""

    contracts: Array
    entries: Array
    signs: Array

    @classmethod
    def of(cls, accounts: int, seed: int = 20260101) -> Holdings:
        """Random quantities of a hundred base units and prices near 100, exact at three and two decimals."""
        random = np.random.default_rng(seed)
        contracts = random.integers(50_000, 150_000, (accounts, HELD)) / 1000
        entries = random.integers(9_500, 10_500, (accounts, HELD)) / 100
        return cls(contracts, entries, np.where(np.arange(HELD) % 2, -1.0, 1.0))


def walk(ticks: int, seed: int = 7) -> Array:
    """Mark prices, ticks × 50, at two decimals."""
    random = np.random.default_rng(seed)
    walked: Array = np.round(100 * np.exp(np.cumsum(random.normal(0, 0.001, (ticks, HELD)), axis=0)), 2)
    return walked


def snapshots(
    holdings: Holdings, marks: Array, interval: timedelta, *, halves: bool = False, begins: datetime = BEGINS
) -> Iterator[Snapshot]:
    """A snapshot for each row of `marks` from `begins` on, made when it is requested.

    `halves`: accounts are polled at every second tick, half of them at each; the others are as in the tick before.
    """
    last: list[AccountSnapshot] = []
    for tick, row in enumerate(marks):
        prices = [f"{price:.2f}" for price in row.tolist()]
        at = begins + tick * interval
        numbers = range(len(holdings.contracts))
        if not last:
            last = [_account(holdings, number, prices, at, with_rules=True) for number in numbers]
        else:
            last = [
                _unpolled(last[number])
                if halves and (number + tick) % 2
                else _account(holdings, number, prices, at, with_rules=False)
                for number in numbers
            ]
        yield Snapshot(as_of=at, accounts=tuple(last), format="killswitch.snapshot/v1")


def _unpolled(account: AccountSnapshot) -> AccountSnapshot:
    """The account at a tick that does not poll it: positions as they were, no new rows, no rules."""
    return replace(account, flows=(), fills=(), instruments=None)


def _account(holdings: Holdings, number: int, prices: list[str], at: datetime, *, with_rules: bool) -> AccountSnapshot:
    contracts, entries = holdings.contracts[number].tolist(), holdings.entries[number].tolist()
    positions = tuple(
        _position(symbol, sign > 0, size, entry, mark, at)
        for symbol, sign, size, entry, mark in zip(
            SYMBOLS, holdings.signs.tolist(), contracts, entries, prices, strict=True
        )
    )
    unrealized = sum((position.unrealized_pnl or Decimal(0) for position in positions), Decimal(0))
    return AccountSnapshot(
        account=f"account-{number}",
        venue=f"venue-{number % 5}",
        market="swap",
        currency="USDT",
        quality="ok",
        observed_at=at,
        equity=WALLET + unrealized,
        free=WALLET / 2,
        margin_used=WALLET / 2,
        maintenance_margin=WALLET / 20,
        margin_mode="cross",
        position_mode="one_way",
        balances=(Balance("USDT", WALLET, Decimal(1), wallet=WALLET, equity=WALLET + unrealized, price_at=at),),
        flows=(),
        positions=positions,
        orders=(),
        fills=(),
        instruments=tuple(_rules(symbol) for symbol in SYMBOLS) if with_rules else None,
        unrealized=unrealized,
        wallet_as_of=at,
        positions_as_of=at,
        fills_as_of=at,
        flows_as_of=at,
        row_lag_s=0.0,
        complete=True,
    )


def _position(symbol: str, long: bool, contracts: float, entry: float, mark: str, at: datetime) -> Position:
    size, opened, price = Decimal(f"{contracts:.3f}"), Decimal(f"{entry:.2f}"), Decimal(mark)
    profit, notional = size * (price - opened), size * price
    return Position(
        symbol=symbol,
        side="long" if long else "short",
        contracts=size,
        entry_price=opened,
        mark_price=price,
        index_price=Decimal(mark),
        last_price=Decimal(mark),
        liquidation_price=Decimal("20.00") if long else Decimal("500.00"),
        notional=notional,
        margin=notional / 10,
        leverage=Decimal(10),
        unrealized_pnl=profit if long else -profit,
        mark_at=at,
    )


def _rules(symbol: str) -> Instrument:
    return Instrument(
        symbol,
        contract_size=Decimal(1),
        amount_step=Decimal("0.001"),
        price_step=Decimal("0.01"),
        min_amount=Decimal("0.001"),
        state="open",
    )


class ArraySignals:
    """The same arithmetic on float64 columns: accounts × 50, over the rows of the last `rows` ticks."""

    def __init__(self, holdings: Holdings, rows: int) -> None:
        accounts = len(holdings.contracts)
        self._holdings = holdings
        self._quantities = holdings.contracts * holdings.signs
        self._long = holdings.signs > 0
        self._liquidations = np.where(self._long, 20.0, 500.0)
        self._rows, self._tick = rows, 0
        self._equities = np.full((rows, accounts), -np.inf)
        self._profits = np.zeros((rows, accounts, HELD))
        self._accounts = np.arange(accounts)

    def tick(self, marks: Array) -> dict[str, Array]:
        """Signal → its value for each account; a share is NaN where neither side lost. `marks`: accounts × 50."""
        held = self._holdings
        profits = self._quantities * (marks - held.entries)
        equity = float(WALLET) + profits.sum(axis=1)
        notionals = held.contracts * marks
        gross = notionals.sum(axis=1)
        newest = self._tick % self._rows
        self._equities[newest], self._profits[newest] = equity, profits
        self._tick += 1
        highest = self._equities.argmax(axis=0)
        peak = self._equities[highest, self._accounts]
        lost = self._profits[highest, self._accounts] - profits
        long = np.maximum(lost[:, self._long].sum(axis=1), 0.0)
        short = np.maximum(lost[:, ~self._long].sum(axis=1), 0.0)
        with np.errstate(invalid="ignore"):
            share = long / (long + short)
        return {
            "fall": 1 - equity / peak,
            "leverage": gross / equity,
            "largest": notionals.max(axis=1) / gross,
            "one-side": share,
            "liquidation": (np.abs(marks - self._liquidations) / marks).min(axis=1),
        }
