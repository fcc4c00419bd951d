"""The base of fake venues: what it lets happen before, after and instead of a call."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.model.venue import FateUnknownError, OrderRequest, VenueDownError
from tests.honest_venue import HonestVenue

DOWN, LOST = VenueDownError("maintenance"), FateUnknownError("timeout")


def order(name: str, symbol: str = "BTC") -> OrderRequest:
    return OrderRequest(name, symbol, "sell", "long", Decimal(1), reduce_only=True)


def test_a_failure_before_the_effect_leaves_the_book_and_ends_after_its_times() -> None:
    """Twice the order does not arrive; the third one is executed."""
    venue = HonestVenue({"BTC": Decimal(10)})
    venue.fail("submit", DOWN, times=2)
    for name in ("a", "b"):
        with pytest.raises(VenueDownError):
            asyncio.run(venue.submit(order(name)))
    assert venue.position("BTC") == 10
    asyncio.run(venue.submit(order("c")))
    assert venue.position("BTC") == 9
    assert venue.requests_of("submit") == 3


def test_a_failure_after_the_effect_changes_the_book() -> None:
    """The order is executed, and its answer is lost."""
    venue = HonestVenue({"BTC": Decimal(10)})
    venue.fail("submit", LOST, times=1, is_done=True)
    with pytest.raises(FateUnknownError):
        asyncio.run(venue.submit(order("a")))
    assert venue.position("BTC") == 9


def test_a_deviation_applies_only_where_its_condition_holds() -> None:
    """Calls that it does not concern use up none of its times."""
    venue = HonestVenue({"BTC": Decimal(10), "ETH": Decimal(10)})
    failure = venue.fail("submit", DOWN, times=1, when=lambda request: request.symbol == "BTC")
    asyncio.run(venue.submit(order("a", "ETH")))
    assert failure.left == 1
    with pytest.raises(VenueDownError):
        asyncio.run(venue.submit(order("b")))
    assert (venue.position("BTC"), venue.position("ETH")) == (10, 9)


def test_an_answer_is_changed_until_the_venue_recovers() -> None:
    """Changes apply one after the other; the book stays as it is."""
    venue = HonestVenue({"BTC": Decimal(10)})
    venue.change("snapshot", lambda true: replace(true, equity=Decimal(1)))
    venue.change("snapshot", lambda true: replace(true, equity=true.equity + 1))
    assert asyncio.run(venue.snapshot()).equity == 2
    venue.recover()
    assert asyncio.run(venue.snapshot()).equity == 10_000


def test_requests_are_recorded_with_their_symbols_and_ids() -> None:
    """Also those that fail."""
    venue = HonestVenue({"BTC": Decimal(10)})
    venue.fail("cancel", DOWN)
    asyncio.run(venue.submit(order("a")))
    asyncio.run(venue.find_order("BTC", "a"))
    with pytest.raises(VenueDownError):
        asyncio.run(venue.cancel("BTC", "o1"))
    assert venue.received == [("submit", "BTC"), ("find_order", "BTC", "a"), ("cancel", "BTC", "o1")]
