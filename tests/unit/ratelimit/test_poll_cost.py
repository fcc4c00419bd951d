"""What polls take of the limits: Binance's documented weights, computed manually."""

from __future__ import annotations

from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.model.venue import Cost, RateLimit, VenueTraits
from killswitch.ratelimit.poll_cost import PolledAccount, poll_costs

HALF = Decimal("0.5")


def weighing(units: int, by: str = "address") -> VenueTraits:
    """2,400 in a minute, as Binance USD-M says of an address."""
    limit = RateLimit("weight-1m", 2400, 60.0, by=by)  # type: ignore[arg-type] # literal by the caller
    return VenueTraits(limits=(limit,), costs=(Cost("snapshot", "weight-1m", units=units),))


def test_a_poll_of_twenty_a_second_takes_half_and_just_fits() -> None:
    """20 × 60 = 1,200 of 2,400, and 1,200 are for polls: a tick of a second is the least."""
    (cost,) = poll_costs([PolledAccount("main", "binance", weighing(20), HALF)], 1.0)["main"]
    assert (cost.takes, cost.for_reading, cost.allowed, cost.least, cost.too_fast) == (1200.0, 1200, 2400, 1.0, False)


def test_a_dearer_poll_needs_a_longer_tick() -> None:
    """50 each: 24 fit into the 1,200 of a minute, which is one every 2.5 s."""
    (cost,) = poll_costs([PolledAccount("main", "binance", weighing(50), HALF)], 1.0)["main"]
    assert (cost.takes, cost.least, cost.too_fast) == (3000.0, 2.5, True)
    (slower,) = poll_costs([PolledAccount("main", "binance", weighing(50), HALF)], 2.5)["main"]
    assert not slower.too_fast


def test_accounts_at_one_address_share_the_limit() -> None:
    """Two of them: 2 × 32 × 60 = 3,840 a second; 3.2 s is the least. Counted for each account, it is 1.6 s."""
    two = [PolledAccount(name, "binance", weighing(32), HALF) for name in ("a", "b")]
    costs = poll_costs(two, 1.0)
    assert [(cost.takes, cost.least, cost.accounts) for (cost,) in costs.values()] == [(3840.0, 3.2, 2)] * 2
    apart = poll_costs([with_limits_by(each, "account") for each in two], 1.0)
    assert [cost.least for (cost,) in apart.values()] == [pytest.approx(60 / 37)] * 2


def with_limits_by(poller: PolledAccount, by: str) -> PolledAccount:
    limits = tuple(replace(each, by=by) for each in poller.traits.limits)
    return PolledAccount(poller.account, poller.venue, replace(poller.traits, limits=limits), poller.share)


def test_accounts_at_two_venues_share_nothing() -> None:
    """The same limit's name at another venue is another limit."""
    costs = poll_costs(
        [PolledAccount("a", "binance", weighing(20), HALF), PolledAccount("b", "other", weighing(20), HALF)], 1.0
    )
    assert [cost.accounts for (cost,) in costs.values()] == [1, 1]


def test_a_single_poll_is_always_allowed_however_expensive() -> None:
    """1,500 of 2,400 with half for polls: more than its share, once a minute all the same."""
    (cost,) = poll_costs([PolledAccount("main", "binance", weighing(1500), HALF)], 60.0)["main"]
    assert (cost.least, cost.too_fast) == (60.0, False)


def test_a_limit_that_polls_do_not_count_against_is_not_reported() -> None:
    """A limit of orders alone, or no limit at all."""
    traits = VenueTraits(limits=(RateLimit("orders", 10, 1.0),), costs=(Cost("submit", "orders", each=1),))
    assert poll_costs([PolledAccount("main", "v", traits, HALF), PolledAccount("b", "v", VenueTraits(), HALF)],
    1.0) == {
        "main": (), "b": ()}  # fmt: skip
