"""The figures of a backtest, compared with sums worked out by hand."""

from __future__ import annotations

from decimal import Decimal
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.lab.alternatives import close_all, in_proportion
from killswitch.lab.bars import BarsError, BarTable, read_market
from killswitch.lab.price_matrix import PriceMatrix
from killswitch.market.rules import MarketRules
from killswitch.model.snapshot import Snapshot
from tests.backtests import BEGINS, MINUTE, book, market, run, series, shipped, written
from tests.decisions import cut
from tests.worlds import START, account, position, rules

FREE = MarketRules(
    taker_fee=Decimal(0), maker_fee=Decimal(0), half_spread=Decimal(0), impact=Decimal(0), participation=Decimal(1)
)
POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: losing-side}}
spec:
  mode: {mode}
  scope: {{each: account, match: {{}}}}
  max_gap: 10m
  triggers:
    fallen: {{signal: equity.drawdown, window: 15m, at_least: 5%, on_unknown: hold}}
    fallen-more: {{signal: equity.drawdown, window: 15m, at_least: 20%, on_unknown: hold}}
  stages:
    - name: losing-side
      level: 1
      any: [fallen]
      cooldown: 1h
      reset: manual
      attribution: {{source_at_least: 65%, if_mixed: both, if_unknown: both}}
      actions: [{{close: {{side: losing, fraction: {fraction}}}}}]
    - name: all
      level: 2
      any: [fallen-more]
      cooldown: 1h
      reset: manual
      actions: [{{close: {{side: both, fraction: 100%}}}}]
"""
QUIET = [100.0] * 20


def policy(fraction: str = "100%", mode: str = "enforce"):
    return written(POLICY.format(fraction=fraction, mode=mode))


def test_without_protection_equity_is_the_book_times_the_prices() -> None:
    """100,000 long a symbol that goes from 100 through 70 to 80, on 100,000: lowest 70,000, final 80,000."""
    found = run(policy(), market(A=[*QUIET, 70.0, 80.0]), book({"A": 100_000}), "none")
    assert (found.lowest_equity, found.final_equity) == (70_000, 80_000)
    assert found.worst_drawdown == Decimal("0.3")
    assert (found.fees, found.turnover, found.firings) == (0, 0, ())
    assert (found.gross_start, found.gross_end) == (100_000, 80_000)


def test_the_losing_side_is_closed_at_the_price_that_fired_and_the_hedge_stays() -> None:
    """A falls by 8% (8,000 of 100,000), B is unchanged: A is sold at 92, and its later fall costs nothing more."""
    prices = {"A": [*QUIET, 92.0, 50.0, 50.0], "B": [*QUIET, 100.0, 100.0, 90.0]}
    found = run(policy(), market(**prices), book({"A": 100_000, "B": -50_000}), rules=FREE, with_curve=True)
    (fired,) = found.firings
    assert (fired.stage, fired.source, fired.ended) == ("losing-side", "LONG", "flat")
    assert [(each.symbol, each.contracts, each.notional) for each in fired.closed] == [("A", 1000, 92_000)]
    assert (fired.hedge, fired.hedge_kept) == ("open", 1)
    assert fired.verified_at is not None and fired.verified_at >= fired.at
    assert found.final_equity == 92_000 + 5_000  # the short B has won 10% of 50,000
    assert (found.turnover, found.fees, found.slippage) == (92_000, 0, 0)
    assert found.course is not None
    assert found.course.long_pnl[-1] == -8_000
    assert found.course.short_pnl[-1] == 5_000
    assert [found.course.held["A"][-1], found.course.held["B"][-1]] == [0, -45_000]


def test_fees_and_slippage_are_what_the_fills_cost_against_the_mark() -> None:
    """Fee 0.05%, half spread 1%: 1,000 sold at 91, which is 91.08 rounded down to the tick of 1."""
    terms = MarketRules(taker_fee=Decimal("0.0005"), half_spread=Decimal("0.01"), impact=Decimal(0))
    found = run(policy(), market(A=[*QUIET, 92.0, 92.0]), book({"A": 100_000}), rules=terms)
    assert found.turnover == 91_000
    assert found.fees == Decimal("45.5")
    assert found.slippage == 1000
    assert found.final_equity == 91_000 - found.fees
    assert found.firings[0].cost == found.fees + found.slippage


def test_closing_everything_at_the_first_trigger_closes_the_hedge_too() -> None:
    """The same fall: nothing is left, and the hedge's later gain is missed."""
    prices = {"A": [*QUIET, 92.0, 50.0, 50.0], "B": [*QUIET, 100.0, 100.0, 90.0]}
    found = run(policy(), market(**prices), book({"A": 100_000, "B": -50_000}), "close-all", rules=FREE)
    first = found.firings[0]
    assert {each.symbol for each in first.closed} == {"A", "B"}
    assert (first.hedge, first.hedge_kept) == ("closed", 0)
    assert (found.final_equity, found.gross_end) == (92_000, 0)


