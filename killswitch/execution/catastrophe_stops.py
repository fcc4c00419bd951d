"""Places and cancels the catastrophe stops of one account, each journaled before it is sent.

Stops are no part of a close: their requests leave the share of the venue's limits that is reserved for closing, and no
failure of one holds an order of a close back. A stop is cancelled before another takes its place, and the next one is
placed only once the venue has confirmed that nothing of the first was filled: otherwise the position is read again.

| state of a stop that was sent | means                                          | leaves it by                       |
|-------------------------------|------------------------------------------------|------------------------------------|
| `sent`                        | journaled; the venue may have it or not        | the venue's answer to a query      |
| `resting`                     | accepted; no list of open orders has shown it  | a list, or a query after `LAG`     |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final, Literal

from msgspec import Struct, field
from msgspec.structs import replace

from killswitch.execution.account_context import AccountContext
from killswitch.execution.client_order_id import catastrophe_stop_work, client_order_id, lapses_after
from killswitch.execution.report_validation import validated_report, venue_text
from killswitch.journal.entries import Absent, Acknowledged, Cancelled, Entry, Filled, Protected, Rejected, Unknown
from killswitch.model.snapshot import Order, OrderSide, Side
from killswitch.model.venue import (
    OWN_MARK,
    OrderRejectedError,
    OrderReport,
    OrderRequest,
    RateLimitedError,
    TriggerPrice,
    VenueDownError,
    VenueError,
    is_catastrophe_stop,
)
from killswitch.planning.catastrophe_stops import StopKey, StopLine, WantedStop
from killswitch.ratelimit.budget import Purpose

LAG: Final = 30.0
"""Seconds for which a list of open orders may lack a stop that was accepted, or still have one that was cancelled."""
MISSED_FOR: Final = 120.0
"""Seconds for which a stop that no list shows any more is queried although the venue answers that there is none."""
WHY: Final = "a catastrophe stop that does not fit its position any more"
NO_STOP: Final = frozenset({"already_flat", "below_minimum", "duplicate_client_order_id"})
"""Reasons of a refusal that leave no position without its declared stop."""


class SentStop(Struct):
    """A stop that was sent and that no list of open orders has shown yet. `order`: the venue's id, once known."""

    name: str
    symbol: str
    side: OrderSide
    position_side: Side
    amount: Decimal
    trigger_price: Decimal
    sent_at: datetime
    state: Literal["sent", "resting"] = "sent"
    order: str | None = None


class StopRefusal(Struct, frozen=True):
    """The venue's refusal of the stop of a position of `contracts` at `trigger`."""

    why: str
    contracts: Decimal
    trigger: Decimal
    at: datetime


class StopRecord(Struct):
    """What is stored of an account's stops: it must survive a kill between a request and its answer."""

    number: int = 0
    """How many stops were sent: part of the id of the next one."""
    sent: dict[str, SentStop] = field(default_factory=dict)
    """Client order id → the stop."""
    first_marks: dict[str, Decimal] = field(default_factory=dict)
    """`SYMBOL/side` → the mark at first sight of a position whose entry is unknown."""
    refused: dict[str, StopRefusal] = field(default_factory=dict)
    """`SYMBOL/side` → the last refusal."""
    shown: dict[str, SentStop] = field(default_factory=dict)
    """Client order id → a stop that the last list has shown."""
    missing: dict[str, SentStop] = field(default_factory=dict)
    """Client order id → a stop that a list does not show any more: it has ended, or was filled."""
    filled: dict[str, str] = field(default_factory=dict)
    """Client order id → the symbol of a stop of which something was filled, until the other legs of its hedge are
    closed. At some venues the order that a stop becomes, and so its fills, have another id."""


class PlannedStops(Struct, frozen=True):
    """What a pass does: resting stops without a position, and positions, each with the price that triggers theirs."""

    leftovers: tuple[Order, ...] = ()
    lines: tuple[tuple[StopLine, TriggerPrice], ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.leftovers or any(line.to_cancel or line.to_place for line, _ in self.lines))


