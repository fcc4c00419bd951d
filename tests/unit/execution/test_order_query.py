"""Order queries: what the order lookup, the open orders and the fills settle, and what a missing answer leaves open."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, cast

import pytest

from killswitch.execution.account_context import AccountContext
from killswitch.execution.closing_pace import ClosingPace
from killswitch.execution.query.order_query import OrderQuery, OrderQuestion, questions
from killswitch.journal.codec import encode
from killswitch.journal.entries import Acknowledged, Entry, OrderDetached, OrderSending
from killswitch.journal.lifecycle import TargetState
from killswitch.journal.targets import PositionTarget
from killswitch.model.snapshot import Fill, Order
from killswitch.model.store import JournalEntry
from killswitch.model.venue import (
    Cost,
    MalformedAnswerError,
    OrderReport,
    RateLimit,
    RateLimitedError,
    VenueDownError,
    VenueTraits,
)
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.budget import RequestBudget, RequestBudgets
from tests.honest_venue import NOW, VirtualClock
from tests.runner_world import ScriptedVenue

D = Decimal


class PresetVenue(ScriptedVenue):
    """A venue with preset answers, which records its calls. A preset exception is raised."""

    def __init__(self, order: Any = None, resting: Any = (), fills: Any = ()) -> None:
        super().__init__(None)
        self.order, self.resting, self.fill_answer = order, resting, fills
        self.requests: list[tuple[str, ...]] = []

    async def find_order(self, symbol: str, name: str) -> Any:
        self.requests.append(("order", symbol, name))
        return self._answer(self.order)

    async def open_orders(self) -> Any:
        self.requests.append(("open",))
        return self._answer(self.resting)

    async def fills(self, symbol: str, name: str) -> Any:
        self.requests.append(("fills", symbol, name))
        return self._answer(self.fill_answer)

    @staticmethod
    def _answer(answer: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer


class QueryUnderTest:
    """One order query with its venue and clock, and the journal entries that it wrote."""

    def __init__(
        self, venue: PresetVenue, pace: ClosingPace | None = None, budget: RequestBudget | None = None
    ) -> None:
        self.venue, self.clock = venue, VirtualClock(NOW)
        self.written: list[JournalEntry] = []
        pace = pace or ClosingPace()
        breaker = Breaker(failures=9999)
        context = AccountContext(
            "main", venue, self.clock, pace, self._record, budget or RequestBudget.unlimited(), breaker
        )  # fmt: skip
        self.order_query = OrderQuery(context, lambda _: False)

    def _record(self, entries: Sequence[Entry]) -> None:
        self.written += map(encode, entries)

    def ask(self, *about: OrderQuestion) -> list[JournalEntry]:
        """The entries that one round of queries writes."""
        self.written = []
        asyncio.run(self.order_query.query(about))
        return self.written

    def entry_of(self, question: OrderQuestion) -> tuple[str, dict[str, str | None]] | None:
        """Kind and data of the entry that one round writes, if any."""
        found = self.ask(question)
        return (found[0].kind, found[0].data) if found else None


TARGET = PositionTarget("d1", "main", "BTC", "long", "sell", D(0), D(4), D(4), True, 1, 0)


def question(state: TargetState | None = TargetState.UNKNOWN, ago: float = 60.0, name: str = "o1") -> OrderQuestion:
    return OrderQuestion(TARGET, name, 3, "v1", D(4), NOW - timedelta(seconds=ago), state)


def report(state: str, filled: str = "0", **words: Any) -> OrderReport:
    return OrderReport("v9", "o1", "BTC", cast(Any, state), D(4), D(filled), **words)


def fill(amount: str, price: str, fee: str | None = "0") -> Fill:
    return Fill("f1", NOW, "BTC", "sell", D(amount), D(price), fee=None if fee is None else D(fee))


OURS = Order("v7", "BTC", "sell", D(4), client_order_id="o1")
GARBLED = MalformedAnswerError("what?")


def test_detached_orders_and_the_order_in_flight_are_queried() -> None:
    """A detached order has no state; the one in flight has that of its target; any other order is not queried."""
    target = PositionTarget("d1", "main", "BTC", "long", "sell", D(0), D(4), D(4), True, 1, 0)
    assert questions(target) == []
    first = ("d1", NOW, "main", "BTC", "long", "o1", 1)
    second = ("d1", NOW, "main", "BTC", "long", "o2", 2)
    for entry in (
        OrderSending(*first, amount=D(2)), OrderDetached(*first), OrderSending(*second, amount=D(3)),
        Acknowledged(*second, order="v2")
    ):  # fmt: skip
        target.apply(entry)
    assert questions(target) == [
        OrderQuestion(target, "o1", 1, None, D(2), NOW, None), OrderQuestion(target, "o2", 2, "v2", D(3), NOW,
        TargetState.WORKING)
    ]  # fmt: skip
    target.state = TargetState.READY
    assert [each.name for each in questions(target)] == ["o1"]


def test_an_answer_is_journaled_for_its_order_and_position() -> None:
    """Decision, account, position, client order id, attempt and instant; the order is not queried again."""
    asked = QueryUnderTest(PresetVenue(report("filled", "4", average_price=D(99), fee=D("0.5"))))
    asked.clock.elapsed = 7.0
    (entry,) = asked.ask(question())
    assert entry == JournalEntry(
        "d1", "filled", NOW + timedelta(seconds=7), "main", "BTC", "long", "o1", 3,
        {"order": "v9", "state": "filled", "filled": "4", "price": "99", "fee": "0.5"},
    )  # fmt: skip
    assert asked.venue.requests == [("order", "BTC", "o1")]
    assert not asked.order_query.is_unanswered(question())
    assert asked.order_query.next_at == float("inf")


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (TargetState.SENDING, "acknowledged"),
        (TargetState.UNKNOWN, "acknowledged"),
        (TargetState.WORKING, None),
        (None, None),
    ],
)
def test_an_open_order_is_acknowledged_only_once(state: TargetState | None, kind: str | None) -> None:
    """A detached order that is open is remembered as resting, by the venue's order id."""
    asked = QueryUnderTest(PresetVenue(report("open", "1")))
    found = asked.entry_of(question(state))
    assert found == (None if kind is None else (kind, {"order": "v9", "filled": "1"}))
    assert asked.order_query.open_order_id("o1") == ("v9" if state is None else None)


