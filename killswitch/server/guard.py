"""What every request must pass before its route: host, origin, size and form. Loopback is no authentication.

A web page that a person opens can send requests to loopback, and a name that an attacker controls can resolve to it. So
the `Host` must be one of ours, a foreign `Origin` is refused for reads as well, and an effect takes a POST of JSON.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from itertools import chain
from typing import Any, Final
from urllib.parse import parse_qsl

LARGEST_BODY: Final = 64 << 10
"""Bytes."""
FOR_PROBES: Final = ("/healthz", "/readyz")
"""Paths that answer any host."""
_SECRET_KEYS: Final = frozenset({"token", "access_token", "api_key", "apikey", "key", "authorization"})

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Refusal = tuple[int, str, str]
"""Status, title and detail."""


def problem(status: int, title: str, detail: str) -> dict[str, object]:
    """The body of an error (RFC 9457, application/problem+json)."""
    return {"type": "about:blank", "title": title, "status": status, "detail": detail}


class Guard:
    """Passes sound requests to the application, and answers all others."""

    def __init__(self, app: App, hosts: Iterable[str]) -> None:
        """`hosts`: the values of `Host` that are ours, with the port where it is not the default one."""
        self._app = app
        self._hosts = frozenset(each.lower() for each in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = self._refusal(scope)
        if refused is not None:
            await answer_problem(send, *refused)
            return
        body = _BoundedBody(receive)
        await self._app(scope, body.receive, _Answer(send, body).send)

    def _refusal(self, scope: Scope) -> Refusal | None:
        """Why the request is not passed on; None if it is."""
        if scope["path"] in FOR_PROBES:
            return None
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        return next(chain(self._foreign(headers), _leaked(query), _misshapen(scope["method"], headers)), None)

    def _foreign(self, headers: Mapping[str, str]) -> Iterator[Refusal]:
        if headers.get("host", "").lower() not in self._hosts:
            yield 421, "Misdirected Request", "the Host of the request is not one of this server: see --host-name"
        origin = headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] not in self._hosts:
            yield 403, "Forbidden", "the request comes from a page of another origin"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            yield 403, "Forbidden", "the request comes from a page of another site"


def _leaked(query: Iterable[tuple[str, str]]) -> Iterator[Refusal]:
    if any(key.lower() in _SECRET_KEYS for key, _ in query):
        yield 400, "Bad Request", "a token in a query is written to logs: send it as `Authorization: Bearer …`"


def _misshapen(method: str, headers: Mapping[str, str]) -> Iterator[Refusal]:
    if method != "POST":
        return
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > LARGEST_BODY:
        yield 413, "Content Too Large", f"a body has at most {LARGEST_BODY} bytes"
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        yield 415, "Unsupported Media Type", "send application/json"


class _BoundedBody:
    """The body of a request, which ends at its limit, whatever its header says."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._length = 0
        self.is_too_long = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._length += len(message.get("body", b""))
        if self._length > LARGEST_BODY:
            self.is_too_long = True
            return {"type": "http.request", "body": b"", "more_body": False}
        return message


class _Answer:
    """Passes the answer on, unless the body was too long; and forbids caching and framing of every answer."""

    def __init__(self, send: Send, body: _BoundedBody) -> None:
        self._send = send
        self._body = body
        self._is_replaced = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._is_replaced = self._body.is_too_long
            if self._is_replaced:
                await answer_problem(self._send, 413, "Content Too Large", f"a body has at most {LARGEST_BODY} bytes")
            message["headers"] = [*message.get("headers", ()), *_SAFE]
        if not self._is_replaced:
            await self._send(message)


_SAFE: Final = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)


async def answer_problem(send: Send, status: int, title: str, detail: str) -> None:
    """Answer with an error, and nothing else."""
    body = json.dumps(problem(status, title, detail)).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode()), *_SAFE]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
