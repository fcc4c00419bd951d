"""The answers and effects of Bybit's v5 routes, one method per route."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from killswitch.model.snapshot import Side
from killswitch.model.venue import OrderRejectedError, OrderRequest
from tests.faults.exchange import Placed
from tests.wire.bybit import payloads as payloads
from tests.wire.server import RefusedError, Reply

if TYPE_CHECKING:
    from tests.wire.bybit.venue import BybitWire


class BybitRoutes:
    """`get_order_realtime` answers `GET /v5/order/realtime`, and so on."""

    def __init__(self, venue: BybitWire) -> None:
        self._venue = venue

    def get_market_time(self, _: Mapping[str, Any]) -> Reply:
        now = self._venue.now_ms()
        return self._venue.yes({"timeSecond": str(now // 1000), "timeNano": str(now * 1_000_000)})

    def get_market_instruments_info(self, params: Mapping[str, Any]) -> Reply:
        wanted = {"Trading": False, "Closed": True}.get(params.get("status", "Trading"))
        rows = [
            payloads.instrument(it, self._venue.exchange.markets[it.symbol])
            for it in self._venue.listings.values()
            if it.category == params["category"]
            and params.get("symbol") in (None, it.id)
            and (self._venue.exchange.markets[it.symbol].state == "delisted") is wanted
        ]
        return self._page(rows, params, 500)

    def get_market_tickers(self, params: Mapping[str, Any]) -> Reply:
        of = [it for it in self._venue.listings.values() if it.category == params["category"]]
        rows = [payloads.ticker(it, self._venue.exchange.markets[it.symbol]) for it in of]
        wanted = params.get("symbol")
        return self._venue.yes(
            {"category": params["category"], "list": [it for it in rows if wanted in (None, it["symbol"])]}
        )

    def get_asset_coin_query_info(self, _: Mapping[str, Any]) -> Reply:
        """Two chains of USDT, of which one lets nothing out."""
        chains = [
            {"chain": "ETH", "chainType": "ERC20", "chainDeposit": "1", "chainWithdraw": "0"},
            {"chain": "TRX", "chainType": "TRC20", "chainDeposit": "1"}
            | {"chainWithdraw": "0" if self._venue.is_suspended else "1"},
        ]
        return self._venue.yes({"rows": [{"name": "USDT", "coin": "USDT", "chains": chains}]})

    def get_account_info(self, _: Mapping[str, Any]) -> Reply:
        return self._venue.yes(
            {
                "marginMode": self._venue.margin_mode, "updatedTime": "1697078946000", "unifiedMarginStatus": 6,
                "dcpStatus": "ON" if self._venue.windows else "OFF", "timeWindow": 10, "smpGroup": 0,
                "isMasterTrader": False, "spotHedgingStatus": "OFF",
            }
        )  # fmt: skip

    def get_account_query_dcp_info(self, _: Mapping[str, Any]) -> Reply:
        status = "ON" if self._venue.protects else "OFF"
        infos = [
            {"product": it, "dcpStatus": status, "timeWindow": str(self._venue.windows.get(it, 10))}
            for it in ("SPOT", "DERIVATIVES", "OPTIONS")
        ]
        return self._venue.yes({"dcpInfos": infos})

    def get_system_status(self, _: Mapping[str, Any]) -> Reply:
        return self._venue.yes({"list": []})

    def get_user_query_api(self, _: Mapping[str, Any]) -> Reply:
        return self._venue.yes(self._venue.key_info)

    def get_account_wallet_balance(self, _: Mapping[str, Any]) -> Reply:
        return self._venue.yes({"list": [self._venue.wallet()]})

    def get_position_list(self, params: Mapping[str, Any]) -> Reply:
        symbol = params.get("symbol")
        if params["category"] == "linear" and not symbol and not params.get("settleCoin"):
            return self._venue.no(10001, "Missing some parameters that must be filled in, symbol or settleCoin")
        rows = self.position_rows(params["category"], params.get("settleCoin"), symbol)
        reply = self._page(rows, params, 20)
        if params["category"] == "linear" and params.get("settleCoin") == "USDT":
            self._venue.previous_positions = json.loads(json.dumps(rows))
        return reply

    def get_order_realtime(self, params: Mapping[str, Any]) -> Reply:
        by_name = params.get("orderLinkId") or params.get("orderId")
        found = [it for it in self._orders(params) if by_name or it.state == "open"]
        if params["category"] == "spot" and not by_name:
            plain = params.get("orderFilter", "Order") == "Order"
            found = [it for it in found if plain is (it.trigger_price is None)]
        elif params.get("orderFilter") == "StopOrder":
            found = [it for it in found if it.waits]
        return self._page([self.order_row(it) for it in found], params, 20)

    def get_order_history(self, params: Mapping[str, Any]) -> Reply:
        found = [it for it in self._orders(params) if it.state != "open"]
        return self._page([self.order_row(it) for it in found], params, 20)

    def get_execution_list(self, params: Mapping[str, Any]) -> Reply:
        rows = [
            payloads.execution(payloads.listing(it.symbol), self._venue.exchange, it, self._venue.ledger.profits[it.id])
            for it in reversed(list(self._venue.ledger.fills()))
            if payloads.listing(it.symbol).category == params["category"]
        ]
        for name in ("symbol", "orderId", "orderLinkId", "execType"):
            rows = [it for it in rows if params.get(name, it[name]) == it[name]]
        since = int(params.get("startTime", 0))
        return self._page([it for it in rows if int(str(it["execTime"])) >= since], params, 50)

    def get_account_transaction_log(self, params: Mapping[str, Any]) -> Reply:
        now = self._venue.now_ms()
        since = int(params.get("startTime", now - 86_400_000))
        until = int(params.get("endTime", since + 86_400_000))
        if until - since > 7 * 86_400_000:
            return self._venue.no(10001, "The time range between startTime and endTime must be less than 7 days")
        booked = [payloads.log_row(it) for it in self._venue.ledger.shown()]
        rows = [*booked[::-1], *self._venue.log]
        found = [it for it in rows if since <= int(str(it["transactionTime"])) <= until]
        return self._page(found, params, 20)

    def post_asset_transfer_universal_transfer(self, params: Mapping[str, Any]) -> Reply:
        """Between unified accounts of one owner; a known id is refused."""
        venue, amount = self._venue, Decimal(str(params["amount"]))
        own, target, name = str(params["fromMemberId"]), str(params["toMemberId"]), str(params["transferId"])
        if own != str(venue.key_info["userID"]) or target not in venue.members or amount <= 0:
            return venue.no(131002, "Parameter error.")
        if any(row["transferId"] == name for row in venue.transfers):
            return venue.no(131214, "Transfer Duplicate.")
        if amount > venue.ledger.wallets["USDT"]:
            return venue.no(131212, "User Insufficient Balance.")
        venue.ledger.flow("transfer", -amount)
        other = venue.members[target]
        if isinstance(other, Decimal):
            venue.members[target] = other + amount
        else:
            other.ledger.flow("transfer", amount)
        row: dict[str, object] = {
            "transferId": name, "coin": params["coin"], "amount": format(amount, "f"), "fromMemberId": own,
            "toMemberId": target, "fromAccountType": "UNIFIED", "toAccountType": "UNIFIED",
            "timestamp": str(venue.now_ms()), "status": "SUCCESS",
        }  # fmt: skip
        venue.transfers.append(row)
        return venue.yes({"transferId": name, "status": "SUCCESS"})

    def get_asset_transfer_query_universal_transfer_list(self, params: Mapping[str, Any]) -> Reply:
        wanted = params.get("transferId")
        rows = [row for row in self._venue.transfers if wanted in (None, row["transferId"])]
        return self._page([] if self._venue.hidden_transfers else rows, params, 20)

    def post_order_create(self, params: Mapping[str, Any]) -> Reply:
        return self._venue.yes(self._placed(params, str(params["category"])))

    def post_order_create_batch(self, params: Mapping[str, Any]) -> Reply:
        rows: list[dict[str, object]] = []
        codes: list[dict[str, object]] = []
        for it in params["request"]:
            row: dict[str, object] = {"category": params["category"], "symbol": it["symbol"], "createAt": ""}
            try:
                rows.append(row | self._placed(it, str(params["category"])) | {"createAt": str(self._venue.now_ms())})
                codes.append({"code": 0, "msg": "OK"})
            except OrderRejectedError as error:
                code, text = self._venue.code(error)
                rows.append(row | {"orderId": "", "orderLinkId": ""})
                codes.append({"code": code, "msg": text})
            except RefusedError as error:
                refusal = json.loads(error.reply.text)
                rows.append(row | {"orderId": "", "orderLinkId": ""})
                codes.append({"code": refusal["retCode"], "msg": refusal["retMsg"]})
        return self._venue.yes({"list": rows}, {"list": codes})

    def post_order_cancel(self, params: Mapping[str, Any]) -> Reply:
        found = self._orders(params)
        if not found or found[0].state != "open":
            return self._venue.no(110001, "order not exists or too late to cancel")
        self._venue.exchange.cancel(found[0].id)
        return self._venue.yes({"orderId": payloads.order_id(found[0].id), "orderLinkId": found[0].name or ""})

    def post_order_cancel_all(self, params: Mapping[str, Any]) -> Reply:
        cancelled = [it for it in self._orders(params) if it.state == "open"]
        for order in cancelled:
            self._venue.exchange.cancel(order.id)
        rows = [{"orderId": payloads.order_id(it.id), "orderLinkId": it.name or ""} for it in cancelled]
        return self._venue.yes({"list": rows, "success": "1"})

    def post_order_disconnected_cancel_all(self, params: Mapping[str, Any]) -> Reply:
        window = int(params["timeWindow"])
        if not 3 <= window <= 300:
            return self._venue.no(10001, "timeWindow should be in [3, 300]")
        self._venue.windows[str(params.get("product", "OPTIONS"))] = window
        return Reply({"retCode": 0, "retMsg": "success"})

    def post_position_switch_mode(self, params: Mapping[str, Any]) -> Reply:
        wanted = "hedge" if int(params["mode"]) == 3 else "one_way"
        if wanted == self._venue.exchange.mode:
            return self._venue.no(110025, "Position mode is not modified")
        if any(self._venue.exchange.held.values()):
            return self._venue.no(110024, "You have an existing position, so position mode cannot be switched")
        self._venue.exchange.mode = "hedge" if wanted == "hedge" else "one_way"
        return self._venue.yes({})

    def position_rows(self, category: str, settle: str | None, symbol: str | None) -> list[dict[str, object]]:
        """Positions; of a requested symbol also the flat ones."""
        rows: list[dict[str, object]] = []
        book = self._venue.book("positions")
        if book.spot:
            return rows
        now = self._venue.now_ms()
        for it in self._venue.listings.values():
            if it.category != category or settle not in (None, it.settle) or symbol not in (None, it.id):
                continue
            sides: tuple[Side, Side] = ("long", "short")
            held = [side for side in sides if (it.symbol, side) in book.lots]
            if symbol and self._venue.exchange.mode == "hedge":
                held = list(sides)
            elif symbol and not held:
                held = list(sides[:1])
            rows += [payloads.position(it, self._venue.exchange, book, (it.symbol, side), now) for side in held]
        return rows

    def order_row(self, order: Placed) -> dict[str, object]:
        return payloads.order_row(payloads.listing(order.symbol), self._venue.exchange, order, self._venue.now_ms())

    def _orders(self, params: Mapping[str, Any]) -> list[Placed]:
        name, own = params.get("orderLinkId"), params.get("orderId")
        return [
            it
            for it in self._venue.exchange.orders.values()
            if (of := payloads.listing(it.symbol)).category == params["category"]
            and params.get("symbol", of.id) == of.id
            and params.get("settleCoin", of.settle) == of.settle
            and name in (None, it.name)
            and own in (None, payloads.order_id(it.id))
        ]

    def _placed(self, params: Mapping[str, Any], category: str) -> dict[str, object]:
        of = self._venue.listings.get(str(params["symbol"]))
        if of is None or of.category != category:
            raise RefusedError(self._venue.no(10001, "params error: symbol invalid"))
        index = int(params.get("positionIdx", 0))
        hedged = self._venue.exchange.mode == "hedge"
        if hedged is (index == 0):
            raise RefusedError(self._venue.no(10001, "position idx not match position mode"))
        side = str(params["side"]).lower()
        closes = hedged and (side == "sell") is (index == 1)
        trigger = params.get("triggerPrice")
        report = self._venue.exchange.place(
            OrderRequest(
                client_order_id=str(params.get("orderLinkId") or f"unnamed{len(self._venue.exchange.orders)}"),
                symbol=of.symbol,
                side="sell" if side == "sell" else "buy",
                position_side=("long" if index == 1 else "short") if hedged else "long" if side == "sell" else "short",
                amount=Decimal(str(params["qty"])),
                reduce_only=params.get("reduceOnly") is True or closes,
                type="limit" if params["orderType"] == "Limit" else "market",
                price=Decimal(str(params["price"])) if params.get("price") else None,
                time_in_force="ioc" if params.get("timeInForce") == "IOC" else "gtc",
                trigger_price=Decimal(str(trigger)) if trigger else None,
                trigger_when={"1": "rises", "2": "falls"}.get(str(params.get("triggerDirection"))),  # type: ignore[arg-type]  # one of the two, or none
            )
        )
        return {"orderId": payloads.order_id(report.id), "orderLinkId": params.get("orderLinkId", "")}

    def _page(self, rows: Iterable[Mapping[str, object]], params: Mapping[str, Any], usual: int) -> Reply:
        found = list(rows)
        begin, size = int(params.get("cursor") or 0), int(params.get("limit", usual))
        cursor = str(begin + size) if begin + size < len(found) else ""
        return self._venue.yes(
            {"nextPageCursor": cursor, "category": params.get("category", ""), "list": found[begin : begin + size]}
        )
