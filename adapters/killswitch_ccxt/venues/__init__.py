"""The dialects, by exchange. A module is imported when one of its exchanges is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Final

from killswitch_ccxt.dialect import Dialect

MODULES: Final[Mapping[str, str]] = {
    "binanceusdm": "binance.usdm.BinanceUsdm",
    "binancecoinm": "binance.coinm.BinanceCoinm",
    "binance": "binance.spot.BinanceSpot",
    "bybit": "bybit.dialect.Bybit",
    "bitget": "bitget.dialect.Bitget",
    "kraken": "kraken.dialect.Kraken",
    "krakenfutures": "krakenfutures.dialect.KrakenFutures",
    "mexc": "mexc.dialect.Mexc",
    "okx": "okx.dialect.Okx",
    "deribit": "deribit.dialect.Deribit",
    "hyperliquid": "hyperliquid.dialect.Hyperliquid",
}
"""Exchange → the module in this package, and the class of the dialect in it."""


def dialect_of(exchange: str) -> type[Dialect]:
    """The dialect of an exchange; the generic one where it has no module of its own."""
    if exchange not in MODULES:
        from killswitch_ccxt.venues.generic import generic

        return generic(exchange)
    module, _, name = MODULES[exchange].rpartition(".")
    found: type[Dialect] = getattr(importlib.import_module(f"killswitch_ccxt.venues.{module}"), name)
    return found
