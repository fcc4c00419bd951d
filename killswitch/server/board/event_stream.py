"""Server-sent events: a bounded queue for each reader, and the answer that sends it.

What a stream carries are changes. A reader that is slower than they come loses all of them at once and gets `lost`
instead: it reads the whole state again, which is less than what it missed. Nobody else waits for it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from typing import Any, Final

import anyio
import msgspec
from starlette.responses import Response

from killswitch.operations.scoped_board import EVERYTHING

Audience = tuple[str, ...]
"""The scopes that a reader sees, in the form of `audience_of`."""
MOST_EVENTS: Final = 256
MOST_BYTES: Final = 1 << 20
"""What a stream keeps for a reader that does not take it."""
MOST_STREAMS: Final = 8
"""Streams of one principal at the same time."""
TAKEN_WITHIN: Final = 60.0
"""Seconds within which a reader must take an event that was sent, or its stream ends: nobody is there any more."""

_encode = msgspec.json.Encoder(decimal_format="string").encode


class TooManyStreamsError(Exception):
    """The principal has as many streams as it may have; the message says how many."""


def event_bytes(event: str, data: object, number: int | None = None) -> bytes:
    """One event in the format of server-sent events; `data` becomes JSON on one line."""
    head = f"event: {event}\n" if number is None else f"id: {number}\nevent: {event}\n"
    return b"%bdata: %b\n\n" % (head.encode(), _encode(data))


class EventStream:
    """What one reader has not taken yet. Not thread-safe: all calls come from one loop."""

    def __init__(
        self, channel: str, principal: str, ended_because: Callable[[], str | None], audience: Audience = EVERYTHING
    ) -> None:
        """`ended_because`: why the reader may not read on, such as a revoked token; None while it may.

        `audience`: the scopes that the reader sees.
        """
        self.channel = channel
        self.audience = audience
        self.principal = principal
        self.ended_because = ended_because
        self._events: deque[bytes] = deque()
        self._size = 0
        self._lost = False
        self._is_ended = False
        self._wake = anyio.Event()

    def put(self, event: bytes) -> None:
        """Add an event, or lose everything that waits where it does not fit."""
        if self._is_ended:
            return
        if len(self._events) >= MOST_EVENTS or self._size + len(event) > MOST_BYTES:
            self._events.clear()
            self._size, self._lost = 0, True
        else:
            self._events.append(event)
            self._size += len(event)
        self._wake.set()

    def end(self, why: str) -> None:
        """End the stream; its reader gets what waits, and `end` with the reason."""
        if not self._is_ended:
            self._events.append(event_bytes("end", {"why": why}))
            self._is_ended = True
            self._wake.set()

    async def events(self) -> AsyncIterator[bytes]:
        """Every event, until the stream ends."""
        while True:
            if self._lost:
                self._lost = False
                yield event_bytes("lost", {"why": "this reader is too slow: read the state again"})
            elif self._events:
                event = self._events.popleft()
                self._size = max(0, self._size - len(event))
                yield event
            elif self._is_ended:
                return
            else:
                self._wake = anyio.Event()
                await self._wake.wait()


class OpenStreams:
    """The streams that are open, at most `MOST_STREAMS` of a principal."""

    def __init__(self) -> None:
        self._open: dict[EventStream, None] = {}
        self._count: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def open(
        self, channel: str, principal: str, ended_because: Callable[[], str | None], audience: Audience = EVERYTHING
    ) -> EventStream:
        """A further stream. TooManyStreamsError where the principal has enough."""
        if self._count[principal] >= MOST_STREAMS:
            raise TooManyStreamsError(
                f"{principal} has {MOST_STREAMS} streams open: close one of them, such as a board"
            )
        stream = EventStream(channel, principal, ended_because, audience)
        self._open[stream] = None
        self._count[principal] += 1
        return stream

    def close(self, stream: EventStream) -> None:
        """Forget a stream whose reader is gone."""
        if self._open.pop(stream, stream) is None:
            self._count -= Counter({stream.principal: 1})

    def channels(self, audience: Audience) -> frozenset[str]:
        """The channels that somebody of this audience reads."""
        return frozenset(stream.channel for stream in self._open if stream.audience == audience)

    def audiences(self) -> frozenset[Audience]:
        """The audiences of the streams."""
        return frozenset(stream.audience for stream in self._open)

    def send(self, event: bytes, audience: Audience, channel: str | None = None) -> None:
        """Send an event to every stream of an audience on a channel; None: on all."""
        for stream in self._open:
            if stream.audience == audience and channel in (None, stream.channel):
                stream.put(event)

    def end_revoked(self) -> None:
        """End the streams whose readers may not read on."""
        for stream in self._open:
            why = stream.ended_because()
            if why is not None:
                stream.end(why)


class EventAnswer(Response):
    """The answer of a stream: it ends with the stream, and when its reader is gone or takes nothing for a minute."""

    media_type = "text/event-stream"

    def __init__(self, stream: EventStream, hello: bytes, closed: Callable[[], None]) -> None:
        super().__init__()
        self._stream = stream
        self._hello = hello
        self._closed = closed

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Any],
        send: Callable[[MutableMapping[str, Any]], Any],
    ) -> None:
        head: Mapping[str, Any] = {
            "type": "http.response.start", "status": 200,
            # A proxy that collects an answer before it passes it on would make the board late.
            "headers": [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no")],
        }  # fmt: skip
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._until_gone, receive, group.cancel_scope)
                await send(dict(head))
                await self._send(send, self._hello)
                async for event in self._stream.events():
                    await self._send(send, event)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                group.cancel_scope.cancel()
        finally:
            self._closed()

    async def _send(self, send: Callable[[MutableMapping[str, Any]], Any], event: bytes) -> None:
        with anyio.move_on_after(TAKEN_WITHIN) as limit:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        if limit.cancelled_caught:
            self._stream.end("the reader takes nothing")

    @staticmethod
    async def _until_gone(receive: Callable[[], Any], reader: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        reader.cancel()
