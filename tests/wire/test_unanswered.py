"""What a person is told of a request that got no answer, through each adapter: what happened, and no class of it."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from killswitch.model.venue import (
    AccountSpec,
    CredentialsRefusedError,
    FateUnknownError,
    VenueAdapter,
    VenueDownError,
    VenueError,
)
from killswitch_alpaca import adapter as alpaca
from killswitch_alpaca.client import Client as AlpacaClient
from killswitch_alpaca.settings import read_settings
from killswitch_ccxt import adapter as ccxt
from killswitch_ccxt.client import Client as CcxtClient
from killswitch_ccxt.venues.bybit.dialect import Bybit

CLASS = re.compile(r"\b[A-Z][A-Za-z]*(Error|Exception|Timeout|NotAvailable|Disconnected|Connection)\b|Connection\(")
"""What Python and its libraries call their errors."""
PAGE = (
    "<!DOCTYPE html><html><head><title>Bad\n gateway</title><style>p {}</style></head><body><p>nginx</p></body></html>"
)


def made(kind: str, endpoint: str, patience: float) -> VenueAdapter:
    options: dict[str, object] = {"timeout": patience}
    keys = {"key": "KEY-PLANTED", "secret": "SECRET-PLANTED"}
    if kind == "alpaca":
        return alpaca(AccountSpec("main", "alpaca", "equity", "USD", endpoint, options, keys))
    return ccxt(AccountSpec("main", "ccxt", "swap", "USDT", endpoint, options, keys, kind))


def told(kind: str, endpoint: str, patience: float = 30.0) -> str:
    """The reason of a snapshot, or what it raises."""

    async def once() -> str:
        venue = made(kind, endpoint, patience)
        try:
            return (await venue.snapshot()).reason or "no reason"
        except VenueError as error:
            return str(error)
        finally:
            await venue.close()

    return asyncio.run(once())


@contextmanager
def answering(status: int, text: str, headers: dict[str, str]) -> Iterator[str]:
    """The address of a server that answers everything so."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(text)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):  # the other side hung up first
                self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def saying(words: bytes | None) -> Iterator[int]:
    """The port of a server that says so once it is spoken to, and hangs up; that says nothing at all for None."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        open_ones: list[socket.socket] = []

        def serve() -> None:
            with suppress(OSError):  # the test is over, or the other side hung up first
                while True:
                    one, _ = server.accept()
                    open_ones.append(one)
                    if words is not None:
                        one.recv(65536)
                        one.sendall(words)
                        one.close()

        serving = Thread(target=serve, daemon=True)
        serving.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for one in list(open_ones):
                with suppress(OSError):  # it hung up itself
                    one.shutdown(socket.SHUT_RDWR)
            serving.join(10.0)  # one that it has just taken is among them only then
            for one in open_ones:
                one.close()


@pytest.fixture(params=["binanceusdm", "bybit", "alpaca"])
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_where_nothing_listens(kind: str) -> None:
    """A port that was given back a moment ago."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        said = told(kind, f"http://127.0.0.1:{port}")
    assert f"127.0.0.1:{port} refused the connection" in said
    assert not CLASS.search(said)


def test_a_wrong_name(kind: str) -> None:
    """A name that no server of names has."""
    said = told(kind, "http://no-such-host.invalid")
    assert "the host name of no-such-host.invalid cannot be resolved" in said
    assert not CLASS.search(said)


def test_a_server_that_hangs_up(kind: str) -> None:
    """It takes the question, and closes the connection."""
    with saying(b"") as port:
        said = told(kind, f"http://127.0.0.1:{port}")
    assert f"127.0.0.1:{port} closed the connection without an answer" in said
    assert not CLASS.search(said)


def test_a_server_that_says_nothing(kind: str) -> None:
    """For as long as the account's `timeout` allows."""
    with saying(None) as port:
        said = told(kind, f"http://127.0.0.1:{port}", 0.5)
    assert "no complete answer within 0.5 s from " in said
    assert f"127.0.0.1:{port}" in said
    assert not CLASS.search(said)


def test_a_server_without_tls() -> None:
    """`https` where `http` is spoken."""
    with saying(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        said = told("bybit", f"https://127.0.0.1:{port}")
    assert f"the TLS handshake with 127.0.0.1:{port} failed" in said
    assert not CLASS.search(said)


@pytest.mark.parametrize(
    ("status", "text", "words"),
    [
        (200, PAGE, "200, a web page instead of data: Bad gateway"),
        (503, PAGE, "a web page instead of data: Bad gateway"),
        (502, "", "without a "),
    ],
)
def test_a_page_or_nothing_instead_of_data(kind: str, status: int, text: str, words: str) -> None:
    """The page's title is told, and none of its markup."""
    with answering(status, text, {}) as endpoint:
        said = told(kind, endpoint)
    assert str(status) in said
    assert words in said
    assert "<" not in said
    assert not CLASS.search(said)


@pytest.mark.parametrize("code", ['"code": -1003, "retCode": 10006', '"code": 77777'], ids=["its own", "a gateway's"])
def test_a_venue_that_wants_less_says_for_how_long(kind: str, code: str) -> None:
    """429 with Retry-After, in the venue's own words or in those of what stands before it."""
    body = f'{{{code}, "msg": "Too many requests.", "message": "too many requests."}}'
    with answering(429, body, {"Retry-After": "7"}) as endpoint:
        said = told(kind, endpoint)
    assert "429" in said
    assert "oo many requests" in said
    assert said.endswith("no requests for 7 s")


@pytest.mark.parametrize(
    ("status", "changes", "kind_of_error"),
    [(401, False, CredentialsRefusedError), (500, False, VenueDownError), (500, True, FateUnknownError)],
)
def test_a_status_decides_where_nobody_knows_the_words(
    status: int, changes: bool, kind_of_error: type[VenueError]
) -> None:
    """Bybit tells refusals by codes, and here is none. An order behind a 500 may have been taken."""

    async def once(endpoint: str) -> None:
        keys = {"key": "KEY-PLANTED", "secret": "SECRET-PLANTED"}
        client = CcxtClient(AccountSpec("main", "ccxt", "swap", "USDT", endpoint, {}, keys, "bybit"), Bybit)
        try:
            with pytest.raises(kind_of_error):
                method = "privatePostV5OrderCreate" if changes else "privateGetV5AccountWalletBalance"
                await client.call(method, {}, changes=changes)
        finally:
            await client.close()

    with answering(status, '{"message": "no"}', {}) as endpoint:
        asyncio.run(once(endpoint))


def test_an_order_behind_a_certificate_that_is_not_accepted_never_left() -> None:
    """Of one that may have left nobody would know; here nothing was said over the connection."""
    import ssl

    from requests.exceptions import SSLError as RequestsError
    from urllib3.exceptions import MaxRetryError
    from urllib3.exceptions import SSLError as Refused

    keys = {"key": "k", "secret": "s"}
    client = AlpacaClient(read_settings(AccountSpec("main", "alpaca", "equity", "USD", None, {}, keys)))
    causes = {ssl.SSLCertVerificationError("self-signed"): VenueDownError, ssl.SSLError("bad record"): FateUnknownError}
    for cause, kind in causes.items():
        error = RequestsError(MaxRetryError(None, "/v2/orders", Refused(cause)))  # type: ignore[arg-type] # no pool

        def fail(_: object, error: Exception = error) -> None:
            raise error

        with pytest.raises(kind) as raised:
            asyncio.run(client.call(fail, changes=True))
        assert not CLASS.search(str(raised.value))
