"""Waves of orders at one venue: what leaves together, what each answer is written down as, and what stays."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, cast

import pytest
from msgspec import structs

from killswitch.execution.account_context import AccountContext
from killswitch.execution.patience import ClosingPace
from killswitch.execution.send.order_sender import OrderSender, report_entry
from killswitch.execution.send.queued_orders import QueuedOrder, SendResult
from killswitch.journal.codec import encode
from killswitch.journal.entries import Entry, OrderSending
from killswitch.journal.lifecycle import TargetState
from killswitch.journal.targets import PositionTarget
from killswitch.model.store import JournalEntry
from killswitch.model.venue import (
    Cost,
    FateUnknownError,
    MalformedAnswerError,
    OrderRejectedError,
    OrderReport,
    OrderRequest,
    RateLimit,
    RateLimitedError,
    VenueAdapter,
    VenueDownError,
    VenueTraits,
)
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.budget import RequestBudgets
from tests.honest_venue import NOW
from tests.virtual_time import VirtualTime

D = Decimal
Answer = Callable[[OrderRequest], Any]


def full(request: OrderRequest) -> OrderReport:
    return OrderReport(
        f"v-{request.client_order_id}", request.client_order_id, request.symbol, "filled", request.amount,
        request.amount, D(100), D("0.1"),
    )  # fmt: skip


class Desk:
    """Takes single orders and answers each as it is told; an exception is raised. Remembers every request."""

    account = "main"

    def __init__(self, answer: Answer = full) -> None:
        self.answer = answer
        self.requests: list[tuple[str, ...]] = []
        self.traits = VenueTraits()

    async def submit(self, request: OrderRequest) -> Any:
        self.requests.append((request.symbol,))
        await asyncio.sleep(0.04)
        return self._say(request)

    def _say(self, request: OrderRequest) -> Any:
        found = self.answer(request)
        if isinstance(found, Exception):
            raise found
        return found


class Batches(Desk):
    """Takes batches too; what is wrong with one order of a batch is its answer."""

    short = 0
    fails: Exception | None = None

    async def submit_batch(self, requests: Sequence[OrderRequest]) -> Sequence[Any]:
        self.requests.append(tuple(each.symbol for each in requests))
        await asyncio.sleep(0.04)
        if self.fails is not None:
            raise self.fails
        return [self.answer(each) for each in requests[: len(requests) - self.short]]


class Wave:
    """One dispatch in virtual time. The journal's `sending` moves each line before its request leaves."""

    def __init__(self, desk: Desk, *limits: RateLimit, costs: Sequence[Cost] = (), batch: int = 1) -> None:
        self.time, self.desk = VirtualTime(NOW), desk
        self.groups: list[list[JournalEntry]] = []
        self.lines: dict[str, PositionTarget] = {}
        traits = VenueTraits(limits=limits, costs=tuple(costs), batch=batch)
        self.budget = RequestBudgets().of("main", "v", traits)
        self.breaker = Breaker(failures=3)
        desk.traits = traits
        venue = cast(VenueAdapter, desk)
        self.context = AccountContext("main", venue, self.time, ClosingPace(), self._record, self.budget, self.breaker)
        self.dispatch = OrderSender(self.context)

    def _record(self, entries: Sequence[Entry]) -> None:
        if entries:
            self.groups.append([encode(entry) for entry in entries])
        for entry in entries:
            self.lines[entry.symbol or ""].apply(entry)

    def departure(self, symbol: str, amount: str = "2") -> QueuedOrder:
        line = PositionTarget("d1", "main", symbol, "long", "sell", D(0), D(amount), D(amount), True, 1, 0)
        self.lines[symbol] = line
        request = OrderRequest(
            client_order_id=f"o-{symbol}", symbol=symbol, side="sell", position_side="long", amount=D(amount),
            reduce_only=True,
        )  # fmt: skip
        sending = OrderSending(
            "d1", NOW, "main", symbol, "long", f"o-{symbol}", 1, amount=D(amount), position=D(amount)
        )
        return QueuedOrder(line, request, sending)

    def send(self, *symbols: str) -> SendResult:
        departures = [self.departure(symbol) for symbol in symbols]
        return self.time.run(self.dispatch.send(departures, lambda: None))

    def words(self, symbol: str) -> list[str]:
        """The kinds of what was written down about a symbol."""
        return [entry.kind for group in self.groups for entry in group if entry.symbol == symbol]

    def last(self, symbol: str) -> JournalEntry:
        return [entry for group in self.groups for entry in group if entry.symbol == symbol][-1]


