"""What one currency is worth in another by the venues' own prices: a quorum that agrees, else what is declared.

A venue prices a currency in the `rates` of its accounts (one unit of the account's currency) and in their `balances`
(one unit of the asset in the account's currency), either way round. Prices of one venue are one voice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from statistics import median

from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.words import ReferenceCurrency
from killswitch.signals.position import ZERO

ONE = Decimal(1)


@dataclass(frozen=True, slots=True)
class Conversion:
    """`rate`: one unit of the currency in the reference currency; None where `unknown` says why there is none."""

    rate: Decimal | None
    unknown: str | None = None


def conversion(currency: str, reference: ReferenceCurrency, accounts: Iterable[AccountSnapshot]) -> Conversion:
    """What one unit of `currency` is worth in the reference currency.

    `accounts`: those of the snapshot that are not too old to count. What is declared is taken wherever too few venues
    agree: where they say nothing, and where they disagree.
    """
    if currency == reference.currency:
        return Conversion(ONE)
    prices = prices_by_venue(currency, reference.currency, accounts)
    agreed = agreed_price(prices, reference)
    if agreed is None:
        agreed = dict(reference.declared).get(currency)
    if agreed is not None:
        return Conversion(agreed)
    seen = (
        ", ".join(f"{venue} {price.normalize():f}" for venue, price in sorted(prices.items())) or "no venue gives one"
    )
    why = f"{reference.venues} venues within {(reference.within * 100).normalize():f}% of each other are wanted"
    return Conversion(None, f"the price of {currency} in {reference.currency} is not known: {why} ({seen})")


def agreed_price(prices: Mapping[str, Decimal], reference: ReferenceCurrency) -> Decimal | None:
    """The median of the venues that agree; None where they are too few.

    Agreement is with the median of all, so that of three a single one that is off counts for nothing, and of two that
    are further apart than `within` neither is believed.
    """
    if len(prices) < reference.venues:
        return None
    middle = median(prices.values())
    # a pair that is just `within` apart lies half of that from its median
    reach = middle * reference.within / (2 if len(prices) % 2 == 0 else 1)
    agreeing = [price for price in prices.values() if abs(price - middle) <= reach]
    return median(agreeing) if len(agreeing) >= reference.venues else None


def prices_by_venue(currency: str, other: str, accounts: Iterable[AccountSnapshot]) -> dict[str, Decimal]:
    """Venue → the price of one unit of `currency` in `other`; of several by one venue the median."""
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
