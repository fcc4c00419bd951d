"""Common parts of Binance's futures systems USD-M and COIN-M: the same requests at different endpoints.

Every request about the account uses the venue's own endpoints, and `rows` reads the venue's own rows.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar, Final

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.parsing import Row, UnreadableError, object_at, optional_number, required_number, rows_at
from killswitch.model.snapshot import Balance, Fill, FillCause, Flow, Order, Position
from killswitch.model.venue import (
    AccountSpec,
    ConditionalOrderRule,
    DeadManRule,
    OrderRejectedError,
    OrderReport,
    OrderRequest,
)
from killswitch_ccxt import fills, orders, positions
from killswitch_ccxt.answers import forget_oldest
from killswitch_ccxt.dialect import BatchResults, PositionMode, is_stop
from killswitch_ccxt.equity import value_of
from killswitch_ccxt.errors import GoneError, Meaning, row_error
from killswitch_ccxt.instruments import Quote, StateTable, marks_of, with_maximum
from killswitch_ccxt.traits import Ages
from killswitch_ccxt.unpriced import are_small, remark_on, unpriced_asset
from killswitch_ccxt.venues.binance import codes as binance_codes
from killswitch_ccxt.venues.binance import rows as binance_rows
from killswitch_ccxt.venues.binance.dialect import PAGE, Binance, rows_by_time

WORKING_TYPES: Final = {"mark": "MARK_PRICE", "last": "CONTRACT_PRICE"}
"""The price that triggers a conditional order → the venue's name of it; there is none for the index."""


class ValuedAssets(Struct, frozen=True):
    """The assets of an account at the venue's index, in the account's currency; None is unknown."""

    prices: Mapping[str, Decimal]
    balances: tuple[Balance, ...]
    equity: Decimal | None
    unrealized: Decimal | None
    why: str | None
    """How an asset without an index counts, or why the equity is unknown."""