def test_every_order_is_durable_before_it_leaves_and_its_answer_after() -> None:
    """`sending` of all three in one group, then what came back, each under its own name and attempt."""
    wave = Wave(Desk())
    sent = wave.send("A", "B", "C")
    assert [entry.kind for entry in wave.groups[0]] == ["sending"] * 3
    assert [wave.words(symbol) for symbol in "ABC"] == [["sending", "filled"]] * 3
    assert wave.last("B") == JournalEntry(
        "d1", "filled", wave.last("B").at, "main", "B", "long", "o-B", 1,
        {"order": "v-o-B", "state": "filled", "filled": "2", "price": "100", "fee": "0.1"},
    )  # fmt: skip
    assert ([each.line.symbol for each in sent.orders], list(sent.held_back), sent.room_in) == (
        ["A", "B", "C"],
        [],
        None,
    )


def test_single_orders_leave_at_the_same_time() -> None:
    """Twenty orders of 40 ms take the time of one round trip, and of what gathers their answers."""
    wave = Wave(Desk())
    wave.send(*(f"S{number}" for number in range(20)))
    assert wave.time.elapsed < 0.08
    assert len(wave.desk.requests) == 20


def test_orders_leave_in_batches_where_the_venue_takes_them() -> None:
    """Seven in batches of three: three, three, and one by itself."""
    wave = Wave(Batches(), batch=3)
    wave.send(*"ABCDEFG")
    assert wave.desk.requests == [("A", "B", "C"), ("D", "E", "F"), ("G",)]
    assert [wave.words(symbol) for symbol in "ABCDEFG"] == [["sending", "filled"]] * 7
    assert wave.last("E").data["order"] == "v-o-E"


def test_a_venue_without_batches_gets_none_whatever_it_declares() -> None:
    """Three declared, and the adapter takes single orders only."""
    wave = Wave(Desk(), batch=3)
    wave.send(*"ABC")
    assert wave.desk.requests == [("A",), ("B",), ("C",)]


def test_in_a_batch_each_order_has_its_own_answer() -> None:
    """One is filled, one refused, one of unknown fate."""
    answers = {"A": full, "B": lambda _: OrderRejectedError("price_band", "too far"), "C": lambda _: "what?"}
    wave = Wave(Batches(lambda request: answers[request.symbol](request)), batch=3)
    wave.send(*"ABC")
    assert [wave.words(symbol)[1:] for symbol in "ABC"] == [["filled"], ["rejected"], ["unknown"]]
    assert wave.last("B").data == {"reason": "price_band", "text": "too far"}


def test_a_batch_with_too_few_answers_says_nothing_of_any_order() -> None:
    """Which answer is whose cannot be told: all are of unknown fate."""
    desk = Batches()
    desk.short = 1
    wave = Wave(desk, batch=3)
    wave.send(*"ABC")
    assert [wave.words(symbol)[1:] for symbol in "ABC"] == [["unknown"]] * 3
    assert "2" in (wave.last("A").data["text"] or "")
    assert "3" in (wave.last("A").data["text"] or "")


def test_a_batch_that_fails_is_that_of_all_its_orders() -> None:
    """The venue was down: none of them was looked at."""
    desk = Batches()
    desk.fails = VenueDownError("maintenance")
    wave = Wave(desk, batch=3)
    wave.send(*"ABC")
    assert [wave.last(symbol).data for symbol in "ABC"] == [{"reason": "venue_down", "text": "maintenance"}] * 3


