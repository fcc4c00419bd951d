"""Order batches at one venue: what is sent together, how each answer is journaled, and what is held back."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, cast

import pytest
from msgspec.structs import replace

from killswitch.execution.account_context import AccountContext
from killswitch.execution.closing_pace import ClosingPace
from killswitch.execution.send.order_queue import QueuedOrder, SendResult
from killswitch.execution.send.order_sender import OrderSender, report_entry
from killswitch.journal.codec import encode
from killswitch.journal.entries import Entry, OrderSending
from killswitch.journal.lifecycle import TargetState
from killswitch.journal.targets import PositionTarget
from killswitch.model.store import JournalEntry
from killswitch.model.venue import (
    Batching,
    Cost,
    FateUnknownError,
    MalformedAnswerError,
    OrderRejectedError,
    OrderReport,
    OrderRequest,
    RateLimit,
    RateLimitedError,
    VenueDownError,
    VenueTraits,
)
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.budget import RequestBudgets
from tests.honest_venue import NOW
from tests.runner_world import ScriptedVenue
from tests.virtual_time import VirtualTime

D = Decimal
Answer = Callable[[OrderRequest], Any]


def full(request: OrderRequest) -> OrderReport:
    return OrderReport(
        f"v-{request.client_order_id}", request.client_order_id, request.symbol, "filled", request.amount,
        request.amount, D(100), D("0.1"),
    )  # fmt: skip


class OrderTaker(ScriptedVenue):
    """Accepts single orders, answers each with `answer`, and records every request; an exception is raised."""

    def __init__(self, answer: Answer = full) -> None:
        super().__init__(None)
        self.answer = answer
        self.requests: list[tuple[str, ...]] = []
        self.traits = VenueTraits()

    async def submit(self, request: OrderRequest) -> Any:
        self.requests.append((request.symbol,))
        await asyncio.sleep(0.04)
        return self._answer(request)

    def _answer(self, request: OrderRequest) -> Any:
        found = self.answer(request)
        if isinstance(found, Exception):
            raise found
        return found


class BatchTaker(OrderTaker):
    """Accepts batches too; an order's error is its answer within the batch."""

    short = 0
    fails: Exception | None = None

    async def submit_batch(self, requests: Sequence[OrderRequest]) -> Sequence[Any]:
        self.requests.append(tuple(each.symbol for each in requests))
        await asyncio.sleep(0.04)
        if self.fails is not None:
            raise self.fails
        return [self.answer(each) for each in requests[: len(requests) - self.short]]


class SenderUnderTest:
    """An order sender in virtual time. The journal's `sending` entry moves each target before its request leaves."""

    def __init__(self, venue: OrderTaker, *limits: RateLimit, costs: Sequence[Cost] = (), batch: int = 1) -> None:
        self.time, self.venue = VirtualTime(NOW), venue
        self.groups: list[list[JournalEntry]] = []
        self.targets: dict[str, PositionTarget] = {}
        traits = VenueTraits(limits=limits, costs=tuple(costs))
        self.budget = RequestBudgets().of("main", "v", traits)
        self.breaker = Breaker(failures=3)
        venue.traits = traits
        if isinstance(venue, BatchTaker):
            venue.batches = Batching(batch, venue.submit_batch)
        self.context = AccountContext("main", venue, self.time, ClosingPace(), self._record, self.budget, self.breaker)
        self.sender = OrderSender(self.context)

    def _record(self, entries: Sequence[Entry]) -> None:
        if entries:
            self.groups.append([encode(entry) for entry in entries])
        for entry in entries:
            self.targets[entry.symbol or ""].apply(entry)

    def queued_order(self, symbol: str, amount: str = "2") -> QueuedOrder:
        target = PositionTarget("d1", "main", symbol, "long", "sell", D(0), D(amount), D(amount), True, 1, 0)
        self.targets[symbol] = target
        request = OrderRequest(
            client_order_id=f"o-{symbol}", symbol=symbol, side="sell", position_side="long", amount=D(amount),
            reduce_only=True,
        )  # fmt: skip
        sending = OrderSending(
            "d1", NOW, "main", symbol, "long", f"o-{symbol}", 1, amount=D(amount), position=D(amount)
        )
        return QueuedOrder(target, request, sending)

    def send(self, *symbols: str) -> SendResult:
        orders = [self.queued_order(symbol) for symbol in symbols]
        return self.time.run(self.sender.send(orders, lambda: None))

    def kinds_of(self, symbol: str) -> list[str]:
        """The kinds of the entries about a symbol."""
        return [entry.kind for group in self.groups for entry in group if entry.symbol == symbol]

    def last(self, symbol: str) -> JournalEntry:
        return [entry for group in self.groups for entry in group if entry.symbol == symbol][-1]


