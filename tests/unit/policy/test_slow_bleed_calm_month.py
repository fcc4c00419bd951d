"""The conditions of the published guard on a calm month, with the signals of the product on recorded bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from killswitch.graph.nodes import SignalRef
from killswitch.model.instant import DAY, HOUR, MINUTE
from killswitch.signals.signal_values import ColumnReader
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import account, position
from tests.worlds.signals import history_of

HALVES = {"BTC": 0.5, "ETH": 0.5}
HEDGE = {"BTC": 0.5, "ETH": -0.5}


def month(shared: Path, shares: Mapping[str, float], gross: float) -> tuple[list[int], list[float]]:
    """The ends of the bars of May 2025, and the value then of a book that is held at this gross of its equity."""
    folder = shared / "data" / "market" / "calm-2025-05_binance-swap_1m"
    bars = {name: pq.read_table(folder / f"{name}_USDT_USDT.parquet") for name in shares}
    closes = {
        name: dict(zip(each["ts"].to_pylist(), each["close"].to_pylist(), strict=True)) for name, each in bars.items()
    }
    minutes = sorted(set.intersection(*(set(each) for each in closes.values())))
    values, value, before = [], 100_000.0, minutes[0]
    for minute in minutes:
        made = sum(share * (closes[name][minute] / closes[name][before] - 1) for name, share in shares.items())
        value, before = value * (1 + gross * made), minute
        values.append(value)
    return [(minute + 60_000) * 1000 for minute in minutes], values


def days_met(minutes: Sequence[int], values: Sequence[float]) -> tuple[int, int, int]:
    """UTC days on which the signals of the product met L2's condition for 3 minutes, since the 48 h are complete and
    from the begin, and L4's."""
    used = [SignalRef("equity.drawdown", (48 * HOUR,)), SignalRef("equity.loss_since", ("utc_day",))]
    past, reader = history_of(used, 48 * HOUR), ColumnReader(used)
    fallen, from_begin, lost = set[int](), set[int](), set[int]()
    since: int | None = None
    for at, value in zip(minutes, values, strict=True):
        price = Decimal(f"{value:.6f}")
        held = [
            position("BOOK", "long", f"{price - 100_000}", contracts="1", notional=f"{price}", mark_price=f"{price}")
        ]
        view = ScopeView(at, True, (account(f"{price}", held),), {}, None)
        past.observe(view)
        read = reader.read(past, view)
        since = None if read.lo[0] < 0.05 else at if since is None else since
        if since is not None and at - since >= 3 * MINUTE:
            from_begin.add(at // DAY)
            if at - minutes[0] >= 48 * HOUR:
                fallen.add(at // DAY)
        if read.lo[1] >= 0.06:
            lost.add(at // DAY)
    return len(fallen), len(from_begin), len(lost)


@pytest.mark.parametrize(
    ("shares", "gross", "gain", "days"),
    [(HALVES, 3, 0.92, (27, 29, 13)), (HALVES, 1, 0.27, (10, 10, 0)), (HEDGE, 0.5, -0.07, (2, 2, 0))],
    ids=["long, 3x", "long, 1x", "hedged, 0.5x"],
)
def test_a_calm_month_meets_the_published_conditions_on_most_days(
    shared: Path, shares: Mapping[str, float], gross: float, gain: float, days: tuple[int, int, int]
) -> None:
    """A long book of three times its equity that almost doubled was 5% below its highest of 48 hours on 27 of 30 days.

    The source has 27 and 13 days at 3x, 7 and 0 at 1x, 2 and 0 hedged, and does not say which book; this one is half
    BTC and half ETH, at a constant gross: 10 days at 1x.
    """
    minutes, values = month(shared, shares, gross)
    assert values[-1] / values[0] - 1 == pytest.approx(gain, abs=0.01)
    assert days_met(minutes, values) == days
