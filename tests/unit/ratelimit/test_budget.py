"""Request limits at their edges: exact units, exact instants, the reserved share, pauses, and invalid limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal

import pytest

from killswitch.model.venue import Cost, RateLimit, VenueTraits
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.bucket import LOST_AFTER, Bucket
from killswitch.ratelimit.budget import LONGEST_BAN, BudgetSpentError, RequestBudget, RequestBudgets
from tests.runner_world import ScriptedVenue

D = Decimal


def traits(*costs: Cost, limits: tuple[RateLimit, ...] = (RateLimit("w", 10, 60.0),)) -> VenueTraits:
    return VenueTraits(limits=limits, costs=costs)


def spend(bucket: Bucket, now: float, units: int, *, reading: bool = False, answered: float | None = None) -> int:
    name = bucket.hold(now, units, polling=reading)
    if answered is not None:
        bucket.answered(answered, name)
    return name


def test_a_bucket_takes_exactly_what_is_allowed() -> None:
    """Ten of ten fit, eleven never do, and after seven three are left."""
    bucket = Bucket(10, 60.0)
    assert bucket.fits(0.0, 10, None)
    assert not bucket.fits(0.0, 11, None)
    assert (bucket.wait(0.0, 10, None), bucket.wait(0.0, 11, None)) == (0.0, math.inf)
    spend(bucket, 0.0, 7)
    assert (bucket.fits(0.0, 3, None), bucket.fits(0.0, 4, None)) == (True, False)


def test_units_come_back_at_the_exact_instant_and_in_order() -> None:
    """3 answered at 1 s and 5 at 2 s: two more than are left wait for the first, six more for both."""
    bucket = Bucket(10, 60.0)
    spend(bucket, 0.0, 3, answered=1.0)
    spend(bucket, 0.0, 5, answered=2.0)
    assert bucket.wait(10.0, 2, None) == 0.0
    assert bucket.wait(10.0, 5, None) == 51.0
    assert bucket.wait(10.0, 6, None) == 52.0
    assert bucket.wait(10.0, 10, None) == 52.0
    assert not bucket.fits(60.999, 5, None)
    assert bucket.fits(61.0, 5, None)
    assert not bucket.fits(61.0, 6, None)
    assert bucket.fits(62.0, 10, None)


def test_an_unanswered_call_holds_its_units_for_at_least_a_window() -> None:
    """There is no answer yet, so at least `per` seconds from the time of the query."""
    bucket = Bucket(4, 60.0)
    spend(bucket, 0.0, 4)
    assert bucket.wait(7.0, 1, None) == 60.0


def test_polls_leave_the_reserve_alone_and_a_single_one_always_fits() -> None:
    """Of ten, four are reserved: polls hold up to six; one that is greater than that goes alone."""
    bucket = Bucket(10, 60.0)
    assert (bucket.fits(0.0, 6, 4), bucket.fits(0.0, 7, 4)) == (True, True)
    spend(bucket, 0.0, 4, reading=True, answered=0.0)
    assert (bucket.fits(0.0, 2, 4), bucket.fits(0.0, 3, 4), bucket.fits(0.0, 6, None)) == (True, False, True)
    assert (bucket.wait(5.0, 2, 4), bucket.wait(5.0, 3, 4)) == (0.0, 55.0)
    spend(bucket, 0.0, 6, answered=10.0)
    assert bucket.wait(20.0, 1, 4) == 40.0
    assert bucket.wait(20.0, 7, 4) == 50.0
    assert (bucket.fits(60.0, 4, 4), bucket.fits(60.0, 5, 4)) == (True, False)


def test_closing_does_not_count_against_the_share_of_polls_too() -> None:
    """Orders count against the whole, and not against what polls may hold."""
    bucket = Bucket(10, 60.0)
    spend(bucket, 0.0, 4)
    assert (bucket.fits(0.0, 6, 4), bucket.fits(0.0, 6, 5)) == (True, True)
    spend(bucket, 0.0, 1, reading=True)
    assert (bucket.fits(0.0, 4, 5), bucket.fits(0.0, 5, 5)) == (True, False)


def test_a_call_without_an_answer_returns_its_units_when_it_is_surely_lost() -> None:
    """LOST_AFTER and a window later, and not an instant before; a late answer returns nothing more."""
    bucket = Bucket(4, 60.0)
    name = spend(bucket, 5.0, 4)
    assert not bucket.fits(5.0 + LOST_AFTER + 59.999, 1, None)
    assert bucket.fits(5.0 + LOST_AFTER + 60.0, 4, None)
    assert not bucket.fits(5.0 + LOST_AFTER + 60.0, 5, None)
    bucket.answered(190.0, name)
    assert not bucket.fits(1000.0, 5, None)


def test_only_the_calls_that_are_old_enough_are_lost() -> None:
    """One at 0 s and one at 50 s: at 180 s the first alone has returned its units."""
    bucket = Bucket(4, 60.0)
    spend(bucket, 0.0, 2)
    spend(bucket, 50.0, 2)
    assert (bucket.fits(180.0, 2, None), bucket.fits(180.0, 3, None)) == (True, False)


def test_units_that_the_venue_counts_beyond_ours_are_held_for_one_window() -> None:
    """We hold 3, it says 5: two are someone else's, gone a window later, or when it counts less than ours."""
    bucket = Bucket(10, 60.0)
    spend(bucket, 0.0, 3)
    bucket.observed(10.0, 5)
    assert (bucket.fits(10.0, 5, None), bucket.fits(10.0, 6, None)) == (True, False)
    assert (bucket.fits(69.999, 6, None), bucket.fits(70.0, 7, None)) == (False, True)
    bucket.observed(71.0, 5)
    bucket.observed(72.0, 1)
    assert (bucket.fits(72.0, 7, None), bucket.fits(72.0, 8, None)) == (True, False)


