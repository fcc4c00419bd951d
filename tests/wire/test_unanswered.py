"""The reason that each adapter reports for a request without an answer: what happened, and no name of an exception."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Thread

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from killswitch.model.venue import (
    AccountSpec,
    CredentialsRefusedError,
    FateUnknownError,
    OrderRequest,
    VenueAdapter,
    VenueDownError,
    VenueError,
)
from killswitch_alpaca import adapter as alpaca
from killswitch_ccxt import adapter as ccxt
from killswitch_ccxt.client import Client as CcxtClient
from killswitch_ccxt.venues.bybit.dialect import Bybit

EXCEPTION_NAME = re.compile(
    r"\b[A-Z][A-Za-z]*(Error|Exception|Timeout|NotAvailable|Disconnected|Connection)\b|Connection\("
)
"""Names of exceptions of Python and its libraries."""
PAGE = (
    "<!DOCTYPE html><html><head><title>Bad\n gateway</title><style>p {}</style></head><body><p>nginx</p></body></html>"
)


def venue_of(kind: str, endpoint: str, patience: float) -> VenueAdapter:
    options: dict[str, object] = {"timeout": patience}
    keys = {"key": "KEY-PLANTED", "secret": "SECRET-PLANTED"}
    if kind == "alpaca":
        return alpaca(AccountSpec("main", "alpaca", "equity", "USD", endpoint, options, keys))
    return ccxt(AccountSpec("main", "ccxt", "swap", "USDT", endpoint, options, keys, kind))


def reason_of(kind: str, endpoint: str, patience: float = 30.0) -> str:
    """The reason of a snapshot, or the message of its error."""

    async def once() -> str:
        venue = venue_of(kind, endpoint, patience)
        try:
            return (await venue.snapshot()).reason or "no reason"
        except VenueError as error:
            return str(error)
        finally:
            await venue.close()

    return asyncio.run(once())


@contextmanager
def answering(status: int, text: str, headers: dict[str, str]) -> Iterator[str]:
    """The address of a server that gives this answer to every request."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(text)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):  # the client closed the connection first
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
def server_sending(data: bytes | None) -> Iterator[int]:
    """The port of a server that sends these bytes after the first request, and closes the connection; None: it never
    answers.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        open_ones: list[socket.socket] = []

        def serve() -> None:
            with suppress(OSError):  # the test is over, or the client closed the connection first
                while True:
                    one, _ = server.accept()
                    open_ones.append(one)
                    if data is not None:
                        one.recv(65536)
                        one.sendall(data)
                        one.close()

        serving = Thread(target=serve, daemon=True)
        serving.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for one in list(open_ones):
                with suppress(OSError):  # the client closed it
                    one.shutdown(socket.SHUT_RDWR)
            serving.join(10.0)  # a connection that was just accepted is in the list only then
            for one in open_ones:
                one.close()


@pytest.fixture(params=["binanceusdm", "bybit", "alpaca"])
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_a_refused_connection(kind: str) -> None:
    """A port that was released a moment ago."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        reason = reason_of(kind, f"http://127.0.0.1:{port}")
    assert f"127.0.0.1:{port} refused the connection" in reason
    assert not EXCEPTION_NAME.search(reason)


def test_an_unknown_host_name(kind: str) -> None:
    """A name that no name server resolves."""
    reason = reason_of(kind, "http://no-such-host.invalid")
    assert "the host name of no-such-host.invalid cannot be resolved" in reason
    assert not EXCEPTION_NAME.search(reason)


def test_a_connection_closed_without_an_answer(kind: str) -> None:
    """The server accepts the request, and closes the connection."""
    with server_sending(b"") as port:
        reason = reason_of(kind, f"http://127.0.0.1:{port}")
    assert f"127.0.0.1:{port} closed the connection without an answer" in reason
    assert not EXCEPTION_NAME.search(reason)


