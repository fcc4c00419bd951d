"""Backtests close in the declared order, at the declared pace and both legs of a hedge, as a live run does."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from killswitch.graph.nodes import PolicySet
from killswitch.lab.book import BacktestBook
from killswitch.lab.outcome import BacktestFiring, Run
from killswitch.model.snapshot import Side
from tests.backtests import book, market, run, written

CLOSING = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: closing}}
spec:
  mode: enforce
  scope: {{each: account, match: {{account: [main]}}}}
  max_gap: 10m
  triggers:
    fall: {{signal: equity.drawdown_from_peak, at_least: 3%, on_unknown: hold}}
  stages:
    - name: cut
      level: 1
      any: [fall]
      cooldown: 1h
      reset: manual
      actions:
        - lock_trading: {{mode: reduce_only}}
        - close: {{side: both, fraction: {fraction}{more}}}
---
apiVersion: killswitch.dev/v1
kind: Unwinding
metadata: {{name: paced}}
spec: {{max_orders_per_minute: 1}}
"""
FIRST = """
---
apiVersion: killswitch.dev/v1
kind: CorrelationGroup
metadata: {name: first}
spec: {symbols: [C_USDT], order: 1}
"""
PAIR = """
---
apiVersion: killswitch.dev/v1
kind: HedgeGroup
metadata: {name: pair}
spec:
  legs:
    - {account: main, symbol: BTC_USDT, ratio: 1}
    - {account: other, symbol: BTC_USDT, ratio: 1}
"""
CENT = 0.01
"""In the last bar, which gives a symbol a tick of a cent."""
LOCK = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: of-a-symbol}
spec:
  mode: enforce
  scope: {each: symbol, match: {account: [main], currency: USDT}, symbol: [A_USDT]}
  max_gap: 10m
  triggers:
    low: {signal: exposure.gross, below: 19500 USDT, on_unknown: hold}
  stages:
    - {name: lock, level: 1, any: [low], cooldown: 1h, reset: manual, actions: [{lock_trading: {mode: all}}]}
"""


def policy(fraction: str = "100%", more: str = "", documents: str = "") -> PolicySet:
    return written(CLOSING.format(fraction=fraction, more=more) + documents)


def values(firing: BacktestFiring) -> dict[str, Decimal]:
    """Symbol → what was closed, in the order of the closes."""
    return {each.symbol: each.notional for each in firing.closed}


def contracts(found: Run) -> dict[tuple[str, str, Side], Decimal]:
    return {
        (each.account, each.symbol, each.side): each.contracts for firing in found.firings for each in firing.closed
    }


@pytest.mark.parametrize(
    ("more", "documents", "expected"),
    [
        (", unwinding: paced", FIRST, {"C_USDT": 96, "B_USDT": 93, "A_USDT": 91}),
        (", unwinding: paced", "", {"B_USDT": 94, "A_USDT": 93, "C_USDT": 94}),
        ("", FIRST, {"C_USDT": 96, "B_USDT": 94, "A_USDT": 95}),
    ],
    ids=["a group first, at a pace", "the worst first, at a pace", "at once"],
)
def test_orders_go_in_the_declared_order_and_one_each_minute(
    more: str, documents: str, expected: dict[str, float]
) -> None:
    """300 of each, at the prices of their minutes: B falls by 6, A by 5 and C by 4, then each by 1 or 2 a minute."""
    panel = market(
        A_USDT=[100.0] * 5 + [95.0, 93.0, 91.0, 89.0, 87 + CENT],
        B_USDT=[100.0] * 5 + [94.0, 93.0, 92.0, 91.0, 90 + CENT],
        C_USDT=[100.0] * 5 + [96.0, 95.0, 94.0, 93.0, 92 + CENT],
    )
    held = book({"A_USDT": 30_000, "B_USDT": 30_000, "C_USDT": 30_000})
    (firing,) = run(policy(more=more, documents=documents), panel, held).firings
    found = values(firing)
    assert list(found) == list(expected)
    for symbol, price in expected.items():  # within the half spread of 0.01%, rounded to a cent
        assert Decimal(300) * (Decimal(price) - Decimal("0.02")) <= found[symbol] < Decimal(300) * Decimal(price)
    assert firing.verified_at is not None
    took = firing.verified_at - firing.at
    assert timedelta(minutes=2) <= took < timedelta(minutes=3) if more else took < timedelta(minutes=1)


def pair(*, other: bool = True) -> BacktestBook:
    """Short 30,000 of BTC and long 40,000 of ETH in one account, the other leg of BTC in another one."""
    main = book({"BTC_USDT": -30_000, "ETH_USDT": 40_000}, 50_000).accounts[0]
    leg = book({"BTC_USDT": 30_000}, 50_000).accounts[0].model_copy(update={"account": "other"})
    return BacktestBook(name="pair", accounts=(main, leg) if other else (main,))


FALL = market(BTC_USDT=[100.0] * 10, ETH_USDT=[100.0] * 5 + [95.0] * 5)


def test_both_legs_of_a_hedge_are_cut_together_also_on_another_account() -> None:
    """A half of 300 BTC in each account, and of 400 ETH."""
    found = run(policy("50%", documents=PAIR), FALL, pair())
    assert contracts(found) == {
        ("main", "BTC_USDT", "short"): Decimal(150), ("other", "BTC_USDT", "long"): Decimal(150),
        ("main", "ETH_USDT", "long"): Decimal(200),
    }  # fmt: skip


def test_a_leg_is_not_trimmed_where_the_other_one_is_unknown() -> None:
    """The other account is not in the book; without the group the leg is an ordinary short."""
    found = run(policy("50%", documents=PAIR), FALL, pair(other=False))
    assert contracts(found) == {("main", "ETH_USDT", "long"): Decimal(200)}
    assert ("main", "BTC_USDT", "short") in contracts(run(policy("50%"), FALL, pair(other=False)))


def test_a_lock_of_one_symbol_is_shown_with_its_scope_and_closes_nothing() -> None:
    """A falls by 5% to 19,000, and B does not."""
    panel = market(A_USDT=[100.0] * 5 + [95.0] * 5, B_USDT=[100.0] * 10)
    found = run(written(LOCK), panel, book({"A_USDT": 20_000, "B_USDT": 20_000}))
    (firing,) = found.firings
    assert firing.effects == ("lock symbol/A_USDT: all until it is lifted",)
    assert (firing.closed, found.turnover) == ((), Decimal(0))