@pytest.mark.parametrize("order", [None, GARBLED])
@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (TargetState.SENDING, "acknowledged"),
        (TargetState.UNKNOWN, "acknowledged"),
        (TargetState.WORKING, None),
        (None, None),
    ],
)
def test_an_order_that_only_the_open_orders_list_is_found_there(
    order: object, state: TargetState | None, kind: str | None
) -> None:
    """By its client order id; its fills are not queried then."""
    stranger = Order("v6", "BTC", "sell", D(1))
    asked = QueryUnderTest(PresetVenue(order, (stranger, OURS)))
    found = asked.entry_of(question(state))
    assert found == (None if kind is None else (kind, {"order": "v7", "filled": None}))
    assert asked.order_query.open_order_id("o1") == ("v7" if state is None else None)
    assert asked.venue.requests == [("order", "BTC", "o1"), ("open",)]


def test_an_order_that_no_query_finds_is_absent_once_it_can_no_longer_arrive() -> None:
    """Two seconds after it was sent, or where that instant is unknown, or where the clock was set back."""
    assert QueryUnderTest(PresetVenue()).entry_of(question(ago=1.9)) is None
    for order_question in (
        question(ago=2.0),
        question(ago=-1.0),
        OrderQuestion(TARGET, "o1", 3, None, D(4), None, TargetState.UNKNOWN),
    ):
        found = QueryUnderTest(PresetVenue()).entry_of(order_question)
        assert found is not None
        assert found[0] == "absent"


