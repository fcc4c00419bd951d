"""What differs between two replays of one span: each word, by runs written by hand."""

from __future__ import annotations

from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.lab.impact.firing_changes import compared_firings
from killswitch.lab.outcome import BacktestFiring, ClosedAmount
from killswitch.model.snapshot import Side
from tests.runs import firing, run

BTC: tuple[str, Side] = ("BTC_USDT", "long")
ETH: tuple[str, Side] = ("ETH_USDT", "long")


def words(base: tuple[BacktestFiring, ...], head: tuple[BacktestFiring, ...]) -> list[tuple[str, bool | None]]:
    found = compared_firings(run("staged", "90000", firings=base), run("staged", "95000", firings=head))
    return [(each.word, each.was_smaller) for each in found]


@pytest.mark.parametrize(
    ("base", "head", "word"),
    [
        ((firing(5, BTC),), (firing(5, BTC),), "the same"),
        ((firing(5, BTC),), (firing(3, BTC),), "earlier"),
        ((firing(5, BTC),), (firing(9, BTC),), "later"),
        ((firing(5, BTC),), (), "no more"),
        ((), (firing(5, BTC),), "new"),
        ((firing(5, BTC),), (firing(5, BTC, ETH),), "closes more"),
        ((firing(5, BTC, ETH),), (firing(5, BTC),), "closes less"),
    ],
)
def test_a_firing_is_compared_by_its_time_and_then_by_what_it_closes(
    base: tuple[BacktestFiring, ...], head: tuple[BacktestFiring, ...], word: str
) -> None:
    """The first, second and third of a stage are compared with those of the other set."""
    assert [each for each, _ in words(base, head)] == [word]


def test_a_second_firing_of_a_stage_is_compared_with_the_second_of_the_other() -> None:
    """The head fires earlier the first time, at the same time the second time, and once more."""
    base = (firing(5, BTC), firing(60, BTC))
    head = (firing(3, BTC), firing(60, BTC), firing(90, BTC))
    assert [word for word, _ in words(base, head)] == ["earlier", "the same", "new"]


def test_a_firing_that_is_missing_because_the_book_was_smaller_is_named_so() -> None:
    """The head closed ETH at minute 3; the base closed nothing before its stage of minute 9 fired."""
    found = words((firing(9, BTC, stage="close"),), (firing(3, ETH, stage="trim"),))
    assert found == [("new", None), ("no more", True)]


def test_a_firing_that_is_missing_with_the_same_book_is_missing_by_its_conditions() -> None:
    """Both closed the same at minute 3, so that the book explains nothing."""
    assert words((firing(3, ETH), firing(9, BTC, stage="close")), (firing(3, ETH),)) == [
        ("the same", None), ("no more", False),
    ]  # fmt: skip


def test_what_the_head_closes_later_made_no_book_smaller_before() -> None:
    """The base fires at minute 9; the head closes ETH at minute 12, which explains nothing of minute 9."""
    found = words((firing(9, BTC, stage="close"),), (firing(12, ETH, stage="trim"),))
    assert found == [("no more", False), ("new", None)]


def test_what_another_account_closed_makes_no_book_smaller() -> None:
    """A scope of one account depends on the positions of that account only."""
    closed = (ClosedAmount("other", "BTC_USDT", "long", Decimal(10), Decimal(1000)),)
    head = replace(firing(3, scope="account/other"), closed=closed)
    assert words((firing(9, BTC, stage="close"),), (head,)) == [("new", None), ("no more", False)]


def test_the_time_that_a_firing_moved_is_signed() -> None:
    """Two minutes earlier is below zero; the closed notional is that of the fills, 1,000 a position."""
    (found,) = compared_firings(
        run("staged", "90000", firings=(firing(5, BTC),)), run("staged", "95000", firings=(firing(3, BTC, ETH),))
    )
    assert found.moved is not None and found.moved.total_seconds() == -120
    assert (found.base_closed, found.head_closed) == (Decimal(1000), Decimal(2000))
