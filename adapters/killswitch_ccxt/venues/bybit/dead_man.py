"""Bybit's disconnection protection, which cancels the account's orders when a subscribed stream is disconnected too
long.

The venue monitors a connection and not the program. To cover a program that runs and does not renew the timer, the
stream is closed after half of the requested time without a renewal; the venue waits for the other half.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from typing import Any, Final

from killswitch.model.legible import legible
from killswitch.model.unanswered import why_unanswered
from killswitch.model.venue import VenueDownError
from killswitch_ccxt.client import Client

SHORTEST, LONGEST = 6.0, 300.0
_SHORTEST_WINDOW: Final = 3
"""Shortest window of the venue, in seconds; the longest is 300."""
_PING: Final = 5.0
_TIMEOUT: Final = 10.0
"""Seconds for opening a stream, or for the answer to a ping."""
_PAUSE: Final = 1.0
_TOPICS: Final = {"DERIVATIVES": "dcp.future", "SPOT": "dcp.spot"}


class DisconnectProtection:
    """The protection of one account. No stream is opened before it is armed."""

    def __init__(self, client: Client, product: str) -> None:
        """`product`: DERIVATIVES or SPOT."""
        self._client = client
        self._product = product
        self._window: int | None = None
        self._stream: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._connected = asyncio.Event()
        self._failure = "no connection yet"
        self._socket: Any = None

    async def arm(self, seconds: float) -> None:
        """Start or renew the timer. VenueDownError where the protection is off at the venue, or the stream cannot be
        opened."""
        window = max(_SHORTEST_WINDOW, int(seconds / 2))
        if self._window != window:
            await self._set_window(window)
        loop = asyncio.get_running_loop()
        # A stream that is being closed protects nothing any more.
        if self._stream is None or self._stream.done() or self._stream.cancelling():
            self._connected = asyncio.Event()
            self._stream = loop.create_task(self._keep_stream_open())
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._connected.wait()
        except TimeoutError:
            raise VenueDownError(f"the stream that Bybit's protection monitors is not open: {self._failure}") from None
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = loop.call_later(max(0.0, seconds - window), self._close_stream)

    async def disarm(self) -> None:
        """Stop the timer without cancelling orders: the stream unsubscribes before it is closed."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._socket is not None and not self._socket.closed:
            await self._socket.send_str(json.dumps({"op": "unsubscribe", "args": [_TOPICS[self._product]]}))
        self._close_stream()
        if self._stream is not None:
            await asyncio.wait({self._stream})
            self._stream = None

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.cancel()

    async def _set_window(self, window: int) -> None:
        answer = await self._client.call("privateGetV5AccountQueryDcpInfo")
        infos = (answer.get("result") or {}).get("dcpInfos") or []
        status = next((it.get("dcpStatus") for it in infos if it.get("product") == self._product), "OFF")
        if status != "ON":
            raise VenueDownError(
                f"Bybit has disconnection protection disabled for {self._product} of this account: "
                "ask the client manager at Bybit to enable it; until then there is no dead-man timer"
            )
        params = {"product": self._product, "timeWindow": window}
        await self._client.call("privatePostV5OrderDisconnectedCancelAll", params, changes=True)
        self._window = window

    async def _keep_stream_open(self) -> None:
        """Keep a stream open until cancelled, or until the client is closed."""
        import aiohttp  # imported late: it is slow, and ccxt has imported it by now

        ccxt = self._client.ccxt
        ccxt.open()
        session = ccxt.session
        while not session.closed:
            try:
                await self._run_stream(session, ccxt)
            except (aiohttp.ClientError, OSError, TimeoutError, TypeError, ValueError) as error:
                self._failure = legible(why_unanswered(error, "it") or str(error) or type(error).__name__)
            self._connected.clear()
            if not session.closed:
                await asyncio.sleep(_PAUSE)

    async def _run_stream(self, session: Any, ccxt: Any) -> None:
        address = ccxt.implode_hostname(ccxt.urls["api"]["ws"]["private"]["contract"])
        async with asyncio.timeout(_TIMEOUT):
            socket = await session.ws_connect(f"{address}?max_active_time=30s")
        try:
            self._socket = socket
            expires = str(ccxt.milliseconds() + 10_000)
            sign = hmac.new(ccxt.secret.encode(), f"GET/realtime{expires}".encode(), hashlib.sha256).hexdigest()
            await self._request(socket, {"op": "auth", "args": [ccxt.apiKey, expires, sign]})
            await self._request(socket, {"op": "subscribe", "args": [_TOPICS[self._product]]})
            self._connected.set()
            while True:
                await asyncio.sleep(_PING)
                await self._request(socket, {"op": "ping"})
        finally:
            self._socket = None
            await socket.close()

    async def _request(self, socket: Any, message: dict[str, Any]) -> None:
        """Send a message and wait for its acknowledgement. ValueError with the venue's text after a refusal."""
        await socket.send_str(json.dumps(message))
        async with asyncio.timeout(_TIMEOUT):
            while True:
                answer = json.loads(await socket.receive_str())
                op = answer.get("op")
                if op == message["op"] or (op, message["op"]) == ("pong", "ping"):
                    break
        if answer.get("success") is False:
            raise ValueError(f"{message['op']}: {answer.get('ret_msg') or answer.get('retMsg') or answer}")
