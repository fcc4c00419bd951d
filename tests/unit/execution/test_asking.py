"""What became of an order, by what its name, the open orders and its fills say: each answer, and each missing one."""

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
    VenueAdapter,
    VenueDownError,
    VenueTraits,
)
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.budget import RequestBudget, RequestBudgets
from tests.honest_venue import NOW, VirtualClock

D = Decimal


class Desk:
    """A venue that answers as it is told; an exception is raised. Counts what it was asked."""

    def __init__(self, order: Any = None, resting: Any = (), fills: Any = ()) -> None:
        self.order, self.resting, self.told = order, resting, fills
        self.asked: list[tuple[str, ...]] = []

    async def find_order(self, symbol: str, name: str) -> Any:
        self.asked.append(("order", symbol, name))
        return self._say(self.order)

    async def open_orders(self) -> Any:
        self.asked.append(("open",))
        return self._say(self.resting)

    async def fills(self, symbol: str, name: str) -> Any:
        self.asked.append(("fills", symbol, name))
        return self._say(self.told)

    @staticmethod
    def _say(answer: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer


class Room:
    """One asking, its clock, and what it wrote."""

    def __init__(self, desk: Desk, pace: ClosingPace | None = None, budget: RequestBudget | None = None) -> None:
        self.desk, self.clock = desk, VirtualClock(NOW)
        self.written: list[JournalEntry] = []
        pace = pace or ClosingPace()
        venue, breaker = cast(VenueAdapter, desk), Breaker(failures=9999)
        context = AccountContext(
            "main", venue, self.clock, pace, self._record, budget or RequestBudget.unlimited(), breaker
        )  # fmt: skip
        self.asking = OrderQuery(context, lambda _: False)

    def _record(self, entries: Sequence[Entry]) -> None:
        self.written += map(encode, entries)

    def ask(self, *about: OrderQuestion) -> list[JournalEntry]:
        """What one round writes down."""
        self.written = []
        asyncio.run(self.asking.query(about))
        return self.written

    def said(self, question: OrderQuestion) -> tuple[str, dict[str, str | None]] | None:
        """The one thing that one round writes down, if it does."""
        found = self.ask(question)
        return (found[0].kind, found[0].data) if found else None


LINE = PositionTarget("d1", "main", "BTC", "long", "sell", D(0), D(4), D(4), True, 1, 0)


def question(state: TargetState | None = TargetState.UNKNOWN, ago: float = 60.0, name: str = "o1") -> OrderQuestion:
    return OrderQuestion(LINE, name, 3, "v1", D(4), NOW - timedelta(seconds=ago), state)


def report(state: str, filled: str = "0", **words: Any) -> OrderReport:
    return OrderReport("v9", "o1", "BTC", cast(Any, state), D(4), D(filled), **words)


def fill(amount: str, price: str, fee: str | None = "0") -> Fill:
    return Fill("f1", NOW, "BTC", "sell", D(amount), D(price), fee=None if fee is None else D(fee))


OURS = Order("v7", "BTC", "sell", D(4), client_order_id="o1")
GARBLED = MalformedAnswerError("what?")


def test_every_order_of_unknown_fate_is_asked_about_and_the_one_in_flight() -> None:
    """Set aside: without a state; in flight: with the line's; neither: nothing."""
    line = PositionTarget("d1", "main", "BTC", "long", "sell", D(0), D(4), D(4), True, 1, 0)
    assert questions(line) == []
    first = ("d1", NOW, "main", "BTC", "long", "o1", 1)
    second = ("d1", NOW, "main", "BTC", "long", "o2", 2)
    for entry in (
        OrderSending(*first, amount=D(2)), OrderDetached(*first), OrderSending(*second, amount=D(3)),
        Acknowledged(*second, order="v2")
    ):  # fmt: skip
        line.apply(entry)
    assert questions(line) == [
        OrderQuestion(line, "o1", 1, None, D(2), NOW, None), OrderQuestion(line, "o2", 2, "v2", D(3), NOW,
        TargetState.WORKING)
    ]  # fmt: skip
    line.state = TargetState.READY
    assert [each.name for each in questions(line)] == ["o1"]


def test_an_answer_is_written_down_for_the_order_and_the_line_it_is_about() -> None:
    """Decision, account, position, name, attempt and instant; and it is asked about no longer."""
    room = Room(Desk(report("filled", "4", average_price=D(99), fee=D("0.5"))))
    room.clock.elapsed = 7.0
    (entry,) = room.ask(question())
    assert entry == JournalEntry(
        "d1", "filled", NOW + timedelta(seconds=7), "main", "BTC", "long", "o1", 3,
        {"order": "v9", "state": "filled", "filled": "4", "price": "99", "fee": "0.5"},
    )  # fmt: skip
    assert room.desk.asked == [("order", "BTC", "o1")]
    assert not room.asking.is_unanswered(question())
    assert room.asking.next_at == float("inf")


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (TargetState.SENDING, "acknowledged"),
        (TargetState.UNKNOWN, "acknowledged"),
        (TargetState.WORKING, None),
        (None, None),
    ],
)
def test_an_open_order_is_news_only_to_a_line_that_did_not_know(state: TargetState | None, kind: str | None) -> None:
    """One that was set aside is remembered as resting, by the venue's own name."""
    room = Room(Desk(report("open", "1")))
    found = room.said(question(state))
    assert found == (None if kind is None else (kind, {"order": "v9", "filled": "1"}))
    assert room.asking.open_order_id("o1") == ("v9" if state is None else None)


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
def test_an_order_that_only_the_open_orders_show_is_found_there(
    order: object, state: TargetState | None, kind: str | None
) -> None:
    """By its client id; nobody asks for its fills then."""
    stranger = Order("v6", "BTC", "sell", D(1))
    room = Room(Desk(order, (stranger, OURS)))
    found = room.said(question(state))
    assert found == (None if kind is None else (kind, {"order": "v7", "filled": None}))
    assert room.asking.open_order_id("o1") == ("v7" if state is None else None)
    assert room.desk.asked == [("order", "BTC", "o1"), ("open",)]


