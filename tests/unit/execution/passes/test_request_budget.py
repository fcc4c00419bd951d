"""The request budget in single cases: sharing, pauses after a refusal, the venue's counts, and contradictory traits."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from killswitch.model.venue import Cost, RateLimit, VenueDescription, VenueTraits
from killswitch.ratelimit.budget import BudgetSpentError, RequestBudget, RequestBudgets

TRAITS = VenueDescription(
    limits=(RateLimit("weight", 10, 60.0, "address"), RateLimit("orders", 4, 1.0)),
    costs=(
        Cost("snapshot", "weight", units=4),
        Cost("submit", "weight", units=1),
        Cost("submit", "orders", each=1),
        Cost("submit_batch", "weight", units=2),
        Cost("submit_batch", "orders", each=1),
    ),
    batch=3,
)


def test_units_are_free_again_their_period_after_the_answer() -> None:
    """The fifth order of a second waits until a second after the first answer, not after the first request."""
    budget = RequestBudgets().of("a", "v", TRAITS)
    tickets = [budget.reserve(0.0, "submit", ("X",)) for _ in range(4)]
    assert budget.wait(0.0, "submit", ("X",)) == 1.0
    budget.answered(0.5, tickets[0])
    assert budget.wait(0.5, "submit", ("X",)) == 1.0
    assert budget.wait(1.25, "submit", ("X",)) == 0.25
    assert budget.wait(1.5, "submit", ("X",)) == 0.0


def test_a_ticket_returned_twice_frees_its_units_once() -> None:
    """A second return frees nothing more."""
    budget = RequestBudgets().of("a", "v", TRAITS)
    tickets = [budget.reserve(0.0, "submit", ("X",)) for _ in range(4)]
    budget.answered(0.0, tickets[0])
    budget.answered(0.0, tickets[0])
    assert budget.room(1.0, "submit", ("X",) * 4) == 1


def test_c14_a_limit_of_the_address_is_shared_by_its_accounts_and_by_no_other_venue() -> None:
    """Two accounts at one venue share one weight and each has its own orders; another venue is unaffected."""
    budgets = RequestBudgets()
    one, two, other = budgets.of("a", "v", TRAITS), budgets.of("b", "v", TRAITS), budgets.of("c", "w", TRAITS)
    one.reserve(0.0, "snapshot")
    one.reserve(0.0, "snapshot")
    assert two.room(0.0, "submit", ("X",) * 4) == 2
    assert other.room(0.0, "submit", ("X",) * 4) == 4
    for _ in range(2):
        two.reserve(0.0, "submit", ("X",))
    assert one.wait(0.0, "submit", ("X",)) > 0


def test_a_batch_costs_its_request_once_and_every_order_in_it() -> None:
    """Of the weight a batch takes 2 for all, of the orders one for each."""
    budget = RequestBudgets().of("a", "v", TRAITS)
    for _ in range(2):
        budget.reserve(0.0, "snapshot")
    assert budget.room(0.0, "submit_batch", ("X",) * 9) == 4
    budget.reserve(0.0, "submit_batch", ("X", "Y", "Z"))
    assert budget.room(0.0, "submit_batch", ("X",)) == 0


def test_a_call_that_is_greater_than_its_limit_never_fits() -> None:
    """Five orders in one batch do not fit into four a second, however long one waits."""
    assert RequestBudgets().of("a", "v", TRAITS).wait(0.0, "submit_batch", ("X",) * 5) == math.inf


def test_a_call_that_does_not_fit_takes_nothing() -> None:
    """It is refused with how long it would have to wait, and no unit of any limit is held for it."""
    budget = RequestBudgets().of("a", "v", TRAITS)
    for _ in range(4):
        budget.answered(0.0, budget.reserve(0.0, "submit", ("X",)))
    with pytest.raises(BudgetSpentError) as refused:
        budget.reserve(0.25, "submit", ("X",))
    assert refused.value.wait == 0.75
    assert budget.room(1.0, "submit", ("X",) * 9) == 4


def test_a_poll_that_is_greater_than_its_share_is_still_let_in_alone() -> None:
    """With 90% reserved for closing, 4 of 10 units exceed the share of polls: one poll fits, a second does not."""
    budget = RequestBudgets().of("a", "v", TRAITS, Decimal("0.9"))
    budget.reserve(0.0, "snapshot", purpose="reading")
    assert budget.wait(0.0, "snapshot", purpose="reading") > 0
    assert budget.wait(0.0, "snapshot", purpose="closing") == 0


def test_c14_a_refusal_pauses_its_venue_for_the_time_that_the_venue_asks() -> None:
    """After 429 no account of that venue sends anything for the seconds it named; other venues continue."""
    budgets = RequestBudgets()
    one, two, other = budgets.of("a", "v", TRAITS), budgets.of("b", "v", TRAITS), budgets.of("c", "w", TRAITS)
    one.refused(100.0, 7.0)
    assert two.paused_until == 107.0
    assert two.wait(100.0, "submit", ("X",)) == 7.0
    assert two.room(106.9, "submit", ("X",)) == 0
    assert two.room(107.0, "submit", ("X",)) == 1
    assert other.wait(100.0, "submit", ("X",)) == 0.0


def test_refusals_without_a_time_double_the_pause_until_a_request_is_answered() -> None:
    """1, 2, 4, … up to 60 s; a request that leaves after the pause and is answered resets it to 1."""
    budget, now, waits = RequestBudget.unlimited(), 0.0, []
    for _ in range(8):
        ticket = budget.reserve(now, "submit", ("X",))
        budget.refused(now, None)
        budget.answered(now, ticket)
        waits.append(budget.paused_until - now)
        now = budget.paused_until
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    budget.answered(now, budget.reserve(now, "snapshot"))
    budget.refused(now + 1, None)
    assert budget.paused_until == now + 2


def test_the_refusals_of_one_batch_count_as_one() -> None:
    """Twenty requests on their way at the first refusal do not double the pause twenty times."""
    budget = RequestBudget.unlimited()
    for _ in range(20):
        budget.refused(5.0, None)
    assert budget.paused_until == 6.0


@pytest.mark.parametrize("nonsense", [0.0, -3.0, math.nan])
def test_an_invalid_retry_after_counts_as_missing(nonsense: float) -> None:
    """For a retry-after of zero, less, or not a number the pause is the same as without one."""
    budget = RequestBudget.unlimited()
    budget.refused(0.0, nonsense)
    assert budget.paused_until == 1.0


def test_a_ban_of_a_thousand_years_is_limited_to_three_days() -> None:
    """Milliseconds taken for seconds must not pause the venue for the rest of the run."""
    budget = RequestBudget.unlimited()
    budget.refused(0.0, math.inf)
    assert budget.paused_until == 3 * 86_400


def test_the_venues_higher_count_applies_and_a_repeated_one_only_once() -> None:
    """Others at the same address count until their period is over; the same number repeated adds nothing."""
    budget = RequestBudgets().of("a", "v", TRAITS)
    budget.answered(0.0, budget.reserve(0.0, "snapshot"))
    budget.observed(0.0, {"weight": 9, "unheard-of": 5})
    assert budget.room(0.0, "submit", ("X",) * 4) == 1
    budget.observed(30.0, {"weight": 9})
    assert budget.room(60.0, "submit", ("X",) * 4) == 4
    budget.observed(60.0, {"weight": 9})
    assert budget.room(60.0, "submit", ("X",) * 4) == 4
    budget.observed(60.0, {"weight": 8})
    assert budget.room(60.0, "submit", ("X",) * 4) == 2


def test_of_two_descriptions_of_one_limit_the_stricter_applies() -> None:
    """Where two accounts describe the limit of one address differently, both keep to the stricter."""
    budgets = RequestBudgets()
    one = budgets.of("a", "v", TRAITS)
    one.answered(0.0, one.reserve(0.0, "snapshot"))
    stricter = VenueTraits((RateLimit("weight", 5, 90.0, "address"),), (Cost("submit", "weight", units=1),))
    budgets.of("b", "v", stricter)
    assert one.room(0.0, "submit", ("X",) * 4) == 1


@pytest.mark.parametrize(
    ("traits", "says"),
    [
        (VenueTraits(costs=(Cost("submit", "orders", 1),)), "no such limit"),
        (VenueTraits((RateLimit("x", 0, 1.0),)), "not a limit"),
        (VenueTraits((RateLimit("x", 1, 0.0),)), "not a limit"),
    ],
)
def test_traits_that_contradict_themselves_are_refused(traits: VenueTraits, says: str) -> None:
    """A cost of a missing limit, and a limit of zero, are an adapter's mistake, and the error says so."""
    with pytest.raises(ValueError, match=says):
        RequestBudgets().of("a", "v", traits)
