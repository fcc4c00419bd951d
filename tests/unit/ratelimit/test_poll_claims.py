"""A poll that waits: when orders leave it its units, whose turn it is, and what it can never take from closing."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from killswitch.model.venue import Cost, RateLimit, VenueTraits
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.bucket import BELIEVED_FOR, SHORTEST, Bucket
from killswitch.ratelimit.budget import RequestBudget, RequestBudgets

HALF = Decimal("0.5")
COSTS = Cost("submit", "w", units=1), Cost("snapshot", "w", units=20)


def limited(allowed: int = 100, per: float = 10.0, reserved: Decimal = HALF) -> RequestBudget:
    return RequestBudgets().of("a", "v", VenueTraits((RateLimit("w", allowed, per),), COSTS), reserved)


def at_one_address(names: str) -> list[RequestBudget]:
    """Accounts that share 100 units in 10 seconds, half of them kept for closing."""
    budgets, traits = RequestBudgets(), VenueTraits((RateLimit("w", 100, 10.0, "address"),), COSTS)
    return [budgets.of(name, "v", traits, HALF) for name in names]


def ordered(budget: RequestBudget, now: float, orders: int) -> None:
    """So many orders, answered at once."""
    for _ in range(orders):
        budget.answered(now, budget.reserve(now, "submit", ("X",)))


def room(budget: RequestBudget, now: float) -> int:
    return budget.room(now, "submit", ("X",) * 200)


def test_orders_leave_a_poll_its_units_once_it_has_waited_too_long() -> None:
    """Ninety-five orders leave five units; as they come back orders take them all until 1 s, and from then on none."""
    budget = limited()
    for tenth in range(19):
        ordered(budget, tenth / 10, 5)
    budget.claim(5.0, "snapshot", overdue=11.0, until=60.0)
    assert room(budget, 10.0) == 10
    ordered(budget, 10.0, 10)
    assert room(budget, 11.0) == 5 * 10 - 20
    assert budget.wait(11.0, "snapshot", purpose="turn") == 0.0
    budget.reserve(11.0, "snapshot", purpose="turn")
    assert room(budget, 11.0) == 5 * 10 - 20


def test_a_repeated_claim_keeps_the_time_from_which_it_is_overdue() -> None:
    """Made at 0 s and again at 0.9 s, it is overdue at 1 s and not at 1.9 s."""
    budget = limited()
    for now in (0.0, 0.9):
        budget.claim(now, "snapshot", overdue=now + 1.0, until=now + 5.0)
    assert (room(budget, 0.99), room(budget, 1.0)) == (100, 80)


def test_a_claim_lapses_if_it_is_not_repeated() -> None:
    """A poller that is gone keeps nothing from orders after 5 s; one that comes back then starts anew."""
    budget = limited()
    budget.claim(0.0, "snapshot", overdue=1.0, until=5.0)
    assert (room(budget, 4.99), room(budget, 5.0)) == (80, 100)
    budget.claim(6.0, "snapshot", overdue=7.0, until=11.0)
    assert (room(budget, 6.0), room(budget, 7.0)) == (100, 80)


def test_orders_wait_no_longer_than_a_claim_lasts() -> None:
    """Eighty units are held for ever, the rest is kept: an order is told to retry when the claim lapses."""
    budget = limited()
    for _ in range(80):
        budget.reserve(0.0, "submit", ("X",))
    budget.claim(0.0, "snapshot", overdue=0.0, until=4.0)
    assert budget.wait(1.0, "submit", ("X",)) == 3.0
    assert budget.wait(4.0, "submit", ("X",)) == 0.0


def test_waiting_polls_never_touch_the_share_for_closing() -> None:
    """Of 100 units half is for closing: with 40 held by polls no further poll of 20 is kept any."""
    one, two, three = at_one_address("abc")
    for each in (one, two):
        each.reserve(0.0, "snapshot", purpose="turn")
    three.claim(0.0, "snapshot", overdue=0.0, until=60.0)
    assert [room(each, 1.0) for each in (one, two, three)] == [60, 60, 60]


def test_accounts_at_one_address_are_polled_in_the_order_of_their_claims() -> None:
    """The first claim is admitted first, though the last one checks first when there is room."""
    first, second, last, closing = at_one_address("abcd")
    ordered(closing, 0.0, 90)
    for each in (first, second, last):
        assert each.wait(1.0, "snapshot", purpose="turn") > 0
        each.claim(1.0, "snapshot", overdue=2.0, until=60.0)
    assert [each.wait(10.0, "snapshot", purpose="turn") > 0 for each in (last, second, first)] == [
        True,
        False,
        False,
    ]
    second.reserve(10.0, "snapshot", purpose="turn")
    first.reserve(10.0, "snapshot", purpose="turn")
    assert last.wait(10.0, "snapshot", purpose="turn") == 10.0


def test_a_poll_without_a_claim_does_not_overtake_those_that_wait() -> None:
    """Two wait for 20 each of the 50 for polls: a third finds no room although nothing is used."""
    first, second, third = at_one_address("abc")
    for each in (first, second):
        each.claim(0.0, "snapshot", overdue=1.0, until=60.0)
    assert third.wait(0.0, "snapshot", purpose="turn") > 0
    first.withdraw()
    assert third.wait(0.0, "snapshot", purpose="turn") == 0.0


def test_a_poll_that_another_limit_delays_delays_no_other_poll() -> None:
    """An account without room on its own limit for an hour claims nothing of the address that comes back in 10 s."""
    shared, own = RateLimit("w", 100, 10.0, "address"), RateLimit("own", 1, 3600.0)
    budgets = RequestBudgets()
    stuck = budgets.of("a", "v", VenueTraits((shared, own), (*COSTS, Cost("snapshot", "own", units=1))), HALF)
    other = budgets.of("b", "v", VenueTraits((shared,), COSTS), HALF)
    stuck.answered(0.0, stuck.reserve(0.0, "snapshot", purpose="turn"))
    stuck.claim(20.0, "snapshot", overdue=20.0, until=10_000.0)
    assert room(other, 20.0) == 100
    for _ in range(2):
        assert other.wait(20.0, "snapshot", purpose="turn") == 0.0
        other.reserve(20.0, "snapshot", purpose="turn")
    assert room(other, 21.0) == 60
    stuck.claim(3595.0, "snapshot", overdue=3595.0, until=10_000.0)
    assert room(other, 3595.0) == 80


def test_a_single_poll_that_is_more_than_its_share_is_left_its_units_too() -> None:
    """With 90% for closing a poll of 20 goes alone: twenty are kept, and none while one is in progress."""
    budget = limited(reserved=Decimal("0.9"))
    budget.claim(0.0, "snapshot", overdue=0.0, until=60.0)
    assert room(budget, 0.0) == 80
    budget.reserve(0.0, "snapshot", purpose="turn")
    budget.claim(1.0, "snapshot", overdue=1.0, until=60.0)
    assert room(budget, 1.0) == 80


@pytest.mark.parametrize(
    ("allowed", "per", "counted_at", "told_at"), [(2400, 60.0, 50.0, 60.5), (200_000, 86_400.0, 86_390.0, 86_401.0)]
)
def test_the_venues_own_lower_count_returns_room(allowed: int, per: float, counted_at: float, told_at: float) -> None:
    """Others had used all of it by the end of the venue's window; in the next one the venue counts three."""
    bucket = Bucket(allowed, per)
    bucket.observed(counted_at, allowed)
    assert not bucket.fits(counted_at, 1, None)
    bucket.observed(told_at, 3)
    assert (bucket.fits(told_at, allowed - 3, None), bucket.fits(told_at, allowed - 2, None)) == (True, False)


