"""Which instrument stands in for a position that cannot be closed, and how much of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal

from killswitch.graph.unwinding import HedgeRule, StandIn, UnwindingRule
from killswitch.model.decision import Intent
from killswitch.model.instant import MINUTE
from killswitch.model.snapshot import AccountSnapshot, Instrument, OrderSide, Side
from killswitch.planning.decide import duration
from killswitch.planning.rounding import SHUT, whole_steps
from killswitch.planning.routes import base_of
from killswitch.planning.stuck import Seen, Stuck
from killswitch.risk.beta import least_squares_beta
from killswitch.signals.marks import MarkKey, Marks
from killswitch.signals.position import ZERO, notional
from killswitch.signals.soundness import sane
from killswitch.signals.view import distrust

SAMPLE = MINUTE
"""Microseconds between two marks that returns are taken of."""

LEAST_RETURNS = 30
"""With fewer returns beta is unknown: half an hour of minutes."""

NOT_OPENING = (*SHUT, "reduce_only")
"""States in which a market takes no order that opens a position."""


@dataclass(frozen=True, slots=True)
class World(Seen):
    """What sizing looks at besides: sampled marks, and accounts on which something is being closed.

    What is opened on a busy account would be closed with the rest, or locked out.
    """

    marks: Marks
    busy: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Sized:
    """A hedge: its orders, and in words what it is."""

    intents: tuple[Intent, ...]
    text: str


class _CannotError(Exception):
    """An instrument cannot stand in; the message says why."""


def size(stuck: Stuck, rule: UnwindingRule, world: World) -> Sized | str:
    """The first instrument that can stand in, and how much of it; or why none can."""
    reasons = []
    for stand_in in rule.hedge.stand_ins:
        try:
            return _sized(stuck, stand_in, rule, world)
        except _CannotError as cannot:
            reasons.append(f"{stand_in.symbol} on {stand_in.account}: {cannot}")
    return "; ".join(reasons)


def _sized(stuck: Stuck, stand_in: StandIn, rule: UnwindingRule, world: World) -> Sized:
    account, instrument = _usable(stuck, stand_in, world)
    worth, price = _worth(stuck, world), _price(stand_in, world)
    beta, source = _beta(stuck, stand_in, rule.hedge, world)
    side = _side(stuck, beta, account)
    wanted = abs(beta) * worth
    allowed = min(wanted, _bound(rule.hedge, account, wanted))
    parts = _parts(allowed, price, instrument)
    if not parts:
        raise _CannotError(f"{_short(allowed)} {account.currency} is less than it trades")
    order: OrderSide = "buy" if side == "long" else "sell"
    of = _short(wanted) if allowed == wanted else f"{_short(allowed)} of {_short(wanted)}"
    where = f"{stand_in.symbol} on {stand_in.account}"
    text = f"{order} {sum(parts, ZERO)} {where} ({of} {account.currency} at {price}, {source})"
    band = rule.bound(stand_in.symbol, base_of(stand_in.symbol))
    return Sized(tuple(_intent(stand_in, side, order, part, band) for part in parts), text)


def _usable(stuck: Stuck, stand_in: StandIn, world: World) -> tuple[AccountSnapshot, Instrument]:
    """The account and the rules of an instrument on which something may be opened now."""
    account = world.accounts.get(stand_in.account)
    if account is None or account.account == stuck.account:
        raise _CannotError("the account is not there" if account is None else "it is the same account")
    doubt = distrust(account, world.now, None)
    if doubt is not None or account.account in world.busy:
        raise _CannotError(doubt or "the account is being closed itself")
    instrument = world.instruments.get((stand_in.account, stand_in.symbol))
    if instrument is None or instrument.contract_size is None or instrument.amount_step is None:
        raise _CannotError("the venue's rules for it are unknown")
    if instrument.state in NOT_OPENING:
        raise _CannotError(f"it is {instrument.state} at the venue")
    if instrument.inverse or account.currency != world.last[stuck.account].currency:
        raise _CannotError("nothing converts between its currency and that of the position")
    return account, instrument


def _side(stuck: Stuck, beta: Decimal, account: AccountSnapshot) -> Side:
    """Against the position; with it where the two move against each other."""
    against: Side = "short" if stuck.position.side == "long" else "long"
    side = against if beta > ZERO else stuck.position.side
    if side == "short" and account.market in ("spot", "equity"):
        raise _CannotError(f"nothing can be sold short on a {account.market} account")
    return side


def _bound(rule: HedgeRule, account: AccountSnapshot, wanted: Decimal) -> Decimal:
    """The most that one hedge may be worth, in the account's currency."""
    if rule.max_notional is None:
        return wanted
    if rule.currency not in (None, account.currency):
        raise _CannotError(f"its bound is in {rule.currency}, and nothing converts that to {account.currency}")
    return rule.max_notional


