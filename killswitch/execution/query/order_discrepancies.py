"""Whether what the venue shows of our orders agrees with the journal. Pure: readings and entries in, doubts out.

Every order that we send is journaled before it leaves. So an order under a name of ours that the journal does not know,
or knows otherwise, is either another hand's or the sign of a defect: a person is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from killswitch.execution.targets.client_order_id import is_ours
from killswitch.execution.targets.lifecycle import number
from killswitch.model.snapshot import AccountSnapshot, Fill, Order
from killswitch.model.store import JournalEntry

Knowledge = Literal["sent", "final", "nothing", "abandoned"]
"""sent: it may be open. final: it has ended. nothing: the venue refused it, or never had it."""

LAG = 30.0
"""Seconds for which the venue may show an order as the journal no longer has it: readings and lists are slow."""

_KNOWN: Mapping[str, Knowledge] = {
    "sending": "sent", "acknowledged": "sent", "unknown": "sent", "set_aside": "sent", "protected": "sent",
    "filled": "final", "rejected": "nothing", "absent": "nothing", "abandoned": "abandoned",
}  # fmt: skip
_UNKNOWN = ("unknown", "set_aside", "abandoned")
_GUARDS: Mapping[str, Knowledge] = {
    "resting": "sent", "filled": "final", "canceled": "final", "expired": "final", "rejected": "nothing",
    "again": "nothing",
}  # fmt: skip
_WORDS: Mapping[Knowledge, str] = {
    "final": "has ended", "nothing": "was refused or never arrived", "abandoned": "is of unknown fate for good",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class KnownOrder:
    """What the journal says of one order of ours, by its newest entry at `at`.

    `most` is the greatest amount that was sent under its name, `filled` what it filled if it has ended; contracts.
    `order` is the venue's id for it, once it was told. `guards` is the id of the protective order whose place it is to
    take. `odd`: a state of which the venue spoke and we know nothing.
    """

    name: str
    decision: str
    account: str | None
    symbol: str | None
    side: str | None
    most: Decimal | None
    knowledge: Knowledge
    at: datetime
    filled: Decimal | None = None
    order: str | None = None
    guards: str | None = None
    odd: str | None = None


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something about one order that does not agree. `what` tells doubts about the same order apart."""

    name: str
    what: str
    text: str


Lookup = Callable[[str], KnownOrder | None]


def fold(known: dict[str, KnownOrder], entry: JournalEntry) -> KnownOrder | None:
    """Take one entry more into what is known, by name; what is known now of the order that it is about, if of any."""
    name = entry.client_order_id
    if entry.kind == "guarded":
        return _guarded(known, entry)
    knowledge = _KNOWN.get(entry.kind)
    if name is None or knowledge is None:
        return None
    before = known.get(name) or KnownOrder(
        name, entry.decision, entry.account, entry.symbol, entry.data.get("side"), None, knowledge, entry.at
    )
    sent = number(entry.data.get("amount")) if entry.kind in ("sending", "protected") else None
    known[name] = replace(
        before,
        knowledge=knowledge,
        at=entry.at,
        most=before.most if sent is None else max(sent, before.most or sent),
        filled=number(entry.data.get("filled")) if entry.kind == "filled" else None,
        order=entry.data.get("order") or before.order if entry.kind in ("acknowledged", "filled") else before.order,
        guards=entry.data.get("for") if entry.kind == "protected" else before.guards,
        odd=(_odd(entry, name) if entry.kind in _UNKNOWN else None) or before.odd,
    )
    return known[name]


def _guarded(known: dict[str, KnownOrder], entry: JournalEntry) -> KnownOrder | None:
    """The venue's answer about the order that was sent last to take the place of a protective one."""
    instead = [each for each in known.values() if each.guards is not None and each.guards == entry.data.get("for")]
    if not instead:
        return None
    state = entry.data.get("state") or "unknown"
    knowledge = _GUARDS.get(state, "nothing" if state.startswith(("refused", "tried")) else instead[-1].knowledge)
    order = entry.data.get("order") or instead[-1].order
    found = replace(instead[-1], knowledge=knowledge, at=entry.at, order=order)
    known[found.name] = found
    return found


