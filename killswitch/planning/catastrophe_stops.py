"""Which catastrophe stops belong to a book: one side of each position, far from its entry, at the venue. Pure.

The trigger is computed from the average entry, never from the present mark: a stop that follows the mark is never
reached. It moves only when the quantity or the entry moves, by more than the declared band.

| resting stops of a position                              | what is done                                    |
|----------------------------------------------------------|-------------------------------------------------|
| more than the position                                   | all are cancelled, those of its size are placed |
| at a price that is off by more than band × distance      | the same                                        |
| less than 1 − band of the position                       | what is missing is placed                       |
| of a position that is not there, or of the other side    | cancelled, before anything else is placed       |
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from hashlib import blake2b
from typing import Final, Literal

from msgspec import Struct

from killswitch.graph.nodes import CatastropheStopRule
from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot, Event, Instrument, Order, OrderSide, Position, Side
from killswitch.model.venue import is_catastrophe_stop
from killswitch.planning.rounding import whole_steps
from killswitch.valuation.position_measures import ZERO

StopKey = tuple[str, Side]
"""Symbol and side of a position of one account."""
MOST_PARTS: Final = 5
"""Most orders at one price, beyond those that the venue's largest order needs, before they become one again."""

Direction = Literal["falls", "rises"]
ProblemKind = Literal["unknown", "dust", "beyond-liquidation", "reached", "no-twin"]


class WantedStop(Struct, frozen=True):
    """One conditional order to place; `amount` in contracts, `trigger_price` in quote per base."""

    symbol: str
    position_side: Side
    side: OrderSide
    amount: Decimal
    trigger_price: Decimal
    trigger_when: Direction


class StopProblem(Struct, frozen=True):
    """Why a position has no stop, or not the declared one."""

    kind: ProblemKind
    why: str


class StopLine(Struct, frozen=True):
    """The stops of one position: what rests, what is to be cancelled and then placed.

    `covered`: contracts of the resting stops at `trigger`. `mark`: the price by which the venue may refuse them.
    """

    key: StopKey
    contracts: Decimal
    trigger: Decimal | None = None
    covered: Decimal = ZERO
    to_cancel: tuple[Order, ...] = ()
    to_place: tuple[WantedStop, ...] = ()
    problem: StopProblem | None = None

    @property
    def naked(self) -> Decimal:
        """Contracts without a resting stop."""
        return max(ZERO, self.contracts - self.covered)


class AccountStops(Struct, frozen=True):
    """The stops of one account. `unknown`: why nothing can be decided now; the resting stops remain then.

    `leftovers`: resting stops without a position, or of the other side. `first_marks`: the marks of positions without
    an entry at first sight, which are to be stored.
    """

    account: str
    rule: str
    lines: tuple[StopLine, ...] = ()
    leftovers: tuple[Order, ...] = ()
    first_marks: Mapping[StopKey, Decimal] = {}
    unknown: str | None = None


class StopInputs(Struct, frozen=True):
    """What the stops of one account depend on, besides its snapshot.

    `instruments`: the last known rules by symbol. `first_marks`: stored marks of positions without an entry. `closing`:
    positions that a close works on, whose stops it cancels and restores itself.
    """

    instruments: Mapping[str, Instrument]
    first_marks: Mapping[StopKey, Decimal] = {}
    closing: Collection[StopKey] = ()


class _Level(Struct, frozen=True):
    """One price at which orders of a position rest."""

    trigger: Decimal
    when: Direction
    tolerance: Decimal


