"""Binance COIN-M futures (`binancecoinm`): inverse contracts, margined in the coin that they are of."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from killswitch.model.inspection import Capability
from killswitch.model.snapshot import Balance, Position
from killswitch.model.venue import AccountSpec, Cost, RateLimit
from killswitch_ccxt.dialect import PositionMode
from killswitch_ccxt.numbers import UnreadableError, decimal, flag, positive
from killswitch_ccxt.quotes import Quote
from killswitch_ccxt.venues import binance_codes, binance_rows
from killswitch_ccxt.venues.binance import FRESH, BinanceUsdm
from killswitch_ccxt.venues.binance_futures import BinanceFutures
from killswitch_ccxt.wealth import Wealth

_DIFFERENT: Final = {
    "equity": Capability("equity", "yes", "in one coin, or in USD; other coins at the venue's own index"),
    "demo": Capability("demo", "yes"),
}


class BinanceCoinm(BinanceFutures):
    """Each coin is a wallet of its own; there are no totals. The account's currency is one of the coins, or USD."""

    exchange = "binancecoinm"
    api = "dapiPrivate"
    codes = binance_codes.COINM
    account_method = "dapiPrivateGetAccount"
    positions_method = "dapiPrivateGetPositionRisk"
    limits = (RateLimit("weight", 2400, 60.0, by="address"), RateLimit("orders-1m", 1200, 60.0))
    costs = (
        # 5 + 1 + 10 for the index every time; 45 for all open orders in 20 s, 20 for incomes in 60 s, 30 for the mode.
        Cost("snapshot", "weight", units=20),
        Cost("submit", "orders-1m", each=1), Cost("submit", "weight", units=1),
        Cost("submit_batch", "orders-1m", units=5), Cost("submit_batch", "weight", units=5),
        Cost("find_order", "weight", units=2), Cost("open_orders", "weight", units=45),
        Cost("fills", "weight", units=22), Cost("cancel", "weight", units=1), Cost("dead_man", "weight", each=10),
    )  # fmt: skip
    capabilities = tuple(_DIFFERENT.get(each.name, each) for each in BinanceUsdm.capabilities)
    tried = "parsed answers only: it shares its ways with USD-M futures, which was tried on loopback"

    def __init__(self, client: Any, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self._indexes: tuple[float, Mapping[str, Decimal]] = (float("-inf"), {})

    async def position_mode(self) -> PositionMode | None:
        hedged = flag((await self.ask("GetPositionSideDual")).get("dualSidePosition"))
        return None if hedged is None else "hedge" if hedged else "one_way"

    async def account(self) -> tuple[Wealth, tuple[Position, ...]]:
        body, rows = await asyncio.gather(self.client.call(self.account_method), self.read_positions())
        return await self.worth_of(body), await self.in_own_currency(self.positions_of(rows))

    async def prices_of_coins(self) -> Mapping[str, Decimal]:
        dollars = {"USD": Decimal(1), **await self._dollars()}
        own = dollars.get(self.spec.currency)
        return {} if own is None else {coin: price / own for coin, price in dollars.items()}

    async def worth_of(self, body: Mapping[str, Any]) -> Wealth:
        """The coins at the venue's index. UnreadableError where a coin is held that has none."""
        currency, assets = self.spec.currency, body.get("assets")
        if not isinstance(assets, list):
            raise UnreadableError("the venue says nothing of the account's assets")
        held = binance_rows.balances(assets)
        rows = {str(row.get("asset")): row for row in assets}
        prices = {currency: Decimal(1)}
        if set(held) - {currency}:
            prices = {**await self.prices_of_coins(), **prices}
        unpriced = sorted(set(held) - set(prices))
        if unpriced or (currency not in rows and currency not in prices):
            raise UnreadableError(f"the venue has no price of {', '.join(unpriced) or currency} in {currency}")
        equity = sum((amount * prices[asset] for asset, amount in held.items()), Decimal(0))
        used, kept, free = (
            _summed(rows, prices, name) for name in ("initialMargin", "maintMargin", "availableBalance")
        )
        balances = tuple(Balance(asset, amount, prices[asset]) for asset, amount in sorted(held.items()))
        return Wealth(equity, free, used, kept, balances, binance_rows.wallets(assets))

    async def _dollars(self) -> Mapping[str, Decimal]:
        """Coin → the index price of its perpetual contract, in USD."""
        now = asyncio.get_running_loop().time()
        if now - self._indexes[0] > FRESH or now < self._indexes[0]:
            rows = await self.client.call("dapiPublicGetPremiumIndex")
            found = {str(row.get("pair")).removesuffix("USD"): positive(row.get("indexPrice")) for row in rows}
            self._indexes = now, {coin: price for coin, price in found.items() if price}
        return self._indexes[1]

    async def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Best prices and the last one; the mark comes with the positions."""
        methods = ("dapiPublicGetTickerBookTicker", "dapiPublicGetTickerPrice", "dapiPublicGetPremiumIndex")
        found: dict[str, dict[str, Any]] = {}
        for answer in await asyncio.gather(*(self.client.call(method) for method in methods)):
            for row in answer:
                found.setdefault(str(row.get("symbol")), {}).update(row)
        return {
            symbol: Quote(
                positive(row.get("bidPrice")), positive(row.get("askPrice")), positive(row.get("price")),
                positive(row.get("indexPrice")), positive(row.get("markPrice")),
            )
            for symbol in symbols
            if (row := found.get(self.id_of(symbol)))
        }  # fmt: skip


def _summed(rows: Mapping[str, Mapping[str, Any]], prices: Mapping[str, Decimal], name: str) -> Decimal | None:
    """Of all coins that have a price; None where one of them does not say."""
    told = [(asset, decimal(row.get(name))) for asset, row in rows.items() if asset in prices]
    found = [None if amount is None else amount * prices[asset] for asset, amount in told]
    return None if None in found or not found else sum((it for it in found if it is not None), Decimal(0))


DIALECTS = {"binancecoinm": BinanceCoinm}
