"""Binance's user data stream: changes of positions and orders, as they happen."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.faults.exchange import ZERO
from tests.wire.binance import payloads as payloads
from tests.wire.server import Ask, messages

if TYPE_CHECKING:
    from tests.wire.binance.venue import BinanceWire


async def serve(wire: BinanceWire, socket: web.WebSocketResponse, ask: Ask, updated: asyncio.Event) -> None:
    """Push every change until the client disconnects. A listen key that was never issued gets nothing."""
    key = ask.params.get("listenKey") or ask.path.rpartition("/")[2]
    if key not in wire.listen_keys:
        await socket.close(code=1008, message=b"Invalid listenKey")
        return
    receiver = asyncio.ensure_future(messages(socket, lambda message: _answered(socket, message)))
    try:
        await _push_changes(wire, socket, updated, receiver)
    finally:
        receiver.cancel()
        await asyncio.gather(receiver, return_exceptions=True)


async def _answered(socket: web.WebSocketResponse, message: dict[str, Any]) -> None:
    if "id" in message:
        await socket.send_json({"result": None, "id": message["id"]})


async def _push_changes(
    wire: BinanceWire, socket: web.WebSocketResponse, updated: asyncio.Event, receiver: asyncio.Future[None]
) -> None:
    orders, held = _orders(wire), dict(wire.exchange.held)
    while not receiver.done():
        next_update = asyncio.ensure_future(updated.wait())
        both: set[asyncio.Future[Any]] = {next_update, receiver}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            next_update.cancel()
        updated.clear()
        new_orders, new_held = _orders(wire), dict(wire.exchange.held)
        events = [_order_event(wire, row) for name, row in new_orders.items() if row != orders.get(name)]
        changed = [key for key, amount in new_held.items() if amount != held.get(key, ZERO)]
        if changed:
            rows = [payloads.position_row(wire.exchange, wire.book(), key, wire.now_ms()) for key in changed]
            events.append(_account_event(wire, rows))
        orders, held = new_orders, new_held
        for event in events:
            if not socket.closed:
                await socket.send_str(json.dumps(event))


def _orders(wire: BinanceWire) -> dict[str, dict[str, Any]]:
    return {it.id: payloads.order_row(wire.exchange, it, 0) for it in wire.exchange.orders.values()}


def _order_event(wire: BinanceWire, row: dict[str, Any]) -> dict[str, Any]:
    now = wire.now_ms()
    done = "TRADE" if "FILLED" in row["status"] else row["status"]
    return {
        "e": "ORDER_TRADE_UPDATE", "E": now, "T": now,
        "o": {
            "s": row["symbol"], "c": row["clientOrderId"], "S": row["side"], "o": row["type"], "f": row["timeInForce"],
            "q": row["origQty"], "p": row["price"], "ap": row["avgPrice"], "sp": "0", "x": done, "X": row["status"],
            "i": row["orderId"], "l": row["executedQty"], "z": row["executedQty"], "L": row["avgPrice"], "N": "USDT",
            "n": "0", "T": now, "t": 1, "b": "0", "a": "0", "m": False, "R": row["reduceOnly"],
            "wt": "CONTRACT_PRICE", "ot": row["origType"], "ps": row["positionSide"], "cp": False, "rp": "0",
        },
    }  # fmt: skip


def _account_event(wire: BinanceWire, rows: list[dict[str, Any]]) -> dict[str, Any]:
    now = wire.now_ms()
    return {
        "e": "ACCOUNT_UPDATE", "E": now, "T": now,
        "a": {
            "m": "ORDER",
            "B": [
                {"a": asset, "wb": str(amount), "cw": str(amount), "bc": "0"}
                for asset, amount in wire.ledger.wallets.items()
            ],
            "P": [
                {"s": row["symbol"], "pa": row["positionAmt"], "ep": row["entryPrice"], "cr": "0",
                 "up": row["unRealizedProfit"],
                 "mt": "cross", "iw": "0", "ps": row["positionSide"], "bep": row["entryPrice"]}
                for row in rows
            ],
        },
    }  # fmt: skip
