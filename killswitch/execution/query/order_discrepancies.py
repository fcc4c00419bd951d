"""Compares our orders at the venue with the journal. Pure: snapshots and entries in, discrepancies out.

Every order is journaled before it is sent. An order under one of our names that the journal does not know, or knows
differently, comes from another process or from a defect, and an operator is notified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from msgspec import Struct

from killswitch.journal.orders import WITHOUT_EFFECT, JournaledOrder
from killswitch.model.snapshot import AccountSnapshot, Fill, Order
from killswitch.model.venue import is_ours

JournalStatus = Literal["sent", "final", "nothing", "abandoned"]
"""sent: it may be open. final: it has ended. nothing: the venue refused it, or it never arrived."""

LAG = 30.0
"""Seconds for which the venue may show an order differently from the journal: snapshots and lists lag."""

_STATUS_TEXTS: Mapping[JournalStatus, str] = {
    "final": "has ended", "nothing": "was refused or never arrived", "abandoned": "was abandoned with unknown status",
}  # fmt: skip


def journal_status(order: JournaledOrder) -> JournalStatus:
    """The status of an order according to its newest journal entry."""
    if order.status == "abandoned":
        return "abandoned"
    if order.status in WITHOUT_EFFECT:
        return "nothing"
    return "final" if order.is_final else "sent"


class Discrepancy(Struct, frozen=True):
    """A discrepancy about one order. `what` distinguishes several about the same order."""

    name: str
    what: str
    text: str


Lookup = Callable[[str], JournaledOrder | None]


def discrepancies(
    account: AccountSnapshot, read_by: datetime, known: Lookup, filled: Mapping[str, Decimal]
) -> list[Discrepancy]:
    """The discrepancies between a snapshot that was completed at `read_by` and the journal.

    `known` finds the journaled order of a name. `filled`: by name, the contracts of all fills seen so far. An account
    that could not be polled shows none.
    """
    if account.quality != "ok":
        return []
    found: list[Discrepancy] = []
    for order in account.orders or ():
        if order.client_order_id is not None and is_ours(order.client_order_id):
            name = order.client_order_id
            found += _of_order(account.account, order, name, known(name), read_by)
    for name, amount in filled.items():
        found += _of_fills(account.account, name, amount, known(name), read_by)
    return found


def fills_of_ours(account: AccountSnapshot, names: Mapping[str, str]) -> Iterator[tuple[str, Fill]]:
    """The fills of our orders in a snapshot, by our name. `names`: venue's order id → our name, as far as known."""
    for fill in account.fills or () if account.quality == "ok" else ():
        name = fill.order if is_ours(fill.order) else names.get(fill.order or "")
        if name is not None:
            yield name, fill


def _of_order(
    account: str, order: Order, name: str, known: JournaledOrder | None, read_by: datetime
) -> Iterator[Discrepancy]:
    subject = f"order {name} of ours ({order.side} {order.symbol} on account {account})"
    if known is None:
        yield Discrepancy(
            name, "unknown", f"{subject} is open at the venue, and the journal has no such order: {_UNKNOWN_ORIGIN}"
        )
        return
    status = journal_status(known)
    if status != "sent" and read_by >= shown_from(known):
        yield _found(
            known, name, "open", f"{subject} is still open at the venue, and by the journal it {_STATUS_TEXTS[status]}"
        )
    if (order.symbol, order.side) != (known.first.symbol or order.symbol, known.side or order.side):
        yield _found(known, name, "other", f"{subject} was sent as {known.side} {known.first.symbol}")
    elif known.largest_sent is not None and order.amount > known.largest_sent:
        sizes = f"{order.amount:f} contracts, and {known.largest_sent:f} were sent"
        yield _found(known, name, "amount", f"{subject} is of {sizes}")


def _of_fills(
    account: str, name: str, amount: Decimal, known: JournaledOrder | None, read_by: datetime
) -> Iterator[Discrepancy]:
    subject = f"order {name} of ours on account {account}"
    if known is None:
        yield Discrepancy(
            name, "unknown", f"{subject} was filled, and the journal has no such order: {_UNKNOWN_ORIGIN}"
        )
        return
    status = journal_status(known)
    if status == "sent" or read_by < shown_from(known):
        return
    if status != "final":
        yield _found(known, name, "filled", f"{subject} was filled, and by the journal it {_STATUS_TEXTS[status]}")
    elif known.filled is not None and amount > known.filled:
        yield _found(known, name, "more", f"{subject} was filled beyond the {known.filled:f} with which it had ended")


def unknown_state(known: JournaledOrder) -> Discrepancy | None:
    """The discrepancy about an order that the venue reports in an unknown state; None if there is none."""
    if known.unrecognised_state is None:
        return None
    subject = f"order {known.name} of ours on {known.first.symbol} on account {known.first.account}"
    return _found(known, known.name, "state", f"{subject} is in an unknown state, {known.unrecognised_state}")


def shown_from(known: JournaledOrder) -> datetime:
    """The time from which the venue should show the order as the journal does."""
    return known.at + timedelta(seconds=LAG)


_UNKNOWN_ORIGIN = "another store or another process uses our order names; check at the venue"


def _found(known: JournaledOrder, name: str, what: str, text: str) -> Discrepancy:
    return Discrepancy(name, what, f"{text}: check at the venue, and see ksctl explain {known.first.decision}")
