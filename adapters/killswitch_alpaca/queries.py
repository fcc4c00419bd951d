"""Requests about an account, and their answers as records. This module keeps no state."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from killswitch.model.parsing import (
    Row,
    UnreadableError,
    object_at,
    positive,
    required_text,
    rows_at,
    written_instant,
)
from killswitch.model.snapshot import Order, Position
from killswitch.model.venue import RateLimitedError
from killswitch_alpaca.activities import KEPT, KnownActivities
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
SINGLES = 4
"""Largest number of unknown assets that are requested one by one; more are requested as the whole list."""
OLD_QUOTE = timedelta(seconds=60)
BestQuote = tuple[Decimal | None, Decimal | None]
"""Best bid and ask."""


class Queries:
    """The requests. Every method may raise RefusedAnswerError, UnreadableError and any VenueError."""

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
        found: dict[str, Row] = {}
        query: dict[str, Any] = {"status": "open", "limit": PAGE, "nested": "true", "direction": "asc"}
        for _ in range(PAGES):
            page = rows_at(await self._client.get("/v2/orders", query), what="orders")
            new = {required_text(each.get("id"), "id"): each for each in page}
            is_repeated = new.keys() <= found.keys()
            found |= new
            if len(page) < PAGE:
                return read_open(list(found.values()), prices)
            last = written_instant(page[-1].get("submitted_at"))
            if is_repeated or last is None:
                raise UnreadableError(f"the list of open orders cannot be read beyond {len(found)} orders")
            # `after` excludes orders with exactly that time, and the page may end between two of them.
            query["after"] = (last - EDGE).isoformat().replace("+00:00", "Z")
        raise UnreadableError(f"there are more than {len(found)} open orders")

    async def activities(self, known: KnownActivities, path: str, **query: Any) -> list[Row]:
        """Activities that are not `known` yet, oldest first, page by page, until older ones are known.

        Where there are more than one read may fetch, it raises UnreadableError, and the next one continues. Without an
        earlier answer or a previous run, which they must follow, the first page suffices.
        """
        query |= {"direction": "desc", "page_size": TRADES_PAGE}
        found, known.unfinished = known.unfinished, []
        if found:
            query["page_token"] = required_text(found[-1].get("id"), "id")
        for _ in range(PAGES):
            page = rows_at(await self._client.get(path, query), what="activities")
            found = [*found, *page]
            if len(page) < TRADES_PAGE or known.is_past(page):
                return found[::-1]
            query["page_token"] = required_text(page[-1].get("id"), "id")
        if len(found) < KEPT:
            known.unfinished = found
        raise UnreadableError(f"more than {len(found)} activities since the last read, which are not all read yet")

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
        """Best bid and ask of stocks; None where there is none, or it is older than a minute."""
        query = {"symbols": ",".join(symbols), **self._feed}
        answer = await self._client.get_data("/v2/stocks/quotes/latest", query)
        found = object_at(object_at(answer, what="quotes").get("quotes") or {}, what="quotes")
        now = self._settings.now()
        return {symbol: _book(object_at(each, what=f"the quote of {symbol}"), now) for symbol, each in found.items()}

    async def trades(self, symbols: Sequence[str]) -> dict[str, tuple[Decimal, datetime]]:
        """Last trade price and time of each share or coin; symbols without one are left out."""
        coins = [symbol for symbol in symbols if is_crypto(symbol)]
        shares = [symbol for symbol in symbols if not is_crypto(symbol)]
        requests = []
        if shares:
            requests.append(self._trades("/v2/stocks/trades/latest", {"symbols": ",".join(shares), **self._feed}))
        if coins:
            requests.append(self._trades("/v1beta3/crypto/us/latest/trades", {"symbols": ",".join(coins)}))
        return {symbol: each for found in await asyncio.gather(*requests) for symbol, each in found.items()}

    async def _trades(self, path: str, query: dict[str, str]) -> dict[str, tuple[Decimal, datetime]]:
        answer = await self._client.get_data(path, query)
        found = object_at(object_at(answer, what="trades").get("trades") or {}, what="trades")
        prices = {}
        for symbol, each in found.items():
            last = object_at(each, what=f"the last trade of {symbol}")
            price, at = positive(last.get("p")), written_instant(last.get("t"))
            if price is not None and at is not None:
                prices[symbol] = price, at
        return prices

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


def _book(found: Row, now: datetime) -> BestQuote:
    at = written_instant(found.get("t"))
    if at is None or now - at > OLD_QUOTE:
        return None, None
    return positive(found.get("bp")), positive(found.get("ap"))
