"""The summary of many backtests, compared with numbers worked out by hand."""

from __future__ import annotations

from decimal import Decimal

import pytest

from killswitch.lab.campaign import RULES
from killswitch.lab.summary import in_turn, summarise
from killswitch.model.snapshot import Side
from tests.runs import firing, liquidation, run, tried

FOUR = (
    # staged, none, close-all: final equity and worst drawdown
    tried(run("staged", "95000", "0.10"), run("none", "90000", "0.30"), run("close-all", "96000", "0.08"), name="a"),
    tried(run("staged", "90000", "0.20"), run("none", "101000", "0.15"), run("close-all", "90000", "0.20"), name="b"),
    tried(run("staged", "80000", "0.22"), run("none", "99000", "0.40"), run("close-all", "85000", "0.15"), name="c"),
    tried(run("staged", "97000", "0.05"), run("none", "0", "1.00", liquidations=(liquidation(), liquidation())),
          run("close-all", "95000", "0.05"), name="d", kind="hedged"),
)  # fmt: skip


def test_staging_is_compared_with_each_alternative() -> None:
    """Against none: richer in a and d, poorer in b and c; against close-all richer in d, the same in b."""
    none, close_all = summarise(FOUR, RULES).groups[0].against
    assert (none.rule, none.books, none.richer, none.poorer) == ("none", 4, 2, 2)
    assert (none.smaller_drawdown, none.greater_drawdown) == (3, 1)
    assert none.difference_mean == Decimal("18000.00")  # (5 − 11 − 19 + 97) thousand ÷ 4
    assert (close_all.richer, close_all.poorer) == (1, 2)
    assert (close_all.smaller_drawdown, close_all.greater_drawdown) == (0, 2)
    assert close_all.difference_mean == Decimal("-1000.00")  # (−1 + 0 − 5 + 2) thousand ÷ 4


def test_figures_of_a_rule() -> None:
    """Means, the 95th percentile between the order statistics, and the share over (not at) 20%."""
    staged, none, _ = summarise(FOUR, RULES).groups[0].figures
    assert staged.final_mean == Decimal("90500.00")
    assert staged.final_of_start == Decimal("0.905")
    assert staged.drawdown_mean == Decimal("0.1425")
    assert staged.drawdown_p95 == Decimal("0.217")  # 0.20 + 0.85 × 0.02
    assert staged.deep == Decimal("0.25")
    assert none.deep == Decimal("0.75")
    assert none.drawdown_p95 == Decimal("0.91")  # 0.40 + 0.85 × 0.60
    assert (none.liquidated, none.liquidations) == (1, 2)
    assert staged.turnover == 1
    assert staged.gross_kept == Decimal("0.5")
    assert staged.cost_mean == Decimal("200.00")


def test_kinds_and_markets_are_summed_separately() -> None:
    """All first; then each kind, each market, and each kind in each market."""
    moved = tried(run("staged", "1"), run("none", "2"), run("close-all", "3"), market="n", kind="hedged")
    groups = summarise((*FOUR, moved), RULES).groups
    assert [(group.market, group.kind, group.books) for group in groups] == [
        (None, None, 5),
        (None, "split", 3),
        (None, "hedged", 2),
        ("m", None, 4),
        ("n", None, 1),
        ("m", "split", 3),
        ("m", "hedged", 1),
        ("n", "hedged", 1),
    ]


def test_the_worst_books_are_named_worst_first() -> None:
    """The books in which staging ended poorer, with the difference."""
    none, close_all = summarise(FOUR, RULES).losers
    assert [(one.book, one.difference) for one in none.books] == [("c", -19000), ("b", -11000)]
    assert [one.book for one in close_all.books] == ["c", "a"]


def test_books_that_were_not_run_to_the_end_are_not_counted() -> None:
    """A missing rule, and a run that was stopped."""
    missing = tried(run("staged", "1"), run("none", "1"), name="x")
    stopped = tried(run("staged", "1"), run("none", "1"), run("close-all", "1", complete=False), name="y")
    summary = summarise((*FOUR, missing, stopped), RULES)
    assert summary.groups[0].books == 4
    assert summarise((missing, stopped), RULES).groups == ()


LONG: tuple[str, Side] = ("BTC_USDT", "long")
LONG2: tuple[str, Side] = ("ETH_USDT", "long")
SHORT: tuple[str, Side] = ("XRP_USDT", "short")


@pytest.mark.parametrize(
    ("firings", "turned"),
    [
        ((firing(1, LONG), firing(2, LONG2), firing(9, SHORT, after="0")), True),
        ((firing(1, SHORT), firing(9, LONG, LONG2, after="12")), True),
        ((firing(1, LONG), firing(5, SHORT), firing(9, LONG, after="0")), True),
        ((firing(1, LONG), firing(9, LONG2, SHORT, after="0")), False),
        ((firing(1, LONG), firing(9, SHORT, after="60000")), False),
        ((firing(1, LONG, SHORT), firing(9, LONG, SHORT, after="0")), False),
        ((firing(1, LONG), firing(9, LONG2, after="0")), False),
        ((firing(1),), False),
    ],
    ids=["longs-then-shorts", "shorts-then-longs", "longs-shorts-longs", "both-at-the-end",
         "the-hedge-trimmed", "both-each-time", "one-side-only", "nothing-closed"],
)  # fmt: skip
def test_d20_both_sides_closed_in_turn_is_detected(firings: tuple[object, ...], turned: bool) -> None:
    """First one side alone, later the other alone, until no position is left."""
    found = in_turn(tried(run("staged", "90000", firings=firings), run("none", "99000")))
    assert (found is not None) == turned
    if found is not None:
        assert found.first_at < found.second_at
        assert found.unprotected == 99000


def test_d20_is_flagged_by_name_in_the_summary() -> None:
    """In its own list, and beside the losers."""
    turned = run("staged", "80000", firings=(firing(1, LONG), firing(2, SHORT, after="0")))
    summary = summarise([tried(turned, run("none", "99000"), run("close-all", "1"), name="z")], RULES)
    assert [(turn.book, turn.first) for turn in summary.in_turn] == [("z", "long")]
    assert [one.in_turn for one in summary.losers[0].books] == [True]
