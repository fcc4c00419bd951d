"""Snapshots of an account at Bybit, by v5 endpoints where ccxt's unified call would omit something.

It would omit further pages, other settlement coins, executions that are no trades, and rules of delisted symbols.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar, Final

from msgspec.structs import replace

from killswitch.model.parsing import Row, decimal, every_page, positive, rows_at, value_at
from killswitch.model.snapshot import Fill, Flow, Order, Position, Side
from killswitch.model.venue import AccountSpec, RateLimit
from killswitch_ccxt import fills, orders, positions
from killswitch_ccxt.answers import answered
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Dialect, PositionMode
from killswitch_ccxt.equity import AccountEquity
from killswitch_ccxt.instruments import Quote, StateTable, quote_of
from killswitch_ccxt.venues.bybit import codes as bybit_codes
from killswitch_ccxt.venues.bybit.flows import LogReader
from killswitch_ccxt.venues.bybit.rows import (
    account_equity,
    bounded,
    dollar_prices,
    position_index,
    rate,
    refined_fill,
    refined_order,
    spot_balance,
    with_order_maximum,
)
from killswitch_ccxt.withdrawals import CoinList

MOST_SINGLE_TICKERS: Final = 5
"""Most symbols whose prices are requested one by one: all of a category are half a megabyte."""
TICKER: Final = "bid1Price ask1Price lastPrice indexPrice markPrice"
"""Fields of a ticker, as `quote_of` takes them."""
MOST_PAGES: Final = 40
"""Most pages of one request; a longer list is unreadable, and not read in part."""


class BybitSnapshots(Dialect):
    """The part of Bybit's dialect that fetches snapshots, and records the index by which orders name a position."""

    exchange: ClassVar[str] = "bybit"
    codes = bybit_codes.CODES
    adl_ranks = 5
    code_form = bybit_codes.FORM
    has_hedge_mode = True
    instrument_states = StateTable(("status",), bybit_codes.STATES, bybit_codes.PASSING)
    coin_list = CoinList(
        "privateGetV5AssetCoinQueryInfo", ("result", "rows"), "coin", "chains", "chainWithdraw", ("1",), ("0",)
    )
    keeps_rules = True

    def __init__(self, client: Client, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self._position_indices: dict[tuple[str, Side], int] = {}
        """Position → its positionIdx in the last answer."""
        self._without_rules: set[str] = set()
        """Names of symbols for which the venue has no rules."""
        self._prices: dict[str, Decimal] = {}
        """Coin of the account → its price in USD in the last answer."""
        self._positions_at: datetime | None = None
        """Oldest venue time of the last answers with positions."""
        self._log = LogReader(partial(self._page, "privateGetV5AccountTransactionLog"))

    @classmethod
    def client_options(cls, spec: AccountSpec) -> Mapping[str, Any]:
        """The generic options, and what ccxt would otherwise request from the venue before the first order."""
        return {
            **super().client_options(spec),
            "fetchMarkets": {"types": ["spot"] if spec.market == "spot" else ["linear", "inverse"]},
            "enableUnifiedMargin": False,
            "enableUnifiedAccount": True,
            "unifiedMarginStatus": 6,
            "watchPositions": {"fetchPositionsSnapshot": False, "awaitPositionsSnapshot": False},
        }

    codes_of = staticmethod(bybit_codes.codes_of)

    @classmethod
    def used_from(cls, headers: Mapping[str, str], path: str) -> Mapping[str, int]:
        """Each answer states what is left of its own endpoint's limit."""
        name = bybit_codes.PATHS.get(path)
        try:
            used = int(headers["x-bapi-limit"]) - int(headers["x-bapi-limit-status"])
        except (KeyError, ValueError):
            return {}
        return {} if name is None else {name: max(0, used)}

    @classmethod
    def allowed_from(cls, headers: Mapping[str, str], limit: RateLimit) -> int:
        """Each answer states its limit, which is higher for some accounts."""
        stated = headers.get("x-bapi-limit", "")
        return int(stated) if stated.isdecimal() and int(stated) else limit.allowed

    @property
    def _categories(self) -> tuple[dict[str, str], ...]:
        """The params of each category of contracts, which needs a request of its own."""
        if self.is_spot:
            return ({"category": "spot"},)
        linear = tuple({"category": "linear", "settleCoin": coin} for coin in ("USDT", "USDC"))
        return (*linear, {"category": "inverse"})

    corrected_rule = staticmethod(with_order_maximum)

    def is_ours(self, rule: Row) -> bool:
        return bool(rule.get("spot")) is self.is_spot

    # Snapshot

    async def account(self) -> tuple[AccountEquity, tuple[Position, ...]]:
        """Equity and positions. Margin of debts alone is not reported, since positions do not use it.

        Bybit states the amounts of a position in its settlement coin.
        """
        equity, found = await super().account()
        if not self.is_spot:
            found = tuple(self._in_own_currency(it, self.rules[it.symbol].get("settle")) for it in found)
        if not found and equity.margin_used == 0:
            equity = replace(equity, maintenance_margin=None)
        return replace(equity, positions_as_of=self._positions_at), found

    async def equity(self) -> AccountEquity:
        answer = await self.client.call("privateGetV5AccountWalletBalance", {"accountType": "UNIFIED"})
        self._prices = dollar_prices(answer)
        return account_equity(answer, self.spec.currency, self.client.answer_time(answer.get("time")))

    def _rate(self, coin: object) -> Decimal | None:
        return rate(self._prices, coin, self.spec.currency)

    def _in_own_currency(self, position: Position, coin: object) -> Position:
        """A position with amounts in `coin`, converted to the account's currency."""
        return position if coin == self.spec.currency else positions.converted(position, self._rate(coin))

    async def spot_account(self) -> tuple[AccountEquity, tuple[Position, ...]]:
        """Holdings by the equity of each coin, which is net of its debt."""

        async def balance() -> Row:
            params = {"accountType": "UNIFIED"}
            return spot_balance(await self.client.call("privateGetV5AccountWalletBalance", params))

        return await self.value_spot_account(balance())

    async def asset_prices(self, assets: Sequence[str]) -> Mapping[str, Quote]:
        """The last price at spot against the account's currency; Bybit's own valuation has no request."""
        names = {f"{asset}{self.spec.currency}": asset for asset in assets}
        requests = [
            self.client.call("publicGetV5MarketTickers", {"category": "spot", "symbol": name}) for name in names
        ]
        rows = [row for it in await answered(requests) for row in rows_at(it, "result", "list")]
        return {
            names[str(row.get("symbol"))]: quote_of(row, "bid1Price ask1Price lastPrice - -", None)
            for row in rows
            if row.get("symbol") in names
        }

    async def positions(self) -> tuple[Position, ...]:
        self._positions_at = None
        answers = await asyncio.gather(*(self._pages("privateGetV5PositionList", it, 200) for it in self._categories))
        for query, answer in zip(self._categories, answers, strict=True):
            for row in answer:
                await self._load_delisted_rules(str(row.get("symbol")), query["category"])
        rows = positions.sized([row for answer in answers for row in answer], "size")
        parsed = [self.client.ccxt.parse_position(row, self.rule_of(row.get("symbol"))) for row in rows]
        found = positions.positions(parsed, self.rules, self.refine_position)
        self._position_indices = {
            (it.symbol, it.side): position_index(row["info"])
            for it, row in zip(found, (it for it in parsed if decimal(it.get("contracts"))), strict=True)
        }
        return found

    async def _load_delisted_rules(self, name: str, category: str) -> None:
        """Load the rules of a delisted symbol: Bybit lists traded symbols only, and returns others by name."""
        ccxt = self.client.ccxt
        if name in (ccxt.markets_by_id or {}) or name in self._without_rules:
            return
        self._without_rules.add(name)
        for status in ("Closed", "Delivering"):
            params = {"category": category, "symbol": name, "status": status}
            found = await self.client.call("fetch_future_markets", params)
            if found:
                ccxt.set_markets([*ccxt.markets.values(), *found])
                self._without_rules.discard(name)
                return

    def refine_position(self, position: Position, info: Row) -> Position:
        rank = decimal(info.get("adlRankIndicator"))
        return replace(
            position,
            # Contracts in USDC are settled every few hours: their profit counts from then, and `avgPrice` stays.
            entry_price=positive(info.get("sessionAvgPrice")) or position.entry_price,
            unrealized_pnl=decimal(info.get("unrealisedPnl")),
            margin=decimal(info.get("positionIM")),
            adl_rank=int(rank) if rank else None,
        )

    async def orders(self) -> tuple[Order, ...]:
        queries = [dict(it) for it in self._categories]
        if self.is_spot:
            queries = [{**queries[0], "orderFilter": kind} for kind in ("Order", "StopOrder", "tpslOrder")]
        answers = await asyncio.gather(*(self._pages("privateGetV5OrderRealtime", it, 50) for it in queries))
        return orders.open_orders(self.order_of(row) for rows in answers for row in rows)

    refine_order = staticmethod(refined_order)

    async def fills(self, symbols: Sequence[str], since: int) -> tuple[Fill, ...]:
        kinds = ("spot",) if self.is_spot else ("linear", "inverse")
        queries = ({"category": kind, "startTime": since} for kind in kinds)
        answers = await asyncio.gather(*(self._pages("privateGetV5ExecutionList", it, 100) for it in queries))
        return self.fills_of(row for rows in answers for row in rows)

    async def order_fills(self, symbol: str, order_id: str) -> tuple[Fill, ...]:
        rows = await self._pages("privateGetV5ExecutionList", {**self._symbol_params(symbol), "orderId": order_id}, 100)
        return fills.fills_of_order(self.fills_of(rows), order_id)

    def fills_of(self, rows: Iterable[Row]) -> tuple[Fill, ...]:
        """The fills among the executions."""
        return super().fills_of(
            it for it in rows if bybit_codes.CAUSES.get(str(it.get("execType")), "trade") is not None
        )

    def refine_fill(self, fill: Fill, info: Row) -> Fill:
        rule = self.rules.get(fill.symbol, {})
        coin = rule.get("settle") or rule.get("base" if fill.side == "buy" else "quote")
        each = self._rate(rule.get("settle") or rule.get("quote"))
        return refined_fill(fill, info, spot=self.is_spot, paid_in=coin, each=each)

    async def flows(self, since: int) -> tuple[Flow, ...]:
        """The whole log since then; UnreadableError where that exceeds one fetch."""
        return await self._log.flows(since, self.client.now_ms())

    async def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Mark, index, last and best prices in one answer for each symbol, or for each category of many symbols."""
        queries = [self._symbol_params(symbol) for symbol in symbols]
        if len(queries) > MOST_SINGLE_TICKERS:
            queries = [{"category": it} for it in sorted({params["category"] for params in queries})]
        answers = await self.call_all(*(("publicGetV5MarketTickers", it) for it in queries))
        found: dict[tuple[str, str], Quote] = {}
        for params, answer in zip(queries, answers, strict=True):
            at = self.client.answer_time(answer.get("time"))
            for row in value_at(answer, "result", "list") or ():
                found[params["category"], str(row.get("symbol"))] = quote_of(row, TICKER, at)
        keys = ((symbol, (self._category(symbol), self.id_of(symbol))) for symbol in symbols)
        return {symbol: found[key] for symbol, key in keys if key in found}

    async def watched(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        found = await self.quotes(symbols)
        return {symbol: bounded(quote, self.rules[symbol]) for symbol, quote in found.items()}

    async def position_mode(self) -> PositionMode | None:
        """The mode of the positions; without positions, that of a symbol that could be held."""
        if self.is_spot:
            return "one_way"
        indices = set(self._position_indices.values())
        if not indices:
            symbol = next((it for it, rule in self.rules.items() if rule.get("linear") and rule.get("active")), None)
            if symbol is None:
                return "one_way"
            rows = await self._pages("privateGetV5PositionList", self._symbol_params(symbol), 200)
            indices = {position_index(row) for row in rows}
        return "hedge" if indices & {1, 2} else "one_way"

    # Rows

    async def _pages(self, method: str, params: Mapping[str, Any], size: int) -> list[Row]:
        """The rows of all pages of a request. UnreadableError where the list does not end."""
        return await every_page(partial(self._page, method, {**params, "limit": size}), None, MOST_PAGES, method)

    async def _page(self, method: str, params: Row, cursor: str | None = None) -> tuple[list[Row], str | None]:
        """One page, and the cursor of the next one; None where there is none."""
        answer = await self.client.call(method, {**params, **({"cursor": cursor} if cursor else {})})
        if method == "privateGetV5PositionList" and (at := self.client.answer_time(answer.get("time"))) is not None:
            self._positions_at = min(at, self._positions_at or at)
        rows = rows_at(answer, "result", "list", what=f"the answer to {method}")
        return rows, value_at(answer, "result", "nextPageCursor") or None if len(rows) >= params["limit"] else None

    def _category(self, symbol: str) -> str:
        rule = self.rules[symbol]
        return "spot" if rule.get("spot") else "inverse" if rule.get("inverse") else "linear"

    def _symbol_params(self, symbol: str) -> dict[str, str]:
        return {"category": self._category(symbol), "symbol": self.id_of(symbol)}