def test_in_proportion_cuts_the_same_gross_from_every_position() -> None:
    """Gross is 142,000 when it fires; closing half of A takes 46,000, which is 32.4% of A and of B."""
    prices = {"A": [*QUIET, 92.0], "B": [*QUIET, 100.0]}
    held = book({"A": 100_000, "B": -50_000})
    staged = run(policy("50%"), market(**prices), held, rules=FREE)
    spread = run(policy("50%"), market(**prices), held, "in-proportion", rules=FREE)
    assert staged.turnover == 46_000
    assert 0 <= spread.turnover - 46_000 <= 2  # rounded up to a lot of 0.01 of each
    worth = {each.symbol: each.notional for each in spread.firings[0].closed}
    assert float(worth["A"] / 92_000) == pytest.approx(46 / 142, abs=1e-4)
    assert float(worth["B"] / 50_000) == pytest.approx(46 / 142, abs=1e-4)
    assert spread.firings[0].hedge == "reduced"


TWO = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: {side}s}}
spec:
  mode: enforce
  scope: {{each: account, match: {{}}}}
  max_gap: 10m
  triggers: {{fallen: {{signal: equity.drawdown, window: 15m, at_least: 5%, on_unknown: hold}}}}
  stages:
    - name: one-side
      level: 1
      any: [fallen]
      cooldown: 1h
      reset: manual
      actions: [{{close: {{side: {side}, fraction: 100%}}}}]
"""


def test_in_proportion_adds_up_simultaneous_cuts_of_two_policies() -> None:
    """One closes the longs and the other the shorts: together that is everything, however it is spread."""
    both = written("---".join(TWO.format(side=side) for side in ("long", "short")))
    prices = market(A=[*QUIET, 92.0, 92.0], B=[*QUIET, 100.0, 100.0])
    held = book({"A": 100_000, "B": -50_000})
    runs = [run(both, prices, held, rule, rules=FREE) for rule in ("staged", "in-proportion")]
    assert [(found.gross_end, found.turnover) for found in runs] == [(0, 142_000)] * 2


def test_in_proportion_closes_everything_where_the_policy_does_during_an_unfinished_cut() -> None:
    """Half of the longs are being closed and only a part could trade when the second level closes everything."""
    volume = [100.0] * 22 + [1e9] * 2
    prices = ([*QUIET, 94.0, 70.0, 70.0, 70.0], [*QUIET, 100.0, 100.0, 100.0, 100.0])
    thin = [series(name, closes, volume=volume) for name, closes in zip("AB", prices, strict=True)]
    held = book({"A": 100_000, "B": -50_000})
    for fraction in ("50%", "100%"):
        runs = [
            run(policy(fraction), PriceMatrix(BarTable("thin", thin)), held, rule, rules=FREE)
            for rule in ("staged", "in-proportion")
        ]
        assert [[fired.stage for fired in found.firings] for found in runs] == [["losing-side", "all"]] * 2
        assert [found.gross_end for found in runs] == [0, 0]


def test_a_policy_that_observes_closes_nothing() -> None:
    """It decides, but no firing is shown as if it had acted."""
    found = run(policy(mode="observe"), market(A=[*QUIET, 92.0, 80.0]), book({"A": 100_000}))
    assert (found.turnover, found.firings, found.final_equity) == (0, (), 80_000)


def test_a_liquidation_is_listed_with_its_price() -> None:
    """Long ten times the equity: a fall by 12% inside one bar exceeds the equity."""
    wick = [*QUIET, 100.0, 100.0]
    low = [*QUIET, 88.0, 100.0]
    matrix = PriceMatrix(BarTable("wick", [series("A", wick, low=low)]))
    found = run(policy(), matrix, book({"A": 1_000_000}, leverage=20), "none")
    (taken,) = found.liquidations  # in steps, but inside one bar
    assert (taken.symbol, taken.side) == ("A", "long")
    assert 88 <= taken.price < 91
    assert found.final_equity < 20_000


def test_a_close_larger_than_the_bar_volume_continues_over_the_next_bars() -> None:
    """1,000 contracts at a tenth of each bar's 2,000: five bars, and verified only after the last."""
    closes = [*QUIET, 92.0, 92.0, 92.0, 92.0, 92.0, 92.0, 92.0]
    matrix = PriceMatrix(BarTable("thin", [series("A", closes, volume=[2000.0] * len(closes))]))
    found = run(policy(), matrix, book({"A": 100_000}))
    (fired,) = found.firings
    assert fired.ended == "flat"
    assert fired.verified_at is not None
    assert (fired.verified_at - fired.at).total_seconds() >= 4 * 60
    assert sum(each.contracts for each in fired.closed) == 1000


