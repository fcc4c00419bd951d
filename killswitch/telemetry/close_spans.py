"""A closing as spans and numbers, from its journal: what is not in the journal did not happen.

One `close` for each decision and account, from the moment it is taken up to its honest end; one `order` for each
attempt, from before it is sent to the venue's last word about it. Both may outlast a runner: the next one reads
the journal, and ends what the first one began, in the same trace under the same span.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Protocol

from killswitch.model.decision import Decision
from killswitch.model.effects import Orders, only_on, sizes_of, tag_of
from killswitch.model.instant import to_micros
from killswitch.model.store import JournalEntry
from killswitch.model.tracing import AS_OF, Attribute
from killswitch.telemetry.spans import Course


class ClosingSink(Protocol):
    """Where closings go, and their orders."""

    def closed(self, course: Course, decision: Decision, account: str) -> None:
        """The work on `account` has ended."""
        ...

    def ordered(self, course: Course, decision: Decision, account: str) -> None:
        """An order has ended: a part of the close of `account`, which goes on."""
        ...


class Counts(Protocol):
    """What is counted of closings."""

    def order(self, account: str, outcome: str) -> None: ...

    def unknown_fate(self, account: str) -> None: ...

    def closing(self, account: str, status: str, seconds: float) -> None: ...

    def unprotected(self, account: str, seconds: float) -> None: ...


class ClosingCourses:
    """A ClosingWatch: folds journal entries into spans, and counts how they ended."""

    def __init__(self, sink: ClosingSink | None, counts: Counts | None) -> None:
        self._sink = sink
        self._counts = counts
        self._open: dict[tuple[str, str], _Closing] = {}

    def begun(self, decision: Decision, account: str, journal: Sequence[JournalEntry]) -> None:
        if decision.is_suspicion:
            return  # cancels of entries are no close
        closing = self._open[decision.id, account] = _Closing(decision, account)
        # What an earlier run has told of is not told again; what it left open is.
        for entry in journal:
            if entry.account == account:
                closing.take(entry)

    def wrote(self, entry: JournalEntry) -> None:
        closing = self._open.get((entry.decision, entry.account or ""))
        if closing is None:
            return
        order = closing.take(entry)
        if self._counts is not None:
            self._count(entry, closing)
        if order is not None and self._sink is not None:
            self._sink.ordered(order, closing.decision, closing.account)
        if entry.kind == "finished":
            del self._open[entry.decision, closing.account]
            if self._sink is not None:
                self._sink.closed(closing.course, closing.decision, closing.account)

    def _count(self, entry: JournalEntry, closing: _Closing) -> None:
        counts, account = self._counts, entry.account or ""
        if counts is None:
            return
        if entry.kind == "unknown":
            counts.unknown_fate(account)
        elif entry.kind in ("filled", "rejected", "absent", "abandoned"):
            counts.order(account, outcome(entry))
        elif entry.kind == "finished":
            seconds = (entry.at - closing.decision.as_of).total_seconds()
            counts.closing(account, entry.data.get("status") or "abandoned", max(0.0, seconds))
        elif (bare := closing.covered(entry)) is not None:
            counts.unprotected(account, bare)


def outcome(entry: JournalEntry) -> str:
    """How an order ended: the venue's state for it, `rejected`, `absent` if the venue never had it, or `abandoned`."""
    return entry.data.get("state") or "filled" if entry.kind == "filled" else entry.kind


_PROTECTION = {"unprotected": ("order",), "protected": ("for",), "guarded": ("for", "state")}
_COVERED = ("resting", "not needed", "still there")