def test_every_order_is_journaled_before_it_is_sent_and_its_answer_after() -> None:
    """`sending` of all three in one group, then the answers, each under its own id and attempt."""
    sending = SenderUnderTest(OrderTaker())
    sent = sending.send("A", "B", "C")
    assert [entry.kind for entry in sending.groups[0]] == ["sending"] * 3
    assert [sending.kinds_of(symbol) for symbol in "ABC"] == [["sending", "filled"]] * 3
    assert sending.last("B") == JournalEntry(
        "d1", "filled", sending.last("B").at, "main", "B", "long", "o-B", 1,
        {"order": "v-o-B", "state": "filled", "filled": "2", "price": "100", "fee": "0.1"},
    )  # fmt: skip
    assert ([each.target.symbol for each in sent.orders], list(sent.held_back), sent.room_in) == (
        ["A", "B", "C"],
        [],
        None,
    )


def test_single_orders_are_sent_in_parallel() -> None:
    """Twenty orders of 40 ms take one round trip, and the time to collect their answers."""
    sending = SenderUnderTest(OrderTaker())
    sending.send(*(f"S{number}" for number in range(20)))
    assert sending.time.elapsed < 0.08
    assert len(sending.venue.requests) == 20


def test_orders_are_sent_in_batches_where_the_venue_accepts_them() -> None:
    """Seven in batches of three: three, three, and one by itself."""
    sending = SenderUnderTest(BatchTaker(), batch=3)
    sending.send(*"ABCDEFG")
    assert sending.venue.requests == [("A", "B", "C"), ("D", "E", "F"), ("G",)]
    assert [sending.kinds_of(symbol) for symbol in "ABCDEFG"] == [["sending", "filled"]] * 7
    assert sending.last("E").data["order"] == "v-o-E"


def test_in_a_batch_each_order_has_its_own_answer() -> None:
    """One is filled, one refused, one of unknown status."""
    answers = {"A": full, "B": lambda _: OrderRejectedError("price_band", "too far"), "C": lambda _: "what?"}
    sending = SenderUnderTest(BatchTaker(lambda request: answers[request.symbol](request)), batch=3)
    sending.send(*"ABC")
    assert [sending.kinds_of(symbol)[1:] for symbol in "ABC"] == [["filled"], ["rejected"], ["unknown"]]
    assert sending.last("B").data == {"reason": "price_band", "text": "too far"}


def test_a_batch_with_too_few_answers_leaves_all_its_orders_unknown() -> None:
    """No answer can be assigned to an order: all are of unknown status."""
    venue = BatchTaker()
    venue.short = 1
    sending = SenderUnderTest(venue, batch=3)
    sending.send(*"ABC")
    assert [sending.kinds_of(symbol)[1:] for symbol in "ABC"] == [["unknown"]] * 3
    assert "2" in (sending.last("A").data["text"] or "")
    assert "3" in (sending.last("A").data["text"] or "")


def test_the_failure_of_a_batch_applies_to_all_its_orders() -> None:
    """The venue was down: it processed none of them."""
    venue = BatchTaker()
    venue.fails = VenueDownError("maintenance")
    sending = SenderUnderTest(venue, batch=3)
    sending.send(*"ABC")
    assert [sending.last(symbol).data for symbol in "ABC"] == [{"reason": "venue_down", "text": "maintenance"}] * 3


def test_a_rate_limited_order_of_a_batch_pauses_the_venue() -> None:
    """For as long as the venue asks; the order is sent again under its id."""
    sending = SenderUnderTest(BatchTaker(lambda request: RateLimitedError("slow down", 7.0)), batch=2)
    sending.send(*"AB")
    assert sending.last("A").data == {"reason": "rate_limited", "text": "slow down"}
    assert 6.0 < sending.context.paused_for <= 7.0


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
def test_each_failure_is_journaled_as_what_is_known_of_the_order(
    error: Exception, kind: str, data: dict[str, str]
) -> None:
    """Refused: nothing was executed; a duplicate id, a lost answer, and a defect: unknown."""
    sending = SenderUnderTest(OrderTaker(lambda _: error))
    sending.send("A")
    assert (sending.last("A").kind, sending.last("A").data, sending.last("A").client_order_id) == (kind, data, "o-A")


def test_orders_beyond_the_request_budget_are_held_back() -> None:
    """Two of four in ten seconds: the others are held back, with the time until there is room."""
    sending = SenderUnderTest(OrderTaker(), RateLimit("orders", 2, 10.0), costs=[Cost("submit", "orders", each=1)])
    sent = sending.send(*"ABCD")
    assert [each.target.symbol for each in sent.orders] == ["A", "B"]
    assert [each.target.symbol for each in sent.held_back][:1] == ["C"]
    assert sending.venue.requests == [("A",), ("B",)]
    assert sent.room_in is not None
    assert 9.9 < sent.room_in <= 10.0
    assert (sending.kinds_of("C"), sending.kinds_of("D")) == ([], [])


def test_room_that_is_free_in_a_moment_is_waited_for() -> None:
    """Two at a time, and again 10 ms after their answers: all four leave in one call."""
    sending = SenderUnderTest(OrderTaker(), RateLimit("orders", 2, 0.01), costs=[Cost("submit", "orders", each=1)])
    sent = sending.send(*"ABCD")
    assert ([each.target.symbol for each in sent.orders], sent.room_in) == (["A", "B", "C", "D"], None)
    assert [sending.kinds_of(symbol) for symbol in "ABCD"] == [["sending", "filled"]] * 4


