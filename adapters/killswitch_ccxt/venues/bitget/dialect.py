"""Bitget, API v2, classic futures accounts: swaps and futures that settle in USDT or USDC.

Requests use Bitget's own endpoints where ccxt's unified call would omit something: further pages, the kinds of trigger
orders, fills of all symbols, and failures inside a successful answer.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar, Final

from msgspec.structs import replace

from killswitch.model.inspection import KeyRights
from killswitch.model.parsing import (
    Row,
    UnreadableError,
    above_zero,
    decimal,
    every_page,
    instant,
    object_at,
    positive,
    rows_at,
)
from killswitch.model.snapshot import Fill, Flow, LimitUse, Order, Position
from killswitch.model.venue import (
    AccountSpec,
    ClientIdRule,
    ConditionalOrderRule,
    OrderLife,
    OrderRejectedError,
    OrderRequest,
)
from killswitch_ccxt import fills, orders, positions
from killswitch_ccxt.answers import answered
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Dialect, PositionMode
from killswitch_ccxt.equity import AccountEquity
from killswitch_ccxt.errors import GoneError, VenueAnswer, row_error
from killswitch_ccxt.instruments import Quote, StateTable, quote_of
from killswitch_ccxt.venues.bitget import codes as bitget_codes
from killswitch_ccxt.venues.bitget.rows import (
    account_equity,
    flow_of,
    refined_fill,
    refined_order,
    rights_of,
    with_order_maximum,
)
from killswitch_ccxt.withdrawals import CoinList

MOST_PAGES: Final = 40
PAGE: Final = 100
MONTH: Final = 30 * 86_400_000
"""Longest span of one request for bills, in milliseconds."""
PLANS: Final = ("normal_plan", "track_plan", "profit_loss")


class Bitget(Dialect):
    """One account at Bitget. An order uses the margin mode of its position."""

    exchange: ClassVar[str] = "bitget"
    codes = bitget_codes.CODES
    code_form = re.compile(r"[1-9]\d{4,5}")
    limits = bitget_codes.LIMITS
    costs = bitget_codes.COSTS
    client_ids = ClientIdRule(longest=50)
    conditional_orders = ConditionalOrderRule(("mark",))
    # Bitget does not document how long it remembers a client order id.
    order_life = OrderLife(always=30.0, names="open")
    capabilities = bitget_codes.CAPABILITIES
    coin_list = CoinList(
        "publicSpotGetV2SpotPublicCoins", ("data",), "coin", "chains", "withdrawable", ("true",), ("false",)
    )
    has_hedge_mode = True
    instrument_states = StateTable(("symbolStatus",), bitget_codes.STATES, bitget_codes.PASSING)
    tried = "a local server with the v2 API (USDT futures, one-way and hedge)"

    def __init__(self, client: Client, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self._product = f"{spec.currency}-FUTURES"
        self._held: dict[tuple[str, str], Position] = {}
        self._isolated: set[str] = set()
        """Symbols whose positions have isolated margin."""
        self._mode: PositionMode | None = None
        self._plan_types: dict[str, str] = {}
        """Id of a trigger order → its kind, which its cancellation needs."""

    @classmethod
    def client_options(cls, spec: AccountSpec) -> Mapping[str, Any]:
        """The generic options, and that the account is a classic one; ccxt would decide it by a request that may
        fail."""
        return {**super().client_options(spec), "uta": False, "fetchMarkets": {"types": ["swap"]}}

    @classmethod
    def codes_of(cls, answer: VenueAnswer) -> Iterable[str]:
        body = answer.body
        return bitget_codes.refusal_codes(body.get("code"), body.get("msg")) if isinstance(body, Mapping) else ()

    @classmethod
    def limit_uses(cls, headers: Mapping[str, str], path: str) -> Mapping[str, LimitUse]:
        """The documented limit of the endpoint, less what the answer says is left of it.

        More than the documented limit is the limit of another account, which no answer states: unknown.
        """
        name, left = bitget_codes.PATHS.get(path), headers.get(bitget_codes.REMAINING, "")
        allowed = next((it.allowed for it in cls.limits if it.name == name), 0)
        if name is None or not (left.isascii() and left.isdecimal()) or len(left) > 9 or int(left) > allowed:
            return {}
        return {name: LimitUse(name, Decimal(allowed - int(left)), Decimal(allowed))}

    def concerns(self, rule: Row) -> bool:
        return rule.get("settle") == self.spec.currency and bool(rule.get("contract"))

    is_ours = concerns

    corrected_rule = staticmethod(with_order_maximum)

    # Snapshot

    async def account(self) -> tuple[AccountEquity, tuple[Position, ...]]:
        """Equity and positions. Without positions the unrealised profit is zero: Bitget leaves the field empty then."""
        equity, found = await super().account()
        if not found and equity.unrealized is None and equity.balances is not None:
            flat = tuple(replace(it, wallet=it.amount) for it in equity.balances)
            equity = replace(equity, unrealized=Decimal(0), balances=flat)
        return equity, found

    async def equity(self) -> AccountEquity:
        return account_equity(await self._data("privateMixGetV2MixAccountAccounts"), self.spec.currency)

    async def asset_prices(self, assets: Sequence[str]) -> Mapping[str, Quote]:
        """The last price at spot against the account's currency; Bitget's own valuation has no request."""
        names = {f"{asset}{self.spec.currency}": asset for asset in assets}
        requests = [self.client.call("publicSpotGetV2SpotMarketTickers", {"symbol": name}) for name in names]
        rows = [row for it in await answered(requests) for row in rows_at(it, "data")]
        return {
            names[str(row.get("symbol"))]: quote_of(row, "bidPr askPr lastPr - -", instant(row.get("ts")))
            for row in rows
            if row.get("symbol") in names
        }

    async def positions(self) -> tuple[Position, ...]:
        answer = await self._data("privateMixGetV2MixPositionAllPosition", {"marginCoin": self.spec.currency})
        rows = positions.sized(rows_at(answer, what="the answer about positions"), "total")
        parsed = [self.client.ccxt.parse_position(it, self.rule_of(it.get("symbol"))) for it in rows]
        found = positions.positions(parsed, self.rules, self.refine_position)
        self._held = {it.key: it for it in found}
        self._isolated = {str(it["symbol"]) for it in parsed if it["info"].get("marginMode") == "isolated"}
        self._mode = self._mode_of(rows) or self._mode
        return found

    def refine_position(self, position: Position, info: Row) -> Position:
        return replace(
            position,
            liquidation_price=positive(info.get("liquidationPrice")),  # never an estimate of ccxt
            margin=decimal(info.get("marginSize")),
            unrealized_pnl=decimal(info.get("unrealizedPL")),
        )

    async def orders(self) -> tuple[Order, ...]:
        plain, *planned = await asyncio.gather(
            self._pages("privateMixGetV2MixOrderOrdersPending", "entrustedList"),
            *(self._pages("privateMixGetV2MixOrderOrdersPlanPending", "entrustedList", planType=it) for it in PLANS),
        )
        rows = [row for answer in planned for row in answer]
        self._plan_types = {str(row.get("orderId")): str(row.get("planType")) for row in rows}
        for row in rows:
            if row.get("planType") != "track_plan":
                above_zero(row.get("triggerPrice"), f"the trigger of order {row.get('orderId')}")
        return orders.open_orders(map(self.order_of, (*plain, *rows)))

    def refine_order(self, row: Row) -> Row:
        """ccxt's order; a take-profit or stop-loss of a whole position gets the size of the position."""
        found = refined_order(row)
        if decimal(found.get("amount")) or not str(found["info"].get("planType", "")).startswith("pos_"):
            return found
        side = found.get("positionSide") or ("long" if found["side"] == "sell" else "short")
        held = self._held.get((str(found["symbol"]), str(side)))
        return found if held is None else {**found, "amount": held.contracts}

    async def fills(self, symbols: Sequence[str], since: int) -> tuple[Fill, ...]:
        return self.fills_of(await self._pages("privateMixGetV2MixOrderFills", "fillList", startTime=since))

    async def order_fills(self, symbol: str, order_id: str) -> tuple[Fill, ...]:
        params = {"symbol": self.id_of(symbol), "orderId": order_id}
        rows = await self._pages("privateMixGetV2MixOrderFills", "fillList", **params)
        return fills.fills_of_order(self.fills_of(rows), order_id)

    refine_fill = staticmethod(refined_fill)

    async def flows(self, since: int) -> tuple[Flow, ...]:
        now = self.client.now_ms()
        found: dict[str, Flow] = {}
        for begin in range(since, now + 1, MONTH):
            span = {"startTime": begin, "endTime": min(begin + MONTH, now + 60_000)}
            rows = await self._pages("privateMixGetV2MixAccountBill", "bills", **span)
            found |= {flow.id: flow for flow in map(flow_of, rows) if flow is not None}
        return tuple(found.values())

    async def position_mode(self) -> PositionMode | None:
        """The mode of the positions; without positions, that of the account."""
        if self._held and self._mode is not None:
            return self._mode
        symbol = next((it for it, rule in self.rules.items() if self.concerns(rule)), None)
        if symbol is None:
            return None
        named = {"symbol": self.id_of(symbol), "marginCoin": self.spec.currency}
        return self._mode_of([await self._data("privateMixGetV2MixAccountAccount", named) or {}])

    # Orders

    def order_params(self, request: OrderRequest, mode: PositionMode) -> dict[str, Any]:
        """Numbers are sent as text: ccxt ignores a Decimal among params, and would send a stop at once."""
        params: dict[str, Any] = {
            "clientOrderId": request.client_order_id,
            "hedged": mode == "hedge",
            "marginMode": "isolated" if request.symbol in self._isolated else "cross",
        }
        if request.reduce_only:
            params["reduceOnly"] = True
        if request.time_in_force == "ioc":
            params["timeInForce"] = "IOC"
        if request.trigger_price is not None:
            params |= {"triggerPrice": str(request.trigger_price), "triggerType": "mark_price"}
        return params

    async def close_book(self) -> None:
        """Close every position of the product; without positions there is nothing to do."""
        try:
            await self._data("privateMixPostV2MixOrderClosePositions", changes=True)
        except OrderRejectedError as error:
            if error.reason != "already_flat":
                raise

    async def find(self, symbol: str, client_order_id: str) -> Row | None:
        """Search orders, then open and ended trigger orders; an order that is in none of them does not exist."""
        params = {"symbol": self.id_of(symbol), "clientOid": client_order_id}
        found = await self._order_detail(params)
        if found is not None:
            return found
        for kind in ("Pending", "History"):
            method = f"privateMixGetV2MixOrderOrdersPlan{kind}"
            rows = await self._pages(method, "entrustedList", planType="normal_plan", **params)
            rows = [row for row in rows if row.get("clientOid") == client_order_id]
            if rows:
                return await self._trigger_order(rows[0])
        return None

    async def _order_detail(self, params: Mapping[str, str]) -> Row | None:
        try:
            row = await self._data("privateMixGetV2MixOrderDetail", params)
            return self.order_of(object_at(row, what="the answer about an order"))
        except GoneError:
            return None

    async def _trigger_order(self, row: Row) -> Row:
        """A trigger order; a triggered one is reported as the order that it became."""
        status, plan = str(row.get("planStatus")), row.get("orderId")
        if status == "executed":
            params = {"planType": "normal_plan", "planOrderId": str(plan)}
            sub_orders = await self._data("privateMixGetV2MixOrderPlanSubOrder", params) or []
            number = next((str(it["orderId"]) for it in sub_orders if it.get("orderId")), None)
            found = (
                None if number is None else await self._order_detail({"symbol": str(row["symbol"]), "orderId": number})
            )
            if found is None:
                raise UnreadableError(f"trigger order {plan} was executed, and the answer lacks the resulting order")
            return {**found, "clientOrderId": row.get("clientOid")}
        has_ended = status in ("cancelled", "canceled", "fail_trigger", "fail_execute")
        return {**self.order_of(row), "status": "canceled" if has_ended else "open", "filled": 0, "average": None}

    async def cancel(self, symbol: str, order_id: str, *, conditional: bool) -> None:
        """Cancel an order. A successful answer lists trigger orders that could not be cancelled as failures."""
        params = {"symbol": self.id_of(symbol), "marginCoin": self.spec.currency}
        if not conditional:
            await self._data("privateMixPostV2MixOrderCancelOrder", {**params, "orderId": order_id}, changes=True)
            return
        kind = self._plan_types.get(order_id, "normal_plan")
        batch = {**params, "planType": kind, "orderIdList": [{"orderId": order_id}]}
        result = await self._data("privateMixPostV2MixOrderCancelPlanOrder", batch, changes=True)
        for failure in (result or {}).get("failureList") or ():
            code = str(failure.get("errorCode"))
            codes = bitget_codes.refusal_codes(code, failure.get("errorMsg"))
            raise row_error(self.refusal_codes(), codes, f"bitget {code}: {failure.get('errorMsg')}")

    # Inspection

    async def rights(self) -> KeyRights:
        answer = await self.client.call("privateSpotGetV2SpotAccountInfo")
        return rights_of(answer.get("data") or {})

    async def margin_mode(self) -> str | None:
        modes = {"isolated" if symbol in self._isolated else "cross" for symbol, _ in self._held}
        return modes.pop() if len(modes) == 1 else None

    # Rows

    async def _data(self, method: str, params: Mapping[str, Any] | None = None, *, changes: bool = False) -> Any:
        answer = await self.client.call(method, {"productType": self._product, **(params or {})}, changes=changes)
        return answer.get("data")

    async def _pages(self, method: str, name: str, **params: Any) -> list[Row]:
        """The rows of all pages of a request. UnreadableError where the list does not end."""

        async def page(before: str | None) -> tuple[list[Row], str | None]:
            query = {"limit": str(PAGE), **params, **({} if before is None else {"idLessThan": before})}
            data = object_at(await self._data(method, query), what=f"the answer to {method}")
            is_empty = name in data and data[name] is None and not data.get("endId")
            rows = [] if is_empty else rows_at(data, name, what=f"the answer to {method}")
            return rows, str(data["endId"]) if len(rows) >= PAGE and data.get("endId") else None

        return await every_page(page, None, MOST_PAGES, method)

    @staticmethod
    def _mode_of(rows: Sequence[Row]) -> PositionMode | None:
        modes = {str(row.get("posMode")) for row in rows}
        return "hedge" if "hedge_mode" in modes else "one_way" if "one_way_mode" in modes else None
