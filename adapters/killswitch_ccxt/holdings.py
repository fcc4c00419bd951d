"""A spot account: what it holds as positions, and what that is worth in its currency.

A holding without a price makes the worth unknown, and nothing else: what has a price is a position with its price, and
can be closed. Where a bound of what has none is known, and all of it is small, the worth is known too (ADR 0110).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from killswitch.model.snapshot import Balance, Position
from killswitch.model.venue import AccountSpec
from killswitch_ccxt.equity import Wealth, amounts
from killswitch_ccxt.instruments import Quote, price_of
from killswitch_ccxt.numbers import UnreadableError, decimal, total

Prices = Callable[[Sequence[str]], Awaitable[Mapping[str, Quote]]]
UNPRICED_SHARE: Final = Decimal("0.02")
"""The share of what has a price that everything without one may be worth, for the worth to be known."""
OLDEST_PRICE: Final = timedelta(hours=48)
"""How long the last price of a holding bounds what it is worth."""


class LastPrices:
    """What one unit of each holding was worth when its venue said so last."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Decimal, datetime]] = {}

    def note(self, symbol: str, price: Decimal, at: datetime) -> None:
        self._seen[symbol] = (price, at)

    def of(self, symbol: str, now: datetime) -> tuple[Decimal, datetime] | None:
        """The price and its time; None where there was none, or too long ago."""
        found = self._seen.get(symbol)
        return found if found is not None and now - found[1] <= OLDEST_PRICE else None

    def __contains__(self, symbol: str) -> bool:
        """Whether it had a price, however long ago."""
        return symbol in self._seen


@dataclass(frozen=True, slots=True)
class Market:
    """What holdings are valued by: the venue's rules, its prices, and those that it told before, at the time `now`."""

    rules: Mapping[str, Mapping[str, Any]]
    prices: Prices
    last: LastPrices
    now: datetime


@dataclass(frozen=True, slots=True)
class _Unpriced:
    """A holding that has no price now. `last`: the price that it had, and when; `bound`: what all of it is worth at
    most, None where nothing says so. `is_listed`: whether it has a market, or had one."""

    asset: str
    symbol: str
    amount: Decimal
    last: tuple[Decimal, datetime] | None
    bound: Decimal | None
    is_listed: bool

    @property
    def carried(self) -> Decimal:
        """What it counts with while the worth is known: its last price, or nothing."""
        return Decimal(0) if self.last is None else self.amount * self.last[0]


async def holdings(
    balance: Mapping[str, Any], spec: AccountSpec, market: Market
) -> tuple[Wealth, tuple[Position, ...]]:
    """Worth and positions of ccxt's unified `balance`; each holding is in the balances and in the positions.

    Each asset but the account's currency is a position in `ASSET/CURRENCY`, long, or short where it is owed. One that
    never had a market there is in the balances alone. What the account's option `ignore_assets` names is left out.
    """
    ignored = ignored_assets(spec)
    held = {asset: amount for asset, amount in amounts(balance).items() if asset not in ignored}
    symbols = {asset: f"{asset}/{spec.currency}" for asset in held if asset != spec.currency}
    listed = sorted(symbol for symbol in symbols.values() if symbol in market.rules)
    told = await market.prices(listed) if listed else {}
    found, worth, unpriced = [], held.get(spec.currency, Decimal(0)), []
    balances = [_balance(spec.currency, worth, Decimal(1))] if worth else []
    for asset, symbol in sorted(symbols.items()):
        quote, amount = told.get(symbol, Quote()), held[asset]
        price = price_of(quote)
        if price is None:
            unpriced.append(_unpriced(asset, symbol, amount, spec, market))
            continue
        market.last.note(symbol, price, quote.at or market.now)
        worth += amount * price
        balances.append(_balance(asset, amount, price, quote.at))
        found.append(_position(symbol, amount, price, quote))
    row = balance.get(spec.currency)
    free = decimal(row.get("free")) if isinstance(row, Mapping) else None
    bound = total(it.bound for it in unpriced)
    is_small = bound is not None and bound <= UNPRICED_SHARE * max(worth, Decimal(0))
    for it in unpriced:
        last = it.last if is_small else None
        balances.append(_balance(it.asset, it.amount, last and last[0], last and last[1]))
        if it.is_listed:
            quote = Quote(at=last and last[1])
            found.append(_position(it.symbol, it.amount, last and last[0], quote))
    carried = sum((it.carried for it in unpriced), Decimal(0))
    wealth = Wealth(
        worth + carried if is_small else None, free=free, balances=tuple(balances),
        unrealized=Decimal(0) if is_small else None, why=_why(unpriced, spec, is_small=is_small),
    )  # fmt: skip
    return wealth, tuple(sorted(found, key=lambda position: position.symbol))