class StopOrders:
    """The stops of one account at its venue. All its requests are limited by what closing leaves."""

    def __init__(self, context: AccountContext, record: StopRecord, save: Callable[[], None], epoch: str = "") -> None:
        """`save` makes the record durable; it is called before each request that places a stop.

        `epoch`: what the last restore of the store has begun. Stops of the lost time have numbers that the record does
        not know, so that it is a part of every later id.
        """
        self._epoch = f"/{epoch}" if epoch else ""
        self._context = context
        self.record = record
        self._save = save
        self._purpose: Purpose = "reading"
        self._had_no_list = False
        """Whether the last pass had no answer about the open orders."""
        self._gone: dict[str, float] = {}
        """Venue id of a cancelled order → monotonic seconds at which the venue confirmed its end."""
        self._queried: dict[str, float] = {}
        """Client order id of a stop of unknown fate → its age in seconds at the last query."""
        self._outdated: set[str] = set()
        """Symbols of stops that were filled, or may have been, since the position was read by which this pass plans."""
        self.changed_at = -math.inf
        """Monotonic seconds of the last change: a snapshot that was begun before is out of date."""

    @property
    def has_unanswered(self) -> bool:
        """Whether a stop was sent whose fate is unknown, or that no list has shown in time."""
        return any(self._is_due(it) for it in (*self.record.sent.values(), *self.record.missing.values()))

    def resting(self, orders: Iterable[Order]) -> tuple[Order, ...]:
        """The open orders with the stops that a list does not show yet, and without those that it still shows.

        A stop of unknown fate counts as resting, so that no second one is placed.
        """
        now = self._context.monotonic()
        self._gone = {order: at for order, at in self._gone.items() if now - at < LAG}
        shown = tuple(order for order in orders if order.id not in self._gone)
        for order in shown:
            self.record.sent.pop(order.client_order_id or "", None)
        self._note_missing(shown)
        return (*shown, *(_as_order(each) for each in self.record.sent.values()))

    def _note_missing(self, shown: Sequence[Order]) -> None:
        """Note the stops that the list before had, and this one lacks, to be queried for what they have closed."""
        now = self._context.clock.now()
        own = {it.client_order_id or "": it for it in shown if is_catastrophe_stop(it.client_order_id)}
        for name, stop in self.record.shown.items():
            if name not in own and name not in self.record.sent and stop.order not in self._gone:
                stop.state, stop.sent_at = "sent", now
                self.record.missing[name] = stop
        self.record.shown = {
            name: SentStop(name, it.symbol, it.side, _protected(it), it.amount, it.trigger_price, now, order=it.id)
            for name, it in own.items()
            if it.trigger_price is not None
        }

    async def keep(self, plan: Callable[[tuple[Order, ...]], PlannedStops], *, is_quiet: bool = False) -> None:
        """One pass: query what is unanswered, then make the changes that `plan` finds for the orders open now.

        `is_quiet`: nothing is being closed on the account. Then a pass after one that had no room among the requests of
        polls takes from the share of closing: at a venue of few requests it would never have any.
        """
        self._purpose = "closing" if is_quiet and self._had_no_list else "reading"
        self._outdated.clear()
        await self._query_all((*self.record.sent.values(), *self.record.missing.values()))
        known = frozenset(self.record.missing)
        found = await self._context.open_orders(purpose=self._purpose)
        self._had_no_list = found is None
        if found is None:
            return
        self.resting(found)
        await self._query_all(stop for name, stop in self.record.missing.items() if name not in known)
        planned = plan(self.resting(found))
        symbols = dict.fromkeys(
            (*(order.symbol for order in planned.leftovers), *(line.key[0] for line, _ in planned.lines))
        )
        for symbol in symbols:
            if symbol not in self._outdated:
                await self._change(symbol, planned)

    async def _query_all(self, stops: Iterable[SentStop]) -> None:
        for stop in tuple(stops):
            if self._is_due(stop):
                await (self._query if stop.name in self.record.sent else self._query_missing)(stop)

    async def _change(self, symbol: str, planned: PlannedStops) -> None:
        """Cancel the orders of a symbol that leave, then place the others."""
        lines = [each for each in planned.lines if each[0].key[0] == symbol]
        leaving = [order for order in planned.leftovers if order.symbol == symbol]
        leaving += [order for line, _ in lines for order in line.to_cancel]
        if all([await self._cancel(order) for order in leaving]):
            for line, trigger_by in lines:
                await self._place_all(line, trigger_by)

    async def _place_all(self, line: StopLine, trigger_by: TriggerPrice) -> None:
        for wanted in line.to_place:
            if not await self._place(line, wanted, trigger_by):
                return

    async def _cancel(self, order: Order) -> bool:
        """Cancel a resting stop; whether it is known that nothing of it was filled, so that another may follow."""
        name = order.client_order_id or ""
        if order.id == name:
            return False  # its fate is unknown, and so is the venue's id of it
        self.changed_at = self._context.monotonic()
        if await self._context.cancel(order.symbol, order.id, purpose=self._purpose) is not None:
            return False
        self.changed_at = self._context.monotonic()
        self._record(Cancelled(*self._head(name, order.symbol, _protected(order)), order=order.id, why=WHY))
        report = await self._context.find_order(order.symbol, name, order.amount, purpose=self._purpose)
        self.changed_at = self._context.monotonic()
        if not isinstance(report, OrderReport) or report.state == "open":
            return False
        self._gone[order.id] = self.changed_at
        self.record.sent.pop(name, None)
        self.record.shown.pop(name, None)
        self.record.missing.pop(name, None)
        self._record(self._end(name, order.symbol, _protected(order), report))
        return report.filled == 0

    async def _place(self, line: StopLine, wanted: WantedStop, trigger_by: TriggerPrice) -> bool:
        """Place one stop; whether the next one of its position may follow."""
        self.record.number += 1
        origin = f"{self._context.account}/{wanted.symbol}/{wanted.position_side}/{self.record.number}{self._epoch}"
        name = client_order_id(catastrophe_stop_work(origin), 0, 0, self._context.traits.client_ids)
        now = self._context.clock.now()
        request = OrderRequest(
            name, wanted.symbol, wanted.side, wanted.position_side, wanted.amount, reduce_only=True,
            trigger_price=wanted.trigger_price, trigger_when=wanted.trigger_when, trigger_by=trigger_by,
        )  # fmt: skip
        sent = SentStop(
            name, wanted.symbol, wanted.side, wanted.position_side, wanted.amount, wanted.trigger_price, now
        )
        self.record.sent[name] = sent
        self._save()
        head = self._head(name, wanted.symbol, wanted.position_side)
        self._record(
            Protected(
                *head,
                side=wanted.side,
                amount=wanted.amount,
                type="market",
                trigger_price=wanted.trigger_price,
                trigger_when=wanted.trigger_when,
            )
        )
        try:
            answer = await self._context.request("submit", self._context.venue.submit(request), purpose=self._purpose)
            report = validated_report(answer, name, wanted.amount)
        except OrderRejectedError as error:
            return self._refused(line, wanted, sent, error)
        except (RateLimitedError, VenueDownError) as error:
            del self.record.sent[name]
            self._record(Rejected(*head, reason="venue_down", text=venue_text(error)))
            return False
        except (VenueError, AttributeError, TypeError) as error:
            self._record(Unknown(*head, text=venue_text(error)))
            return False
        finally:
            self.changed_at = self._context.monotonic()
            self._save()
        self.record.refused.pop(key_text(line.key), None)
        if report.state == "open":
            sent.state, sent.order = "resting", report.id
            self._record(Acknowledged(*head, order=report.id, filled=report.filled))
            return True
        del self.record.sent[name]
        self._record(self._end(name, wanted.symbol, wanted.position_side, report))
        return False

    def _refused(self, line: StopLine, wanted: WantedStop, sent: SentStop, error: OrderRejectedError) -> bool:
        head = self._head(sent.name, sent.symbol, sent.position_side)
        if error.reason == "duplicate_client_order_id":
            self._record(Unknown(*head, reason=error.reason, text=venue_text(error)))
            return False
        del self.record.sent[sent.name]
        self._record(Rejected(*head, reason=error.reason, text=venue_text(error)))
        if error.reason not in NO_STOP:
            self.record.refused[key_text(line.key)] = StopRefusal(
                venue_text(error), line.contracts, wanted.trigger_price, self._context.clock.now()
            )
        return False

    async def _query(self, sent: SentStop) -> None:
        """Query a stop of unknown fate. Its absence counts once its request can no longer be carried out."""
        report = await self._found(sent)
        if isinstance(report, VenueError):
            return
        head = self._head(sent.name, sent.symbol, sent.position_side)
        self.changed_at = self._context.monotonic()
        if report is None:
            lapse = lapses_after(self._context.traits.order_life, self._context.pace, None)
            if self._context.seconds_since(sent.sent_at) >= lapse:
                del self.record.sent[sent.name]
                self._record(Absent(*head))
        elif report.state == "open":
            sent.state, sent.order, sent.sent_at = "resting", report.id, self._context.clock.now()
            self._record(Acknowledged(*head, order=report.id, filled=report.filled))
        else:
            del self.record.sent[sent.name]
            self._record(self._end(sent.name, sent.symbol, sent.position_side, report))

    async def _query_missing(self, stop: SentStop) -> None:
        """Query a stop that no list shows any more: some venues forget one that had nothing to close.

        It is given up once the venue has answered, after a while, that there is none. An error is no such answer.
        """
        is_first = stop.name not in self._queried
        report = await self._found(stop)
        if isinstance(report, OrderReport):
            del self.record.missing[stop.name]
            if report.state == "open":  # the list has left it out
                stop.state, stop.order = "resting", report.id
                self.record.sent[stop.name] = stop
            else:
                self._record(self._end(stop.name, stop.symbol, stop.position_side, report))
        elif report is None:
            if self._context.seconds_since(stop.sent_at) >= MISSED_FOR:
                del self.record.missing[stop.name]
        elif is_first:
            self._require_later_position(stop.symbol)

    def _require_later_position(self, symbol: str) -> None:
        """Place nothing in a symbol until its position was read again: a stop has closed some of it, or may have."""
        self._outdated.add(symbol)
        self.changed_at = self._context.monotonic() + self._context.pace.poll_interval

    async def _found(self, stop: SentStop) -> OrderReport | VenueError | None:
        known = self.record.sent.keys() | self.record.missing.keys()
        self._queried = {name: age for name, age in self._queried.items() if name in known}
        self._queried[stop.name] = self._context.seconds_since(stop.sent_at)
        return await self._context.find_order(stop.symbol, stop.name, stop.amount, purpose=self._purpose)

    def _is_due(self, sent: SentStop) -> bool:
        """Whether to query the stop: one of unknown fate after times that double, up to LAG.

        At some venues few queries of ended orders are allowed in ten minutes, and none of the first is the last one.
        """
        age = self._context.seconds_since(sent.sent_at)
        if sent.state == "resting":
            return age >= LAG
        last = self._queried.get(sent.name, 0.0)
        return age < last or age - last >= min(last, LAG)

    def _end(self, name: str, symbol: str, side: Side, report: OrderReport) -> Entry:
        if report.filled > 0:
            self.record.filled[name] = symbol
            self._require_later_position(symbol)
        head = self._head(name, symbol, side)
        return Filled(*head, order=report.id, state=report.state, filled=report.filled, price=report.average_price,
                      fee=report.fee)  # fmt: skip

    def _head(self, name: str, symbol: str, side: Side) -> tuple[str, datetime, str, str, str, str, int]:
        work = name.removeprefix(OWN_MARK)[:20]
        return (work, self._context.clock.now(), self._context.account, symbol, side, name, 0)

    def _record(self, entry: Entry) -> None:
        self._context.record([entry])


