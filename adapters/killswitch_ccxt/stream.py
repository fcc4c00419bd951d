"""The venue's private stream, through ccxt's WebSocket client. A message wakes the poller and replaces no snapshot."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

from killswitch.model.backoff import Backoff
from killswitch.model.legible import legible
from killswitch.model.venue import CredentialsRefusedError, Push, VenueDownError, VenueError
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Dialect

Kind = Literal["orders", "positions", "balance"]
ALIVE_INTERVAL: Final = 5.0
"""Seconds between two checks whether the connections still receive messages."""
PAUSES: Final = Backoff(first=1.0, longest=60.0)
"""Seconds before a stream that was lost so often in a row is opened again."""
STEADY_AFTER: Final = 60.0
"""Seconds without a loss after which the row of losses ends. A good message is not enough: a connection may deliver
one and break at the next, every time."""
MOST_CONNECTIONS, COUNTED_WITHIN = 20, 300.0
"""Number of connections within so many seconds after which none is opened, whatever ends them: streams that are lost
together may open one each. Venues allow about 300 in five minutes for an address and all its accounts."""
_WATCHED: Final = {"orders": "watch_orders", "positions": "watch_positions", "balance": "watch_balance"}


class StreamListener:
    """Listens to every stream that the dialect names, each in a task of its own."""

    def __init__(
        self, client: Client, dialect: Dialect, ready: Callable[[], Awaitable[None]], note_activity: Callable[[], None]
    ) -> None:
        self.client = client
        self.dialect = dialect
        self.ready = ready
        """Ensures that the venue's rules are loaded."""
        self.note_activity = note_activity
        """Called for every message, before the poller wakes up."""

    async def listen(self, on_push: Callable[[Push], None]) -> None:
        """Listen until cancelled. VenueDownError where the venue refuses the credentials.

        The refusal may be temporary: ccxt raises the same error for an expired listen key or token.
        """
        self._monitor_connections()
        try:
            async with asyncio.TaskGroup() as group:
                for kind in self.dialect.streams:
                    group.create_task(self._listen_to(kind, on_push))
                group.create_task(self._report_alive(on_push))
        except* VenueError as several:
            raise VenueDownError(str(several.exceptions[0])) from several.exceptions[0]

    def _monitor_connections(self) -> None:
        """Count the messages of each connection, and close it after a refusal that ccxt does not recognise and after a
        failure in ccxt.

        Otherwise the connection would answer pings and look alive, without any message about the account.
        """
        ccxt = self.client.ccxt
        if getattr(ccxt, "ks_is_monitored", False):
            return
        ccxt_on_connected, ccxt_handle_message = ccxt.on_connected, ccxt.handle_message

        def connect(connection: Any, *more: Any) -> None:
            ccxt_on_connected(connection, *more)
            ccxt.ks_connected.append(asyncio.get_running_loop().time())
            handle_frame, connection.ks_message_count = connection.handle_message, 0

            def count(frame: Any) -> None:
                connection.ks_message_count += 1
                handle_frame(frame)

            connection.handle_message = count

        def handle_message(connection: Any, message: Any) -> None:
            refusal = self.dialect.refusal_of(message)
            if refusal is not None:
                connection.on_error(refusal)
                return
            try:
                ccxt_handle_message(connection, message)
            except Exception as error:  # noqa: BLE001 - any failure makes ccxt stop reading this connection
                connection.on_error(error)

        ccxt.on_connected, ccxt.handle_message, ccxt.ks_is_monitored = connect, handle_message, True
        ccxt.ks_connected = deque(maxlen=MOST_CONNECTIONS)

    async def _listen_to(self, kind: Kind, on_push: Callable[[Push], None]) -> None:
        losses, time = 0, asyncio.get_running_loop().time
        while True:
            await self._await_connection_allowance()
            begun = time()
            why = await self._until_lost(kind, on_push)
            losses = 1 if time() - begun >= STEADY_AFTER else losses + 1
            on_push(Push("lost", f"{kind}: {why}"))
            await asyncio.sleep(PAUSES.after(losses))

    async def _until_lost(self, kind: Kind, on_push: Callable[[Push], None]) -> str:
        """Listen to one stream until it is lost; the cause of the loss."""
        while True:
            try:
                await self.ready()
                await self.dialect.watch(_WATCHED[kind])
            except CredentialsRefusedError:
                raise
            except VenueError as error:
                return legible(str(error))
            self.note_activity()
            on_push(Push(kind))

    async def _await_connection_allowance(self) -> None:
        """Wait until the account may open another connection.

        The count is stored with the connections, since the caller restarts a listener that has ended.
        """
        opened = self.client.ccxt.ks_connected
        if len(opened) == MOST_CONNECTIONS:
            await asyncio.sleep(opened[0] + COUNTED_WITHIN - asyncio.get_running_loop().time())

    async def _report_alive(self, on_push: Callable[[Push], None]) -> None:
        """Report each connection with a message since the last check as alive; answers to pings count.

        ccxt's time of the last answer to a ping is no sign: ccxt sets it before the first answer.
        """
        seen: dict[str, tuple[Any, int]] = {}
        while True:
            await asyncio.sleep(ALIVE_INTERVAL)
            for url, connection in list(self.client.ccxt.clients.items()):
                messages = getattr(connection, "ks_message_count", 0)
                if messages and seen.get(url) != (connection, messages):
                    seen[url] = connection, messages
                    on_push(Push("alive"))
