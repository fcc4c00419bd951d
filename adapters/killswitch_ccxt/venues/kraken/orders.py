"""Orders at Kraken: fetching open ones, sending and finding them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from killswitch.model.parsing import Row, UnreadableError, decimal, flag, object_at, optional_text, value_at
from killswitch.model.snapshot import Order, Side
from killswitch.model.venue import AccountSpec, OrderReport, OrderRequest
from killswitch_ccxt import orders
from killswitch_ccxt.answers import NoSuchSymbolError
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import PositionMode, is_stop
from killswitch_ccxt.venues.kraken.requests import KrakenRequests
from killswitch_ccxt.venues.kraken.rows import found_order, triggered


class KrakenOrders(KrakenRequests):
    """The part of Kraken's dialect that fetches, sends and finds orders."""

    def __init__(self, client: Client, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self.leverage: dict[tuple[str, Side], Decimal | None] = {}
        """The leverage of each position of a margin account in the last answer: its closing order states the same."""

    async def orders(self) -> tuple[Order, ...]:
        answer = await self.counted_call("privatePostOpenOrders", {})
        return orders.open_orders(
            self._open_order(number, row) for number, row in object_at(answer, "result", "open").items()
        )

    def _open_order(self, number: str, row: Any) -> Row:
        """ccxt's order of a row. NoSuchSymbolError for a pair that the rules do not have."""
        info = object_at(row, what=f"order {number}")
        found = self.refine_order(self.client.ccxt.parse_order({"id": number, **info}))
        if found.get("symbol") not in self.rules:
            raise NoSuchSymbolError(f"order {number}: the venue's rules have no {found.get('symbol')}")
        return found

    def refine_order(self, row: Row) -> Row:
        info = row.get("info") or {}
        name = info.get("cl_ord_id")
        return {**row, **triggered(info), "clientOrderId": name, "reduceOnly": flag(info.get("reduce_only"))}

    async def submit(self, request: OrderRequest, mode: PositionMode) -> OrderReport:
        """Send one order. The answer only acknowledges it."""
        order = self._order(request, mode)
        self.mark_busy()
        try:
            result = object_at(await self.client.call("privatePostAddOrder", order, places=True), "result")
        finally:
            # Balances that were fetched before are outdated now, even where no answer came.
            self.last_order_at = asyncio.get_running_loop().time()
        numbers = result.get("txid")
        return self.accepted_report({"id": numbers[0] if isinstance(numbers, list) and numbers else None}, request)

    async def find(self, symbol: str, client_order_id: str) -> Row | None:
        """Search open orders, then closed ones, where an order is that ends in between."""
        self.mark_busy()
        for method, part in (("privatePostOpenOrders", "open"), ("privatePostClosedOrders", "closed")):
            answer = await self.counted_call(method, {"cl_ord_id": client_order_id})
            listed = object_at(answer, "result", part)
            if not listed and decimal(value_at(answer, "result", "count")):
                raise UnreadableError(f"queried order {client_order_id}, the answer counts orders and lists none")
            for number, row in listed.items():
                if optional_text(object_at(row, what=f"order {number}").get("cl_ord_id")) == client_order_id:
                    return found_order(number, row, client_order_id)
        return None

    def _order(self, request: OrderRequest, mode: PositionMode) -> dict[str, str]:
        ccxt = self.client.ccxt
        symbol, _, side, amount, _, _ = self.create_arguments(request, mode)
        is_limit = request.type == "limit"
        order = {
            "pair": str(ccxt.market(symbol)["id"]), "type": side, "ordertype": request.type,
            "volume": str(ccxt.amount_to_precision(symbol, amount)), "cl_ord_id": request.client_order_id,
        }  # fmt: skip
        price = str(ccxt.price_to_precision(symbol, request.price)) if is_limit else None
        if request.trigger_price is not None:
            order["ordertype"] = ("stop-loss" if is_stop(request) else "take-profit") + ("-limit" if is_limit else "")
            order["price"] = str(ccxt.price_to_precision(symbol, request.trigger_price))
            order |= {} if price is None else {"price2": price}
        else:
            order |= {} if price is None else {"price": price}
        if request.time_in_force == "ioc" and request.trigger_price is None:
            order["timeinforce"] = "IOC"
        if self.spec.market == "margin":
            leverage = self.leverage.get((symbol, request.position_side))
            order["leverage"] = str(max(2, int(leverage))) if leverage is not None else "2"
            order |= {"reduce_only": "true"} if request.reduce_only else {}
        if (deadline := self.deadline_of(request)) is not None:
            at = datetime.fromtimestamp(deadline / 1000, UTC)
            order["deadline"] = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return order
