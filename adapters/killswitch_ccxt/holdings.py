"""A spot account: its holdings as positions, and its equity in its currency.

A holding without a price makes the equity unknown, and nothing else: holdings with a price are positions that can be
closed. Where upper bounds of all holdings without a price are known and small, the equity is known too (ADR 0110).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from killswitch.model.parsing import UnreadableError, decimal, total
from killswitch.model.snapshot import Balance, Position
from killswitch.model.venue import AccountSpec
from killswitch_ccxt.equity import AccountEquity, amounts
from killswitch_ccxt.instruments import Quote, valuation_price

Prices = Callable[[Sequence[str]], Awaitable[Mapping[str, Quote]]]
UNPRICED_SHARE: Final = Decimal("0.02")
"""Largest value of all holdings without a price, as a share of those with one, at which the equity is known."""
OLDEST_PRICE: Final = timedelta(hours=48)
"""For how long the last price of a holding bounds its value."""


class LastPrices(dict[str, tuple[Decimal, datetime]]):
    """The last known price of each holding, and its time."""

    def recent(self, symbol: str, now: datetime) -> tuple[Decimal, datetime] | None:
        """The price and its time; None where there was none, or it is too old."""
        found = self.get(symbol)
        return found if found is not None and now - found[1] <= OLDEST_PRICE else None


@dataclass(frozen=True, slots=True)
class ValuationInputs:
    """Inputs of a valuation: the venue's rules, its prices, its last known prices, at the time `now`."""

    rules: Mapping[str, Mapping[str, Any]]
    prices: Prices
    last: LastPrices
    now: datetime


@dataclass(frozen=True, slots=True)
class _Unpriced:
    """A holding without a current price.

    `last`: its last price and the time of it; `bound`: an upper bound of its value, None where there is none.
    `is_listed`: whether it has a market, or had one.
    """

    asset: str
    symbol: str
    amount: Decimal
    last: tuple[Decimal, datetime] | None
    bound: Decimal | None
    is_listed: bool

    @property
    def counted_value(self) -> Decimal:
        """The value that counts while the equity is known: at the last price, or zero without one."""
        return Decimal(0) if self.last is None else self.amount * self.last[0]


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
            unpriced.append(_unpriced(asset, symbol, amount, spec, market))
            continue
        market.last[symbol] = price, quote.at or market.now
        priced_value += amount * price
        balances.append(_balance(asset, amount, price, quote.at))
        found.append(_position(symbol, amount, price, quote))
    row = balance.get(spec.currency)
    free = decimal(row.get("free")) if isinstance(row, Mapping) else None
    bound = total(it.bound for it in unpriced)
    is_small = bound is not None and bound <= UNPRICED_SHARE * max(priced_value, Decimal(0))
    for it in unpriced:
        last = it.last if is_small else None
        balances.append(_balance(it.asset, it.amount, last and last[0], last and last[1]))
        if it.is_listed:
            quote = Quote(at=last and last[1])
            found.append(_position(it.symbol, it.amount, last and last[0], quote))
    unpriced_value = sum((it.counted_value for it in unpriced), Decimal(0))
    account_equity = AccountEquity(
        priced_value + unpriced_value if is_small else None, free=free, balances=tuple(balances),
        unrealized=Decimal(0) if is_small else None, why=_why(unpriced, spec, is_small=is_small),
    )  # fmt: skip
    return account_equity, tuple(sorted(found, key=lambda position: position.symbol))


def _unpriced(asset: str, symbol: str, amount: Decimal, spec: AccountSpec, market: ValuationInputs) -> _Unpriced:
    """A holding with its bound: the last price, else the bound in the Account document. Repaying a debt may cost more
    than a document states, so only a price bounds it."""
    last, declared = market.last.recent(symbol, market.now), unpriced_bounds(spec).get(asset)
    bound = abs(amount) * last[0] if last is not None else declared if amount > 0 else None
    is_listed = symbol in market.rules or symbol in market.last
    return _Unpriced(asset, symbol, amount, last, bound, is_listed)


def _why(unpriced: Sequence[_Unpriced], spec: AccountSpec, *, is_small: bool) -> str | None:
    """The remark on holdings without a price: how they are counted, or why the equity is unknown."""
    if not unpriced:
        return None
    if not is_small:
        each = [
            it.asset if it.bound is None else f"{it.asset} (at most {it.bound.normalize():f} {spec.currency})"
            for it in unpriced
        ]
        return unpriced_text(each, spec, "the venue has no price")
    each = [
        f"{it.asset}, counted as 0 and worth at most {it.bound} {spec.currency}"
        if it.last is None
        else f"{it.asset}, counted at its price {it.last[0]} {spec.currency} of {it.last[1]:%Y-%m-%d %H:%M} UTC"
        for it in unpriced
    ]
    return f"the venue has no price in {spec.currency} for {'; '.join(each)}"


def _balance(asset: str, amount: Decimal, price: Decimal | None, at: datetime | None = None) -> Balance:
    """The amount is enough: the value of a spot holding has no profit outside its price."""
    return Balance(asset, amount, price, wallet=amount, equity=amount, price_at=at)


def _position(symbol: str, amount: Decimal, price: Decimal | None, quote: Quote) -> Position:
    return Position(
        symbol, "long" if amount > 0 else "short", abs(amount), mark_price=price, last_price=quote.last,
        bid=quote.bid, ask=quote.ask, notional=None if price is None else abs(amount) * price, mark_at=quote.at,
    )  # fmt: skip


def ignored_assets(spec: AccountSpec) -> frozenset[str]:
    """Assets that the Account document leaves out of the equity."""
    option = spec.options.get("ignore_assets", ())
    return frozenset(map(str, option)) if isinstance(option, Sequence) and not isinstance(option, str) else frozenset()


def unpriced_bounds(spec: AccountSpec) -> dict[str, Decimal]:
    """Asset → upper bound of the value of all of it, in the account's currency, from the Account document.

    ValueError for an option `unpriced` of another form.
    """
    option = spec.options.get("unpriced", {})
    wrong = ValueError("option unpriced maps assets to the most that all of it is worth, as in unpriced: {PUMP: 250}")
    if not isinstance(option, Mapping):
        raise wrong
    try:
        found = {str(asset): decimal(bound) for asset, bound in option.items()}
    except UnreadableError as error:
        raise ValueError(f"{wrong}; {error}") from None
    bounds = {asset: bound for asset, bound in found.items() if bound is not None and bound >= 0}
    if len(bounds) < len(option):
        raise wrong
    return bounds


def unpriced_text(assets: Sequence[str], spec: AccountSpec, why: str) -> str:
    """The message for assets without a price, with the cause `why` and what to do about them."""
    return (
        f"{why} for {', '.join(assets)} in {spec.currency}, so the account's equity is unknown; "
        "list assets to leave out in options: {ignore_assets: […]}, "
        f"or upper bounds of their value in options: {{unpriced: {{ASSET: VALUE}}}}, up to {UNPRICED_SHARE:%} in all"
    )
