"""A server that answers byte by byte without end: nothing waits for it longer than the timeout."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.model.venue import FateUnknownError, OrderRequest, VenueDownError
from killswitch_alpaca import adapter
from killswitch_alpaca.venue import AlpacaVenue
from tests.unit.alpaca.account_specs import spec
from tests.wire.alpaca.scene import D

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
TIMEOUT = 0.3
"""Seconds for a whole request. Single bytes arrive far more often."""


@contextmanager
def dripping(begins: bytes = HEAD, received: threading.Semaphore | None = None) -> Iterator[str]:
    """The address of a server that begins an answer so, and then sends a byte every few milliseconds for ever.

    `received` counts its requests.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve(taken: socket.socket) -> None:
        with taken:
            try:
                taken.recv(4096)
                if received is not None:
                    received.release()
                taken.sendall(begins)
                while not over.wait(0.02):
                    taken.sendall(b"x")
            except OSError:
                return

    def take() -> None:
        while True:
            try:
                taken, _ = listening.accept()
            except OSError:
                return
            serving.append(threading.Thread(target=serve, args=(taken,)))
            serving[-1].start()

    serving: list[threading.Thread] = []
    taking = threading.Thread(target=take)
    taking.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        over.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        for each in (taking, *serving):
            each.join()


def venue_at(address: str, timeout: float = TIMEOUT) -> AlpacaVenue:
    made = adapter(spec(endpoint=address, options={"timeout": timeout}))
    assert isinstance(made, AlpacaVenue)
    return made


SALE = OrderRequest("ks1", "BTC/USD", "sell", "long", D(1), reduce_only=False)


@pytest.mark.parametrize("begins", [HEAD, b"HTTP/1.1 200 OK\r\nX-Slow: "], ids=["body", "head"])
def test_an_answer_that_never_ends_is_awaited_until_the_timeout(begins: bytes) -> None:
    """Each snapshot is down; the status of an order is unknown; whether head or body drips."""

    async def main(address: str) -> None:
        venue = venue_at(address)
        for _ in range(2):
            seen = await venue.snapshot()
            assert seen.quality == "down"
            assert "no complete answer within 0.3 s" in (seen.reason or "")
        assert seen.health is not None
        assert (seen.health.timeouts or 0) >= 1
        with pytest.raises(FateUnknownError, match="no complete answer"):
            await venue.submit(SALE)
        await venue.close()

    with dripping(begins) as address:
        asyncio.run(main(address))


def test_closing_ends_requests_in_progress() -> None:
    """A timeout of an hour is cut short: orders that may have been sent are unknown; all else was not executed."""

    async def main(address: str) -> None:
        venue = venue_at(address, 3600)
        coins = [asyncio.create_task(venue.submit(SALE)) for _ in range(12)]
        shares = [asyncio.create_task(venue.submit(replace(SALE, symbol="AAPL"))) for _ in range(2)]
        question = asyncio.create_task(venue.find_order("AAPL", "ks1"))
        for _ in range(10):
            assert await asyncio.to_thread(received.acquire, timeout=60)
        closing = asyncio.create_task(venue.close())
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the requests are about to end
        await venue.close()
        await closing
        done = await asyncio.gather(*coins, return_exceptions=True)
        assert all(isinstance(each, FateUnknownError | VenueDownError) for each in done)
        # Eight run in parallel; the others never began, and report that.
        assert sum(isinstance(each, VenueDownError) for each in done) >= 4
        others = await asyncio.gather(*shares, question, return_exceptions=True)
        assert all(isinstance(each, VenueDownError) for each in others)
        with pytest.raises(VenueDownError, match="closed before the request was sent"):
            await venue.submit(SALE)

    received = threading.Semaphore(0)
    with dripping(received=received) as address:
        asyncio.run(main(address))


def test_a_process_exits_while_a_server_drips() -> None:
    """The account is not closed, and its request has an hour left."""
    program = (
        "import asyncio, sys; from killswitch_alpaca import adapter; from tests.unit.alpaca.account_specs import spec\n"
        "async def main():\n"
        "    asking = asyncio.create_task(adapter(spec(endpoint=sys.argv[1], options={'timeout': 3600})).snapshot())\n"
        "    await asyncio.to_thread(sys.stdin.readline)\n"
        "    assert not asking.done()\n"
        "    asking.cancel()\n"
        "asyncio.run(main())\n"
    )
    received = threading.Semaphore(0)
    with (
        dripping(received=received) as address,
        subprocess.Popen([sys.executable, "-c", program, address], stdin=subprocess.PIPE) as process,
    ):
        assert received.acquire(timeout=60)
        process.communicate(b"\n", timeout=60)
    assert process.returncode == 0


def test_an_order_without_a_connection_in_time_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the venue is resolved too late: nothing was sent, and nothing is sent afterwards."""
    resolve, hangs = socket.getaddrinfo, threading.Event()

    def resolve_slowly(*arguments: Any, **named: Any) -> Any:
        hangs.wait(60)
        return resolve(*arguments, **named)

    async def main(address: str) -> None:
        venue = venue_at(address.replace("127.0.0.1", "localhost"), 0.1)
        monkeypatch.setattr(socket, "getaddrinfo", resolve_slowly)
        with pytest.raises(VenueDownError, match=r"no complete answer within 0.1 s from localhost"):
            await venue.submit(SALE)
        hangs.set()
        await venue.close()

    received = threading.Semaphore(0)
    with dripping(received=received) as address:
        asyncio.run(main(address))
        assert not received.acquire(blocking=False)
