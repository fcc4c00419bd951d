"""Both kinds of sessions: the cap on every answer, and the redirects that they do not follow."""

from __future__ import annotations

import asyncio
import gzip
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from killswitch.transport import AnswerTooLargeError, RedirectRefusedError
from killswitch.transport.adapters import guard
from killswitch.transport.sessions import guarded_session

MOST = 2**20
SECRET = "SIGNED-AND-SECRET"
PACKED: Mapping[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}


@cache
def _body(packing: str, size: int) -> bytes:
    return PACKED[packing](bytes(size))


class _Venue(BaseHTTPRequestHandler):
    """Answers by path: /PACKING/BYTES with so many zeros, /endless, and /redirect/STATUS to another host."""

    protocol_version = "HTTP/1.1"
    strayed: list[str]

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        what, _, number = self.path.strip("/").partition("?")[0].partition("/")
        if what == "redirect":
            self._send(int(number), b"", {"Location": f"http://user:{SECRET}@localhost:{PORT}/strayed?{SECRET}"})
        elif what == "endless":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(b"10000\r\n" + bytes(2**16) + b"\r\n")
        elif what == "strayed":
            type(self).strayed.append(self.path)
            self._send(200, b"{}", {})
        elif what == "values":
            self._send(200, gzip.compress(b"[]," * int(number), 1), {"Content-Encoding": "gzip"})
        else:
            self._send(200, _body(what, int(number)), {} if what == "identity" else {"Content-Encoding": what})

    do_POST = do_GET  # noqa: N815 - what the class above looks for

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(body)


PORT = 0


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where the server listens."""
    global PORT  # noqa: PLW0603 - what a redirect names
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Venue)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # who stops reading resets the connection
    PORT = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{PORT}"
    server.shutdown()
    server.server_close()


def _by_aiohttp(url: str, method: str = "GET", most: int = MOST) -> int:
    async def run() -> int:
        async with guarded_session(most) as session, session.request(method, url, data=b"x") as answer:
            return len(await answer.read())

    return asyncio.run(run())


def _by_requests(url: str, method: str = "GET", most: int = MOST) -> int:
    with guard(requests.Session(), most) as session:
        return len(session.request(method, url, data=b"x", timeout=20).content)


ASKING = {"aiohttp": _by_aiohttp, "requests": _by_requests}


@pytest.fixture(params=ASKING)
def ask(request: pytest.FixtureRequest) -> Callable[..., int]:
    """Bytes of an answer's body, by each library."""
    return ASKING[request.param]


@pytest.mark.parametrize("packing", PACKED)
def test_an_answer_of_the_largest_size_is_read_and_one_more_byte_is_refused(
    ask: Callable[..., int], packing: str, address: str
) -> None:
    """Counted after decompression, whatever the encoding."""
    assert ask(f"{address}/{packing}/{MOST}") == MOST
    with pytest.raises(AnswerTooLargeError, match="larger than 1 MB"):
        ask(f"{address}/{packing}/{MOST + 1}")


def test_many_small_values_are_refused_before_many_bytes_are(ask: Callable[..., int], address: str) -> None:
    """A million empty lists are 3 MB as text and 70 MB as parsed objects."""
    with pytest.raises(AnswerTooLargeError, match="of more than 4,000,000 values"):
        ask(f"{address}/values/2000001", most=16 * MOST)
    assert ask(f"{address}/values/1999999", most=16 * MOST) == 3 * 1_999_999


def test_an_endless_answer_is_abandoned(ask: Callable[..., int], address: str) -> None:
    """It declares no length, and continues for as long as anybody reads."""
    with pytest.raises(AnswerTooLargeError):
        ask(f"{address}/endless")


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_a_decompression_bomb_takes_no_more_memory_than_a_large_answer(
    ask: Callable[..., int], packing: str, address: str
) -> None:
    """128 MB in an answer of 128 kB, of which 1 MB may be read: it is decompressed in pieces."""
    _body(packing, 128 * MOST)
    tracemalloc.start()
    try:
        with pytest.raises(AnswerTooLargeError):
            ask(f"{address}/{packing}/{128 * MOST}")
        assert tracemalloc.get_traced_memory()[1] < 8 * MOST
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 399])
def test_no_redirect_is_an_answer_and_none_is_followed(
    ask: Callable[..., int], status: int, method: str, address: str
) -> None:
    """The host of the redirect is named, and nothing of the address that might be a secret."""
    _Venue.strayed = []
    with pytest.raises(RedirectRefusedError, match=rf"{status} and names localhost:\d+; redirects are not") as caught:
        ask(f"{address}/redirect/{status}?signature={SECRET}", method)
    assert SECRET not in str(caught.value)
    assert _Venue.strayed == []


@pytest.mark.parametrize("status", [301, 307])
def test_a_stream_follows_no_redirect(status: int, address: str) -> None:
    """The first answer of a WebSocket may be a redirect too."""
    _Venue.strayed = []

    async def run() -> None:
        async with guarded_session() as session:
            await session.ws_connect(f"{address}/redirect/{status}")

    with pytest.raises(RedirectRefusedError):
        asyncio.run(run())
    assert _Venue.strayed == []
