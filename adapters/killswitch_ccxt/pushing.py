"""The venue's private stream, heard through ccxt's WebSocket side. It wakes a reading, and never stands for one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Literal

from killswitch.model.legible import legible
from killswitch.model.venue import CredentialsRefusedError, Push, VenueDownError, VenueError
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Dialect

Kind = Literal["orders", "positions", "balance"]
LISTEN_FOR_LIFE: Final = 5.0
"""Seconds between two looks whether the connection still answers."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
_WATCHED: Final = {"orders": "watch_orders", "positions": "watch_positions", "balance": "watch_balance"}


class Pushing:
    """Listens to every stream that the dialect names, each by itself."""

    def __init__(
        self, client: Client, dialect: Dialect, ready: Callable[[], Awaitable[None]], stir: Callable[[], None]
    ) -> None:
        """`ready`: sees that the venue's rules are there. `stir`: told of everything heard, before anyone is woken."""
        self._client = client
        self._ready = ready
        self._dialect = dialect
        self._stir = stir

    async def listen(self, hear: Callable[[Push], None]) -> None:
        """Until cancelled. VenueDownError where the venue refuses the credentials: it would refuse them again."""
        try:
            async with asyncio.TaskGroup() as group:
                for kind in self._dialect.streams:
                    group.create_task(self._hear(kind, hear))
                group.create_task(self._alive(hear))
        except* VenueError as several:
            found = next(error for error in _leaves(several) if isinstance(error, VenueError))
            raise VenueDownError(str(found)) from found

    async def _hear(self, kind: Kind, hear: Callable[[Push], None]) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                await self._ready()
                await self._client.call(_WATCHED[kind])
            except CredentialsRefusedError:
                raise
            except VenueError as error:
                hear(Push("lost", f"{kind}: {legible(str(error))}"))
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, 2 * pause)
            else:
                pause = FIRST_PAUSE
                self._stir()
                hear(Push(kind))

    async def _alive(self, hear: Callable[[Push], None]) -> None:
        """A sign of life for every answer to ccxt's pings that has come since the last look."""
        seen: dict[str, float] = {}
        while True:
            await asyncio.sleep(LISTEN_FOR_LIFE)
            for url, connection in list(self._client.ccxt.clients.items()):
                pong = float(getattr(connection, "lastPong", 0) or 0)
                if pong > seen.get(url, 0.0):
                    seen[url] = pong
                    hear(Push("alive"))


def _leaves(group: BaseExceptionGroup[VenueError]) -> Iterator[BaseException]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each
