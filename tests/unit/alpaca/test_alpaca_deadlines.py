"""A server that answers byte by byte without end: nothing waits for it longer than the timeout."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from msgspec import structs

from killswitch.model.venue import FateUnknownError, OrderRequest, VenueDownError
from killswitch.transport.adapters import watch
from killswitch.transport.deadlines import Deadlines
from killswitch_alpaca import adapter
from killswitch_alpaca.client import request_threads
from killswitch_alpaca.venue import AlpacaVenue
from tests.threads import NoThreads
from tests.unit.alpaca.account_specs import spec
from tests.wire.alpaca.scene import D

pytest.importorskip("alpaca")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
TIMEOUT = 0.3
"""Seconds for a whole request. Single bytes arrive far more often."""


@contextmanager
def dripping(begins: bytes = HEAD) -> Iterator[str]:
    """The address of a server that begins an answer so, and then sends a byte every few milliseconds for ever."""
    listening = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve(taken: socket.socket) -> None:
        with taken:
            try:
                taken.recv(4096)
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
        shares = [asyncio.create_task(venue.submit(structs.replace(SALE, symbol="AAPL"))) for _ in range(2)]
        question = asyncio.create_task(venue.find_order("AAPL", "ks1"))
        while len(venue._client._deadlines._under_way) < 10:  # noqa: ASYNC110 - threads set no event of ours
            await asyncio.sleep(0.01)
        await venue.close()
        done = await asyncio.gather(*coins, return_exceptions=True)
        assert all(isinstance(each, FateUnknownError | VenueDownError) for each in done)
        # Eight run in parallel; the others never began, and report that.
        assert sum(isinstance(each, VenueDownError) for each in done) >= 4
        others = await asyncio.gather(*shares, question, return_exceptions=True)
        assert all(isinstance(each, VenueDownError) for each in others)
        with pytest.raises(VenueDownError, match="closed before the request was sent"):
            await venue.submit(SALE)

    with dripping() as address:
        asyncio.run(main(address))


def test_closing_survives_a_client_that_a_thread_adds_concurrently() -> None:
    """A thread may be creating the client for market data at that time; every existing client is closed."""
    venue = venue_at("http://127.0.0.1:1")
    closed: list[bool] = []
    clients = venue._client._clients

    def close() -> None:
        closed.append(True)
        clients[True] = None

    clients[False] = SimpleNamespace(_session=SimpleNamespace(close=close))
    asyncio.run(venue.close())
    assert closed == [True]


def test_a_process_exits_while_a_server_drips() -> None:
    """The account is not closed, and its request has an hour left."""
    program = (
        "import asyncio, sys; from killswitch_alpaca import adapter; from tests.unit.alpaca.account_specs import spec\n"
        "async def main():\n"
        "    venue = adapter(spec(endpoint=sys.argv[1], options={'timeout': 3600}))\n"
        "    asking = asyncio.create_task(venue.snapshot())\n"
        "    while not venue._client._deadlines._under_way: await asyncio.sleep(0.01)\n"
        "    asking.cancel()\n"
        "asyncio.run(main())\n"
    )
    with dripping() as address:
        done = subprocess.run([sys.executable, "-c", program, address], timeout=60, check=False)
    assert done.returncode == 0


def test_no_request_is_sent_after_its_deadline() -> None:
    """A request that gets a connection too late is not sent, so it was not executed."""
    import requests

    with dripping() as address, requests.Session() as session:
        deadlines = Deadlines(0.05)
        watch(session, 1)
        with pytest.raises(requests.exceptions.ConnectTimeout), deadlines.one():
            time.sleep(0.2)  # the time that name resolution may take
            session.post(address, timeout=9)


def test_threads_run_their_calls_and_return_results_or_errors() -> None:
    """At most two at once; results and errors; what waits when they are released is cancelled."""
    threads = request_threads("test", 2)
    both, begun, third = threading.Barrier(2), threading.Barrier(3), threading.Event()
    first, second = (threads.submit(both.wait) for _ in range(2))
    assert sorted((first.result(), second.result())) == [0, 1]
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 / 0).result()
    held = [threads.submit(lambda: begun.wait() >= 0 and third.wait()) for _ in range(2)]
    begun.wait()
    waiting = threads.submit(lambda: None)
    threads.shutdown(cancel_futures=True)
    assert waiting.cancelled()
    third.set()
    assert [each.result() for each in held] == [True, True]


def test_a_request_without_a_thread_of_its_own_waits_for_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a process limit, while another request is in flight, and beyond the number of concurrent requests."""
    no_threads, threads, go_on = NoThreads(monkeypatch), request_threads("test", 2), threading.Event()
    running = threads.submit(go_on.wait)
    no_threads.begin()
    waiting = threads.submit(lambda: "answered")
    no_threads.end()
    second = threads.submit(go_on.wait)
    beyond = threads.submit(lambda: "answered too")
    assert not waiting.done() and not beyond.done()
    go_on.set()
    assert (waiting.result(60), beyond.result(60)) == ("answered", "answered too")
    assert running.result(60) and second.result(60)


def test_a_request_without_a_thread_fails_and_the_next_one_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At a process limit, reached for a moment: no caller waits for a call that will never run."""
    no_threads, threads = NoThreads(monkeypatch), request_threads("test", 1)
    no_threads.begin()
    assert isinstance(threads.submit(int).exception(60), OSError)
    no_threads.end()
    assert threads.submit(int).result(60) == 0
