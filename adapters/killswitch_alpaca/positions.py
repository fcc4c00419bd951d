"""Alpaca's positions, and the equity of an account."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from msgspec import Struct

from killswitch.model.parsing import Row, UnreadableError, about_row, decimal, positive, required_number, required_text
from killswitch.model.snapshot import Balance, Position, Side

CRYPTO, EQUITY, OPTION = "crypto", "us_equity", "us_option"
QUOTES = ("USDT", "USDC", "USD", "BTC")
"""Quote assets of crypto at Alpaca, longer names first."""


def symbol_of(name: str, asset_class: object) -> str:
    """The symbol here of Alpaca's `name`."""
    if asset_class != CRYPTO or "/" in name:
        return name
    quote = next((each for each in QUOTES if name.endswith(each) and len(name) > len(each)), None)
    return name if quote is None else f"{name.removesuffix(quote)}/{quote}"


def is_crypto(symbol: str) -> bool:
    """Whether the symbol trades in a market that never closes."""
    return "/" in symbol


def read_position(found: Row) -> Position | None:
    """One position; None for a size of zero. Raises UnreadableError where side and size contradict each other."""
    name = required_text(found.get("symbol"), "symbol")
    with about_row(f"position {name}"):
        size = required_number(found.get("qty"), "qty")
        if size == 0:
            return None
        side: Side = "long" if size > 0 else "short"
        stated = found.get("side")
        if stated not in (side, None):
            raise UnreadableError(f"qty {size} contradicts side {stated}")
        value = decimal(found.get("market_value"))
        return Position(
            symbol=symbol_of(name, found.get("asset_class")),
            side=side,
            contracts=abs(size),
            entry_price=positive(found.get("avg_entry_price")),
            mark_price=positive(found.get("current_price")),
            notional=None if value is None else abs(value),
            unrealized_pnl=decimal(found.get("unrealized_pl")),
        )


def read_positions(answer: Sequence[Row]) -> tuple[Position, ...]:
    """All positions. Raises UnreadableError for the first unreadable one: an incomplete book is unknown."""
    found = [position for each in answer if (position := read_position(each)) is not None]
    keys = [position.key for position in found]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UnreadableError(f"position {twice[0]} appears twice")
    return tuple(found)


def position_value(positions: Sequence[Position]) -> Decimal | None:
    """Total value of the positions, shorts negative; None where a part is unknown."""
    if any(position.notional is None for position in positions):
        return None
    return sum((_signed(position.side, position.notional or ZERO) for position in positions), ZERO)


TOLERANCE: Final = Decimal("0.005")
"""Fraction of the gross position value by which the account and its positions may differ in one snapshot, since
prices move between the two answers. A larger difference is a trade that only one of them includes."""
ZERO: Final = Decimal(0)
Held = frozenset[tuple[str, str, Decimal]]
"""Symbol, side and size of every position."""


class AccountBase(Struct, frozen=True):
    """The account, and the positions at the same time.

    `money` is what is neither price nor position: trades and transfers change it. `position_value` is the value of
    the positions. None is unknown. `why_unknown` states why `equity` is not believed.
    """

    account: Row
    equity: Decimal
    money: Decimal | None
    position_value: Decimal | None
    held: Held
    read_at: datetime
    why_unknown: str | None = None

    def equity_with(self, present: Decimal | None) -> Decimal:
        """The equity once the same positions have the value `present`."""
        if present is None or (self.money is None and self.position_value is None):
            return self.equity
        if self.money is not None:
            return self.money + present
        return self.equity + present - (self.position_value or ZERO)


def account_base(account: Row, positions: Sequence[Position], read_at: datetime) -> AccountBase:
    """Combine account and positions. Raises UnreadableError for an account without equity."""
    equity, found = required_number(account.get("equity"), "equity"), position_value(positions)
    money, why = None, _contradiction(account, equity, positions)
    if found is not None and why is None and is_consistent(account, positions):
        market = _market_value(account)
        # Of one answer where it gives both: then no price moved in between.
        money = equity - (found if market is None else market)
    return AccountBase(account, equity, money, found, held_of(positions), read_at, why)


def _contradiction(account: Row, equity: Decimal, positions: Sequence[Position]) -> str | None:
    """Why an equity of exactly zero next to positions is not believed: money and market values of the same answer do
    not sum up to zero. A loss of everything to the cent is believed, and so is a negative equity."""
    cash, market = decimal(account.get("cash")), _market_value(account)
    if equity or not positions or (cash is not None and market is not None and cash + market == 0):
        return None
    stated = ", ".join(f"{name} {account.get(name)}" for name in ("cash", "long_market_value", "short_market_value"))
    return f"equity: it is 0 next to {len(positions)} positions, and the same answer states {stated}"


def is_consistent(account: Row, positions: Sequence[Position]) -> bool:
    """Whether the account's market values match these positions; True where either is unknown."""
    market, found = _market_value(account), position_value(positions)
    if market is None or found is None:
        return True
    gross = sum((position.notional or ZERO for position in positions), ZERO)
    return abs(market - found) <= TOLERANCE * gross


def held_of(positions: Sequence[Position]) -> Held:
    """The holdings, without prices."""
    return frozenset((position.symbol, position.side, position.contracts) for position in positions)


def changes(before: AccountBase, after: AccountBase) -> tuple[dict[str, Decimal], Decimal]:
    """Signed change of each symbol and of the money between two reads; zero for what is unknown."""
    was, present = ({symbol: _signed(side, amount) for symbol, side, amount in each.held} for each in (before, after))
    shares = {it: present.get(it, ZERO) - was.get(it, ZERO) for it in was.keys() | present.keys()}
    money = ZERO if before.money is None or after.money is None else after.money - before.money
    return {symbol: amount for symbol, amount in shares.items() if amount}, money


def balances(
    base: AccountBase, positions: Sequence[Position], currency: str, at: datetime
) -> tuple[tuple[Balance, ...], Decimal | None]:
    """The money and, where the account is known in parts, each holding; and their sum, None where unknown.

    Shares and coins are wallets of their own (negative where they are owed), so that no part is unrealised profit.
    """
    cash = decimal(base.account.get("cash"))
    if base.money is None or position_value(positions) is None:
        return (() if cash is None else (Balance(currency, cash, Decimal(1)),)), None
    money = base.money
    found = [Balance(currency, money if cash is None else cash, Decimal(1), None, money, money, at)]
    total = money
    for position in positions:
        signed = _signed(position.side, position.contracts)
        price = _price(position)
        found.append(Balance(position.symbol.partition("/")[0], signed, price, None, signed, signed, at))
        total += signed * price
    return tuple(found), total


def _signed(side: str, amount: Decimal) -> Decimal:
    return amount if side == "long" else -amount


def _price(position: Position) -> Decimal:
    """Value of one share, coin or contract; for an option, the value of all the shares that it covers."""
    value, mark = position.notional or ZERO, position.mark_price
    return mark if mark is not None and mark * position.contracts == value else value / position.contracts


def _market_value(account: Row) -> Decimal | None:
    long, short = decimal(account.get("long_market_value")), decimal(account.get("short_market_value"))
    return None if long is None or short is None else long + short
