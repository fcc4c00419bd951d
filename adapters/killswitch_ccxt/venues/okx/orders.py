"""Orders at OKX: placing, finding and cancelling plain and algo orders, and the dead-man timer."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Any, Final

from killswitch.model.parsing import Row, UnreadableError, rows_at
from killswitch.model.snapshot import Side
from killswitch.model.venue import AccountSpec, OrderReport, OrderRequest, VenueError
from killswitch_ccxt import orders
from killswitch_ccxt.answers import forget_oldest
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import BatchResults, Dialect, PositionMode, is_stop
from killswitch_ccxt.errors import GoneError, row_error
from killswitch_ccxt.response_capture import with_headers
from killswitch_ccxt.venues.okx import rows as okx_rows
from killswitch_ccxt.venues.okx.codes import row_codes

REMEMBERED: Final = 5000
"""Number of client order ids that are remembered."""


class OkxOrderDialect(Dialect):
    """The part of OKX's dialect that sends orders, with what the last snapshots showed."""

    def __init__(self, client: Client, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self.margin_modes: dict[tuple[str, Side], str] = {}
        """`mgnMode` of each position: an order in the other mode would open a second position."""
        self.held_contracts: dict[tuple[str, Side], Decimal] | None = None
        self.resting: dict[str, tuple[bool, str]] = {}
        """Id of each open order that was fetched → whether it is an algo order, and OKX's id of its instrument."""
        self.sent: dict[str, bool] = {}
        """Client order id of each recent order → whether it is an algo order, so that only one list is searched."""

    def order_params(self, request: OrderRequest, mode: PositionMode) -> dict[str, Any]:
        """In long/short mode the position side protects against an opening order; in net mode reduce-only does."""
        params: dict[str, Any] = {"clientOrderId": request.client_order_id}
        if self.spec.market == "spot":
            params["tdMode"] = "cash"
        else:
            default_mode = str(self.spec.options.get("margin_mode", "cross"))
            params["tdMode"] = self.margin_modes.get((request.symbol, request.position_side), default_mode)
            if mode == "hedge":
                params["positionSide"] = request.position_side
            elif request.reduce_only:
                params["reduceOnly"] = True
        if request.time_in_force == "ioc" and request.type == "limit":
            params["timeInForce"] = "IOC"
        if request.trigger_price is not None:
            prefix = "sl" if is_stop(request) else "tp"
            params[{"sl": "stopLossPrice", "tp": "takeProfitPrice"}[prefix]] = request.trigger_price
            params |= {"algoClOrdId": request.client_order_id, f"{prefix}TriggerPxType": request.trigger_by}
        return params

    async def submit(self, request: OrderRequest, mode: PositionMode) -> OrderReport:
        arguments = self.create_arguments(request, mode)
        self._record_sending(request)
        with with_headers(self._headers(request)):
            row = await self.client.call("create_order", *arguments, places=True)
        return self.accepted_report(row.get("info") or {}, request)

    def accepted_report(self, info: Row, request: OrderRequest) -> OrderReport:
        """The report of an accepted order; the error of its row where it was refused."""
        self._raise_refused(info, order=info)
        conditional = request.trigger_price is not None
        number = info.get("algoId" if conditional else "ordId")
        name = info.get("algoClOrdId" if conditional else "clOrdId")
        if not number or name not in (request.client_order_id, None, ""):
            raise UnreadableError(f"sent order {request.client_order_id}, the answer is about {name} with id {number}")
        self.resting[str(number)] = (conditional, self.id_of(request.symbol))
        return OrderReport(str(number), request.client_order_id, request.symbol, "open", request.amount, Decimal(0))

    async def submit_batch(self, requests: Sequence[OrderRequest], mode: PositionMode) -> BatchResults:
        """Send several orders; conditional ones have no batch and go one by one. A row decides about its own order
        alone."""
        if any(it.trigger_price is not None for it in requests):
            return [await orders.outcome(self.submit(it, mode)) for it in requests]
        rows = []
        for request in requests:
            symbol, kind, side, amount, price, params = self.create_arguments(request, mode)
            self._record_sending(request)
            rows.append(self.client.ccxt.create_order_request(symbol, kind, side, amount, price, params))
        try:
            with with_headers(self._headers(*requests)):
                answer = await self.client.call("private_post_trade_batch_orders", rows, places=True)
            data = rows_at(answer, "data", what="the answer about orders")
        except VenueError as error:
            data = _rows_refused(error)
            if len(data) != len(requests):
                raise
        if len(data) != len(requests):
            raise UnreadableError(f"{len(data)} answers to {len(requests)} orders")
        sent = (orders.row_report(row, it, self.accepted_report) for row, it in zip(data, requests, strict=True))
        return [await orders.outcome(it) for it in sent]

    def _headers(self, *requests: OrderRequest) -> dict[str, str]:
        """The deadline of the orders; algo orders have none."""
        deadline = self.deadline_of(*(it for it in requests if it.trigger_price is None))
        return {} if deadline is None else {"expTime": str(deadline)}

    def _record_sending(self, request: OrderRequest) -> None:
        self.sent[request.client_order_id] = request.trigger_price is not None
        forget_oldest(self.sent, REMEMBERED)

    async def find(self, symbol: str, client_order_id: str) -> Row | None:
        """Search plain orders, then algo orders; an order that a stop has sent is reported under the stop's client
        order id."""
        name = {"clientOrderId": client_order_id}
        conditional = self.sent.get(client_order_id)
        if conditional is not True:
            try:
                row = await self.client.call("fetch_order", None, symbol, name)
                return okx_rows.plain_order(row, row["info"])
            except GoneError:
                if conditional is False:
                    return None
        try:
            row = await self.client.call("fetch_order", None, symbol, {**name, "trigger": True})
        except GoneError:
            return None
        info = row["info"]
        if info.get("state") in ("effective", "partially_effective") and info.get("ordId"):
            row = await self.client.call("fetch_order", info["ordId"], symbol)
            return {**okx_rows.plain_order(row, row["info"]), "clientOrderId": client_order_id}
        return okx_rows.algo_order(row, info, self.held_contracts)

    async def cancel(self, symbol: str, order_id: str, *, conditional: bool) -> None:
        """Cancel an order in the list where it was seen; one that was never seen in both."""
        known, name = self.resting.get(order_id, (True if conditional else None, ""))
        name = name or self.id_of(symbol)
        if known is not True:
            try:
                order = {"instId": name, "ordId": order_id}
                self._cancelled(await self.client.call("private_post_trade_cancel_order", order, changes=True))
            except GoneError:
                if known is False:
                    raise
            else:
                return
        algo = [{"instId": name, "algoId": order_id}]
        self._cancelled(await self.client.call("private_post_trade_cancel_algos", algo, changes=True))

    def _cancelled(self, answer: Any) -> None:
        """Raise the error of a refused row in a successful answer."""
        self._raise_refused(okx_rows.only_row(answer, "the cancelled order"))

    def _raise_refused(self, row: Row, *, order: Row | None = None) -> None:
        """Raise the error of a row unless its code is a success. `order`: as in `row_error`."""
        code = row.get("sCode")
        if code != "0":
            message = str(row.get("sMsg") or "")
            raise row_error(self.refusal_codes(), row_codes(code, message), f"okx {code}: {message}", order=order)

    async def arm_dead_man(self, seconds: float, symbols: Collection[str]) -> None:
        """Start the timer with whole seconds from 10 to 120: any other number has no effect."""
        timeout = min(120, max(10, int(seconds)))
        await self.client.call("private_post_trade_cancel_all_after", {"timeOut": str(timeout)}, changes=True)

    async def disarm_dead_man(self, symbols: Collection[str]) -> None:
        await self.client.call("private_post_trade_cancel_all_after", {"timeOut": "0"}, changes=True)


def _rows_refused(error: VenueError) -> list[Row]:
    """The rows of a batch of which every order was refused: ccxt raises the first refusal for all."""
    text = str(error.__cause__ or "")
    try:
        body = json.loads(text[text.index("{") :])
    except ValueError:
        return []
    data = body.get("data") if isinstance(body, dict) and body.get("code") in ("1", "2") else None
    return [it for it in data if isinstance(it, dict) and it.get("sCode")] if isinstance(data, list) else []
