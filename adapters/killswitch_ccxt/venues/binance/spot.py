"""Binance spot and cross margin (`binance` with market `spot` or `margin`)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar, Final

from msgspec.structs import replace

from killswitch.model.parsing import (
    Row,
    UnreadableError,
    at_least_zero,
    decimal,
    identifier,
    required_text,
    rows_at,
    time_of,
)
from killswitch.model.snapshot import Fill, Flow, Position
from killswitch.model.venue import AccountSpec, Cost, OrderRequest, RateLimit, VenueDescription
from killswitch_ccxt import fills, orders
from killswitch_ccxt.dialect import PositionMode, is_stop
from killswitch_ccxt.equity import AccountEquity, by_asset
from killswitch_ccxt.errors import GoneError
from killswitch_ccxt.holdings import holdings
from killswitch_ccxt.instruments import Quote, StateTable, names_its_assets
from killswitch_ccxt.traits import Ages, call_costs, capability_table
from killswitch_ccxt.venues.binance import codes as binance_codes
from killswitch_ccxt.venues.binance import flows as binance_flows
from killswitch_ccxt.venues.binance import rows as binance_rows
from killswitch_ccxt.venues.binance.dialect import Binance, rows_by_offset

TRANSFER_SIGNS: Final[Mapping[str, Mapping[str, int]]] = {
    "spot": {
        "UMFUTURE_MAIN": 1, "MAIN_UMFUTURE": -1, "CMFUTURE_MAIN": 1, "MAIN_CMFUTURE": -1, "MARGIN_MAIN": 1,
        "MAIN_MARGIN": -1, "FUNDING_MAIN": 1, "MAIN_FUNDING": -1,
    },
    "margin": {
        "MAIN_MARGIN": 1, "MARGIN_MAIN": -1, "UMFUTURE_MARGIN": 1, "MARGIN_UMFUTURE": -1, "CMFUTURE_MARGIN": 1,
        "MARGIN_CMFUTURE": -1, "FUNDING_MARGIN": 1, "MARGIN_FUNDING": -1,
    },
}  # fmt: skip
"""The venue's types of transfers between wallets, and the sign that each has for this wallet."""


HALTING: Final = frozenset({"TRADING", "PRE_TRADING", "POST_TRADING", "END_OF_DAY", "HALT", "AUCTION_MATCH", "BREAK"})
"""States of a symbol for which ccxt states whether it is trading."""
HOUR: Final = 3_600_000
"""Milliseconds by which requests for transfers go back: one may be pending for a while."""


