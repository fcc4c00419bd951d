"""Alpaca's clock and calendar: which session is on, and what time it is there."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from killswitch.model.venue import VenueDownError
from killswitch_alpaca.client import TOO_LATE, Client, called_off
from killswitch_alpaca.hours import Hours, Session
from killswitch_alpaca.parts import CALENDAR, CLOCK, Part
from killswitch_alpaca.questions import Questions
from killswitch_alpaca.settings import Settings


class Sessions:
    """What is known of the hours, and when it was read."""

    def __init__(self, settings: Settings, client: Client, ask: Questions) -> None:
        self._settings = settings
        self._client = client
        self._ask = ask
        self.extended = settings.outside_hours == "extended"
        """Whether the account closes in the extended session, so that the calendar matters."""
        self.hours = Hours()
        self.clock = Part(CLOCK, 3600.0)
        self._calendar = Part(CALENDAR, 4 * 86_400.0)
        self._under_way: asyncio.Task[None] | None = None

    def now(self) -> Session | None:
        """Which session is on; None while the clock is unknown, or was read too long ago."""
        good = self.clock.is_good(asyncio.get_running_loop().time())
        return self.hours.session(self._settings.now()) if good else None

    def venue_time(self) -> datetime:
        """Now, by Alpaca's clock as far as that is known."""
        now = self._settings.now().astimezone(UTC)
        return now if self.hours.clock is None else now + self.hours.clock.skew

    @property
    def skew_ms(self) -> float | None:
        """Alpaca's time minus ours."""
        return None if self.hours.clock is None else self.hours.clock.skew.total_seconds() * 1000

    async def read_in_turn(self) -> None:
        """Over a connection that stands: the time that opening one takes would be told as a skew."""
        await self._client.connected()
        await self.read()

    async def read(self) -> None:
        """Read the clock, and the calendar where the extended session matters.

        Whoever asks while that is under way waits for the same answer: a close of many orders asks once.
        """
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(self._read())
            # Of a failure that nobody waits for any more nothing is to be said.
            self._under_way.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            await asyncio.shield(self._under_way)
        except asyncio.CancelledError:
            if called_off():
                raise
            raise VenueDownError(TOO_LATE) from None

    async def _read(self) -> None:
        self.hours.clock = await self._ask.clock()
        now = asyncio.get_running_loop().time()
        if self.extended and self._calendar.is_due(now):
            self.hours.days = await self._ask.calendar(self.hours.clock)
            self._calendar.was_read(now, self._calendar.touches)

    async def close(self) -> None:
        """End what is under way for several."""
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.gather(self._under_way, return_exceptions=True)