def test_units_of_others_do_not_count_as_our_polls() -> None:
    """Units used by others leave our polls their share, as far as the whole has room."""
    bucket = Bucket(10, 60.0)
    bucket.observed(0.0, 4)
    assert bucket.fits(0.0, 6, 4)


def test_returned_units_of_others_give_polls_no_more_than_their_share() -> None:
    """A window later polls hold up to six of ten again, and not the four of the others on top."""
    bucket = Bucket(10, 60.0)
    bucket.observed(0.0, 4)
    assert bucket.fits(60.0, 6, 4)
    spend(bucket, 60.0, 6, reading=True)
    assert not bucket.fits(60.0, 1, 4)


def test_a_count_of_zero_and_one_of_twice_the_limit_are_valid() -> None:
    """0 takes back the earlier count; twenty of ten fill it up; more than that is a defect, and changes nothing."""
    bucket = Bucket(10, 60.0)
    bucket.observed(0.0, 8)
    bucket.observed(1.0, 0)
    assert bucket.fits(1.0, 10, None)
    bucket.observed(2.0, 21)
    assert bucket.fits(2.0, 10, None)
    bucket.observed(3.0, -1)
    assert bucket.fits(3.0, 10, None)
    bucket.observed(4.0, 20)
    assert not bucket.fits(4.0, 1, None)


def test_one_unit_of_others_counts_as_one() -> None:
    """Nine are left of ten, and not ten."""
    bucket = Bucket(10, 60.0)
    bucket.observed(0.0, 1)
    assert (bucket.fits(0.0, 9, None), bucket.fits(0.0, 10, None)) == (True, False)


def test_a_poll_waits_for_units_of_polls_though_orders_return_theirs_before() -> None:
    """Polls hold their six until 65 s, and four of orders come back at 61 s: the next poll waits for 65 s."""
    bucket = Bucket(10, 60.0)
    spend(bucket, 0.0, 4, answered=1.0)
    spend(bucket, 0.0, 6, reading=True, answered=5.0)
    assert bucket.wait(10.0, 2, 4) == 55.0
    assert bucket.wait(10.0, 2, None) == 51.0


def test_a_limit_per_account_is_counted_for_each_account() -> None:
    """One account's orders take nothing from another's, at the same venue."""
    own, budgets = traits(Cost("submit", "w", units=10)), RequestBudgets()
    budgets.of("a", "v", own).reserve(0.0, "submit", ("X",))
    assert budgets.of("b", "v", own).wait(0.0, "submit", ("X",)) == 0.0
    assert budgets.of("a", "v", own).wait(0.0, "submit", ("X",)) == 60.0


def test_of_two_declarations_of_one_limit_the_stricter_holds() -> None:
    """Fewer units and the longer window, whichever came first."""
    bucket = Bucket(10, 60.0)
    bucket.tighten(8, 30.0)
    bucket.tighten(9, 90.0)
    spend(bucket, 0.0, 8, answered=0.0)
    assert (bucket.allowed, bucket.wait(0.0, 1, None), bucket.wait(0.0, 9, None)) == (8, 90.0, math.inf)


