"""Binance USD-M futures (`binanceusdm`)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from killswitch.model.inspection import Capability
from killswitch.model.snapshot import Balance, Position
from killswitch.model.venue import AccountSpec, Cost, RateLimit, VenueError
from killswitch_ccxt.dialect import PositionMode
from killswitch_ccxt.numbers import UnreadableError, flag, needed, positive
from killswitch_ccxt.quotes import Quote
from killswitch_ccxt.venues import binance_rows
from killswitch_ccxt.venues.binance_futures import BinanceFutures
from killswitch_ccxt.venues.binance_rows import told
from killswitch_ccxt.wealth import Wealth, from_dollars

FRESH: Final = 10.0
"""Seconds for which the venue's prices of assets in USD are used."""
FEW: Final = 3
"""Up to so many symbols their best prices are asked for one by one: all at once weigh more."""


class BinanceUsdm(BinanceFutures):
    """`accountConfig` tells both modes of the account, for a sixth of what the two questions of their own weigh."""

    exchange = "binanceusdm"
    api = "fapiPrivate"
    account_method = "fapiPrivateV3GetAccount"
    positions_method = "fapiPrivateV3GetPositionRisk"
    limits = (
        RateLimit("weight", 2400, 60.0, by="address"),
        RateLimit("orders-10s", 300, 10.0),
        RateLimit("orders-1m", 1200, 60.0),
    )
    costs = (
        # 5 + 5 every time; 80 for all open orders in 20 s, 17 for prices in 20 s, 30 for incomes in 60 s: 16. Where a
        # symbol trades every second, 80 in 15 s and 25 for its fills in 10 s.
        Cost("snapshot", "weight", units=17),
        Cost("submit", "orders-10s", each=1), Cost("submit", "orders-1m", each=1),
        Cost("submit_batch", "orders-10s", units=5), Cost("submit_batch", "orders-1m", units=1),
        Cost("submit_batch", "weight", units=5),
        Cost("find_order", "weight", units=2), Cost("open_orders", "weight", units=80),
        Cost("fills", "weight", units=7), Cost("cancel", "weight", units=1), Cost("dead_man", "weight", each=10),
    )  # fmt: skip
    capabilities = (
        Capability("equity", "yes", "single- and multi-assets mode; other assets at the venue's own index"),
        Capability("positions", "yes"),
        Capability("orders", "yes"),
        Capability("trigger orders", "yes", "listed apart by the venue; their ids begin with algo-"),
        Capability(
            "fills", "partly", "of symbols that were held or traded since the start: the venue wants them named"
        ),
        Capability("flows", "yes", "of the last three months"),
        Capability("prices", "yes"),
        Capability("market orders", "yes"),
        Capability("limit orders", "yes"),
        Capability("reduce only", "yes", "in hedge mode the position side is the guard"),
        Capability("put back stops", "yes", "triggered by the mark price"),
        Capability("batch orders", "yes", "5 at once; conditional orders one by one"),
        Capability("close book", "no", "the venue has no such request"),
        Capability("position mode", "yes"),
        Capability("find by client id", "yes", "for as long as the venue keeps an order: days for one without a fill"),
        Capability(
            "dead man", "partly", "a timer for each symbol; whether it takes conditional orders is not documented"
        ),
        Capability("push", "yes"),
        Capability("key rights", "yes", "not in demo trading"),
        Capability("clock", "yes"),
        Capability("bars", "yes"),
        Capability("sandbox", "no", "the venue has given up its futures testnet for demo trading"),
        Capability("demo", "yes"),
    )
    tried = "a venue on loopback that speaks its wire format, and recorded answers"

    def __init__(self, client: Any, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self._multi_assets: bool | None = None
        self._indexes: tuple[float, Mapping[str, Decimal]] = (float("-inf"), {})

    async def position_mode(self) -> PositionMode | None:
        row = await self.ask("GetAccountConfig")
        self._multi_assets = flag(row.get("multiAssetsMargin"))
        hedged = flag(row.get("dualSidePosition"))
        return None if hedged is None else "hedge" if hedged else "one_way"

    async def account(self) -> tuple[Wealth, tuple[Position, ...]]:
        """Worth and positions by two questions that must agree: each of them lists what is held."""
        if self._multi_assets is None:
            await self.position_mode()
        body, rows = await asyncio.gather(self.client.call(self.account_method), self.read_positions())
        found = self.positions_of(rows)
        self._agreeing(body, found)
        return await self.worth_of(body), await self.in_own_currency(found)

    async def prices_of_coins(self) -> Mapping[str, Decimal]:
        dollars = {"USD": Decimal(1), **await self._dollars()}
        own = dollars.get(self.spec.currency)
        return {} if own is None else {asset: price / own for asset, price in dollars.items()}

    def _agreeing(self, body: Mapping[str, Any], found: tuple[Position, ...]) -> None:
        keys = {position.key for position in found}
        for row in body.get("positions") or ():
            read = binance_rows.position(row, self.symbol_of)
            if read["contracts"] and (read["symbol"], read["side"]) not in keys:
                raise UnreadableError(f"the account holds {read['symbol']} {read['side']}, and the positions lack it")

    async def worth_of(self, body: Mapping[str, Any]) -> Wealth:
        """With several assets as margin the venue tells totals in USD; else each asset stands for itself."""
        currency = self.spec.currency
        held = binance_rows.balances(body.get("assets") or ())
        rows = {str(row.get("asset")): row for row in body.get("assets") or ()}
        others = {asset for asset in held if asset != currency}
        prices = await self._dollars() if others or self._multi_assets else {}
        own = prices.get(currency)
        balances = tuple(
            Balance(asset, amount, Decimal(1) if asset == currency else _over(prices.get(asset), own))
            for asset, amount in sorted(held.items())
        )
        used, kept = told(body.get("totalInitialMargin")), told(body.get("totalMaintMargin"))
        # The venue's own total follows prices once there are several assets in it.
        cash = binance_rows.wallets(body.get("assets") or ())
        if self._multi_assets:
            equity = from_dollars(needed(body.get("totalMarginBalance"), "the account's worth"), own, currency)
            free = told(body.get("availableBalance"))
            return Wealth(
                equity, free and from_dollars(free, own, currency), used and from_dollars(used, own, currency),
                kept and from_dollars(kept, own, currency), balances, cash, "multi_assets",
            )  # fmt: skip
        if currency not in rows and body.get("assets") and currency not in prices:
            raise UnreadableError(f"the venue says nothing of {currency}, the account's currency")
        row = rows.get(currency) or {"marginBalance": "0" if rows else body.get("totalMarginBalance")}
        equity = needed(row.get("marginBalance"), f"what is held of {currency}")
        equity += sum(
            (each.amount * each.price for each in balances if each.asset in others and each.price), Decimal(0)
        )
        return Wealth(equity, told(row.get("availableBalance")), used, kept, balances, cash, "single_asset")

    async def _dollars(self) -> Mapping[str, Decimal]:
        """Asset → its price in USD, as the venue reckons margin with."""
        now = asyncio.get_running_loop().time()
        if now - self._indexes[0] > FRESH or now < self._indexes[0]:
            rows = await self.client.call("fapiPublicGetAssetIndex")
            found = {str(row.get("symbol")).removesuffix("USD"): positive(row.get("index")) for row in rows}
            self._indexes = now, {asset: price for asset, price in found.items() if price}
        return self._indexes[1]

    async def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Best prices, last and index; the mark comes with the positions."""
        asked: list[dict[str, Any]] = [{}] if len(symbols) > FEW else [{"symbol": self.id_of(it)} for it in symbols]
        methods = ("fapiPublicGetTickerBookTicker", "fapiPublicGetTickerPrice", "fapiPublicGetPremiumIndex")
        answers = await asyncio.gather(*(self.client.call(method, params) for method in methods for params in asked))
        found: dict[str, dict[str, Any]] = {}
        for answer in answers:
            for row in answer if isinstance(answer, list) else [answer]:
                found.setdefault(str(row.get("symbol")), {}).update(row)
        return {
            symbol: Quote(
                positive(row.get("bidPrice")), positive(row.get("askPrice")), positive(row.get("price")),
                positive(row.get("indexPrice")), positive(row.get("markPrice")),
            )
            for symbol in symbols
            if (row := found.get(self.id_of(symbol)))
        }  # fmt: skip

    async def status(self) -> str | None:
        """Demo trading has no status of its own."""
        try:
            return await super().status()
        except VenueError:
            if self.spec.environment == "demo":
                return None
            raise


def _over(price: Decimal | None, own: Decimal | None) -> Decimal | None:
    return None if price is None or not own else price / own


DIALECTS = {"binanceusdm": BinanceUsdm}
