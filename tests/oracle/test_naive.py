"""The naive implementation itself, on cases small enough to be worked out by hand."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from tests.oracle.naive import level_changes
from tests.oracle.walks import BEGIN, Walk


def events(walk: Walk) -> list[tuple[float, int, bool]]:
    """(minutes since the beginning, level, reset) of every change of level."""
    return [
        ((each.at - BEGIN) / timedelta(minutes=1), each.level, each.reset) for each in level_changes(walk.snapshots)
    ]


def calm(walk: Walk, minutes: int) -> Walk:
    """A snapshot a minute, at an unchanged price."""
    for _ in range(minutes):
        walk.wait(60).see()
    return walk


def test_a_fall_of_exactly_the_threshold_fires_after_its_confirmation() -> None:
    """100,000 → 95,500 is 4.5%: true at minute 61, and confirmed two minutes later."""
    walk = calm(Walk().see(), 60).wait(60).equity_to(Decimal(95_500)).see()
    assert events(calm(walk, 3)) == [(63, 1, False)]


def test_a_cent_less_is_no_fall() -> None:
    """100,000 → 95,500.01 stays below 4.5% for as long as it lasts."""
    walk = calm(Walk().see(), 60).wait(60).equity_to(Decimal("95500.01")).see()
    assert events(calm(walk, 90)) == []


def test_of_several_levels_the_highest_fires_and_a_lower_one_never_after_it() -> None:
    """A fall of 10% is level 3 at once; levels 1 and 2 confirm later and do not fire."""
    walk = calm(Walk().see(), 60).wait(60).equity_to(Decimal(90_000)).see()
    assert events(calm(walk, 60)) == [(61, 3, False)]


def test_a_withdrawal_is_no_loss_but_the_loss_after_it_weighs_more() -> None:
    """100,000; withdraw 90,000; lose 5,000: the drawdown is 50%, though 95% of the money is gone."""
    walk = calm(Walk().see(), 60).flow(Decimal(-90_000)).wait(60).see()
    assert events(walk) == []
    assert events(walk.wait(60).equity_to(Decimal(5_000)).see()) == [(62, 3, False)]


def test_both_ends_of_a_window_are_included() -> None:
    """The peak of exactly an hour ago makes 14% of the fall; a minute later it is out of the window."""

    def slide() -> Walk:
        walk = Walk().see()
        for minute in range(1, 60):
            walk.wait(60).equity_to(Decimal(100_000 - 233 * minute)).see()
        return walk.wait(60)

    assert (60, 3, False) in events(slide().equity_to(Decimal(86_000)).see())
    late = slide().equity_to(Decimal(86_001)).see().wait(60).equity_to(Decimal(86_000)).see()
    assert 3 not in {level for _, level, _ in events(late)}


def test_a_fall_before_an_outage_counts_after_it() -> None:
    """Half an hour without an answer leaves the windows partly known; the fall since then is still a fall."""
    walk = calm(Walk().see(), 60)
    for _ in range(30):
        walk.wait(60).see("down")
    walk.wait(60).see()
    assert events(walk) == []
    walk.wait(60).equity_to(Decimal(95_000)).see()
    assert events(calm(walk, 2)) == [(94, 1, False)]


def test_unknown_keeps_the_confirmation_clock_and_cannot_complete_it() -> None:
    """True at 61, unreadable at 62 and 63, true again at 64: confirmed at 64, not at 63."""
    walk = calm(Walk().see(), 60).wait(60).equity_to(Decimal(95_000)).see()
    walk.wait(60).see("down").wait(60).see("stale").wait(60).see()
    assert events(walk) == [(64, 1, False)]


def test_the_same_level_fires_again_only_after_its_cooldown_and_lower() -> None:
    """Level 1 at 63; a new low at 75 is inside the cooldown; the fall that begins at 94 fires at 96."""
    walk = calm(Walk().see(), 60).wait(60).equity_to(Decimal(95_400)).see()
    calm(calm(walk, 13).wait(60).equity_to(Decimal(95_300)).see(), 18)
    assert events(walk) == [(63, 1, False)]
    walk.wait(60).equity_to(Decimal(92_000)).see()
    assert events(calm(walk, 2)) == [(63, 1, False), (96, 1, False)]


def test_an_hour_of_calm_resets_and_windows_restart() -> None:
    """Fired at 63, the hour's fall is below 2% from 121 on: reset at 181, and the old peak is forgotten."""
    walk = calm(Walk().see(), 60).wait(60).equity_to(Decimal(95_400)).see()
    assert events(calm(walk, 130)) == [(63, 1, False), (181, 0, True)]


def test_level_three_waits_for_an_operator() -> None:
    """Ten hours of calm do not reset it; the operator does, and the next fall is measured from there."""
    walk = calm(Walk().see(), 60).wait(60).equity_to(Decimal(90_000)).see()
    calm(walk, 600).operator_reset().wait(60).see()
    assert events(walk) == [(61, 3, False), (662, 0, True)]
    walk.wait(60).equity_to(Decimal(85_900)).see()
    assert events(calm(walk, 2)) == [(61, 3, False), (662, 0, True), (665, 1, False)]


def test_a_wiped_out_account_has_a_full_drawdown() -> None:
    """Equity below zero is a drawdown of 100%, not an error and not an empty account."""
    walk = calm(Walk(leverage=3).see(), 60).wait(60).equity_to(Decimal(-1_000)).see()
    assert events(walk) == [(61, 3, False)]
