"""Binance COIN-M futures (`binancecoinm`): inverse contracts with margin in their base coin."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from killswitch.model.inspection import Capability
from killswitch.model.parsing import (
    Row,
    UnreadableError,
    decimal,
    flag,
    not_negative,
    optional_number,
    positive,
    rows_at,
    total,
    value_at,
)
from killswitch.model.snapshot import Position
from killswitch.model.venue import AccountSpec, Cost, RateLimit, VenueError
from killswitch_ccxt.dialect import PositionMode, mode_of
from killswitch_ccxt.equity import AccountEquity, by_asset, check_settlement_coins, rates_in_dollars
from killswitch_ccxt.instruments import Quote
from killswitch_ccxt.traits import call_costs
from killswitch_ccxt.unpriced import ignored_assets
from killswitch_ccxt.venues.binance import codes as binance_codes
from killswitch_ccxt.venues.binance.futures import BinanceFutures
from killswitch_ccxt.venues.binance.usdm import BinanceUsdm

_DIFFERENT: Final = {
    "equity": Capability("equity", "yes", "in one coin, or in USD; other coins at the venue's own index"),
    "demo": Capability("demo", "yes"),
}


class BinanceCoinm(BinanceFutures):
    """One COIN-M account. Each coin has a wallet of its own, and there are no totals. The account's currency is one of
    the coins, or USD."""

    exchange = "binancecoinm"
    api = "dapiPrivate"
    wallet = "CMFUTURE"
    # Its documents have no conditional orders on an interface of their own, and none was tried there.
    conditional_orders = None
    codes = binance_codes.COINM
    account_method = "dapiPrivateGetAccount"
    positions_method = "dapiPrivateGetPositionRisk"
    limits = (RateLimit("weight", 2400, 60.0, by="address"), RateLimit("orders-1m", 1200, 60.0))
    costs = (
        # 5 + 1 + 10 for the index every time; 45 for all open orders in 20 s, 20 for incomes in 60 s, 30 for the mode.
        *call_costs("weight", snapshot=20, submit=1, submit_batch=5, find_order=2, open_orders=45, fills=22, cancel=1),
        Cost("dead_man", "weight", each=10), Cost("submit", "orders-1m", each=1), *call_costs("orders-1m",
        submit_batch=5),
    )  # fmt: skip
    capabilities = tuple(_DIFFERENT.get(each.name, each) for each in BinanceUsdm.capabilities)
    tried = "parsed answers only: it shares its code with USD-M futures, which was tested on loopback"

    def __init__(self, client: Any, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self._premium: asyncio.Future[Any] | None = None

    def corrected_rule(self, rule: Row) -> Row:
        """The rule without a size where the venue states none: ccxt assumes one dollar."""
        is_sized = "info" not in rule or (optional_number(value_at(rule, "info", "contractSize")) or 0) > 0
        return super().corrected_rule(rule if is_sized else {**rule, "contractSize": None})

    async def position_mode(self) -> PositionMode | None:
        return mode_of(flag((await self.call_endpoint("GetPositionSideDual")).get("dualSidePosition")))

    async def account(self) -> tuple[AccountEquity, tuple[Position, ...]]:
        """Equity and positions, with the index fetched at the same moment to value the coins.

        The index may fail where everything is in the account's own coin.
        """
        body, rows, premium = await asyncio.gather(
            self.client.call(self.account_method), self.read_positions(), self._premium_or_failure()
        )
        found = self.positions_of(rows)
        check_settlement_coins(by_asset(body.get("assets")), (self.settlement_coin(it.symbol) for it in found))
        dollars = _dollars(premium)
        equity = self.equity_of(body, dollars, found)
        if equity.why is not None and isinstance(premium, Exception):
            raise premium
        return equity, self.in_own_currency(found, dollars)

    async def equity_alone(self) -> AccountEquity | None:
        body, premium = await asyncio.gather(self.client.call(self.account_method), self._premium_or_failure())
        return self.equity_of(body, _dollars(premium), ())

    async def _premium_or_failure(self) -> Sequence[Row] | Exception:
        try:
            return await self._premium_rows()
        except (VenueError, UnreadableError) as error:
            return error

    def equity_of(self, body: Row, dollars: Mapping[str, Decimal], found: tuple[Position, ...]) -> AccountEquity:
        """The equity of the coins at the venue's index, `dollars`; `found`: the positions.

        It is unknown while a held coin has neither an index nor a small bound. UnreadableError for an empty list:
        Binance lists every coin, even with a zero balance.
        """
        currency, listed, ignored = self.spec.currency, by_asset(body.get("assets")), ignored_assets(self.spec)
        if not listed:
            raise UnreadableError("the venue lists no asset, which no account of Binance lacks")
        rows = {asset: row for asset, row in listed.items() if asset not in ignored}
        valued = self.valued_assets(list(rows.values()), dollars, found)
        names = ("positionInitialMargin", "maintMargin", "availableBalance")
        used, maintenance, free = (_summed(rows, valued.prices, name) for name in names)
        return AccountEquity(
            valued.equity, free, used, maintenance, valued.balances, unrealized=valued.unrealized, why=valued.why,
            rates=rates_in_dollars(dollars.get(currency), currency),
        )  # fmt: skip

    async def index_in_dollars(self, assets: Sequence[str]) -> Mapping[str, Decimal]:
        return _dollars(await self._premium_rows())

    async def _premium_rows(self) -> list[Row]:
        """Index and mark of all contracts; concurrent callers share one request."""
        if self._premium is None or self._premium.done():
            self._premium = asyncio.ensure_future(self.client.call("dapiPublicGetPremiumIndex"))
        return rows_at(await asyncio.shield(self._premium), what="the answer about the index")

    async def quotes_by(self, symbols: Sequence[str], *methods: str) -> Mapping[str, Quote]:
        calls = (self.client.call(f"dapiPublic{method}") for method in methods)
        answers = await asyncio.gather(*calls, self._premium_rows())
        return self.quotes_of(symbols, map(rows_at, answers))


def _dollars(rows: Sequence[Row] | Exception) -> dict[str, Decimal]:
    """Coin → index price of its perpetual contract, in USD; only the dollar where the index failed."""
    listed = () if isinstance(rows, Exception) else rows
    prices = {str(row.get("pair")).removesuffix("USD"): positive(row.get("indexPrice")) for row in listed}
    return {"USD": Decimal(1), **{coin: price for coin, price in prices.items() if price is not None}}


def _summed(rows: Mapping[str, Row], prices: Mapping[str, Decimal], name: str) -> Decimal | None:
    """The sum over all coins; None where an amount is missing or negative, or its coin has no price."""
    found = []
    for asset, row in rows.items():
        amount, price = not_negative(decimal(row.get(name))), prices.get(asset)
        found.append(amount if not amount else None if price is None else amount * price)
    return total(found) if rows.keys() & prices.keys() else None
