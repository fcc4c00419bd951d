"""What an account at Bybit is read by: v5 routes where ccxt's unified call would leave something out.

That is further pages, other settlement coins, executions that are no trades, and rules of what is listed no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Final

from msgspec import structs

from killswitch.model.snapshot import Fill, Flow, Order, Position, Side
from killswitch.model.venue import AccountSpec
from killswitch_ccxt import fills, orders, positions
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Dialect, PositionMode, Row
from killswitch_ccxt.equity import Wealth
from killswitch_ccxt.instruments import Quote, States, states_of
from killswitch_ccxt.numbers import NoSuchSymbolError, UnreadableError, decimal, needed
from killswitch_ccxt.response_capture import Answer
from killswitch_ccxt.venues.bybit import codes as words
from killswitch_ccxt.venues.bybit.flows import Portions
from killswitch_ccxt.venues.bybit.rows import (
    dollar_prices,
    in_currency,
    place_of,
    quote_of,
    rate,
    refined_fill,
    refined_order,
    spot_balance,
    wealth_of,
    with_largest,
)

FEW: Final = 5
"""Up to so many symbols their prices are asked for one by one: all of a category are half a megabyte."""
MOST_PAGES: Final = 40
"""Pages of one question; a book that needs more is not read in part, but called unreadable."""


class BybitReading(Dialect):
    """Bybit, as far as it is read. Of positions is kept how an order has to name them."""

    exchange: ClassVar[str] = "bybit"
    codes = words.CODES
    code_form = words.FORM
    has_hedge_mode = True
    keeps_rules = True

    def __init__(self, client: Client, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self._places: dict[tuple[str, Side], int] = {}
        """Position → its positionIdx, as the venue told it last."""
        self._unheard: set[str] = set()
        """Names of symbols of which nobody tells the rules."""
        self._prices: dict[str, Decimal] = {}
        """Dollars for one of each coin that the account has, as the venue told it last."""
        self._positions_at: datetime | None = None
        """Venue time of the oldest of the answers that positions were read from last."""
        self._known: Mapping[str, Row] | None = None
        self._rules: Mapping[str, Row] = {}
        self._log = Portions(lambda asked: self._page("privateGetV5AccountTransactionLog", asked))

    @classmethod
    def client_options(cls, spec: AccountSpec) -> Mapping[str, Any]:
        """As generic, with what ccxt would otherwise ask the venue before the first order."""
        return {
            **super().client_options(spec),
            "fetchMarkets": {"types": ["spot"] if spec.market == "spot" else ["linear", "inverse"]},
            "enableUnifiedMargin": False,
            "enableUnifiedAccount": True,
            "unifiedMarginStatus": 6,
            "watchPositions": {"fetchPositionsSnapshot": False, "awaitPositionsSnapshot": False},
        }

    @classmethod
    def codes_of(cls, answer: Answer) -> Iterable[str]:
        return words.said_by(answer)

    @classmethod
    def used_from(cls, headers: Mapping[str, str], path: str) -> Mapping[str, int]:
        """Each answer tells what is left of its own route's limit."""
        name = words.PATHS.get(path)
        try:
            used = int(headers["x-bapi-limit"]) - int(headers["x-bapi-limit-status"])
        except (KeyError, ValueError):
            return {}
        return {} if name is None else {name: max(0, used)}

    @property
    def _spot(self) -> bool:
        return self.spec.market == "spot"

    @property
    def _books(self) -> tuple[dict[str, str], ...]:
        """What one question can be about."""
        if self._spot:
            return ({"category": "spot"},)
        linear = tuple({"category": "linear", "settleCoin": coin} for coin in ("USDT", "USDC"))
        return (*linear, {"category": "inverse"})

    @property
    def rules(self) -> Mapping[str, Row]:
        """As generic, with the least of what Bybit takes in one order: of market orders it takes less."""
        known = self.client.ccxt.markets or {}
        if known is not self._known:
            self._known, self._rules = known, {symbol: with_largest(rule) for symbol, rule in known.items()}
        return self._rules

    # Reading

    async def account(self) -> tuple[Wealth, tuple[Position, ...]]:
        """As generic. Margin that is kept for debts alone is none that positions need.

        Of a position that settles in another coin than the account's currency, Bybit tells all money in that coin.
        """
        wealth, found = await super().account()
        if not self._spot:
            found = tuple(in_currency(it, self._rate(self.rules[it.symbol].get("settle"))) for it in found)
        if not found and wealth.margin_used == 0:
            wealth = replace(wealth, maintenance_margin=None)
        return replace(wealth, positions_as_of=self._positions_at), found

    async def wealth(self) -> Wealth:
        answer = await self.client.call("privateGetV5AccountWalletBalance", {"accountType": "UNIFIED"})
        self._prices = dollar_prices(answer)
        return wealth_of(answer, self.spec.currency, self.client.answered_at(answer.get("time")))

    def _rate(self, coin: object) -> Decimal | None:
        return rate(self._prices, coin, self.spec.currency)

    async def held(self) -> tuple[Wealth, tuple[Position, ...]]:
        """By the equity of each coin, which is without what was borrowed of it."""

        async def balance() -> Row:
            asked = {"accountType": "UNIFIED"}
            return spot_balance(await self.client.call("privateGetV5AccountWalletBalance", asked))

        return await self.priced(balance())

    async def positions(self) -> tuple[Position, ...]:
        self._positions_at = None
        answers = await asyncio.gather(*(self._pages("privateGetV5PositionList", it, 200) for it in self._books))
        rows = [
            row for found in answers for row in found if needed(row.get("size"), f"the size of {row.get('symbol')}")
        ]
        for row, book in ((row, book) for book, answer in zip(self._books, answers, strict=True) for row in answer):
            await self._learn(str(row.get("symbol")), book["category"])
        odd = [str(row.get("symbol")) for row in rows if needed(row.get("size"), "a size") < 0]
        if odd:
            raise UnreadableError(f"positions of less than nothing: {', '.join(odd)}")
        parsed = [self.client.ccxt.parse_position(row, self._rule(row)) for row in rows]
        found = positions.positions(parsed, self.rules, self.refine_position)
        self._places = {
            (it.symbol, it.side): place_of(row["info"])
            for it, row in zip(found, (it for it in parsed if decimal(it.get("contracts"))), strict=True)
        }
        return found

    async def _learn(self, name: str, category: str) -> None:
        """Bybit lists what is traded; the rules of what is not any more it tells when it is asked for by name."""
        ccxt = self.client.ccxt
        if name in (ccxt.markets_by_id or {}) or name in self._unheard:
            return
        self._unheard.add(name)
        for status in ("Closed", "Delivering"):
            asked = {"category": category, "symbol": name, "status": status}
            found = await self.client.call("fetch_future_markets", asked)
            if found:
                ccxt.set_markets([*ccxt.markets.values(), *found])
                self._unheard.discard(name)
                return

    async def states(self) -> States:
        told = {symbol: str((rule.get("info") or {}).get("status")) for symbol, rule in self.rules.items()}
        return states_of(told, words.STATES, words.PASSING)

    def refine_position(self, position: Position, info: Row) -> Position:
        rank = decimal(info.get("adlRankIndicator"))
        return structs.replace(
            position,
            unrealized_pnl=decimal(info.get("unrealisedPnl")),
            margin=decimal(info.get("positionIM")),
            adl_rank=int(rank) if rank else None,
        )

    async def orders(self) -> tuple[Order, ...]:
        asked = [dict(it) for it in self._books]
        if self._spot:
            asked = [{**asked[0], "orderFilter": kind} for kind in ("Order", "StopOrder", "tpslOrder")]
        answers = await asyncio.gather(*(self._pages("privateGetV5OrderRealtime", it, 50) for it in asked))
        return orders.resting(self._order(row) for rows in answers for row in rows)

    def refine_order(self, row: Row) -> Row:
        return refined_order(row)

    async def fills(self, symbols: Sequence[str], since: int) -> tuple[Fill, ...]:
        kinds = ("spot",) if self._spot else ("linear", "inverse")
        asked = ({"category": kind, "startTime": since} for kind in kinds)
        answers = await asyncio.gather(*(self._pages("privateGetV5ExecutionList", it, 100) for it in asked))
        return self._fills(row for rows in answers for row in rows)

    async def order_fills(self, symbol: str, order_id: str) -> tuple[Fill, ...]:
        rows = await self._pages("privateGetV5ExecutionList", {**self._named(symbol), "orderId": order_id}, 100)
        return fills.of_order(self._fills(rows), order_id)

    def _fills(self, rows: Iterable[Row]) -> tuple[Fill, ...]:
        told = (row for row in rows if words.CAUSES.get(str(row.get("execType")), "trade") is not None)
        return fills.fills((self.client.ccxt.parse_trade(row, self._rule(row)) for row in told), self.refine_fill)

    def refine_fill(self, fill: Fill, info: Row) -> Fill:
        rule = self.rules.get(fill.symbol, {})
        coin = rule.get("settle") or rule.get("base" if fill.side == "buy" else "quote")
        each = self._rate(rule.get("settle") or rule.get("quote"))
        return refined_fill(fill, info, spot=self._spot, paid_in=coin, each=each)

    async def flows(self, since: int) -> tuple[Flow, ...]:
        """The whole log since then; UnreadableError where that is more than one reading takes."""
        return await self._log.flows(since, int(self.client.now().timestamp() * 1000))

    async def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Mark, index, last and best prices in one answer for each symbol, or for each category of many."""
        asked = [self._named(symbol) for symbol in symbols]
        if len(asked) > FEW:
            asked = [{"category": it} for it in sorted({named["category"] for named in asked})]
        answers = await asyncio.gather(*(self.client.call("publicGetV5MarketTickers", it) for it in asked))
        found: dict[tuple[str, str], Quote] = {}
        for named, answer in zip(asked, answers, strict=True):
            at = self.client.answered_at(answer.get("time"))
            for row in (answer.get("result") or {}).get("list") or ():
                found[named["category"], str(row.get("symbol"))] = quote_of(row, at)
        keys = ((symbol, (self._category(symbol), str(self.rules[symbol]["id"]))) for symbol in symbols)
        return {symbol: found[key] for symbol, key in keys if key in found}

    async def position_mode(self) -> PositionMode | None:
        """That of the positions; of a symbol that could be held, where there are none."""
        if self._spot:
            return "one_way"
        indices = set(self._places.values())
        if not indices:
            symbol = next((it for it, rule in self.rules.items() if rule.get("linear") and rule.get("active")), None)
            if symbol is None:
                return "one_way"
            rows = await self._pages("privateGetV5PositionList", self._named(symbol), 200)
            indices = {place_of(row) for row in rows}
        return "hedge" if indices & {1, 2} else "one_way"

    # Rows

    async def _pages(self, method: str, params: Mapping[str, Any], size: int) -> list[Row]:
        """Every page of a question. UnreadableError where it never ends."""
        rows: list[Row] = []
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            found, cursor = await self._page(
                method, {**params, "limit": size, **({"cursor": cursor} if cursor else {})}
            )
            rows += found
            if cursor is None:
                return rows
        raise UnreadableError(f"{method}: more than {MOST_PAGES} pages of {size}")

    async def _page(self, method: str, asked: Mapping[str, Any]) -> tuple[list[Row], str | None]:
        """One page, and the cursor of the next one; None where there is none."""
        answer = await self.client.call(method, asked)
        result = answer.get("result")
        if method == "privateGetV5PositionList" and (at := self.client.answered_at(answer.get("time"))) is not None:
            self._positions_at = min(at, self._positions_at or at)
        if not isinstance(result, Mapping) or not isinstance(result.get("list"), list):
            raise UnreadableError(f"{method}: an answer without a list")
        rows: list[Row] = result["list"]
        return rows, (result.get("nextPageCursor") or None) if len(rows) >= asked["limit"] else None

    def _rule(self, row: Row) -> Any:
        """ccxt's market of a row; UnreadableError where the rules have none."""
        found = (self.client.ccxt.markets_by_id or {}).get(str(row.get("symbol")), ())
        rule = next((it for it in found if bool(it.get("spot")) is self._spot), None)
        if rule is None:
            raise NoSuchSymbolError(f"a row of {row.get('symbol')!r}: the venue's rules have no such symbol")
        return rule

    def _order(self, row: Row) -> Row:
        return self.refine_order(self.client.ccxt.parse_order(dict(row), self._rule(row)))

    def _category(self, symbol: str) -> str:
        rule = self.rules[symbol]
        return "spot" if rule.get("spot") else "inverse" if rule.get("inverse") else "linear"

    def _named(self, symbol: str) -> dict[str, str]:
        return {"category": self._category(symbol), "symbol": str(self.rules[symbol]["id"])}