def test_an_order_of_a_batch_that_was_too_many_silences_the_venue() -> None:
    """For as long as it says; the order is sent again under its name."""
    wave = Wave(Batches(lambda request: RateLimitedError("slow down", 7.0)), batch=2)
    wave.send(*"AB")
    assert wave.last("A").data == {"reason": "rate_limited", "text": "slow down"}
    assert 6.0 < wave.context.paused_for <= 7.0


@pytest.mark.parametrize(
    ("error", "kind", "data"),
    [
        (OrderRejectedError("permission", "no"), "rejected", {"reason": "permission", "text": "no"}),
        (
            OrderRejectedError("duplicate_client_order_id", "there is one"), "unknown",
            {"reason": "duplicate_client_order_id", "text": "there is one"},
        ),
        (RateLimitedError("slow down", 1.0), "rejected", {"reason": "rate_limited", "text": "slow down"}),
        (VenueDownError("away"), "rejected", {"reason": "venue_down", "text": "away"}),
        (FateUnknownError("lost"), "unknown", {"text": "lost"}),
        (MalformedAnswerError("odd"), "unknown", {"text": "malformed answer: odd"}),
        (ZeroDivisionError("bug"), "unknown", {"text": "malformed answer: ZeroDivisionError: bug"}),
    ],
)  # fmt: skip
def test_each_failure_is_written_down_as_what_is_known_of_the_order(
    error: Exception, kind: str, data: dict[str, str]
) -> None:
    """Refused: nothing was done; a name that is taken, a lost answer, and a defect: nobody knows."""
    wave = Wave(Desk(lambda _: error))
    wave.send("A")
    assert (wave.last("A").kind, wave.last("A").data, wave.last("A").client_order_id) == (kind, data, "o-A")


def test_no_more_leave_than_there_is_room_for_and_the_rest_stays() -> None:
    """Two of four in ten seconds: the others stay, and are told when there is room."""
    wave = Wave(Desk(), RateLimit("orders", 2, 10.0), costs=[Cost("submit", "orders", each=1)])
    sent = wave.send(*"ABCD")
    assert [each.line.symbol for each in sent.orders] == ["A", "B"]
    assert [each.line.symbol for each in sent.held_back][:1] == ["C"]
    assert wave.desk.requests == [("A",), ("B",)]
    assert sent.room_in is not None
    assert 9.9 < sent.room_in <= 10.0
    assert (wave.words("C"), wave.words("D")) == ([], [])


def test_room_that_comes_in_a_moment_is_waited_for() -> None:
    """Two at a time, and again 10 ms after their answers: all four leave in one wave."""
    wave = Wave(Desk(), RateLimit("orders", 2, 0.01), costs=[Cost("submit", "orders", each=1)])
    sent = wave.send(*"ABCD")
    assert ([each.line.symbol for each in sent.orders], sent.room_in) == (["A", "B", "C", "D"], None)
    assert [wave.words(symbol) for symbol in "ABCD"] == [["sending", "filled"]] * 4


def test_a_symbol_without_room_holds_no_other_up() -> None:
    """One order for each symbol: the second A waits, and B leaves."""
    limit = RateLimit("orders", 1, 10.0, "symbol")
    wave = Wave(Desk(), limit, costs=[Cost("submit", "orders", each=1)])
    wave.context.reserve("submit", ("A",))
    sent = wave.send("A", "B")
    assert ([each.line.symbol for each in sent.orders], [each.line.symbol for each in sent.held_back]) == (
        ["B"],
        ["A"],
    )
    assert sent.room_in is not None


@pytest.mark.parametrize("per", [0.3, 3.0])
def test_a_symbol_that_has_room_in_less_than_a_second_holds_no_other_up_either(per: float) -> None:
    """However short its wait is: B leaves beside it."""
    wave = Wave(Desk(), RateLimit("orders", 1, per, "symbol"), costs=[Cost("submit", "orders", each=1)])
    wave.context.reserve("submit", ("A",))
    assert [each.line.symbol for each in wave.send("A", "B").orders] == ["B"]