def _worth(stuck: Stuck, world: World) -> Decimal:
    """What the part that cannot be closed is worth, in its account's currency."""
    rules = world.instruments.get((stuck.account, stuck.position.symbol))
    whole = notional(stuck.position, rules)
    if whole is None or not sane(whole) or not stuck.position.contracts:
        raise _CannotError(f"what {stuck.position.symbol} is worth is unknown")
    return whole * stuck.contracts / stuck.position.contracts


def _price(stand_in: StandIn, world: World) -> Decimal:
    """The mark of the instrument on its own account, else where else the symbol is held, as it was read last."""
    own = _mark(world.accounts.get(stand_in.account), stand_in.symbol)
    others = (_mark(world.last[name], stand_in.symbol) for name in sorted(world.last))
    price = own if own is not None else next((mark for mark in others if mark is not None), None)
    if price is None:
        raise _CannotError("its price is unknown")
    return price


def _mark(account: AccountSnapshot | None, symbol: str) -> Decimal | None:
    rows = () if account is None else account.positions or ()
    found = (p.mark_price for p in rows if p.symbol == symbol and p.mark_price is not None)
    return next((mark for mark in found if sane(mark) and mark > ZERO), None)


def _beta(stuck: Stuck, stand_in: StandIn, rule: HedgeRule, world: World) -> tuple[Decimal, str]:
    """Beta, and how it was come by. An instrument of the same name is the same thing."""
    if stand_in.symbol == stuck.position.symbol:
        return Decimal(1), "the same instrument"
    of: MarkKey = (stuck.account, stuck.position.symbol)
    most: list[list[float]] = [[], []]
    for name in dict.fromkeys((stand_in.account, *sorted(world.last))):
        found = world.marks.returns((of, (name, stand_in.symbol)), world.now, rule.window, SAMPLE)
        most = max(most, found, key=lambda each: len(each[0]))
    count, window = len(most[0]), duration(rule.window)
    if count < LEAST_RETURNS:
        raise _CannotError(f"its beta is unknown: {count} returns of both in {window}, and {LEAST_RETURNS} are needed")
    beta = least_squares_beta(*most)
    if beta is None:
        raise _CannotError(f"its beta is unknown: it has not moved in {window}")
    rounded = Decimal(f"{beta:.4f}")
    return rounded, f"beta {rounded} by {count} returns in {window}"


def _parts(worth: Decimal, price: Decimal, instrument: Instrument) -> list[Decimal]:
    """The hedge in orders of at most the venue's maximum, rounded down; none where it is below the minimum."""
    unit = price * (instrument.contract_size or ZERO)
    step = instrument.amount_step or Decimal(1)
    amount = whole_steps(worth / unit, step)
    least = max(instrument.min_amount or ZERO, (instrument.min_notional or ZERO) / unit)
    most = amount if instrument.max_amount is None else whole_steps(instrument.max_amount, step)
    parts = []
    while amount > ZERO and min(amount, most) >= least and most > ZERO:
        parts.append(min(amount, most))
        amount -= parts[-1]
    return parts


def _intent(stand_in: StandIn, side: Side, order: OrderSide, contracts: Decimal, band: Decimal | None) -> Intent:
    return Intent(
        account=stand_in.account, symbol=stand_in.symbol, position_side=side, side=order, contracts=contracts,
        target=ZERO, reduce_only=False, rank=1, band=band, purpose="hedge",
    )  # fmt: skip


def _short(amount: Decimal) -> str:
    return f"{amount.quantize(Decimal('0.01')):f}"
