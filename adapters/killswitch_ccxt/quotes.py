"""What a symbol costs right now, of ccxt's tickers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from killswitch_ccxt.numbers import instant, positive


@dataclass(frozen=True, slots=True)
class Quote:
    """Prices in quote units per base unit, `at` a venue time; None is unknown."""

    bid: Decimal | None = None
    ask: Decimal | None = None
    last: Decimal | None = None
    index: Decimal | None = None
    mark: Decimal | None = None
    at: datetime | None = None


def price_of(quote: Quote) -> Decimal | None:
    """What a holding is priced with: the last price, or the middle of the best two; None where neither is told."""
    if quote.last is not None or quote.bid is None or quote.ask is None:
        return quote.last
    return (quote.bid + quote.ask) / 2


def quotes(tickers: Mapping[str, Mapping[str, Any]]) -> dict[str, Quote]:
    """Symbol → its quote."""
    return {
        symbol: Quote(
            positive(row.get("bid")), positive(row.get("ask")), positive(row.get("last")),
            positive(row.get("indexPrice")), positive(row.get("markPrice")),
            instant(row.get("timestamp")),
        )
        for symbol, row in tickers.items()
    }  # fmt: skip
