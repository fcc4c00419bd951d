"""The hedge that `neutralise` may open: of the net that no reduction removes, in one named instrument, up to a bound.

It is an order of ours like a hedge of a position that cannot be closed: neither a stage nor a reset ends it, but an
operator. Its position counts in the next net, also where its account is outside of the scope, so that it is opened only
once.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from msgspec import Struct

from killswitch.graph.actions.kind import of_node
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import OpenedHedge, PolicySet
from killswitch.graph.unwinding import UnwindingRule
from killswitch.model.decision import Intent
from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot, Instrument, OrderSide, Side, WrittenLock
from killswitch.planning.rounding import NOT_OPENING, opening_parts
from killswitch.planning.spot_routes import base_of, quote_of
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import ScopeView
from killswitch.valuation.trust import reason_untrusted


class NetHedge(Struct, frozen=True):
    """The orders that open a hedge, and its text. `mark` and the bound that applied, `by`; `units` of its base asset,
    negative for a short, and the `value` of them, in the scope's currency."""

    orders: tuple[Intent, ...]
    text: str
    mark: Decimal
    units: Decimal
    value: Decimal
    by: str


class NotOpened(Struct, frozen=True):
    """Why no hedge is opened. `is_unknown`: something is unknown, so that it might be possible."""

    why: str
    is_unknown: bool


class NetToHedge(Struct, frozen=True):
    """What reductions leave: the weighted net in the scope's currency, above 0 for long, and the weight of the
    instrument's base asset in it, None if it is unknown."""

    net: Decimal
    weight: Decimal | None


class _CannotError(Exception):
    """Nothing can be opened; the message gives the reason."""


class _UnknownError(_CannotError):
    """Nothing is opened, because something is unknown; the message gives the reason."""


def net_hedge(
    opened: OpenedHedge, rest: NetToHedge, view: ScopeView, policies: PolicySet, rule: UnwindingRule
) -> NetHedge | NotOpened:
    """The hedge of the net: the smallest of the net, what is left of the bound, and what free margin carries.

    Returns why nothing is opened, if so.
    """
    try:
        account, instrument, price = _usable(opened, view, policies)
        return _sized(opened, rest, view, rule, (account, instrument, price))
    except _CannotError as cannot:
        why = f"{opened.instrument} on {opened.account} is not opened: {cannot}"
        return NotOpened(why, isinstance(cannot, _UnknownError))


def _usable(opened: OpenedHedge, view: ScopeView, policies: PolicySet) -> tuple[AccountSnapshot, Instrument, Decimal]:
    """The account, the rules and the price of the instrument, if it can be opened now."""
    account = view.at_venue(opened.account)
    if account is None:
        raise _UnknownError("the account is not in the snapshot")
    untrusted = reason_untrusted(account, view.as_of, view.stale_after)
    if untrusted is not None:
        raise _UnknownError(untrusted)
    instrument = view.instrument(opened.account, opened.instrument)
    if instrument is None or instrument.contract_size is None or instrument.amount_step is None:
        raise _UnknownError("the venue's rules for it are unknown")
    if instrument.state in NOT_OPENING:
        raise _CannotError(f"it is {instrument.state} at the venue")
    if instrument.inverse or quote_of(opened.instrument) not in (None, account.currency):
        raise _CannotError(f"nothing converts between it and {account.currency}")
    if opened.currency not in (None, account.currency):
        raise _CannotError(f"its bound is in {opened.currency}, and nothing converts that to {account.currency}")
    tick = view.tick
    if tick is not None and any(is_locked_for_all(each, opened.account, policies) for each in tick.locks):
        raise _CannotError("the account is locked for every order")
    own = () if tick is None else tick.own_orders or ()
    if any((each.account, each.symbol) == (opened.account, opened.instrument) for each in own):
        raise _CannotError("an order of ours in it is in flight")
    price = _price(account, opened.instrument)
    if price is None:
        raise _UnknownError("its price is unknown")
    return account, instrument, price


def is_locked_for_all(lock: WrittenLock, account: str, policies: PolicySet) -> bool:
    """Whether a written lock forbids every order on the account, or may do so: the file of one by hand has its mode."""
    if account not in lock.accounts:
        return False
    stages = (
        stage for graph in policies.graphs if graph.policy == lock.policy
        for stage in graph.stages if stage.name == lock.stage
    )  # fmt: skip
    stage = next(stages, None)
    if stage is None:
        return not lock.only or any(part.mode == "all" for part in lock.only)
    return any(each.mode == "all" for each in of_node(stage.actions, LockTrading))


def _price(account: AccountSnapshot, symbol: str) -> Decimal | None:
    held = [row.mark_price for row in account.positions or () if row.symbol == symbol]
    watched = [row.mark_price for row in account.watched or () if row.symbol == symbol]
    return next((mark for mark in (*held, *watched) if mark is not None and sane(mark) and mark > ZERO), None)


def _sized(
    opened: OpenedHedge,
    rest: NetToHedge,
    view: ScopeView,
    rule: UnwindingRule,
    market: tuple[AccountSnapshot, Instrument, Decimal],
) -> NetHedge:
    account, instrument, price = market
    rate = view.conversion(account.currency).rate
    if not rate or rest.weight is None:
        why = f"beta of {base_of(opened.instrument)}" if rate else f"price of {account.currency}"
        raise _UnknownError(f"the {why} is unknown")
    if not rest.weight:
        raise _CannotError(f"the beta of {base_of(opened.instrument)} counts as 0")
    side: Side = "short" if rest.net * rest.weight > ZERO else "long"
    if side == "short" and account.market in ("spot", "equity"):
        raise _CannotError(f"nothing can be sold short on a {account.market} account")
    if account.free is None:
        raise _UnknownError("the free margin of the account is unknown")
    size = instrument.contract_size or ZERO
    held = _held(account, opened.instrument, side) * size * price
    wanted = abs(rest.net / rest.weight) / rate
    bounds = {
        "the net": wanted,
        "its bound": max(ZERO, opened.at_most - held),
        "the free margin": max(ZERO, account.free),
    }
    bound = min(bounds, key=lambda name: bounds[name])
    parts = opening_parts(bounds[bound] / (size * price), size * price, instrument)
    if not parts:
        raise _CannotError(f"{bounds[bound]:.2f} {account.currency} ({bound}) is less than it trades")
    order: OrderSide = "buy" if side == "long" else "sell"
    band = rule.bound(opened.instrument, base_of(opened.instrument))
    amount = sum(parts, ZERO)
    text = (
        f"{order} {amount} {opened.instrument} on {opened.account} ({amount * size * price:.2f} of {wanted:.2f} "
        f"{account.currency} at {price}, bounded by {bound}), which `ksctl close --scope account/{opened.account}` ends"
    )
    units = amount * size * (1 if side == "long" else -1)
    intents = tuple(_intents(opened, side, order, parts, band))
    return NetHedge(intents, text, price, units, amount * size * price * rate, bound)


def _held(account: AccountSnapshot, symbol: str, side: Side) -> Decimal:
    """The contracts that the account holds of the instrument on this side already."""
    rows = (row for row in account.positions or () if (row.symbol, row.side) == (symbol, side))
    return sum((row.contracts for row in rows), ZERO)


def _intents(
    opened: OpenedHedge, side: Side, order: OrderSide, parts: Iterable[Decimal], band: Decimal | None
) -> Iterable[Intent]:
    for part in parts:
        yield Intent(
            account=opened.account, symbol=opened.instrument, position_side=side, side=order, contracts=part,
            target=ZERO, reduce_only=False, rank=1, band=band, purpose="hedge",
        )  # fmt: skip
