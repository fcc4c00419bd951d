"""Proxy hedge: selects the instrument that hedges a position that cannot be closed, and its amount.

Both symbols must be priced in the common currency of both accounts: nothing is converted. An instrument with the
position's own symbol is hedged unit for unit, without a price, because the last price of an unreachable account may be
outdated.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal

from msgspec import Struct

from killswitch.graph.unwinding import HedgeInstrument, HedgeRule, UnwindingRule
from killswitch.model.decision import Intent
from killswitch.model.instant import MINUTE
from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot, Instrument, OrderSide, Side
from killswitch.planning.hedge.uncloseable import TickAccounts, UncloseablePosition
from killswitch.planning.rounding import NOT_OPENING, opening_parts
from killswitch.planning.spot_routes import base_of, quote_of
from killswitch.planning.stage_decision import duration
from killswitch.render.formats import count_of
from killswitch.risk.covariance import Beta, least_squares_beta
from killswitch.signals.history.prices import PriceSamples
from killswitch.signals.history.samples import PriceKey
from killswitch.valuation.position_measures import ZERO, notional
from killswitch.valuation.trust import reason_untrusted

SAMPLE = MINUTE
"""Sampling interval of marks (microseconds)."""

LEAST_RETURNS = 30
"""Minimum number of returns for a known beta: half an hour of minutes."""

SURE = 2.0
"""Distance of beta from zero, in standard errors, that is required to open a hedge."""


class HedgeData(TickAccounts, frozen=True):
    """Data for sizing a hedge: also sampled prices, busy accounts and armed accounts (None: all).

    A hedge on a busy account would be closed with the rest, or refused by its lock.
    """

    prices: PriceSamples
    busy: Collection[str] = ()
    armed: Collection[str] | None = None


class Sized(Struct, frozen=True):
    """A sized hedge: its orders and its text. `why_suggest_only`: why it must not be opened automatically, or None."""

    intents: tuple[Intent, ...]
    text: str
    why_suggest_only: str | None = None


class _Beta(Struct, frozen=True):
    """Beta, its source, and why it must not be acted on, or None."""

    value: Decimal
    source: str
    why_suggest_only: str | None = None


class _CannotError(Exception):
    """An instrument cannot hedge the position; the message gives the reason."""


def size(
    uncloseable: UncloseablePosition, rule: UnwindingRule, data: HedgeData, existing: Sequence[Intent]
) -> Sized | str:
    """Size a hedge with the first instrument that may be opened automatically, else the first usable one.

    Returns the reasons if no instrument is usable.

    `existing`: orders of existing hedges of the position. They count towards the bound.
    """
    reasons = []
    suggestion: Sized | None = None
    for hedge in rule.hedge.instruments:
        try:
            found = _sized(uncloseable, hedge, rule, data, existing)
        except _CannotError as cannot:
            reasons.append(f"{hedge.symbol} on {hedge.account}: {cannot}")
            continue
        if found.why_suggest_only is None:
            return found
        suggestion = suggestion or found
    return suggestion or "; ".join(reasons)


def _sized(
    uncloseable: UncloseablePosition,
    hedge: HedgeInstrument,
    rule: UnwindingRule,
    data: HedgeData,
    existing: Sequence[Intent],
) -> Sized:
    account, instrument = _usable(uncloseable, hedge, data)
    unit = _unit(hedge.account, hedge.symbol, data)
    beta = _beta(uncloseable, hedge, rule.hedge, data)
    side = _side(uncloseable, beta.value, account)
    same = hedge.symbol == uncloseable.position.symbol
    amount = _units(uncloseable, instrument, data) if same else abs(beta.value) * _value(uncloseable, data) / unit
    wanted = amount * unit
    allowed = min(wanted, _bound(rule.hedge, account, wanted, existing, data))
    parts = opening_parts(amount if allowed == wanted else allowed / unit, unit, instrument)
    if not parts:
        raise _CannotError(f"{_short(allowed)} {account.currency} is less than it trades")
    order: OrderSide = "buy" if side == "long" else "sell"
    of = _short(wanted) if allowed == wanted else f"{_short(allowed)} of {_short(wanted)}"
    where = f"{hedge.symbol} on {hedge.account}"
    price = _price(hedge.account, hedge.symbol, data)
    text = f"{order} {sum(parts, ZERO)} {where} ({of} {account.currency} at {price}, {beta.source})"
    band = rule.bound(hedge.symbol, base_of(hedge.symbol))
    orders = tuple(_intent(hedge, side, order, part, band) for part in parts)
    is_armed = data.armed is None or hedge.account in data.armed
    return Sized(orders, text, beta.why_suggest_only if is_armed else f"{hedge.account} is not armed")


def _usable(
    uncloseable: UncloseablePosition, hedge: HedgeInstrument, data: HedgeData
) -> tuple[AccountSnapshot, Instrument]:
    """Account and rules of a hedge instrument that can be opened now."""
    account = data.accounts.get(hedge.account)
    if account is None or account.account == uncloseable.account:
        raise _CannotError("the account is not there" if account is None else "it is the same account")
    why_untrusted = reason_untrusted(account, data.now, None)
    if why_untrusted is not None or account.account in data.busy:
        raise _CannotError(why_untrusted or "the account is being closed itself")
    instrument = data.instruments.get((hedge.account, hedge.symbol))
    if instrument is None or instrument.contract_size is None or instrument.amount_step is None:
        raise _CannotError("the venue's rules for it are unknown")
    if instrument.state in NOT_OPENING:
        raise _CannotError(f"it is {instrument.state} at the venue")
    if instrument.inverse or account.currency != data.last[uncloseable.account].currency:
        raise _CannotError("nothing converts between its currency and that of the position")
    for each in (hedge.symbol, uncloseable.position.symbol):
        if quote_of(each) not in (None, account.currency):
            raise _CannotError(f"{each} is priced in {quote_of(each)}, and nothing converts that to {account.currency}")
    return account, instrument


def _side(uncloseable: UncloseablePosition, beta: Decimal, account: AccountSnapshot) -> Side:
    """Side of the hedge: opposite to the position, or equal to it for a negative beta."""
    against: Side = "short" if uncloseable.position.side == "long" else "long"
    side = against if beta > ZERO else uncloseable.position.side
    if side == "short" and account.market in ("spot", "equity"):
        raise _CannotError(f"nothing can be sold short on a {account.market} account")
    return side


def _bound(
    rule: HedgeRule, account: AccountSnapshot, wanted: Decimal, existing: Sequence[Intent], data: HedgeData
) -> Decimal:
    """Maximum value of this hedge besides existing ones, in the account's currency."""
    if rule.max_notional is None:
        return wanted
    if rule.currency not in (None, account.currency):
        raise _CannotError(f"its bound is in {rule.currency}, and nothing converts that to {account.currency}")
    used = sum((each.contracts * _unit(each.account, each.symbol, data) for each in existing), ZERO)
    if used >= rule.max_notional:
        raise _CannotError(f"existing hedges are already worth {_short(used)}, and {rule.max_notional} is the bound")
    return rule.max_notional - used


