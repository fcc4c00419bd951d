"""Binance USD-M futures (`binanceusdm`)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from msgspec.structs import replace

from killswitch.model.parsing import Row, UnreadableError, decimal, flag, optional_number, positive, required_number
from killswitch.model.snapshot import Position
from killswitch.model.venue import AccountSpec, Cost, RateLimit, VenueError
from killswitch_ccxt.dialect import PositionMode, mode_of
from killswitch_ccxt.equity import (
    AccountEquity,
    by_asset,
    check_settlement_coins,
    from_dollars,
    rates_in_dollars,
    value_of,
)
from killswitch_ccxt.instruments import Quote
from killswitch_ccxt.traits import call_costs, capability_table
from killswitch_ccxt.unpriced import ignored_assets
from killswitch_ccxt.venues.binance import rows as binance_rows
from killswitch_ccxt.venues.binance.futures import BinanceFutures

MOST_SINGLE_QUOTES: Final = 3
"""Most symbols whose best prices are requested one by one: all at once weigh more."""
MOST_SINGLE_INDEXES: Final = 5
"""Most assets whose index is requested one by one, at a weight of 1 each: all at once weigh 10."""


class BinanceUsdm(BinanceFutures):
    """One USD-M account. `accountConfig` returns both modes of the account, for a sixth of the weight of the two
    separate requests."""

    exchange = "binanceusdm"
    api = "fapiPrivate"
    wallet = "UMFUTURE"
    account_method = "fapiPrivateV3GetAccount"
    positions_method = "fapiPrivateV3GetPositionRisk"
    limits = (
        RateLimit("weight", 2400, 60.0, by="address"),
        RateLimit("orders-10s", 300, 10.0),
        RateLimit("orders-1m", 1200, 60.0),
    )
    costs = (
        # 5 + 5 every time, and 1 for each of two assets besides the currency, which is priced then too; 80 for all open
        # orders in 20 s, 17 for prices in 20 s, 30 for incomes in 60 s: 18. Where a symbol trades every second, 80 in
        # 15 s, 25 for its fills in 10 s, and 30 for incomes in 15 s: 21.
        *call_costs("weight", snapshot=19, submit_batch=5, find_order=2, open_orders=80, fills=7, cancel=1),
        Cost("dead_man", "weight", each=10), Cost("submit", "orders-10s", each=1), Cost("submit", "orders-1m", each=1),
        *call_costs("orders-10s", submit_batch=5), *call_costs("orders-1m", submit_batch=1),
    )  # fmt: skip
    capabilities = capability_table(
        {
            "equity": "yes, single- and multi-assets mode; other assets at the venue's own index",
            "trigger orders": "yes, listed separately by the venue; their ids begin with algo-",
            "fills": "partly, of symbols that were held or traded since the start: requests must name them",
            "flows": "yes, of the last three months",
            "reduce only": "yes, in hedge mode by the position side",
            "put back stops": "yes, triggered by the mark price",
            "batch orders": "yes, 5 at once; conditional orders one by one",
            "close book": "no, the venue has no such request",
            "find by client id": "yes, for as long as the venue stores an order: days for one without a fill",
            "dead man": "partly, a timer for each symbol; whether it takes conditional orders is not documented",
            "key rights": "yes, not in demo trading",
            "sandbox": "no, demo trading has replaced the futures testnet",
        },
        "positions", "orders", "prices", "market orders", "limit orders", "position mode", "push", "clock", "bars",
        "demo",
    )  # fmt: skip
    tried = "a local server with its wire format, and recorded answers"

    def __init__(self, client: Any, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self._multi_assets: bool | None = None
        self._indexed: frozenset[str] = frozenset()
        """Assets whose index the last snapshot requested."""
        self._index_list: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
        """Assets that were searched in the venue's list of all indexes, and the assets that it has."""

    async def position_mode(self) -> PositionMode | None:
        row = await self.call_endpoint("GetAccountConfig")
        self._multi_assets = flag(row.get("multiAssetsMargin"))
        return mode_of(flag(row.get("dualSidePosition")))

    async def account(self) -> tuple[AccountEquity, tuple[Position, ...]]:
        """Equity and positions by two requests that must agree: each of them lists the positions.

        Prices that the last snapshot needed are fetched with them.
        """
        if self._multi_assets is None:
            await self.position_mode()
        body, rows, dollars = await asyncio.gather(
            self.client.call(self.account_method), self.read_positions(), self._dollars(self._indexed)
        )
        found = self.positions_of(rows)
        self._check_agreement(body, found)
        if self._multi_assets is False and (listed := by_asset(body.get("assets"))):
            check_settlement_coins(listed, (self.settlement_coin(it.symbol) for it in found))
        needed_for = self._priced_assets(body, found)
        if not needed_for <= self._indexed:
            dollars = await self._dollars(needed_for)
        self._indexed = needed_for
        return self.equity_of(body, dollars, found), self.in_own_currency(found, dollars)

    async def equity_alone(self) -> AccountEquity | None:
        body, dollars = await asyncio.gather(self.client.call(self.account_method), self._dollars(self._indexed))
        needed_for = self._priced_assets(body, ())
        dollars = dollars if needed_for <= self._indexed else await self._dollars(needed_for)
        return self.equity_of(body, dollars, ())

    def _priced_assets(self, body: Row, found: tuple[Position, ...]) -> frozenset[str]:
        """Assets whose price in USD is needed: none where everything is in the account's currency."""
        held = {str(row.get("asset")) for row in self._assets(body) if _holds(row)}
        others = (held | {self.settlement_coin(position.symbol) for position in found}) - {self.spec.currency}
        return frozenset(others | {self.spec.currency}) if others or self._multi_assets else frozenset()

    def _assets(self, body: Row) -> list[Row]:
        """Rows of the account's assets, without those that the Account document leaves out."""
        ignored = ignored_assets(self.spec)
        return [row for row in body.get("assets") or () if str(row.get("asset")) not in ignored]

    def _check_agreement(self, body: Row, found: tuple[Position, ...]) -> None:
        keys = {position.key for position in found}
        for row in body.get("positions") or ():
            read = binance_rows.position(row, self.symbol_of)
            if read["contracts"] and (read["symbol"], read["side"]) not in keys:
                position = f"{read['symbol']} {read['side']}"
                raise UnreadableError(f"the account has a position {position}, and the positions lack it")

    def equity_of(self, body: Row, dollars: Mapping[str, Decimal], found: tuple[Position, ...]) -> AccountEquity:
        """The equity, with each asset at the venue's index. `dollars`: prices in USD; `found`: the positions.

        In single-asset mode the equity is unknown while a held asset has neither an index nor a small bound: Binance's
        own totals then cover USDT only. Positions are known all the same.
        """
        currency, assets = self.spec.currency, self._assets(body)
        own = dollars.get(currency)
        used, maintenance = map(optional_number, (body.get("totalPositionInitialMargin"), body.get("totalMaintMargin")))
        rates = rates_in_dollars(own, currency)
        if self._multi_assets:
            total = required_number(body.get("totalMarginBalance"), "the account's equity")
            equity = from_dollars(total, own, currency)
            prices = binance_rows.prices_in_currency(dollars, currency)
            balances, profit = binance_rows.balances(assets, prices), binance_rows.unrealized(assets, prices)
            if balances and all(each.price is not None for each in balances):
                equity = value_of(balances)
            else:
                profit = None
            free = optional_number(body.get("availableBalance"))
            return AccountEquity(
                equity, free and from_dollars(free, own, currency), used and from_dollars(used, own, currency),
                maintenance and from_dollars(maintenance, own, currency), balances, margin_mode="multi_assets",
                unrealized=profit, rates=rates,
            )  # fmt: skip
        rows = by_asset(assets)
        if currency not in rows and rows and currency not in dollars:
            raise UnreadableError(f"the answer has no row of {currency}, the account's currency")
        valued = self.valued_assets(assets, dollars, found)
        if not rows:
            # An account without any asset has totals, which are zero.
            equity = required_number(body.get("totalMarginBalance"), f"the amount held of {currency}")
            valued = replace(valued, equity=equity, unrealized=None)
        else:
            held = rows.get(currency, {"marginBalance": "0"}).get("marginBalance")
            required_number(held, f"the amount held of {currency}")
        free = optional_number(rows.get(currency, {}).get("availableBalance"))
        return AccountEquity(
            valued.equity, free, used, maintenance, valued.balances, margin_mode="single_asset",
            unrealized=valued.unrealized, rates=rates, why=valued.why,
        )  # fmt: skip

    async def index_in_dollars(self, assets: Sequence[str]) -> Mapping[str, Decimal]:
        return await self._dollars(frozenset({*assets, self.spec.currency}))

    async def _dollars(self, assets: frozenset[str]) -> Mapping[str, Decimal]:
        """Asset → its price in USD, as the venue calculates margin; no request where there are no assets."""
        if not assets:
            return {}
        queried, listed = self._index_list
        few = sorted(assets & listed)
        is_known = assets <= queried and len(few) <= MOST_SINGLE_INDEXES
        queries: list[dict[str, str]] = [{"symbol": f"{asset}USD"} for asset in few] if is_known else [{}]
        answers = await self.call_all(*(("fapiPublicGetAssetIndex", it) for it in queries))
        rows = [row for answer in answers for row in (answer if isinstance(answer, list) else [answer])]
        prices = {str(row.get("symbol")).removesuffix("USD"): positive(row.get("index")) for row in rows}
        found = {asset: price for asset, price in prices.items() if price is not None}
        if not is_known:
            self._index_list = queried | assets, frozenset(found)
        return found

    async def quotes_by(self, symbols: Sequence[str], *methods: str) -> Mapping[str, Quote]:
        queries: list[dict[str, Any]] = (
            [{}] if len(symbols) > MOST_SINGLE_QUOTES else [{"symbol": self.id_of(it)} for it in symbols]
        )
        names = (f"fapiPublic{method}" for method in (*methods, "GetPremiumIndex"))
        answers = await self.call_all(*((name, params) for name in names for params in queries))
        return self.quotes_of(symbols, answers)

    async def status(self) -> str | None:
        """The status of the venue; None in demo trading, which has no status of its own."""
        try:
            return await super().status()
        except VenueError:
            if self.spec.environment == "demo":
                return None
            raise


def _holds(row: Row) -> bool:
    return bool(decimal(row.get("marginBalance", row.get("balance"))) or optional_number(row.get("walletBalance")))