class _Closing:
    """One decision's work on one account, and its orders that have not ended."""

    def __init__(self, decision: Decision, account: str) -> None:
        self.decision = decision
        self.account = account
        self.course = Course("close", _nanos(decision.as_of), _about(decision, account))
        self._orders: dict[str, Course] = {}
        self._sent = 0
        self._abandoned = 0
        self._bare: dict[str, datetime] = {}
        """Protective orders that were taken away and not replaced yet, and when."""

    def take(self, entry: JournalEntry) -> Course | None:
        """Move by one entry; the order that it ends, if it ends one."""
        name, at = entry.client_order_id, _nanos(entry.at)
        match entry.kind:
            case "sending" if name is not None:
                self._sent += 1
                self._orders[name] = Course("order", at, self._about_order(entry))
            case "acknowledged" | "unknown" | "set_aside" if name in self._orders:
                self._orders[name].events.append((entry.kind, at, _words(entry, "text")))
            case "filled" | "rejected" | "absent" | "abandoned" if name in self._orders:
                self._abandoned += entry.kind == "abandoned"
                return _ended(self._orders.pop(name), entry, at)
            case "verified":
                said = _words(entry, "position", "target")
                said |= {"killswitch.symbol": entry.symbol or "", "killswitch.position.side": entry.position_side or ""}
                self.course.events.append(("verified", at, said))
            case "cancelled":
                self.course.events.append(("cancelled", at, _words(entry, "order", "why")))
            case "swept":
                self.course.events.append(("swept", at, {}))
            case "unprotected" | "protected" | "guarded":
                self._protect(entry, at)
            case "finished":
                self._finish(entry, at)
        return None

    def _protect(self, entry: JournalEntry, at: int) -> None:
        """A protective order is taken away, to be put back, or answered about."""
        said = _words(entry, *_PROTECTION[entry.kind])
        said |= {"killswitch.symbol": entry.symbol or "", "killswitch.position.side": entry.position_side or ""}
        self.course.events.append((entry.kind, at, said))
        if entry.kind == "unprotected":
            self._bare.setdefault(entry.data.get("order") or "", entry.at)

    def covered(self, entry: JournalEntry) -> float | None:
        """Seconds for which a position was without the protective order that `entry` replaces; None for all else."""
        if entry.kind != "guarded" or entry.data.get("state") not in _COVERED:
            return None
        since = self._bare.pop(entry.data.get("for") or "", None)
        return None if since is None else max(0.0, (entry.at - since).total_seconds())

    def _about_order(self, entry: JournalEntry) -> dict[str, Attribute]:
        found: dict[str, Attribute] = {
            "killswitch.decision": self.decision.id,
            "killswitch.account": self.account,
            "killswitch.symbol": entry.symbol or "",
            "killswitch.position.side": entry.position_side or "",
            "killswitch.order.side": entry.data.get("side") or "",
            "killswitch.order.client_id": entry.client_order_id or "",
            "killswitch.order.attempt": entry.attempt or 0,
        }
        _set_number(found, "killswitch.order.amount", entry.data.get("amount"))
        _set_number(found, "killswitch.order.limit", entry.data.get("price"))
        if (kind := entry.data.get("order")) is not None:
            found["killswitch.order.type"] = kind
        if (rung := entry.data.get("rung")) is not None and rung.isascii() and rung.isdigit():
            found["killswitch.order.rung"] = int(rung)
        return found

    def _finish(self, entry: JournalEntry, at: int) -> None:
        course, status = self.course, entry.data.get("status") or "abandoned"
        course.ended = at
        course.set("killswitch.close.status", status)
        course.set("killswitch.close.orders", self._sent)
        course.set("killswitch.close.abandoned", self._abandoned)
        _set_number(course.attributes, "killswitch.close.cost", entry.data.get("cost"))
        if status != "flat":
            course.failure = f"{status}: {entry.data.get('reason') or 'no reason given'}"


def _about(decision: Decision, account: str) -> dict[str, Attribute]:
    found: dict[str, Attribute] = {
        AS_OF: to_micros(decision.as_of),
        "killswitch.decision": decision.id,
        "killswitch.account": account,
        "killswitch.policy": decision.policy,
        "killswitch.scope": decision.scope,
        "killswitch.stage.level": decision.level,
        "killswitch.close.positions": sizes_of(only_on(decision.effects, (account,)))[tag_of(Orders)],
    }
    if decision.cause is not None:
        found["killswitch.cause"] = decision.cause
    if decision.unwinding is not None:
        found["killswitch.unwinding"] = decision.unwinding.name
    if decision.stage is not None:
        found["killswitch.stage"] = decision.stage
    return found


def _ended(order: Course, entry: JournalEntry, at: int) -> Course:
    order.ended = at
    order.set("killswitch.order.outcome", outcome(entry))
    _set_number(order.attributes, "killswitch.order.filled", entry.data.get("filled"))
    _set_number(order.attributes, "killswitch.order.price", entry.data.get("price"))
    _set_number(order.attributes, "killswitch.order.fee", entry.data.get("fee"))
    if entry.kind != "filled":
        order.failure = entry.data.get("text") or entry.data.get("reason") or entry.kind
        order.set("killswitch.order.reason", entry.data.get("reason"))
    return order


def _words(entry: JournalEntry, *keys: str) -> dict[str, Attribute]:
    found = {f"killswitch.{key}": entry.data.get(key) for key in keys}
    return {key: value for key, value in found.items() if value is not None}


def _set_number(attributes: dict[str, Attribute], name: str, text: str | None) -> None:
    """A journaled number for people to search by; the exact one stays in the journal."""
    with suppress(ValueError):
        if text is not None:
            attributes[name] = float(text)


def _nanos(at: datetime) -> int:
    return to_micros(at) * 1000