def test_an_order_that_nothing_knows_of_was_never_there_once_it_can_no_longer_be_on_its_way() -> None:
    """Two seconds after it left, or where nobody knows when, or where the clock was set back."""
    assert Room(Desk()).said(question(ago=1.9)) is None
    for asked in (
        question(ago=2.0),
        question(ago=-1.0),
        OrderQuestion(LINE, "o1", 3, None, D(4), None, TargetState.UNKNOWN),
    ):
        found = Room(Desk()).said(asked)
        assert found is not None
        assert found[0] == "absent"


@pytest.mark.parametrize(
    "desk", [Desk(GARBLED), Desk(None, GARBLED), Desk(None, None), Desk(None, (), GARBLED), Desk(None, (), None)]
)
def test_one_missing_answer_of_the_three_proves_nothing(desk: Desk) -> None:
    """Name, open orders or fills unsaid: it is asked about again."""
    room = Room(desk)
    assert room.said(question()) is None
    assert room.asking.is_unanswered(question())


@pytest.mark.parametrize("silent", [RateLimitedError("later", 0.0), VenueDownError("down")])
def test_a_venue_that_does_not_listen_is_asked_nothing_more(silent: Exception) -> None:
    """Neither for open orders nor for fills."""
    room = Room(Desk(silent, (OURS,), (fill("4", "1"),)))
    assert room.said(question()) is None
    assert room.desk.asked == [("order", "BTC", "o1")]


@pytest.mark.parametrize("order", [None, GARBLED])
def test_fills_that_come_to_the_whole_order_settle_it(order: object) -> None:
    """1 at 98 and 3 at 102 are 4 at 101, and their fees add up; whatever else is unsaid."""
    told = (fill("1", "98", "0.1"), fill("3", "102", "0.2"))
    assert Room(Desk(order, GARBLED, told)).said(question(ago=0.0)) == (
        "filled", {"order": "v1", "state": "expired", "filled": "4", "price": "101", "fee": "0.3"}
    )  # fmt: skip


def test_an_order_without_a_venues_name_is_told_without_one_by_its_fills() -> None:
    """Its client id is all that there is."""
    asked = OrderQuestion(LINE, "o1", 3, None, D(4), NOW, TargetState.UNKNOWN)
    found = Room(Desk(None, (), (fill("4", "99"),))).said(asked)
    assert found is not None
    assert (found[0], found[1]["order"], found[1]["filled"]) == ("filled", "", "4")


def test_a_fee_that_one_fill_does_not_tell_is_unknown() -> None:
    """None for the whole order."""
    found = Room(Desk(None, (), (fill("1", "98", None), fill("3", "102", "0.2")))).said(question())
    assert found is not None
    assert found[1]["fee"] is None


def test_a_part_that_has_filled_settles_an_order_that_is_surely_gone_and_no_other() -> None:
    """Late and denied: expired with 1 filled; still on its way, or not denied: asked about again."""
    part = (fill("1", "98"),)
    found = Room(Desk(None, (), part)).said(question())
    assert found is not None
    assert (found[0], found[1]["filled"], found[1]["price"]) == ("filled", "1", "98")
    assert Room(Desk(None, (), part)).said(question(ago=1.0)) is None
    assert Room(Desk(GARBLED, (), part)).said(question()) is None
    assert Room(Desk(None, GARBLED, part)).said(question()) is None


