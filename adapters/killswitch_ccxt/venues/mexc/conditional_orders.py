"""MEXC's conditional orders, and lists in pages.

A triggered order becomes another order, in the order book, which is the one that is filled.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from killswitch.model.parsing import Row, UnreadableError, every_page, object_at
from killswitch.model.venue import OrderRequest
from killswitch_ccxt.answers import forget_oldest
from killswitch_ccxt.client import Client
from killswitch_ccxt.errors import GoneError
from killswitch_ccxt.venues.mexc.rows import executed_as, found_order, page_of, plan_order, plan_state, rows_of

SAME_SECONDS: Final = 10_000
LISTED_FOR: Final = 7 * 86_400_000
"""Milliseconds for which the venue keeps a conditional order."""
ALL_STATES: Final = "1,2,3,4,5"
REMEMBERED: Final = 10_000
"""Number of client order ids that are remembered."""


class ConditionalOrder(Struct):
    """A conditional order that this process sent: the request, its time (UTC ms), and its number once that is known."""

    request: OrderRequest
    sent_at: int
    number: str | None = None


class ConditionalOrders:
    """The orders that this process sent for one account, and the status of the conditional ones."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._sent: dict[str, ConditionalOrder] = {}
        """Client id → the conditional order sent with it."""
        self._plain: dict[str, None] = {}
        """Client order ids of orders that are not conditional."""
        self.unfilled: set[str] = set()
        """Conditional orders that have not become orders of the order book."""

    def __contains__(self, client_order_id: str) -> bool:
        return client_order_id in self._sent

    def record_sending(self, request: OrderRequest) -> ConditionalOrder | None:
        """Record an order before it is sent; its record, where it is a conditional one."""
        name = request.client_order_id
        if request.trigger_price is not None:
            return self._sent.setdefault(name, ConditionalOrder(request, self._client.now_ms()))
        self._plain[name] = None
        forget_oldest(self._plain, REMEMBERED)
        return None

    async def find(self, symbol: str, client_order_id: str) -> Row | None:
        """Find a conditional order by its number, or by its content, with its current status.

        None only where the venue lists none like it in any state. UnreadableError where an accepted order is not
        listed, or where several orders match.
        """
        plan = self._sent[client_order_id]
        rows = await self._since(symbol, plan.sent_at - SAME_SECONDS)
        numbers = {it.number for name, it in self._sent.items() if name != client_order_id}
        if plan.number is not None:
            matches = [row for row in rows if str(row.get("id")) == plan.number]
        else:
            others = (row for row in rows if str(row.get("id")) not in numbers)
            matches = [row for row in others if _has_content(row, symbol, plan.request)]
        if len(matches) > 1 or (not matches and plan.number is not None):
            raise UnreadableError(
                f"{len(matches)} plan orders in the list may be {client_order_id}, "
                f"with the number {plan.number or 'unknown'}: its status is unknown"
            )
        if not matches:
            return None
        state, number = plan_state(matches[0]), str(matches[0].get("id"))
        plan.number = number
        if state == "executed":
            self.unfilled.discard(number)
            return await self._executed(executed_as(matches[0]), client_order_id)
        self.unfilled.add(number)
        return {"id": number, "clientOrderId": client_order_id, "status": state, "amount": plan.request.amount,
                "filled": 0}  # fmt: skip

    async def _executed(self, number: str, name: str) -> Row:
        """The order of the order book that a conditional one has become."""
        try:
            answer = await self._client.call("contractPrivateGetOrderGetOrderId", {"order_id": number})
        except GoneError as error:
            raise UnreadableError(f"{name} was executed as order {number}, which the venue does not have") from error
        what = f"the answer about order {number}, which {name} has become,"
        return {**found_order(object_at(answer, "data", what=what)), "clientOrderId": name}

    async def check_none_unnamed(self, symbol: str, client_order_id: str) -> None:
        """UnreadableError where an order that is not found by its client order id may be a conditional one.

        It is none where this process sent it as a plain order, or where every listed one has another client order id.
        """
        if client_order_id in self._plain:
            return
        numbers = {it.number for it in self._sent.values()}
        rows = await self._since(symbol, self._client.now_ms() - LISTED_FOR)
        unnamed = sorted(str(row.get("id")) for row in rows if str(row.get("id")) not in numbers)
        if unnamed:
            raise UnreadableError(
                f"no order has the client order id {client_order_id}; it may be a plan order, which MEXC stores "
                f"without one: {', '.join(unnamed[:5])}; check them on the website"
            )

    async def _since(self, symbol: str, since: int) -> list[Row]:
        """Conditional orders of a symbol that were created since (UTC ms), in any state."""
        name, until = self._client.ccxt.market(symbol)["id"], self._client.now_ms() + SAME_SECONDS
        params = {"symbol": name, "states": ALL_STATES, "start_time": since, "end_time": until}
        rows = await every_row(self._client, "contractPrivateGetPlanorderListOrders", params)
        return [it for it in rows if it.get("symbol") == name and int(it.get("createTime") or since) >= since]


def _has_content(row: Row, symbol: str, request: OrderRequest) -> bool:
    """Whether a conditional order has the content of a request."""
    order = plan_order(row, symbol)
    content = (order.side, order.position_side, order.amount, order.trigger_price)
    return content == (request.side, request.position_side, request.amount, request.trigger_price)


PAGE: Final = 100
PAGES: Final = 20


async def every_row(client: Client, method: str, params: Row) -> list[Row]:
    """Every row of a list. UnreadableError where the list does not end."""

    async def page(number: int) -> tuple[list[Row], int | None]:
        rows = rows_of(await client.call(method, {**params, "page_num": number, "page_size": PAGE}))
        return rows, number + 1 if len(rows) >= PAGE else None

    return await every_page(page, 1, PAGES, method)


async def rows_back_to(client: Client, method: str, since: int, at: str) -> list[Row]:
    """Rows of a list that begins with the newest, back to `since` (UTC ms) by their field `at`.

    UnreadableError where that is too far back.
    """

    async def page(number: int) -> tuple[list[Row], int | None]:
        rows = page_of(await client.call(method, {"page_num": number, "page_size": PAGE}))
        is_last = len(rows) < PAGE or int(rows[-1].get(at) or since) < since
        return rows, None if is_last else number + 1

    return await every_page(page, 1, PAGES, method)
