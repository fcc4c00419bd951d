"""The venue's private stream, heard through ccxt's WebSocket side. It wakes a reading, and never stands for one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

from killswitch.model.legible import legible
from killswitch.model.venue import CredentialsRefusedError, Push, VenueDownError, VenueError
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Dialect

Kind = Literal["orders", "positions", "balance"]
LISTEN_FOR_LIFE: Final = 5.0
"""Seconds between two looks whether the connection still answers."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a stream that was lost is asked for anew, doubled by each further loss."""
STEADY_AFTER: Final = 60.0
"""Seconds for which a stream must not have been lost before the pauses begin anew. A good message does not do it: a
connection may say one, and break each time at the next."""
MOST_CONNECTIONS, COUNTED_WITHIN = 20, 300.0
"""After how many connections in so many seconds no stream is asked for anew, whatever ends them: several that were lost
together may make one each. Venues allow an address about 300 in five minutes, for all its accounts."""
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
        """Until cancelled. VenueDownError where the venue refuses the credentials.

        Not that it would always do so: ccxt says the same of a listen key or a token, and these only grow old.
        """
        self._mind_what_is_said()
        try:
            async with asyncio.TaskGroup() as group:
                for kind in self._dialect.streams:
                    group.create_task(self._hear(kind, hear))
                group.create_task(self._alive(hear))
        except* VenueError as several:
            raise VenueDownError(str(several.exceptions[0])) from several.exceptions[0]

    def _mind_what_is_said(self) -> None:
        """Count what each connection says, and give it up once that is what ccxt takes for no refusal or stumbles over.

        Else it would go on answering pings, look alive, and never say a word of the account.
        """
        ccxt = self._client.ccxt
        if getattr(ccxt, "ks_minded", False):
            return
        connected, heard = ccxt.on_connected, ccxt.handle_message

        def connect(connection: Any, *more: Any) -> None:
            connected(connection, *more)
            ccxt.ks_connected.append(asyncio.get_running_loop().time())
            take, connection.ks_signs = connection.handle_message, 0

            def count(frame: Any) -> None:
                connection.ks_signs += 1
                take(frame)

            connection.handle_message = count

        def hear(connection: Any, message: Any) -> None:
            refusal = self._dialect.refused_by(message)
            if refusal is not None:
                connection.on_error(refusal)
                return
            try:
                heard(connection, message)
            except Exception as error:  # noqa: BLE001 - whatever it is, ccxt would read this connection no further
                connection.on_error(error)

        ccxt.on_connected, ccxt.handle_message, ccxt.ks_minded = connect, hear, True
        ccxt.ks_connected = deque(maxlen=MOST_CONNECTIONS)

    async def _hear(self, kind: Kind, hear: Callable[[Push], None]) -> None:
        pause, time = FIRST_PAUSE, asyncio.get_running_loop().time
        while True:
            await self._room()
            begun = time()
            why = await self._until_lost(kind, hear)
            if time() - begun >= STEADY_AFTER:
                pause = FIRST_PAUSE
            hear(Push("lost", f"{kind}: {why}"))
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)

    async def _until_lost(self, kind: Kind, hear: Callable[[Push], None]) -> str:
        """Hear one stream until it is lost; why it was."""
        while True:
            try:
                await self._ready()
                await self._dialect.watch(_WATCHED[kind])
            except CredentialsRefusedError:
                raise
            except VenueError as error:
                return legible(str(error))
            self._stir()
            hear(Push(kind))

    async def _room(self) -> None:
        """Wait until the account may connect once more.

        The count is kept beside the connections, since a listening that has ended is begun anew by who asked for it.
        """
        made = self._client.ccxt.ks_connected
        if len(made) == MOST_CONNECTIONS:
            await asyncio.sleep(made[0] + COUNTED_WITHIN - asyncio.get_running_loop().time())

    async def _alive(self, hear: Callable[[Push], None]) -> None:
        """A sign of life for every connection that has said anything since the last look, answers to pings included.

        Not by ccxt's time of the last answer to a ping: it sets that itself before it has had one.
        """
        seen: dict[str, tuple[Any, int]] = {}
        while True:
            await asyncio.sleep(LISTEN_FOR_LIFE)
            for url, connection in list(self._client.ccxt.clients.items()):
                signs = getattr(connection, "ks_signs", 0)
                if signs and seen.get(url) != (connection, signs):
                    seen[url] = connection, signs
                    hear(Push("alive"))
