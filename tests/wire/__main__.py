"""A wire-level venue as a program: `python -m tests.wire binance --position BTC/USDT:USDT=2 …`.

Prints one line of JSON with the addresses of its requests, its streams and its control, and runs until it is stopped.
The control changes the world: `POST /price?symbol=…&price=…`, `POST /equity?value=…`,
`POST /trade?symbol=…&side=…&by=…`, `POST /order?symbol=…&side=…&amount=…` (a market order of another client, or with
`&falls_to=…` a resting stop; with `&name=…` an order of a bot under this client order id, which may open a position,
and rests with `&price=…`), `POST /hang_up` (the venue closes its streams), `GET /state`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal

from aiohttp import web

from killswitch.model.snapshot import OrderSide, Side
from killswitch.model.venue import OrderRequest
from tests.faults.exchange import Exchange, Key, Market, Mode
from tests.wire.alpaca.venue import AlpacaWire
from tests.wire.server import WireVenue

VENUES: Final = {
    "binance": ("tests.wire.binance.venue", "BinanceWire"),
    "bybit": ("tests.wire.bybit.venue", "BybitWire"),
    "bitget": ("tests.wire.bitget.venue", "BitgetWire"),
    "okx": ("tests.wire.okx.venue", "OkxWire"),
    "krakenfutures": ("tests.wire.krakenfutures.venue", "KrakenFuturesWire"),
    "mexc": ("tests.wire.mexc.venue", "MexcWire"),
    "alpaca": ("tests.wire.alpaca.venue", "AlpacaWire"),
}


def server_of(venue: str) -> Callable[..., WireVenue]:
    """The class of a wire-level venue by name."""
    module, name = VENUES[venue]
    found: Callable[..., WireVenue] = getattr(importlib.import_module(module), name)
    return found


def now() -> tuple[float, datetime]:
    """The real time."""
    return time.monotonic(), datetime.now(UTC)


def main(arguments: list[str]) -> int:
    """Serve until a signal ends the program."""
    parser = argparse.ArgumentParser(prog="python -m tests.wire")
    parser.add_argument("venue", choices=VENUES)
    parser.add_argument("--position", action="append", default=[], metavar="SYMBOL=±CONTRACTS")
    parser.add_argument("--symbol", action="append", default=[], help="a market without a position")
    parser.add_argument("--orders", type=int, default=0, help="number of resting limit orders, spread over the symbols")
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--equity", type=Decimal, default=Decimal(100_000))
    parser.add_argument("--mode", choices=["one_way", "hedge", "spot"], default="one_way")
    parser.add_argument("--enforce", action="store_true", help="hold clients to the documented limits")
    asyncio.run(_serve(parser.parse_args(arguments)))
    return 0


async def _serve(arguments: argparse.Namespace) -> None:
    exchange = exchange_of(arguments.position, arguments.symbol, arguments.orders, arguments.mode)
    server = server_of(arguments.venue)
    wire = await server(
        exchange, latency=arguments.latency, enforced=arguments.enforce, equity=arguments.equity
    ).start()
    if isinstance(wire, AlpacaWire):
        wire.round_the_clock = True  # the tests run at any hour
    control = await _control(wire)
    print(json.dumps({"address": wire.address, "address_ws": wire.address_ws, "control": control[1]}), flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await control[0].cleanup()
    await wire.stop()


def exchange_of(positions: list[str], symbols: list[str], orders: int, mode: Mode) -> Exchange:
    """An exchange on real time. `positions`: `SYMBOL=±CONTRACTS` each."""
    book: dict[Key, Decimal] = {}
    for each in positions:
        symbol, _, amount = each.rpartition("=")
        side: Side = "short" if amount.startswith("-") else "long"
        book[symbol, side] = abs(Decimal(amount))
    markets = [Market(symbol, price=Decimal(100), maximum=Decimal(100_000)) for symbol in dict.fromkeys(
        [*symbols, *(symbol for symbol, _ in book)]
    )]  # fmt: skip
    exchange = Exchange(book, now, mode=mode, markets=markets)
    names = list(exchange.markets)
    for number in range(orders):
        exchange.rest(names[number % len(names)], "buy", Decimal(1), type="limit", price=Decimal(50 + number % 40))
    return exchange


async def _control(wire: WireVenue) -> tuple[web.AppRunner, str]:
    exchange = wire.exchange

    async def price(request: web.Request) -> web.Response:
        exchange.reprice(request.query["symbol"], Decimal(request.query["price"]))
        return web.json_response({})

    async def equity(request: web.Request) -> web.Response:
        wire.set_equity(Decimal(request.query["value"]))
        return web.json_response({})

    async def trade(request: web.Request) -> web.Response:
        side: Side = "short" if request.query["side"] == "short" else "long"
        exchange.trade((request.query["symbol"], side), Decimal(request.query["by"]))
        return web.json_response({})

    async def order(request: web.Request) -> web.Response:
        query = request.query
        symbol, amount = query["symbol"], Decimal(query["amount"])
        side: OrderSide = "buy" if query["side"] == "buy" else "sell"
        if "falls_to" in query:
            stop: dict[str, Any] = {
                "reduce_only": True,
                "trigger_price": Decimal(query["falls_to"]),
                "trigger_when": "falls",
            }
            exchange.rest(symbol, side, amount, **stop)
        elif "name" in query:
            opened: Side = "long" if side == "buy" else "short"
            price = Decimal(query["price"]) if "price" in query else None
            kind: Literal["market", "limit"] = "market" if price is None else "limit"
            exchange.place(OrderRequest(query["name"], symbol, side, opened, amount, False, kind, price), by="hand")
        else:
            name = f"hand-{len(exchange.orders)}"
            held_by: Side = "long" if side == "sell" else "short"
            exchange.place(OrderRequest(name, symbol, side, held_by, amount, reduce_only=True), by="hand")
        return web.json_response({})

    async def hang_up(_: web.Request) -> web.Response:
        await asyncio.gather(*(socket.close() for socket in list(wire.sockets)))
        return web.json_response({})

    async def state(_: web.Request) -> web.Response:
        held: dict[str, Any] = {f"{symbol} {side}": str(amount) for (symbol, side), amount in exchange.held.items()}
        return web.json_response(
            {"held": held, "orders": len(exchange.orders), "resting": len(exchange.resting()),
             "rests": sorted(it.client_order_id or "" for it in exchange.resting()),
             "sent": [[it.symbol, it.side, str(it.amount), it.reduce_only] for it in exchange.orders.values()
                      if it.by == "ours"],
             "requests": len(wire.seen), "unspoken": sorted(set(wire.refusals)), "turned": exchange.turned,
             "calls": Counter(it.call for it in wire.seen if it.call is not None), "sockets": len(wire.sockets),
             # Only some venues have these: running timers, subscribed streams, broker suspensions.
             "timed": getattr(wire, "timed", ()), "subscribed": sorted(getattr(wire, "subscribed", ())),
             "suspensions": getattr(wire, "suspensions", ()), "at": now()[0]}
        )  # fmt: skip

    app = web.Application()
    app.add_routes(
        [
            *(web.post(f"/{handler.__name__}", handler) for handler in (price, equity, trade, order, hang_up)),
            web.get("/state", state),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
