"""What every request must pass before its route: host, origin, size and form. Loopback is no authentication.

A web page that a person opens can send requests to loopback, and a name that an attacker controls can resolve to it. So
the `Host` must be one of ours, a foreign `Origin` is refused for reads as well, and an effect takes a POST of JSON.

What a proxy adds counts only from an address that is declared to be one: `X-Forwarded-For` names the client by its last
entry that is no proxy itself, `X-Forwarded-Host` is the Host, and `X-Forwarded-Proto` the scheme.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from ipaddress import ip_address, ip_network
from itertools import chain
from typing import Any, Final
from urllib.parse import parse_qsl

LARGEST_BODY: Final = 64 << 10
"""Bytes."""
FOR_PROBES: Final = ("/healthz", "/readyz")
"""Paths that answer any host."""
FOR_LINKS: Final = "/ack/"
"""How the paths of pages begin that links of messages open, and whose form is sent without a script."""
JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
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


class Proxies:
    """The networks whose requests may name another client, host and scheme."""

    def __init__(self, networks: Iterable[str]) -> None:
        """ValueError for what is no network, such as 10.0.0.0/8."""
        self._networks = tuple(map(ip_network, networks))

    def includes(self, address: str) -> bool:
        """Whether the address is that of a declared proxy."""
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._networks)

    def applied(self, scope: Scope) -> None:
        """Set the client, the Host and the scheme of a request from a proxy to those that it forwards."""
        client = scope.get("client")
        scope["is_proxied"] = bool(self._networks) and client is not None and self.includes(str(client[0]))
        if not scope["is_proxied"]:
            return
        found: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            # Several headers of one name are one list.
            found[name] = found[name] + b"," + value if name == b"x-forwarded-for" and name in found else value
        chain = found.get(b"x-forwarded-for", b"").decode("latin-1").split(",")
        named = next((each for each in map(str.strip, reversed(chain)) if each and not self.includes(each)), None)
        if named is not None:
            scope["client"] = (named[:64], 0)
        host = found.get(b"x-forwarded-host")
        if host is not None:
            scope["headers"] = [(b"host", host), *(each for each in scope["headers"] if each[0] != b"host")]
        if found.get(b"x-forwarded-proto") in (b"https", b"http"):
            scope["scheme"] = found[b"x-forwarded-proto"].decode()


class Guard:
    """Passes sound requests to the application, and answers all others."""

    def __init__(self, app: App, hosts: Iterable[str], proxies: Iterable[str] = (), prefix: str = "") -> None:
        """`hosts`: the values of `Host` that are ours, with the port where it is not the default one. `prefix`: the
        path below which a proxy serves this server, whether it cuts it off or not. ValueError for what is no network.
        """
        self._app = app
        self._hosts = frozenset(each.lower() for each in hosts)
        self._proxies = Proxies(proxies)
        self._prefix = prefix.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._proxies.applied(scope)
        if self._prefix:
            # Frameworks take the path of a route as what follows `root_path`.
            scope["root_path"] = self._prefix
            if not scope["path"].startswith(f"{self._prefix}/"):
                scope["path"] = self._prefix + scope["path"]
        refused, safe = self._refusal(scope), _Safe(send).send
        if refused is not None:
            await problem_answer(safe, *refused)
            return
        if scope["method"] != "POST":
            await self._app(scope, receive, safe)
            return
        try:
            body = await _whole_body(receive)
        except _ClientGoneError:
            return
        if body is None:
            await problem_answer(safe, 413, "Content Too Large", f"a body has at most {LARGEST_BODY} bytes")
            return
        await self._app(scope, _Replayed(body, receive).receive, safe)

    def _refusal(self, scope: Scope) -> Refusal | None:
        """Why the request is not passed on; None if it is."""
        if scope["path"].removeprefix(self._prefix) in FOR_PROBES:
            return None
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        is_link = scope["path"].removeprefix(self._prefix).startswith(FOR_LINKS)
        if is_link and scope["method"] == "GET":
            headers.pop("sec-fetch-site", None)  # a link in a mail is opened from another site, and changes nothing
        form = FORM if is_link else JSON
        return next(chain(self._foreign(headers), _leaked(query), _misshapen(scope["method"], headers, form)), None)

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


def _misshapen(method: str, headers: Mapping[str, str], form: str) -> Iterator[Refusal]:
    if method != "POST":
        return
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > LARGEST_BODY:
        yield 413, "Content Too Large", f"a body has at most {LARGEST_BODY} bytes"
    if headers.get("content-type", "").partition(";")[0].strip().lower() != form:
        yield 415, "Unsupported Media Type", f"send {form}"


class _ClientGoneError(Exception):
    """The client has gone away before its request was whole: nobody waits for an answer, and nothing is done."""


async def _whole_body(receive: Receive) -> bytes | None:
    """The body of a request; None as soon as it is longer than `LARGEST_BODY`, whatever its header says."""
    body = b""
    message = await receive()
    while message["type"] == "http.request":
        body += message.get("body", b"")
        if len(body) > LARGEST_BODY:
            return None
        if not message.get("more_body"):
            return bytes(body)
        message = await receive()
    raise _ClientGoneError


class _Replayed:
    """Gives an application a body that was read before it, and then what follows."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def receive(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


class _Safe:
    """Passes an answer on, which nothing may cache or frame."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_SAFE]
        await self._send(message)


_SAFE: Final = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)


def problem_head(status: int, title: str, detail: str) -> bytes:
    """A whole answer of HTTP/1.1 with an error, for a connection that ends with it."""
    body = json.dumps(problem(status, title, detail)).encode()
    lines = (
        f"HTTP/1.1 {status} {title}", "content-type: application/problem+json", f"content-length: {len(body)}",
        "connection: close", *(f"{name.decode()}: {value.decode()}" for name, value in _SAFE), "", "",
    )  # fmt: skip
    return "\r\n".join(lines).encode() + body


async def problem_answer(
    send: Send, status: int, title: str, detail: str, more: Mapping[str, str] | None = None
) -> None:
    """Answer with an error. `more`: further headers."""
    body = json.dumps(problem(status, title, detail)).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in (more or {}).items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
