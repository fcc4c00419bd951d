"""What a symbol costs right now, of ccxt's tickers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from killswitch_ccxt.numbers import positive


@dataclass(frozen=True, slots=True)
class Quote:
    """Prices in quote units per base unit; None is unknown."""

    bid: Decimal | None = None
    ask: Decimal | None = None
    last: Decimal | None = None
    index: Decimal | None = None
    mark: Decimal | None = None


def quotes(tickers: Mapping[str, Mapping[str, Any]]) -> dict[str, Quote]:
    """Symbol → its quote."""
    return {
        symbol: Quote(
            positive(row.get("bid")), positive(row.get("ask")), positive(row.get("last")),
            positive(row.get("indexPrice")), positive(row.get("markPrice")),
        )
        for symbol, row in tickers.items()
    }  # fmt: skip