def stops_of(
    rule: CatastropheStopRule, name: str, accounts: Mapping[str, AccountSnapshot], inputs: Mapping[str, StopInputs]
) -> AccountStops:
    """The stops of account `name` by a rule. `accounts`: also those of the other legs of its hedges."""
    account = accounts.get(name)
    if account is None or account.quality != "ok" or account.positions is None or account.orders is None:
        why = "it was not polled" if account is None else account.reason or "its positions or orders are unknown"
        return AccountStops(name, rule.name, unknown=why)
    own = inputs[name]
    held = {each.key: each for each in account.positions if sane(each.contracts) and each.contracts > ZERO}
    resting: dict[StopKey, list[Order]] = {}
    for order in account.orders:
        if order.trigger_price is not None and is_catastrophe_stop(order.client_order_id):
            resting.setdefault(protected_by(order), []).append(order)
    fresh = {key: mark for key, position in held.items() if (mark := _first_mark(position, own)) is not None}
    lines = tuple(
        _line(rule, name, position, resting.get(key, ()), accounts, inputs)
        for key, position in held.items()
        if rule.covers(name, position.symbol)
    )
    leftovers = tuple(order for key, orders in resting.items() if key not in held for order in orders)
    return AccountStops(name, rule.name, lines, leftovers, fresh)


def protected_by(order: Order) -> StopKey:
    """The position that a conditional order reduces."""
    return order.symbol, order.position_side or ("long" if order.side == "sell" else "short")


def _line(
    rule: CatastropheStopRule,
    name: str,
    position: Position,
    resting: Sequence[Order],
    accounts: Mapping[str, AccountSnapshot],
    inputs: Mapping[str, StopInputs],
) -> StopLine:
    own = inputs[name]
    contracts, instrument = position.contracts, own.instruments.get(position.symbol)
    levels = _levels(rule, name, position, accounts, inputs)
    bare = StopLine(position.key, contracts, covered=_total(resting))
    if isinstance(levels, StopProblem):
        # What rests without its twin would leave the other leg naked; any other stop is better than none.
        cancels = tuple(resting) if levels.kind in ("no-twin", "beyond-liquidation") else ()
        return StopLine(position.key, contracts, covered=bare.covered, to_cancel=cancels, problem=levels)
    sizes = _sizes(contracts, instrument)
    if isinstance(sizes, StopProblem):
        return StopLine(position.key, contracts, levels[0].trigger, bare.covered, problem=sizes)
    leaving: list[Order] = []
    places: list[WantedStop] = []
    covered = ZERO
    for number, level in enumerate(levels):
        here = [order for order in resting if _nearest(order, levels) is level]
        gone, missing = _changes(here, level, contracts, sum(sizes, ZERO), len(sizes), rule.band)
        leaving += gone
        parts = _sizes(missing, instrument) if missing > ZERO else ()
        places += [] if isinstance(parts, StopProblem) else [_order(position, level, part) for part in parts]
        covered += _total(here) if number == 0 else ZERO
    is_closing = position.key in own.closing
    if not is_closing and (problem := _reached(position, levels[0], places)) is not None:
        return StopLine(position.key, contracts, levels[0].trigger, covered, problem=problem)
    if is_closing:
        return StopLine(position.key, contracts, levels[0].trigger, covered)
    return StopLine(position.key, contracts, levels[0].trigger, covered, tuple(leaving), tuple(places))


def _changes(
    here: Sequence[Order], level: _Level, contracts: Decimal, tradable: Decimal, fewest: int, band: Decimal
) -> tuple[Sequence[Order], Decimal]:
    """The orders of one price to cancel, and the contracts to place at it."""
    covered = _total(here)
    is_off = any(abs(_trigger(order) - level.trigger) > level.tolerance for order in here)
    if is_off or covered > contracts or len(here) > fewest + MOST_PARTS:
        return here, tradable
    return (), (tradable - covered if covered < tradable * (1 - band) else ZERO)