def _units(uncloseable: UncloseablePosition, instrument: Instrument, data: HedgeData) -> Decimal:
    """Contracts of the instrument that hold the same quantity of the same asset."""
    rules = data.instruments.get((uncloseable.account, uncloseable.position.symbol))
    if rules is None or rules.contract_size is None or rules.inverse or instrument.contract_size is None:
        raise _CannotError(f"the contract size of {uncloseable.position.symbol} on {uncloseable.account} is unknown")
    return uncloseable.contracts * rules.contract_size / instrument.contract_size


def _value(uncloseable: UncloseablePosition, data: HedgeData) -> Decimal:
    """Value of the part that cannot be closed, in its account's currency."""
    rules = data.instruments.get((uncloseable.account, uncloseable.position.symbol))
    account = data.accounts.get(uncloseable.account) or data.last.get(uncloseable.account)
    value = None if account is None else notional(uncloseable.position, account, rules)
    if value is None or not sane(value) or not uncloseable.position.contracts:
        raise _CannotError(f"the value of {uncloseable.position.symbol} is unknown")
    return value * uncloseable.contracts / uncloseable.position.contracts


def _unit(account: str, symbol: str, data: HedgeData) -> Decimal:
    """Value of one contract in its account's currency."""
    rules = data.instruments.get((account, symbol))
    if rules is None or rules.contract_size is None:
        raise _CannotError(f"the contract size of {symbol} on {account} is unknown")
    return _price(account, symbol, data) * rules.contract_size


def _price(account: str, symbol: str, data: HedgeData) -> Decimal:
    """Mark of the instrument on its own account, else the last known mark of the symbol on another account."""
    own = _mark(data.accounts.get(account), symbol)
    others = (_mark(data.last[name], symbol) for name in sorted(data.last))
    price = own if own is not None else next((mark for mark in others if mark is not None), None)
    if price is None:
        raise _CannotError("its price is unknown")
    return price


def _mark(account: AccountSnapshot | None, symbol: str) -> Decimal | None:
    rows = () if account is None else account.positions or ()
    found = (p.mark_price for p in rows if p.symbol == symbol and p.mark_price is not None)
    return next((mark for mark in found if sane(mark) and mark > ZERO), None)


def _beta(uncloseable: UncloseablePosition, hedge: HedgeInstrument, rule: HedgeRule, data: HedgeData) -> _Beta:
    """Beta of the position against the instrument: 1 for the same symbol, else estimated from returns."""
    if hedge.symbol == uncloseable.position.symbol:
        return _Beta(Decimal(1), "the same instrument")
    of: PriceKey = (uncloseable.account, uncloseable.position.symbol)
    most: list[list[float]] = [[], []]
    for name in dict.fromkeys((hedge.account, *sorted(data.last))):
        found = data.prices.returns((of, (name, hedge.symbol)), data.now, rule.window, SAMPLE)
        most = max(most, found, key=lambda each: len(each[0]))
    count, window = len(most[0]), duration(rule.window)
    if count < LEAST_RETURNS:
        raise _CannotError(
            f"its beta is unknown: {count_of(count, 'return')} of both in {window}, and {LEAST_RETURNS} are needed"
        )
    beta = least_squares_beta(*most)
    if beta is None:
        raise _CannotError(f"its beta is unknown: it has not moved in {window}")
    rounded = Decimal(f"{beta.slope:.4f}")
    return _Beta(rounded, f"beta {rounded} by {count} returns in {window}", _why_suggest_only(beta))


def _why_suggest_only(beta: Beta) -> str | None:
    """Why a hedge with this beta must not be opened automatically: it may be noise, or its sign accidental."""
    if not beta.is_sure(SURE):
        error = "unknown" if beta.error is None else f"{beta.error:.4f}"
        return f"its beta of {beta.slope:.4f} is within {SURE:g} standard errors ({error}) of nothing"
    return None if beta.slope > 0.0 else f"its beta is {beta.slope:.4f}: the two have moved against each other"


def _intent(hedge: HedgeInstrument, side: Side, order: OrderSide, contracts: Decimal, band: Decimal | None) -> Intent:
    return Intent(
        account=hedge.account, symbol=hedge.symbol, position_side=side, side=order, contracts=contracts,
        target=ZERO, reduce_only=False, rank=1, band=band, purpose="hedge",
    )  # fmt: skip


def _short(amount: Decimal) -> str:
    return f"{amount.quantize(Decimal('0.01')):f}"