def test_an_order_that_the_venue_had_is_gone_only_after_it_has_been_denied_for_a_while() -> None:
    """It was acknowledged: its lists may lag; two seconds of denial, and it has expired with what has filled."""
    room = Room(Desk())
    assert room.said(question(TargetState.WORKING)) is None
    room.clock.elapsed = 1.9
    assert room.said(question(TargetState.WORKING)) is None
    room.clock.elapsed = 4.0
    found = room.said(question(TargetState.WORKING))
    assert found is not None
    assert (found[0], found[1]["state"], found[1]["filled"], found[1]["price"]) == ("filled", "expired", "0", None)


def test_a_denial_that_is_taken_back_begins_anew() -> None:
    """Open in between: two seconds of denial are needed again."""
    room = Room(Desk())
    room.ask(question(TargetState.WORKING))
    room.clock.elapsed = 1.5
    room.desk.order = report("open")
    room.ask(question(TargetState.WORKING))
    room.clock.elapsed, room.desk.order = 3.0, None
    assert room.said(question(TargetState.WORKING)) is None
    room.clock.elapsed = 5.0
    assert room.said(question(TargetState.WORKING)) is not None


def test_questions_are_asked_at_growing_intervals_up_to_the_poll() -> None:
    """0.1, 0.2, 0.4, 0.8 and then every second; in between the venue is left alone."""
    room = Room(Desk(GARBLED, GARBLED))
    gaps = []
    for _ in range(6):
        before = room.clock.elapsed
        room.ask(question())
        gaps.append(round(room.asking.next_at - before, 9))
        asked = len(room.desk.asked)
        room.clock.elapsed = before + 0.9 * gaps[-1]
        room.ask(question())
        assert len(room.desk.asked) == asked
        room.clock.elapsed = before + gaps[-1] + 1e-9
    assert gaps == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_questions_that_go_on_for_long_leave_closing_the_room_that_is_its_own() -> None:
    """Half of ten calls is reserved: at first all ten may be used, and after a hundred rounds no more than five."""
    limit, calls = RateLimit("w", 10, 0.5), ("find_order", "open_orders", "fills")
    traits = VenueTraits(limits=(limit,), costs=tuple(Cost(cast(Any, call), "w", units=1) for call in calls))
    room = Room(Desk(GARBLED, GARBLED, GARBLED), budget=RequestBudgets().of("main", "v", traits, D("0.5")))
    counts = []
    for _ in range(100):
        before = len(room.desk.asked)
        room.ask(*(question(name=f"o{number}") for number in range(9)))
        counts.append(len(room.desk.asked) - before)
        room.clock.elapsed += 2.0
    assert max(counts[:3]) > 5
    assert max(counts[-3:]) <= 5


def test_what_is_no_longer_asked_about_is_forgotten() -> None:
    """Its next question would be the first again, and it rests no longer."""
    room = Room(Desk(report("open")))
    room.ask(question(None))
    assert (room.asking.is_unanswered(question(None)), room.asking.open_order_id("o1")) == (True, "v9")
    room.ask()
    assert (room.asking.is_unanswered(question(None)), room.asking.open_order_id("o1")) == (False, None)
    assert room.asking.next_at == float("inf")


def test_several_are_asked_about_at_once_and_each_by_its_own_name() -> None:
    """The open orders are read once for all of them."""
    room = Room(Desk())
    written = room.ask(question(name="o1"), question(name="o2"))
    assert [(entry.kind, entry.client_order_id) for entry in written] == [("absent", "o1"), ("absent", "o2")]
    assert sorted(room.desk.asked) == [
        ("fills", "BTC", "o1"), ("fills", "BTC", "o2"), ("open",), ("order", "BTC", "o1"), ("order", "BTC", "o2")
    ]  # fmt: skip


def test_setting_aside_is_written_down_for_its_order() -> None:
    """By name and attempt, with words that a person reads."""
    entry = encode(Room(Desk()).asking.detached_entry(question()))
    assert (entry.kind, entry.client_order_id, entry.attempt, entry.symbol) == ("set_aside", "o1", 3, "BTC")
    assert entry.data["text"]


@pytest.mark.parametrize("listed", [report("open"), None, {"id": "v7"}, "v7"], ids=repr)
def test_a_list_of_open_orders_with_anything_but_orders_is_unknown(listed: Any) -> None:
    """Also something that has an order's ids and lacks its other fields."""
    context = AccountContext(
        "main", cast(VenueAdapter, Desk(resting=(OURS, listed))), VirtualClock(NOW), ClosingPace(), lambda _: None,
        RequestBudget.unlimited(), Breaker(),
    )  # fmt: skip
    assert asyncio.run(context.open_orders()) is None