def _levels(
    rule: CatastropheStopRule,
    name: str,
    position: Position,
    accounts: Mapping[str, AccountSnapshot],
    inputs: Mapping[str, StopInputs],
) -> tuple[_Level, ...] | StopProblem:
    """The stop of a position, and the take-profit at the stop of its twin; or why there is none."""
    own = _level(rule, position, inputs[name])
    twin = rule.twin_of(name, position.symbol)
    if twin is None or isinstance(own, StopProblem):
        return own if isinstance(own, StopProblem) else (own,)
    other = accounts.get(twin.other_account)
    known = other is not None and other.quality == "ok" and other.positions is not None
    if other is None or not known or twin.other_account not in inputs:
        return StopProblem("no-twin", f"the leg {twin.other_symbol} of {twin.other_account} is unknown")
    legs = [each for each in other.positions or () if each.symbol == twin.other_symbol and each.contracts > ZERO]
    if not legs:
        return StopProblem("no-twin", f"the leg {twin.other_symbol} of {twin.other_account} is not held")
    opposite = [each for each in legs if each.side != position.side]
    found = _level(rule, opposite[0], inputs[twin.other_account]) if opposite else None
    if found is None or isinstance(found, StopProblem):
        why = "is on the same side" if found is None else f"has no stop: {found.why}"
        return StopProblem("no-twin", f"the leg {twin.other_symbol} of {twin.other_account} {why}")
    step = _price_step(inputs[name].instruments.get(position.symbol))
    if step is None:
        return StopProblem("unknown", f"the price step of {position.symbol} is unknown")
    return own, _Level(_rounded(found.trigger, step, up=found.when == "falls"), found.when, found.tolerance)


def _level(rule: CatastropheStopRule, position: Position, own: StopInputs) -> _Level | StopProblem:
    """The price of a position's stop, inside its liquidation price, rounded towards the mark."""
    is_long, step = position.side == "long", _price_step(own.instruments.get(position.symbol))
    anchor = _sane(position.entry_price) or own.first_marks.get(position.key) or _first_mark(position, own)
    if anchor is None:
        return StopProblem("unknown", f"neither the entry nor the mark of {position.symbol} is known")
    if step is None:
        return StopProblem("unknown", f"the price step of {position.symbol} is unknown")
    trigger = anchor * (1 - rule.distance if is_long else 1 + rule.distance)
    tolerance = rule.band * rule.distance * anchor
    liquidation = _sane(position.liquidation_price)
    if liquidation is not None and (trigger <= liquidation if is_long else trigger >= liquidation):
        if rule.inside_liquidation is None:
            why = f"a stop at {_rounded(trigger, step, up=is_long):f} lies beyond the liquidation price {liquidation:f}"
            return StopProblem("beyond-liquidation", f"{why}, and no `inside_liquidation` is declared")
        inside = rule.inside_liquidation
        trigger = liquidation * (1 + inside if is_long else 1 - inside)
        # Half of the distance inside: what rests is never beyond the liquidation price.
        tolerance = min(tolerance, liquidation * inside / 2)
    rounded = _rounded(trigger, step, up=is_long)
    if rounded <= ZERO:
        return StopProblem("unknown", f"the trigger of {position.symbol} is not above zero")
    return _Level(rounded, "falls" if is_long else "rises", tolerance)


def _sizes(contracts: Decimal, instrument: Instrument | None) -> tuple[Decimal, ...] | StopProblem:
    """The sizes of the orders for so many contracts, each within the venue's largest; or why there are none.

    Venues exempt reduce-only orders from the minimum notional, and not from the minimum amount.
    """
    if instrument is None or instrument.amount_step is None or instrument.amount_step <= ZERO:
        return StopProblem("unknown", "the amount step is unknown")
    step = instrument.amount_step
    tradable, least = whole_steps(contracts, step), max(instrument.min_amount or ZERO, step)
    if tradable < least:
        return StopProblem("dust", f"{contracts:f} contracts are less than the venue's smallest order of {least:f}")
    most = whole_steps(instrument.max_amount, step) if instrument.max_amount is not None else tradable
    if most < least or most >= tradable:
        return (tradable,)
    full, rest = divmod(tradable, most)
    parts = [most] * int(full)
    if rest and rest < least:  # the rest alone is too small, so that the last full part gives it some
        parts[-1] -= least - rest
        rest = least
    return (*parts, *((rest,) if rest else ()))


