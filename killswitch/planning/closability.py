"""Closability check: positions of a snapshot that could not be closed completely, and why.

It uses the orders that planning would create (`rounding.reduction`), so that the result matches a real close.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Literal

from msgspec import Struct

from killswitch.model.snapshot import AccountSnapshot, Instrument, Order, Position, Side
from killswitch.planning.resting_orders import exits_of
from killswitch.planning.rounding import CLOSED_STATES, Reduction, reduction, value_of_contracts, whole_steps
from killswitch.render.formats import count_of
from killswitch.valuation.position_measures import ZERO

Obstacle = Literal[
    "dust", "above maximum", "wrong step", "state", "rules unknown", "no mark price", "resting exits", "below notional",
]  # fmt: skip

OutsideHours = Literal["queue", "extended"] | None

NO_MARKET_ORDERS = ("limit_only", "post_only")
"""Market states in which a close needs limit orders."""


class Obstruction(Struct, frozen=True):
    """One obstacle to closing a position. A warning means that the position may stay open, or that this is unknown.

    `text` is specific to the position; `meaning` is common to all obstacles of the kind.
    """

    kind: Obstacle
    severity: Literal["warning", "note"]
    text: str
    way_out: str = ""
    meaning: str = ""


class Closability(Struct, frozen=True):
    """Result of closing one position now: `orders` to send, and `leaves`, the contracts that no order can close.

    `shut`: the venue currently accepts no order for the position.
    """

    symbol: str
    side: Side
    contracts: Decimal
    orders: int
    leaves: Decimal
    shut: bool = False
    hindrances: tuple[Obstruction, ...] = ()


def closability_of(
    account: AccountSnapshot, *, reduce_only: bool, outside_hours: OutsideHours = None
) -> tuple[Closability, ...] | None:
    """The closability of every position, in the order of the snapshot; None where positions are unknown.

    `reduce_only`: whether closes there are reduce-only orders, which venues exempt from the minimum notional.
    `outside_hours`: setting of the Account document for closes outside market hours, if the market has hours.
    """
    if account.positions is None:
        return None
    known = {each.symbol: each for each in account.instruments or ()}
    exits = exits_of(account)
    found = []
    for position in account.positions:
        rules = known.get(position.symbol)
        result = reduction(position, ZERO, rules, reduce_only=reduce_only)
        hindrances = (
            *_of_rules(position, rules, result),
            *_of_state(rules, outside_hours, has_hours=account.market == "equity"),
            *_of_price(position, rules, reduce_only=reduce_only),
            *_of_orders(position, exits.get(position.key, ())),
        )
        shut = rules is not None and rules.state in CLOSED_STATES
        parts, leaves = len(result.parts), result.target
        found.append(Closability(position.symbol, position.side, position.contracts, parts, leaves, shut, hindrances))
    return tuple(found)


def _of_rules(position: Position, rules: Instrument | None, found: Reduction) -> Iterable[Obstruction]:
    held, symbol = position.contracts, position.symbol
    if rules is None or not rules.amount_step:
        what = "the venue's rules are unknown" if rules is None else "the step of its amounts is unknown"
        text = f"{what}: {held:f} is sent as it is, and may be refused"
        way_out = "where rules are unknown, check whether the venue still lists the symbol"
        yield Obstruction("rules unknown", "warning", text, way_out)
        return
    if not found.parts:
        way_out = "close dust by hand where the venue has a way, or add to it"
        yield Obstruction("dust", "warning", found.blocked or f"dust: no order can close {held:f}", way_out)
    elif found.target > ZERO:
        in_steps = whole_steps(held, rules.amount_step)
        if in_steps != held and found.target == held - in_steps:
            text = f"{found.target:f} of {held:f} is finer than the step of {rules.amount_step:f}, and stays"
        else:
            text = f"{found.target:f} of {held:f} fits into no order, and stays"
        way_out = "the rest is closed, and a remainder finer than the step stays"
        yield Obstruction("wrong step", "warning", text, way_out)
    if len(found.parts) > 1:
        most = "" if rules.max_amount is None else f"; the venue takes at most {rules.max_amount:f} in one"
        yield Obstruction(
            "above maximum", "note", f"{held:f} {symbol} takes {count_of(len(found.parts), 'order')}{most}"
        )
    elif rules.max_amount is not None and rules.max_amount < held and found.parts:
        text = f"the venue's maximum of {rules.max_amount:f} cannot be satisfied by any order"
        yield Obstruction("above maximum", "warning", text, "check the venue's maximum order size")


def _of_state(rules: Instrument | None, outside: OutsideHours, *, has_hours: bool) -> Iterable[Obstruction]:
    state = None if rules is None else rules.state
    if state == "halted" and has_hours:
        yield _outside_hours(outside)
    elif state in CLOSED_STATES:
        text = f"the market is {state}: the venue accepts no order that closes it"
        yield Obstruction("state", "warning", text, _SHUT_WAYS[state])
    elif state in NO_MARKET_ORDERS and not (has_hours and outside == "extended"):
        text = f"the market is {state}: a market order is refused, and a close needs a ladder with limit orders"
        way_out = "give the policies' stages a ladder for what takes limit orders only"
        yield Obstruction("state", "warning", text, way_out)
    elif state == "reduce_only":
        yield Obstruction("state", "note", "the market is reduce_only: it can be closed, and not opened again")


_SHUT_WAYS = {
    "halted": "a close is tried again until a halted market opens",
    "delisted": "see how the venue settles or withdraws what it has delisted",
    "cancel_only": "see at the venue why it accepts cancels only; a close is retried until it accepts orders",
}


def _outside_hours(outside: OutsideHours) -> Obstruction:
    """A market with hours accepts no order now; a snapshot does not distinguish a closed from a halted one."""
    closed = "the market is closed, or halted"
    if outside == "queue":
        return Obstruction("state", "note", f"{closed}: a close is held until it opens (outside_hours: queue)")
    if outside == "extended":
        text = f"{closed}, and so is its extended session: a close is refused (outside_hours: extended)"
        way_out = "a close is tried again until the extended session begins; outside_hours: queue holds it instead"
    else:
        text = f"{closed}: a close is refused"
        way_out = (
            "declare in the Account document what happens to a close outside market hours: "
            "outside_hours: queue, or extended"
        )
    return Obstruction("state", "warning", text, way_out)


def _of_price(position: Position, rules: Instrument | None, *, reduce_only: bool) -> Iterable[Obstruction]:
    least = None if rules is None else rules.min_notional
    if not position.mark_price:
        text = "no mark price: slippage cannot be bounded"
        if least and not reduce_only:
            text += f", and it is unknown whether it reaches the minimum notional of {least:f}"
        yield Obstruction("no mark price", "warning", text, "without a mark price, close at market or by hand")
        return
    value = None if rules is None else value_of_contracts(position.contracts, position, rules)
    # for other orders the least notional is part of the minimum amount
    if reduce_only and value is not None and least is not None and value < least:
        text = f"worth {value:f}, below the venue's minimum notional of {least:f}"
        yield Obstruction(
            "below notional", "note", text, meaning="it is accepted because reduce-only orders are exempt"
        )


def _of_orders(position: Position, exits: Sequence[Order]) -> Iterable[Obstruction]:
    if not exits:
        return
    promised = sum((order.amount - (order.filled or ZERO) for order in exits), ZERO)
    count = "1 resting exit promises" if len(exits) == 1 else f"{len(exits)} resting exits promise"
    text = f"{count} {promised:f} of {position.contracts:f}"
    meaning = "if the venue refuses a close because of them, they are cancelled, and restored for the remainder"
    yield Obstruction("resting exits", "note", text, meaning=meaning)
