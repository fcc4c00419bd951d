"""Over which markets a spot holding becomes money.

Money is the account's currency and the declared stable coins. A holding that has an open market against money is sold
there. One that has none is sold against an asset that has (the first of `via`), and then what that sale brought, and
nothing of the asset that was there before (C19). A halted or delisted symbol has a way around it where there is one
(C12).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from msgspec import Struct

from killswitch.graph.unwinding import SpotRule
from killswitch.model.snapshot import AccountSnapshot
from killswitch.planning.rounding import SHUT
from killswitch.signals.view import Instruments

_PARTS = re.compile(r"([^/_:-]+)[/_-]([^/_:-]+)")

Markets = Mapping[tuple[str, str], str]
"""(base, quote) → the symbol of a market that takes orders."""


class Route(Struct, frozen=True):
    """Sell on `first`; where `second` is given, sell there the `via` that this has brought."""

    first: str
    second: str | None = None
    via: str | None = None


@lru_cache(maxsize=16_384)
def base_of(symbol: str) -> str:
    """The base asset: `BTC` of `BTC/USDT:USDT`, `BTC_USDT` and `BTC-USDT`."""
    return re.split("[/_-]", symbol, maxsplit=1)[0]


@lru_cache(maxsize=16_384)
def quote_of(symbol: str) -> str | None:
    """The asset that the symbol is priced in; None where its name does not say."""
    found = _PARTS.match(symbol)
    return None if found is None else found[2]


def open_markets(account: AccountSnapshot, instruments: Instruments) -> Markets:
    """The spot markets of the account that take orders, as far as its instruments are known."""
    found: dict[tuple[str, str], str] = {}
    for (name, symbol), instrument in instruments.items():
        quote = quote_of(symbol) if name == account.account and ":" not in symbol else None
        if quote is not None and instrument.state not in SHUT:
            found.setdefault((base_of(symbol), quote), symbol)
    return found


def route(symbol: str, state: str | None, currency: str, markets: Markets, spot: SpotRule) -> Route:
    """How to sell a holding that the venue calls `symbol`, whose own market is in `state` (None: unknown).

    Its own market where that is open and brings money; else another that does; else two hops; else its own all the
    same, so that whoever sends is told what the venue says.
    """
    base, quote = base_of(symbol), quote_of(symbol)
    money = dict.fromkeys((currency, *spot.stables))
    if quote is None or (quote in money and state not in SHUT):
        return Route(symbol)
    for asset in money:
        if (base, asset) in markets:
            return Route(markets[base, asset])
    for via in spot.via:
        first = symbol if via == quote and state not in SHUT else markets.get((base, via))
        second = next((markets[via, asset] for asset in money if (via, asset) in markets), None)
        if via != base and first is not None and second is not None:
            return Route(first, second, via)
    return Route(symbol)


def never_sold(market: str, symbol: str, spot: SpotRule) -> bool:
    """Whether a holding in an account of this `market` is one that the unwinding keeps."""
    return market == "spot" and base_of(symbol) in (*spot.stables, *spot.keep)
