"""Spans and metrics of a close, folded from its journal.

One `close` span for each decision and account, from the beginning of the work to its end; one `order` span for each
attempt, from before it is sent to the venue's final status. Both may outlast a runner: the next one reads the journal,
and ends the spans that the first one began, in the same trace with the same ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from killswitch.journal.entries import (
    Abandoned,
    Absent,
    Acknowledged,
    Cancelled,
    Entry,
    Filled,
    Finished,
    Number,
    OrderDetached,
    OrderSending,
    Protected,
    ProtectionAnswered,
    Rejected,
    Undecodable,
    Unknown,
    Unprotected,
    Verified,
    WholeBookClose,
    known,
    text_of,
)
from killswitch.journal.orders import JournaledOrders
from killswitch.model.decision import Decision
from killswitch.model.effects import Orders, only_on, sizes_of, tag_of
from killswitch.model.instant import to_micros
from killswitch.model.tracing import AS_OF, INCIDENT, Attribute, Incidents
from killswitch.risk.trading_cost import slippage
from killswitch.telemetry.spans import SpanRecord

if TYPE_CHECKING:
    from killswitch.telemetry.exporting import SpanSink
    from killswitch.telemetry.metrics import Metrics


class CloseSpans:
    """A ClosingObserver that folds journal entries into spans, and counts their outcomes."""

    def __init__(self, sink: SpanSink | None, counts: Metrics | None, incidents: Incidents | None = None) -> None:
        """`incidents`: those that the run follows; left out: only those that begin here are known."""
        self._sink = sink
        self._counts = counts
        self._open: dict[tuple[str, str], _CloseSpan] = {}
        self._incidents = Incidents() if incidents is None else incidents

    def begun(self, decision: Decision, account: str, journal: Sequence[Entry]) -> None:
        if decision.is_suspicion:
            return  # cancelling entry orders is not a close
        closing = self._open[decision.id, account] = _CloseSpan(decision, account, self._incidents.of(decision))
        # Spans that an earlier run has ended are not exported again; those that it left open are.
        for entry in journal:
            if entry.account == account:
                closing.apply(entry)

    def wrote(self, entry: Entry) -> None:
        closing = self._open.get((entry.decision, entry.account or ""))
        if closing is None:
            return
        order = closing.apply(entry)
        if self._counts is not None:
            _count(entry, closing, self._counts)
        if order is not None and self._sink is not None:
            self._sink.export_order(order, closing.decision, closing.account)
        if isinstance(entry, Finished):
            del self._open[entry.decision, closing.account]
            if self._sink is not None:
                self._sink.export_close(closing.record, closing.decision, closing.account)


def _count(entry: Entry, closing: _CloseSpan, counts: Metrics) -> None:
    account = closing.account
    if isinstance(entry, Filled) and (share := closing.slipped(entry)) is not None:
        counts.record_slippage(account, share)
    match entry:
        case Unknown():
            counts.count_unknown_status(account)
        case Filled() | Rejected() | Absent() | Abandoned():
            counts.count_order(account, closing.outcome(entry))
        case Finished():
            seconds = (entry.at - closing.decision.as_of).total_seconds()
            counts.record_close(account, entry.status or "abandoned", max(0.0, seconds))
        case ProtectionAnswered() if (unprotected := closing.unprotected_seconds(entry)) is not None:
            counts.record_unprotected(account, unprotected)


_COVERED = ("resting", "not needed", "still there")


class _CloseSpan:
    """The work of one decision on one account, and its open orders."""

    def __init__(self, decision: Decision, account: str, incident: str | None) -> None:
        self.decision = decision
        self.account = account
        self.incident = incident
        self.record = SpanRecord("close", _nanos(decision.as_of), _attributes_of(decision, account, incident))
        self._orders = JournaledOrders()
        self._open: dict[str, SpanRecord] = {}
        """By client order id."""
        self._unprotected: dict[str, datetime] = {}
        """Protective orders that were cancelled and not replaced yet, and when."""

    def apply(self, entry: Entry) -> SpanRecord | None:
        """Apply one entry; return the span of the order that it ends, if any."""
        at = _nanos(entry.at)
        order = self._orders.apply(entry)
        match entry:
            case OrderSending() if order is not None and entry.client_order_id is not None:
                self._open[order.name] = SpanRecord("order", at, self._about_order(entry))
            case Filled() | Rejected() | Absent() | Abandoned() if order is not None and order.name in self._open:
                return _ended(self._open.pop(order.name), order.outcome, entry, at)
            case Acknowledged() | Unknown() | OrderDetached() if order is not None and order.name in self._open:
                text = None if isinstance(entry, Acknowledged) else entry.text
                self._open[order.name].events.append((entry.kind, at, _attributes(text=text)))
            case Finished():
                self._finish(entry, at)
            case _:
                self._note(entry, at)
        return None

    def outcome(self, entry: Entry) -> str:
        """Outcome of the order that `entry` has ended."""
        order = self._orders.get(entry.client_order_id or "")
        return "" if order is None else order.outcome

    def slipped(self, entry: Filled) -> float | None:
        """Slippage of the filled order as a share of the mark when it was sent; None where a part is unknown."""
        order = self._orders.get(entry.client_order_id or "")
        sending = None if order is None else order.sending
        price, mark = known(entry.price), None if sending is None else known(sending.mark)
        side = None if sending is None else sending.side
        if price is None or not mark or side not in ("buy", "sell"):
            return None
        return float(slippage("buy" if side == "buy" else "sell", mark, price))

    def _note(self, entry: Entry, at: int) -> None:
        """Add an event to the close for an entry about a position rather than an order."""
        events = self.record.events
        place = _attributes(symbol=entry.symbol or "", **{"position.side": entry.position_side or ""})
        match entry:
            case Verified():
                shown = _attributes(position=text_of(entry.position), target=text_of(entry.target))
                events.append((entry.kind, at, shown | place))
            case Cancelled():
                events.append((entry.kind, at, _attributes(order=entry.order, why=entry.why)))
            case WholeBookClose():
                events.append((entry.kind, at, {}))
            case Unprotected():
                events.append((entry.kind, at, _attributes(order=entry.order) | place))
                self._unprotected.setdefault(entry.order or "", entry.at)
            case Protected():
                events.append((entry.kind, at, _attributes(**{"for": entry.replaces}) | place))
            case ProtectionAnswered():
                events.append((entry.kind, at, _attributes(**{"for": entry.replaces, "state": entry.state}) | place))
            case Undecodable():
                events.append(("undecodable", at, _attributes(why=entry.why) | place))

    def unprotected_seconds(self, entry: ProtectionAnswered) -> float | None:
        """Seconds for which a position was unprotected until `entry` replaced the order; None if it still is."""
        if entry.state not in _COVERED:
            return None
        since = self._unprotected.pop(entry.replaces or "", None)
        return None if since is None else max(0.0, (entry.at - since).total_seconds())

    def _about_order(self, entry: OrderSending) -> dict[str, Attribute]:
        return _without_unknown(
            {
                "killswitch.decision": self.decision.id,
                INCIDENT: self.incident,
                "killswitch.account": self.account,
                "killswitch.symbol": entry.symbol or "",
                "killswitch.position.side": entry.position_side or "",
                "killswitch.order.side": entry.side or "",
                "killswitch.order.client_id": entry.client_order_id or "",
                "killswitch.order.attempt": entry.attempt or 0,
                "killswitch.order.amount": _number(entry.amount),
                "killswitch.order.limit": _number(entry.price),
                "killswitch.order.type": entry.order,
                "killswitch.order.rung": known(entry.rung),
            }
        )

    def _finish(self, entry: Finished, at: int) -> None:
        record, status = self.record, entry.status or "abandoned"
        orders = [order for order in self._orders.all if order.sending is not None]
        record.ended = at
        record.set("killswitch.close.status", status)
        record.set("killswitch.close.orders", len(orders))
        record.set("killswitch.close.abandoned", sum(order.status == "abandoned" for order in orders))
        record.set("killswitch.close.cost", _number(entry.cost))
        if status != "flat":
            record.failure = f"{status}: {entry.reason or 'no reason given'}"


def _attributes_of(decision: Decision, account: str, incident: str | None) -> dict[str, Attribute]:
    return _without_unknown(
        {
            AS_OF: to_micros(decision.as_of),
            "killswitch.decision": decision.id,
            INCIDENT: incident,
            "killswitch.account": account,
            "killswitch.policy": decision.policy,
            "killswitch.scope": decision.scope,
            "killswitch.stage.level": decision.level,
            "killswitch.close.positions": sizes_of(only_on(decision.effects, (account,)))[tag_of(Orders)],
            "killswitch.cause": decision.cause,
            "killswitch.unwinding": None if decision.unwinding is None else decision.unwinding.name,
            "killswitch.stage": decision.stage,
        }
    )


def _ended(record: SpanRecord, outcome: str, entry: Filled | Rejected | Absent | Abandoned, at: int) -> SpanRecord:
    record.ended = at
    record.set("killswitch.order.outcome", outcome)
    if isinstance(entry, Filled):
        record.set("killswitch.order.filled", _number(entry.filled))
        record.set("killswitch.order.price", _number(entry.price))
        record.set("killswitch.order.fee", _number(entry.fee))
        return record
    reason = entry.reason if isinstance(entry, Rejected) else None
    record.failure = entry.text or reason or entry.kind
    record.set("killswitch.order.reason", reason)
    return record


def _attributes(**values: str | None) -> dict[str, Attribute]:
    return _without_unknown({f"killswitch.{name}": value for name, value in values.items()})


def _without_unknown(values: Mapping[str, Attribute | None]) -> dict[str, Attribute]:
    return {name: value for name, value in values.items() if value is not None}


def _number(value: Number) -> float | None:
    """A journaled number as a searchable attribute; the exact one is in the journal."""
    number = known(value)
    return None if number is None else float(number)


def _nanos(at: datetime) -> int:
    return to_micros(at) * 1000
