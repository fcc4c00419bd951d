"""Requests about an account, and their answers as records. This module keeps no state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from killswitch.model.parsing import (
    EndlessListError,
    Row,
    UnreadableError,
    every_page,
    object_at,
    positive,
    required_number,
    required_text,
    rows_at,
    written_instant,
    written_time_of,
)
from killswitch.model.snapshot import Fill, Order, Position
from killswitch.model.venue import RateLimitedError
from killswitch_alpaca.activities import KEPT, KnownActivities, read_fill
from killswitch_alpaca.client import Client
from killswitch_alpaca.hours import TradingDay, VenueClock, read_calendar, read_clock
from killswitch_alpaca.instruments import Asset, read_asset
from killswitch_alpaca.orders import read_open
from killswitch_alpaca.positions import CRYPTO, EQUITY, is_crypto, read_positions, symbol_of
from killswitch_alpaca.settings import AlpacaSettings

PAGE, PAGES = 500, 10
"""Orders of one page, and pages of one read."""
EDGE = timedelta(seconds=1)
"""Overlap with the previous page. No account may submit a whole page of orders in that time."""
TRADES_PAGE = 100
FILL_PAGES = 20
"""Pages of trades that are searched for the fills of one order."""
SINGLES = 4
"""Largest number of unknown assets that are requested one by one; more are requested as the whole list."""
OLD_QUOTE = timedelta(seconds=60)
BestQuote = tuple[Decimal | None, Decimal | None]
"""Best bid and ask."""


class Queries:
    """The requests. Every method may raise UnreadableError and any VenueError."""

    def __init__(self, settings: AlpacaSettings, client: Client) -> None:
        self._settings = settings
        self._client = client
        self._feed = {} if settings.data_feed is None else {"feed": settings.data_feed}

    async def positions(self) -> tuple[Position, ...]:
        return read_positions(rows_at(await self._client.get("/v2/positions"), what="positions"))

    async def account(self) -> Row:
        return object_at(await self._client.get("/v2/account"), what="the account")

    async def orders(self, prices: Mapping[str, Decimal]) -> tuple[Order, ...]:
        """All open orders, page by page; `prices` as in `read_open`."""
        query = {"status": "open", "limit": PAGE, "nested": "true", "direction": "asc"}

        async def page(after: str | None) -> tuple[list[Row], str | None]:
            rows = rows_at(await self._client.get("/v2/orders", {**query, "after": after}), what="orders")
            if len(rows) < PAGE:
                return rows, None
            # `after` excludes orders with exactly that time, and the page may end between two of them.
            last = written_time_of(rows[-1].get("submitted_at"), "submitted_at")
            return rows, (last - EDGE).isoformat().replace("+00:00", "Z")

        rows = await every_page(page, None, PAGES, "open orders")
        return read_open(list({required_text(row.get("id"), "id"): row for row in rows}.values()), prices)

    async def activities(self, known: KnownActivities, path: str, **query: Any) -> list[Row]:
        """Activities that are not `known` yet, oldest first, page by page, until older ones are known.

        Where there are more than one read may fetch, it raises UnreadableError, and the next one continues. Without an
        earlier answer or a previous run, which they must follow, the first page suffices.
        """
        earlier, known.unfinished = known.unfinished, []
        first = required_text(earlier[-1].get("id"), "id") if earlier else None
        try:
            later = await self._activities(path, {**query, "direction": "desc"}, known.is_past, first, PAGES)
        except EndlessListError as error:
            found = [*earlier, *error.rows]
            if len(found) < KEPT:
                known.unfinished = found
            raise UnreadableError(
                f"more than {len(found)} activities since the last read, which are not all read yet"
            ) from error
        return [*earlier, *later][::-1]

    async def fills_of(self, order: Row, symbol: str) -> tuple[Fill, ...]:
        """The fills of an order. UnreadableError while the trades have less than its filled quantity."""
        number, filled = order.get("id"), required_number(order.get("filled_qty"), "filled_qty")
        names = {str(order.get("symbol")): symbol}
        fills: dict[str, Fill] = {}

        def is_complete(rows: Sequence[Row]) -> bool:
            fills.update({str(it.get("id")): read_fill(it, names) for it in rows if it.get("order_id") == number})
            return sum((fill.amount for fill in fills.values()), Decimal(0)) >= filled

        if filled:
            query = {"after": order.get("submitted_at"), "direction": "asc"}
            await self._activities("/v2/account/activities/FILL", query, is_complete, None, FILL_PAGES)
        if not is_complete(()):
            raise UnreadableError(
                f"order {number} has {filled} filled, and the list of trades does not include all of it"
            )
        return tuple(fills.values())

    async def _activities(
        self, path: str, query: Row, is_last: Callable[[Sequence[Row]], bool], first: str | None, most: int
    ) -> list[Row]:
        """Activities in at most that many pages, after the one with the id `first`, until `is_last` of a page."""

        async def page(after: str | None) -> tuple[list[Row], str | None]:
            more = {} if after is None else {"page_token": after}
            answer = await self._client.get(path, {**query, "page_size": TRADES_PAGE, **more})
            rows = rows_at(answer, what="activities")
            is_end = is_last(rows) or len(rows) < TRADES_PAGE
            return rows, None if is_end else required_text(rows[-1].get("id"), "id")

        return await every_page(page, first, most, "activities")

    async def clock(self) -> VenueClock:
        """Alpaca's clock, compared with the middle of the request."""
        answer, asked_at = await self._client.get_timed("/v2/clock")
        return read_clock(object_at(answer, what="the clock"), asked_at)

    async def calendar(self, clock: VenueClock) -> tuple[TradingDay, ...]:
        """The trading days from yesterday to a week from now."""
        today = (self._settings.now() + clock.offset).date()
        query = {"start": str(today - timedelta(days=1)), "end": str(today + timedelta(days=7))}
        return read_calendar(rows_at(await self._client.get("/v2/calendar", query), what="the calendar"), clock.offset)

    async def quotes(self, symbols: Sequence[str]) -> dict[str, BestQuote]:
        """Best bid and ask of shares and coins; None where there is none, or it is older than a minute."""
        now, requests = self._settings.now(), self._requests(symbols, "/v2/stocks/quotes/latest", "quotes")
        return {
            symbol: _book(object_at(each, what=f"the quote of {symbol}"), now)
            for answer in await asyncio.gather(*requests)
            for symbol, each in object_at(object_at(answer, what="quotes").get("quotes") or {}, what="quotes").items()
        }

    async def trades(self, symbols: Sequence[str]) -> dict[str, tuple[Decimal, datetime]]:
        """Last trade price and time of each share or coin; symbols without one are left out."""
        requests = self._requests(symbols, "/v2/stocks/trades/latest", "trades")
        found = [_trades_of(answer) for answer in await asyncio.gather(*requests)]
        return {symbol: each for answer in found for symbol, each in answer.items()}

    def _requests(self, symbols: Sequence[str], of_shares: str, what: str) -> list[Coroutine[Any, Any, Any]]:
        """One request for all shares, and one for all coins."""
        coins = [symbol for symbol in symbols if is_crypto(symbol)]
        shares = [symbol for symbol in symbols if not is_crypto(symbol)]
        requests = []
        if shares:
            requests.append(self._client.get_data(of_shares, {"symbols": ",".join(shares), **self._feed}))
        if coins:
            path = f"/v1beta3/crypto/us/latest/{what}"
            requests.append(self._client.get_data(path, {"symbols": ",".join(coins)}))
        return requests

    async def assets(self, symbols: Collection[str]) -> tuple[list[Asset], int]:
        """The assets of these symbols, and the number of requests: one for each, or one for each whole list."""
        if len(symbols) <= SINGLES:
            answers = await asyncio.gather(*(self._asset(symbol) for symbol in symbols), return_exceptions=True)
            for each in answers:
                if isinstance(each, RateLimitedError) or not isinstance(each, Exception | Asset):
                    raise each
            # An asset that Alpaca does not know must not hide the rules of the others.
            return [each for each in answers if isinstance(each, Asset)], len(symbols)
        classes = sorted({CRYPTO if is_crypto(symbol) else EQUITY for symbol in symbols})
        found: list[Asset] = []
        for asset_class in classes:
            answer = rows_at(await self._client.get("/v2/assets", {"asset_class": asset_class}), what="assets")
            found += [read_asset(each) for each in answer if symbol_of(str(each.get("symbol")), asset_class) in symbols]
        return found, len(classes)

    async def _asset(self, symbol: str) -> Asset:
        # A slash would change the path; Alpaca also accepts coins without it.
        name = symbol.replace("/", "")
        return read_asset(
            object_at(await self._client.get(f"/v2/assets/{quote(name, safe='')}"), what=f"asset {symbol}")
        )


def _trades_of(answer: Any) -> dict[str, tuple[Decimal, datetime]]:
    """Symbol → price and time of its last trade."""
    found = object_at(object_at(answer, what="trades").get("trades") or {}, what="trades")
    prices = {}
    for symbol, each in found.items():
        last = object_at(each, what=f"the last trade of {symbol}")
        price, at = positive(last.get("p")), written_instant(last.get("t"))
        if price is not None and at is not None:
            prices[symbol] = price, at
    return prices


def _book(found: Row, now: datetime) -> BestQuote:
    at = written_instant(found.get("t"))
    if at is None or now - at > OLD_QUOTE:
        return None, None
    return positive(found.get("bp")), positive(found.get("ap"))
