"""Currency conversion by the venues' own prices: a quorum that agrees, else the declared rate.

A venue prices a currency in the `rates` of its accounts (one unit of the account's currency) and in their `balances`
(one unit of the asset in the account's currency), in either direction. The prices of one venue count once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from statistics import median

from msgspec import Struct

from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.words import ReferenceCurrency
from killswitch.valuation.position_measures import ZERO

ONE = Decimal(1)


class Conversion(Struct, frozen=True):
    """`rate`: one unit of the currency in the reference currency; None with the reason in `unknown`."""

    rate: Decimal | None
    unknown: str | None = None


def conversion(currency: str, reference: ReferenceCurrency, accounts: Iterable[AccountSnapshot]) -> Conversion:
    """The rate of `currency` to the reference currency.

    `accounts`: the fresh accounts of the snapshot. The declared rate applies wherever too few venues agree.
    """
    if currency == reference.currency:
        return Conversion(ONE)
    prices = prices_by_venue(currency, reference.currency, accounts)
    agreed = agreed_price(prices, reference)
    if agreed is None:
        agreed = dict(reference.declared).get(currency)
    if agreed is not None:
        return Conversion(agreed)
    quotes = [f"{venue} {price.normalize():f}" for venue, price in sorted(prices.items())]
    seen = ", ".join(quotes) or "no venue reports one"
    why = f"{reference.venues} venues within {(reference.within * 100).normalize():f}% of each other are required"
    return Conversion(None, f"the price of {currency} in {reference.currency} is unknown: {why} ({seen})")


def agreed_price(prices: Mapping[str, Decimal], reference: ReferenceCurrency) -> Decimal | None:
    """The median of the venues that agree; None if they are too few.

    Agreement is measured against the median of all venues, so that a single outlier of three is ignored, and neither of
    two that differ by more than `within` is used.
    """
    if len(prices) < reference.venues:
        return None
    middle = median(prices.values())
    # two prices that are `within` apart each differ from their median by half of that
    reach = middle * reference.within / (2 if len(prices) % 2 == 0 else 1)
    agreeing = [price for price in prices.values() if abs(price - middle) <= reach]
    return median(agreeing) if len(agreeing) >= reference.venues else None


def prices_by_venue(currency: str, other: str, accounts: Iterable[AccountSnapshot]) -> dict[str, Decimal]:
    """Venue → the price of one unit of `currency` in `other`; the median of several prices of a venue."""
    found: dict[str, list[Decimal]] = {}
    for account in accounts:
        if account.quality == "ok":
            prices = [price for price in _prices(account, currency, other) if sane(price) and price > ZERO]
            found.setdefault(account.venue, []).extend(prices)
    return {venue: median(prices) for venue, prices in found.items() if prices}


def _prices(account: AccountSnapshot, currency: str, other: str) -> Iterator[Decimal]:
    quotes = [(account.currency, rate.currency, rate.price) for rate in account.rates or ()]
    quotes += [(each.asset, account.currency, each.price) for each in account.balances or () if each.price is not None]
    for unit, priced_in, price in quotes:
        if (unit, priced_in) == (currency, other):
            yield price
        elif (unit, priced_in) == (other, currency) and sane(price) and price > ZERO:
            yield ONE / price