def test_a_server_that_never_answers(kind: str) -> None:
    """The wait lasts as long as the account's `timeout` allows."""
    with server_sending(None) as port:
        reason = reason_of(kind, f"http://127.0.0.1:{port}", 0.5)
    assert "no complete answer within 0.5 s from " in reason
    assert f"127.0.0.1:{port}" in reason
    assert not EXCEPTION_NAME.search(reason)


def test_a_server_without_tls(kind: str) -> None:
    """`https` at a port that speaks `http`."""
    with server_sending(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        reason = reason_of(kind, f"https://127.0.0.1:{port}")
    assert f"the TLS handshake with 127.0.0.1:{port} failed" in reason
    assert not EXCEPTION_NAME.search(reason)


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (200, PAGE, "200, a web page instead of data: Bad gateway"),
        (503, PAGE, "a web page instead of data: Bad gateway"),
        (502, "", "without a "),
    ],
)
def test_a_web_page_or_an_empty_answer_instead_of_data(kind: str, status: int, text: str, expected: str) -> None:
    """The reason contains the page's title, and none of its markup."""
    with answering(status, text, {}) as endpoint:
        reason = reason_of(kind, endpoint)
    assert str(status) in reason
    assert expected in reason
    assert "<" not in reason
    assert not EXCEPTION_NAME.search(reason)


@pytest.mark.parametrize("code", ['"code": -1003, "retCode": 10006', '"code": 77777'], ids=["its own", "a gateway's"])
def test_a_rate_limited_answer_gives_the_time_to_wait(kind: str, code: str) -> None:
    """429 with Retry-After, in the venue's own body or in that of a gateway before it."""
    body = f'{{{code}, "msg": "Too many requests.", "message": "too many requests."}}'
    with answering(429, body, {"Retry-After": "7"}) as endpoint:
        reason = reason_of(kind, endpoint)
    assert "429" in reason
    assert "oo many requests" in reason
    assert reason.endswith("no requests for 7 s")


@pytest.mark.parametrize(
    ("status", "changes", "kind_of_error"),
    [(401, False, CredentialsRefusedError), (500, False, VenueDownError), (500, True, FateUnknownError)],
)
def test_the_http_status_decides_when_the_body_is_unknown(
    status: int, changes: bool, kind_of_error: type[VenueError]
) -> None:
    """Bybit reports refusals by codes, and this body has none. An order behind a 500 may have been accepted."""

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


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that its server signed itself, with its key; its common name is localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    years = datetime(2020, 1, 1, tzinfo=UTC), datetime(2090, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), *years)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    builder = builder.add_extension(address, critical=False)
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
    )
    return file


@pytest.mark.parametrize(
    ("host", "is_encrypted", "is_trusted", "expected"),
    [
        ("127.0.0.1", True, True, "400"),
        ("127.0.0.1", True, False, "certificate of 127.0.0.1:.* is not trusted: self"),
        ("localhost", True, True, "certificate of localhost:.* is not trusted: .*name mismatch"),
        ("127.0.0.1", False, True, "TLS handshake with 127.0.0.1:.* failed"),
    ],
)
def test_an_order_is_not_sent_before_the_certificate_is_accepted(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, host: str, is_encrypted: bool, is_trusted: bool, expected: str
) -> None:
    """It is sent to a host that an authority vouches for, and not to an unknown, another or an unencrypted one."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    if is_trusted:
        monkeypatch.setattr(certifi, "where", lambda: str(certificate))

    received: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read(65536))
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        writer.close()

    async def main() -> VenueError:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls if is_encrypted else None)
        port = server.sockets[0].getsockname()[1]
        venue = venue_of("alpaca", f"https://{host}:{port}", 5.0)
        with pytest.raises(VenueError) as raised:
            await venue.submit(OrderRequest("ks1", "BTC/USD", "sell", "long", Decimal(1), reduce_only=False))
        await venue.close()
        server.close()
        return raised.value

    error = asyncio.run(main())
    is_sent = any(each.startswith(b"POST /v2/orders ") for each in received)
    assert (is_sent, type(error)) == ((True, FateUnknownError) if expected == "400" else (False, VenueDownError))
    assert re.search(expected, str(error))
    assert not EXCEPTION_NAME.search(str(error))
