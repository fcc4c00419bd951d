"""Market data of Alpaca: rules, best prices, clock and calendar."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime

from msgspec.structs import replace

from killswitch.model.parsing import UnreadableError
from killswitch.model.snapshot import Instrument, Position, WatchedPrice
from killswitch.model.venue import RateLimitedError, VenueDownError, VenueError
from killswitch_alpaca.client import TOO_LATE, Client
from killswitch_alpaca.hours import Hours, Session
from killswitch_alpaca.instruments import Asset, instrument
from killswitch_alpaca.parts import ASSETS, CALENDAR, CLOCK, QUOTES, WATCH, SnapshotPart
from killswitch_alpaca.positions import is_crypto
from killswitch_alpaca.queries import BestQuote, Queries
from killswitch_alpaca.settings import AlpacaSettings


class MarketData:
    """Known market data, and which rules snapshots have returned. Times in seconds of the loop."""

    def __init__(self, queries: Queries, *, extended: bool) -> None:
        self._queries = queries
        self._extended = extended
        self.quotes = SnapshotPart(QUOTES, QUOTES)
        self._quotes: dict[str, BestQuote] = {}
        self.watch = SnapshotPart(WATCH, 2 * WATCH)
        self._watched: tuple[WatchedPrice, ...] = ()
        self._assets: dict[str, Asset] = {}
        self._asset_at: dict[str, float] = {}
        self._returned: dict[str, Instrument] = {}

    def coins(self) -> list[str]:
        """Symbols of the known coins."""
        return [symbol for symbol in self._assets if is_crypto(symbol)]

    async def read_quotes(self, symbols: Sequence[str]) -> None:
        """Read bid and ask of shares."""
        self._quotes = await self._queries.quotes(symbols)

    async def read_watched(self, symbols: Sequence[str]) -> None:
        """Read the last trades, and bid and ask, of these symbols: two requests for shares, and two for coins."""
        try:
            trades, quotes = await asyncio.gather(self._queries.trades(symbols), self._queries.quotes(symbols))
        except RateLimitedError as error:
            # Market data has a separate limit: the account can still be read.
            raise VenueDownError(str(error)) from error
        self._watched = tuple(
            WatchedPrice(symbol, price, None, price, *quotes.get(symbol, (None, None)), at)
            for symbol, (price, at) in trades.items()
        )

    def watched(self, now: float) -> tuple[WatchedPrice, ...] | None:
        """The prices of the watch list; the mark is the last trade, which values shares, and has its time."""
        return self._watched if self.watch.is_usable(now) else None

    async def read_rules(self, symbols: Collection[str], now: float) -> int:
        """Read the rules of these symbols that are unknown or old; return the number of requests."""
        due = {it for it in symbols if now - self._asset_at.get(it, float("-inf")) >= ASSETS}
        if not due:
            return 0
        # After a failure, retry in a minute instead of at the next tick.
        self._asset_at |= dict.fromkeys(due, now - ASSETS + CLOCK)
        try:
            found, requests = await self._queries.assets(due)
        except RateLimitedError:
            raise
        except (VenueError, UnreadableError):
            return 0
        self._assets |= {asset.symbol: asset for asset in found}
        self._asset_at |= dict.fromkeys((asset.symbol for asset in found), now)
        return requests

    def with_quote(self, position: Position, now: float) -> Position:
        """The position with bid and ask, where these are known."""
        quote = self._quotes.get(position.symbol) if self.quotes.is_usable(now) else None
        return position if quote is None else replace(position, bid=quote[0], ask=quote[1])

    def changed_instruments(
        self,
        positions: Iterable[Position],
        others: Iterable[str],
        session: Session | None,
        *,
        barred: bool,
    ) -> tuple[Instrument, ...]:
        """The rules that are new or changed since the last snapshot, of what is held and of `others`.

        `barred`: the account accepts no orders.
        """
        held = {position.symbol: position for position in positions}
        wanted = dict.fromkeys((*held, *others))
        found = {
            symbol: instrument(self._assets[symbol], held.get(symbol), session, extended=self._extended, barred=barred)
            for symbol in wanted
            if symbol in self._assets
        }
        changed = tuple(each for symbol, each in found.items() if self._returned.get(symbol) != each)
        self._returned |= found
        return changed


class TradingSessions:
    """Trading hours, and when they were read."""

    def __init__(self, settings: AlpacaSettings, client: Client, queries: Queries) -> None:
        self._settings = settings
        self._client = client
        self._queries = queries
        self.extended = settings.spec.outside_hours == "extended"
        """Whether the account closes in the extended session, so that the calendar is needed."""
        self.hours = Hours()
        self.clock = SnapshotPart(CLOCK, 3600.0)
        self._calendar = SnapshotPart(CALENDAR, 4 * 86_400.0)
        self._pending_read: asyncio.Task[None] | None = None

    def now(self) -> Session | None:
        """The current session; None while the clock is unknown or too old."""
        good = self.clock.is_usable(asyncio.get_running_loop().time())
        return self.hours.session(self._settings.now()) if good else None

    def venue_time(self) -> datetime:
        """The current time by Alpaca's clock, as far as that is known."""
        now = self._settings.now().astimezone(UTC)
        return now if self.hours.clock is None else now + self.hours.clock.skew

    @property
    def skew_ms(self) -> float | None:
        """Alpaca's time minus ours."""
        return None if self.hours.clock is None else self.hours.clock.skew.total_seconds() * 1000

    async def read_in_turn(self) -> None:
        """Read over an open connection: the time to open one would be measured as skew."""
        await self._client.wait_until_connected()
        await self.read()

    async def read(self) -> None:
        """Read the clock, and the calendar where the extended session is used.

        Concurrent callers share one request, so that a close of many orders reads the clock once.
        """
        if self._pending_read is None or self._pending_read.done():
            self._pending_read = asyncio.create_task(self._read())
            # Retrieve the exception of a task that no caller awaits any more, so that asyncio logs nothing.
            self._pending_read.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            await asyncio.shield(self._pending_read)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise VenueDownError(TOO_LATE) from None

    async def _read(self) -> None:
        self.hours.clock = await self._queries.clock()
        now = asyncio.get_running_loop().time()
        if self.extended and self._calendar.is_due(now):
            self.hours.days = await self._queries.calendar(self.hours.clock)
            self._calendar.was_read(now, self._calendar.touches)

    async def close(self) -> None:
        """Cancel the shared request."""
        if self._pending_read is not None:
            self._pending_read.cancel()
            await asyncio.gather(self._pending_read, return_exceptions=True)
