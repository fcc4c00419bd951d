"""Possible secrets in an address appear in no message about it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from killswitch.model.venue import OrderRequest, VenueDownError
from killswitch_alpaca import adapter
from killswitch_alpaca.errors import redacted, without_secrets
from killswitch_alpaca.family import family
from tests.unit.alpaca.account_specs import spec

ADDRESS = "http://user:hunt%2Fer2@127.0.0.1:9/way?token=hunter3"


def test_an_address_is_shown_without_user_password_and_query() -> None:
    """Host and path are enough to find a mistake."""
    assert without_secrets(ADDRESS) == "http://127.0.0.1:9/way"


@pytest.mark.parametrize("text", [ADDRESS, "/way?token=hunter3&x=1", "user:hunt%2Fer2 is bad", "hunt/er2", "hunter3"])
def test_messages_of_libraries_are_repeated_without_secrets(text: str) -> None:
    """In every notation, and only the secrets that are present."""
    said = redacted(f"so: {text} after", None, ADDRESS)
    assert "hunt" not in said
    assert said.startswith("so: ")
    assert said.endswith(" after")


@pytest.mark.parametrize(
    "address", [ADDRESS, "http://user:hunter2@:bad?token=hunter3", "http://user:hunter2@[::1?hunter3"]
)
def test_an_error_about_bars_shows_no_secret_of_their_address(address: str) -> None:
    """Nobody listens there, or it is no valid address; the error also has no cause that would show it."""

    async def main() -> None:
        history = family.history("alpaca", address)
        assert history is not None
        with pytest.raises(VenueDownError) as caught:
            await history.bars("BTC/USD", "1d", 0)
        assert "no bars" in str(caught.value)
        assert "hunt" not in str(caught.value)
        assert caught.value.__cause__ is None
        await history.close()

    asyncio.run(main())


def test_an_account_shows_no_secret_of_its_address() -> None:
    """Neither in a snapshot nor in a rejection."""
    made = adapter(spec(endpoint=ADDRESS, options={"timeout": 1}))

    async def main() -> str:
        try:
            return (await made.snapshot()).reason or ""
        finally:
            await made.close()

    reason = asyncio.run(main())
    assert "127.0.0.1:9 refused the connection" in reason
    assert "hunt" not in reason


@contextmanager
def proxy() -> Iterator[tuple[int, list[tuple[str, str, str | None]]]]:
    """The port of a proxy that answers requests itself and refuses tunnels, and what it has received: method, target
    and its own password."""
    received: list[tuple[str, str, str | None]] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.append((self.command, self.path.partition("?")[0], self.headers.get("Proxy-Authorization")))
            self.send_response(200 if self.command == "GET" else 403)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        do_CONNECT = do_GET  # noqa: N815 - what the class above looks for

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()
    try:
        yield server.server_address[1], received
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


@pytest.mark.parametrize(("user", "password"), [("", None), ("http://us:pw@", "Basic dXM6cHc=")])
def test_requests_go_through_the_proxy_of_the_account(
    monkeypatch: pytest.MonkeyPatch, user: str, password: str | None
) -> None:
    """With its password, with or without a scheme; the proxy of the environment is not used."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    async def main(port: int) -> None:
        made = adapter(spec(endpoint="http://venue.invalid", options={"proxy": f"{user}127.0.0.1:{port}"}))
        assert await made.open_orders() == ()
        await made.close()

    with proxy() as (port, received):
        asyncio.run(main(port))
    assert received == [("GET", "http://venue.invalid/v2/orders", password)]


def test_an_order_that_a_proxy_refuses_to_forward_was_not_sent() -> None:
    """The proxy opens no tunnel, and learns nothing but the venue's host."""

    async def main(port: int) -> None:
        made = adapter(spec(endpoint="https://venue.invalid", options={"proxy": f"http://us:pw@127.0.0.1:{port}"}))
        with pytest.raises(VenueDownError, match=r"venue.invalid cannot be reached: 403"):
            await made.submit(OrderRequest("ks1", "BTC/USD", "sell", "long", Decimal(1), reduce_only=False))
        await made.close()

    with proxy() as (port, received):
        asyncio.run(main(port))
    assert [(method, target) for method, target, _ in received] == [("CONNECT", "venue.invalid:443")]
