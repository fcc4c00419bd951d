"""Orders at Binance's futures systems: ordinary and conditional ones, which have lists of their own, and the timer."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from killswitch.model.parsing import Row, UnreadableError, object_at, required_number
from killswitch.model.venue import OrderRejectedError, OrderReport, OrderRequest
from killswitch_ccxt import orders
from killswitch_ccxt.dialect import BatchResults, PositionMode, is_stop
from killswitch_ccxt.errors import GoneError, row_error
from killswitch_ccxt.venues.binance import codes as binance_codes
from killswitch_ccxt.venues.binance import rows as binance_rows
from killswitch_ccxt.venues.binance.dialect import Binance

WORKING_TYPES: Final = {"mark": "MARK_PRICE", "last": "CONTRACT_PRICE"}
"""The price that triggers a conditional order → the venue's name of it; there is none for the index."""


class BinanceFuturesOrders(Binance):
    """The part of the dialect of USD-M and COIN-M that sends, finds and cancels orders."""

    def order_params(self, request: OrderRequest, mode: PositionMode) -> dict[str, Any]:
        """The venue's own parameters. In hedge mode it rejects reduce-only; the position side replaces it."""
        conditional = request.trigger_price is not None
        params: dict[str, Any] = {
            "symbol": self.id_of(request.symbol), "side": request.side.upper(), "type": _type(request),
            "quantity": format(request.amount, "f"), "newOrderRespType": "RESULT",
            "clientAlgoId" if conditional else "newClientOrderId": request.client_order_id,
        }  # fmt: skip
        if request.type == "limit":
            price = required_number(request.price, "the price of a limit order")
            params |= {"price": format(price, "f"), "timeInForce": request.time_in_force.upper()}
        if request.trigger_price is not None:
            trigger = {"triggerPrice": format(request.trigger_price, "f"), "workingType": _working_type(request)}
            params |= {"algoType": "CONDITIONAL"} | trigger
        if mode == "hedge":
            params["positionSide"] = request.position_side.upper()
        elif request.reduce_only:
            params["reduceOnly"] = "true"
        return params

    async def submit(self, request: OrderRequest, mode: PositionMode) -> OrderReport:
        params = self.checked_params(request, mode)
        endpoint = "PostOrder" if request.trigger_price is None else "PostAlgoOrder"
        return self.accepted_report(
            await self.call_endpoint(endpoint, params | self.window_of(request), places=True), request
        )

    def checked_params(self, request: OrderRequest, mode: PositionMode) -> dict[str, Any]:
        """The parameters of an order. OrderRejectedError where the venue's steps would change a number."""
        self.create_arguments(replace(request, trigger_price=None, trigger_when=None), mode)
        return self.order_params(request, mode)

    def accepted_report(self, row: Row, request: OrderRequest) -> OrderReport:
        """The report of an order that was sent, by the venue's row."""
        read = binance_rows.order(row, self.symbol_of)
        if read["symbol"] != request.symbol:
            other = f"{read['clientOrderId']} {read['symbol']}"
            raise UnreadableError(f"sent {request.client_order_id}, the answer is about {other}")
        return super().accepted_report(read, request)

    async def submit_batch(self, requests: Sequence[OrderRequest], mode: PositionMode) -> BatchResults:
        """The result of each order at its place. Conditional orders have no batch and are sent one by one."""
        if any(request.trigger_price is not None for request in requests):
            return [await orders.outcome(self.submit(request, mode)) for request in requests]
        params = {"batchOrders": [self.checked_params(request, mode) for request in requests]}
        rows = await self.call_endpoint("PostBatchOrders", params | self.window_of(*requests), places=True)
        if not isinstance(rows, list) or len(rows) != len(requests):
            raise UnreadableError(f"{len(requests)} orders were sent, and the answer has not one row for each")
        pairs = zip(rows, requests, strict=True)
        return [await orders.outcome(self._row_report(row, request)) for row, request in pairs]

    async def _row_report(self, row: Row, request: OrderRequest) -> OrderReport:
        if isinstance(row, Mapping) and row.get("code") is not None:
            text = f"{self.exchange}: {row['code']} {row.get('msg')}"
            raise row_error(self.refusal_codes(), binance_codes.codes_in(row), text, order=row)
        return self.accepted_report(object_at(row, what=f"the row of order {request.client_order_id}"), request)

    async def find(self, symbol: str, client_order_id: str) -> Row | None:
        """Search ordinary orders, then conditional ones; a triggered one is reported with the order that it became."""
        params = {"symbol": self.id_of(symbol)}
        try:
            return self._found(
                await self.call_endpoint("GetOrder", params | {"origClientOrderId": client_order_id}), symbol
            )
        except GoneError:
            pass
        try:
            row = await self.call_endpoint("GetAlgoOrder", {"clientAlgoId": client_order_id})
        except GoneError:
            return None
        if row.get("actualOrderId"):
            sent = await self.call_endpoint("GetOrder", params | {"orderId": row["actualOrderId"]})
            return {**self._found(sent, symbol), "clientOrderId": client_order_id}
        return self._found(row, symbol)

    def _found(self, row: Row, symbol: str) -> dict[str, Any]:
        read = binance_rows.order(row, self.symbol_of)
        if read["symbol"] != symbol:
            raise UnreadableError(f"queried an order of {symbol}, the answer is about one of {read['symbol']}")
        return read

    async def cancel(self, symbol: str, order_id: str, *, conditional: bool) -> None:
        params = {"symbol": self.id_of(symbol)}
        if order_id.startswith(binance_rows.ALGO):
            number = order_id.removeprefix(binance_rows.ALGO)
            await self.call_endpoint("DeleteAlgoOrder", params | {"algoId": number}, changes=True)
        else:
            await self.call_endpoint("DeleteOrder", params | {"orderId": order_id}, changes=True)

    async def arm_dead_man(self, seconds: float, symbols: Collection[str]) -> None:
        """Set a timer for each symbol, with one request each."""
        timeout_ms = int(seconds * 1000)
        queries = [{"symbol": self.id_of(symbol), "countdownTime": timeout_ms} for symbol in sorted(symbols)]
        await asyncio.gather(*(self.call_endpoint("PostCountdownCancelAll", it, changes=True) for it in queries))

    async def disarm_dead_man(self, symbols: Collection[str]) -> None:
        await self.arm_dead_man(0, symbols)


def _working_type(request: OrderRequest) -> str:
    """The venue's name of the price that triggers the order. OrderRejectedError for the index."""
    if request.trigger_by not in WORKING_TYPES:
        raise OrderRejectedError("other", f"no {request.trigger_by} price triggers an order at this venue")
    return WORKING_TYPES[request.trigger_by]


def _type(request: OrderRequest) -> str:
    if request.trigger_price is None:
        return request.type.upper()
    return ("STOP" if is_stop(request) else "TAKE_PROFIT") + ("_MARKET" if request.type == "market" else "")