@pytest.mark.parametrize("reserved", ["-0.1", "1", "1.5"])
def test_an_invalid_share_is_refused(reserved: str) -> None:
    """Below nothing, all, and more than all."""
    with pytest.raises(ValueError, match=reserved):
        RequestBudgets().of("a", "v", traits(), D(reserved))


@pytest.mark.parametrize(
    "cost", [Cost("submit", "other", each=1), Cost("submit", "w", units=-1), Cost("submit", "w", each=-1)]
)
def test_a_cost_of_an_unknown_limit_or_a_negative_one_is_refused(cost: Cost) -> None:
    """The message names the call."""
    with pytest.raises(ValueError, match="submit"):
        RequestBudgets().of("a", "v", traits(cost))


@pytest.mark.parametrize(
    "limit", [RateLimit("w", 0, 60.0), RateLimit("w", 5, 0.0), RateLimit("w", 5, -1.0), RateLimit("w", 5, math.inf)]
)
def test_a_limit_of_nothing_or_without_an_end_is_refused(limit: RateLimit) -> None:
    """No unit, no time, or for ever."""
    with pytest.raises(ValueError, match="w"):
        RequestBudgets().of("a", "v", traits(limits=(limit,)))


def test_a_limit_of_one_in_the_shortest_time_is_valid() -> None:
    """And a reserve of nothing, and costs of nothing, are allowed."""
    budget = RequestBudgets().of("a", "v", traits(Cost("submit", "w"), limits=(RateLimit("w", 1, 0.001),)), D(0))
    assert budget.room(0.0, "submit", ("X",) * 5) == 5


def test_costs_of_one_call_and_limit_add_up() -> None:
    """2 a request and 1 an order, then 1 and 2 more: six for one order, so one fits into ten and two do not."""
    budget = RequestBudgets().of(
        "a", "v", traits(Cost("submit", "w", units=2, each=1), Cost("submit", "w", units=1, each=2))
    )
    assert budget.room(0.0, "submit", ("X", "Y")) == 1
    assert budget.wait(0.0, "submit", ("X",)) == 0.0
    assert budget.wait(0.0, "submit", ("X", "Y")) == math.inf


def test_single_calls_pay_for_each_request_and_a_batch_once() -> None:
    """2 a request and 1 an order, of ten: singly three fit, in a batch eight."""
    budget = RequestBudgets().of(
        "a", "v", traits(Cost("submit", "w", units=2, each=1), Cost("submit_batch", "w", units=2, each=1))
    )
    assert budget.room(0.0, "submit", ("X",) * 9) == 3
    assert budget.room(0.0, "submit_batch", ("X",) * 9) == 8
    assert budget.wait(0.0, "submit", ("X",) * 3) == 0.0
    assert budget.wait(0.0, "submit", ("X",) * 4) == math.inf
    assert budget.wait(0.0, "submit_batch", ("X",) * 8) == 0.0
    assert budget.wait(0.0, "submit_batch", ("X",) * 9) == math.inf
    budget.reserve(0.0, "submit_batch", ("X",) * 5)
    assert budget.room(0.0, "submit", ("X",) * 9) == 1


def test_a_call_about_nothing_is_one_request() -> None:
    """A poll without symbols costs its units once."""
    budget = RequestBudgets().of("a", "v", traits(Cost("snapshot", "w", units=4, each=3)))
    for _ in range(2):
        budget.reserve(0.0, "snapshot")
    assert budget.wait(0.0, "snapshot") == 60.0


def test_each_symbol_has_a_limit_of_its_own_where_the_venue_counts_so() -> None:
    """2 a request and 1 an order, six for each symbol: two singles of one symbol, or four of it in one batch."""
    by_symbol = RateLimit("w", 6, 60.0, "symbol")
    costs = Cost("submit", "w", units=2, each=1), Cost("submit_batch", "w", units=2, each=1)
    budget = RequestBudgets().of("a", "v", traits(*costs, limits=(by_symbol,)))
    assert budget.room(0.0, "submit", ("X", "Y", "X", "Y", "X")) == 4
    assert budget.wait(0.0, "submit", ("X", "Y", "X", "Y")) == 0.0
    assert budget.wait(0.0, "submit", ("X", "X", "X")) == math.inf
    assert budget.wait(0.0, "submit_batch", ("X", "X", "X", "X", "Y")) == 0.0
    assert budget.wait(0.0, "submit_batch", ("X", "X", "X", "X", "X")) == math.inf
    assert budget.room(0.0, "submit_batch", ("X",) * 5) == 4
    budget.reserve(0.0, "submit", ("X",))
    budget.reserve(0.0, "submit", ("X",))
    assert (budget.wait(0.0, "submit", ("X",)), budget.wait(0.0, "submit", ("Y",))) == (60.0, 0.0)


