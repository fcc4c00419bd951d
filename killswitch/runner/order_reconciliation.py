"""Reconciles every order of this program with the venue, and finds each discrepancy with the journal.

It also finds orders of unknown status that are detached or no longer queried, and positions whose protective order
could not be restored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from killswitch.execution.query.order_discrepancies import (
    discrepancies,
    fills_of_ours,
    journal_status,
    shown_from,
    unknown_state,
)
from killswitch.journal.codec import decode_all
from killswitch.journal.entries import Abandoned, ClosingObserver, Entry, OrderDetached, ProtectionAnswered, Undecodable
from killswitch.journal.orders import JournaledOrder, JournaledOrders
from killswitch.model.alert import Alert, Alerts
from killswitch.model.decision import Decision
from killswitch.model.snapshot import AccountSnapshot, Order, Snapshot
from killswitch.model.store import Store
from killswitch.model.venue import is_ours

KEPT = 64
"""Number of decisions whose orders are kept in memory; the orders of others are read again when needed."""
SEARCHED_DECISIONS = 200
"""Number of the newest decisions that are searched for an order name that does not contain its decision."""
REMEMBERED_NAMES = 10_000
"""Number of order names and of fill ids that are remembered."""

_NOT_PAGED = ("resting", "filled", "not needed", "still there")
"""States of a protective order that need no page: it is in place, or not needed."""
_SPELLED = re.compile(r"ks([0-9a-z]{20})[0-9a-z]{9}")


class OrderReconciliation:
    """Order reconciliation: a ClosingObserver that receives every durable entry, and returns findings at each tick.

    After a restart it continues from the journal.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._orders: dict[str, JournaledOrders] = {}
        """Decision → its orders."""
        self._decisions: dict[str, str | None] = {}
        """Name → its decision; None where no journal knows it."""
        self._names: dict[str, str] = {}
        """The venue's id of an order → our name for it."""
        self._seen_fills: dict[tuple[str, str], None] = {}
        self._filled: dict[str, dict[str, Decimal]] = {}
        """Account → name → contracts of all fills seen since the start."""
        self._due: dict[str, dict[str, datetime | None]] = {}
        """Account → name → when to compare it again (None: at the next tick); other orders have not changed."""
        self._resting: dict[str, dict[str, Order]] = {}
        """Account → name → our resting order as last compared."""
        self._found: list[Alert] = []
        """Findings since `alerts` returned the last ones."""

    # ClosingObserver

    def begun(self, decision: Decision, account: str, journal: Sequence[Entry]) -> None:
        """Restore what an earlier run has journaled about the decision."""
        for entry in journal:
            if entry.account == account:
                self._note(decision.id, entry)
        self._keep(decision.id, JournaledOrders(journal))

    def wrote(self, entry: Entry) -> None:
        """Apply a new entry of a close."""
        orders = self._orders.get(entry.decision)
        if orders is not None and (known := orders.apply(entry)) is not None:
            self._remember(known)
        for name in self._about(entry):
            self._mark_due(entry.account or "", name)
        self._note(entry.decision, entry)

    # Ticks

    def compare(self, snapshot: Snapshot) -> None:
        """Find the discrepancies of a tick. Raises StoreError; what was found until then, `alerts` returns."""
        for account in snapshot.accounts:
            if account.quality == "ok":
                self._compare_orders(account, snapshot)

    def alerts(self) -> Alerts:
        """A finding, once, for each discrepancy and each order that is no longer queried."""
        found, self._found = self._found, []
        return Alerts(tuple(found))

    def _compare_orders(self, account: AccountSnapshot, snapshot: Snapshot) -> None:
        """Compare orders that changed in this snapshot or in the journal, or whose comparison was not due."""
        resting, filled = self._resting_orders(account), self._filled[account.account]
        due = self._due.setdefault(account.account, {})
        names = [name for name, since in due.items() if since is None or since <= snapshot.as_of]
        self._find_decisions({name for name in names if name not in self._decisions})
        for name in sorted(names, key=lambda each: self._decisions.get(each) or ""):
            known = self._journaled(name)
            del due[name]
            mine = replace(account, orders=(resting[name],) if name in resting else ())
            fills = {name: filled[name]} if name in filled else {}
            odd = discrepancies(mine, snapshot.as_of, {name: known}.get, fills)
            self._found += [_of_order(each.name, each.what, each.text) for each in odd]
            if known is not None and journal_status(known) != "sent" and snapshot.as_of < shown_from(known):
                due[name] = shown_from(known)

    def _resting_orders(self, account: AccountSnapshot) -> dict[str, Order]:
        """Our resting orders, by name. Orders that changed or have new fills are due from now on."""
        resting: dict[str, Order] = {}
        for order in account.orders or ():
            if order.client_order_id is not None and is_ours(order.client_order_id):
                self._names[order.id] = order.client_order_id
                resting[order.client_order_id] = order
        before = self._resting.get(account.account, {})
        for name, order in resting.items():
            if _what(before.get(name)) != _what(order):
                self._mark_due(account.account, name)
        self._resting[account.account] = resting
        filled = self._filled.setdefault(account.account, {})
        for name, fill in fills_of_ours(account, self._names):
            if (account.account, fill.id) not in self._seen_fills:
                self._seen_fills[account.account, fill.id] = None
                filled[name] = filled.get(name, Decimal(0)) + fill.amount
                self._mark_due(account.account, name)
        for remembered in (self._names, self._seen_fills, filled, self._due.get(account.account, {})):
            _shorten(remembered)
        return resting

    def _mark_due(self, account: str, name: str) -> None:
        self._due.setdefault(account, {})[name] = None

    def _about(self, entry: Entry) -> list[str]:
        """The orders reported by the venue that a journal entry changes."""
        account = entry.account or ""
        if isinstance(entry, ProtectionAnswered):  # it names the replaced order, not the new one
            shown = (*self._resting.get(account, ()), *self._filled.get(account, ()))
            return [name for name in shown if self._decisions.get(name) == entry.decision]
        name = entry.client_order_id
        if name is None or not (name in self._resting.get(account, {}) or name in self._filled.get(account, {})):
            return []
        return [name]

    # Journal

    def _journaled(self, name: str) -> JournaledOrder | None:
        decision = self._decisions.get(name)
        if decision is None:
            return None
        if decision not in self._orders:
            self._keep(decision, JournaledOrders(decode_all(self._store.journal(decision))))
        return self._orders[decision].get(name)

    def _find_decisions(self, names: set[str]) -> None:
        """Find the decisions of orders: by the decision in the name, else among the newest decisions."""
        spelled = [found[1] for name in names if (found := _SPELLED.fullmatch(name)) is not None]
        missing = set(names)
        for decision in spelled:
            missing -= self._found_in(decision, missing)
        for stored in self._store.decisions(SEARCHED_DECISIONS) if missing else ():
            missing -= self._found_in(stored.decision.id, missing)
            if not missing:
                break
        self._decisions |= dict.fromkeys(missing)  # only now: after a search that failed they are searched again
        _shorten(self._decisions)

    def _found_in(self, decision: str, names: set[str]) -> set[str]:
        journal = self._store.journal(decision)
        found = {name for entry in journal if (name := entry.client_order_id) is not None} & names
        self._decisions |= dict.fromkeys(found, decision)
        if found:
            self._keep(decision, JournaledOrders(decode_all(journal)))
        return found

    def _keep(self, decision: str, orders: JournaledOrders) -> None:
        self._orders.pop(decision, None)
        self._orders[decision] = orders
        for known in orders.newest.values():
            self._remember(known)
        while len(self._orders) > KEPT:
            del self._orders[next(iter(self._orders))]

    def _remember(self, known: JournaledOrder) -> None:
        if not known.name:
            return
        self._decisions[known.name] = known.first.decision
        if known.order_id is not None:
            self._names[known.order_id] = known.name
        odd = unknown_state(known)
        if odd is not None:
            self._found.append(_of_order(odd.name, odd.what, odd.text))

    def _note(self, decision: str, entry: Entry) -> None:
        """Record the finding of an entry, if it is one."""
        way_out = f"(ksctl explain {decision})"
        place = f"{entry.account}/{entry.symbol}"
        name = entry.client_order_id or f"{decision}/{place}"
        order = f"order {entry.client_order_id} on {entry.symbol} has an unknown status"
        match entry:
            case ProtectionAnswered():
                if entry.state not in _NOT_PAGED and not entry.is_unknown:
                    position = f"{entry.symbol} {entry.position_side} on account {entry.account}"
                    key = f"protection/{place}/{entry.position_side}/{entry.replaces}"
                    text = f"{position} is without its protective order {entry.replaces}: {entry.state}"
                    self._found.append(_finding(key, text))
            case OrderDetached():
                what = (
                    "it may have filled: look at the venue, which is still queried. The close goes on without it, of a "
                    "swap or future as a whole, of anything else as if it had filled"
                )
                found = _of_order(name, "detached", f"{order}: {what} {way_out}", entry.account)
                # It is still queried: while nothing of the account can be read, this is what its outage means.
                self._found.append(replace(found, part_of=(f"outage/{entry.account}",)))
            case Abandoned():
                what = "the venue does not report its status and is no longer queried: check the order at the venue"
                self._found.append(_of_order(name, "abandoned", f"{order}: {what} {way_out}", entry.account))
            case Undecodable():
                what = f"an entry of the journal about {entry.symbol} on account {entry.account} cannot be decoded"
                text = f"{what}, and counts as the worst case: {entry.why} {way_out}"
                self._found.append(_finding(f"journal/{decision}/{place}/{entry.row.kind}/{entry.row.sequence}", text))