def test_an_absurd_count_is_ignored_and_a_slightly_excessive_one_is_all() -> None:
    """A billion requests, or a negative number, were never answered: 2403 of 2400 are credible, and count as all."""
    bucket = Bucket(2400, 60.0)
    for absurd in (10**12, 4801, -1):
        bucket.observed(1.0, absurd)
        assert bucket.fits(1.0, 2400, None)
    bucket.observed(2.0, 2403)
    assert bucket.wait(2.0, 1, None) == 60.0


def test_a_last_count_is_not_trusted_for_a_day() -> None:
    """Delayed by others' use of a day's limit, with no request and no newer count: a minute of it."""
    bucket = Bucket(200_000, 86_400.0)
    bucket.observed(0.0, 200_000)
    assert bucket.wait(0.0, 1, None) == BELIEVED_FOR
    assert bucket.fits(BELIEVED_FOR, 200_000, None)


def test_a_wait_is_never_shorter_than_a_clock_can_tell() -> None:
    """The instant before units come back there is still a wait to sleep, and at the instant none."""
    bucket = Bucket(1, 60.0)
    bucket.answered(0.0, bucket.hold(0.0, 1, polling=False))
    assert bucket.wait(math.nextafter(60.0, 0.0), 1, None) == SHORTEST
    assert bucket.wait(60.0, 1, None) == 0.0


