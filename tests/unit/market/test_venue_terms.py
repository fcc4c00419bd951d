"""The declared terms of a venue, and its request meter."""

from __future__ import annotations

import pytest

from killswitch.market.meter import NEVER, Meter
from killswitch.market.terms import VenueTerms, read_terms, read_traits
from killswitch.model.instant import SECOND
from killswitch.model.venue import ClientIdRule, Cost, RateLimit, VenueDescription, VenueTraits

WRITTEN: dict[str, object] = {
    "limits": [
        {"name": "orders-10s", "allowed": 300, "per": 10},
        {"name": "weight", "allowed": 2400, "per": 60.0, "by": "address"},
    ],
    "costs": [
        {"call": "submit", "limit": "orders-10s", "each": 1},
        {"call": "snapshot", "limit": "weight", "units": 5},
    ],
    "batch": 5,
    "client_ids": {"longest": 36},
    "resting_exits_block": True,
}


def test_terms_are_read_as_they_are_written() -> None:
    """Every key is read, and omitted ones have the plain default."""
    terms = read_terms(WRITTEN)
    assert terms.traits == VenueDescription(
        limits=(RateLimit("orders-10s", 300, 10.0), RateLimit("weight", 2400, 60.0, "address")),
        costs=(Cost("submit", "orders-10s", each=1), Cost("snapshot", "weight", units=5)),
        batch=5,
        client_ids=ClientIdRule("plain", 36),
        enforces_reduce_only=True,
    )
    assert (terms.resting_exits_block, terms.checks_client_ids, terms.shows_liquidity) == (True, True, False)
    assert read_terms({}) == VenueTerms() and VenueTerms().traits == VenueDescription(enforces_reduce_only=True)


def test_an_accounts_options_hold_traits_among_others() -> None:
    """The timeout is no trait."""
    assert read_traits({"timeout": 3, "batch": 20}) == VenueDescription(batch=20, enforces_reduce_only=True)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ([], "object"),
        ({"limit": []}, "unknown field `limit`"),
        ({"limits": [{"name": "a", "allowed": 1, "per": 1, "for": "x"}]}, "unknown field `for`"),
        ({"limits": [{"name": "a b", "allowed": 1, "per": 1}]}, "a name is of"),
        ({"limits": [{"name": "a", "allowed": 1, "per": 1}] * 2}, "given once"),
        ({"limits": [{"name": "a", "allowed": 0, "per": 1}]}, "above zero"),
        ({"limits": [{"name": "a", "allowed": 1, "per": 0}]}, "above zero"),
        ({"costs": [{"call": "submit", "limit": "a"}]}, "refers to an undeclared limit"),
        ({"limits": [{"name": "a", "allowed": 1, "per": 1}], "costs": [{"call": "submit", "limit": "a", "each": -1}]},
         "below zero"),
        ({"batch": 0}, "at least 1"),
    ],
)  # fmt: skip
def test_invalid_terms_are_refused(written: object, text: str) -> None:
    """The error has the mistake and its place."""
    with pytest.raises(ValueError, match=text):
        read_terms(written)


def _meter(*limits: RateLimit, **each: int) -> Meter:
    costs = tuple(Cost("submit", name.replace("_", "-"), each=units) for name, units in each.items())
    return Meter(VenueTraits(limits=limits, costs=costs))


def test_units_are_released_after_their_window() -> None:
    """Two in ten seconds: after one at 0 and one at 4, the next fits at 10 and the one after it at 14."""
    meter = _meter(RateLimit("a", 2, 10.0), a=1)
    answers = [meter.charge("main", "submit", ["A"], at * SECOND) for at in (0, 4, 5, 10, 11, 14)]
    assert answers == [None, None, 5.0, None, 3.0, None]


def test_a_rejected_call_uses_no_units() -> None:
    """A batch of three after one of two: it must wait, and a single order still fits."""
    meter = _meter(RateLimit("a", 4, 10.0), a=1)
    assert meter.charge("main", "submit", ["A", "B"], 0) is None
    assert meter.charge("main", "submit", ["A", "B", "C"], SECOND) == 9.0
    assert meter.used("main", SECOND) == {"a": 2}
    assert meter.charge("main", "submit", ["A", "B"], SECOND) is None


def test_a_call_larger_than_the_limit_never_fits() -> None:
    """Five orders where four are the most."""
    assert _meter(RateLimit("a", 4, 10.0), a=1).charge("main", "submit", ["A"] * 5, 0) == NEVER


def test_accounts_share_only_limits_counted_by_address() -> None:
    """The second account has its own orders, and finds the address's units in use."""
    meter = _meter(RateLimit("mine", 1, 10.0), RateLimit("ours", 3, 10.0, "address"), mine=1, ours=1)
    assert [meter.charge(account, "submit", ["A"], 0) for account in ("x", "y", "x")] == [None, None, 10.0]
    assert (meter.used("x", 0), meter.used("z", 0)) == ({"mine": 1, "ours": 2}, {"mine": 0, "ours": 2})


def test_a_limit_by_symbol_is_counted_for_each_symbol_and_not_reported() -> None:
    """Two in A are the most; B has its own; one batch is counted for each of its symbols."""
    meter = _meter(RateLimit("a", 2, 10.0, "symbol"), a=1)
    assert meter.charge("main", "submit", ["A", "A", "B"], 0) is None
    assert meter.charge("main", "submit", ["B", "A"], 0) == 10.0
    assert meter.charge("main", "submit", ["B"], 0) is None
    assert meter.used("main", 0) == {}


def test_a_call_without_a_cost_is_free() -> None:
    """Limits of orders do not apply to polls."""
    meter = _meter(RateLimit("a", 1, 10.0), a=1)
    assert [meter.charge("main", "snapshot", [], 0) for _ in range(9)] == [None] * 9
