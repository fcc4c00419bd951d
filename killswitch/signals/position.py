"""Quantities of one position, exact in Decimal; None is unknown.

Linear contracts: notional = contracts × contract size × price, P&L = ± base × (price − entry).
Inverse contracts are worth contracts × contract size in quote and settle in the base coin:
notional = contracts × size ÷ price, P&L = ± contracts × size × (1 ÷ entry − 1 ÷ price).
(Both as the venues' own contract specifications have them.)
"""

from __future__ import annotations

import re
from decimal import Decimal

from msgspec.structs import replace

from killswitch.model.snapshot import Instrument, Position

HOLDINGS = frozenset({"spot", "margin", "equity"})
"""Markets whose positions are holdings: their whole value is in the equity, and not only their profit."""
ZERO = Decimal(0)


def base_of(symbol: str) -> str:
    """The base asset: `BTC` of `BTC/USDT:USDT`, `BTC_USDT`, `BTC-USDT` and `BTC`."""
    return re.split("[/_-]", symbol, maxsplit=1)[0]


def sign(position: Position) -> int:
    """+1 for a long position, −1 for a short one."""
    return 1 if position.side == "long" else -1


def _face(position: Position, instrument: Instrument | None) -> Decimal | None:
    """contracts × contract size; unknown without the contract size."""
    if instrument is None or instrument.contract_size is None:
        return None
    return position.contracts * instrument.contract_size


def notional(position: Position, instrument: Instrument | None) -> Decimal | None:
    """Absolute notional in the account's currency: the venue's own number, else from the mark."""
    if position.notional is not None:
        return abs(position.notional)
    face = _face(position, instrument)
    if face is None or instrument is None or not position.mark_price:
        return None
    return face / position.mark_price if instrument.inverse else face * position.mark_price


def move_value(
    position: Position, instrument: Instrument | None, before: Decimal | None, after: Decimal | None
) -> Decimal | None:
    """P&L of the position's present size when its price goes from `before` to `after`."""
    face = _face(position, instrument)
    if face is None or instrument is None or not before or not after:
        return None
    gain = face * (1 / before - 1 / after) if instrument.inverse else face * (after - before)
    return gain * sign(position)


def unrealized(position: Position, instrument: Instrument | None) -> Decimal | None:
    """Unrealised P&L: the venue's own number, else from entry and mark."""
    if position.unrealized_pnl is not None:
        return position.unrealized_pnl
    return move_value(position, instrument, position.entry_price, position.mark_price)


def liquidation_distance(position: Position) -> Decimal | None:
    """How far the mark may move against the position before liquidation, ÷ mark; 0 at or beyond it.

    A short cannot be liquidated at zero or below: such a price is none.
    """
    if not position.mark_price or position.liquidation_price is None:
        return None
    if position.side == "short" and position.liquidation_price <= ZERO:
        return None
    room = (position.mark_price - position.liquidation_price) * sign(position)
    return max(ZERO, room / position.mark_price)


def together(one: Position, other: Position) -> Position:
    """Two rows of the same symbol and side as the one position that a venue closes; prices are the first row's."""
    return replace(
        one,
        contracts=one.contracts + other.contracts,
        notional=_sum(one.notional, other.notional),
        margin=_sum(one.margin, other.margin),
        unrealized_pnl=_sum(one.unrealized_pnl, other.unrealized_pnl),
        strategy=one.strategy if one.strategy == other.strategy else None,
    )


def _sum(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return None if one is None or other is None else one + other


def margin_loss(position: Position, instrument: Instrument | None) -> Decimal | None:
    """Unrealised loss ÷ margin; 0 when in profit; unknown without P&L or margin."""
    pnl = unrealized(position, instrument)
    if pnl is None or not position.margin:
        return None
    return max(ZERO, -pnl) / position.margin
