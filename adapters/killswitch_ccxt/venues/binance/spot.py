"""Binance spot and cross margin (`binance` with market `spot` or `margin`)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar, Final

from killswitch.model.inspection import KeyRights
from killswitch.model.snapshot import Fill, Flow, Position
from killswitch.model.venue import AccountSpec, ClientIdRule, Cost, OrderLife, OrderRequest, RateLimit, VenueTraits
from killswitch_ccxt import fills, orders
from killswitch_ccxt.dialect import Dialect, PositionMode
from killswitch_ccxt.equity import Wealth, by_asset
from killswitch_ccxt.errors import GoneError
from killswitch_ccxt.holdings import holdings
from killswitch_ccxt.instruments import Quote, States, is_whole, states_of
from killswitch_ccxt.numbers import NoSuchSymbolError, UnreadableError, at_least_zero, decimal, instant, text, told_of
from killswitch_ccxt.parts import Ages
from killswitch_ccxt.response_capture import Answer
from killswitch_ccxt.traits import capability_table, charge
from killswitch_ccxt.venues.binance import codes as binance_codes
from killswitch_ccxt.venues.binance import flows as binance_flows
from killswitch_ccxt.venues.binance import pages
from killswitch_ccxt.venues.binance import rows as binance_rows
from killswitch_ccxt.venues.binance.futures import rights_of

Row = Mapping[str, Any]
MOVES: Final[Mapping[str, Mapping[str, int]]] = {
    "spot": {
        "UMFUTURE_MAIN": 1, "MAIN_UMFUTURE": -1, "CMFUTURE_MAIN": 1, "MAIN_CMFUTURE": -1, "MARGIN_MAIN": 1,
        "MAIN_MARGIN": -1, "FUNDING_MAIN": 1, "MAIN_FUNDING": -1,
    },
    "margin": {
        "MAIN_MARGIN": 1, "MARGIN_MAIN": -1, "UMFUTURE_MARGIN": 1, "MARGIN_UMFUTURE": -1, "CMFUTURE_MARGIN": 1,
        "MARGIN_CMFUTURE": -1, "FUNDING_MARGIN": 1, "MARGIN_FUNDING": -1,
    },
}  # fmt: skip
"""The venue's names of transfers between wallets, and the sign that each has for this one."""


HALTING: Final = frozenset({"TRADING", "PRE_TRADING", "POST_TRADING", "END_OF_DAY", "HALT", "AUCTION_MATCH", "BREAK"})
"""States of a symbol, of which ccxt says whether they are trading."""
HOUR: Final = 3_600_000
"""Milliseconds by which questions for transfers go back: one may be pending for a while."""
SIZE: Final = 100
"""The most rows of transfers, or of interest, in one answer."""


