"""Common parts of Binance's futures systems USD-M and COIN-M: the same requests at different endpoints.

Every request about the account uses the venue's own endpoints, and `rows` reads the venue's own rows.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar, Final

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.parsing import Row, UnreadableError, optional_number, required_number, rows_at
from killswitch.model.snapshot import Balance, Fill, FillCause, Flow, Order, Position
from killswitch.model.venue import (
    AccountSpec,
    ConditionalOrderRule,
    DeadManRule,
    OrderReport,
    OrderRequest,
)
from killswitch_ccxt import fills, orders, positions
from killswitch_ccxt.answers import forget_oldest
from killswitch_ccxt.equity import value_of
from killswitch_ccxt.errors import Meaning
from killswitch_ccxt.instruments import Quote, StateTable, marks_of, with_maximum
from killswitch_ccxt.traits import Ages
from killswitch_ccxt.unpriced import are_small, remark_on, unpriced_asset
from killswitch_ccxt.venues.binance import codes as binance_codes
from killswitch_ccxt.venues.binance import rows as binance_rows
from killswitch_ccxt.venues.binance.dialect import PAGE, rows_by_time
from killswitch_ccxt.venues.binance.futures_orders import BinanceFuturesOrders


class ValuedAssets(Struct, frozen=True):
    """The assets of an account at the venue's index, in the account's currency; None is unknown."""

    prices: Mapping[str, Decimal]
    balances: tuple[Balance, ...]
    equity: Decimal | None
    unrealized: Decimal | None
    why: str | None
    """How an asset without an index counts, or why the equity is unknown."""


class BinanceFutures(BinanceFuturesOrders):
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

    def accepted_report(self, row: Row, request: OrderRequest) -> OrderReport:
        """The report of an order that was sent; its fills are none of a forced order."""
        found = super().accepted_report(row, request)
        self._causes.remember(found.symbol, found.id, "trade")
        return found

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
