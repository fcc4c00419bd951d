"""Backtests carry out `reduce` and `neutralise` on the paper venue, and the alternatives take their place."""

from __future__ import annotations

from decimal import Decimal

import pytest

from killswitch.graph.actions.close import Close
from killswitch.lab.alternatives import close_all
from killswitch.lab.book import BacktestBook
from killswitch.lab.outcome import Run
from tests.backtests import book, market, run, written

GEARED = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: geared}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    high: {signal: exposure.leverage, at_least: 3, on_unknown: hold}
  stages:
    - name: cut
      level: 1
      any: [high]
      cooldown: 1m
      reset: manual
      actions:
        - lock_trading: {mode: reduce_only}
        - reduce: {to: 2, of: gross, order: proportion, flows: page, adverse_move: 10%}
"""
NEUTRAL = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: neutral}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    fall: {signal: equity.drawdown_from_peak, at_least: 3%, on_unknown: hold}
  stages:
    - name: neutral
      level: 1
      any: [fall]
      cooldown: 1m
      reset: manual
      actions:
        - lock_trading: {mode: reduce_only}
        - neutralise:
            {by: beta, hub: BTC_USDT, window: 2h, sample: 1m, least: 20, if_unknown: nothing, fallback: nothing}
"""
ELSEWHERE = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: elsewhere}}
spec:
  mode: enforce
  scope: {{each: account, match: {{account: [main]}}}}
  max_gap: 10m
  triggers:
    fall: {{signal: equity.drawdown_from_peak, at_least: 5%, confirm: 1m, on_unknown: hold}}
  stages:
    - name: cut
      level: 1
      any: [fall]
      cooldown: 1m
      reset: manual
      actions:
        - lock_trading: {{mode: reduce_only}}
        - reduce: {{{cut}, order: proportion, account: other, flows: reduce, adverse_move: 10%}}
"""
BTC = [100.0 + (number % 2) for number in range(30)] + [94.0] * 5
ETH = [100.0 + 1.5 * (number % 2) for number in range(30)] + [91.0] * 5


def closed(found: Run) -> dict[str, Decimal]:
    """Symbol → value of what every firing closed."""
    sums: dict[str, Decimal] = {}
    for firing in found.firings:
        for each in firing.closed:
            sums[each.symbol] = sums.get(each.symbol, Decimal(0)) + each.contracts
    return sums


def test_a_backtest_reduces_leverage_on_the_venue() -> None:
    """2,500 contracts at 100 on 100,000; at 90 they are 225,000 on 75,000, 3 times: to 2 times a third is sold."""
    panel = market(BTC_USDT=[100.0] * 5 + [94.0] * 5 + [90.0] * 5)
    found = run(written(GEARED), panel, book({"BTC_USDT": 250_000}))
    (firing,) = found.firings
    assert firing.stage == "cut"
    assert abs(closed(found)["BTC_USDT"] - Decimal(2500) / 3) < 1
    assert firing.gross_after is not None and abs(firing.gross_after - 150_000) < 100


def test_a_backtest_neutralises_by_the_betas_of_the_bars() -> None:
    """ETH moves 1.5 times as much as BTC: long 200,000 of BTC and short 60,000 of ETH, only BTC is reduced."""
    found = run(written(NEUTRAL), market(BTC_USDT=BTC, ETH_USDT=ETH), book({"BTC_USDT": 200_000, "ETH_USDT": -60_000}))
    assert len(found.firings) == 1
    assert set(closed(found)) == {"BTC_USDT"}
    hedged = Decimal(600 * 91) * Decimal("1.5") / 94  # BTC that the short of 600 ETH hedges
    assert abs(Decimal(2000) - closed(found)["BTC_USDT"] - hedged) < 10


def two_accounts() -> BacktestBook:
    """20,000 of BTC on 20,000 in one account; long 60,000 of ETH and short 30,000 of BTC on 30,000 in the other."""
    main = book({"BTC_USDT": 20_000}, 20_000).accounts[0]
    other = book({"ETH_USDT": 60_000, "BTC_USDT": -30_000}, 30_000).accounts[0]
    return BacktestBook(name="two", accounts=(main, other.model_copy(update={"account": "other"})))


FALLEN = {"BTC_USDT": [100.0] * 5 + [94.0] * 5, "ETH_USDT": [100.0] * 10}


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        ("to: 1, of: gross", {"ETH_USDT": Decimal(600) * 564 / 882, "BTC_USDT": Decimal(300) * 564 / 882}),
        ("to: 0.5, of: net", {"ETH_USDT": Decimal(159)}),
    ],
)
def test_a_backtest_reduces_another_account_than_the_one_that_fired(cut: str, expected: dict[str, Decimal]) -> None:
    """600 ETH at 100 and 300 BTC at 94 are 88,200 gross and 31,800 net on 31,800: 56,400 are sold for 1 times
    it, 15,900 of the longs for a half."""
    found = run(written(ELSEWHERE.format(cut=cut)), market(**FALLEN), two_accounts())
    assert {each.account for firing in found.firings for each in firing.closed} == {"other"}
    sold = closed(found)
    assert sold.keys() == expected.keys()
    assert all(abs(sold[symbol] - expected[symbol]) <= Decimal("0.02") for symbol in expected)


def test_nothing_is_sold_where_the_other_account_is_not_in_the_book_and_the_reason_is_given() -> None:
    """What is not in the book is unknown, and closing everything instead closes nothing of it either."""
    policies = written(ELSEWHERE.format(cut="to: 1, of: gross"))
    alone = BacktestBook(name="alone", accounts=two_accounts().accounts[:1])
    for rule in ("staged", "close-all"):
        found = run(policies, market(**FALLEN), alone, rule)
        assert not closed(found)
        assert ["other is not in the snapshot" in (each.reason or "") for each in found.firings] == [True]


def test_closing_everything_instead_of_reducing_another_account_closes_that_one() -> None:
    """The account that fired keeps its position: the stage would not have touched it."""
    found = run(written(ELSEWHERE.format(cut="to: 1, of: net")), market(**FALLEN), two_accounts(), "close-all")
    assert closed(found) == {"ETH_USDT": Decimal(600), "BTC_USDT": Decimal(300)}
    assert {each.account for firing in found.firings for each in firing.closed} == {"other"}


def test_closing_everything_instead_takes_the_place_of_both() -> None:
    """The alternative of a full close at the first trigger knows stages that reduce or neutralise."""
    for text in (GEARED, NEUTRAL):
        (graph,) = close_all(written(text)).graphs
        assert any(isinstance(action, Close) and action.fraction == 1 for action in graph.stages[0].actions)
    panel = market(BTC_USDT=[100.0] * 5 + [90.0] * 5)
    found = run(written(GEARED), panel, book({"BTC_USDT": 250_000}), rule="close-all")
    assert closed(found) == {"BTC_USDT": Decimal(2500)}
