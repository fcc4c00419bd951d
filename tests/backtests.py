"""Backtests for tests, written the short way: markets from prices, books from words, the local paper venue."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from killswitch.graph.compile import compile_policies
from killswitch.graph.nodes import PolicySet
from killswitch.lab.backtest import Rule, backtest
from killswitch.lab.bars import BarTable, Series
from killswitch.lab.book import BacktestBook, BookAccount, BookPosition
from killswitch.lab.crash import CrashModel, crash_bars
from killswitch.lab.outcome import Run
from killswitch.lab.price_matrix import PriceMatrix
from killswitch.market.paper import PaperMarket
from killswitch.model.clock import Clock
from killswitch.policy.loader import load
from killswitch_paper.local import LocalVenue

MINUTE = 60_000_000
BEGINS = 1_600_000_000_000_000 // MINUTE * MINUTE
POLICIES = Path(__file__).resolve().parent.parent / "policies"


def local(market: PaperMarket, account: str, clock: Clock) -> LocalVenue:
    """The paper venue in this process."""
    return LocalVenue(account, market, clock)


def series(symbol: str, closes: Sequence[float], minutes: Sequence[int] | None = None, **more: Any) -> Series:
    """Bars a minute apart that open where the one before closed; `low` and `high` by bar, or just as wide as needed."""
    opened = [closes[0], *closes[:-1]]
    fields: dict[str, list[float]] = {
        "high": [max(pair) for pair in zip(opened, closes, strict=True)],
        "low": [min(pair) for pair in zip(opened, closes, strict=True)],
        "volume": [1e9] * len(closes),
        **more,
    }
    at = [BEGINS + minute * MINUTE for minute in (minutes or range(len(closes)))]
    return Series(symbol, at, opened, fields["high"], fields["low"], list(closes), fields["volume"])


def market(**closes: Sequence[float]) -> PriceMatrix:
    """A market of symbols with these closes."""
    return PriceMatrix(BarTable("test", [series(symbol, prices) for symbol, prices in closes.items()]))


def book(
    positions: Mapping[str, int], equity: int = 100_000, *, leverage: int = 5, market: str = "swap"
) -> BacktestBook:
    """One account `main`; notionals below zero are short."""
    found = tuple(
        BookPosition(
            symbol=symbol,
            side="long" if notional > 0 else "short",
            notional=Decimal(abs(notional)),
            leverage=Decimal(leverage) if market == "swap" else None,
        )
        for symbol, notional in positions.items()
    )
    account = BookAccount(
        account="main",
        market=market,  # type: ignore[arg-type] # a literal by the caller
        currency="USDT",
        equity=Decimal(equity),
        positions=found,
    )
    return BacktestBook(name="test", accounts=(account,))


def shipped(name: str) -> PolicySet:
    """The shipped policies of this folder."""
    policies, problems = compile_policies(load([POLICIES / name]).documents)
    assert policies is not None, problems
    return policies


def written(text: str) -> PolicySet:
    """The policies of this YAML."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.yaml"
        path.write_text(text, encoding="utf-8")
        read = load([path])
        policies, problems = compile_policies(read.documents)
    assert policies is not None and policies.graphs, (*read.diagnostics, *problems)
    return policies


def run(policies: PolicySet, panel: PriceMatrix, held: BacktestBook, rule: Rule = "staged", **more: Any) -> Run:
    """The backtest, run to its end."""
    return asyncio.run(backtest(policies, panel, held, rule=rule, venue=local, **more))


def calm_bars(seed: int, minutes: int) -> BarTable:
    """The generated market without a crash: `minutes` calm minutes, two prices in each."""
    return crash_bars(seed, CrashModel(calm=minutes, crash=0, rebound=0, after=0, steps=2))