class BinanceSpot(Binance):
    """A spot or cross margin account. Holdings are positions; on margin, more borrowed than held is a short one."""

    exchange = "binance"
    codes = binance_codes.SPOT
    streams = ("orders", "balance")
    instrument_states = StateTable(("status",), {}, HALTING)
    trades_endpoint = "GetMyTrades"
    trading_right = "enableSpotAndMarginTrading"
    # Flows are fetched often: their weight is small, and in a book without trades only they distinguish a withdrawal
    # from a loss.
    ages = Ages(orders=20.0, fills=30.0, flows=15.0, quotes=None, orders_least=10.0, rows_least=10.0)
    limits = (
        RateLimit("weight", 6000, 60.0, by="address"),
        RateLimit("wallet-weight", 12_000, 60.0, by="address"),
        RateLimit("orders-10s", 100, 10.0),
    )
    costs: ClassVar[tuple[Cost, ...]] = (
        # 20 + 8 every time, 80 for all open orders in 20 s: 32. Where a symbol trades every second, 80 and 20 in 10 s.
        *call_costs("weight", snapshot=38, submit=1, find_order=4, open_orders=80, fills=24, cancel=1),
        Cost("submit", "orders-10s", each=1),
    )
    margin_costs: ClassVar[tuple[Cost, ...]] = (
        *call_costs("weight", snapshot=8),
        *call_costs("wallet-weight", snapshot=12, submit=6, find_order=10, open_orders=10, fills=20, cancel=10),
        Cost("submit", "orders-10s", each=1),
    )
    capabilities = capability_table(
        {
            "equity": "yes, every asset needs a market against the account's currency, or must be left out",
            "positions": "yes, holdings; on margin, debts are short positions. Isolated margin is not read",
            "trigger orders": "yes, among the others",
            "fills": "partly, of symbols that were held or traded since the start: requests must name them",
            "flows": "yes, deposits, withdrawals and transfers between wallets; interest on margin",
            "reduce only": "no, the venue has none: only the amount limits an order",
            "put back stops": "yes, triggered by the last price",
            "batch orders": "no, the venue has no such request",
            "close book": "no, the venue has no such request",
            "position mode": "yes, there is only one",
            "dead man": "no, the venue has no such request",
            "key rights": "yes, not on the testnet and in demo trading",
            "sandbox": "yes, spot only",
            "demo": "yes, spot only",
        },
        "orders", "prices", "market orders", "limit orders", "find by client id", "push", "clock", "bars",
    )  # fmt: skip
    tried = "recorded answers only"

    def __init__(self, client: Any, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self._balance_flows = binance_flows.BalanceFlows()

    @classmethod
    def traits_for(cls, spec: AccountSpec) -> VenueDescription:
        found = super().traits_for(spec)
        costs = cls.margin_costs if spec.market == "margin" else found.costs
        # 8 for all prices in 10 s, in addition to those of a snapshot
        watching = call_costs("weight", snapshot=1) if spec.watch else ()
        return replace(found, costs=(*costs, *watching))

    @classmethod
    def client_options(cls, spec: AccountSpec) -> Mapping[str, Any]:
        return {
            "defaultType": spec.market, "fetchMarkets": {"types": ["spot"]}, "fetchMargins": False,
            "fetchOpenOrders": {"warnWithoutSymbol": False}, "warnOnFetchOpenOrdersWithoutSymbol": False,
            "watchBalance": {"fetchBalanceSnapshot": False, "awaitBalanceSnapshot": False},
        }  # fmt: skip

    @property
    def _is_margin(self) -> bool:
        return self.spec.market == "margin"

    def method_of(self, endpoint: str) -> str:
        return f"sapi{endpoint.replace('Get', 'GetMargin', 1)}" if self._is_margin else f"private{endpoint}"

    @property
    def wallet(self) -> str:
        return "MARGIN" if self._is_margin else "MAIN"

    is_ours = staticmethod(names_its_assets)

    # Snapshot

    async def spot_account(self) -> tuple[AccountEquity, tuple[Position, ...]]:
        """Balances and prices of the same moment, fetched concurrently."""
        body, tickers = await asyncio.gather(self.call_endpoint("GetAccount"), self._tickers())

        async def prices(symbols: Sequence[str]) -> Mapping[str, Quote]:
            return self._quotes(symbols, tickers)

        return await holdings(balance_of(body, self.spec.currency), self.spec, self.valuation_inputs(prices))

    async def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Best prices and last price of all symbols by two requests, whatever is held."""
        return self._quotes(symbols, await self._tickers())

    async def _tickers(self) -> Mapping[str, Row]:
        """Venue's name of a symbol → its best prices and its last price."""
        answers = await self.call_all(("publicGetTickerBookTicker", {}), ("publicGetTickerPrice", {}))
        return binance_rows.merged(map(rows_at, answers))

    def _quotes(self, symbols: Sequence[str], tickers: Mapping[str, Row]) -> dict[str, Quote]:
        return {symbol: binance_rows.quote(tickers.get(self.id_of(symbol), {})) for symbol in symbols}

    async def orders(self) -> tuple[Any, ...]:
        rows = await self.call_endpoint("GetOpenOrders")
        return orders.open_orders(binance_rows.order(row, self.symbol_of) for row in rows)

    async def order_fills(self, symbol: str, order_id: str) -> tuple[Fill, ...]:
        rows = await self.trades({"symbol": self.id_of(symbol), "orderId": order_id}, {"fromId": 0})
        return fills.fills_of_order(self.fills_of(rows), order_id)

    async def flows(self, since: int) -> tuple[Flow, ...] | None:
        """Deposits and withdrawals (spot), interest (margin), and transfers between wallets."""
        signs, balance_flows, earliest = (
            TRANSFER_SIGNS[self.spec.market],
            self._balance_flows,
            since - binance_flows.LOOK_BACK,
        )
        balance_flows.begin(since)
        queries = ({"type": kind, "startTime": since - HOUR} for kind in signs)
        transfers = await asyncio.gather(*(self.numbered_pages("sapiGetAssetTransfer", it) for it in queries))
        now = self.client.now()
        pairs = zip(signs.values(), transfers, strict=True)
        found = [flow for sign, rows in pairs for flow in balance_flows.transfers(rows, sign, now)]
        if self._is_margin:
            interest = await self.numbered_pages("sapiGetMarginInterestHistory", {"startTime": since})
            return (*found, *map(_interest, interest))
        lists = (partial(self.client.call, f"sapiGetCapital{it}") for it in ("DepositHisrec", "WithdrawHistory"))
        deposits, withdrawals = await asyncio.gather(
            *(rows_by_offset(fetch, {"startTime": earliest}) for fetch in lists)
        )
        return (*found, *balance_flows.deposits(deposits, now), *balance_flows.withdrawals(withdrawals, now))

    async def position_mode(self) -> PositionMode | None:
        return "one_way"

    # Orders

    def order_params(self, request: OrderRequest, mode: PositionMode) -> dict[str, Any]:
        """On margin the proceeds of an order repay the debt. Numbers are sent as text: ccxt ignores others."""
        params: dict[str, Any] = {"newClientOrderId": request.client_order_id, **self.window_of(request)}
        if request.time_in_force == "ioc" and request.type == "limit":
            params["timeInForce"] = "IOC"
        if request.trigger_price is not None:
            params["stopLossPrice" if is_stop(request) else "takeProfitPrice"] = format(request.trigger_price, "f")
        if self._is_margin:
            params |= {"marginMode": "cross", "sideEffectType": "AUTO_REPAY"}
        return params

    async def find(self, symbol: str, client_order_id: str) -> Row | None:
        params = {"symbol": self.id_of(symbol), "origClientOrderId": client_order_id}
        try:
            row = await self.call_endpoint("GetOrder", params)
        except GoneError:
            return None
        return with_average(binance_rows.order(row, self.symbol_of), row)

    async def cancel(self, symbol: str, order_id: str, *, conditional: bool) -> None:
        params = {"marginMode": "cross"} if self._is_margin else {}
        await self.client.call("cancel_order", order_id, symbol, params, changes=True)

    async def margin_mode(self) -> str | None:
        return "cross" if self._is_margin else None


def balance_of(body: Row, currency: str) -> dict[str, Any]:
    """A spot (`balances`) or margin account (`userAssets`) as ccxt's balance: the amount held less the amount borrowed.

    UnreadableError where an amount is missing or negative, and for an empty list: Binance lists every asset, even with
    a zero balance.
    """
    is_spot = "balances" in body
    rows = by_asset(body.get("balances" if is_spot else "userAssets"))
    if not rows:
        raise UnreadableError("the venue lists no asset, which no account of Binance lacks")
    total: dict[str, Decimal] = {}
    for asset, row in rows.items():
        free, locked = (at_least_zero(row.get(name), f"what is {name} of {asset}") for name in ("free", "locked"))
        debts = () if is_spot else ("borrowed", "interest")
        total[asset] = free + locked - sum(at_least_zero(row.get(name), f"the {name} {asset}") for name in debts)
    own = rows.get(currency, {})
    return {"total": total, currency: {"free": decimal(own.get("free")), "total": total.get(currency)}}


def with_average(order: dict[str, Any], row: Row) -> dict[str, Any]:
    """The order with its average price: spot states only the total paid."""
    paid, filled = decimal(row.get("cummulativeQuoteQty")), decimal(row.get("executedQty"))
    return {**order, "average": paid / filled if paid and paid > 0 and filled else None}


def _interest(row: Row) -> Flow:
    number = identifier(row.get("txId"), "an interest")
    asset = required_text(row.get("asset"), "the asset of an interest")
    at = time_of(row.get("interestAccuredTime"), f"interest {number}")
    amount = -at_least_zero(row.get("interest"), "the amount of an interest")
    return Flow(f"interest:{number}:{asset}", at, "interest", amount, asset)