class BinanceFutures(Binance):
    """One futures account, in one-way or hedge mode, with cross or isolated margin."""

    api: ClassVar[str]
    """The prefix of ccxt's implicit methods: `fapiPrivate`."""
    account_method: ClassVar[str]
    positions_method: ClassVar[str]
    codes: ClassVar[Mapping[str, Meaning]] = binance_codes.FUTURES
    batch = 5
    adl_ranks = 4
    dead_man = DeadManRule("symbol", shortest=1.0)
    conditional_orders: ClassVar[ConditionalOrderRule | None] = ConditionalOrderRule(("mark", "last"))
    streams = ("orders", "positions")
    has_hedge_mode = True
    instrument_states = StateTable(("contractStatus", "status"), binance_rows.MARKETS, binance_rows.PASSING)
    trades_endpoint = "GetUserTrades"
    trading_right = "enableFutures"
    has_trades_in_flows = True
    # An income history weighs 30, a list of fills 5: 4 and 6 of them a minute are 150 of the 1200 for snapshots.
    ages = Ages(
        orders=20.0, fills=30.0, flows=60.0, quotes=20.0, orders_least=15.0, rows_least=10.0, states=30.0,
        early_flows=4, early_fills=6,
    )  # fmt: skip

    def __init__(self, client: Any, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self._causes = FillCauses(partial(self.call_endpoint, "GetForceOrders"), self.id_of)
        self._traded: Mapping[str, datetime] = {}
        self._prices: Mapping[str, Decimal] = {}
        """Coin → its price in the account's currency, where positions are settled in another one."""

    @classmethod
    def client_options(cls, spec: AccountSpec) -> Mapping[str, Any]:
        return {
            "watchPositions": {"fetchPositionsSnapshot": False, "awaitPositionsSnapshot": False},
            "watchBalance": {"fetchBalanceSnapshot": False, "awaitBalanceSnapshot": False},
        }

    def corrected_rule(self, rule: Row) -> Row:
        """The rule with the maximum of a market order, where that is smaller, as the maximum of any order."""
        limits = rule["limits"]
        return with_maximum(rule, (limits.get("amount") or {}).get("max"), (limits.get("market") or {}).get("max"))

    def method_of(self, endpoint: str) -> str:
        return f"{self.api}{endpoint}"

    # Snapshot

    async def read_positions(self) -> list[Row]:
        """The venue's own rows."""
        return rows_at(await self.client.call(self.positions_method), what="the answer about positions")

    def positions_of(self, rows: Iterable[Row]) -> tuple[Position, ...]:
        """Every position with a size."""
        read = [binance_rows.position(row, self.symbol_of) for row in rows]
        for symbol in {str(it["symbol"]) for it in read if it["contracts"]}:
            positions.check_settlement(self.rules[symbol], symbol)
        return positions.check_contracts(positions.positions(read, self.rules, self.refine_position), self.rules)

    async def positions(self) -> tuple[Position, ...]:
        return self.positions_of(await self.read_positions())

    def refine_position(self, position: Position, info: Row) -> Position:
        rank = optional_number(info.get("adl"))
        return position if rank is None else replace(position, adl_rank=int(rank))

    def in_own_currency(self, found: tuple[Position, ...], dollars: Mapping[str, Decimal]) -> tuple[Position, ...]:
        """Positions with the amounts of other coins converted at the venue's index in USD; unknown without it."""
        self._prices = binance_rows.prices_in_currency(dollars, self.spec.currency)
        return tuple(map(self._converted, found))

    def settlement_coin(self, symbol: str) -> str:
        """The coin in which a contract settles."""
        return str(self.rules[symbol].get("settle") or self.spec.currency)

    def _converted(self, position: Position) -> Position:
        coin = self.settlement_coin(position.symbol)
        if coin == self.spec.currency:
            return position
        return positions.converted(position, self._prices.get(coin))

    def valued_assets(
        self, rows: Sequence[Row], dollars: Mapping[str, Decimal], found: Iterable[Position]
    ) -> ValuedAssets:
        """The assets at `dollars`, the venue's index in USD.

        The equity is known where those without an index are bounded and small. A declared bound is none for a coin in
        which positions settle: their profit is not in it.
        """
        prices, now = binance_rows.prices_in_currency(dollars, self.spec.currency), self.client.now()
        balances = binance_rows.balances(rows, prices)
        settled = {self.settlement_coin(position.symbol) for position in found}
        missing = []
        for it in balances:
            if it.price is not None:
                self._last_prices[it.asset] = it.price, now
                continue
            asset = unpriced_asset(it.asset, it.amount, self.spec, self._last_prices.recent(it.asset, now))
            missing.append(replace(asset, bound=None) if it.asset in settled and asset.last is None else asset)
        is_known = are_small(missing, value_of(balances))
        last = {it.asset: it.last for it in missing if it.last is not None} if is_known else {}
        prices = prices | {asset: price for asset, (price, _) in last.items()}
        balances = tuple(
            replace(it, price=last[it.asset][0], price_at=last[it.asset][1]) if it.asset in last else it
            for it in balances
        )
        return ValuedAssets(
            prices, balances, value_of(balances) if is_known else None,
            binance_rows.unrealized(rows, prices) if is_known else None,
            remark_on(missing, self.spec, cause="the venue has no index price", is_known=is_known),
        )  # fmt: skip

    async def prices(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Mark, index and last price by two requests."""
        return await self.quotes_by(symbols, "GetTickerPrice")

    async def watched(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        found = await self.quotes(symbols)
        return {symbol: binance_rows.bounded(quote, self.rules[symbol]) for symbol, quote in found.items()}

    async def asset_prices(self, assets: Sequence[str]) -> Mapping[str, Quote]:
        """The venue's index, which values the assets, read again."""
        prices = binance_rows.prices_in_currency(await self.index_in_dollars(assets), self.spec.currency)
        return {it: Quote(index=prices[it], mark=prices[it]) for it in assets if it in prices}

    @abstractmethod
    async def index_in_dollars(self, assets: Sequence[str]) -> Mapping[str, Decimal]:
        """Coin → the venue's index of it in USD, for `assets` and the account's currency, never from a cache."""

    async def marks(self, symbols: Sequence[str]) -> Mapping[str, Decimal]:
        return marks_of(await self.quotes_by(symbols))

    async def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Best prices, last and index price; the positions bring the mark."""
        return await self.quotes_by(symbols, "GetTickerBookTicker", "GetTickerPrice")

    @abstractmethod
    async def quotes_by(self, symbols: Sequence[str], *methods: str) -> Mapping[str, Quote]:
        """Quotes by public endpoints, and by the one with mark and index price."""

    async def orders(self) -> tuple[Order, ...]:
        ordinary, conditional = await asyncio.gather(
            self.call_endpoint("GetOpenOrders"), self.call_endpoint("GetOpenAlgoOrders")
        )
        return orders.open_orders(binance_rows.order(row, self.symbol_of) for row in (*ordinary, *conditional))

    async def fills(self, symbols: Sequence[str], since: int) -> tuple[Fill, ...]:
        return await self._causes.with_causes(await super().fills(symbols, since))

    def refine_fill(self, fill: Fill, info: Row) -> Fill:
        side = str(info.get("positionSide") or "BOTH").lower()
        profit = optional_number(info.get("realizedPnl"))
        if (coin := self.settlement_coin(fill.symbol)) != self.spec.currency:
            price = self._prices.get(coin)
            profit = None if profit is None or price is None else profit * price
        return replace(fill, realized_pnl=profit, position_side=orders.SIDES.get(side))

    async def flows(self, since: int) -> tuple[Flow, ...] | None:
        """All pages, the oldest rows first."""
        rows = await rows_by_time(partial(self.call_endpoint, "GetIncome"), since)
        self._traded = binance_rows.traded(rows, self.symbol_of)
        return tuple({flow.id: flow for flow in binance_rows.income(rows)}.values())

    def latest_trades(self) -> Mapping[str, datetime]:
        return self._traded

    # Orders

    def order_params(self, request: OrderRequest, mode: PositionMode) -> dict[str, Any]:
        """The venue's own parameters. In hedge mode it rejects reduce-only; the position side replaces it."""
        conditional = request.trigger_price is not None
        params: dict[str, Any] = {
            "symbol": self.id_of(request.symbol), "side": request.side.upper(), "type": _type(request),
            "quantity": format(request.amount, "f"), "newOrderRespType": "RESULT",
            "clientAlgoId" if conditional else "newClientOrderId": request.client_order_id,
        }  # fmt: skip
        if request.type == "limit":
            price = required_number(request.price, "the price of a limit order")
            params |= {"price": format(price, "f"), "timeInForce": request.time_in_force.upper()}
        if request.trigger_price is not None:
            trigger = {"triggerPrice": format(request.trigger_price, "f"), "workingType": _working_type(request)}
            params |= {"algoType": "CONDITIONAL"} | trigger
        if mode == "hedge":
            params["positionSide"] = request.position_side.upper()
        elif request.reduce_only:
            params["reduceOnly"] = "true"
        return params

    async def submit(self, request: OrderRequest, mode: PositionMode) -> OrderReport:
        params = self.checked_params(request, mode)
        endpoint = "PostOrder" if request.trigger_price is None else "PostAlgoOrder"
        return self.accepted_report(
            await self.call_endpoint(endpoint, params | self.window_of(request), places=True), request
        )

    def checked_params(self, request: OrderRequest, mode: PositionMode) -> dict[str, Any]:
        """The parameters of an order. OrderRejectedError where the venue's steps would change a number."""
        self.create_arguments(replace(request, trigger_price=None, trigger_when=None), mode)
        return self.order_params(request, mode)

    def accepted_report(self, row: Row, request: OrderRequest) -> OrderReport:
        """The report of an order that was sent, by the venue's row."""
        read = binance_rows.order(row, self.symbol_of)
        if read["symbol"] != request.symbol:
            other = f"{read['clientOrderId']} {read['symbol']}"
            raise UnreadableError(f"sent {request.client_order_id}, the answer is about {other}")
        found = super().accepted_report(read, request)
        self._causes.remember(found.symbol, found.id, "trade")
        return found

    async def submit_batch(self, requests: Sequence[OrderRequest], mode: PositionMode) -> BatchResults:
        """The result of each order at its place. Conditional orders have no batch and are sent one by one."""
        if any(request.trigger_price is not None for request in requests):
            return [await orders.outcome(self.submit(request, mode)) for request in requests]
        params = {"batchOrders": [self.checked_params(request, mode) for request in requests]}
        rows = await self.call_endpoint("PostBatchOrders", params | self.window_of(*requests), places=True)
        if not isinstance(rows, list) or len(rows) != len(requests):
            raise UnreadableError(f"{len(requests)} orders were sent, and the answer has not one row for each")
        pairs = zip(rows, requests, strict=True)
        return [await orders.outcome(self._row_report(row, request)) for row, request in pairs]

    async def _row_report(self, row: Row, request: OrderRequest) -> OrderReport:
        if isinstance(row, Mapping) and row.get("code") is not None:
            text = f"{self.exchange}: {row['code']} {row.get('msg')}"
            raise row_error(self.refusal_codes(), binance_codes.codes_in(row), text, order=row)
        return self.accepted_report(object_at(row, what=f"the row of order {request.client_order_id}"), request)

    async def find(self, symbol: str, client_order_id: str) -> Row | None:
        """Search ordinary orders, then conditional ones; a triggered one is reported with the order that it became."""
        params = {"symbol": self.id_of(symbol)}
        try:
            return self._found(
                await self.call_endpoint("GetOrder", params | {"origClientOrderId": client_order_id}), symbol
            )
        except GoneError:
            pass
        try:
            row = await self.call_endpoint("GetAlgoOrder", {"clientAlgoId": client_order_id})
        except GoneError:
            return None
        if row.get("actualOrderId"):
            sent = await self.call_endpoint("GetOrder", params | {"orderId": row["actualOrderId"]})
            return {**self._found(sent, symbol), "clientOrderId": client_order_id}
        return self._found(row, symbol)

    def _found(self, row: Row, symbol: str) -> dict[str, Any]:
        read = binance_rows.order(row, self.symbol_of)
        if read["symbol"] != symbol:
            raise UnreadableError(f"queried an order of {symbol}, the answer is about one of {read['symbol']}")
        return read

    async def order_fills(self, symbol: str, order_id: str) -> tuple[Fill, ...]:
        if order_id.startswith(binance_rows.ALGO):
            return ()  # not triggered: the resulting order has another number
        params = {"symbol": self.id_of(symbol), "orderId": order_id}
        rows = await self.trades(params, {})
        found = fills.fills_of_order(self.fills_of(rows), order_id)
        if len(rows) >= PAGE:
            await self._check_all_trades(order_id, params, found)
        return found

    async def _check_all_trades(self, order_id: str, params: Row, found: Sequence[Fill]) -> None:
        """Compare a full page with the filled amount: the documents do not state where the first page begins."""
        order = await self.call_endpoint("GetOrder", params)
        filled = required_number(order.get("executedQty"), f"the filled amount of {order_id}")
        if sum((fill.amount for fill in found), Decimal(0)) < filled:
            raise UnreadableError(f"order {order_id}: {filled} is filled, and its trades sum up to less")

    async def cancel(self, symbol: str, order_id: str, *, conditional: bool) -> None:
        params = {"symbol": self.id_of(symbol)}
        if order_id.startswith(binance_rows.ALGO):
            number = order_id.removeprefix(binance_rows.ALGO)
            await self.call_endpoint("DeleteAlgoOrder", params | {"algoId": number}, changes=True)
        else:
            await self.call_endpoint("DeleteOrder", params | {"orderId": order_id}, changes=True)

    async def arm_dead_man(self, seconds: float, symbols: Collection[str]) -> None:
        """Set a timer for each symbol, with one request each."""
        timeout_ms = int(seconds * 1000)
        queries = [{"symbol": self.id_of(symbol), "countdownTime": timeout_ms} for symbol in sorted(symbols)]
        await asyncio.gather(*(self.call_endpoint("PostCountdownCancelAll", it, changes=True) for it in queries))

    async def disarm_dead_man(self, symbols: Collection[str]) -> None:
        await self.arm_dead_man(0, symbols)


def _working_type(request: OrderRequest) -> str:
    """The venue's name of the price that triggers the order. OrderRejectedError for the index."""
    if request.trigger_by not in WORKING_TYPES:
        raise OrderRejectedError("other", f"no {request.trigger_by} price triggers an order at this venue")
    return WORKING_TYPES[request.trigger_by]


def _type(request: OrderRequest) -> str:
    if request.trigger_price is None:
        return request.type.upper()
    return ("STOP" if is_stop(request) else "TAKE_PROFIT") + ("_MARKET" if request.type == "market" else "")


FORCED: Final = 100
"""Most forced orders of one answer."""
BEFORE: Final = 60_000
"""Milliseconds before its first fill from which on forced orders are searched."""
MOST_SINGLE_SYMBOLS: Final = 2
"""Most symbols that are requested one by one, at a weight of 20 each; all together weigh 50."""
REMEMBERED_ORDERS: Final = 50_000
"""Orders whose sender is remembered."""


class FillCauses:
    """The causes of one account's fills.

    Only the venue's list of forced orders states them, and it weighs as much as four lists of trades. So each order is
    looked up once, and orders that we sent never are. `fetch_forced_orders` requests the list; `id_of` is the venue's
    name of a symbol.
    """

    def __init__(
        self, fetch_forced_orders: Callable[[Row], Awaitable[Sequence[Row]]], id_of: Callable[[str], str]
    ) -> None:
        self._fetch_forced_orders = fetch_forced_orders
        self._id_of = id_of
        # Each symbol numbers its orders separately.
        self._known: dict[tuple[str, str | None], FillCause] = {}

    async def with_causes(self, found: Sequence[Fill]) -> tuple[Fill, ...]:
        """The fills with their causes."""
        unknown = [fill for fill in found if (fill.symbol, fill.order) not in self._known]
        forced = await self._forced(unknown) if unknown else {}
        for fill in unknown:
            self.remember(fill.symbol, fill.order, forced.get((self._id_of(fill.symbol), fill.order)) or "trade")
        return tuple(replace(fill, cause=self._known.get((fill.symbol, fill.order), "trade")) for fill in found)

    async def _forced(self, found: Sequence[Fill]) -> dict[tuple[str, str | None], FillCause | None]:
        params = {"startTime": int(min(fill.at for fill in found).timestamp() * 1000) - BEFORE, "limit": FORCED}
        symbols = sorted({fill.symbol for fill in found})
        rows = await self._fetch_forced_orders(params) if len(symbols) > MOST_SINGLE_SYMBOLS else ()
        if len(symbols) <= MOST_SINGLE_SYMBOLS or len(rows) >= FORCED:
            answers = await asyncio.gather(
                *(self._fetch_forced_orders(params | {"symbol": self._id_of(it)}) for it in symbols)
            )
            rows = [row for answer in answers for row in answer]
        keyed = (((str(row.get("symbol")), str(row["orderId"])), str(row.get("clientOrderId"))) for row in rows)
        return {order: binance_rows.cause(name) for order, name in keyed}

    def remember(self, symbol: str, order_id: str | None, cause: FillCause) -> None:
        """Note the cause of an order's fills."""
        self._known[symbol, order_id] = cause
        forget_oldest(self._known, REMEMBERED_ORDERS)
