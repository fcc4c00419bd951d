"""MEXC's contract API v1. An order's side is a code of the venue, exact for each position mode."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from msgspec.structs import replace

from killswitch.model.parsing import Row, UnreadableError, decimal, instant, object_at, required_number, required_text
from killswitch.model.snapshot import Balance, Fill, Flow, Order, Position, Side
from killswitch.model.venue import (
    AccountSpec,
    ClientIdRule,
    OrderLife,
    OrderReport,
    OrderRequest,
    RateLimit,
    VenueDescription,
    VenueDownError,
    VenueError,
)
from killswitch_ccxt import orders, positions
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import BatchResults, Dialect, PositionMode
from killswitch_ccxt.equity import AccountEquity
from killswitch_ccxt.errors import GoneError, row_error
from killswitch_ccxt.fills import unique
from killswitch_ccxt.instruments import Quote, StateTable, quote_of
from killswitch_ccxt.traits import Ages, call_costs, capability_table
from killswitch_ccxt.venues.mexc.conditional_orders import ConditionalOrders, every_row, rows_back_to
from killswitch_ccxt.venues.mexc.rows import (
    CODES,
    FORM,
    MARKETS,
    deal,
    found_order,
    funding,
    limit_order,
    number_of,
    plan_order,
    rows_of,
    side_code,
    stop_orders,
    transfer,
)

WEEK: Final = 2
"""`executeCycle` of a conditional order: seven days, the longest that the venue keeps one."""
TICKER: Final = "bid1 ask1 lastPrice indexPrice fairPrice"
"""Fields of a ticker, as `quote_of` takes them."""
FAIR: Final = 2
"""`trend` of a conditional order: triggered by the fair price, which is the mark."""
LEDGER_LOOK_BACK: Final = 12 * 3_600_000
"""Milliseconds by which requests for transfers and funding go back: the venue may write them late."""


class Mexc(Dialect):
    """One futures wallet of one settlement currency. Contracts that settle in another one are another account."""

    exchange = "mexc"
    more_options = ("batch_orders", "close_all")
    codes = CODES
    code_form = FORM
    limits = (
        *(RateLimit(name, 20, 2.0) for name in ("positions", "external", "open orders", "deals", "cancel")),
        RateLimit("order", 4, 2.0), RateLimit("batch", 1, 2.0), RateLimit("close all", 4, 2.0),
    )  # fmt: skip
    """Each endpoint has a limit of its own; rarely used ones are far from theirs."""
    costs = (
        *call_costs("positions", snapshot=1), *call_costs("order", submit=1), *call_costs("batch", submit_batch=1),
        *call_costs("close all", close_book=1), *call_costs("external", find_order=1, fills=1),
        *call_costs("open orders", open_orders=1), *call_costs("deals", fills=1), *call_costs("cancel", cancel=1),
    )  # fmt: skip
    client_ids = ClientIdRule("plain", 32)
    # MEXC does not document how long it remembers a client order id.
    order_life = OrderLife(always=10.0, names="open")
    batch = 50
    """Applies where MEXC has allowed the account such requests, see `traits_for`."""
    has_hedge_mode = True
    instrument_states = StateTable(("state",), MARKETS, ("0", "1", "4"))
    streams = ("orders", "balance")
    # Each endpoint allows 600 requests a minute, half of them for snapshots; fills are requested by symbol.
    ages = Ages(orders=5.0, fills=15.0, flows=30.0, quotes=1.0, early_flows=10, early_fills=30)
    fills_need_symbol = True
    rights_note = "MEXC does not state the permissions of a key; check them on the website"
    tried = "a local server with its wire format"
    capabilities = capability_table(
        {
            "equity": "yes, of one settlement currency",
            "trigger orders": "yes, plan orders and the stops attached to positions",
            "fills": "yes, fetched for each symbol that has changed",
            "flows": "yes, transfers and funding",
            "market orders": "yes, where MEXC has them enabled for the key's account",
            "reduce only": "yes, in hedge mode by the side code of a close",
            "put back stops": "partly, as plan orders, which the venue stores for seven days",
            "batch orders": "partly, where MEXC has allowed them, so only with options: {batch_orders: true}",
            "close book": "partly, closes every settlement currency, so only with options: {close_all: true}",
            "find by client id": "partly, plan orders have none; they are known while the process runs",
            "dead man": "no",
            "push": "partly, orders and assets; plan orders and attached stops are polled",
            "key rights": "no, the venue does not state it",
            "sandbox": "no, MEXC has none",
            "demo": "no",
        },
        "positions", "orders", "prices", "limit orders", "position mode", "clock", "bars",
    )  # fmt: skip

    def __init__(self, client: Client, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self._margins: dict[tuple[str, Side], tuple[int, int | None]] = {}
        """Position → its margin mode (1 isolated, 2 cross) and its leverage, as fetched last."""
        self._list_of: dict[str, str] = {}
        """Order → the list that it was in at the last fetch."""
        self._conditional = ConditionalOrders(client)

    @classmethod
    def traits_for(cls, spec: AccountSpec) -> VenueDescription:
        batch = cls.batch if spec.options.get("batch_orders") is True else 1
        return replace(super().traits_for(spec), batch=batch, whole_book=spec.options.get("close_all") is True)

    def concerns(self, rule: Row) -> bool:
        return rule.get("swap") is True and rule.get("settle") == self.spec.currency

    @classmethod
    def refusal_of(cls, message: Any) -> VenueError | None:
        """The refusal of a login or a request. ccxt ignores both. MEXC has no codes for them, only texts."""
        channel = message.get("channel") if isinstance(message, Mapping) else None
        if channel != "rs.error" and (channel != "rs.login" or message.get("data") == "success"):
            return None
        return VenueDownError(
            f"MEXC refuses a request on the private stream: {message.get('data')}; "
            "if it repeats, key or secret are wrong, or the key lacks the permission to trade contracts"
        )

    # Snapshot

    async def equity(self) -> AccountEquity:
        answer = await self.client.call("contractPrivateGetAccountAssets")
        row = next((it for it in rows_of(answer) if it.get("currency") == self.spec.currency), None)
        if row is None:
            raise UnreadableError(f"the answer has no row of {self.spec.currency}, the account's currency")
        equity, profit = required_number(row.get("equity"), "the equity"), decimal(row.get("unrealized"))
        wallet = None if profit is None else equity - profit
        return AccountEquity(
            equity, free=decimal(row.get("availableBalance")), margin_used=decimal(row.get("positionMargin")),
            balances=(Balance(self.spec.currency, equity, Decimal(1), wallet=wallet, equity=equity),),
            unrealized=profit,
        )  # fmt: skip

    async def positions(self) -> tuple[Position, ...]:
        rows = await self.client.call("fetch_positions")
        # A row of a symbol without rules is kept: it makes the answer malformed, and must not be omitted.
        own_rows = [row for row in rows if self._may_be_ours(row.get("symbol"))]
        for row in own_rows:
            _check_side(row)
        for symbol in {row.get("symbol") for row in rows} & self.rules.keys():
            positions.check_settlement(self.rules[symbol], symbol)
        found = positions.positions(own_rows, self.rules)
        self._margins = {
            (row["symbol"], row["side"]): (
                1 if str(row["info"].get("openType")) == "1" else 2,
                None if row.get("leverage") is None else int(row["leverage"]),
            )
            for row in own_rows
        }
        return found

    async def orders(self) -> tuple[Order, ...]:
        book, plans, stops = await asyncio.gather(
            every_row(self.client, "contractPrivateGetOrderListOpenOrders", {}),
            every_row(self.client, "contractPrivateGetPlanorderListOrders", {"states": 1}),
            every_row(self.client, "contractPrivateGetStoporderListOrders", {"is_finished": 0}),
        )
        lists = {
            "book": [limit_order(row, symbol) for row, symbol in self._own_rows(book)],
            "plan": [plan_order(row, symbol) for row, symbol in self._own_rows(plans)],
            "stop": [order for row, symbol in self._own_rows(stops) for order in stop_orders(row, symbol)],
        }
        self._list_of = {order.id: name for name, found in lists.items() for order in found}
        return tuple({order.id: order for found in lists.values() for order in found}.values())

    async def fills(self, symbols: Sequence[str], since: int) -> tuple[Fill, ...]:
        answers = await asyncio.gather(*(self._deals_of(symbol, since) for symbol in symbols))
        return tuple({fill.id: fill for found in answers for fill in found}.values())

    async def order_fills(self, symbol: str, order_id: str) -> tuple[Fill, ...]:
        if order_id in self._conditional.unfilled:
            return ()
        rows = rows_of(await self.client.call("contractPrivateGetOrderDealDetailsOrderId", {"order_id": order_id}))
        return unique((deal(row, symbol) for row in rows), "fill ")

    async def flows(self, since: int) -> tuple[Flow, ...] | None:
        since -= LEDGER_LOOK_BACK
        transfers, fundings = await asyncio.gather(
            rows_back_to(self.client, "contractPrivateGetAccountTransferRecord", since, "createTime"),
            rows_back_to(self.client, "contractPrivateGetPositionFundingRecords", since, "settleTime"),
        )
        currency = self.spec.currency
        listed = [*map(transfer, transfers), *(funding(row, currency) for row, _ in self._own_rows(fundings))]
        found = (flow for flow in listed if flow is not None and flow.currency == currency)
        return tuple(flow for flow in found if flow.at.timestamp() * 1000 >= since)

    async def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        wanted = {self.id_of(symbol): symbol for symbol in symbols}
        if not wanted:
            return {}
        answer = await self.client.call("contractPublicGetTicker")
        rows = (row for row in rows_of(answer) if row.get("symbol") in wanted)
        return {wanted[row["symbol"]]: quote_of(row, TICKER, instant(row.get("timestamp"))) for row in rows}

    async def position_mode(self) -> PositionMode | None:
        mode = str((await self.client.call("contractPrivateGetPositionPositionMode")).get("data"))
        return "hedge" if mode == "1" else "one_way" if mode == "2" else None

    # Orders

    async def submit(self, request: OrderRequest, mode: PositionMode) -> OrderReport:
        order = self._order(request, mode)
        plan = self._conditional.record_sending(request)
        method = "contractPrivatePostOrderCreate" if plan is None else "contractPrivatePostPlanorderPlace"
        data = (await self.client.call(method, order, places=True)).get("data")
        report = self.accepted_report({"id": data.get("orderId") if isinstance(data, Mapping) else data}, request)
        if plan is not None:
            plan.number = report.id
        return report

    async def submit_batch(self, requests: Sequence[OrderRequest], mode: PositionMode) -> BatchResults:
        plain = [self._order(it, mode) for it in requests if it.trigger_price is None]
        for it in requests:
            self._conditional.record_sending(it)
        method = "contractPrivatePostOrderSubmitBatch"
        answer = await self.client.call(method, plain, places=True) if plain else {"data": []}
        found = {str(row.get("externalOid")): row for row in rows_of(answer)}

        async def report(request: OrderRequest) -> OrderReport:
            if request.trigger_price is not None:
                return await self.submit(request, mode)
            return await orders.row_report(found.get(request.client_order_id), request, self._row_report)

        return [await orders.outcome(report(it)) for it in requests]

    async def close_book(self) -> None:
        await self.client.call("contractPrivatePostPositionCloseAll", changes=True)

    async def find(self, symbol: str, client_order_id: str) -> Row | None:
        if client_order_id in self._conditional:
            return await self._conditional.find(symbol, client_order_id)
        params = {"symbol": self.id_of(symbol), "external_oid": client_order_id}
        try:
            answer = await self.client.call("contractPrivateGetOrderExternalSymbolExternalOid", params)
        except GoneError:
            await self._conditional.check_none_unnamed(symbol, client_order_id)
            return None
        return found_order(object_at(answer, "data", what=f"the answer about order {client_order_id}"))

    async def cancel(self, symbol: str, order_id: str, *, conditional: bool) -> None:
        list_name = self._list_of.get(order_id, "plan" if conditional else "book")
        if list_name == "stop":
            number: dict[str, str] = {"stopPlanOrderId": order_id.partition("#")[0]}
            await self.client.call("contractPrivatePostStoporderCancel", [number], changes=True)
            return
        if list_name == "plan":
            row = {"symbol": self.id_of(symbol), "orderId": order_id}
            answer = await self.client.call("contractPrivatePostPlanorderCancel", [row], changes=True)
        else:
            answer = await self.client.call("contractPrivatePostOrderCancel", [order_id], changes=True)
        for row_result in rows_of(answer):
            if (code := str(row_result.get("errorCode"))) != "0":
                raise row_error(self.refusal_codes(), (code,), f"{self.exchange}: {code} {row_result.get('errorMsg')}")

    # Parts

    def _order(self, request: OrderRequest, mode: PositionMode) -> dict[str, Any]:
        self.create_arguments(request, mode)
        margin, leverage = self._margins.get((request.symbol, request.position_side), (2, None))
        order: dict[str, Any] = {
            "symbol": self.id_of(request.symbol), "vol": number_of(request.amount), "openType": margin,
            "side": side_code(request.side, closes=request.reduce_only),
            "positionMode": 1 if mode == "hedge" else 2,
        }  # fmt: skip
        kind = 5 if request.type == "market" else 3 if request.time_in_force == "ioc" else 1
        if request.type == "limit":
            order["price"] = number_of(required_number(request.price, "the price of a limit order"))
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

    def _row_report(self, row: Row, request: OrderRequest) -> OrderReport:
        code = str(row.get("errorCode") or 0)
        if code != "0":
            raise row_error(self.refusal_codes(), (code,), f"{self.exchange}: {code} {row.get('errorMsg')}", order=row)
        return self.accepted_report({"id": row.get("orderId")}, request)

    async def _deals_of(self, symbol: str, since: int) -> tuple[Fill, ...]:
        params = {"symbol": self.id_of(symbol), "start_time": since}
        rows = await every_row(self.client, "contractPrivateGetOrderListOrderDeals", params)
        return tuple(deal(row, symbol) for row in rows)

    def _symbol(self, name: str) -> str:
        return str(self.client.ccxt.safe_symbol(name, None, None, "swap"))

    def _own_rows(self, rows: Sequence[Row]) -> list[tuple[Row, str]]:
        """Rows with their symbols, without those of another settlement currency."""
        named = [(row, self._symbol(required_text(row.get("symbol"), "the symbol of a row"))) for row in rows]
        return [(row, symbol) for row, symbol in named if self._may_be_ours(symbol)]

    def _may_be_ours(self, symbol: Any) -> bool:
        """Whether a symbol is one of this account, or has no rules."""
        return symbol not in self.rules or self.concerns(self.rules[symbol])


def _check_side(row: Row) -> None:
    """UnreadableError where the direction of a position is unknown: ccxt treats every other value as short."""
    info, symbol = row.get("info") or {}, row.get("symbol")
    kind, held = str(info.get("positionType")), required_number(info.get("holdVol"), f"the size of position {symbol}")
    if kind not in ("1", "2") or held < 0:
        raise UnreadableError(f"position {symbol}: {held} of the type {kind}")
