"""A spot account: its holdings as positions, and its equity in its currency.

A holding without a price makes the equity unknown, and nothing else: holdings with a price are positions that can be
closed. Where upper bounds of all holdings without a price are known and small, the equity is known too (ADR 0080).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from msgspec import Struct

from killswitch.model.parsing import decimal
from killswitch.model.snapshot import Balance, Position
from killswitch.model.venue import AccountSpec
from killswitch_ccxt.equity import AccountEquity, amounts
from killswitch_ccxt.instruments import Quote, valuation_price
from killswitch_ccxt.unpriced import LastPrices, are_small, ignored_assets, remark_on, unpriced_asset

Prices = Callable[[Sequence[str]], Awaitable[Mapping[str, Quote]]]


class ValuationInputs(Struct, frozen=True):
    """Inputs of a valuation: the venue's rules, its prices, its last known prices, at the time `now`."""

    rules: Mapping[str, Mapping[str, Any]]
    prices: Prices
    last: LastPrices
    now: datetime


async def holdings(
    balance: Mapping[str, Any], spec: AccountSpec, market: ValuationInputs
) -> tuple[AccountEquity, tuple[Position, ...]]:
    """Equity and positions of ccxt's unified `balance`; each holding is in the balances and in the positions.

    Each asset except the account's currency is a position in `ASSET/CURRENCY`, long, or short where it is borrowed. An
    asset that never had a market there is only in the balances. Assets of the account's option `ignore_assets` are left
    out.
    """
    ignored = ignored_assets(spec)
    held = {asset: amount for asset, amount in amounts(balance).items() if asset not in ignored}
    symbols = {asset: f"{asset}/{spec.currency}" for asset in held if asset != spec.currency}
    listed = sorted(symbol for symbol in symbols.values() if symbol in market.rules)
    quotes = await market.prices(listed) if listed else {}
    found, priced_value, unpriced = [], held.get(spec.currency, Decimal(0)), []
    balances = [_balance(spec.currency, priced_value, Decimal(1))] if priced_value else []
    for asset, symbol in sorted(symbols.items()):
        quote, amount = quotes.get(symbol, Quote()), held[asset]
        price = valuation_price(quote)
        if price is None:
            unpriced.append(unpriced_asset(asset, amount, spec, market.last.recent(symbol, market.now)))
            continue
        market.last[symbol] = price, quote.at or market.now
        priced_value += amount * price
        balances.append(_balance(asset, amount, price, quote.at))
        found.append(_position(symbol, amount, price, quote))
    row = balance.get(spec.currency)
    free = decimal(row.get("free")) if isinstance(row, Mapping) else None
    is_small = are_small(unpriced, priced_value)
    for it in unpriced:
        last, symbol = it.last if is_small else None, symbols[it.asset]
        balances.append(_balance(it.asset, it.amount, last and last[0], last and last[1]))
        if symbol in market.rules or symbol in market.last:
            quote = Quote(at=last and last[1])
            found.append(_position(symbol, it.amount, last and last[0], quote))
    unpriced_value = sum((it.counted_value for it in unpriced), Decimal(0))
    account_equity = AccountEquity(
        priced_value + unpriced_value if is_small else None, free=free, balances=tuple(balances),
        unrealized=Decimal(0) if is_small else None,
        why=remark_on(unpriced, spec, cause="the venue has no price", is_known=is_small),
    )  # fmt: skip
    return account_equity, tuple(sorted(found, key=lambda position: position.symbol))


def _balance(asset: str, amount: Decimal, price: Decimal | None, at: datetime | None = None) -> Balance:
    """The amount is enough: the value of a spot holding has no profit outside its price."""
    return Balance(asset, amount, price, wallet=amount, equity=amount, price_at=at)


def _position(symbol: str, amount: Decimal, price: Decimal | None, quote: Quote) -> Position:
    return Position(
        symbol, "long" if amount > 0 else "short", abs(amount), mark_price=price, last_price=quote.last,
        bid=quote.bid, ask=quote.ask, notional=None if price is None else abs(amount) * price, mark_at=quote.at,
    )  # fmt: skip