def test_polling_is_held_to_its_share_and_closing_is_not() -> None:
    """Half of ten is reserved: polls of 2 fit twice, and not a third time; an order of 2 still does."""
    budget = RequestBudgets().of(
        "a", "v", traits(Cost("snapshot", "w", units=2), Cost("submit", "w", units=2)), D("0.5")
    )
    for _ in range(2):
        budget.reserve(0.0, "snapshot", purpose="reading")
    assert budget.wait(0.0, "snapshot", purpose="reading") == 60.0
    with pytest.raises(BudgetSpentError) as refused:
        budget.reserve(0.0, "snapshot", purpose="reading")
    assert (refused.value.wait, "snapshot" in str(refused.value), "60 s" in str(refused.value)) == (60.0, True, True)
    assert budget.room(0.0, "submit", ("X",) * 9) == 3


def test_units_of_closing_do_not_count_as_polls() -> None:
    """Closing holds 4 of ten; polls still have their five."""
    budget = RequestBudgets().of(
        "a", "v", traits(Cost("snapshot", "w", units=2), Cost("submit", "w", units=2)), D("0.5")
    )
    for _ in range(2):
        budget.reserve(0.0, "submit", ("X",))
    for _ in range(2):
        budget.reserve(0.0, "snapshot", purpose="reading")
    assert budget.wait(0.0, "snapshot", purpose="reading") == 60.0


def test_an_answer_returns_its_units_a_window_later() -> None:
    """Not at once, and at the very instant."""
    budget = RequestBudgets().of("a", "v", traits(Cost("submit", "w", units=10)))
    ticket = budget.reserve(0.0, "submit", ("X",))
    budget.answered(3.0, ticket)
    assert (budget.wait(3.0, "submit", ("X",)), budget.room(62.9, "submit", ("X",))) == (60.0, 0)
    assert (budget.wait(63.0, "submit", ("X",)), budget.room(63.0, "submit", ("X",))) == (0.0, 1)


def test_the_venues_own_count_is_applied_each_time_that_it_changes() -> None:
    """Six used by others; the same number again changes nothing, another does."""
    budget = RequestBudgets().of("a", "v", traits(Cost("submit", "w", units=1)))
    budget.observed(0.0, {"w": 6, "else": 99})
    assert budget.room(0.0, "submit", ("X",) * 20) == 4
    budget.observed(30.0, {"w": 6})
    assert budget.room(60.0, "submit", ("X",) * 20) == 10
    budget.observed(60.0, {"w": 7})
    assert budget.room(60.0, "submit", ("X",) * 20) == 3


def test_a_count_without_its_symbol_counts_for_none() -> None:
    """And the limits after it are still observed."""
    limits = RateLimit("s", 10, 60.0, "symbol"), RateLimit("w", 10, 60.0)
    budget = RequestBudgets().of(
        "a", "v", traits(Cost("submit", "s", units=1), Cost("submit", "w", units=1), limits=limits)
    )
    budget.observed(0.0, {"s": 9})
    assert budget.room(0.0, "submit", ("X",) * 20) == 10
    budget.observed(0.0, {"s": 9, "w": 8})
    assert budget.room(0.0, "submit", ("X",) * 20) == 2


class Meter:
    """An adapter that reports what the venue counts, or fails to."""

    def __init__(self, count: Mapping[str, int] | None) -> None:
        self.count = count

    def used(self) -> Mapping[str, int]:
        if self.count is None:
            raise RuntimeError("no header")
        return self.count


def test_an_adapter_that_counts_is_used_and_one_that_fails_or_does_not_costs_nothing() -> None:
    """Only a reported count changes anything."""
    budget = RequestBudgets().of("a", "v", traits(Cost("submit", "w", units=1)))
    budget.observe_venue(0.0, ScriptedVenue(None))
    budget.observe_venue(0.0, Meter(None))
    assert budget.room(0.0, "submit", ("X",) * 20) == 10
    budget.observe_venue(0.0, Meter({"w": 4}))
    assert budget.room(0.0, "submit", ("X",) * 20) == 6


