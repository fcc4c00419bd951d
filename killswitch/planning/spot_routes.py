"""Spot routes: the markets over which a spot holding is sold for money.

Money is the account's currency and the declared stable coins. A holding with an open market against money is sold
there. Without one it is sold against an intermediate asset (the first usable of `via`), and then the proceeds of that
sale are sold, without the previous holding of the asset (C19). A halted or delisted symbol is bypassed if possible
(C12).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache

from msgspec import Struct

from killswitch.graph.unwinding import SpotRule
from killswitch.model.effects import Intent
from killswitch.model.snapshot import AccountSnapshot
from killswitch.planning.rounding import CLOSED_STATES
from killswitch.valuation.scope_view import Instruments

_PARTS = re.compile(r"([^/_:-]+)[/_-]([^/_:-]+)")

Markets = Mapping[tuple[str, str], str]
"""(base, quote) → symbol of a market that accepts orders."""


class SpotRoute(Struct, frozen=True):
    """Sell on `first`; if `second` is given, sell the resulting `via` there."""

    first: str
    second: str | None = None
    via: str | None = None


@lru_cache(maxsize=16_384)
def base_of(symbol: str) -> str:
    """Base asset of a symbol: `BTC` of `BTC/USDT:USDT`, `BTC_USDT` and `BTC-USDT`."""
    return re.split("[/_-]", symbol, maxsplit=1)[0]


def is_named(symbol: str, names: Collection[str] | None) -> bool:
    """Whether the `symbols` of an action, which are symbols or base assets, include this one; None includes all."""
    return names is None or symbol in names or base_of(symbol) in names


@lru_cache(maxsize=16_384)
def quote_of(symbol: str) -> str | None:
    """Quote asset of a symbol; None if its name does not contain one."""
    found = _PARTS.match(symbol)
    return None if found is None else found[2]


def asset_paid_by(intent: Intent) -> str | None:
    """The asset that a sale on a spot market pays out, which enlarges a holding of it; None for any other order."""
    is_sale = intent.side == "sell" and intent.position_side == "long" and intent.purpose != "hedge"
    return quote_of(intent.symbol) if is_sale and ":" not in intent.symbol else None


def open_markets(account: AccountSnapshot, instruments: Instruments) -> Markets:
    """Spot markets of the account that accept orders, as far as its instruments are known."""
    found: dict[tuple[str, str], str] = {}
    for (name, symbol), instrument in instruments.items():
        quote = quote_of(symbol) if name == account.account and ":" not in symbol else None
        if quote is not None and instrument.state not in CLOSED_STATES:
            found.setdefault((base_of(symbol), quote), symbol)
    return found


def route(symbol: str, state: str | None, currency: str, markets: Markets, spot: SpotRule) -> SpotRoute:
    """Find the route of a holding listed as `symbol`, whose own market is in `state` (None: unknown).

    Preference: its own market, if open and quoted in money; another market quoted in money; two hops; its own market
    regardless, so that the venue's refusal is reported.
    """
    base, quote = base_of(symbol), quote_of(symbol)
    money = dict.fromkeys((currency, *spot.stables))
    if quote is None or (quote in money and state not in CLOSED_STATES):
        return SpotRoute(symbol)
    for asset in money:
        if (base, asset) in markets:
            return SpotRoute(markets[base, asset])
    for via in spot.via:
        first = symbol if via == quote and state not in CLOSED_STATES else markets.get((base, via))
        second = next((markets[via, asset] for asset in money if (via, asset) in markets), None)
        if via != base and first is not None and second is not None:
            return SpotRoute(first, second, via)
    return SpotRoute(symbol)


def is_never_sold(market: str, symbol: str, spot: SpotRule) -> bool:
    """Whether the unwinding never sells this holding of an account with this `market`."""
    return market == "spot" and base_of(symbol) in (*spot.stables, *spot.keep)
