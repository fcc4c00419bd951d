"""Quantities of one position, exact in Decimal; None means unknown.

Linear contracts: notional = contracts × contract size × price, P&L = ± base × (price − entry). The value of
inverse contracts is contracts × contract size in quote, and they settle in the base coin: notional = contracts × size ÷
price, P&L = ± contracts × size × (1 ÷ entry − 1 ÷ price). (Both follow the venues' contract specifications.)

The face value of a contract is in its settlement coin. If that is not the account's currency, it is converted at the
venue's price of the coin, and is unknown without one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

from msgspec.structs import replace

from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot, Instrument, Position

PnlKey = tuple[str, str, str]
"""(account, symbol, side): the identity of a position in a scope."""

Instruments = Mapping[tuple[str, str], Instrument]
"""(account, symbol) → the instrument's rules."""

HOLDINGS = frozenset({"spot", "margin", "equity"})
"""Markets whose positions are holdings: equity includes their whole value, not only their profit."""
ZERO = Decimal(0)
_OPTION = re.compile(r"-\d[\d.d]*-[CP]$")
"""The suffix of option symbols: strike and type."""


def base_of(symbol: str) -> str:
    """The base asset: `BTC` of `BTC/USDT:USDT`, `BTC_USDT`, `BTC-USDT` and `BTC`."""
    return re.split("[/_-]", symbol, maxsplit=1)[0]


def sign(position: Position) -> int:
    """+1 for a long position, −1 for a short one."""
    return 1 if position.side == "long" else -1


def is_option(symbol: str) -> bool:
    """Whether the symbol is an option, such as `BTC/USD:BTC-260327-60000-C`."""
    return _OPTION.search(symbol) is not None


def is_inverse(symbol: str, rules: Instrument | None) -> bool:
    """Whether a contract's value is linear in x = −1 ÷ mark. False for options, whose mark is a premium."""
    return rules is not None and rules.inverse and not is_option(symbol)


def settlement(symbol: str) -> str:
    """The settlement coin of a symbol: `BTC` of `BTC/USD:BTC-250926`, `USD` of `BTC/USD`; empty if there is none."""
    pair, _, settled = symbol.partition(":")
    return settled.partition("-")[0] or pair.partition("/")[2]


def contract_value(account: AccountSnapshot, symbol: str, rules: Instrument | None) -> Decimal | None:
    """The value of a contract per unit of x, in the account's currency; None if unknown."""
    if rules is None or rules.contract_size is None:
        return None
    coin = settlement(symbol)
    if coin in ("", account.currency):
        return rules.contract_size
    price = price_of(coin, account)
    return None if price is None else rules.contract_size * price


def price_of(coin: str, account: AccountSnapshot) -> Decimal | None:
    """The venue's price of a coin in the account's currency; None if it reports none."""
    for balance in account.balances or ():
        if balance.asset == coin and balance.price is not None and sane(balance.price) and balance.price > ZERO:
            return balance.price
    for rate in account.rates or ():
        if rate.currency == coin and sane(rate.price) and rate.price > ZERO:
            return 1 / rate.price
    return None


def notional(position: Position, account: AccountSnapshot, rules: Instrument | None) -> Decimal | None:
    """The absolute notional in the account's currency: the venue's own number, else computed from the mark.

    It is not computed for options, whose mark is a premium and whose notional is that of the underlying.
    """
    if position.notional is not None:
        return abs(position.notional)
    value = contract_value(account, position.symbol, rules)
    if value is None or not position.mark_price or is_option(position.symbol):
        return None
    face = position.contracts * value
    return face / position.mark_price if is_inverse(position.symbol, rules) else face * position.mark_price


def base_quantity(position: Position, account: AccountSnapshot, rules: Instrument | None) -> Decimal | None:
    """The position in base units, negative for short; None if the contract size, or an inverse one's mark, is unknown.

    A holding is in base units already, unless its rules say otherwise. Options are unknown.
    """
    size = None if rules is None else rules.contract_size
    if size is None and account.market in HOLDINGS:
        size = Decimal(1)
    if size is None or is_option(position.symbol):
        return None
    face = position.contracts * size * sign(position)
    if not is_inverse(position.symbol, rules):
        return face
    return face / position.mark_price if position.mark_price else None


def entry_value(position: Position, account: AccountSnapshot, rules: Instrument | None) -> Decimal | None:
    """The absolute notional at the entry price, in the account's currency; None if it or the contract is unknown."""
    value = contract_value(account, position.symbol, rules)
    if value is None or position.entry_price is None or position.entry_price <= ZERO:
        return None
    face = position.contracts * value
    return face / position.entry_price if is_inverse(position.symbol, rules) else face * position.entry_price


def move_value(
    position: Position,
    account: AccountSnapshot,
    rules: Instrument | None,
    prices: tuple[Decimal | None, Decimal | None],
) -> Decimal | None:
    """The P&L of the position's current size for a move between two prices, in the account's currency."""
    value, (before, after) = contract_value(account, position.symbol, rules), prices
    if value is None or not before or not after:
        return None
    gain = 1 / before - 1 / after if is_inverse(position.symbol, rules) else after - before
    return position.contracts * value * gain * sign(position)


def unrealized(position: Position, account: AccountSnapshot, rules: Instrument | None) -> Decimal | None:
    """The unrealised P&L in the account's currency: the venue's own number, else computed from entry and mark."""
    if position.unrealized_pnl is not None:
        return position.unrealized_pnl
    return move_value(position, account, rules, (position.entry_price, position.mark_price))


def liquidation_distance(position: Position) -> Decimal | None:
    """The distance of the mark from the liquidation price ÷ mark; 0 at or beyond it.

    A liquidation price of zero or below is invalid for a short position, and counts as unknown.
    """
    if not position.mark_price or position.liquidation_price is None:
        return None
    if position.side == "short" and position.liquidation_price <= ZERO:
        return None
    room = (position.mark_price - position.liquidation_price) * sign(position)
    return max(ZERO, room / position.mark_price)


def merge_rows(one: Position, other: Position) -> Position:
    """The sum of two rows of the same symbol and side; prices are those of the first row."""
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


def margin_loss(position: Position, account: AccountSnapshot, rules: Instrument | None) -> Decimal | None:
    """Unrealised loss ÷ margin; 0 when in profit; unknown without P&L or margin."""
    pnl = unrealized(position, account, rules)
    if pnl is None or not position.margin:
        return None
    return max(ZERO, -pnl) / position.margin