def test_fills_of_an_order_still_working_at_the_end_count_as_closed() -> None:
    """1,000 units at a tenth of each bar's 1,000: 100 at once and 100 in each of the two bars after it."""
    thin = series("A", [*QUIET, 92.0, 92.0, 92.0], volume=[1000.0] * 23)
    rules = replace(FREE, participation=Decimal("0.1"))
    (fired,) = run(policy(), PriceMatrix(BarTable("thin", [thin])), book({"A": 100_000}), rules=rules).firings
    assert (fired.ended, fired.verified_at) == ("closing", None)
    assert [(each.contracts, each.notional) for each in fired.closed] == [(300, 27_600)]


def test_closed_amounts_count_for_any_bar_length() -> None:
    """Bars of four hours: 2,000 units sold at 97 for a fee of 0.05% are 194,000 traded and 97 paid, and explained."""
    rules = replace(FREE, taker_fee=Decimal("0.0005"))
    closes = [*QUIET, 98.0, 97.0, 97.0, 97.0]
    matrix = PriceMatrix(BarTable("wide", [series("A", closes, range(0, 240 * len(closes), 240))]))
    found = run(shipped("circuit-breaker"), matrix, book({"A": 200_000}), rules=rules)
    assert (found.turnover, found.fees, found.final_equity) == (194_000, 97, 93_903)
    assert found.notices == 0


def test_a_book_with_a_symbol_missing_from_the_market_is_refused() -> None:
    """The BarsError names the missing symbol and those that exist."""
    with pytest.raises(BarsError, match="has no Z; it has A"):
        run(policy(), market(A=QUIET), book({"Z": 1000}))


def test_a_run_begins_when_every_symbol_of_the_book_has_a_price() -> None:
    """B begins five minutes after A."""
    late = series("B", QUIET[:15], range(5, 20))
    matrix = PriceMatrix(BarTable("late", [series("A", QUIET), late]))
    found = run(policy(), matrix, book({"A": 1000, "B": -1000}))
    assert found.bars == 15
    assert found.begins.timestamp() * 1e6 == BEGINS + 6 * MINUTE


def test_closing_everything_does_not_change_stages_that_close_nothing() -> None:
    """The circuit breaker's warning still only warns."""
    warns = [s for graph in close_all(shipped("circuit-breaker")).graphs for s in graph.stages if s.name == "warn"]
    assert [stage.actions for stage in warns] == [()]


def test_closing_everything_sells_what_any_close_of_the_stage_may_sell() -> None:
    """The first close excludes A and U, the second only U: U is never sold."""
    most = "{close: {side: both, fraction: 100%, except_assets: [A, U]}}"
    closes = f"[{most}, {{close: {{side: both, fraction: 100%, symbols: [A], except_assets: [U]}}}}]"
    plain = "[{close: {side: both, fraction: 100%}}]"
    policies = written(POLICY.format(fraction="100%", mode="enforce").replace(plain, closes))
    found = run(policies, market(A=[*QUIET, 70.0, 70.0], U=[1.0] * 22), book({"A": 100_000, "U": 10_000}), "close-all")
    assert [(each.symbol, each.contracts) for each in found.firings[0].closed] == [("A", 1000)]


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 500), st.booleans()), min_size=1, max_size=5),
    st.data(),
)
def test_the_cut_in_proportion_is_as_large_as_the_cut_decided(sizes, data) -> None:
    """Within one lot per position, never less, and never more than is held."""
    held = [
        position(f"S{place}", "long" if long else "short", "0", contracts=str(size), mark_price="10",
                 notional=str(size * 10))
        for place, (size, long) in enumerate(sizes)
    ]  # fmt: skip
    cuts = {p.symbol: data.draw(st.integers(0, int(p.contracts))) for p in held}
    snapshot = Snapshot(as_of=START, accounts=(account("1000", held),), format="killswitch.snapshot/v1")
    decided = cut({p.symbol: (p.side, Decimal(cuts[p.symbol]), p.contracts) for p in held if cuts[p.symbol]})
    found = in_proportion(decided, snapshot, tuple(rules(p.symbol) for p in held), {})
    wanted = sum(cuts.values()) * 10
    traded = sum(intent.contracts for intent in found.intents) * 10
    assert wanted <= traded <= wanted + Decimal("0.01") * len(held)
    by_symbol = {p.symbol: p.contracts for p in held}
    assert all(intent.contracts + intent.target == by_symbol[intent.symbol] for intent in found.intents)


def test_d20_the_seventy_books_of_2021_05_19_show_both_sides_closed_in_turn(shared: Path) -> None:
    """Case D20: on some books of four longs and four shorts the losing side changes, and stage two closes the hedge."""
    matrix = PriceMatrix(read_market(shared / "data" / "market" / "2021-05-19_binance-spot_1m"))
    policies = shipped("futures-drawdown")
    in_turn = 0
    for longs in list(combinations(matrix.symbols, 4))[::7]:
        held = book({symbol: 37_500 if symbol in longs else -37_500 for symbol in matrix.symbols})
        sources = [each.source for each in run(policies, matrix, held).firings]
        in_turn += "LONG" in sources and "SHORT" in sources
    assert in_turn >= 1
