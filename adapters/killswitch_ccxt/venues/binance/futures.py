"""What Binance's two futures systems, USD-M and COIN-M, have in common: the same questions under other addresses.

Everything about the account is asked by the venue's own endpoints and read from its own rows, see `rows`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar

from msgspec import structs

from killswitch.model.inspection import KeyRights
from killswitch.model.snapshot import Fill, Flow, Order, Position
from killswitch.model.venue import (
    AccountSpec,
    ClientIdRule,
    DeadManRule,
    MalformedAnswerError,
    OrderLife,
    OrderReport,
    OrderRequest,
    VenueError,
)
from killswitch_ccxt import fills, orders, positions
from killswitch_ccxt.dialect import Dialect, PositionMode
from killswitch_ccxt.errors import GoneError, Meaning, row_error
from killswitch_ccxt.instruments import States, states_of
from killswitch_ccxt.numbers import NoSuchSymbolError, UnreadableError, flag, instant, needed
from killswitch_ccxt.parts import Ages
from killswitch_ccxt.response_capture import Answer
from killswitch_ccxt.venues.binance import codes as binance_codes
from killswitch_ccxt.venues.binance import pages
from killswitch_ccxt.venues.binance import rows as binance_rows
from killswitch_ccxt.venues.binance.pages import Causes

Row = Mapping[str, Any]


class BinanceFutures(Dialect):
    """One-way and hedge mode, cross and isolated margin."""

    api: ClassVar[str]
    """The beginning of ccxt's implicit methods: `fapiPrivate`."""
    account_method: ClassVar[str]
    positions_method: ClassVar[str]
    codes: ClassVar[Mapping[str, Meaning]] = binance_codes.FUTURES
    code_form = binance_codes.FORM
    client_ids = ClientIdRule(longest=36)
    batch = 5
    dead_man = DeadManRule("symbol", shortest=1.0)
    order_life = OrderLife(longest=60.0, names="open")
    window = 10_000
    fees_by_fills = True
    streams = ("orders", "positions")
    has_hedge_mode = True
    fills_need_symbol = True
    keeps_rules = True
    trades_in_flows = True
    # An income history weighs 30, a list of fills 5: 4 and 6 of them a minute are 150 of the 1200 of reading's half.
    ages = Ages(
        orders=20.0, fills=30.0, flows=60.0, quotes=20.0, orders_least=15.0, rows_least=10.0, states=30.0,
        rows_hurried=4, fills_hurried=6,
    )  # fmt: skip

    def __init__(self, client: Any, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self._causes = Causes(partial(self.ask, "GetForceOrders"), self.id_of)
        self._limited: object = None
        self._traded: Mapping[str, datetime] = {}
        self._prices: Mapping[str, Decimal] = {}
        """Coin → its price in the account's currency, where positions are settled in another one."""

    @classmethod
    def client_options(cls, spec: AccountSpec) -> Mapping[str, Any]:
        return {
            "watchPositions": {"fetchPositionsSnapshot": False, "awaitPositionsSnapshot": False},
            "watchBalance": {"fetchBalanceSnapshot": False, "awaitBalanceSnapshot": False},
        }

    @classmethod
    def codes_of(cls, answer: Answer) -> Iterable[str]:
        return binance_codes.codes_of(answer)

    @classmethod
    def used_from(cls, headers: Mapping[str, str], path: str) -> Mapping[str, int]:
        return binance_codes.used_from(headers)

    @property
    def rules(self) -> Mapping[str, Row]:
        """ccxt's markets; the most that one order may be is the most that a market order may be."""
        found: Mapping[str, Row] = self.client.ccxt.markets or {}
        if found is not self._limited:
            for rule in found.values():
                _limit_to_market_orders(rule["limits"])
            self._limited = found
        return found

    def symbol_of(self, market_id: str) -> str:
        """ccxt's symbol. UnreadableError for one that the rules do not have."""
        known = (self.client.ccxt.markets_by_id or {}).get(market_id)
        if not known:
            raise NoSuchSymbolError(f"the venue's rules have no {market_id}")
        return str(known[0]["symbol"])

    def id_of(self, symbol: str) -> str:
        """The venue's name of it."""
        if symbol not in self.rules:
            raise NoSuchSymbolError(f"the venue's rules have no {symbol}")
        return str(self.rules[symbol]["id"])

    async def ask(self, what: str, params: Row | None = None, *, changes: bool = False, places: bool = False) -> Any:
        """Call the endpoint of this system that ccxt calls `what`: `GetOpenOrders`. The rest is as in `Client.call`."""
        return await self.client.call(f"{self.api}{what}", dict(params or {}), changes=changes, places=places)

    # Reading

    async def read_positions(self) -> tuple[Row, ...]:
        """The venue's own rows."""
        rows = await self.client.call(self.positions_method)
        if not isinstance(rows, list):
            raise UnreadableError("the venue's positions are no list")
        return tuple(rows)

    def positions_of(self, rows: Iterable[Row]) -> tuple[Position, ...]:
        """Every row with a size."""
        read = [binance_rows.position(row, self.symbol_of) for row in rows]
        for symbol in {str(it["symbol"]) for it in read if it["contracts"]}:
            rule = self.rules[symbol]
            if rule.get("settle") not in (rule.get("base"), rule.get("quote")):
                raise UnreadableError(f"position {symbol}: the venue's rules do not say in what it settles")
        return positions.contracts(positions.positions(read, self.rules, self.refine_position), self.rules)

    async def positions(self) -> tuple[Position, ...]:
        return self.positions_of(await self.read_positions())

    def refine_position(self, position: Position, info: Row) -> Position:
        rank = binance_rows.told(info.get("adl"))
        return position if rank is None else structs.replace(position, adl_rank=int(rank))

    def in_own_currency(self, found: tuple[Position, ...], dollars: Mapping[str, Decimal]) -> tuple[Position, ...]:
        """Money of positions that are settled in another coin, at the venue's index of that coin in USD.

        UnreadableError where an inverse one has no such price: its numbers would pass for the account's currency.
        """
        self._prices = binance_rows.in_own(dollars, self.spec.currency)
        return tuple(map(self._converted, found))

    def settled(self, symbol: str) -> str:
        """The coin that a contract is settled in."""
        return str(self.rules[symbol].get("settle") or self.spec.currency)

    def _converted(self, position: Position) -> Position:
        coin = self.settled(position.symbol)
        if coin == self.spec.currency:
            return position
        price = self._prices.get(coin)
        if price is None and self.rules[position.symbol].get("inverse"):
            raise UnreadableError(
                f"position {position.symbol}: the venue has no price of {coin} in {self.spec.currency}"
            )
        return structs.replace(
            position, notional=_times(position.notional, price), margin=_times(position.margin, price),
            unrealized_pnl=_times(position.unrealized_pnl, price),
        )  # fmt: skip

    async def orders(self) -> tuple[Order, ...]:
        ordinary, conditional = await asyncio.gather(self.ask("GetOpenOrders"), self.ask("GetOpenAlgoOrders"))
        return orders.resting(binance_rows.order(row, self.symbol_of) for row in (*ordinary, *conditional))

    async def fills(self, symbols: Sequence[str], since: int) -> tuple[Fill, ...]:
        ask = partial(self.ask, "GetUserTrades")
        asked = [{"symbol": self.id_of(symbol)} for symbol in symbols]
        answers = await asyncio.gather(*(pages.trades(ask, it, {"startTime": since}) for it in asked))
        rows = (binance_rows.trade(row, self.symbol_of) for rows in answers for row in rows)
        found = fills.fills(rows, self.refine_fill)
        return await self._causes.told(found)

    def refine_fill(self, fill: Fill, info: Row) -> Fill:
        side = str(info.get("positionSide") or "BOTH").lower()
        profit = binance_rows.told(info.get("realizedPnl"))
        if (coin := self.settled(fill.symbol)) != self.spec.currency:
            profit = _times(profit, self._prices.get(coin))
        if side not in ("long", "short"):
            return structs.replace(fill, realized_pnl=profit)
        return structs.replace(fill, realized_pnl=profit, position_side=side)

    async def flows(self, since: int) -> tuple[Flow, ...] | None:
        """Page after page: the venue gives the oldest first."""
        rows = await pages.in_time(partial(self.ask, "GetIncome"), {}, since)
        self._traded = binance_rows.traded(rows, self.symbol_of)
        return tuple({flow.id: flow for flow in binance_rows.income(rows)}.values())

    def traded(self) -> Mapping[str, datetime]:
        return self._traded

    async def states(self) -> States:
        """What the rules say beyond open and halted; nothing is asked for it."""
        infos = {symbol: rule.get("info") or {} for symbol, rule in self.rules.items()}
        told = {symbol: str(info.get("contractStatus") or info.get("status")) for symbol, info in infos.items()}
        return states_of(told, binance_rows.MARKETS, binance_rows.PASSING)

    # Acting

    def order_params(self, request: OrderRequest, mode: PositionMode) -> dict[str, Any]:
        """The venue's own names. In hedge mode it does not want to hear of reduce-only: the side is the guard."""
        conditional = request.trigger_price is not None
        params: dict[str, Any] = {
            "symbol": self.id_of(request.symbol), "side": request.side.upper(), "type": _type(request),
            "quantity": format(request.amount, "f"), "newOrderRespType": "RESULT",
            "clientAlgoId" if conditional else "newClientOrderId": request.client_order_id,
        }  # fmt: skip
        if request.type == "limit":
            price = needed(request.price, "the price of a limit order")
            params |= {"price": format(price, "f"), "timeInForce": request.time_in_force.upper()}
        if request.trigger_price is not None:
            trigger = {"triggerPrice": format(request.trigger_price, "f"), "workingType": "MARK_PRICE"}
            params |= {"algoType": "CONDITIONAL"} | trigger
        if mode == "hedge":
            params["positionSide"] = request.position_side.upper()
        elif request.reduce_only:
            params["reduceOnly"] = "true"
        return params

    async def submit(self, request: OrderRequest, mode: PositionMode) -> OrderReport:
        params = self.checked(request, mode)
        what = "PostOrder" if request.trigger_price is None else "PostAlgoOrder"
        return self._taken(await self.ask(what, params | self.window_of(request), places=True), request)

    def checked(self, request: OrderRequest, mode: PositionMode) -> dict[str, Any]:
        """What is sent. OrderRejectedError where the venue's steps would change a number."""
        self.create_arguments(structs.replace(request, trigger_price=None, trigger_when=None), mode)
        return self.order_params(request, mode)

    def _taken(self, row: Row, request: OrderRequest) -> OrderReport:
        """UnreadableError where the answer is about another order."""
        read = binance_rows.order(row, self.symbol_of)
        if read["clientOrderId"] not in (request.client_order_id, None) or read["symbol"] != request.symbol:
            raise UnreadableError(f"sent {request.client_order_id}, told of {read['clientOrderId']} {read['symbol']}")
        found = orders.report({**read, "clientOrderId": request.client_order_id}, request.symbol)
        self._causes.sent(found.symbol, found.id)
        return found

    async def submit_batch(
        self, requests: Sequence[OrderRequest], mode: PositionMode
    ) -> Sequence[OrderReport | VenueError]:
        """Refused orders stand in their place. Conditional ones have no batch, and are sent one by one."""
        if any(request.trigger_price is not None for request in requests):
            return [await self._alone(request, mode) for request in requests]
        params = {"batchOrders": [self.checked(request, mode) for request in requests], **self.window_of(*requests)}
        rows = await self.ask("PostBatchOrders", params, places=True)
        if not isinstance(rows, list) or len(rows) != len(requests):
            raise UnreadableError(f"{len(requests)} orders were sent, and the answer is not one row for each")
        return [self._taken_or_not(row, request) for row, request in zip(rows, requests, strict=True)]

    async def _alone(self, request: OrderRequest, mode: PositionMode) -> OrderReport | VenueError:
        try:
            return await self.submit(request, mode)
        except UnreadableError as error:
            return MalformedAnswerError(str(error))
        except VenueError as error:
            return error

    def _taken_or_not(self, row: Row, request: OrderRequest) -> OrderReport | VenueError:
        if isinstance(row, Mapping) and row.get("code") is not None:
            text = f"{self.exchange}: {row['code']} {row.get('msg')}"
            return row_error(self.verdicts(), binance_codes.codes_in(row), text, order=row)
        try:
            return self._taken(row, request)
        except (UnreadableError, AttributeError) as error:
            return MalformedAnswerError(str(error))

    async def find(self, symbol: str, client_order_id: str) -> Row | None:
        """Ordinary orders first, then conditional ones; of one that was triggered, what became of it."""
        asked = {"symbol": self.id_of(symbol)}
        try:
            return self._found(await self.ask("GetOrder", asked | {"origClientOrderId": client_order_id}), symbol)
        except GoneError:
            pass
        try:
            row = await self.ask("GetAlgoOrder", {"clientAlgoId": client_order_id})
        except GoneError:
            return None
        if row.get("actualOrderId"):
            sent = await self.ask("GetOrder", asked | {"orderId": row["actualOrderId"]})
            return {**self._found(sent, symbol), "clientOrderId": client_order_id}
        return self._found(row, symbol)

    def _found(self, row: Row, symbol: str) -> dict[str, Any]:
        read = binance_rows.order(row, self.symbol_of)
        if read["symbol"] != symbol:
            raise UnreadableError(f"asked for an order of {symbol}, told of one of {read['symbol']}")
        return read

    async def order_fills(self, symbol: str, order_id: str) -> tuple[Fill, ...]:
        if order_id.startswith(binance_rows.ALGO):
            return ()  # it waits: what it becomes has a number of its own
        asked = {"symbol": self.id_of(symbol), "orderId": order_id}
        rows = await pages.trades(partial(self.ask, "GetUserTrades"), asked, {})
        found = fills.fills((binance_rows.trade(row, self.symbol_of) for row in rows), self.refine_fill)
        found = fills.of_order(found, order_id)
        if len(rows) >= pages.PAGE:
            await self._all_of(order_id, asked, found)
        return found

    async def _all_of(self, order_id: str, asked: Row, found: Sequence[Fill]) -> None:
        """More than one page, and the documents do not say where the first one begins: the order itself knows."""
        filled = needed((await self.ask("GetOrder", asked)).get("executedQty"), f"what was filled of {order_id}")
        if sum((fill.amount for fill in found), Decimal(0)) < filled:
            raise UnreadableError(f"order {order_id}: {filled} was filled of it, and its trades are fewer")

    async def cancel(self, symbol: str, order_id: str, *, conditional: bool) -> None:
        asked = {"symbol": self.id_of(symbol)}
        if order_id.startswith(binance_rows.ALGO):
            number = order_id.removeprefix(binance_rows.ALGO)
            await self.ask("DeleteAlgoOrder", asked | {"algoId": number}, changes=True)
        else:
            await self.ask("DeleteOrder", asked | {"orderId": order_id}, changes=True)

    async def arm_dead_man(self, seconds: float, symbols: Collection[str]) -> None:
        """A timer for each symbol, and each is one request."""
        wait = int(seconds * 1000)
        asked = [{"symbol": self.id_of(symbol), "countdownTime": wait} for symbol in sorted(symbols)]
        await asyncio.gather(*(self.ask("PostCountdownCancelAll", params, changes=True) for params in asked))

    async def disarm_dead_man(self, symbols: Collection[str]) -> None:
        await self.arm_dead_man(0, symbols)

    # Being asked about

    async def rights(self) -> KeyRights:
        return rights_of(await self.client.call("sapiGetAccountApiRestrictions"), "enableFutures")


def rights_of(row: Row, trades_by: str) -> KeyRights:
    """The venue's own list of what a key may do. `trades_by`: the right that trading here takes."""
    moves = [flag(row.get(name)) for name in ("enableInternalTransfer", "permitsUniversalTransfer")]
    return KeyRights(
        read=flag(row.get("enableReading")), trade=flag(row.get(trades_by)),
        withdraw=flag(row.get("enableWithdrawals")), transfer=None if None in moves else any(moves),
        bound_to_addresses=flag(row.get("ipRestrict")), expires_at=instant(row.get("tradingAuthorityExpirationTime")),
    )  # fmt: skip


def _times(amount: Decimal | None, price: Decimal | None) -> Decimal | None:
    return None if amount is None or price is None else amount * price


def _type(request: OrderRequest) -> str:
    if request.trigger_price is None:
        return request.type.upper()
    against = (request.trigger_when == "falls") is (request.side == "sell")
    return ("STOP" if against else "TAKE_PROFIT") + ("_MARKET" if request.type == "market" else "")


def _limit_to_market_orders(limits: dict[str, Any]) -> None:
    amounts, at_market = limits.get("amount") or {}, (limits.get("market") or {}).get("max")
    most = [Decimal(str(it)) for it in (amounts.get("max"), at_market) if it is not None and Decimal(str(it)) > 0]
    if most:
        limits["amount"] = {**amounts, "max": min(most)}
