"""The execution ladder: kind and price of the next order, down to a step that can always be sent. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from msgspec import Struct

from killswitch.execution.report_validation import finite
from killswitch.model.snapshot import Instrument, OrderSide, Position
from killswitch.model.words import Rung

MARKET = (Rung("market", tries=2), Rung("limit"))
"""The default ladder: at market, then at the best price of the other side if market orders do not fill."""
_NO_MARKET_ORDERS = frozenset({"limit_only", "post_only"})
_NEVER = Decimal(0)


class ExecutionStyle(Struct, frozen=True):
    """How one order is sent: `step` of the ladder, order kind and price.

    `price` is in quote per base, None for a market order; `rests`: the order may stay open.
    """

    step: int
    order: str
    price: Decimal | None
    rests: bool = False


def next_step(ladder: Sequence[Rung], index: int, attempts: int, *, at_market: bool = False) -> int:
    """The index of the step for the next order, after `attempts` orders on step `index` that did not fill.

    After the last step, unbounded steps are tried again: an order that was refused may be accepted now. `at_market`:
    the steps before the first market order are skipped.
    """
    index = min(index, len(ladder) - 1)
    unbounded = next((number for number, step in enumerate(ladder) if step.order == "market"), index)
    if at_market and index < unbounded:
        return unbounded
    if attempts < ladder[index].tries:
        return index
    if index + 1 < len(ladder):
        return index + 1
    return unbounded


def orders_before_last_step(ladder: Sequence[Rung]) -> int:
    """Number of orders before a ladder reaches its last step."""
    return sum(step.tries for step in ladder[:-1])


def execution_style(
    ladder: Sequence[Rung],
    step: int,
    side: OrderSide,
    band: Decimal | None,
    position: Position | None,
    instrument: Instrument | None,
) -> ExecutionStyle:
    """The order of step `step`, priced on `position` as the venue shows it now.

    A step that cannot be priced, because neither mark nor order book is known, becomes a market order: an exit must
    exist, and the report shows that it had no bound. A market that accepts no market orders gets a limit order.
    """
    rule = ladder[step]
    disabled = instrument is not None and instrument.state in _NO_MARKET_ORDERS
    if rule.order == "market" and not disabled:
        return ExecutionStyle(step, "market", None)
    bounded = None if rule.order == "market" else band
    price = _price(side, None if bounded is None else bounded * rule.widen, position, instrument)
    if price is None:
        return ExecutionStyle(step, "market", None)
    if rule.order == "limit_ioc" and not (instrument is not None and instrument.state == "post_only"):
        return ExecutionStyle(step, "limit_ioc", price)
    return ExecutionStyle(step, "limit", price, rests=True)


def _price(side: OrderSide, band: Decimal | None, seen: Position | None, rules: Instrument | None) -> Decimal | None:
    """The limit price: `band` away from the mark, else the other side's best price, within the venue's own band."""
    if seen is None:
        return None
    mark = finite(seen.mark_price)
    book = _book(side, seen, rules)
    if band is not None and mark is not None:
        price = _bound(mark, side, band)
    elif book is not None:
        price = book
    else:
        return None
    venue_band = None if rules is None else rules.price_band
    if venue_band is not None and mark is not None:
        nearer = max if side == "sell" else min
        price = nearer(price, _bound(mark, side, venue_band))
    return _on_tick(price, side, None if rules is None else finite(rules.price_step))


def _bound(mark: Decimal, side: OrderSide, band: Decimal) -> Decimal:
    """The worst price within `band` of the mark."""
    return mark * (1 - band if side == "sell" else 1 + band)


def _book(side: OrderSide, position: Position, instrument: Instrument | None) -> Decimal | None:
    """The best price that fills at once; where only makers are accepted, the best price of our own side."""
    bid, ask = finite(position.bid), finite(position.ask)
    makers_only = instrument is not None and instrument.state == "post_only"
    return bid if (side == "sell") is not makers_only else ask


def _on_tick(price: Decimal, side: OrderSide, tick: Decimal | None) -> Decimal | None:
    """The price rounded to the venue's tick, never beyond the bound: sales round up, purchases down."""
    if tick is not None and tick > _NEVER:
        rounding = ROUND_CEILING if side == "sell" else ROUND_FLOOR
        price = (price / tick).to_integral_value(rounding=rounding) * tick
    return price if price > _NEVER else None