def _reached(position: Position, level: _Level, places: Iterable[WantedStop]) -> StopProblem | None:
    """The problem that the mark is at the trigger already, where a stop would be placed."""
    mark = _sane(position.mark_price)
    is_there = mark is not None and (mark <= level.trigger if level.when == "falls" else mark >= level.trigger)
    if not is_there or not any(True for _ in places):
        return None
    return StopProblem("reached", f"the mark {mark:f} is at the trigger {level.trigger:f} already")


def _order(position: Position, level: _Level, amount: Decimal) -> WantedStop:
    side: OrderSide = "sell" if position.side == "long" else "buy"
    return WantedStop(position.symbol, position.side, side, amount, level.trigger, level.when)


def _nearest(order: Order, levels: Sequence[_Level]) -> _Level:
    return min(levels, key=lambda level: abs(_trigger(order) - level.trigger))


def _trigger(order: Order) -> Decimal:
    return order.trigger_price or ZERO


def _total(orders: Iterable[Order]) -> Decimal:
    return sum((max(ZERO, each.amount - (_sane(each.filled) or ZERO)) for each in orders), ZERO)


def _first_mark(position: Position, own: StopInputs) -> Decimal | None:
    """The mark of a position without an entry that has no stored one."""
    if _sane(position.entry_price) is not None or position.key in own.first_marks:
        return None
    return _sane(position.mark_price)


def _price_step(instrument: Instrument | None) -> Decimal | None:
    return None if instrument is None else _sane(instrument.price_step)


def _sane(number: Decimal | None) -> Decimal | None:
    """A finite number above zero; None for any other."""
    return number if number is not None and sane(number) and number > ZERO else None


def _rounded(price: Decimal, step: Decimal, *, up: bool) -> Decimal:
    return (price / step).to_integral_value(rounding=ROUND_CEILING if up else ROUND_FLOOR) * step


def closing_command(name: str, at: datetime, account: str, symbol: str, rule: str, why: str) -> Event:
    """The command that closes a symbol of an account in place of a stop. `name`: what it is unique for."""
    digest = blake2b(name.encode(), digest_size=8).hexdigest()
    return Event(
        f"stop-{digest}", at, "close", f"account/{account}", author=f"catastrophe stop {rule}", reason=why,
        cause="market", symbols=(symbol,),
    )  # fmt: skip


def closes_of_other_legs(
    rules: Iterable[CatastropheStopRule], account: str, symbol: str, stop: str, at: datetime
) -> Iterator[Event]:
    """The commands that close the legs which a filled stop of `symbol` has left naked. `stop`: its client order id."""
    for rule in rules:
        for each in rule.apart:
            if (each.account, each.symbol) == (account, symbol):
                why = f"its stop has closed {symbol} of {account}, the other leg of a hedge"
                name = f"{stop}/{each.other_symbol}"
                yield closing_command(name, at, each.other_account, each.other_symbol, rule.name, why)


def naked_lines(found: Iterable[AccountStops]) -> Iterator[tuple[AccountStops, StopLine]]:
    """The positions of which a part has no resting stop."""
    yield from ((account, line) for account in found for line in account.lines if line.naked > ZERO)


def stops_now(rules: Iterable[CatastropheStopRule], accounts: Iterable[AccountSnapshot]) -> tuple[AccountStops, ...]:
    """The stops of every account of the rules by one snapshot, without stored first marks and closes."""
    known = {each.account: each for each in accounts}
    inputs = {
        name: StopInputs({each.symbol: each for each in account.instruments or ()}) for name, account in known.items()
    }
    return tuple(stops_of(rule, name, known, inputs) for rule in rules for name in rule.accounts if name in known)
