"""What an Account document can ask of each exchange that has a dialect: plain data, to be read without ccxt."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from killswitch.model.words import Market

KEY_AND_SECRET: Final[Mapping[str, str]] = MappingProxyType({"key": "apiKey", "secret": "secret"})
WITH_PASSPHRASE: Final[Mapping[str, str]] = MappingProxyType({**KEY_AND_SECRET, "passphrase": "password"})
WALLET: Final[Mapping[str, str]] = MappingProxyType({"wallet_address": "walletAddress", "private_key": "privateKey"})


class Offered(NamedTuple):
    """`venue`: whose exchange it is, since some venues are several exchanges to ccxt."""

    venue: str
    markets: tuple[Market, ...]
    environments: tuple[str, ...] = ("production", "sandbox")
    credentials: Mapping[str, str] = KEY_AND_SECRET
    """Name in an Account document → name in ccxt. All are needed."""
    currencies: tuple[str, ...] | None = None
    """In which an account can be counted; None where that is not bound to a list."""
    keeps_apart: bool = False
    """Whether an account sees the positions of its own settlement currency only, as the wallets there are apart."""


OFFERED: Final[Mapping[str, Offered]] = {
    "binanceusdm": Offered("binance", ("swap", "future"), ("production", "demo")),
    "binancecoinm": Offered("binance", ("swap", "future"), ("production", "demo")),
    "binance": Offered("binance", ("spot", "margin"), ("production", "sandbox", "demo")),
    "bybit": Offered("bybit", ("swap", "future", "spot"), ("production", "sandbox", "demo")),
    "bitget": Offered(
        "bitget",
        ("swap", "future"),
        ("production", "sandbox", "demo"),
        WITH_PASSPHRASE,
        ("USDT", "USDC"),
        keeps_apart=True,
    ),
    "kraken": Offered("kraken", ("spot", "margin"), ("production",)),
    "krakenfutures": Offered("kraken", ("swap", "future")),
    "mexc": Offered("mexc", ("swap",), ("production",), keeps_apart=True),
    "okx": Offered("okx", ("swap", "future", "spot"), credentials=WITH_PASSPHRASE),
    "deribit": Offered("deribit", ("swap", "future"), keeps_apart=True),
    "hyperliquid": Offered("hyperliquid", ("swap",), credentials=WALLET),
}


def elsewhere(exchange: str, market: str) -> tuple[str, ...]:
    """The exchanges under which the same venue has that market."""
    here = OFFERED.get(exchange)
    if here is None:
        return ()
    same = [name for name, each in OFFERED.items() if name != exchange and each.venue == here.venue]
    return tuple(name for name in same if market in OFFERED[name].markets)
