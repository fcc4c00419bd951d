"""How often a stream that breaks is asked for anew: what counts is how long it lasted, not that it said something."""

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
    """One connection, as ccxt hands it to its callbacks."""

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
    """What of ccxt is minded: it stumbles over one word."""

    def __init__(self) -> None:
        self.clients: dict[str, Connection] = {}

    def on_connected(self, connection: Connection) -> None: ...

    def handle_message(self, _: Connection, message: str) -> None:
        if message == "stumble":
            raise KeyError(message)


class Flapping:
    """A venue each of whose connections says one good word at once, and breaks when it has lasted so long.

    It is the client and the dialect in one, and the account that listens too.
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
            connection.handle_message("good")
            return
        await self._time.sleep(connection.lasts)
        connection.handle_message("stumble")
        raise self._refusal(repr(connection.error))

    async def listen(self, hear: Callable[[Push], None]) -> None:
        itself = cast("Any", self)
        await StreamListener(itself, itself, self.ready, lambda: None).listen(hear)


def told(course: Callable[[VirtualTime], Awaitable[None]]) -> None:
    time = VirtualTime()

    async def whole() -> None:
        await course(time)

    time.run(whole())


async def listened_to(venue: Flapping, time: VirtualTime, seconds: float) -> list[Push]:
    """What is heard in that time."""
    heard: list[Push] = []
    listening = asyncio.ensure_future(venue.listen(heard.append))
    await time.sleep(seconds)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    return heard


def test_a_good_word_of_each_connection_does_not_begin_the_pauses_anew() -> None:
    """1, 2, 4 … 60 s: ten connections in five minutes, and as few wakings and losses told."""

    async def course(time: VirtualTime) -> None:
        venue = Flapping(time, repeat(0.0))
        heard = await listened_to(venue, time, 300.0)
        assert venue.connected == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]
        assert [it.kind for it in heard if it.kind != "alive"] == ["orders", "lost"] * 10

    told(course)


@pytest.mark.parametrize(("lasts", "pause"), [(59.0, 8.0), (61.0, 1.0)])
def test_a_connection_that_lasted_a_minute_does(lasts: float, pause: float) -> None:
    """After three that broke at once: the loss of one that was good is an accident, and not a habit."""

    async def course(time: VirtualTime) -> None:
        venue = Flapping(time, chain(repeat(0.0, 3), (lasts,), repeat(1000.0)))
        await listened_to(venue, time, 300.0)
        assert venue.connected == [0, 1, 3, 7, 7 + lasts + pause]

    told(course)


def test_an_account_connects_twenty_times_in_five_minutes_at_most() -> None:
    """Where the listening itself ends each time, and is begun anew after a second because something was heard."""

    async def course(time: VirtualTime) -> None:
        venue = Flapping(time, repeat(0.0), CredentialsRefusedError)
        account = ArmedAccount("main", "some", "swap", "USDT", cast("Any", venue), armed=False)
        listening = PushListener({"main": account}, time)
        listening.start()
        await time.sleep(1000.0)
        await listening.stop(5.0)
        assert venue.connected[:21] == [*range(20), 300]
        assert all(later - first >= 300 for first, later in zip(venue.connected, venue.connected[20:], strict=False))

    told(course)