class BinanceSpot(Dialect):
    """Holdings are positions; on margin, what is owed is a short one, of what is held less what is owed."""

    exchange = "binance"
    codes = binance_codes.SPOT
    code_form = binance_codes.FORM
    client_ids = ClientIdRule(longest=36)
    order_life = OrderLife(longest=60.0, names="open")
    window = 10_000
    streams = ("orders", "balance")
    fills_need_symbol = True
    keeps_rules = True
    # Flows often: they weigh next to nothing, and where a book trades nothing else tells a withdrawal from a loss.
    ages = Ages(orders=20.0, fills=30.0, flows=15.0, quotes=None, orders_least=10.0, rows_least=10.0)
    limits = (
        RateLimit("weight", 6000, 60.0, by="address"),
        RateLimit("wallet-weight", 12_000, 60.0, by="address"),
        RateLimit("orders-10s", 100, 10.0),
    )
    costs: ClassVar[tuple[Cost, ...]] = (
        # 20 + 8 every time, 80 for all open orders in 20 s: 32. Where a symbol trades every second, 80 and 20 in 10 s.
        *charge("weight", snapshot=38, submit=1, find_order=4, open_orders=80, fills=24, cancel=1),
        Cost("submit", "orders-10s", each=1),
    )
    margin_costs: ClassVar[tuple[Cost, ...]] = (
        *charge("weight", snapshot=8),
        *charge("wallet-weight", snapshot=12, submit=6, find_order=10, open_orders=10, fills=20, cancel=10),
        Cost("submit", "orders-10s", each=1),
    )
    capabilities = capability_table(
        {
            "equity": "yes, every asset needs a market against the account's currency, or to be left out",
            "positions": "yes, holdings; on margin what is owed is short. Isolated margin is not seen",
            "trigger orders": "yes, among the others",
            "fills": "partly, of symbols that were held or traded since the start: the venue wants them named",
            "flows": "yes, deposits, withdrawals and transfers between wallets; interest on margin",
            "reduce only": "no, the venue has no such guard: nothing but the amount keeps an order from more",
            "put back stops": "yes, triggered by the last price",
            "batch orders": "no, the venue has no such request",
            "close book": "no, the venue has no such request",
            "position mode": "yes, there is but one",
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
        self._moves = binance_flows.Moves()

    @classmethod
    def traits_for(cls, spec: AccountSpec) -> VenueTraits:
        costs = cls.margin_costs if spec.market == "margin" else cls.costs
        return VenueTraits(
            limits=cls.limits, costs=costs, client_ids=cls.client_ids, fees_by_fills=True,
            order_life=cls.order_life_for(spec),
        )  # fmt: skip

    @classmethod
    def client_options(cls, spec: AccountSpec) -> Mapping[str, Any]:
        return {
            "defaultType": spec.market, "fetchMarkets": {"types": ["spot"]}, "fetchMargins": False,
            "fetchOpenOrders": {"warnWithoutSymbol": False}, "warnOnFetchOpenOrdersWithoutSymbol": False,
            "watchBalance": {"fetchBalanceSnapshot": False, "awaitBalanceSnapshot": False},
        }  # fmt: skip

    @classmethod
    def codes_of(cls, answer: Answer) -> Any:
        return binance_codes.codes_of(answer)

    @classmethod
    def used_from(cls, headers: Mapping[str, str], path: str) -> Mapping[str, int]:
        return binance_codes.used_from(headers)

    @property
    def _margin(self) -> bool:
        return self.spec.market == "margin"

    def _call_of(self, what: str) -> str:
        return f"sapi{what.replace('Get', 'GetMargin', 1)}" if self._margin else f"private{what}"

    def symbol_of(self, market_id: str) -> str:
        """ccxt's symbol. UnreadableError for one that the rules do not have."""
        known = (self.client.ccxt.markets_by_id or {}).get(market_id)
        if not known or not is_whole(known[0]):
            raise NoSuchSymbolError(f"the venue's rules have no {market_id}")
        return str(known[0]["symbol"])

    # Reading

    async def held(self) -> tuple[Wealth, tuple[Position, ...]]:
        """Amounts and prices are asked for at once: what is held is worth what it costs at that moment."""
        body, tickers = await asyncio.gather(self.client.call(self._call_of("GetAccount")), self._tickers())

        async def prices(symbols: Sequence[str]) -> Mapping[str, Quote]:
            return self._quotes(symbols, tickers)

        return await holdings(balance_of(body, self.spec.currency), self.spec, self.market(prices))

    async def states(self) -> States:
        """What the rules say; nothing is asked for it."""
        told = {symbol: str((rule.get("info") or {}).get("status")) for symbol, rule in self.rules.items()}
        return states_of(told, {}, HALTING)

    async def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Best prices and the last one of all symbols: two questions, whatever is held."""
        return self._quotes(symbols, await self._tickers())

    async def _tickers(self) -> Mapping[str, Row]:
        """Name → its best prices and its last one."""
        found: dict[str, dict[str, Any]] = {}
        for rows in await asyncio.gather(
            self.client.call("publicGetTickerBookTicker"), self.client.call("publicGetTickerPrice")
        ):
            for row in rows:
                found.setdefault(str(row.get("symbol")), {}).update(row)
        return found

    def _quotes(self, symbols: Sequence[str], tickers: Mapping[str, Row]) -> dict[str, Quote]:
        return {symbol: binance_rows.quote(tickers.get(str(self.rules[symbol]["id"]), {})) for symbol in symbols}

    async def orders(self) -> tuple[Any, ...]:
        rows = await self.client.call(self._call_of("GetOpenOrders"))
        return orders.resting(binance_rows.order(row, self.symbol_of) for row in rows)

    async def fills(self, symbols: Sequence[str], since: int) -> tuple[Fill, ...]:
        ask = partial(self.client.call, self._call_of("GetMyTrades"))
        asked = [{"symbol": self.rules[symbol]["id"]} for symbol in symbols]
        answers = await asyncio.gather(*(pages.trades(ask, it, {"startTime": since}) for it in asked))
        return fills.fills(binance_rows.trade(row, self.symbol_of) for rows in answers for row in rows)

    async def order_fills(self, symbol: str, order_id: str) -> tuple[Fill, ...]:
        asked = {"symbol": self.rules[symbol]["id"], "orderId": order_id}
        ask = partial(self.client.call, self._call_of("GetMyTrades"))
        rows = await pages.trades(ask, asked, {"fromId": 0})
        found = fills.fills(binance_rows.trade(row, self.symbol_of) for row in rows)
        return fills.of_order(found, order_id)

    async def flows(self, since: int) -> tuple[Flow, ...] | None:
        """Deposits and withdrawals (spot), interest (margin), and what was moved between wallets."""
        signs, moves, back = MOVES[self.spec.market], self._moves, since - binance_flows.BACK
        moves.begin(since)
        moved = await asyncio.gather(
            *(self._sized("sapiGetAssetTransfer", {"type": it, "startTime": since - HOUR}) for it in signs)
        )
        now = self.client.now()
        pairs = zip(signs.values(), moved, strict=True)
        found = [flow for sign, rows in pairs for flow in moves.transfers(rows, sign, now)]
        if self._margin:
            interest = await self._sized("sapiGetMarginInterestHistory", {"startTime": since})
            return (*found, *map(_interest, interest))
        came, went = await asyncio.gather(
            *(
                pages.numbered(partial(self.client.call, method), {"startTime": back})
                for method in ("sapiGetCapitalDepositHisrec", "sapiGetCapitalWithdrawHistory")
            )
        )
        return (*found, *moves.deposits(came, now), *moves.withdrawals(went, now))

    async def _sized(self, method: str, asked: Row) -> list[Row]:
        """Every row of a list that comes in numbered pages; UnreadableError where it does not end."""
        found: list[Row] = []
        for page in range(1, pages.PAGES + 1):
            body = await self.client.call(method, {**asked, "current": page, "size": SIZE})
            told = body.get("rows") if isinstance(body, Mapping) else None
            rows = [] if told is None and decimal(body.get("total")) == 0 else told
            if not isinstance(rows, list):
                raise UnreadableError(f"{method}: the answer has no rows")
            found.extend(rows)
            if len(rows) < SIZE:
                return found
        raise UnreadableError(f"{method}: the list does not end after {len(found)} rows")

    async def position_mode(self) -> PositionMode | None:
        return "one_way"

    # Acting

    def order_params(self, request: OrderRequest, mode: PositionMode) -> dict[str, Any]:
        """On margin what an order brings pays back what is owed of it. Numbers go as text: ccxt passes over others."""
        params: dict[str, Any] = {"newClientOrderId": request.client_order_id, **self.window_of(request)}
        if request.time_in_force == "ioc" and request.type == "limit":
            params["timeInForce"] = "IOC"
        if request.trigger_price is not None:
            against = (request.trigger_when == "falls") is (request.side == "sell")
            params["stopLossPrice" if against else "takeProfitPrice"] = format(request.trigger_price, "f")
        if self._margin:
            params |= {"marginMode": "cross", "sideEffectType": "AUTO_REPAY"}
        return params

    async def find(self, symbol: str, client_order_id: str) -> Row | None:
        asked = {"symbol": self.rules[symbol]["id"], "origClientOrderId": client_order_id}
        try:
            row = await self.client.call(self._call_of("GetOrder"), asked)
        except GoneError:
            return None
        return with_average(binance_rows.order(row, self.symbol_of), row)

    async def cancel(self, symbol: str, order_id: str, *, conditional: bool) -> None:
        params = {"marginMode": "cross"} if self._margin else {}
        await self.client.call("cancel_order", order_id, symbol, params, changes=True)

    async def rights(self) -> KeyRights:
        return rights_of(await self.client.call("sapiGetAccountApiRestrictions"), "enableSpotAndMarginTrading")

    async def margin_mode(self) -> str | None:
        return "cross" if self._margin else None


def balance_of(body: Row, currency: str) -> dict[str, Any]:
    """An account of spot (`balances`) or margin (`userAssets`) as ccxt's balance: what is held less what is owed.

    UnreadableError where an amount is missing or less than nothing, and for a list without a row: Binance lists what
    it has, whatever is held of it.
    """
    is_spot = "balances" in body
    rows = by_asset(body.get("balances" if is_spot else "userAssets"))
    if not rows:
        raise UnreadableError("the venue lists no asset at all, which it does of no account")
    total: dict[str, Decimal] = {}
    for asset, row in rows.items():
        free, locked = (at_least_zero(row.get(name), f"what is {name} of {asset}") for name in ("free", "locked"))
        owed = () if is_spot else ("borrowed", "interest")
        total[asset] = free + locked - sum(at_least_zero(row.get(name), f"the {name} {asset}") for name in owed)
    own = rows.get(currency, {})
    return {"total": total, currency: {"free": decimal(own.get("free")), "total": total.get(currency)}}


def with_average(order: dict[str, Any], row: Row) -> dict[str, Any]:
    """Spot tells what was paid in all, not for each."""
    paid, filled = decimal(row.get("cummulativeQuoteQty")), decimal(row.get("executedQty"))
    return {**order, "average": paid / filled if paid and paid > 0 and filled else None}


def _interest(row: Row) -> Flow:
    at = instant(row.get("interestAccuredTime"))
    if at is None:
        raise UnreadableError("interest without a time")
    number, asset = text(row.get("txId")), told_of(row.get("asset"), "the asset of an interest")
    if number is None:
        raise UnreadableError("interest without a number")
    amount = -at_least_zero(row.get("interest"), "the amount of an interest")
    return Flow(f"interest:{number}:{asset}", at, "interest", amount, asset)


DIALECTS = {"binance": BinanceSpot}
