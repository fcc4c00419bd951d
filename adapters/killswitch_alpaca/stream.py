"""Alpaca's private stream `trade_updates`: order events trigger a snapshot, and replace none.

The stream is silent while no order changes. After a few seconds of silence a WebSocket ping checks the connection, and
a stream that does not respond is lost. Every message counts as a response, the server's own pings too.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Protocol

import aiohttp

from killswitch.model.backoff import Backoff
from killswitch.model.legible import legible, shortened
from killswitch.model.unanswered import why_unanswered
from killswitch.model.venue import Push, VenueDownError
from killswitch.transport import LARGEST_MESSAGE, RedirectRefusedError
from killswitch.transport.sessions import guarded_session
from killswitch_alpaca.errors import host_of, redacted
from killswitch_alpaca.settings import AlpacaSettings

HEARTBEAT = 10.0
"""Seconds of silence before a ping, and from a ping until a response is due."""
WAITS = Backoff(first=1.0, longest=30.0)
"""Seconds before reconnecting after losses in a row without a message in between."""
FILLED = frozenset({"fill", "partial_fill"})


class Touch(Protocol):
    """Callback for order events; `fills` states whether something was filled."""

    def __call__(self, *, fills: bool) -> None: ...


class _StreamLostError(Exception):
    """The stream is down."""


async def listen(settings: AlpacaSettings, on_push: Callable[[Push], None], touch: Touch) -> None:
    """Listen until cancelled. Raises VenueDownError only where Alpaca refuses the keys."""
    losses = 0
    while True:
        has_received = False

        def forward(push: Push) -> None:
            nonlocal has_received
            has_received = True
            on_push(push)

        try:
            await _stream_once(settings, forward, touch)
        except (_StreamLostError, RedirectRefusedError, aiohttp.ClientError, OSError, TimeoutError) as error:
            is_own = isinstance(error, _StreamLostError | RedirectRefusedError)
            explained = None if is_own else why_unanswered(error, host_of(settings.stream))
            text = explained or str(error) or type(error).__name__
            why = redacted(text, settings.stream, settings.trading, settings.proxy)
            on_push(Push("lost", f"Alpaca's stream is down: {why}"))
        losses = 1 if has_received else losses + 1
        await asyncio.sleep(WAITS.after(losses))


async def _stream_once(settings: AlpacaSettings, on_push: Callable[[Push], None], touch: Touch) -> None:
    timeout = aiohttp.ClientTimeout(total=None, connect=settings.timeout, sock_connect=settings.timeout)
    async with guarded_session(timeout=timeout) as session:
        async with asyncio.timeout(settings.timeout):
            socket = await session.ws_connect(
                settings.stream, autoping=False, proxy=settings.proxy, max_msg_size=LARGEST_MESSAGE
            )
        async with socket:
            await _authenticate(socket, settings)
            on_push(Push("alive"))
            # The next snapshot reads whatever happened while the stream was down.
            touch(fills=True)
            await _receive(socket, on_push, touch)


async def _authenticate(socket: aiohttp.ClientWebSocketResponse, settings: AlpacaSettings) -> None:
    """Authenticate and subscribe. Raises VenueDownError where the keys are refused."""
    async with asyncio.timeout(settings.timeout):
        keys = {"key_id": settings.key, "secret_key": settings.secret}
        await socket.send_json({"action": "authenticate", "data": keys})
        answer = await _next(socket)
        status = _data(answer, "authorization").get("status")
        if status == "unauthorized":
            raise VenueDownError("Alpaca's stream refused the keys: unauthorized")
        if status != "authorized":
            raise _StreamLostError(f"no valid answer to the authentication: {shortened(legible(str(answer)), 100)}")
        await socket.send_json({"action": "listen", "data": {"streams": ["trade_updates"]}})
        answer = await _next(socket)
        streams = _data(answer, "listening").get("streams")
        if not isinstance(streams, list) or "trade_updates" not in streams:
            raise _StreamLostError(f"trade_updates is not available: {shortened(legible(str(answer)), 100)}")


async def _receive(socket: aiohttp.ClientWebSocketResponse, on_push: Callable[[Push], None], touch: Touch) -> None:
    is_pinged = False
    while True:
        try:
            async with asyncio.timeout(HEARTBEAT):
                message = await socket.receive()
        except TimeoutError:
            if is_pinged:
                raise _StreamLostError(f"no message for {2 * HEARTBEAT:g} s") from None
            is_pinged = True
            await socket.ping()
            continue
        is_pinged = False
        if message.type is aiohttp.WSMsgType.PING:
            await socket.pong(message.data)
        elif message.type is not aiohttp.WSMsgType.PONG and _publish(_read(message), on_push, touch):
            continue
        on_push(Push("alive"))


async def _next(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    """The next text or binary message."""
    while True:
        message = await socket.receive()
        if message.type is aiohttp.WSMsgType.PING:
            await socket.pong(message.data)
        elif message.type is not aiohttp.WSMsgType.PONG:
            return _read(message)


def _read(message: aiohttp.WSMessage) -> dict[str, Any]:
    """The JSON of a message, in a text frame or, as paper accounts send it, in a binary one."""
    if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
        raise _StreamLostError(f"the connection was closed ({message.data or 'no reason given'})")
    try:
        found = json.loads(message.data)
    except ValueError as error:
        raise _StreamLostError(f"invalid message: {error}") from error
    return found if isinstance(found, dict) else {}


def _data(answer: dict[str, Any], stream: str) -> dict[str, Any]:
    """The data of an answer for `stream`; empty for another stream or form."""
    data = answer.get("data") if answer.get("stream") == stream else None
    return data if isinstance(data, dict) else {}


def _publish(found: dict[str, Any], on_push: Callable[[Push], None], touch: Touch) -> bool:
    """Publish an order event; return whether the message was one."""
    if found.get("stream") != "trade_updates":
        return False
    event = _data(found, "trade_updates").get("event")
    filled = isinstance(event, str) and event in FILLED
    touch(fills=filled)
    on_push(Push("positions" if filled else "orders"))
    return True
