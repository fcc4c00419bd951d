"""What the request budget says in single cases: sharing, silence after a refusal, counts of the venue, mistakes."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from killswitch.model.venue import Cost, RateLimit, VenueTraits
from killswitch.ratelimit.budget import BudgetSpentError, RequestBudget, RequestBudgets

TRAITS = VenueTraits(
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


def test_units_come_back_their_time_after_the_answer() -> None:
    """The fifth order of a second waits until a second after the first answer, not after the first request."""
    budget = RequestBudgets().of("a", "v", TRAITS)
    tickets = [budget.reserve(0.0, "submit", ("X",)) for _ in range(4)]
    assert budget.wait(0.0, "submit", ("X",)) == 1.0
    budget.answered(0.5, tickets[0])
    assert budget.wait(0.5, "submit", ("X",)) == 1.0
    assert budget.wait(1.25, "submit", ("X",)) == 0.25
    assert budget.wait(1.5, "submit", ("X",)) == 0.0


def test_answering_twice_gives_back_once() -> None:
    """A ticket that is given back again frees nothing more."""
    budget = RequestBudgets().of("a", "v", TRAITS)
    tickets = [budget.reserve(0.0, "submit", ("X",)) for _ in range(4)]
    budget.answered(0.0, tickets[0])
    budget.answered(0.0, tickets[0])
    assert budget.room(1.0, "submit", ("X",) * 4) == 1


def test_c14_what_counts_for_the_address_is_shared_by_its_accounts_and_by_no_other_venue() -> None:
    """Two accounts at one venue draw on one weight and each on orders of its own; another venue is untouched."""
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


def test_a_reading_that_is_greater_than_its_share_is_still_let_in_alone() -> None:
    """With 90% kept for closing, 4 of 10 units are more than reading's share: one reading fits, a second does not."""
    budget = RequestBudgets().of("a", "v", TRAITS, Decimal("0.9"))
    budget.reserve(0.0, "snapshot", purpose="reading")
    assert budget.wait(0.0, "snapshot", purpose="reading") > 0
    assert budget.wait(0.0, "snapshot", purpose="closing") == 0


def test_c14_a_refusal_silences_its_venue_for_the_time_that_the_venue_says() -> None:
    """After 429 no account of that venue sends anything for the seconds it named; other venues go on."""
    budgets = RequestBudgets()
    one, two, other = budgets.of("a", "v", TRAITS), budgets.of("b", "v", TRAITS), budgets.of("c", "w", TRAITS)
    one.refused(100.0, 7.0)
    assert two.paused_until == 107.0
    assert two.wait(100.0, "submit", ("X",)) == 7.0
    assert two.room(106.9, "submit", ("X",)) == 0
    assert two.room(107.0, "submit", ("X",)) == 1
    assert other.wait(100.0, "submit", ("X",)) == 0.0


def test_refusals_without_a_time_double_the_silence_until_a_request_is_heard() -> None:
    """1, 2, 4, … up to 60 s; a request that leaves after the silence and is answered begins anew at 1."""
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


def test_the_refusals_of_one_wave_count_as_one() -> None:
    """Twenty requests on their way when the first refusal comes do not double the silence twenty times."""
    budget = RequestBudget.unlimited()
    for _ in range(20):
        budget.refused(5.0, None)
    assert budget.paused_until == 6.0


@pytest.mark.parametrize("nonsense", [0.0, -3.0, math.nan])
def test_a_time_that_is_none_counts_as_not_said(nonsense: float) -> None:
    """A retry-after of zero, less, or not a number is waited for as if the venue had said nothing."""
    budget = RequestBudget.unlimited()
    budget.refused(0.0, nonsense)
    assert budget.paused_until == 1.0


def test_a_ban_of_a_thousand_years_is_taken_for_three_days() -> None:
    """Milliseconds taken for seconds must not silence the venue for the rest of the run."""
    budget = RequestBudget.unlimited()
    budget.refused(0.0, math.inf)
    assert budget.paused_until == 3 * 86_400


def test_the_venues_higher_count_is_believed_and_an_old_one_not_twice() -> None:
    """Others at the same address count until their time is over; the same number told again is no news."""
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


def test_two_words_on_one_limit_come_to_the_stricter() -> None:
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
    """A cost of a limit that is not there, and a limit of nothing, are an adapter's mistake and said so."""
    with pytest.raises(ValueError, match=says):
        RequestBudgets().of("a", "v", traits)