@pytest.mark.parametrize(
    "cost",
    [Cost("submit", "w", units=6), Cost("submit", "w", units=3, each=3), Cost("cancel", "w", units=6),
     Cost("snapshot", "w", units=6)],
)  # fmt: skip
def test_a_call_that_could_never_be_made_is_refused_at_the_start(cost: Cost) -> None:
    """It costs six of a limit of five: the adapter's declaration is wrong, and the close would silently never come."""
    with pytest.raises(ValueError, match=f"{cost.call} costs 6 of limit 'w', which never allows more than 5"):
        RequestBudgets().of("a", "v", VenueTraits((RateLimit("w", 5, 1.0),), (cost,)))


def test_a_call_that_costs_exactly_the_limit_can_be_made() -> None:
    """Five of five, for an order and for a poll without orders."""
    costs = Cost("submit", "w", units=2, each=3), Cost("snapshot", "w", units=5, each=9)
    budget = RequestBudgets().of("a", "v", VenueTraits((RateLimit("w", 5, 1.0),), costs))
    assert (budget.wait(0.0, "submit", ("X",)), budget.wait(0.0, "snapshot")) == (0.0, 0.0)


@pytest.mark.parametrize("stricter_first", [True, False])
def test_the_stricter_limit_of_an_address_holds_for_later_requests(*, stricter_first: bool) -> None:
    """Ten by one account and four by the other: together they never have more than four, whoever began."""
    budgets, cost = RequestBudgets(), Cost("submit", "w", units=1)
    limits = (4, 10) if stricter_first else (10, 4)
    one, two = (
        budgets.of(name, "v", VenueTraits((RateLimit("w", allowed, 1.0, "address"),), (cost,)))
        for name, allowed in zip("ab", limits, strict=True)
    )
    assert (room(one, 0.0), room(two, 0.0)) == (4, 4)


@pytest.mark.parametrize("stricter_first", [True, False])
def test_a_call_that_another_accounts_limit_makes_impossible_is_refused(*, stricter_first: bool) -> None:
    """Six of ten fit; where the other account at the address says that four are allowed, they never do."""
    budgets = RequestBudgets()
    wide = VenueTraits((RateLimit("w", 10, 1.0, "address"),), (Cost("snapshot", "w", units=6),))
    narrow = VenueTraits((RateLimit("w", 4, 1.0, "address"),))
    first, second = (narrow, wide) if stricter_first else (wide, narrow)
    budgets.of("a", "v", first)
    with pytest.raises(ValueError, match="costs 6 of limit 'w', which never allows more than 4"):
        budgets.of("b", "v", second)


def test_a_probe_that_did_not_leave_is_not_lost() -> None:
    """The budget had no room for it: the next one may leave at once, and not only after the longest wait."""
    breaker = Breaker(1, 2.0, 8.0)
    breaker.failed(0.0)
    assert breaker.allows(2.0)
    breaker.unused(2.5)
    assert (breaker.state, breaker.wait(2.5), breaker.allows(2.5), breaker.allows(2.5)) == ("open", 0.0, True, False)


@pytest.mark.parametrize("failures", [0, 1])
def test_returning_no_probe_changes_nothing(failures: int) -> None:
    """Neither while it is closed nor while it is open."""
    breaker = Breaker(1, 2.0, 8.0)
    for _ in range(failures):
        breaker.failed(0.0)
    before = breaker.state, breaker.wait(0.5)
    breaker.unused(0.5)
    assert (breaker.state, breaker.wait(0.5)) == before


def test_a_query_of_closing_leaves_the_turn_unchanged() -> None:
    """A closer's query within the share of polls takes neither the units nor the turn of the tick's poll."""
    budget = limited()
    ordered(budget, 0.0, 65)
    budget.claim(0.0, "snapshot", overdue=1.0, until=60.0)
    assert budget.wait(1.0, "snapshot", purpose="reading") > 0
    assert (budget.wait(1.0, "submit", ("X",) * 15, "reading"), budget.wait(1.0, "submit", ("X",) * 16, "reading")) == (
        0.0,
        9.0,
    )
    budget.reserve(1.0, "submit", ("X",), "reading")
    assert room(budget, 1.0) == 14
