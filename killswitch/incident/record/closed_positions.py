"""What happened to every position that was to be reduced: by these orders, by other decisions, by others.

A close that a killed process began continues in the next one, beside what a person or a policy decides there. Each
decision has its own journal, so the orders of one are not those of the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from decimal import Decimal

from msgspec import Struct, field
from msgspec.structs import replace

from killswitch.incident.record.decision_basis import place_of
from killswitch.incident.record.order_outcomes import OrderOutcome, order_outcomes
from killswitch.journal.codec import decode_all
from killswitch.journal.entries import Entry, Finished, Place, PlannedWork, Verified, known
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Instrument, Snapshot
from killswitch.model.store import Store
from killswitch.planning.spot_routes import asset_paid_by, base_of

DecidedOrders = tuple[Decision, Sequence[Entry], Sequence[OrderOutcome], Snapshot | None]
"""A decision, its journal in sequence, its orders, and the snapshot that it was decided on."""


class ClosedPosition(Struct, frozen=True):
    """One position in contracts; null where unknown.

    `start` is the position at the decision, `filled` what our orders closed, `left` what the venue showed last.
    `other_decisions` is what orders of other decisions closed in the same time. `others` is what was closed without an
    order of any decision (start − filled − other_decisions − left): liquidation, ADL, a person at the venue, a
    whole-book request; below 0, the position has grown. `others` is also null where an order of ours may have filled
    after the venue had reported no such order, and where a sale of ours was paid out in the asset. `dust` says that
    `left` is below the venue's minimum. `worth` is the value of `left` at the decision's mark, in the account's
    currency.
    """

    account: str
    symbol: str
    side: str | None
    start: Decimal
    target: Decimal
    filled: Decimal | None
    left: Decimal | None
    others: Decimal | None
    seen_at: datetime | None
    dust: bool | None
    worth: Decimal | None
    other_decisions: Decimal | None = Decimal(0)

    @property
    def place(self) -> Place:
        """Account, symbol and side."""
        return (self.account, self.symbol, self.side)


class _PositionFacts(Struct):
    """What is gathered about one position over all decisions."""

    start: Decimal
    target: Decimal
    value: Decimal | None = None
    seen: Verified | None = None
    orders: list[OrderOutcome] = field(default_factory=list)
    rules: Instrument | None = None
    is_exempt: bool = True
    """Whether its orders are reduce-only: venues exempt those from the minimum notional."""
    reason: str = ""
    is_fed: bool = False
    """Whether a sale of ours pays out into it or a hop sells of it: then what others did cannot be separated."""


def closed_positions(decided: Iterable[DecidedOrders]) -> tuple[ClosedPosition, ...]:
    """Return every position that was planned to be reduced, over all decisions in their order."""
    facts: dict[Place, _PositionFacts] = {}
    for decision, journal, orders, snapshot in decided:
        # Each with whether its orders are reduce-only. Positions that a hop or a hedge passes through have no target.
        ours = {place_of(each): each.reduce_only for each in decision.intents if each.purpose == "reduce"}
        rules, reasons = _rules(snapshot), _reasons(journal)
        for entry in journal:
            _apply_entry(facts, entry, ours)
        for order in orders:
            found = facts.get(order.place)
            if order.purpose == "reduce" and found is not None:
                found.orders.append(order)
        hops = {place_of(each) for each in decision.intents if each.purpose == "hop"}
        paid = {(each.account, asset_paid_by(each)) for each in decision.intents}
        for key, found in facts.items():
            found.is_fed |= key in hops or (key[0], base_of(key[1] or "")) in paid
            found.is_exempt &= ours.get(key, True)
            found.rules = rules.get(key[:2]) or found.rules
            found.reason = reasons.get(key[0]) or found.reason
    return tuple(_position(key, found) for key, found in facts.items())


def closed_by_request(positions: Iterable[ClosedPosition], accounts: Sequence[str]) -> tuple[ClosedPosition, ...]:
    """Return the positions that whole-book requests on `accounts` closed, as far as our orders did not."""
    return tuple(it for it in positions if it.account in accounts and it.left != it.start and it.others != 0)


def _apply_entry(facts: dict[Place, _PositionFacts], entry: Entry, ours: Collection[Place]) -> None:
    key = entry.place
    if isinstance(entry, PlannedWork) and key in ours:
        contracts, target = known(entry.contracts), known(entry.target)
        if target is None:
            return
        start = target + (contracts or Decimal(0))
        found = facts.setdefault(key, _PositionFacts(start, start))
        found.target = min(found.target, target)
        found.value = found.value or known(entry.value)
    elif isinstance(entry, Verified) and key in facts:
        shown = facts[key].seen
        if shown is None or entry.sequence >= shown.sequence:
            facts[key].seen = entry


def _position(key: Place, facts: _PositionFacts) -> ClosedPosition:
    account, symbol, side = key
    filled = _filled(facts.orders)
    left = None if facts.seen is None else known(facts.seen.position)
    left_value = None if left is None or facts.value is None else left * facts.value
    others = None
    if filled is not None and left is not None and not facts.is_fed and not _is_answered_later(facts):
        others = facts.start - filled - left
        if others > 0 and any(order.is_absent for order in facts.orders):
            others = None  # the request may still have been in flight when the venue was queried
    return ClosedPosition(
        account=account or "",
        symbol=symbol or "",
        side=side,
        start=facts.start,
        target=facts.target,
        filled=filled,
        left=left,
        others=others,
        seen_at=None if facts.seen is None else facts.seen.at,
        dust=_dust(symbol or "", left, left_value, facts),
        worth=left_value,
    )


def _filled(orders: Sequence[OrderOutcome]) -> Decimal | None:
    """Return what the orders filled; None while the status of one or its fill is unknown."""
    if any(order.fate != "final" or (order.filled is None and not order.did_nothing) for order in orders):
        return None
    return sum((order.filled or Decimal(0) for order in orders), Decimal(0))


def _is_answered_later(facts: _PositionFacts) -> bool:
    """Whether an order was answered after the position was last seen, which then does not include its effect."""
    seen = None if facts.seen is None else facts.seen.at
    return seen is not None and any(order.filled and (order.answered_at or seen) > seen for order in facts.orders)


def _rules(snapshot: Snapshot | None) -> dict[tuple[str | None, str | None], Instrument]:
    """Return the instruments of the snapshot by account and symbol."""
    return {
        (account.account, instrument.symbol): instrument
        for account in (() if snapshot is None else snapshot.accounts)
        for instrument in account.instruments or ()
    }


def _reasons(journal: Sequence[Entry]) -> dict[str | None, str]:
    """Return why the work on each account ended."""
    found: dict[str | None, list[str]] = {}
    for entry in journal:
        if isinstance(entry, Finished):
            found.setdefault(entry.account, []).append(entry.reason or "")
    return {account: "; ".join(reasons) for account, reasons in found.items()}


def _dust(symbol: str, left: Decimal | None, value: Decimal | None, facts: _PositionFacts) -> bool | None:
    """Decide by the venue's minimums where they are known, otherwise by the reason with which the close ended."""
    if left is None:
        return None
    if left == 0:
        return False
    rules = facts.rules
    minimum = None if rules is None else rules.min_amount or rules.amount_step
    least = None if rules is None or facts.is_exempt else rules.min_notional
    if minimum is not None and left < minimum:
        return True
    if least is not None and value is not None and value < least:
        return True
    if f" {symbol} is below the venue's minimum" in facts.reason:
        return True
    return None if minimum is None or (least is not None and value is None) else False