def _unpriced(asset: str, symbol: str, amount: Decimal, spec: AccountSpec, market: Market) -> _Unpriced:
    """With what bounds it: the price that it had, else what the account's document says. What is owed may cost more
    than anybody has written down, so that only a price bounds it."""
    last, declared = market.last.of(symbol, market.now), most_of_unpriced(spec).get(asset)
    bound = abs(amount) * last[0] if last is not None else declared if amount > 0 else None
    is_listed = symbol in market.rules or symbol in market.last
    return _Unpriced(asset, symbol, amount, last, bound, is_listed)


def _why(unpriced: Sequence[_Unpriced], spec: AccountSpec, *, is_small: bool) -> str | None:
    """What is said of holdings without a price: how they are counted, or why the worth is unknown."""
    if not unpriced:
        return None
    if not is_small:
        each = [it.asset if it.bound is None else f"{it.asset} (at most {it.bound.normalize():f})" for it in unpriced]
        return unpriced_text(each, spec, "the venue has no price")
    each = [
        f"{it.asset}, counted as nothing and worth {it.bound} at most"
        if it.last is None
        else f"{it.asset}, counted at {it.last[0]} of {it.last[1]:%Y-%m-%d %H:%M}"
        for it in unpriced
    ]
    return f"the venue has no price in {spec.currency} for {'; '.join(each)}"


def _balance(asset: str, amount: Decimal, price: Decimal | None, at: datetime | None = None) -> Balance:
    """Amounts suffice: nothing that is held here has a profit that is not in its price."""
    return Balance(asset, amount, price, wallet=amount, equity=amount, price_at=at)


def _position(symbol: str, amount: Decimal, price: Decimal | None, quote: Quote) -> Position:
    return Position(
        symbol, "long" if amount > 0 else "short", abs(amount), mark_price=price, last_price=quote.last,
        bid=quote.bid, ask=quote.ask, notional=None if price is None else abs(amount) * price, mark_at=quote.at,
    )  # fmt: skip


def ignored_assets(spec: AccountSpec) -> frozenset[str]:
    """Assets that the account's document leaves out of its worth."""
    option = spec.options.get("ignore_assets", ())
    return frozenset(map(str, option)) if isinstance(option, Sequence) and not isinstance(option, str) else frozenset()


def most_of_unpriced(spec: AccountSpec) -> dict[str, Decimal]:
    """Asset → what all that is held of it is worth at most, in the account's currency, by the account's document.

    ValueError for an option `unpriced` of another form.
    """
    option = spec.options.get("unpriced", {})
    wrong = ValueError("option unpriced is asset: what all of it is worth at most, as in unpriced: {PUMP: 250}")
    if not isinstance(option, Mapping):
        raise wrong
    try:
        found = {str(asset): decimal(worth) for asset, worth in option.items()}
    except UnreadableError as error:
        raise ValueError(f"{wrong}; {error}") from None
    bounds = {asset: worth for asset, worth in found.items() if worth is not None and worth >= 0}
    if len(bounds) < len(option):
        raise wrong
    return bounds


def unpriced_text(assets: Sequence[str], spec: AccountSpec, why: str) -> str:
    """What is said of assets without a price, `why`, and what can be done about them."""
    return (
        f"{why} for {', '.join(assets)} in {spec.currency}, so the account's worth is unknown; "
        "name what is to be left out in options: {ignore_assets: […]}, "
        f"or what it is worth at most in options: {{unpriced: {{ASSET: WORTH}}}}, up to {UNPRICED_SHARE:%} in all"
    )
