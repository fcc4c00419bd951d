"""The UTC day of an account's limits: orders that traded, net loss, and fees at their worst where they are unknown.

The day turns when the clock of the run and the venue's time are both past midnight, so that a clock that jumps ahead
refills no budget. It begins with the first snapshot of the day that the run reads; a run that is started again on the
same day goes on with the counters that its predecessor wrote.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal

from msgspec.structs import replace

from killswitch.graph.limits import LimitsRule
from killswitch.limits.view import DayState
from killswitch.model.snapshot import UNIT_FLOWS, AccountSnapshot, Fill, Flow
from killswitch.valuation.position_measures import ZERO, Instruments, contract_value, is_inverse, price_of


def next_day(
    before: DayState | None, account: AccountSnapshot, rules: Instruments, limits: LimitsRule, as_of: datetime
) -> DayState | None:
    """The day after a further snapshot; None while no day has begun, because equity or the venue's time is unknown.

    `account.fills` and `account.flows` are the rows since the last snapshot. Where they are unknown, trades, fees and
    loss are unknown until they are read again, because a later read has them all.
    """
    if before is None or _has_turned(before, account, as_of):
        begun = _begun(account, as_of)
        if begun is None:
            return None if before is None else before
        before = begun
    rate = None if limits.day is None else limits.day.fee_rate
    orders = tuple(dict.fromkeys((*before.orders, *_orders(account.fills or (), before.turned_at))))
    paid = before.fees_paid
    for fill in account.fills or ():
        fee = _fee(fill, account, rules, rate) if fill.at >= before.turned_at else ZERO
        paid = None if paid is None or fee is None else paid + fee
    moved = before.moved
    for flow in account.flows or ():
        amount = _moved(flow, account) if flow.at >= before.turned_at else ZERO
        moved = None if moved is None or amount is None else moved + amount
    return _with_numbers(replace(before, orders=orders, fees_paid=paid, moved=moved), account)


def _with_numbers(state: DayState, account: AccountSnapshot) -> DayState:
    """The numbers that limits are compared with, each unknown while what it needs is."""
    why = None
    if account.equity is None or account.quality != "ok":
        why = "the equity is unknown"
    elif account.flows is None or state.moved is None:
        why = "deposits and withdrawals are unknown"
    loss = None
    if why is None and state.began_with is not None and state.moved is not None and account.equity is not None:
        loss = state.began_with + state.moved - account.equity
    known = account.fills is not None
    return replace(
        state,
        loss=loss,
        why=why,
        trades=len(state.orders) if known else None,
        fees=state.fees_paid if known else None,
    )


def _has_turned(state: DayState, account: AccountSnapshot, as_of: datetime) -> bool:
    """Whether both clocks are past the end of the state's day."""
    day, venue = date.fromisoformat(state.day), _venue_time(account)
    return as_of.date() > day and venue is not None and venue.date() > day


def _begun(account: AccountSnapshot, as_of: datetime) -> DayState | None:
    venue = _venue_time(account)
    if venue is None or account.equity is None or account.quality != "ok":
        return None
    day = min(as_of.date(), venue.date())
    return DayState(day.isoformat(), as_of, began_with=account.equity, moved=ZERO, fees_paid=ZERO)


def _venue_time(account: AccountSnapshot) -> datetime | None:
    return account.wallet_as_of or account.positions_as_of


def _orders(fills: Iterable[Fill], since: datetime) -> Iterable[str]:
    """The orders that have traded, each by the name that all of its fills share."""
    for fill in fills:
        if fill.at >= since and fill.cause == "trade":
            yield fill.order or fill.client_order_id or fill.id


def _fee(fill: Fill, account: AccountSnapshot, rules: Instruments, rate: Decimal | None) -> Decimal | None:
    """The fee of a fill in the account's currency; at the worst rate if it is unknown; None if that is unknown too."""
    if fill.fee is not None:
        if fill.fee_currency in (None, account.currency):
            return max(fill.fee, ZERO)
        price = price_of(fill.fee_currency or "", account)
        if price is not None:
            return max(fill.fee * price, ZERO)
    rule = rules.get((account.account, fill.symbol))
    face = contract_value(account, fill.symbol, rule)
    if rate is None or face is None or fill.price <= ZERO:
        return None
    each = face / fill.price if is_inverse(fill.symbol, rule) else face * fill.price
    return rate * fill.amount * each


def _moved(flow: Flow, account: AccountSnapshot) -> Decimal | None:
    """What a flow moved in or out, in the account's currency; None if its currency has no known price."""
    if flow.kind not in UNIT_FLOWS:
        return ZERO
    if flow.currency == account.currency:
        return flow.amount
    price = price_of(flow.currency, account)
    return None if price is None else flow.amount * price