@pytest.mark.parametrize(
    "venue",
    [
        PresetVenue(GARBLED),
        PresetVenue(None, GARBLED),
        PresetVenue(None, None),
        PresetVenue(None, (), GARBLED),
        PresetVenue(None, (), None),
    ],
)
def test_one_missing_answer_of_the_three_leaves_the_order_unknown(venue: PresetVenue) -> None:
    """Lookup, open orders or fills without an answer: the order is queried again."""
    asked = QueryUnderTest(venue)
    assert asked.entry_of(question()) is None
    assert asked.order_query.is_unanswered(question())


@pytest.mark.parametrize("silent", [RateLimitedError("later", 0.0), VenueDownError("down")])
def test_a_venue_that_refuses_the_lookup_gets_no_further_query(silent: Exception) -> None:
    """Neither for open orders nor for fills."""
    asked = QueryUnderTest(PresetVenue(silent, (OURS,), (fill("4", "1"),)))
    assert asked.entry_of(question()) is None
    assert asked.venue.requests == [("order", "BTC", "o1")]


@pytest.mark.parametrize("order", [None, GARBLED])
def test_fills_of_the_whole_amount_settle_an_order(order: object) -> None:
    """1 at 98 and 3 at 102 are 4 at 101, and their fees add up, whatever other answers are missing."""
    fill_answer = (fill("1", "98", "0.1"), fill("3", "102", "0.2"))
    assert QueryUnderTest(PresetVenue(order, GARBLED, fill_answer)).entry_of(question(ago=0.0)) == (
        "filled", {"order": "v1", "state": "expired", "filled": "4", "price": "101", "fee": "0.3"}
    )  # fmt: skip


def test_fills_settle_an_order_without_a_venue_order_id() -> None:
    """Its client order id is all that is known."""
    order_question = OrderQuestion(TARGET, "o1", 3, None, D(4), NOW, TargetState.UNKNOWN)
    found = QueryUnderTest(PresetVenue(None, (), (fill("4", "99"),))).entry_of(order_question)
    assert found is not None
    assert (found[0], found[1]["order"], found[1]["filled"]) == ("filled", "", "4")


def test_the_fee_is_unknown_where_one_fill_lacks_it() -> None:
    """None for the whole order."""
    found = QueryUnderTest(PresetVenue(None, (), (fill("1", "98", None), fill("3", "102", "0.2")))).entry_of(question())
    assert found is not None
    assert found[1]["fee"] is None


def test_a_partial_fill_settles_only_an_order_that_is_surely_gone() -> None:
    """Past its time and denied: expired with 1 filled; possibly still on its way, or not denied: queried again."""
    part = (fill("1", "98"),)
    found = QueryUnderTest(PresetVenue(None, (), part)).entry_of(question())
    assert found is not None
    assert (found[0], found[1]["filled"], found[1]["price"]) == ("filled", "1", "98")
    assert QueryUnderTest(PresetVenue(None, (), part)).entry_of(question(ago=1.0)) is None
    assert QueryUnderTest(PresetVenue(GARBLED, (), part)).entry_of(question()) is None
    assert QueryUnderTest(PresetVenue(None, GARBLED, part)).entry_of(question()) is None


def test_an_acknowledged_order_is_gone_only_after_two_seconds_of_denial() -> None:
    """The venue's lists may lag; after two seconds of denial it has expired with what has filled."""
    asked = QueryUnderTest(PresetVenue())
    assert asked.entry_of(question(TargetState.WORKING)) is None
    asked.clock.elapsed = 1.9
    assert asked.entry_of(question(TargetState.WORKING)) is None
    asked.clock.elapsed = 4.0
    found = asked.entry_of(question(TargetState.WORKING))
    assert found is not None
    assert (found[0], found[1]["state"], found[1]["filled"], found[1]["price"]) == ("filled", "expired", "0", None)


def test_an_open_order_resets_the_time_of_its_denial() -> None:
    """Open in between: two seconds of denial are needed again."""
    asked = QueryUnderTest(PresetVenue())
    asked.ask(question(TargetState.WORKING))
    asked.clock.elapsed = 1.5
    asked.venue.order = report("open")
    asked.ask(question(TargetState.WORKING))
    asked.clock.elapsed, asked.venue.order = 3.0, None
    assert asked.entry_of(question(TargetState.WORKING)) is None
    asked.clock.elapsed = 5.0
    assert asked.entry_of(question(TargetState.WORKING)) is not None


