"""Bitget's v2 API for USDT futures on loopback, for one classic account, with its payloads and codes."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, ClassVar
from urllib.parse import unquote

from killswitch.model.venue import Call, OrderRejectedError, OrderRequest, RateLimit
from tests.faults.exchange import Exchange, Placed
from tests.faults.mishaps import Mishap
from tests.wire.bitget import payloads as payloads
from tests.wire.server import KEY, PASSPHRASE, Ask, RefusedError, Reply, WireVenue, rows_without_one


class BitgetWire(WireVenue):
    """Bitget. Tests set `authorities` and `bills`."""

    limits: ClassVar[tuple[RateLimit, ...]] = (
        *(RateLimit(name, allowed, 1.0) for name, allowed in payloads.LIMITS.values()),
        RateLimit("info", 1, 1.0),
        RateLimit("address", 6000, 60.0, "address"),
    )

    def __init__(self, exchange: Exchange, **more: Any) -> None:
        super().__init__(exchange, **more)
        self.authorities = ["coow", "cpow", "stor", "wtor"]
        self.ips = "192.0.2.7"
        self.bills: list[dict[str, object]] = []
        """Rows of `account/bill`, newest first."""
        self.is_suspended = False
        """Whether no chain of USDT lets withdrawals out."""
        self.plans: dict[str, str] = {}
        """clientOid → planStatus of plan orders that are over."""
        self._previous_positions: list[object] | None = None

    @property
    def symbols(self) -> dict[str, str]:
        """By Bitget's id; markets may be added while the venue runs."""
        return {payloads.id_of(it): it for it in self.exchange.markets}

    # Authentication and rate limits

    def check(self, ask: Ask) -> None:
        if "/market/" in ask.path or "/public/" in ask.path or ask.path.endswith("/margin/currencies"):
            return
        head = ask.headers
        stamp = head.get("ACCESS-TIMESTAMP", "0")
        if head.get("ACCESS-KEY") != KEY:
            raise RefusedError(self.no("40037", "Apikey does not exist", 400))
        query = f"?{unquote(ask.query)}" if ask.query else ""
        if not hmac.compare_digest(
            head.get("ACCESS-SIGN", ""), payloads.signed(f"{stamp}{ask.method}{ask.path}{query}{ask.body}")
        ):
            raise RefusedError(self.no("40009", "sign signature error", 400))
        if head.get("ACCESS-PASSPHRASE") != PASSPHRASE:
            raise RefusedError(self.no("40012", "apikey/password is incorrect", 400))
        if abs(self.now_ms() - int(stamp)) > 30_000:
            raise RefusedError(self.no("40008", "Request timestamp expired", 400))

    def units(self, ask: Ask) -> Mapping[str, int]:
        found = payloads.LIMITS.get(f"{ask.method} {ask.path.removeprefix(payloads.MIX)}")
        name = "info" if ask.path.endswith("/spot/account/info") else found[0] if found else None
        return {"address": 1} | ({name: 1} if name else {})

    def occasion(self, ask: Ask) -> tuple[Call, tuple[str, ...]] | None:
        symbol = self.symbols.get(str(ask.params.get("symbol", "")))
        symbols = (symbol,) if symbol else ()
        calls: dict[str, Call] = {
            "POST order/place-order": "submit", "POST order/place-plan-order": "submit",
            "POST order/batch-place-order": "submit_batch", "POST order/close-positions": "close_book",
            "POST order/cancel-order": "cancel", "POST order/cancel-plan-order": "cancel",
            "GET order/detail": "find_order", "GET order/orders-pending": "open_orders",
        }  # fmt: skip
        route = f"{ask.method} {ask.path.removeprefix(payloads.MIX)}"
        if route == "GET position/all-position":
            return "snapshot", ()
        if route == "GET order/fills":
            return ("fills", symbols) if ask.params.get("orderId") else None
        found = calls.get(route)
        return None if found is None else (found, symbols)

    # Payloads

    def no(self, code: str, text: str, status: int = 400) -> Reply:
        return Reply({"code": code, "msg": text, "requestTime": self.now_ms(), "data": None}, status)

    def yes(self, data: object) -> Reply:
        return Reply({"code": "00000", "msg": "success", "requestTime": self.now_ms(), "data": data})

    def refused(self, error: OrderRejectedError) -> Reply:
        code, text = payloads.REJECTIONS[error.reason]
        return self.no(code, f"{text} ({error})")

    def limited(self, wait: float) -> Reply:
        return self.no("429", "Too Many Requests", 429)

    def down(self) -> Reply:
        return self.no("40200", "Server upgrade, please try again later", 400)

    def lie(self, mishap: Mishap, ask: Ask, reply: Reply) -> Reply:
        body: dict[str, Any] = json.loads(reply.text)
        data = body.get("data")
        rows = data if isinstance(data, list) else []
        match mishap:
            case "empty":
                if isinstance(data, Mapping) and "entrustedList" not in data:
                    return self.no("40109", "The data of the order cannot be found, please confirm the order number")
                body["data"] = [] if isinstance(data, list) else {"entrustedList": None, "endId": None}
            case "page":
                body["data"] = rows_without_one(rows)
            case "sign" | "nan":
                for row in rows[:1]:
                    row["total"] = "-" + row["total"] if mishap == "sign" else "NaN"
            case "stale" | "lagging":
                body["data"] = rows if self._previous_positions is None else self._previous_positions
            case "nonsense" if isinstance(data, dict):
                data["clientOid"], data["orderId"] = "someone-elses", payloads.order_id("x999999")
            case "defect":
                body["data"] = "?"
        return Reply(body, reply.status)

    # Requests

    def answer(self, ask: Ask) -> Reply:
        route = f"{ask.method}_{ask.path.removeprefix('/api/')}".lower()
        name = "_" + "".join(it if it.isalnum() else "_" for it in route)
        do: Callable[[Mapping[str, Any]], Reply] | None = getattr(self, name, None)
        if do is None:
            raise NotImplementedError
        reply = do(ask.params)
        found = payloads.LIMITS.get(f"{ask.method} {ask.path.removeprefix(payloads.MIX)}")
        if found is None:
            return reply
        name, allowed = found
        left = str(max(0, allowed - self.used[name]))
        return Reply(reply.body, reply.status, {"X-Mbx-Used-Remain-Limit": left, **reply.headers})

    def _get_v2_public_time(self, _: Mapping[str, Any]) -> Reply:
        return self.yes({"serverTime": str(self.now_ms())})

    def _get_v2_mix_market_contracts(self, params: Mapping[str, Any]) -> Reply:
        ours = params["productType"] == "USDT-FUTURES"
        rows = (payloads.contract(it, self.exchange.markets[it]) for it in self.symbols.values() if ours)
        return self.yes([it for it in rows if params.get("symbol") in (None, it["symbol"])])

    def _get_v2_mix_market_tickers(self, params: Mapping[str, Any]) -> Reply:
        return self.yes([payloads.ticker(it, self.exchange.markets[it], self.now_ms()) for it in self.symbols.values()])

    def _get_v2_spot_public_coins(self, _: Mapping[str, Any]) -> Reply:
        chains = [
            {"chain": "ERC20", "withdrawable": "false", "rechargeable": "true"},
            {"chain": "TRC20", "withdrawable": "false" if self.is_suspended else "true", "rechargeable": "true"},
        ]
        return self.yes([{"coinId": "2", "coin": "USDT", "transfer": "true", "chains": chains}])

    def _get_v2_spot_account_info(self, _: Mapping[str, Any]) -> Reply:
        return self.yes({"userId": "1", "ips": self.ips, "authorities": self.authorities, "parentId": 1})

    def _get_v2_mix_account_accounts(self, params: Mapping[str, Any]) -> Reply:
        book = self.book("equity")
        margin, profit, equity = book.gross / payloads.LEVERAGE, book.unrealized_in("USDT"), book.equity_in("USDT")
        row = {
            "marginCoin": "USDT", "locked": "0", "available": str(equity - profit), "crossedMaxAvailable":
            str(equity - margin), "isolatedMaxAvailable": str(equity - margin), "maxTransferOut":
            str(equity - margin), "accountEquity": str(equity), "usdtEquity": str(equity),
            "btcEquity": "2", "crossedRiskRate": "0", "unrealizedPL": str(profit), "coupon": "0",
            "crossedUnrealizedPL": str(profit), "isolatedUnrealizedPL": "0", "unionTotalMargin": "",
            "crossedMargin": str(margin), "isolatedMargin": "0", "assetMode": "single", "grant": "0",
        }  # fmt: skip
        return self.yes([row] if params["productType"] == "USDT-FUTURES" else [])

    def _get_v2_mix_account_account(self, params: Mapping[str, Any]) -> Reply:
        if params["symbol"].upper() not in self.symbols:
            return self.no("40034", "Parameter does not exist")
        mode = "hedge_mode" if self.exchange.mode == "hedge" else "one_way_mode"
        row = {"marginCoin": "USDT", "accountEquity": str(self.equity), "marginMode": "crossed", "posMode": mode}
        return self.yes(row | {"crossedMarginLeverage": 10, "assetMode": "single"})

    def _get_v2_mix_position_all_position(self, params: Mapping[str, Any]) -> Reply:
        book = self.book("positions")
        rows: list[object] = [payloads.position(self.exchange, book, key) for key in book.lots]
        reply = self.yes(rows if params["productType"] == "USDT-FUTURES" else [])
        self._previous_positions = rows
        return reply

    def _get_v2_mix_order_orders_pending(self, params: Mapping[str, Any]) -> Reply:
        found = [it for it in self._orders(params) if it.state == "open" and not it.waits]
        return self._page([payloads.order(self.exchange, it, self.now_ms()) for it in found], params, "entrustedList")

    def _get_v2_mix_order_orders_plan_pending(self, params: Mapping[str, Any]) -> Reply:
        if params.get("planType") not in ("normal_plan", "track_plan", "profit_loss"):
            return self.no("400172", "Parameter verification failed")
        found = [it for it in self._orders(params) if it.waits and params["planType"] == "normal_plan"]
        return self._page([payloads.plan(self.exchange, it, self.now_ms()) for it in found], params, "entrustedList")

    def _get_v2_mix_order_orders_plan_history(self, params: Mapping[str, Any]) -> Reply:
        found = [it for it in self._orders(params) if it.trigger_when and not it.waits]
        rows = [payloads.plan(self.exchange, it, self.now_ms()) for it in found]
        for row, it in zip(rows, found, strict=True):
            row["planStatus"] = "cancelled" if it.state == "canceled" else "executed"
        return self._page(rows, params, "entrustedList")

    def _get_v2_mix_order_plan_sub_order(self, params: Mapping[str, Any]) -> Reply:
        found = [it for it in self._orders({"orderId": params["planOrderId"]}) if it.trigger_when and not it.waits]
        return self.yes([{"orderId": payloads.order_id(it.id), "type": it.type, "status": "success"} for it in found])

    def _get_v2_mix_order_detail(self, params: Mapping[str, Any]) -> Reply:
        found = [it for it in self._orders(params) if not it.waits]
        if not found:
            return self.no("40109", "The data of the order cannot be found, please confirm the order number")
        return self.yes(payloads.order(self.exchange, found[0], self.now_ms()))

    def _get_v2_mix_order_fills(self, params: Mapping[str, Any]) -> Reply:
        shown = list(self.ledger.fills())[::-1]
        rows = [payloads.fill(self.exchange, it, self.ledger.profits[it.id]) for it in shown]
        for name in ("symbol", "orderId"):
            rows = [it for it in rows if params.get(name, it[name]) == it[name]]
        since = int(params.get("startTime", 0))
        return self._page([it for it in rows if int(str(it["cTime"])) >= since], params, "fillList")

    def _get_v2_mix_account_bill(self, params: Mapping[str, Any]) -> Reply:
        booked = [payloads.bill(it) for it in self.ledger.shown()]
        begin, end = int(params.get("startTime", 0)), int(params.get("endTime", 10**15))
        rows = [it for it in booked[::-1] if begin <= int(str(it["cTime"])) <= end]
        return self._page([*rows, *self.bills], params, "bills")

    def _post_v2_mix_order_place_order(self, params: Mapping[str, Any]) -> Reply:
        return self.yes(self._placed(params))

    def _post_v2_mix_order_place_plan_order(self, params: Mapping[str, Any]) -> Reply:
        return self.yes(self._placed(params))

    def _post_v2_mix_order_batch_place_order(self, params: Mapping[str, Any]) -> Reply:
        done: list[object] = []
        failed: list[object] = []
        for it in params["orderList"]:
            try:
                done.append(self._placed({**params, **it}))
            except OrderRejectedError as error:
                code, text = payloads.REJECTIONS[error.reason]
                failed.append({"orderId": "", "clientOid": it.get("clientOid"), "errorMsg": text, "errorCode": code})
        return self.yes({"successList": done, "failureList": failed})

    def _post_v2_mix_order_cancel_order(self, params: Mapping[str, Any]) -> Reply:
        found = [it for it in self._orders(params) if it.state == "open" and not it.waits]
        if not found:
            return self.no("40768", "Order does not exist")
        self.exchange.cancel(found[0].id)
        return self.yes({"orderId": payloads.order_id(found[0].id), "clientOid": found[0].name or ""})

    def _post_v2_mix_order_cancel_plan_order(self, params: Mapping[str, Any]) -> Reply:
        done: list[object] = []
        failed: list[object] = []
        for wanted in params["orderIdList"]:
            found = [it for it in self._orders({**params, **wanted}) if it.waits]
            if found:
                self.exchange.cancel(found[0].id)
                done.append({"orderId": payloads.order_id(found[0].id), "clientOid": found[0].name or ""})
            else:
                failed.append({**wanted, "errorMsg": "Plan order does not exist", "errorCode": "43025"})
        return self.yes({"successList": done, "failureList": failed})

    def _post_v2_mix_order_close_positions(self, params: Mapping[str, Any]) -> Reply:
        before = set(self.exchange.orders)
        self.exchange.close_book()
        made = [it for name, it in self.exchange.orders.items() if name not in before]
        if not made:
            return self.no("22002", "No position to close")
        rows = [
            {"orderId": payloads.order_id(it.id), "clientOid": "", "symbol": payloads.id_of(it.symbol)} for it in made
        ]
        return self.yes({"successList": rows, "failureList": []})

    # State

    def _orders(self, params: Mapping[str, Any]) -> list[Placed]:
        return [
            it
            for it in self.exchange.orders.values()
            if params.get("symbol", "").upper() in ("", payloads.id_of(it.symbol))
            and (params.get("clientOid") or it.name) == it.name
            and (params.get("orderId") or payloads.order_id(it.id)) == payloads.order_id(it.id)
        ]

    def _placed(self, params: Mapping[str, Any]) -> dict[str, object]:
        symbol = self.symbols.get(str(params["symbol"]).upper())
        if symbol is None or params.get("productType") != "USDT-FUTURES":
            raise RefusedError(self.no("40034", "Parameter does not exist"))
        hedged = self.exchange.mode == "hedge"
        trade = str(params.get("tradeSide", "")).lower()
        if hedged is not bool(trade):
            raise RefusedError(
                self.no("40774", "The order type for unilateral position must also be the unilateral position type.")
            )
        side = str(params["side"])
        opening = side
        if hedged and trade == "close":
            side = "sell" if side == "buy" else "buy"
        trigger = params.get("triggerPrice")
        price = params.get("executePrice") or params.get("price")
        now = self.exchange.markets[symbol].price
        report = self.exchange.place(
            OrderRequest(
                client_order_id=str(params.get("clientOid") or f"unnamed{len(self.exchange.orders)}"),
                symbol=symbol,
                side="sell" if side == "sell" else "buy",
                position_side=("long" if opening == "buy" else "short")
                if hedged
                else "long"
                if side == "sell"
                else "short",
                amount=Decimal(str(params["size"])),
                reduce_only=trade == "close" or params.get("reduceOnly") == "YES",
                type="limit" if params["orderType"] == "limit" else "market",
                price=Decimal(str(price)) if price and params["orderType"] == "limit" else None,
                time_in_force="ioc" if str(params.get("force", "")).lower() == "ioc" else "gtc",
                trigger_price=Decimal(str(trigger)) if trigger else None,
                trigger_when=("falls" if Decimal(str(trigger)) < now else "rises") if trigger else None,
            )
        )
        return {"orderId": payloads.order_id(report.id), "clientOid": params.get("clientOid", "")}

    def _page(self, rows: list[dict[str, object]], params: Mapping[str, Any], name: str) -> Reply:
        size = int(params.get("limit", 100))
        less = params.get("idLessThan")
        key = {"entrustedList": "orderId", "fillList": "tradeId", "bills": "billId"}[name]
        begin = next((n + 1 for n, row in enumerate(rows) if row[key] == less), 0) if less else 0
        shown = rows[begin : begin + size]
        return self.yes({name: shown or None, "endId": shown[-1][key] if shown else None})
