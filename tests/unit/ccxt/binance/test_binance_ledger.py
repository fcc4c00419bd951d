"""Binance returns fills of named symbols only; its income history names them, so that the fills are complete."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from killswitch.model.snapshot import Mark
from killswitch.model.venue import Prices
from killswitch_ccxt.venue import CcxtVenue
from tests.unit.ccxt.binance.test_binance import CONFIG, LONG, QUIET, RULE, account
from tests.unit.ccxt.binance.test_binance_request_load import FUTURES_TRADES, play, trade
from tests.unit.ccxt.test_equity_components import asset
from tests.virtual_time import START

D = Decimal
RULES = {"symbols": [RULE | {"symbol": f"{base}USDT", "baseAsset": base} for base in ("BTC", "ETH")]}
HELD = LONG | {"positionAmt": "1", "unRealizedProfit": "0"}


class Book:
    """An account with one long of BTC and 1000 USDT, which changes while it is polled."""

    def __init__(self) -> None:
        self.wallet, self.positions = "1000", [HELD]
        self.trades: list[dict[str, Any]] = []
        self.incomes: list[dict[str, Any]] = []
        self.named: list[str] = []
        self.more: dict[str, Any] = {}

    def sells(self, symbol: str, at: datetime, number: int = 1) -> dict[str, Any]:
        """A trade and its commission, dated `at`."""
        now = int(at.timestamp() * 1000)
        income = {"symbol": symbol, "incomeType": "COMMISSION", "income": "-1", "asset": "USDT", "time": now,
                  "tranId": number, "tradeId": str(number)}  # fmt: skip
        self.trades.append(trade(number, symbol=symbol, time=now, commission="1"))
        self.incomes.append(income)
        return income

    def answers(self) -> dict[str, Any]:
        def trades(asked: dict[str, str]) -> Any:
            self.named.append(asked["symbol"])
            since = int(asked.get("startTime", 0))
            return [row for row in self.trades if row["symbol"] == asked["symbol"] and row["time"] >= since]

        prices = {"symbol": "BTCUSDT", "indexPrice": "50010", "markPrice": "50000", "time": 1_621_425_600_000}
        return {
            **QUIET, "/fapi/v1/exchangeInfo": RULES, "/fapi/v1/accountConfig": CONFIG, FUTURES_TRADES: trades,
            "/fapi/v3/account": lambda _: account(assets=[asset("USDT", self.wallet, "0")], totalMaintMargin="0"),
            "/fapi/v3/positionRisk": lambda _: self.positions, "/fapi/v1/income": lambda _: self.incomes,
            "/fapi/v1/premiumIndex": prices, "/fapi/v1/time": lambda _: {"serverTime": self.server_time()}, **self.more,
        }  # fmt: skip

    def server_time(self) -> int:
        return int(self.now().timestamp() * 1000)

    now: Callable[[], datetime] = staticmethod(lambda: START)

    def play(self, story: Callable[[CcxtVenue], Any]) -> Any:
        async def with_clock(venue: CcxtVenue) -> Any:
            self.now = venue.client.now
            return await story(venue)

        return play(self.answers(), with_clock)[0]


def test_trades_in_a_symbol_that_is_not_held_are_found_by_the_income_history() -> None:
    """Bought and sold within a tick: only the wallet has changed, no position, and the history names the symbol."""
    book = Book()

    async def story(venue: CcxtVenue) -> None:
        seen = await venue.snapshot()
        assert (seen.fills_as_of, seen.flows_as_of, book.named) == (START, START, ["BTCUSDT"])
        await asyncio.sleep(10)
        book.wallet = "999"
        book.sells("ETHUSDT", START + timedelta(seconds=9))
        seen = await venue.snapshot()
        assert [fill.symbol for fill in seen.fills or ()] == ["ETH/USDT:USDT"]
        assert seen.fills_as_of == START + timedelta(seconds=10)

    book.play(story)


def test_fills_are_incomplete_until_every_changed_symbol_was_requested() -> None:
    """Eight positions closed at once exceed the allowance; the last are requested a little later."""
    names = [f"C{number}" for number in range(8)]
    book = Book()
    book.positions = [HELD | {"symbol": f"{name}USDT"} for name in names]
    rules = {"symbols": [RULE | {"symbol": f"{name}USDT", "baseAsset": name} for name in names]}

    async def story(venue: CcxtVenue) -> None:
        await venue.snapshot()
        await asyncio.sleep(1)
        book.named.clear()
        book.positions = []
        seen = await venue.snapshot()
        assert (len(book.named), seen.fills_as_of, seen.flows_as_of) == (6, None, START + timedelta(seconds=1))
        while seen.fills_as_of is None:
            await asyncio.sleep(1)
            seen = await venue.snapshot()
        assert len(set(book.named)) == 8
        assert seen.fills_as_of - START <= timedelta(seconds=12)

    book.more = {"/fapi/v1/exchangeInfo": rules, "/fapi/v1/premiumIndex": [], "/fapi/v1/ticker/bookTicker": [],
                 "/fapi/v1/ticker/price": []}  # fmt: skip
    book.play(story)


def test_symbols_from_before_a_restart_are_requested_from_the_last_snapshot_on() -> None:
    """ETH was held two hours ago and no longer is: its closing fill is read, though the default span is an hour."""
    book = Book()
    book.sells("ETHUSDT", START - timedelta(minutes=110))
    book.incomes.clear()  # the history may be late

    async def story(venue: CcxtVenue) -> Any:
        venue.remember(["ETH/USDT:USDT", "GONE/USDT:USDT"], START - timedelta(hours=2))
        return await venue.snapshot()

    seen = book.play(story)
    assert sorted(book.named) == ["BTCUSDT", "ETHUSDT"]
    assert [fill.symbol for fill in seen.fills] == ["ETH/USDT:USDT"]


def test_without_remembered_symbols_the_income_history_names_the_symbols_of_the_last_hour() -> None:
    """A symbol that another run held, and about which nothing was stored."""
    book = Book()
    book.sells("ETHUSDT", START - timedelta(minutes=30))
    seen = book.play(lambda venue: venue.snapshot())
    assert [fill.symbol for fill in seen.fills] == ["ETH/USDT:USDT"]


def test_a_position_that_vanished_has_its_mark_in_the_same_snapshot() -> None:
    """From the venue's premium index of that symbol alone."""
    book = Book()

    async def story(venue: CcxtVenue) -> None:
        await venue.snapshot()
        await asyncio.sleep(1)
        book.positions = []
        seen = await venue.snapshot()
        assert (seen.positions, seen.marks) == ((), (Mark("BTC/USDT:USDT", D(50_000)),))

    book.play(story)


def test_mark_index_and_last_price_are_of_one_moment() -> None:
    """Mark and index by one request, the last price by another at the same time; unknown symbols are left out."""

    async def story(venue: CcxtVenue) -> Any:
        return await venue.prices(["BTC/USDT:USDT", "GONE/USDT:USDT"])

    found = Book().play(story)
    at = datetime.fromtimestamp(1_621_425_600, UTC)
    assert found == {"BTC/USDT:USDT": Prices(D(50_000), D(50_010), D(50_000), at)}