@pytest.mark.parametrize(
    ("pause", "until"),
    [(7.0, 107.0), (0.5, 100.5), (0.0, 101.0), (-3.0, 101.0), (math.nan, 101.0), (1e9, 100.0 + LONGEST_BAN)],
)
def test_a_pause_lasts_as_long_as_the_venue_says_if_that_is_a_time(pause: float, until: float) -> None:
    """Zero, negative and invalid numbers are none; three days are the longest there is."""
    budget = RequestBudget.unlimited()
    assert budget.paused_until == -math.inf
    budget.refused(100.0, pause)
    assert budget.paused_until == until
    assert budget.room(until, "submit", ("X",)) == 1
    assert budget.room(until - 0.25, "submit", ("X",)) == 0
    assert budget.wait(until - 0.25, "submit", ("X",)) == 0.25


def test_a_shorter_pause_never_shortens_a_longer_one() -> None:
    """Sixty seconds, and then one: sixty."""
    budget = RequestBudget.unlimited()
    budget.refused(0.0, 60.0)
    budget.refused(10.0, 1.0)
    assert budget.paused_until == 60.0


def test_a_breaker_opens_at_its_number_of_failures_and_not_before() -> None:
    """Three in a row; a success in between resets the count."""
    breaker = Breaker(3, 2.0, 8.0)
    for failed in (True, True, False, True, True):
        (breaker.failed if failed else breaker.succeeded)(10.0)
    assert (breaker.state, breaker.wait(10.0), breaker.allows(10.0)) == ("closed", 0.0, True)
    breaker.failed(11.0)
    assert (breaker.state, breaker.probe_at, breaker.wait(11.5), breaker.allows(12.999)) == ("open", 13.0, 1.5, False)


def test_failed_probes_double_the_wait_up_to_the_longest() -> None:
    """2, 4, 8, 8 seconds; a success takes it back to 2."""
    breaker, now, waits = Breaker(1, 2.0, 8.0), 0.0, []
    breaker.failed(now)
    for _ in range(4):
        waits.append(breaker.wait(now))
        now = breaker.probe_at
        assert breaker.allows(now)
        assert breaker.state == "half_open"
        breaker.failed(now)
    assert (waits, breaker.wait(now)) == ([2.0, 4.0, 8.0, 8.0], 8.0)
    breaker.succeeded(now)
    assert (breaker.state, breaker.probe_at <= now, breaker.allows(now)) == ("closed", True, True)
    breaker.failed(now)
    assert breaker.wait(now) == 2.0


def test_one_probe_at_a_time_and_a_lost_one_expires() -> None:
    """A second waits until the longest wait has passed since the first."""
    breaker = Breaker(1, 2.0, 8.0)
    breaker.failed(0.0)
    assert breaker.allows(2.0)
    assert (breaker.wait(3.0), breaker.allows(9.999), breaker.wait(10.0), breaker.allows(10.0)) == (
        7.0,
        False,
        0.0,
        True,
    )
    breaker.failed(11.0)
    assert (breaker.state, breaker.probe_at) == ("open", 15.0)


def test_failures_while_the_breaker_is_open_change_nothing() -> None:
    """Those requests left before."""
    breaker = Breaker(1, 2.0, 8.0)
    for now in (0.0, 1.0, 1.5):
        breaker.failed(now)
    assert (breaker.probe_at, breaker.wait(2.0)) == (2.0, 0.0)


@pytest.mark.parametrize(
    ("failures", "first", "longest"), [(0, 1.0, 2.0), (1, 0.0, 2.0), (1, -1.0, 2.0), (1, 3.0, 2.0), (1, 1.0, math.inf)]
)
def test_a_breaker_that_could_never_open_or_close_is_refused(failures: int, first: float, longest: float) -> None:
    """No failures, no wait, a first wait beyond the longest, or one without an end."""
    with pytest.raises(ValueError, match=str(failures)):
        Breaker(failures, first, longest)


def test_a_breaker_may_have_one_wait_only() -> None:
    """First and longest the same, at the first failure; by default it takes five."""
    breaker = Breaker(1, 2.0, 2.0)
    breaker.failed(0.0)
    assert breaker.wait(0.0) == 2.0
    usual = Breaker()
    assert usual.probe_at == -math.inf
    for _ in range(4):
        usual.failed(0.0)
    assert usual.allows(0.0)
    usual.failed(0.0)
    assert usual.wait(0.0) == 1.0
