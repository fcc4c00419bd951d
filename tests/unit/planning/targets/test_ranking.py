"""Ranking: harm normalised to 0…1; a winner never outranks a loser; v6 in raw units."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.graph.nodes import CorrelationGroupRule, RankingRule
from killswitch.model.instant import MINUTE, to_micros
from killswitch.model.snapshot import Position
from killswitch.planning.targets.ranking import Ranked, candidates, in_group_order, rank
from killswitch.valuation.scope_view import PnlKey, ScopeView
from tests.graphs import DEFAULT_RANKING
from tests.worlds import START, account, position

V6 = RankingRule("killswitch-v6", "killswitch-v6", DEFAULT_RANKING.weights, 15 * MINUTE)


def ranked(
    positions: list[Position], delta: dict[str, str] | None, rule: RankingRule = DEFAULT_RANKING
) -> list[Ranked]:
    view = ScopeView(to_micros(START), True, (account("100000", positions),), {}, None)
    change: dict[PnlKey, Decimal] | None = None
    if delta is not None:
        change = {("main", p.symbol, p.side): Decimal(delta[p.symbol]) for p in positions}
    return rank(rule, candidates(view, change))


def symbols(rows: list[Ranked]) -> list[str]:
    return [row.candidate.position.symbol for row in rows]


def book() -> list[Position]:
    more = {"notional": "10000", "margin": "2000", "mark_price": "100", "liquidation_price": "50"}
    return [position("WINNER", "long", "900", **more), position("LOSER", "long", "-500", **more)]


def test_d5_a_winner_of_900_does_not_outrank_a_loser_of_500() -> None:
    """Only harm scores; a gain does not."""
    assert symbols(ranked(book(), {"WINNER": "900", "LOSER": "-500"})) == ["LOSER", "WINNER"]


def test_d5_the_killswitch_v6_formula_does_so_and_stays_available() -> None:
    """killswitch-v6 by hand: 0.40·900 + 0.25·0 + 0.20·(0.1/0.5) + 0.10·0.5 + 0 = 360.09;
    0.40·500 + 0.25·500 + 0.20·(0.1/0.5) + 0.10·0.5 + 0.05·0.25 = 325.1025."""
    rows = ranked(book(), {"WINNER": "900", "LOSER": "-500"}, V6)
    assert [(row.candidate.position.symbol, pytest.approx(row.score)) for row in rows] == [
        ("WINNER", 360.09),
        ("LOSER", 325.1025),
    ]


@pytest.mark.parametrize(
    ("liquidation", "proximity"), [("100", 1.0), ("95", 1.0), ("90", 1.0), ("80", 0.5), ("50", 0.2), ("0", 0.1)]
)
def test_the_predecessors_liquidation_proximity_is_a_tenth_over_the_distance(
    liquidation: str, proximity: float
) -> None:
    """clamp(0.1 ÷ distance, 0, 1): 1 within a tenth of the mark, at a distance of a fifth one half."""
    alone = position("A", "long", "0", mark_price="100", liquidation_price=liquidation, notional="1000", margin="100")
    (row,) = ranked([alone], {"A": "0"}, V6)
    assert row.score == pytest.approx(0.20 * proximity + 0.10)


def test_d5_liquidation_distance_counts_for_more_than_cents() -> None:
    """Two like losers: the one near its liquidation comes first, by nearly the term's whole weight."""
    near = position("NEAR", "long", "-100", mark_price="100", liquidation_price="98", notional="1000", margin="100")
    far = position("FAR", "long", "-110", mark_price="100", liquidation_price="20", notional="1000", margin="100")
    rows = ranked([far, near], {"NEAR": "-100", "FAR": "-110"})
    assert symbols(rows) == ["NEAR", "FAR"]


def test_normalised_scores_by_hand() -> None:
    """Two losers, all terms: the worst of each term is 1.

    A: 0.40·1 + 0.25·0.5 + 0.20·0.1 + 0.10·0.25 + 0.05·(0.1/0.4); B: 0.40·0.5 + 0.25·1 + 0.20·0.4 + 0.10·0.75 + 0.05·1.
    """
    a = position("A", "long", "-100", mark_price="100", liquidation_price="10", notional="1000", margin="1000")
    b = position("B", "short", "-200", mark_price="100", liquidation_price="160", notional="3000", margin="500")
    rows = ranked([a, b], {"A": "-300", "B": "-150"})
    assert [(r.candidate.position.symbol, pytest.approx(r.score)) for r in rows] == [("B", 0.655), ("A", 0.5825)]


def test_an_unknown_term_counts_as_the_worst_in_the_book() -> None:
    """A position whose P&L is unknown does not rank as harmless."""
    known = position("KNOWN", "long", "-100", notional="1000", margin="100", mark_price="1", liquidation_price="0.5")
    blind = position("BLIND", "long", None, notional="1000", margin="100", mark_price="1", liquidation_price="0.5")
    rows = ranked([known, blind], None)
    scores = {row.candidate.position.symbol: row.score for row in rows}
    assert scores["BLIND"] >= scores["KNOWN"]


def test_groups_close_in_their_declared_order_and_ungrouped_symbols_stand_alone() -> None:
    """C18: symbols of no group are not one group called `other`."""
    rows = ranked(
        [position(s, "long", p, notional="1000") for s, p in (("A", "-1"), ("B", "-2"), ("C", "-3"), ("D", "-4"))],
        {"A": "-1", "B": "-2", "C": "-3", "D": "-4"},
    )
    groups = [CorrelationGroupRule("majors", ("A", "C"), 1), CorrelationGroupRule("alts", ("B",), 2)]
    assert symbols(in_group_order(rows, groups)) == ["C", "A", "B", "D"]


money = st.decimals(min_value=-10_000, max_value=10_000, places=2)


@given(st.lists(st.tuples(money, money, st.booleans()), min_size=1, max_size=8))
def test_a_position_that_gained_never_outranks_one_that_lost(rows: list[tuple[Decimal, Decimal, bool]]) -> None:
    """For every book: all that lost come before all that gained, and every term's score is in 0…1."""
    positions = [
        position(f"S{i}", "long" if side else "short", str(pnl), notional="1000", margin="100",
                 mark_price="100", liquidation_price="60")
        for i, (_, pnl, side) in enumerate(rows)
    ]  # fmt: skip
    deltas = {f"S{i}": str(delta) for i, (delta, _, _) in enumerate(rows)}
    order = [Decimal(deltas[symbol]) for symbol in symbols(ranked(positions, deltas))]
    first_gain = next((i for i, delta in enumerate(order) if delta > 0), len(order))
    assert all(delta >= 0 for delta in order[first_gain:])
    assert all(0 <= row.score <= 1 + 1e-9 for row in ranked(positions, deltas))
