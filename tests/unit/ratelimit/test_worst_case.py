"""The time to close a book within a venue's limits: computed manually, and compared with the benchmark's own floor."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.model.venue import Call, Cost, RateLimit, VenueTraits
from killswitch.ratelimit.poll_cost import PolledAccount
from killswitch.ratelimit.worst_case import CloseEstimate, CloseTask, estimate_close
from tests.bench.limits import BINANCE, BYBIT, OKX, spread

HALF = Decimal("0.5")
TRIP = 0.1
TEN_A_SECOND = VenueTraits(
    limits=(RateLimit("orders", 10, 1.0),),
    costs=(Cost("submit", "orders", each=1), Cost("submit_batch", "orders", each=1)),
)


def book(count: int, parts: int = 1) -> list[tuple[str, int]]:
    return [(f"S{n}", parts) for n in range(count)]


def task(traits: VenueTraits, count: int, account: str = "main", **more: object) -> CloseTask:
    return CloseTask(account, "venue", traits, HALF, book(count), **more)  # type: ignore[arg-type] # literal by the caller


def alone(one: CloseTask, *, interval: float = math.inf) -> CloseEstimate:
    return estimate_close([one], trip=TRIP, interval=interval)[one.account]


def test_without_limits_it_is_three_round_trips() -> None:
    """All orders at once, a query for each, and the poll that proves the book flat: 0.1 s each."""
    found = alone(task(VenueTraits(), 40))
    assert found == CloseEstimate(40, 0, 81, {"find_order": 40, "snapshot": 1, "submit": 40}, 0.3, None)


def test_units_come_back_a_period_after_the_answer() -> None:
    """10 a second, 25 orders: at 0, at 1.1 and at 2.2, because the first ten were answered at 0.1; then 0.3 s more."""
    found = alone(task(TEN_A_SECOND, 25))
    assert found.seconds == pytest.approx(2.2 + 0.3, abs=0.01)
    assert found.bound_by == "orders"


def test_batches_are_fewer_requests() -> None:
    """25 orders of which each counts, in batches of 5: five requests, in the same time."""
    found = alone(task(TEN_A_SECOND, 25, batch=5))
    assert found.calls == {"find_order": 25, "snapshot": 1, "submit_batch": 5}
    assert found.seconds == pytest.approx(2.5, abs=0.01)


def test_entries_are_cancelled_before_and_the_rest_at_the_end() -> None:
    """Three cancels a second: six entries take 1.1 + 0.1 s, the order, its question and look 0.3 s, then a stop is due.

    The first three units are back at 1.1 s, the others at 2.2 s; the stop waits for that, and is looked after.
    """
    traits = VenueTraits(limits=(RateLimit("cancels", 3, 1.0),), costs=(Cost("cancel", "cancels", units=1),))
    found = alone(task(traits, 1, first=("S0",) * 6, last=("S0",)))
    assert (found.cancels, found.calls["cancel"], found.calls["snapshot"]) == (7, 7, 2)
    assert found.seconds == pytest.approx(2.2 + 0.2, abs=0.01)


def test_a_position_above_the_maximum_is_closed_in_batches() -> None:
    """Three orders of one position leave one after another, each with its query and poll: 3 × 0.3 s."""
    found = alone(CloseTask("main", "venue", VenueTraits(), HALF, book(1, 3)))
    assert (found.orders, found.calls["submit"], found.calls["snapshot"]) == (3, 3, 3)
    assert found.seconds == pytest.approx(0.9, abs=0.01)


def test_a_whole_book_close_is_one_request_where_single_orders_would_wait() -> None:
    """One close and one poll; where ten orders fit at once they are sent, and where the policy trims nothing else."""
    swept = alone(task(TEN_A_SECOND, 100, whole_book=True))
    assert swept.calls == {"close_book": 1, "snapshot": 1}
    assert swept.seconds == pytest.approx(0.2, abs=0.01)
    assert "close_book" not in alone(task(TEN_A_SECOND, 10, whole_book=True)).calls
    assert "close_book" not in alone(task(TEN_A_SECOND, 100)).calls


def test_accounts_at_one_address_share_its_limit() -> None:
    """Ten orders each, ten a second for the address: one is through at 0.3 s, the other begins at 1.1 s."""
    shared = replace(TEN_A_SECOND, limits=(RateLimit("orders", 10, 1.0, by="address"),))
    found = estimate_close([task(shared, 10, "a"), task(shared, 10, "b")], trip=TRIP, interval=math.inf)
    assert sorted(each.seconds or 0.0 for each in found.values()) == pytest.approx([0.3, 1.4], abs=0.01)
    apart = estimate_close([task(TEN_A_SECOND, 10, "a"), task(TEN_A_SECOND, 10, "b")], trip=TRIP, interval=math.inf)
    assert [each.seconds for each in apart.values()] == [0.3, 0.3]


def test_polls_have_taken_their_share_before() -> None:
    """Ten units a minute, half of them for reading, which holds them all: closing has the other five.

    Of eight orders five leave at once, and three when those units are back, at 60.1 s; the question and the look take
    0.3 s more. With nothing reading, all of it is through at once.
    """
    traits = VenueTraits(
        limits=(RateLimit("weight", 10, 60.0),),
        costs=(Cost("submit", "weight", units=1), Cost("snapshot", "weight", units=1)),
    )
    assert alone(task(traits, 8)).seconds == pytest.approx(0.3, abs=0.01)
    assert alone(task(traits, 8), interval=1.0).seconds == pytest.approx(60.4, abs=0.05)


@pytest.mark.parametrize(("by", "seconds"), [("address", 60.4), ("account", 0.3)])
def test_polls_of_an_account_without_a_task_have_taken_theirs_too(by: str, seconds: float) -> None:
    """Ten units a minute and a reading every 20 s: three are gone for the account's own, and seven do for six orders
    and a look. A flat account at the address would take three more, of which the five for reading leave two: of the six
    orders five leave at once, and one when their units are back, at 60.1 s; its way, the question and the look are
    0.3 s. What is counted for each account alone, the flat one does not touch.
    """
    traits = VenueTraits(
        limits=(RateLimit("weight", 10, 60.0, by=by),),  # type: ignore[arg-type] # literal by the caller
        costs=(Cost("submit", "weight", units=1), Cost("snapshot", "weight", units=1)),
    )
    busy, flat = task(traits, 6), PolledAccount("flat", "venue", traits, HALF)
    assert alone(busy, interval=20.0).seconds == pytest.approx(0.3, abs=0.01)
    for polled in ([flat], [flat, PolledAccount("main", "venue", traits, HALF)]):
        found = estimate_close([busy], trip=TRIP, interval=20.0, polled=polled)
        assert list(found) == ["main"]
        assert found["main"].seconds == pytest.approx(seconds, abs=0.05)


def test_a_declared_interval_spaces_the_orders() -> None:
    """One a second: five leave at 0, 1, 2, 3 and 4, however much the venue would accept."""
    found = alone(task(TEN_A_SECOND, 5, every=1.0, batch=5))
    assert found.calls["submit"] == 5
    assert found.seconds == pytest.approx(4.3, abs=0.01)


def test_a_declared_pause_separates_two_orders_of_a_position() -> None:
    """Two slices with two seconds between the end of one batch and the next: 0.3 + 2 + 0.3 s."""
    found = alone(CloseTask("main", "venue", VenueTraits(), HALF, book(1, 2), pause=2.0))
    assert found.seconds == pytest.approx(2.6, abs=0.01)


def test_a_close_that_takes_more_than_a_day_has_no_time() -> None:
    """Ten orders a day for a hundred of them."""
    slow = replace(TEN_A_SECOND, limits=(RateLimit("orders", 10, 86_400.0),))
    assert alone(task(slow, 100)).seconds is None


def test_nothing_to_do_takes_no_time() -> None:
    """An empty book without orders."""
    assert alone(task(TEN_A_SECOND, 0)) == CloseEstimate(0, 0, 0, {}, 0.0, None)


@pytest.mark.parametrize("traits", [BINANCE, BYBIT, OKX], ids=["binance", "bybit", "okx"])
@pytest.mark.parametrize("count", [1, 10, 100, 1000])
def test_it_is_never_less_than_the_floor_and_not_much_more(traits: VenueTraits, count: int) -> None:
    """The floor of the bench: the least time between first and last order, and the ways of the last one and the look.

    Here each order is asked about once, too. Without that and without waiting for answers it is the floor.
    """
    latest, _ = spread(traits, count)
    found = alone(task(traits, count))
    assert found.seconds is not None
    assert found.seconds >= latest + 2 * TRIP - 0.001
    unasked = replace(traits, costs=tuple(each for each in traits.costs if each.call != "find_order"))
    plain = estimate_close([task(unasked, count)], trip=1e-6, interval=math.inf)["main"]
    assert plain.seconds == pytest.approx(latest, abs=0.25)


CALLS: tuple[Call, ...] = ("submit", "submit_batch", "find_order", "cancel", "snapshot")
LIMIT = st.tuples(st.integers(4, 30), st.sampled_from([1.0, 2.0, 10.0]), st.sampled_from(["account", "address"]))
COST = st.tuples(st.sampled_from(CALLS), st.integers(0, 2), st.integers(0, 2), st.integers(0, 1))


@settings(max_examples=60, deadline=None)
@given(
    limits=st.lists(LIMIT, min_size=1, max_size=3),
    costs=st.lists(COST, max_size=6),
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=3),
    batch=st.integers(1, 7),
    trip=st.sampled_from([0.01, 0.2, 1.5]),
)
def test_everything_is_sent_and_no_limit_is_broken(
    limits: list[tuple[int, float, str]], costs: list[tuple[Call, int, int, int]], counts: list[int], batch: int,
    trip: float,
) -> None:  # fmt: skip
    """Whatever the limits: each order and cancel once, and the reported time has room for all of them."""
    names = tuple(
        RateLimit(f"l{n}", allowed, per, by=by)  # type: ignore[arg-type] # one of the literals
        for n, (allowed, per, by) in enumerate(limits)
    )
    priced = {(call, which % len(names)): (units, each) for call, units, each, which in costs}
    prices = tuple(Cost(call, f"l{which}", *price) for (call, which), price in priced.items() if any(price))
    traits = VenueTraits(limits=names, costs=prices)
    tasks = [task(traits, count, f"a{n}", first=("S0",) * (count // 2), batch=batch) for n, count in enumerate(counts)]
    found = estimate_close(tasks, trip=trip, interval=math.inf)
    used: dict[int, int] = {}
    for count, each in zip(counts, found.values(), strict=True):
        assert each.orders == count == each.calls.get("find_order", 0)
        assert each.calls.get("submit", 0) + batch * each.calls.get("submit_batch", 0) >= count
        assert each.cancels == each.calls.get("cancel", 0) == count // 2
        for (call, which), (units, more) in priced.items():
            orders = count - each.calls.get("submit", 0) if call == "submit_batch" else each.calls.get(call, 0)
            if call == "snapshot":
                orders = 0
            own = units * each.calls.get(call, 0) + more * orders
            used[which] = used.get(which, 0) + own if names[which].by == "address" else max(used.get(which, 0), own)
    longest = max(each.seconds or 0.0 for each in found.values())
    for which, units in used.items():
        allowed, per = names[which].allowed, names[which].per
        assert longest >= (math.ceil(units / allowed) - 1) * per - 0.01
