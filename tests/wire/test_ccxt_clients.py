"""ccxt's own clients, without our adapter, at the wire-level venues: what the venues speak is what ccxt understands."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import ccxt.async_support as ccxt
import pytest

from tests.faults.exchange import Exchange, Market
from tests.virtual_time import VirtualTime
from tests.wire.__main__ import server_of
from tests.wire.krakenfutures.venue import SECRET as KRAKEN_SECRET
from tests.wire.server import KEY, PASSPHRASE, SECRET, WireVenue

D = Decimal
Credentials = dict[str, str]


def _binance(wire: WireVenue, credentials: Credentials) -> Any:
    client = ccxt.binanceusdm(credentials)
    client.has["fetchCurrencies"] = False
    for name, url in client.urls["api"].items():
        if isinstance(url, str):
            client.urls["api"][name] = wire.address + "/" + url.split("/", 3)[3]
    return client


def _bybit(wire: WireVenue, credentials: Credentials) -> Any:
    client = ccxt.bybit(credentials)
    client.options["fetchMarkets"]["types"] = ["linear"]
    client.urls["api"] |= {"public": wire.address, "private": wire.address}
    return client


def _bitget(wire: WireVenue, credentials: Credentials) -> Any:
    client = ccxt.bitget(credentials)
    client.has["fetchCurrencies"] = False
    client.options |= {"uta": False, "defaultType": "swap"}
    client.options["fetchMarkets"]["types"] = ["swap"]
    client.urls["api"] = dict.fromkeys(client.urls["api"], wire.address)
    return client


def _krakenfutures(wire: WireVenue, credentials: Credentials) -> Any:
    client = ccxt.krakenfutures(credentials | {"secret": KRAKEN_SECRET})
    client.urls["api"] = wire.urls()  # type: ignore[attr-defined] # only Kraken's paths are apart
    return client


def _mexc(wire: WireVenue, credentials: Credentials) -> Any:
    client = ccxt.mexc(credentials | {"options": {"defaultType": "swap"}})
    client.nonce = wire.now_ms
    client.urls["api"]["spot"] = {"public": wire.address, "private": wire.address}
    client.urls["api"]["contract"] = {
        "public": f"{wire.address}/api/v1/contract",
        "private": f"{wire.address}/api/v1/private",
    }
    return client


def _okx(wire: WireVenue, credentials: Credentials) -> Any:
    client = ccxt.okx(credentials | {"options": {"fetchMarkets": {"types": ["swap"]}}})
    client.urls["api"]["rest"] = wire.address
    return client


CLIENTS: dict[str, Callable[[WireVenue, Credentials], Any]] = {
    "binance": _binance,
    "bybit": _bybit,
    "bitget": _bitget,
    "krakenfutures": _krakenfutures,
    "mexc": _mexc,
    "okx": _okx,
}


@pytest.mark.parametrize("name", CLIENTS)
def test_ccxt_reads_a_position_and_closes_it_with_one_signed_order(name: str) -> None:
    """Two contracts are read and sold reduce-only at market; a client with another key is refused."""
    time = VirtualTime()
    symbol = "BTC/USD:USD" if name == "krakenfutures" else "BTC/USDT:USDT"
    exchange = Exchange(
        {(symbol, "long"): D(2)}, lambda: (time.monotonic(), time.now()),
        markets=[Market(symbol, D(50_000), step=D(1), minimum=D(1))],
    )  # fmt: skip
    wire = server_of(name)(exchange)

    def client_of(key: str) -> Any:
        client = CLIENTS[name](wire, {"apiKey": key, "secret": SECRET, "password": PASSPHRASE})
        client.enableRateLimit = False
        client.number = Decimal
        client.milliseconds = lambda: int(time.now().timestamp() * 1000)
        return client

    async def main() -> None:
        await wire.start()
        client, stranger = client_of(KEY), client_of("another")
        try:
            held = await client.fetch_positions()
            assert [(it["symbol"], it["side"], it["contracts"]) for it in held] == [(symbol, "long", D(2))]
            await client.create_order(symbol, "market", "sell", D(2), None, {"reduceOnly": True})
            assert exchange.held[symbol, "long"] == 0
            with pytest.raises(ccxt.AuthenticationError):
                await stranger.fetch_positions()
        finally:
            await client.close()
            await stranger.close()
            await wire.stop()

    time.run(main())
    assert wire.refusals == []
