"""Orders at OKX: placing, finding, cancelling; plain and algo orders are separate, as at OKX."""

from __future__ import annotations

import re
from abc import ABC
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from msgspec.structs import replace

from killswitch.model.snapshot import OrderSide, Side
from killswitch.model.venue import OrderRejectedError, OrderRequest
from tests.faults.exchange import ZERO, Exchange, Placed
from tests.wire.ledger import Contract, contract_of
from tests.wire.okx.payloads import Row, algo_row, instrument_id, order_id, order_row, ours_of, trigger_direction
from tests.wire.okx.responses import good, outcome, paged, refusal, row_of
from tests.wire.server import Ask, RefusedError, Reply, WireVenue

NAME: Final = re.compile(r"^[A-Za-z0-9]{1,32}$")
PLAIN: Final = frozenset({"market", "limit", "post_only", "fok", "ioc", "optimal_limit_ioc"})
ALGO: Final = frozenset({"conditional", "oco", "trigger", "move_order_stop"})
BATCH: Final = 20


class OkxOrders(WireVenue, ABC):
    """The part of OKX for orders, and its ids and symbols."""

    def __init__(
        self,
        exchange: Exchange,
        *,
        sizes: Mapping[str, Decimal] | None = None,
        isolated: tuple[str, ...] = (),
        usd: Decimal = Decimal("0.999"),
        **more: object,
    ) -> None:
        self.sizes = dict(sizes or {})
        super().__init__(exchange, **more)  # type: ignore[arg-type] # options of every wire venue
        self.isolated = isolated
        self.usd = usd
        self.ledger.prices["USDT"] = usd
        self.algos: dict[str, str] = {}
        """Our id of each conditional order → the `ordType` of its placement, `conditional` for a foreign one."""

    def contract(self, symbol: str) -> Contract:
        return replace(contract_of(symbol, self.currency), size=self.sizes.get(symbol, Decimal(1)))

    # Ids and symbols

    @property
    def pos_mode(self) -> str:
        return "long_short_mode" if self.exchange.mode == "hedge" else "net_mode"

    def id_of(self, symbol: str) -> str:
        return instrument_id(symbol, self.exchange.mode)

    def symbol_of(self, inst_id: str) -> str:
        for symbol in self.exchange.markets:
            if self.id_of(symbol) == inst_id:
                return symbol
        raise RefusedError(refusal("51001", "Instrument ID, Instrument ID code, or Spread ID doesn't exist."))

    def more(self, symbol: str, kind: str = "") -> dict[str, str]:
        """What rows need in addition to the order."""
        mode = "cash" if self.exchange.mode == "spot" else "isolated" if symbol in self.isolated else "cross"
        more = {"posMode": self.pos_mode, "mgnMode": mode, "usd": str(self.usd), "ordType": kind}
        return more | {"time": str(self.now_ms())}

    def row(self, order: Placed, *, algo: bool | None = None) -> Row:
        """An order as in its list: a triggered one is a plain order, which a stop has sent."""
        name, more = self.id_of(order.symbol), self.more(order.symbol, self.algos.get(order.id, "conditional"))
        if order.trigger_price is not None if algo is None else algo:
            return algo_row(name, order, more)
        row = order_row(name, order, more)
        if order.id in self.algos:
            row |= {"algoId": order_id(order.id), "algoClOrdId": order.name or "", "clOrdId": ""}
        return row

    # Finding

    def _rows(self, ask: Ask, *, algo: bool, open_: bool) -> list[Row]:
        orders = reversed(list(self.exchange.orders.values()))
        kept = (it for it in orders if (it.trigger_price is not None) is algo and (it.state == "open") is open_)
        rows = [self.row(it) for it in kept]
        return [it for it in rows if all(ask.params.get(at) in (None, it[at]) for at in ("instType", "instId"))]

    def pending(self, ask: Ask) -> Reply:
        return good(paged(self._rows(ask, algo=False, open_=True), ask, "ordId"))

    def past(self, ask: Ask) -> Reply:
        return good(paged(self._rows(ask, algo=False, open_=False), ask, "ordId"))

    def pending_algos(self, ask: Ask) -> Reply:
        """`ordType` is required; several only as `conditional,oco`."""
        kinds = str(ask.params.get("ordType", "")).split(",")
        if not kinds[0] or (len(kinds) > 1 and set(kinds) != {"conditional", "oco"}):
            return refusal("51000", "Parameter ordType error")
        rows = [it for it in self._rows(ask, algo=True, open_=True) if it["ordType"] in kinds]
        return good(paged(rows, ask, "algoId"))

    def find(self, ask: Ask) -> Reply:
        order = self._order_of(ask.params, "ordId", "clOrdId", algo=False)
        return good([self.row(order)]) if order is not None else refusal("51603", "Order does not exist")

    def find_algo(self, ask: Ask) -> Reply:
        order = self._order_of(ask.params, "algoId", "algoClOrdId", algo=True)
        return good([self.row(order, algo=True)]) if order is not None else refusal("51603", "Order does not exist")

    def _order_of(self, params: Mapping[str, object], by_id: str, by_name: str, *, algo: bool) -> Placed | None:
        """An algo order keeps its names after it has sent its order; that order has an id alone."""
        if params.get(by_id):
            placed = self.exchange.orders.get(ours_of(str(params[by_id])))
        else:
            placed = self.exchange.orders.get(self.exchange.names.get(str(params.get(by_name, "")), ""))
        if placed is None:
            return None
        waiting, once = placed.trigger_price is not None, placed.id in self.algos
        fits = waiting or once if algo else not waiting and (bool(params.get(by_id)) or not once)
        return placed if fits else None

    # Placing

    def place(self, ask: Ask) -> Reply:
        return outcome([self._placed(ask.params)])

    def place_many(self, ask: Ask) -> Reply:
        rows = ask.params["rows"]
        if len(rows) > BATCH:
            return refusal("51111", f"Maximum {BATCH} orders can be placed in bulk")
        return outcome([self._placed(it) for it in rows])

    def place_algo(self, ask: Ask) -> Reply:
        """Place an algo order. If it is refused the outer code stays 0, and the row has the code."""
        params = ask.params
        if params.get("ordType") not in ALGO:
            return refusal("51000", "Parameter ordType error")
        row = self._placed(params, algo=True)
        row = {"algoId": row.pop("ordId"), "algoClOrdId": row.pop("clOrdId"), **row}
        return good([row])

    def _placed(self, params: Mapping[str, object], *, algo: bool = False) -> Row:
        name = str(params.get("algoClOrdId" if algo else "clOrdId") or "")
        try:
            wrong = self._wrong(params, name, algo)
            if wrong:
                return {"ordId": "", "clOrdId": name, "sCode": "51000", "sMsg": f"Parameter {wrong} error", "tag": ""}
            self._check_side(params)
            report = self.exchange.place(self._request(params, name, algo))
        except OrderRejectedError as error:
            return row_of(error, params, ordId="", clOrdId=name)
        if algo:
            self.algos[report.id] = str(params["ordType"])
        return {
            "ordId": order_id(report.id),
            "clOrdId": name,
            "sCode": "0",
            "sMsg": "Order placed",
            "tag": "",
            "ts": "0",
        }

    def _wrong(self, params: Mapping[str, object], name: str, algo: bool) -> str | None:
        """The name of the wrong parameter."""
        modes = ("cash",) if self.exchange.mode == "spot" else ("cross", "isolated")
        sides = ("long", "short") if self.exchange.mode == "hedge" else (None, "", "net")
        checks = {
            "tdMode": params.get("tdMode") in modes,
            "side": params.get("side") in ("buy", "sell"),
            "posSide": params.get("posSide") in sides,
            "ordType": params.get("ordType") in (ALGO if algo else PLAIN),
            "sz": _amount(params.get("sz")) is not None,
            "clOrdId": not name or NAME.match(name) is not None,
            "px": params.get("ordType") in ("market", "optimal_limit_ioc")
            or algo
            or _amount(params.get("px")) is not None,
            "algoClOrdId": not algo or bool(name),
        }
        return next((parameter for parameter, fits in checks.items() if not fits), None)

    def _check_side(self, params: Mapping[str, object]) -> None:
        """A closing order must have the position's margin mode, and no more than the position in long/short mode."""
        symbol = self.symbol_of(str(params["instId"]))
        closes = self._closes(params)
        if not closes or self.exchange.mode == "spot":
            return
        side: Side = "long" if params["side"] == "sell" else "short"
        held = self.exchange.held.get((symbol, side), ZERO)
        if params["tdMode"] != self.more(symbol)["mgnMode"] or held <= ZERO:
            raise OrderRejectedError("already_flat", "no position in this margin mode")
        if self.exchange.mode == "hedge" and Decimal(str(params["sz"])) > held:
            raise OrderRejectedError("blocked_by_order", f"{held} available")

    def _closes(self, params: Mapping[str, object]) -> bool:
        if self.exchange.mode == "hedge":
            return (params["side"] == "sell") is (params["posSide"] == "long")
        return str(params.get("reduceOnly", "")).lower() == "true"

    def _request(self, params: Mapping[str, object], name: str, algo: bool) -> OrderRequest:
        symbol = self.symbol_of(str(params["instId"]))
        side: OrderSide = "buy" if params["side"] == "buy" else "sell"
        closes = self._closes(params)
        held: Side = "long" if (side == "sell") is closes else "short"
        if params.get("posSide") in ("long", "short"):
            held = "long" if params["posSide"] == "long" else "short"
        price = _amount(params.get("px")) if params["ordType"] not in ("market", "optimal_limit_ioc") else None
        trigger, when = None, None
        if algo:
            trigger, when, at = trigger_direction(side, params, self.exchange.markets[symbol])
            price = None if at in (None, "-1") else Decimal(str(at))
        return OrderRequest(
            client_order_id=name or f"unnamed{len(self.exchange.orders)}", symbol=symbol, side=side,
            position_side=held, amount=Decimal(str(params["sz"])), reduce_only=closes,
            type="market" if price is None else "limit", price=price,
            time_in_force="ioc" if params["ordType"] in ("ioc", "fok", "optimal_limit_ioc") else "gtc",
            trigger_price=trigger, trigger_when="falls" if when == "falls" else "rises" if when else None,
        )  # fmt: skip

    # Cancelling

    def cancel_one(self, ask: Ask) -> Reply:
        return outcome([self._cancelled(ask.params)])

    def cancel_many(self, ask: Ask) -> Reply:
        return outcome([self._cancelled(it) for it in ask.params["rows"][:BATCH]])

    def cancel_algos(self, ask: Ask) -> Reply:
        return outcome([self._cancelled(it, algo=True) for it in ask.params["rows"][:10]])

    def _cancelled(self, params: Mapping[str, object], *, algo: bool = False) -> Row:
        by_id, by_name = ("algoId", "algoClOrdId") if algo else ("ordId", "clOrdId")
        order = self._order_of(params, by_id, by_name, algo=algo)
        row: Row = {by_id: str(params.get(by_id, "")), by_name: str(params.get(by_name, "")), "ts": "0", "tag": ""}
        if order is None or self.id_of(order.symbol) != params.get("instId"):
            return row | {"sCode": "51400", "sMsg": "Order cancellation failed as the order doesn't exist."}
        if order.state != "open":
            code = "51402" if order.state == "filled" else "51401"
            return row | {"sCode": code, "sMsg": "Order cancellation failed as the order is already done."}
        self.exchange.cancel(order.id)
        return row | {by_id: order_id(order.id), "sCode": "0", "sMsg": ""}

    def close_position(self, ask: Ask) -> Reply:
        """Close one instrument's position at market. With pending closing orders only if `autoCxl` is set."""
        symbol = self.symbol_of(str(ask.params["instId"]))
        sides: tuple[Side, ...] = ("long", "short")
        pos_side = ask.params.get("posSide")
        sides_held = [
            it
            for it in sides
            if pos_side in (it, "net", None, "") and self.exchange.held.get((symbol, it), ZERO) > ZERO
        ]
        if not sides_held or ask.params.get("mgnMode") != self.more(symbol)["mgnMode"]:
            return refusal("51023", "Position doesn't exist.")
        closing = [
            it for it in self.exchange.resting() if it.symbol == symbol and it.reduce_only and not it.trigger_price
        ]
        if closing and str(ask.params.get("autoCxl", "")).lower() != "true":
            return refusal("51115", "Cancel all pending close-orders before liquidation.")
        for order in closing:
            self.exchange.cancel(order.id)
        for side in sides_held:
            request = OrderRequest(
                str(ask.params.get("clOrdId") or f"unnamed{len(self.exchange.orders)}"), symbol,
                "sell" if side == "long" else "buy", side, self.exchange.held[symbol, side], reduce_only=True,
            )  # fmt: skip
            self.exchange.place(request)
        return good([{"instId": ask.params["instId"], "posSide": pos_side or "net", "clOrdId": "", "tag": ""}])


def _amount(value: object) -> Decimal | None:
    """A number above zero, or None."""
    try:
        number = Decimal(str(value))
    except ArithmeticError:
        return None
    return number if number.is_finite() and number > ZERO else None
