"""How often a broken stream reconnects: this depends on how long it lasted, not on whether it delivered a message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import chain, repeat
from typing import Any, cast

import pytest

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.poll.push_listener import PushListener
from killswitch.model.venue import CredentialsRefusedError, Push, VenueDownError, VenueError
from killswitch_ccxt.stream import StreamListener
from tests.virtual_time import VirtualTime


class Connection:
    """One connection, as ccxt passes it to its callbacks."""

    def __init__(self, ccxt: Ccxt, lasts: float) -> None:
        self._ccxt = ccxt
        self.lasts = lasts
        self.error: Exception | None = None

    def handle_message(self, frame: str) -> None:
        self._ccxt.handle_message(self, frame)

    def on_error(self, error: Exception) -> None:
        self.error = error
        self._ccxt.clients.clear()


class Ccxt:
    """The part of ccxt that matters here: it fails on one message."""

    def __init__(self) -> None:
        self.clients: dict[str, Connection] = {}

    def on_connected(self, connection: Connection) -> None: ...

    def handle_message(self, _: Connection, message: str) -> None:
        if message == "invalid":
            raise KeyError(message)


class FlappingVenue:
    """A venue whose connections deliver one valid message at once, and break after a given time.

    It is client, dialect and listening account in one.
    """

    streams = ("orders",)

    def __init__(self, time: VirtualTime, lasts: Iterable[float], refusal: type[VenueError] = VenueDownError) -> None:
        self.ccxt = Ccxt()
        self.connected: list[float] = []
        self._time = time
        self._lasts: Iterator[float] = iter(lasts)
        self._refusal = refusal

    def refusal_of(self, _: object) -> None: ...

    async def ready(self) -> None: ...

    async def watch(self, _: str) -> None:
        connection = self.ccxt.clients.get("url")
        if connection is None:
            connection = self.ccxt.clients["url"] = Connection(self.ccxt, next(self._lasts))
            self.connected.append(self._time.monotonic())
            self.ccxt.on_connected(connection)
            connection.handle_message("valid")
            return
        await self._time.sleep(connection.lasts)
        connection.handle_message("invalid")
        raise self._refusal(repr(connection.error))

    async def listen(self, on_push: Callable[[Push], None]) -> None:
        itself = cast("Any", self)
        await StreamListener(itself, itself, self.ready, lambda: None).listen(on_push)


def run_scenario(scenario: Callable[[VirtualTime], Awaitable[None]]) -> None:
    time = VirtualTime()

    async def run() -> None:
        await scenario(time)

    time.run(run())


async def pushes_of(venue: FlappingVenue, time: VirtualTime, seconds: float) -> list[Push]:
    """The pushes of this venue in that time."""
    pushes: list[Push] = []
    listening = asyncio.ensure_future(venue.listen(pushes.append))
    await time.sleep(seconds)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    return pushes


def test_a_valid_message_of_each_connection_does_not_reset_the_backoff() -> None:
    """1, 2, 4 … 60 s: ten connections in five minutes, and as few wake-ups and reported losses."""

    async def scenario(time: VirtualTime) -> None:
        venue = FlappingVenue(time, repeat(0.0))
        pushes = await pushes_of(venue, time, 300.0)
        assert venue.connected == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]
        assert [it.kind for it in pushes if it.kind != "alive"] == ["orders", "lost"] * 10

    run_scenario(scenario)


@pytest.mark.parametrize(("lasts", "pause"), [(59.0, 8.0), (61.0, 1.0)])
def test_a_connection_that_lasted_a_minute_resets_the_backoff(lasts: float, pause: float) -> None:
    """After three connections that broke at once, the loss of one that lasted is an accident, not a pattern."""

    async def scenario(time: VirtualTime) -> None:
        venue = FlappingVenue(time, chain(repeat(0.0, 3), (lasts,), repeat(1000.0)))
        await pushes_of(venue, time, 300.0)
        assert venue.connected == [0, 1, 3, 7, 7 + lasts + pause]

    run_scenario(scenario)


def test_an_account_connects_twenty_times_in_five_minutes_at_most() -> None:
    """Here the listener itself ends each time, and restarts after a second because it received something."""

    async def scenario(time: VirtualTime) -> None:
        venue = FlappingVenue(time, repeat(0.0), CredentialsRefusedError)
        account = ArmedAccount("main", "some", "swap", "USDT", cast("Any", venue), armed=False)
        listening = PushListener({"main": account}, time)
        listening.start()
        await time.sleep(1000.0)
        await listening.stop(5.0)
        assert venue.connected[:21] == [*range(20), 300]
        assert all(later - first >= 300 for first, later in zip(venue.connected, venue.connected[20:], strict=False))

    run_scenario(scenario)
