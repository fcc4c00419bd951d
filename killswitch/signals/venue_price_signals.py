"""Venue price signals: whether the venues of a scope agree on the price of a market, or of a currency."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from killswitch.signals.arguments import SYMBOL, Argument
from killswitch.signals.declaration import NOT_NEGATIVE, SignalSpec, condition
from killswitch.signals.history.windows import UNKNOWN, known

if TYPE_CHECKING:
    from killswitch.signals.history.windows import Interval
    from killswitch.valuation.market_prices import VenuePrice
    from killswitch.valuation.scope_view import ScopeView


def _venue_prices(view: ScopeView, market: str) -> list[VenuePrice]:
    from killswitch.valuation.market_prices import market_name, prices_by_venue

    prices = prices_by_venue(market_name(market) or market, view.facts, view.as_of, view.stale_after)
    return list(prices.values())


def _venue_gap(view: ScopeView, base: str) -> Interval:
    from killswitch.valuation.market_prices import ONE_TIME

    prices = _venue_prices(view, base)
    newest = max((each.at for each in prices), default=0)
    fresh = [each.price for each in prices if newest - each.at <= ONE_TIME]
    if len(fresh) < 2:
        return UNKNOWN
    middle = median(fresh)
    if len(fresh) == 2:
        return known(abs(fresh[0] - fresh[1]) / middle)
    return known(max(abs(price - middle) for price in fresh) / middle)


def _quorum(view: ScopeView, symbol: str) -> Interval:
    from killswitch.valuation.market_prices import PRICE_TOLERANCE

    prices = [each.price for each in _venue_prices(view, symbol)]
    if not prices:
        return 0.0, 0.0
    middle, within = median(prices), PRICE_TOLERANCE if view.reference is None else view.reference.within
    return known(sum(abs(price - middle) <= within * middle for price in prices))


def _peg_deviation(view: ScopeView, currency: str) -> Interval:
    price = view.agreed_price(currency)
    return UNKNOWN if price is None else known(abs(price - 1))


BASE = Argument(
    key="base",
    kind="name",
    meaning="Base and quote, whichever kind of market: `BTC/USDT` is also `BTC/USDT:USDT` and `BTC_USDT`.",
    example="BTC/USDT",
)
CURRENCY = Argument(
    key="currency",
    kind="name",
    meaning="A currency, as the venues write it.",
    example="USDC",
    is_priced=True,
)

SIGNALS: tuple[SignalSpec, ...] = (
    condition(
        name="market.venue_gap",
        arguments=(BASE,),
        unit="fraction",
        meaning=(
            "Largest distance of a venue's mark from the median of the scope's venues ÷ that median, of two venues "
            "their distance ÷ their middle. Marks within 5 s of the newest one count, of dated contracts none. Quotes"
            " in USD, USDT and USDC differ by the peg, and are different markets."
        ),
        partly_known="never",
        unknown="fewer than two venues have a mark of that time",
        range=NOT_NEGATIVE,
        reader=lambda _, view, base: _venue_gap(view, base),
    ),
    condition(
        name="market.quorum",
        arguments=(SYMBOL,),
        unit="count",
        meaning=(
            "Number of the scope's venues with a mark of this base and quote that is not older than `stale_after` and"
            " within `within` of the reference currency of their median; 5% where the policy declares none. A venue "
            "that cannot be read does not agree."
        ),
        partly_known="never",
        unknown="never",
        range=NOT_NEGATIVE,
        reader=lambda _, view, symbol: _quorum(view, symbol),
    ),
    condition(
        name="market.peg_deviation",
        arguments=(CURRENCY,),
        unit="fraction",
        meaning=(
            "|p − 1|, with p the price of the currency in the policy's reference currency: the median of the venues "
            "within its `within` of their median. Declared rates are no source."
        ),
        partly_known="never",
        unknown="fewer than two venues agree; the policy declares no reference currency, or it is this one",
        range=NOT_NEGATIVE,
        reader=lambda _, view, currency: _peg_deviation(view, currency),
    ),
)
