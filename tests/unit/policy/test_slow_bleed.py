"""The shipped set `slow-bleed`: it closes when the account itself falls, and only alerts for a leg of a hedge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.graph.compile import compile_policies
from killswitch.graph.nodes import PolicySet
from killswitch.lab.recording import replay
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Position, Snapshot
from killswitch.policy.loader import load
from tests.worlds import account, after, position, rules, snapshot

EVERY = 5
"""Minutes between snapshots."""
STILL = 49 * 60
"""Minutes of a still market before anything happens: longer than the longest window."""


@pytest.fixture(scope="module")
def policies(repository: Path) -> PolicySet:
    found, problems = compile_policies(load([repository / "policies" / "slow-bleed"]).documents)
    assert found is not None and problems == ()
    return found


def leg(symbol: str, side: str, mark: Decimal, entry: Decimal = Decimal(100)) -> Position:
    """1,000 contracts, 100,000 at the entry."""
    profit = 1000 * (mark - entry) * (1 if side == "long" else -1)
    return position(
        symbol, side, str(profit), contracts="1000", notional=str(1000 * mark), mark_price=str(mark),
        entry_price=str(entry),
    )  # fmt: skip


def at(minute: float, legs: Sequence[Position] | None) -> Snapshot:
    """100,000 and the profit of the legs; None: the account cannot be read."""
    when = after(minutes=minute)
    if legs is None:
        return snapshot(when, account(None, None, quality="down", reason="no answer"))
    equity = 100_000 + sum((each.unrealized_pnl or Decimal(0) for each in legs), Decimal(0))
    return snapshot(when, account(str(equity), legs, observed_at=when, instruments=(rules("A"), rules("B"))))


def quiet(minute: int) -> Decimal:
    """A price that moves by 0.01% and back, so that its feed is not frozen."""
    return Decimal(100) + Decimal("0.01") * (minute // EVERY % 2)


def course(legs: Callable[[int, Decimal], Sequence[Position] | None], minutes: int) -> Iterator[Snapshot]:
    """A still market, then `minutes` in which the price of A falls by 4% an hour."""
    for minute in range(0, STILL, EVERY):
        yield at(minute, legs(minute, quiet(minute)))
    for minute in range(EVERY, minutes + 1, EVERY):
        yield at(STILL + minute, legs(minute, Decimal(100) - Decimal(4 * minute) / 60))


def fired(policies: PolicySet, recording: Iterator[Snapshot]) -> list[tuple[str, int, int]]:
    """(stage, minutes since the fall began, orders) of each firing."""
    found = [each for each in replay(policies, recording) if isinstance(each, Decision) and each.stage]
    return [
        (each.stage or "", round((each.as_of - after(minutes=STILL)).total_seconds() / 60), len(each.intents))
        for each in found
    ]


def test_a_bleed_of_four_percent_an_hour_is_closed_at_the_floor(policies: PolicySet) -> None:
    """5% are lost after 75 minutes, and the evaluation after three further minutes confirms it: 80, at −5.3%."""
    found = fired(policies, course(lambda minute, price: [leg("A", "long", price)], 100))
    assert found == [("close-bleed", 80, 1)]


def test_everything_is_closed_not_the_worst_positions(policies: PolicySet) -> None:
    """Two longs, one of which does not move: both are closed."""
    found = fired(
        policies,
        course(lambda minute, price: [leg("A", "long", price), leg("B", "long", quiet(minute))], 100),
    )
    assert found == [("close-bleed", 80, 2)]


def test_d13_d19_one_losing_leg_of_a_hedge_alerts_and_closes_nothing(policies: PolicySet) -> None:
    """The long leg loses 8% of equity after 120 minutes, the short one gains as much: an alert at 125, no order."""
    found = fired(policies, course(lambda minute, price: [leg("A", "long", price), leg("B", "short", price)], 300))
    assert found == [("alert-position", 125, 0)]


def test_a_gain_that_is_partly_given_back_closes_nothing(policies: PolicySet) -> None:
    """From 150 of gain to 146 within an hour: 3,960 of 150,000 are 2.6% below the highest."""
    found = fired(
        policies,
        course(lambda minute, price: [leg("A", "long", price, Decimal(50))], 55),
    )
    assert found == []


def test_while_the_account_cannot_be_read_nothing_is_closed(policies: PolicySet) -> None:
    """`on_unknown: hold`: an outage of four hours fires nothing, whatever is lost in it."""
    recording = course(lambda minute, price: None if price < 100 else [leg("A", "long", price)], 240)
    assert fired(policies, recording) == []


def test_d12_no_count_of_earlier_closes_limits_the_close(policies: PolicySet) -> None:
    """No close of the set has a cap, a share, or a selection: 40 positions are 40 orders in one decision."""

    def book(minute: int, price: Decimal) -> list[Position]:
        return [
            position(
                f"S{number:02}", "long", str((price - 100) * 25), contracts="25", notional=str(price * 25),
                mark_price=str(price), entry_price="100",
            )
            for number in range(40)
        ]  # fmt: skip

    assert fired(policies, course(book, 100)) == [("close-bleed", 80, 40)]


def test_a_position_whose_profit_is_unknown_alerts_nothing(policies: PolicySet) -> None:
    """Equity is known and does not fall; what the position lost is not stated."""
    blind = replace(leg("A", "long", Decimal(60)), unrealized_pnl=None, entry_price=None)
    recording = [at(minute, [blind]) for minute in range(0, 300, EVERY)]
    assert fired(policies, iter(recording)) == []


def test_a_position_that_lost_7_percent_of_equity_alerts_nothing(policies: PolicySet) -> None:
    """The other leg gains as much; 8% alert."""
    pair = [leg("A", "long", Decimal(93)), leg("B", "short", Decimal(93))]
    recording = [at(minute, pair) for minute in range(0, 60, EVERY)]
    assert fired(policies, iter(recording)) == []
