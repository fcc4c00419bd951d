"""The dialects, by exchange. A module is imported when one of its exchanges is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Final

from killswitch_ccxt.dialect import Dialect

MODULES: Final[Mapping[str, str]] = {
    "binanceusdm": "binance.usdm",
    "binancecoinm": "binance.coinm",
    "binance": "binance.spot",
    "bybit": "bybit.dialect",
    "bitget": "bitget.dialect",
    "kraken": "kraken.dialect",
    "krakenfutures": "krakenfutures.dialect",
    "mexc": "mexc.dialect",
    "okx": "okx.dialect",
    "deribit": "deribit.dialect",
    "hyperliquid": "hyperliquid.dialect",
}
"""Exchange → the module in this package whose `DIALECTS` has it."""


def dialect_of(exchange: str) -> type[Dialect]:
    """The dialect of an exchange; the generic one where it has no module of its own."""
    module = MODULES.get(exchange)
    if module is None:
        from killswitch_ccxt.venues.generic import generic

        return generic(exchange)
    found: Mapping[str, type[Dialect]] = importlib.import_module(f"killswitch_ccxt.venues.{module}").DIALECTS
    return found[exchange]