def test_a_symbol_without_room_delays_no_other() -> None:
    """One order for each symbol: the second A waits, and B leaves."""
    limit = RateLimit("orders", 1, 10.0, "symbol")
    sending = SenderUnderTest(OrderTaker(), limit, costs=[Cost("submit", "orders", each=1)])
    sending.context.reserve("submit", ("A",))
    sent = sending.send("A", "B")
    assert ([each.target.symbol for each in sent.orders], [each.target.symbol for each in sent.held_back]) == (
        ["B"],
        ["A"],
    )
    assert sent.room_in is not None


@pytest.mark.parametrize("per", [0.3, 3.0])
def test_a_symbol_that_has_room_in_less_than_a_second_delays_no_other_either(per: float) -> None:
    """However short its wait is, B leaves in the same call."""
    sending = SenderUnderTest(
        OrderTaker(), RateLimit("orders", 1, per, "symbol"), costs=[Cost("submit", "orders", each=1)]
    )
    sending.context.reserve("submit", ("A",))
    assert [each.target.symbol for each in sending.send("A", "B").orders] == ["B"]


def test_an_open_breaker_lets_one_order_through_as_a_probe() -> None:
    """While it is open none is sent; once its time has come, one of three."""
    sending = SenderUnderTest(OrderTaker())
    for _ in range(3):
        sending.breaker.failed(0.0)
    assert (sending.send(*"ABC").orders, sending.venue.requests) == ([], [])
    sending.time.elapsed = 1.0
    assert [each.target.symbol for each in sending.send(*"ABC").orders][:1] == ["A"]
    assert sending.venue.requests[0] == ("A",)


def test_a_paused_venue_gets_no_order_and_the_wait_is_unknown() -> None:
    """The budget's room is not all that is missing."""
    sending = SenderUnderTest(OrderTaker())
    sending.budget.refused(0.0, 5.0)
    sent = sending.send("A")
    assert (list(sent.orders), sending.venue.requests, sent.room_in) == ([], [], math.inf)


def test_an_empty_queue_sends_nothing() -> None:
    """No request, no entry."""
    sending = SenderUnderTest(OrderTaker())
    sent = sending.send()
    assert (list(sent.orders), list(sent.held_back), sent.room_in, sending.groups) == ([], [], None, [])


def report(state: str, filled: str) -> OrderReport:
    return OrderReport("v1", "o1", "A", cast(Any, state), D(2), D(filled), None, None)


@pytest.mark.parametrize(
    ("state", "filled", "target_state", "kind"),
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
def test_a_report_becomes_an_entry_by_its_state_and_its_fill(
    state: str, filled: str, target_state: TargetState | None, kind: str | None
) -> None:
    """Open is journaled once; refused with a fill is a fill; every other final state settles the order."""
    entry = report_entry(report(state, filled), target_state, ("d1", NOW, "main", "A", "long", "o-A", 1))
    found = None if entry is None else encode(entry)
    assert (None if found is None else found.kind) == kind
    if kind == "filled":
        assert found is not None
        assert found.data == {"order": "v1", "state": state, "filled": filled, "price": None, "fee": None}
    if kind == "acknowledged":
        assert found is not None
        assert found.data == {"order": "v1", "filled": filled}


def test_a_late_malformed_answer_is_unknown_and_loses_no_other_answer() -> None:
    """Three answers arrive after the call has returned; the second is malformed: two fills, one unknown."""

    class Late(OrderTaker):
        async def submit(self, request: OrderRequest) -> Any:
            await asyncio.sleep(3.0)
            report = await super().submit(request)
            return replace(report, state=["filled"]) if request.symbol == "B" else report

    sending = SenderUnderTest(Late())

    async def whole() -> list[tuple[str | None, str, str | None]]:
        await sending.sender.send([sending.queued_order(symbol) for symbol in "ABC"], lambda: None)
        assert sending.context.running == {"o-A", "o-B", "o-C"}
        await asyncio.sleep(4.0)
        return [
            (entry.client_order_id, entry.kind, entry.data.get("text"))
            for entry in map(encode, sending.sender.late_answers())
        ]

    a, b, c = sending.time.run(whole())
    assert (a, b[:2], c) == (("o-A", "filled", None), ("o-B", "unknown"), ("o-C", "filled", None))
    assert (b[2] or "").startswith("TypeError: ")
    assert (sending.context.running, sending.sender.late_answers()) == (set(), [])


def test_a_malformed_report_is_unknown_and_stops_no_batch() -> None:
    """The state of one order is a list, which no check expects; the other is filled."""
    answers = {"A": lambda request: replace(full(request), state=["filled"]), "B": full}
    sending = SenderUnderTest(OrderTaker(lambda request: answers[request.symbol](request)))
    sending.send("A", "B")
    assert [sending.kinds_of(symbol) for symbol in "AB"] == [["sending", "unknown"], ["sending", "filled"]]
