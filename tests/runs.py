"""Short constructors of backtest runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from killswitch.lab.campaign import BookRuns
from killswitch.lab.families import FamilyBook, Kind, half_and_half
from killswitch.lab.outcome import BacktestFiring, ClosedAmount, Liquidation, Run, RunCurve
from killswitch.model.decision import TriggerReading
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import Side

START = datetime(2024, 1, 1, tzinfo=UTC)


def run(rule: str, final: str, fall: str = "0.1", **more: Any) -> Run:
    """100,000 at the start, gross 300,000, ten bars."""
    fields: dict[str, Any] = {
        "book": "b", "market": "m", "begins": START, "ends": START + timedelta(minutes=9), "bars": 10,
        "complete": True, "start_equity": Decimal(100_000), "lowest_equity": Decimal(90_000),
        "lowest_at": START + timedelta(minutes=5), "worst_from": START, "worst_at": START + timedelta(minutes=5),
        "gross_start": Decimal(300_000), "gross_end": Decimal(0), "gross_mean": Decimal(150_000),
        "turnover": Decimal(300_000), "fees": Decimal(150), "slippage": Decimal(50), "firings": (),
        "liquidations": (), "notices": 0,
    }  # fmt: skip
    return Run(rule=rule, final_equity=Decimal(final), worst_drawdown=Decimal(fall), **(fields | more))


def firing(
    minute: int, *closed: tuple[str, Side], after: str = "100000", level: int = 1, **more: Any
) -> BacktestFiring:
    """A stage that closed 1,000 of each of `closed`, and left `after` of 200,000."""
    at = START + timedelta(minutes=minute)
    fields: dict[str, Any] = {
        "decision": f"d{minute}", "at": at, "policy": "futures-drawdown", "scope": "account/main", "stage": "trim",
        "level": level, "source": "LONG", "gross_before": Decimal(200_000), "ended": "flat",
        "triggers": (TriggerReading("fall-15m-1", ("0.0512", "0.0512"), "0.045"),),
        "verified_at": at + timedelta(seconds=3), "hedge": "open", "hedge_kept": Decimal(1), "orders": len(closed),
        "cost": Decimal(12),
    }  # fmt: skip
    gone = tuple(ClosedAmount("main", symbol, side, Decimal(10), Decimal(1000)) for symbol, side in closed)
    return BacktestFiring(gross_after=Decimal(after), closed=gone, **(fields | more))


def liquidation() -> Liquidation:
    return Liquidation(START, "main", "BTC_USDT", "long", Decimal(1), Decimal(40_000))


def course(*equity: float, symbols: tuple[str, ...] = ("BTC_USDT", "ETH_USDT")) -> RunCurve:
    """A minute a bar."""
    at = [to_micros(START + timedelta(minutes=minute)) for minute in range(len(equity))]
    flat = [0.0] * len(at)
    return RunCurve(at, list(equity), flat, flat, {symbol: [1000.0] * len(at) for symbol in symbols})


def tried(*runs: Run, name: str = "b", kind: Kind = "split", market: str = "m") -> BookRuns:
    book = half_and_half(("BTC_USDT", "ETH_USDT")).model_copy(update={"name": name})
    return BookRuns(market, FamilyBook(kind, book), runs)