def key_text(key: StopKey) -> str:
    """A position as a key of the record and of alerts."""
    return f"{key[0]}/{key[1]}"


def first_marks(record: StopRecord) -> Mapping[StopKey, Decimal]:
    """The stored first marks by position."""
    found: dict[StopKey, Decimal] = {}
    for text, mark in record.first_marks.items():
        symbol, _, side = text.rpartition("/")
        found[symbol, "long" if side == "long" else "short"] = mark
    return found


def keep_first_marks(record: StopRecord, fresh: Mapping[StopKey, Decimal], held: Collection[StopKey]) -> None:
    """Add first marks, and forget those of positions that are not held any more."""
    kept = {key: mark for key, mark in first_marks(record).items() if key in held}
    record.first_marks = {key_text(key): mark for key, mark in {**fresh, **kept}.items()}


def is_still_refused(line: StopLine, record: StopRecord, now: datetime, again_after: float) -> StopRefusal | None:
    """The refusal of the stop that a position wants now, for `again_after` seconds; None if it may be tried."""
    found = record.refused.get(key_text(line.key))
    if found is None or (found.contracts, found.trigger) != (line.contracts, line.trigger):
        return None
    return found if (now - found.at).total_seconds() < again_after else None


def without_places(line: StopLine) -> StopLine:
    """The line without what it would place."""
    return replace(line, to_place=())


def _as_order(sent: SentStop) -> Order:
    return Order(
        sent.order or sent.name, sent.symbol, sent.side, sent.amount, client_order_id=sent.name,
        position_side=sent.position_side, trigger_price=sent.trigger_price, reduce_only=True,
    )  # fmt: skip


def _protected(order: Order) -> Side:
    return order.position_side or ("long" if order.side == "sell" else "short")