def test_query_intervals_grow_up_to_the_poll_interval() -> None:
    """0.1, 0.2, 0.4, 0.8 and then every second; in between the venue gets no request."""
    asked = QueryUnderTest(PresetVenue(GARBLED, GARBLED))
    gaps = []
    for _ in range(6):
        before = asked.clock.elapsed
        asked.ask(question())
        gaps.append(round(asked.order_query.next_at - before, 9))
        order_question = len(asked.venue.requests)
        asked.clock.elapsed = before + 0.9 * gaps[-1]
        asked.ask(question())
        assert len(asked.venue.requests) == order_question
        asked.clock.elapsed = before + gaps[-1] + 1e-9
    assert gaps == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_long_lasting_queries_leave_the_reserved_budget_to_closing() -> None:
    """Half of ten calls is reserved: at first all ten may be used, and after a hundred rounds no more than five."""
    limit, calls = RateLimit("w", 10, 0.5), ("find_order", "open_orders", "fills")
    traits = VenueTraits(limits=(limit,), costs=tuple(Cost(cast(Any, call), "w", units=1) for call in calls))
    asked = QueryUnderTest(
        PresetVenue(GARBLED, GARBLED, GARBLED), budget=RequestBudgets().of("main", "v", traits, D("0.5"))
    )
    counts = []
    for _ in range(100):
        before = len(asked.venue.requests)
        asked.ask(*(question(name=f"o{number}") for number in range(9)))
        counts.append(len(asked.venue.requests) - before)
        asked.clock.elapsed += 2.0
    assert max(counts[:3]) > 5
    assert max(counts[-3:]) <= 5


def test_an_order_that_is_no_longer_queried_is_forgotten() -> None:
    """Its next query would be the first again, and it is no longer known as resting."""
    asked = QueryUnderTest(PresetVenue(report("open")))
    asked.ask(question(None))
    assert (asked.order_query.is_unanswered(question(None)), asked.order_query.open_order_id("o1")) == (True, "v9")
    asked.ask()
    assert (asked.order_query.is_unanswered(question(None)), asked.order_query.open_order_id("o1")) == (False, None)
    assert asked.order_query.next_at == float("inf")


def test_several_orders_are_queried_together_each_by_its_own_id() -> None:
    """The open orders are fetched once for all of them."""
    asked = QueryUnderTest(PresetVenue())
    written = asked.ask(question(name="o1"), question(name="o2"))
    assert [(entry.kind, entry.client_order_id) for entry in written] == [("absent", "o1"), ("absent", "o2")]
    assert sorted(asked.venue.requests) == [
        ("fills", "BTC", "o1"), ("fills", "BTC", "o2"), ("open",), ("order", "BTC", "o1"), ("order", "BTC", "o2")
    ]  # fmt: skip


def test_the_entry_of_a_detached_order_names_it() -> None:
    """Client order id, attempt, and a text for people."""
    entry = encode(QueryUnderTest(PresetVenue()).order_query.detached_entry(question()))
    assert (entry.kind, entry.client_order_id, entry.attempt, entry.symbol) == ("set_aside", "o1", 3, "BTC")
    assert entry.data["text"]


@pytest.mark.parametrize("listed", [report("open"), None, {"id": "v7"}, "v7"], ids=repr)
def test_a_list_of_open_orders_with_anything_but_orders_is_unknown(listed: Any) -> None:
    """Also an object that has an order's ids and lacks its other fields."""
    context = AccountContext(
        "main", PresetVenue(resting=(OURS, listed)), VirtualClock(NOW), ClosingPace(), lambda _: None,
        RequestBudget.unlimited(), Breaker(),
    )  # fmt: skip
    assert asyncio.run(context.open_orders()) is None