class CombinedClosingObserver:
    """Passes every call on to several observers."""

    def __init__(self, *observers: ClosingObserver) -> None:
        self._observers = observers

    def begun(self, decision: Decision, account: str, journal: Sequence[Entry]) -> None:
        """Pass on."""
        for observer in self._observers:
            observer.begun(decision, account, journal)

    def wrote(self, entry: Entry) -> None:
        """Pass on."""
        for observer in self._observers:
            observer.wrote(entry)


def _of_order(name: str, what: str, text: str, account: str | None = None) -> Alert:
    """The page about an order. With its account, those of a tick are one page: an outage loses many answers at once."""
    found = _finding(f"order/{name}/{what}", text, None if account is None else f"orders on account {account}")
    return replace(found, closing_on=account or "")


def _finding(key: str, text: str, heading: str | None = None) -> Alert:
    return Alert(key, "page", text, lasts=False, heading=heading)


def _what(order: Order | None) -> tuple[object, ...] | None:
    """The fields of a resting order that are compared with the journal."""
    return None if order is None else (order.symbol, order.side, order.amount)


def _shorten(remembered: dict[Any, Any]) -> None:
    """Forget the oldest, so that a run of months does not grow."""
    while len(remembered) > REMEMBERED_NAMES:
        del remembered[next(iter(remembered))]
