"""A spot account: what it holds as positions, and what that is worth in its currency."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from killswitch.model.snapshot import Balance, Position
from killswitch.model.venue import AccountSpec
from killswitch_ccxt.numbers import UnreadableError, decimal
from killswitch_ccxt.quotes import Quote, price_of
from killswitch_ccxt.wealth import Wealth, amounts

Prices = Callable[[Sequence[str]], Awaitable[Mapping[str, Quote]]]


async def holdings(
    balance: Mapping[str, Any], spec: AccountSpec, rules: Mapping[str, Mapping[str, Any]], prices: Prices
) -> tuple[Wealth, tuple[Position, ...]]:
    """Worth and positions of ccxt's unified `balance`; each holding is in the balances and in the positions.

    Each asset but the account's currency is a position in `ASSET/CURRENCY`, long, or short where it is owed. An asset
    for which the venue has no such market, or no price, makes the worth unknown (UnreadableError): whoever wants to
    leave it out says so in the account's option `ignore_assets`.
    """
    ignored = ignored_assets(spec)
    held = {asset: amount for asset, amount in amounts(balance).items() if asset not in ignored}
    symbols = {asset: f"{asset}/{spec.currency}" for asset in held if asset != spec.currency}
    homeless = sorted(asset for asset, symbol in symbols.items() if symbol not in rules)
    if homeless:
        raise UnreadableError(unpriced(homeless, spec, "the venue has no market"))
    told = await prices(sorted(symbols.values())) if symbols else {}
    found, worth = [], held.get(spec.currency, Decimal(0))
    balances = [_balance(spec.currency, worth, Decimal(1))] if worth else []
    for asset, symbol in sorted(symbols.items()):
        quote = told.get(symbol, Quote())
        price = price_of(quote)
        if price is None:
            raise UnreadableError(unpriced([asset], spec, "the venue has no price"))
        amount = held[asset]
        worth += amount * price
        balances.append(_balance(asset, amount, price, quote.at))
        found.append(_position(symbol, amount, price, quote))
    row = balance.get(spec.currency)
    free = decimal(row.get("free")) if isinstance(row, Mapping) else None
    return Wealth(worth, free=free, balances=tuple(balances), unrealized=Decimal(0)), tuple(found)


def _balance(asset: str, amount: Decimal, price: Decimal, at: datetime | None = None) -> Balance:
    """Amounts suffice: nothing that is held here has a profit that is not in its price."""
    return Balance(asset, amount, price, wallet=amount, equity=amount, price_at=at)


def _position(symbol: str, amount: Decimal, price: Decimal, quote: Quote) -> Position:
    return Position(
        symbol, "long" if amount > 0 else "short", abs(amount), mark_price=price, last_price=quote.last,
        bid=quote.bid, ask=quote.ask, notional=abs(amount) * price, mark_at=quote.at,
    )  # fmt: skip


def ignored_assets(spec: AccountSpec) -> frozenset[str]:
    """Assets that the account's document leaves out of its worth."""
    option = spec.options.get("ignore_assets", ())
    return frozenset(map(str, option)) if isinstance(option, Sequence) and not isinstance(option, str) else frozenset()


def unpriced(assets: Sequence[str], spec: AccountSpec, why: str) -> str:
    """What is said of assets without a price, `why`, and what can be done about them."""
    return (
        f"{why} for {', '.join(assets)} in {spec.currency}, so the account's worth is unknown; "
        "name what is to be left out in options: {ignore_assets: […]}"
    )