MOST_DECISIONS = 200
"""The number of newest decisions that are searched for others on the same positions."""


def credit_own_decisions(
    store: Store, positions: tuple[ClosedPosition, ...], since: datetime, own: Collection[str]
) -> tuple[ClosedPosition, ...]:
    """Split `others` into what orders of other decisions closed and what no order of Killswitch closed.

    `own` are the decisions that the positions belong to, `since` is when the first was made. Both parts are unknown
    where the status of an order is. The store is read only where something was closed without an order of `own`.
    """
    gaps = {each.place for each in positions if each.others is not None and each.others > 0}
    if not gaps:
        return positions
    lines = _orders_of_other_decisions(store, gaps, since, own)
    return tuple(_credited(each, lines.get(each.place, [])) if each.others else each for each in positions)


def _orders_of_other_decisions(
    store: Store, keys: Collection[Place], since: datetime, own: Collection[str]
) -> dict[Place, list[OrderOutcome]]:
    """Return the orders of other decisions on these positions that may have filled after `since`."""
    found: dict[Place, list[OrderOutcome]] = {}
    for stored in store.decisions(MOST_DECISIONS):
        decision = stored.decision
        if decision.id in own or not any(place_of(each) in keys for each in decision.intents):
            continue
        for line in order_outcomes(decision, decode_all(store.journal(decision.id)), None):
            key = line.place
            is_over = line.fate == "final" and line.answered_at is not None and line.answered_at < since
            if key in keys and line.purpose == "reduce" and not is_over and not line.did_nothing:
                found.setdefault(key, []).append(line)
    return found


def _credited(position: ClosedPosition, lines: list[OrderOutcome]) -> ClosedPosition:
    others, seen_at = position.others, position.seen_at
    lines = [line for line in lines if seen_at is None or line.sent_at <= seen_at]
    if others is None or others <= 0 or not lines:
        return position
    if any(line.fate != "final" or line.filled is None for line in lines):
        return replace(position, others=None, other_decisions=None)
    ours = min(others, sum((line.filled or Decimal(0) for line in lines), Decimal(0)))
    return replace(position, others=others - ours, other_decisions=ours)
