"""The limits of an entry, one function each, in the order in which the gate names the first that denies.

A check returns why the limit is broken, what is missing to know it, NOT_SET where the account does not declare it, or
None where it holds. Where it cannot be known, it denies.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from msgspec import Struct

from killswitch.graph.limits import LimitsRule
from killswitch.limits.book import Contract, GateBook, SizeCaps
from killswitch.limits.exposure import Worst
from killswitch.limits.question import Reason, UnknownLimit
from killswitch.limits.recovery import positions_beyond
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import Instrument, Order
from killswitch.render.formats import money

ZERO: Final = Decimal(0)
ONE_MINUTE: Final = timedelta(seconds=60)


class NotKnown(Struct, frozen=True):
    """What is not known, so that the limit denies."""

    what: str


class NotSet(Struct, frozen=True):
    """The account does not declare the limit."""


NOT_SET: Final = NotSet()
Found = str | NotKnown | NotSet | None


class EntryCase(Struct, frozen=True):
    """One entry with everything that its limits are computed from.

    `order` is in contracts. `worst`: the account at worst with it. `pending`: orders that were allowed and may still
    trade. `sent`: the orders allowed in the last minute; None: the gate has not run for a minute.
    """

    book: GateBook
    limits: LimitsRule
    contract: Contract
    order: Order
    worst: Worst
    now: datetime
    sent: int | None
    pending: int
    reserved_margin: Decimal


class CheckedLimits(Struct, frozen=True):
    """The outcome of all limits of one entry."""

    checked: tuple[Reason, ...]
    broken: tuple[tuple[Reason, str], ...]
    unknown: tuple[UnknownLimit, ...]
    not_configured: tuple[Reason, ...]

    @property
    def denials(self) -> tuple[tuple[Reason, str], ...]:
        """Every limit that denies, in the order of the checks, and why."""
        if not self.broken and not self.unknown:
            return ()
        found = dict(self.broken) | {each.limit: f"not known: {each.missing}" for each in self.unknown}
        return tuple((name, found[name]) for name, _ in CHECKS if name in found)


def check_limits(case: EntryCase) -> CheckedLimits:
    """All limits of the entry."""
    checked: list[Reason] = []
    broken: list[tuple[Reason, str]] = []
    unknown: list[UnknownLimit] = []
    unset: list[Reason] = []
    for name, check in CHECKS:
        found = check(case)
        if found is None:
            checked.append(name)
        elif isinstance(found, str):
            checked.append(name)
            broken.append((name, found))
        elif found is NOT_SET:
            unset.append(name)
        elif isinstance(found, NotKnown):
            unknown.append(UnknownLimit(name, found.what))
    return CheckedLimits(tuple(checked), tuple(broken), tuple(unknown), tuple(unset))


def _banned(case: EntryCase) -> Found:
    banned = case.limits.banned
    if banned is None:
        return NOT_SET
    if case.order.symbol in banned or case.contract.base in banned:
        return f"{case.order.symbol} must not be opened"
    return None


def _session(case: EntryCase) -> Found:
    if not case.limits.sessions:
        return NOT_SET
    now = to_micros(case.now)
    if any(session.is_open(now) for session in case.limits.sessions):
        return None
    return f"outside the session {' and '.join(session.name for session in case.limits.sessions)}"


def _amount_step(case: EntryCase) -> Found:
    rules = case.contract.rules
    if rules is None:
        return NotKnown(f"the venue's rules of {case.order.symbol}")
    step = rules.amount_step
    if step is None or not step:
        return NOT_SET
    if case.order.amount % step:
        return f"{case.order.amount:f} contracts are no multiple of the venue's step of {step:f}"
    return None


def _minimum(case: EntryCase) -> Found:
    rules, order = case.contract.rules, case.order
    if rules is None:
        return NotKnown(f"the venue's rules of {order.symbol}")
    if rules.min_amount is None and rules.min_notional is None:
        return NOT_SET
    if rules.min_amount is not None and order.amount < rules.min_amount:
        return f"{order.amount:f} contracts are below the venue's minimum of {rules.min_amount:f}"
    return _least_notional(case, rules)


def _least_notional(case: EntryCase, rules: Instrument) -> Found:
    if rules.min_notional is None or rules.contract_size is None:
        return None
    order = case.order
    price = order.price or case.contract.mark
    if price is None:
        return NotKnown(f"a mark of {order.symbol}")
    value = order.amount * rules.contract_size * (1 if case.contract.inverse else price)
    if value < rules.min_notional:
        return f"a value of {value:f} is below the venue's minimum of {rules.min_notional:f}"
    return None


def _price_band(case: EntryCase) -> Found:
    band = case.book.band(case.order.symbol)
    if band is None:
        return NOT_SET
    price, mark = case.order.price, case.contract.mark
    if price is None:
        return None
    if not mark:
        return NotKnown(f"a mark of {case.order.symbol}")
    if abs(price - mark) > band * mark:
        return f"the price {price:f} is more than {band:%} from the mark {mark:f}"
    return None


def _capped(case: EntryCase, caps: SizeCaps, contracts: Decimal, value: Decimal | None, what: str) -> Found:
    """Whether so many contracts of this value keep to the limits on their size."""
    if not caps.is_any:
        return NOT_SET
    if caps.needs_equity or (caps.value is not None and value is None):
        what = f"the value of {case.order.symbol}: its mark, its contract size or a rate"
        return NotKnown("the account's equity" if caps.needs_equity else what)
    if caps.value is not None and value is not None and value > caps.value:
        return f"{what} of {_money(value, case)} is above the limit of {_money(caps.value, case)}"
    if caps.base_units is None:
        return None
    units = case.contract.base_units
    if units is not None and contracts * units > caps.base_units:
        return f"{what} of {contracts * units:f} {case.contract.base} is above the limit of {caps.base_units:f}"
    return NotKnown(f"the contract size of {case.order.symbol}") if units is None else None


def _order_size(case: EntryCase) -> Found:
    caps = case.book.caps(case.order.symbol, of_position=False)
    return _capped(case, caps, case.order.amount, case.worst.order_value, "an order")


def _position_size(case: EntryCase) -> Found:
    caps = case.book.caps(case.order.symbol, of_position=True)
    return _capped(case, caps, case.worst.contracts, case.worst.value, "a position at worst")


def _gross(case: EntryCase) -> Found:
    if case.limits.gross is None:
        return NOT_SET
    most, gross = case.book.money(case.limits.gross), case.worst.gross
    if most is None:
        return NotKnown("the account's equity")
    if gross is None:
        return NotKnown(case.worst.gross_missing)
    if gross > most:
        return f"a gross at worst of {_money(gross, case)} is above the limit of {_money(most, case)}"
    return None


def _leverage(case: EntryCase) -> Found:
    most, equity, gross = case.limits.leverage, case.book.account.state.equity, case.worst.gross
    if most is None:
        return NOT_SET
    if equity is None:
        return NotKnown("the account's equity")
    if gross is None:
        return NotKnown(case.worst.gross_missing)
    if equity <= ZERO:
        return f"the equity is {_money(equity, case)}, so that any leverage is infinite"
    if gross > most * equity:
        return f"a leverage at worst of {gross / equity:.2f} is above the limit of {most:f}"
    return None


def _concentration(case: EntryCase) -> Found:
    if case.limits.concentration is None:
        return NOT_SET
    most, total = case.book.money(case.limits.concentration), case.worst.of_base
    if most is None:
        return NotKnown("the account's equity")
    if total is None:
        return NotKnown(f"the value of every position in {case.contract.base}")
    if total > most:
        text = f"{_money(total, case)} at worst in {case.contract.base}"
        return f"{text} is above the limit of {_money(most, case)}"
    return None


def _free_margin(case: EntryCase) -> Found:
    if case.limits.free_margin is None:
        return NOT_SET
    least, needed = case.book.money(case.limits.free_margin), case.worst.margin
    if least is None:
        return NotKnown("the account's equity")
    if needed is None:
        return NotKnown(f"the value of {case.order.symbol}: its mark, its contract size or a rate")
    free = case.book.account.state.free or ZERO  # a missing balance is zero, never unlimited
    left = free - case.reserved_margin - needed
    if left < least:
        return f"{_money(left, case)} of free margin would be left, and the limit is {_money(least, case)}"
    return None


def _day_loss(case: EntryCase) -> Found:
    limit = None if case.limits.day is None else case.limits.day.loss
    if limit is None:
        return NOT_SET
    day = case.book.account.day
    if day is None or day.loss is None:
        return NotKnown(f"the loss of the day: {'no day has begun' if day is None else day.why or 'unknown'}")
    if limit.unit == "percent" and day.began_with is None:
        return NotKnown("the equity at the beginning of the day")
    most = limit.value if limit.unit == "money" else limit.value * max(day.began_with or ZERO, ZERO)
    if day.loss >= most:
        return f"the day's loss of {_money(day.loss, case)} has reached the limit of {_money(most, case)}"
    return None


def _day_trades(case: EntryCase) -> Found:
    most = None if case.limits.day is None else case.limits.day.trades
    if most is None:
        return NOT_SET
    day = case.book.account.day
    if day is None or day.trades is None:
        return NotKnown("the number of the day's trades")
    if day.trades + case.pending + 1 > most:
        return f"{day.trades} orders have traded today, {case.pending} more may, and the limit is {most}"
    return None


def _day_fees(case: EntryCase) -> Found:
    day_rule = case.limits.day
    if day_rule is None or day_rule.fees is None or day_rule.fee_rate is None:
        return NOT_SET
    day, value = case.book.account.day, case.worst.entering_value
    if day is None or day.fees is None:
        return NotKnown("the fees of the day")
    if value is None:
        return NotKnown(f"the value of {case.order.symbol}: its mark, its contract size or a rate")
    total = day.fees + day_rule.fee_rate * value
    if total > day_rule.fees:
        return f"fees of {_money(total, case)} at worst are above the day's limit of {_money(day_rule.fees, case)}"
    return None


def _orders_per_minute(case: EntryCase) -> Found:
    most = case.limits.orders_per_minute
    if most is None:
        return NOT_SET
    if case.sent is None:
        return NotKnown("the orders of the last minute: the gate has just started")
    if case.sent + 1 > most:
        return f"{case.sent} orders were allowed in the last minute, and the limit is {most}"
    return None


def _latency(case: EntryCase) -> Found:
    if case.limits.latency is None:
        return NOT_SET
    health = case.book.account.state.health
    if health is None or health.latency_ms is None:
        return NotKnown("the venue's answer time")
    if health.latency_ms * 1000 > case.limits.latency:
        return f"the venue answers in {health.latency_ms:.0f} ms, and the limit is {case.limits.latency / 1000:.0f} ms"
    return None


def _spread(case: EntryCase) -> Found:
    most, bid, ask = case.limits.spread, case.contract.bid, case.contract.ask
    if most is None:
        return NOT_SET
    if bid is None or ask is None or bid <= ZERO or ask < bid:
        return NotKnown(f"bid and ask of {case.order.symbol}")
    if (ask - bid) * 2 > most * (ask + bid):
        return f"the spread of {(ask - bid) * 2 / (ask + bid):.3%} is above the limit of {most:%}"
    return None


def _positions(case: EntryCase) -> Found:
    cap = case.book.account.recovery
    if cap is None or cap.positions is None:
        return NOT_SET
    count = positions_beyond(cap, case.worst.opened, case.order.symbol)
    if count is not None:
        return f"{count} positions are above the {cap.positions} that the recovery plan {cap.plan} allows"
    return None


def _money(value: Decimal, case: EntryCase) -> str:
    return money(value, case.book.account.state.currency)


CHECKS: Final[tuple[tuple[Reason, Callable[[EntryCase], Found]], ...]] = (
    ("banned_symbol", _banned),
    ("session", _session),
    ("amount_step", _amount_step),
    ("minimum", _minimum),
    ("price_band", _price_band),
    ("order_size", _order_size),
    ("position_size", _position_size),
    ("gross", _gross),
    ("leverage", _leverage),
    ("concentration", _concentration),
    ("free_margin", _free_margin),
    ("day_loss", _day_loss),
    ("day_trades", _day_trades),
    ("day_fees", _day_fees),
    ("orders_per_minute", _orders_per_minute),
    ("latency", _latency),
    ("spread", _spread),
    ("positions", _positions),
)
"""Every limit, in the documented order."""