def _odd(entry: JournalEntry, name: str) -> str | None:
    """The state that the venue gave an order, where that is no state: it is in the words of the answer's refusal."""
    _, said, state = (entry.data.get("text") or "").partition(f"order {name} is said to be ")
    return entry.data.get("state") or (state if said else None)


def folded(journal: Iterable[JournalEntry]) -> dict[str, KnownOrder]:
    """Every order that the entries, in sequence, name."""
    found: dict[str, KnownOrder] = {}
    for entry in journal:
        fold(found, entry)
    return found


def doubts(account: AccountSnapshot, read_by: datetime, known: Lookup, filled: Mapping[str, Decimal]) -> list[Doubt]:
    """What an account's reading, ended at `read_by`, shows of our orders that does not agree with the journal.

    `known` finds what the journal has of a name. `filled`: by name, the contracts of all fills that were ever seen.
    An account that could not be read well shows nothing.
    """
    if account.quality != "ok":
        return []
    found: list[Doubt] = []
    for order in account.orders or ():
        if order.client_order_id is not None and is_ours(order.client_order_id):
            name = order.client_order_id
            found += _of_order(account.account, order, name, known(name), read_by)
    for name, amount in filled.items():
        found += _of_fills(account.account, name, amount, known(name), read_by)
    return found


def fills_of_ours(account: AccountSnapshot, names: Mapping[str, str]) -> Iterator[tuple[str, Fill]]:
    """The fills of our orders in a reading, by our name. `names`: venue's order id → our name, as far as known."""
    for fill in account.fills or () if account.quality == "ok" else ():
        name = fill.order if is_ours(fill.order) else names.get(fill.order or "")
        if name is not None:
            yield name, fill


def _of_order(account: str, order: Order, name: str, known: KnownOrder | None, read_by: datetime) -> Iterator[Doubt]:
    said = f"order {name} of ours ({order.side} {order.symbol} on account {account})"
    if known is None:
        yield Doubt(name, "unknown", f"{said} rests at the venue, and the journal does not know it: {_WHO}")
        return
    if _lasts(known, read_by) and known.knowledge != "sent":
        text = f"{said} is still open at the venue, and by the journal it {_WORDS[known.knowledge]}: {_look(known)}"
        yield Doubt(name, "open", text)
    if (order.symbol, order.side) != (known.symbol or order.symbol, known.side or order.side):
        text = f"{said} was sent as {known.side} {known.symbol}: {_look(known)}"
        yield Doubt(name, "other", text)
    elif known.most is not None and order.amount > known.most:
        text = f"{said} is of {order.amount:f} contracts, and {known.most:f} were sent: {_look(known)}"
        yield Doubt(name, "amount", text)


def _of_fills(account: str, name: str, amount: Decimal, known: KnownOrder | None, read_by: datetime) -> Iterator[Doubt]:
    said = f"order {name} of ours on account {account}"
    if known is None:
        yield Doubt(name, "unknown", f"{said} was filled, and the journal does not know it: {_WHO}")
    elif known.knowledge in ("nothing", "abandoned") and _lasts(known, read_by):
        text = f"{said} was filled, and by the journal it {_WORDS[known.knowledge]}: {_look(known)}"
        yield Doubt(name, "filled", text)
    elif known.knowledge == "final" and _lasts(known, read_by) and known.filled is not None and amount > known.filled:
        text = f"{said} was filled beyond the {known.filled:f} with which it had ended: {_look(known)}"
        yield Doubt(name, "more", text)


def of_state(known: KnownOrder) -> Doubt | None:
    """The venue spoke of a state of our order that this program does not know."""
    if known.odd is None:
        return None
    said = f"order {known.name} of ours on {known.symbol} on account {known.account}"
    return Doubt(known.name, "state", f"{said} is in a state that we do not know, {known.odd}: {_look(known)}")


def lasts_from(known: KnownOrder) -> datetime:
    """From when on the venue should show the order as the journal has it."""
    return known.at + timedelta(seconds=LAG)


def _lasts(known: KnownOrder, read_by: datetime) -> bool:
    return read_by >= lasts_from(known)


_WHO = "another store, or another hand, uses our names; look at the venue"


def _look(known: KnownOrder) -> str:
    return f"look at the venue, and at ksctl explain {known.decision}"