def test_to_a_venue_that_keeps_failing_one_order_leaves_as_a_probe() -> None:
    """While it is broken none does; once its time has come, one of three."""
    wave = Wave(Desk())
    for _ in range(3):
        wave.breaker.failed(0.0)
    assert (wave.send(*"ABC").orders, wave.desk.requests) == ([], [])
    wave.time.elapsed = 1.0
    assert [each.line.symbol for each in wave.send(*"ABC").orders][:1] == ["A"]
    assert wave.desk.requests[0] == ("A",)


def test_a_venue_that_wants_silence_gets_nothing_and_nobody_can_tell_when() -> None:
    """It is not the budget's room alone that is missing."""
    wave = Wave(Desk())
    wave.budget.refused(0.0, 5.0)
    sent = wave.send("A")
    assert (list(sent.orders), wave.desk.requests, sent.room_in) == ([], [], math.inf)


def test_nothing_to_send_is_nothing_sent() -> None:
    """No request, no entry."""
    wave = Wave(Desk())
    sent = wave.send()
    assert (list(sent.orders), list(sent.held_back), sent.room_in, wave.groups) == ([], [], None, [])


def report(state: str, filled: str) -> OrderReport:
    return OrderReport("v1", "o1", "A", cast(Any, state), D(2), D(filled), None, None)


@pytest.mark.parametrize(
    ("state", "filled", "line", "kind"),
    [
        ("open", "0", TargetState.SENDING, "acknowledged"),
        ("open", "1", TargetState.UNKNOWN, "acknowledged"),
        ("open", "1", None, "acknowledged"),
        ("open", "1", TargetState.WORKING, None),
        ("rejected", "0", TargetState.SENDING, "rejected"),
        ("rejected", "1", TargetState.SENDING, "filled"),
        ("canceled", "0", TargetState.WORKING, "filled"),
        ("expired", "1", TargetState.WORKING, "filled"),
        ("filled", "2", TargetState.SENDING, "filled"),
    ],
)
def test_a_report_is_news_by_its_state_and_what_has_filled(
    state: str, filled: str, line: TargetState | None, kind: str | None
) -> None:
    """Open is news once; refused with a fill is a fill; everything else that is final settles the order."""
    entry = report_entry(report(state, filled), line, ("d1", NOW, "main", "A", "long", "o-A", 1))
    found = None if entry is None else encode(entry)
    assert (None if found is None else found.kind) == kind
    if kind == "filled":
        assert found is not None
        assert found.data == {"order": "v1", "state": state, "filled": filled, "price": None, "fee": None}
    if kind == "acknowledged":
        assert found is not None
        assert found.data == {"order": "v1", "filled": filled}


def test_a_late_request_that_broke_is_unknown_and_loses_no_answer_beside_it() -> None:
    """Three answers come after the wave has gone on; the second has no known shape: two fills, one unknown."""

    class Late(Desk):
        async def submit(self, request: OrderRequest) -> Any:
            await asyncio.sleep(3.0)
            report = await super().submit(request)
            return structs.replace(report, state=["filled"]) if request.symbol == "B" else report

    wave = Wave(Late())

    async def whole() -> list[tuple[str | None, str, str | None]]:
        await wave.dispatch.send([wave.departure(symbol) for symbol in "ABC"], lambda: None)
        assert wave.context.running == {"o-A", "o-B", "o-C"}
        await asyncio.sleep(4.0)
        return [
            (entry.client_order_id, entry.kind, entry.data.get("text"))
            for entry in map(encode, wave.dispatch.late_answers())
        ]

    a, b, c = wave.time.run(whole())
    assert (a, b[:2], c) == (("o-A", "filled", None), ("o-B", "unknown"), ("o-C", "filled", None))
    assert (b[2] or "").startswith("TypeError: ")
    assert (wave.context.running, wave.dispatch.late_answers()) == (set(), [])


def test_a_report_of_no_shape_that_is_known_is_unknown_and_stops_no_wave() -> None:
    """The state of one order is a list, which no check expects; the other is filled."""
    answers = {"A": lambda request: structs.replace(full(request), state=["filled"]), "B": full}
    wave = Wave(Desk(lambda request: answers[request.symbol](request)))
    wave.send("A", "B")
    assert [wave.words(symbol) for symbol in "AB"] == [["sending", "unknown"], ["sending", "filled"]]
