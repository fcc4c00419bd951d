"""MEXC's contract API v1. Orders carry their side as the venue's code, exact for each position mode."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from msgspec import structs

from killswitch.model.inspection import Capability, KeyRights
from killswitch.model.snapshot import Fill, Flow, Market, Order, Position, Side
from killswitch.model.venue import (
    AccountSpec,
    ClientIdRule,
    Cost,
    FateUnknownError,
    OrderReport,
    OrderRequest,
    RateLimit,
    VenueError,
    VenueTraits,
)
from killswitch_ccxt import orders, positions
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Ages, Dialect, PositionMode, Row
from killswitch_ccxt.errors import GoneError, row_error
from killswitch_ccxt.numbers import UnreadableError, decimal, needed, positive
from killswitch_ccxt.quotes import Quote
from killswitch_ccxt.venues.mexc_rows import (
    CODES,
    deal,
    executed_as,
    found_order,
    funding,
    limit_order,
    number_of,
    page_of,
    plan_order,
    plan_state,
    rows_of,
    side_code,
    stop_orders,
    transfer,
)
from killswitch_ccxt.wealth import Wealth

PAGE: Final = 100
PAGES: Final = 20
WEEK: Final = 2
"""`executeCycle` of a conditional order: the longest that the venue keeps one is seven days."""
FAIR: Final = 2
"""`trend` of a conditional order: triggered by the fair price, which is the mark."""
SAME_SECONDS: Final = 10_000
KEPT: Final = 7 * 86_400_000
"""Milliseconds for which the venue keeps a conditional order."""
ALL_STATES: Final = "1,2,3,4,5"
MOVES_BACK: Final = 12 * 3_600_000
"""Milliseconds further back for which transfers and funding are read: they are told once, and may be written late."""
SENT: Final = 10_000
"""How many names of orders are remembered."""


@dataclass(slots=True)
class Plan:
    """A conditional order that this process sent: what it said, when (UTC ms), and its number where that is known."""

    request: OrderRequest
    sent_at: int
    number: str | None = None


class Mexc(Dialect):
    """A futures wallet of one settlement currency. Contracts that settle in another are another account."""

    exchange = "mexc"
    more_options = ("close_all",)
    markets: ClassVar[tuple[Market, ...]] = ("swap",)
    environments = ("production",)
    codes = CODES
    limits = (
        RateLimit("positions", 20, 2.0), RateLimit("order", 20, 2.0), RateLimit("batch", 1, 2.0),
        RateLimit("close all", 4, 2.0), RateLimit("external", 20, 2.0), RateLimit("open orders", 20, 2.0),
        RateLimit("deals", 20, 2.0), RateLimit("cancel", 20, 2.0),
    )  # fmt: skip
    """Each route has a limit of its own; those that a reading asks more rarely are further from theirs."""
    costs = (
        Cost("snapshot", "positions", units=1), Cost("submit", "order", units=1),
        Cost("submit_batch", "batch", units=1), Cost("close_book", "close all", units=1),
        Cost("find_order", "external", units=1), Cost("open_orders", "open orders", units=1),
        Cost("fills", "deals", units=1), Cost("fills", "external", units=1), Cost("cancel", "cancel", units=1),
    )  # fmt: skip
    client_ids = ClientIdRule("plain", 32)
    batch = 50
    has_hedge_mode = True
    streams = ("orders", "balance")
    ages = Ages(orders=5.0, fills=15.0, flows=30.0, quotes=1.0)
    fills_need_symbol = True
    tried = "wire level"
    capabilities = (
        Capability("equity", "yes", "of one settlement currency"),
        Capability("positions", "yes"),
        Capability("orders", "yes"),
        Capability("trigger orders", "yes", "plan orders and the stops attached to positions"),
        Capability("fills", "yes", "asked for each symbol that has moved"),
        Capability("flows", "yes", "transfers and funding"),
        Capability("prices", "yes"),
        Capability("market orders", "yes", "where MEXC has them enabled for the key's account"),
        Capability("limit orders", "yes"),
        Capability("reduce only", "yes", "in hedge mode by the side code of a close"),
        Capability("put back stops", "partly", "as plan orders, which the venue keeps for seven days"),
        Capability("batch orders", "yes", "fifty, once in two seconds"),
        Capability("close book", "partly", "closes every settlement currency, so only with options: {close_all: true}"),
        Capability("position mode", "yes"),
        Capability("find by client id", "partly", "plan orders have no client id; they are known by what they say"),
        Capability("dead man", "no"),
        Capability("push", "yes"),
        Capability("key rights", "no", "the venue does not tell"),
        Capability("clock", "yes"),
        Capability("bars", "yes"),
        Capability("sandbox", "no", "MEXC has none"),
        Capability("demo", "no"),
    )

    def __init__(self, client: Client, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self._margins: dict[tuple[str, Side], tuple[int, int | None]] = {}
        """Position → how its margin is kept (1 isolated, 2 cross) and its leverage, as read last."""
        self._lists: dict[str, str] = {}
        """Order → the list that it was in when it was read last."""
        self._plans: dict[str, Plan] = {}
        """Client id → the conditional order sent with it: the venue keeps no name of one."""
        self._plain: dict[str, None] = {}
        """Client ids of orders that this process sent and that were not conditional."""
        self._unfilled: set[str] = set()
        """Conditional orders that have not become orders of the book."""

    @classmethod
    def traits_for(cls, spec: AccountSpec) -> VenueTraits:
        return structs.replace(super().traits_for(spec), whole_book=spec.options.get("close_all") is True)

    def concerns(self, rule: Row) -> bool:
        return rule.get("swap") is True and rule.get("settle") == self.spec.currency

    # Reading

    async def wealth(self) -> Wealth:
        answer = await self.client.call("contractPrivateGetAccountAssets")
        row = next((it for it in rows_of(answer) if it.get("currency") == self.spec.currency), None)
        if row is None:
            raise UnreadableError(f"the venue says nothing of {self.spec.currency}, the account's currency")
        return Wealth(
            needed(row.get("equity"), "the equity"), free=decimal(row.get("availableBalance")),
            margin_used=decimal(row.get("positionMargin")), cash=decimal(row.get("cashBalance")),
        )  # fmt: skip

    async def positions(self) -> tuple[Position, ...]:
        rows = await self.client.call("fetch_positions")
        # A row of a symbol without rules is kept: it must be told as malformed, and not be left out.
        mine = [it for it in rows if it.get("symbol") not in self.rules or self.concerns(self.rules[it["symbol"]])]
        found = positions.positions(mine, self.rules)
        self._margins = {
            (row["symbol"], row["side"]): (
                1 if str(row["info"].get("openType")) == "1" else 2,
                None if row.get("leverage") is None else int(row["leverage"]),
            )
            for row in mine
        }
        return found

    async def orders(self) -> tuple[Order, ...]:
        book, plans, stops = await asyncio.gather(
            self._pages("contractPrivateGetOrderListOpenOrders", {}),
            self._pages("contractPrivateGetPlanorderListOrders", {"states": 1}),
            self._pages("contractPrivateGetStoporderListOrders", {"is_finished": 0}),
        )
        lists = {
            "book": [limit_order(row, symbol) for row, symbol in self._ours(book)],
            "plan": [plan_order(row, symbol) for row, symbol in self._ours(plans)],
            "stop": [order for row, symbol in self._ours(stops) for order in stop_orders(row, symbol)],
        }
        self._lists = {order.id: name for name, found in lists.items() for order in found}
        return tuple({order.id: order for found in lists.values() for order in found}.values())

    async def fills(self, symbols: Sequence[str], since: int) -> tuple[Fill, ...]:
        answers = await asyncio.gather(*(self._deals_of(symbol, since) for symbol in symbols))
        return tuple({fill.id: fill for found in answers for fill in found}.values())

    async def order_fills(self, symbol: str, order_id: str) -> tuple[Fill, ...]:
        if order_id in self._unfilled:
            return ()
        rows = rows_of(await self.client.call("contractPrivateGetOrderDealDetailsOrderId", {"order_id": order_id}))
        return tuple(deal(row, symbol) for row in rows)

    async def flows(self, since: int) -> tuple[Flow, ...] | None:
        since -= MOVES_BACK
        moved, paid = await asyncio.gather(
            self._back_to("contractPrivateGetAccountTransferRecord", since, "createTime"),
            self._back_to("contractPrivateGetPositionFundingRecords", since, "settleTime"),
        )
        currency = self.spec.currency
        found = [*map(transfer, moved), *(funding(row, currency) for row, _ in self._ours(paid))]
        return tuple(
            flow
            for flow in found
            if flow is not None and flow.currency == currency and flow.at.timestamp() * 1000 >= since
        )

    async def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        wanted = {self.client.ccxt.market(symbol)["id"]: symbol for symbol in symbols}
        if not wanted:
            return {}
        answer = await self.client.call("contractPublicGetTicker")
        return {
            wanted[row["symbol"]]: Quote(
                positive(row.get("bid1")), positive(row.get("ask1")), positive(row.get("lastPrice")),
                positive(row.get("indexPrice")), positive(row.get("fairPrice")),
            )
            for row in rows_of(answer)
            if row.get("symbol") in wanted
        }  # fmt: skip

    async def position_mode(self) -> PositionMode | None:
        told = str((await self.client.call("contractPrivateGetPositionPositionMode")).get("data"))
        return "hedge" if told == "1" else "one_way" if told == "2" else None

    async def rights(self) -> KeyRights:
        return KeyRights(note="MEXC does not tell what a key may do; look at the key on its page")

    # Acting

    async def submit(self, request: OrderRequest, mode: PositionMode) -> OrderReport:
        order = self._order(request, mode)
        if request.trigger_price is None:
            self._remember(request)
            data = (await self.client.call("contractPrivatePostOrderCreate", order, changes=True)).get("data")
        else:
            plan = self._plans.setdefault(request.client_order_id, Plan(request, self._now()))
            data = (await self.client.call("contractPrivatePostPlanorderPlace", order, changes=True)).get("data")
        number = data.get("orderId") if isinstance(data, Mapping) else data
        taken = _taken(number, request)
        if request.trigger_price is not None:
            plan.number = taken.id
        return taken

    async def submit_batch(
        self, requests: Sequence[OrderRequest], mode: PositionMode
    ) -> Sequence[OrderReport | VenueError]:
        plain = [self._order(it, mode) for it in requests if it.trigger_price is None]
        self._remember(*(it for it in requests if it.trigger_price is None))
        answer = (
            await self.client.call("contractPrivatePostOrderSubmitBatch", plain, changes=True)
            if plain
            else {"data": []}
        )
        told = {str(row.get("externalOid")): row for row in rows_of(answer)}
        return [
            self._in_batch(told.get(it.client_order_id), it)
            if it.trigger_price is None
            else await _one(lambda request=it: self.submit(request, mode))  # type: ignore[misc] # bound in the loop
            for it in requests
        ]

    async def close_book(self) -> None:
        await self.client.call("contractPrivatePostPositionCloseAll", changes=True)

    async def find(self, symbol: str, client_order_id: str) -> Row | None:
        if client_order_id in self._plans:
            return await self._plan(symbol, client_order_id)
        asked = {"symbol": self.client.ccxt.market(symbol)["id"], "external_oid": client_order_id}
        try:
            answer = await self.client.call("contractPrivateGetOrderExternalSymbolExternalOid", asked)
        except GoneError:
            if client_order_id not in self._plain:
                await self._no_plan_of(symbol, client_order_id)
            return None
        data = answer.get("data")
        if not isinstance(data, Mapping):
            raise UnreadableError(f"the venue says neither that it has order {client_order_id} nor that it has none")
        return found_order(data)

    async def cancel(self, symbol: str, order_id: str, *, conditional: bool) -> None:
        kept = self._lists.get(order_id, "plan" if conditional else "book")
        if kept == "stop":
            number: dict[str, str] = {"stopPlanOrderId": order_id.partition("#")[0]}
            await self.client.call("contractPrivatePostStoporderCancel", [number], changes=True)
            return
        if kept == "plan":
            row = {"symbol": self.client.ccxt.market(symbol)["id"], "orderId": order_id}
            answer = await self.client.call("contractPrivatePostPlanorderCancel", [row], changes=True)
        else:
            answer = await self.client.call("contractPrivatePostOrderCancel", [order_id], changes=True)
        for said in answer.get("data") or ():
            code = str(said.get("errorCode", 0)) if isinstance(said, Mapping) else "0"
            if code != "0":
                raise row_error(self.codes, (code,), f"{self.exchange}: {code} {said.get('errorMsg')}")

    # Parts

    def _order(self, request: OrderRequest, mode: PositionMode) -> dict[str, Any]:
        ccxt = self.client.ccxt
        self.create_arguments(request, mode)
        margin, leverage = self._margins.get((request.symbol, request.position_side), (2, None))
        order: dict[str, Any] = {
            "symbol": ccxt.market(request.symbol)["id"], "vol": number_of(request.amount), "openType": margin,
            "side": side_code(request.side, request.position_side, closes=request.reduce_only),
            "positionMode": 1 if mode == "hedge" else 2,
        }  # fmt: skip
        kind = 5 if request.type == "market" else 3 if request.time_in_force == "ioc" else 1
        if request.type == "limit":
            order["price"] = number_of(needed(request.price, "the price of a limit order"))
        if margin == 1 and leverage is not None:
            order["leverage"] = leverage
        if mode == "one_way" and request.reduce_only:
            order["reduceOnly"] = True
        if request.trigger_price is None:
            return order | {"type": kind, "externalOid": request.client_order_id}
        return order | {
            "orderType": kind, "triggerPrice": number_of(request.trigger_price), "executeCycle": WEEK, "trend": FAIR,
            "triggerType": 1 if request.trigger_when == "rises" else 2,
        }  # fmt: skip

    def _in_batch(self, row: Row | None, request: OrderRequest) -> OrderReport | VenueError:
        if row is None:
            return FateUnknownError(f"the answer to a batch says nothing of {request.client_order_id}")
        code = str(row.get("errorCode") or 0)
        if code != "0":
            return row_error(self.codes, (code,), f"{self.exchange}: {code} {row.get('errorMsg')}")
        try:
            return _taken(row.get("orderId"), request)
        except UnreadableError as error:
            return FateUnknownError(str(error))

    async def _plan(self, symbol: str, client_order_id: str) -> Row | None:
        """A conditional order of ours by its number, or by what it says, and what has become of it.

        None only where the venue lists none like it in any state. UnreadableError where one was taken and is not
        listed, or where it may be one of several.
        """
        plan = self._plans[client_order_id]
        rows = await self._plans_since(symbol, plan.sent_at - SAME_SECONDS)
        numbers = {it.number for name, it in self._plans.items() if name != client_order_id}
        if plan.number is not None:
            like = [row for row in rows if str(row.get("id")) == plan.number]
        else:
            like = [row for row in rows if str(row.get("id")) not in numbers and _same(row, symbol, plan.request)]
        if len(like) > 1 or (not like and plan.number is not None):
            raise UnreadableError(
                f"{len(like)} plan orders are listed that may be {client_order_id}, "
                f"of number {plan.number or 'unknown'}: nothing is known of it"
            )
        if not like:
            return None
        state, number = plan_state(like[0]), str(like[0].get("id"))
        plan.number = number
        if state == "executed":
            self._unfilled.discard(number)
            return await self._executed(executed_as(like[0]), client_order_id)
        self._unfilled.add(number)
        return {"id": number, "clientOrderId": client_order_id, "status": state, "amount": plan.request.amount,
                "filled": 0}  # fmt: skip

    async def _executed(self, number: str, client_order_id: str) -> Row:
        """The order of the book that a conditional one has become."""
        try:
            answer = await self.client.call("contractPrivateGetOrderGetOrderId", {"order_id": number})
        except GoneError as error:
            raise UnreadableError(f"{client_order_id} was executed as order {number}, which is not there") from error
        data = answer.get("data")
        if not isinstance(data, Mapping):
            raise UnreadableError(f"the venue says nothing of order {number}, as which {client_order_id} was executed")
        return {**found_order(data), "clientOrderId": client_order_id}

    async def _no_plan_of(self, symbol: str, client_order_id: str) -> None:
        """UnreadableError where an order that this process did not send may be one of the conditional ones."""
        numbers = {it.number for it in self._plans.values()}
        rows = await self._plans_since(symbol, self._now() - KEPT)
        unnamed = sorted(str(row.get("id")) for row in rows if str(row.get("id")) not in numbers)
        if unnamed:
            raise UnreadableError(
                f"no order is named {client_order_id}, and it may be a plan order, which MEXC keeps no name of: "
                f"{', '.join(unnamed[:5])}; look at them on its page"
            )

    async def _plans_since(self, symbol: str, since: int) -> list[Row]:
        """Conditional orders of a symbol made since (UTC ms), whatever became of them."""
        asked = {
            "symbol": self.client.ccxt.market(symbol)["id"], "states": ALL_STATES, "start_time": since,
            "end_time": self._now() + SAME_SECONDS,
        }  # fmt: skip
        rows = await self._pages("contractPrivateGetPlanorderListOrders", asked)
        return [
            row for row in rows if row.get("symbol") == asked["symbol"] and int(row.get("createTime") or since) >= since
        ]

    def _remember(self, *requests: OrderRequest) -> None:
        self._plain |= dict.fromkeys(request.client_order_id for request in requests)
        while len(self._plain) > SENT:
            self._plain.pop(next(iter(self._plain)))

    def _now(self) -> int:
        return int(self.client.now().timestamp() * 1000)

    async def _back_to(self, method: str, since: int, at: str) -> list[Row]:
        """Rows of a list that begins with the newest, back to `since` (UTC ms)."""
        found: list[Row] = []
        for page in range(1, PAGES + 1):
            rows = page_of(await self.client.call(method, {"page_num": page, "page_size": PAGE}))
            found += rows
            if len(rows) < PAGE or int(rows[-1].get(at) or since) < since:
                return found
        raise UnreadableError(f"{method}: more than {PAGES * PAGE} rows since the last reading")

    async def _deals_of(self, symbol: str, since: int) -> tuple[Fill, ...]:
        asked = {"symbol": self.client.ccxt.market(symbol)["id"], "start_time": since, "page_size": PAGE}
        rows = await self._pages("contractPrivateGetOrderListOrderDeals", asked)
        return tuple(deal(row, symbol) for row in rows)

    async def _pages(self, method: str, asked: Mapping[str, Any]) -> list[Row]:
        """Every row of a list. UnreadableError where it does not come to an end."""
        found: list[Row] = []
        for page in range(1, PAGES + 1):
            paged = {**asked, "page_num": page, "page_size": PAGE}
            rows = rows_of(await self.client.call(method, paged))
            found += rows
            if len(rows) < PAGE:
                return found
        raise UnreadableError(f"{method}: more than {PAGES * PAGE} rows")

    def _ours(self, rows: Sequence[Row]) -> list[tuple[Row, str]]:
        """Rows with the symbol that they are about, without those of another settlement currency."""
        named = [(row, self.client.ccxt.safe_symbol(row.get("symbol"), None, None, "swap")) for row in rows]
        return [
            (row, symbol)
            for row, symbol in named
            if symbol not in self.rules or self.concerns(self.rules[symbol])
        ]  # fmt: skip


def _same(row: Row, symbol: str, request: OrderRequest) -> bool:
    """Whether a conditional order says what was sent."""
    order = plan_order(row, symbol)
    said = (order.side, order.position_side, order.amount, order.trigger_price)
    return said == (request.side, request.position_side, request.amount, request.trigger_price)


def _taken(number: Any, request: OrderRequest) -> OrderReport:
    """The venue says that it took an order, and nothing of what became of it."""
    said = {"id": number, "clientOrderId": request.client_order_id, "amount": request.amount}
    return orders.report(said, request.symbol)


async def _one(send: Callable[[], Any]) -> OrderReport | VenueError:
    try:
        sent: OrderReport = await send()
    except VenueError as error:
        return error
    return sent


DIALECTS: Final[Mapping[str, type[Dialect]]] = {"mexc": Mexc}
