"""Quantities of one position, exact in Decimal; None is unknown.

Linear contracts: notional = contracts × contract size × price, P&L = ± base × (price − entry).
Inverse contracts are worth contracts × contract size in quote and settle in the base coin:
notional = contracts × size ÷ price, P&L = ± contracts × size × (1 ÷ entry − 1 ÷ price).
(Both as the venues' own contract specifications have them.)

A contract's face counts in the coin that it settles in. Where that is not the account's currency, it counts at what the
account's own venue says that the coin is worth, and is unknown where the venue does not say.
"""

from __future__ import annotations

import re
from decimal import Decimal

from msgspec.structs import replace

from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot, Instrument, Position

HOLDINGS = frozenset({"spot", "margin", "equity"})
"""Markets whose positions are holdings: their whole value is in the equity, and not only their profit."""
ZERO = Decimal(0)
_OPTION = re.compile(r"-\d[\d.d]*-[CP]$")
"""How symbols of options end: with the strike, and what it is."""


def base_of(symbol: str) -> str:
    """The base asset: `BTC` of `BTC/USDT:USDT`, `BTC_USDT`, `BTC-USDT` and `BTC`."""
    return re.split("[/_-]", symbol, maxsplit=1)[0]


def sign(position: Position) -> int:
    """+1 for a long position, −1 for a short one."""
    return 1 if position.side == "long" else -1


def is_option(symbol: str) -> bool:
    """Whether the symbol is that of an option, as in `BTC/USD:BTC-260327-60000-C`."""
    return _OPTION.search(symbol) is not None


def is_inverse(symbol: str, rules: Instrument | None) -> bool:
    """Whether the value of a contract goes by x = −1 ÷ mark. Not of an option: its mark is a premium."""
    return rules is not None and rules.inverse and not is_option(symbol)


def settlement(symbol: str) -> str:
    """The coin in which the symbol pays: `BTC` of `BTC/USD:BTC-250926`, `USD` of `BTC/USD`; empty where unsaid."""
    pair, _, settled = symbol.partition(":")
    return settled.partition("-")[0] or pair.partition("/")[2]


def contract_value(account: AccountSnapshot, symbol: str, rules: Instrument | None) -> Decimal | None:
    """The value of a contract per unit of x, in the account's currency; None where it is not known."""
    if rules is None or rules.contract_size is None:
        return None
    coin = settlement(symbol)
    if coin in ("", account.currency):
        return rules.contract_size
    price = _price_of(coin, account)
    return None if price is None else rules.contract_size * price


def _price_of(coin: str, account: AccountSnapshot) -> Decimal | None:
    """What one coin is worth in the account's currency, as its venue says; None where it does not."""
    for balance in account.balances or ():
        if balance.asset == coin and balance.price is not None and sane(balance.price) and balance.price > ZERO:
            return balance.price
    for rate in account.rates or ():
        if rate.currency == coin and sane(rate.price) and rate.price > ZERO:
            return 1 / rate.price
    return None


def notional(position: Position, account: AccountSnapshot, rules: Instrument | None) -> Decimal | None:
    """Absolute notional in the account's currency: the venue's own number, else from the mark.

    Not of an option: its mark is a premium, and its notional that of the underlying.
    """
    if position.notional is not None:
        return abs(position.notional)
    value = contract_value(account, position.symbol, rules)
    if value is None or not position.mark_price or is_option(position.symbol):
        return None
    face = position.contracts * value
    return face / position.mark_price if is_inverse(position.symbol, rules) else face * position.mark_price


def move_value(
    position: Position,
    account: AccountSnapshot,
    rules: Instrument | None,
    prices: tuple[Decimal | None, Decimal | None],
) -> Decimal | None:
    """P&L of the position's present size, in the account's currency, when its price goes from one to the other."""
    value, (before, after) = contract_value(account, position.symbol, rules), prices
    if value is None or not before or not after:
        return None
    gain = 1 / before - 1 / after if is_inverse(position.symbol, rules) else after - before
    return position.contracts * value * gain * sign(position)


def unrealized(position: Position, account: AccountSnapshot, rules: Instrument | None) -> Decimal | None:
    """Unrealised P&L in the account's currency: the venue's own number, else from entry and mark."""
    if position.unrealized_pnl is not None:
        return position.unrealized_pnl
    return move_value(position, account, rules, (position.entry_price, position.mark_price))


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


def margin_loss(position: Position, account: AccountSnapshot, rules: Instrument | None) -> Decimal | None:
    """Unrealised loss ÷ margin; 0 when in profit; unknown without P&L or margin."""
    pnl = unrealized(position, account, rules)
    if pnl is None or not position.margin:
        return None
    return max(ZERO, -pnl) / position.margin
