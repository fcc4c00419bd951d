"""Every way in which a call to a paper server can fail, and what is known afterwards."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from decimal import Decimal

import pytest

from killswitch.model.venue import (
    AccountSpec,
    FateUnknownError,
    MalformedAnswerError,
    OrderRejectedError,
    OrderRequest,
    RateLimitedError,
    VenueAdapter,
    VenueDownError,
    VenueError,
)
from killswitch_paper import adapter
from killswitch_paper.server import serve
from tests.markets import START, Desk

Answer = Callable[[bytes], Awaitable[bytes | None]]
ORDER = OrderRequest("c1", "A", "buy", "long", Decimal(1), reduce_only=False)


def _venue(port: int) -> VenueAdapter:
    options: dict[str, object] = {"timeout": 0.3, "batch": 5, "whole_book": True}
    return adapter(AccountSpec("main", "paper", "swap", "USDT", f"http://127.0.0.1:{port}", options, {}))


async def _against(answer: Answer, ask: Callable[[VenueAdapter], Awaitable[object]]) -> object:
    """What `ask` gets from a server that reads one request and sends `answer`'s bytes (None: nothing, and waits)."""
    over = asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = await answer(await _request(reader))
        if received is None:
            await over.wait()
        else:
            writer.write(received)
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    venue = _venue(server.sockets[0].getsockname()[1])
    try:
        return await ask(venue)
    finally:
        over.set()
        await venue.close()
        server.close()
        await server.wait_closed()


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return head + (await reader.readexactly(int(lengths[0].split(b":")[1])) if lengths else b"")


def _answers_with(status: str, body: str = "", *headers: str) -> Answer:
    async def answer(_request: bytes) -> bytes:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()

    return answer


async def _closes_connection(_request: bytes) -> bytes:
    return b""


async def _never_answers(_request: bytes) -> None:
    return None


async def _truncates(_request: bytes) -> bytes:
    return b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"id": "o1", '


ASKS: dict[str, Callable[[VenueAdapter], Awaitable[object]]] = {
    "submit": lambda venue: venue.submit(ORDER),
    "batch": lambda venue: venue.batches.submit([ORDER]),  # type: ignore[union-attr] # its options declare batches
    "close book": lambda venue: venue.close_book(),  # type: ignore[misc] # likewise
    "cancel": lambda venue: venue.cancel("A", "o1"),
    "find": lambda venue: venue.find_order("A", "c1"),
    "orders": lambda venue: venue.open_orders(),
    "fills": lambda venue: venue.fills("A", "c1"),
}
CHANGES = {"submit", "batch", "close book", "cancel"}


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize(
    "answer",
    [
        _closes_connection, _never_answers, _truncates, _answers_with("502 Bad Gateway"), _answers_with("503 No"),
        _answers_with("307 Temporary", "{}", "Location: http://127.0.0.1:1/"), _answers_with("304 Not Modified"),
    ],
    ids=["hangs up", "never answers", "breaks off", "502", "503", "307", "304"],
)  # fmt: skip
def test_c2_no_answer_to_a_change_is_unknown_and_to_a_query_is_down(answer: Answer, ask: str) -> None:
    """A change that was sent may have been executed; an unanswered query changed nothing."""
    expected = FateUnknownError if ask in CHANGES else VenueDownError
    with pytest.raises(VenueError) as caught:
        asyncio.run(_against(answer, ASKS[ask]))
    assert type(caught.value) is expected


@pytest.mark.parametrize("ask", ASKS)
def test_an_unreachable_venue_executed_nothing(ask: str) -> None:
    """No connection, no request: down, for changes too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def run() -> None:
        venue = _venue(port)
        try:
            await ASKS[ask](venue)
        finally:
            await venue.close()

    with pytest.raises(VenueDownError, match=r"^http://127.0.0.1:\d+ refused the connection$"):
        asyncio.run(run())


@pytest.mark.parametrize("ask", ["submit", "batch", "find", "orders", "fills"])
@pytest.mark.parametrize("body", ["", "<html>", "{}", "null", '{"id": 3}'])
def test_c1_a_nonsensical_answer_is_malformed_and_not_empty(ask: str, body: str) -> None:
    """A missing order, fill or position is read only where the answer states it."""
    with pytest.raises(MalformedAnswerError):
        asyncio.run(_against(_answers_with("200 OK", body), ASKS[ask]))


@pytest.mark.parametrize("body", ["", "<html>not here</html>", '{"detail": "no such page"}'])
def test_c1_a_wrong_address_is_not_an_absent_order(body: str) -> None:
    """Only the venue's own answer proves that there is no order; any other 404 proves nothing."""
    with pytest.raises(MalformedAnswerError):
        asyncio.run(_against(_answers_with("404 Not Found", body), ASKS["find"]))


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("status", ["429 Slow", "418 Banned"])
def test_c14_too_many_requests_carries_the_retry_time(status: str, ask: str) -> None:
    """The venue did not process it, so nothing was done; seven seconds are seven seconds. A ban is the same, longer."""
    with pytest.raises(RateLimitedError) as caught:
        asyncio.run(_against(_answers_with(status, "", "Retry-After: 7"), ASKS[ask]))
    assert caught.value.retry_after == 7.0


@pytest.mark.parametrize("status", ["200 OK", "429 Slow"])
def test_c14_the_venues_own_count_is_read_from_every_answer(status: str) -> None:
    """Also from a refusal; unknown parts of the header are left out."""

    async def ask(venue: VenueAdapter) -> object:
        assert venue.used is not None
        assert venue.used() == {}
        with suppress(RateLimitedError):
            await venue.open_orders()
        return venue.used()

    answer = _answers_with(status, "[]", "Limits-Used: orders-10s=12; weight=2400; x=; =3; y=-1; z=1.5; w")
    assert asyncio.run(_against(answer, ask)) == {"orders-10s": 12, "weight": 2400}


REPORT = '{"id":"o1","client_order_id":"%s","symbol":"A","state":"filled","amount":"1","filled":"1"}'


@pytest.mark.parametrize(
    "body",
    ["[]", '[{"report":' + REPORT % "c1" + "}," + '{"report":' + REPORT % "c2" + "}]", '[{"report":{"id":"o1"}}]'],
)
def test_c2_a_batch_with_another_number_of_answers_is_malformed(body: str) -> None:
    """No answer can be assigned to an order."""
    with pytest.raises(MalformedAnswerError):
        asyncio.run(_against(_answers_with("200 OK", body), ASKS["batch"]))


@pytest.mark.parametrize("body", ["[{}]", '[{"report":' + REPORT % "c2" + "}]"])
def test_c2_an_answer_in_a_batch_that_is_not_about_its_order_leaves_that_one_unknown(body: str) -> None:
    """Neither a report nor a refusal, or the report of another order: malformed, and not executed or refused."""
    answers = asyncio.run(_against(_answers_with("200 OK", body), ASKS["batch"]))
    assert isinstance(answers, list)
    assert [type(answer) for answer in answers] == [MalformedAnswerError]


def test_too_many_requests_without_a_time_leaves_it_unknown() -> None:
    """A date or nothing in the header is no number of seconds."""
    answer = _answers_with("429 Slow", "", "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT")
    with pytest.raises(RateLimitedError) as caught:
        asyncio.run(_against(answer, ASKS["submit"]))
    assert caught.value.retry_after is None


def test_an_unknown_account_is_down_and_an_invalid_request_is_rejected() -> None:
    """In both cases the venue's answer is that nothing was done."""
    nobody = _answers_with("404 Not Found", '{"code":"no_such_account","text":"no account main"}')
    with pytest.raises(VenueDownError, match="no account main"):
        asyncio.run(_against(nobody, ASKS["submit"]))
    senseless = _answers_with("400 Bad", '{"code":"bad_request","text":"not an OrderRequest"}')
    with pytest.raises(OrderRejectedError) as caught:
        asyncio.run(_against(senseless, ASKS["submit"]))
    assert caught.value.reason == "other"


SNAPSHOTS: list[tuple[str, Answer, str, str]] = [
    ("hangs up", _closes_connection, "down", "errors"),
    ("never answers", _never_answers, "down", "timeouts"),
    ("500", _answers_with("500 Oops"), "down", "errors"),
    ("429", _answers_with("429 Slow"), "down", "rate_limited"),
    ("no account", _answers_with("404 No", '{"code":"no_such_account","text":"none"}'), "down", "errors"),
    ("a redirect", _answers_with("302 Found", "", "Location: http://127.0.0.1:1/"), "down", "errors"),
    ("nonsense", _answers_with("200 OK", "[]"), "malformed", "malformed"),
    ("somebody else's account",
     _answers_with("200 OK", '{"account":"other","venue":"v","market":"swap","currency":"USDT","quality":"ok"}'),
     "malformed", "malformed"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "quality", "count"), SNAPSHOTS, ids=[case[0] for case in SNAPSHOTS])
def test_c1_a_failed_snapshot_has_a_reason_and_no_numbers(name: str, answer: Answer, quality: str, count: str) -> None:
    """Quality and reason, one failure counted under its name, and nothing that could be taken for flat."""
    seen = asyncio.run(_against(answer, lambda venue: venue.snapshot()))
    assert getattr(seen, "quality") == quality, name  # noqa: B009 - an object to the type checker
    known = {field for field in seen.__struct_fields__ if getattr(seen, field) is not None}  # type: ignore[attr-defined] # a Struct
    assert known == {"account", "venue", "market", "currency", "quality", "reason", "health"}
    health = seen.health  # type: ignore[attr-defined] # likewise
    counts = {field: getattr(health, field) for field in ("errors", "timeouts", "malformed", "rate_limited")}
    assert {field for field, number in counts.items() if number} == {count}


def test_c2_after_a_lost_answer_a_query_finds_the_executed_order() -> None:
    """The order reached the market, its answer was lost: unknown; queried, the venue has it, once."""
    desk = Desk()

    async def run() -> None:
        server = await serve(desk.market, port=0, now=lambda: desk.market.now or START)
        port = int(server.address.rpartition(":")[2])

        async def loses_answers_to_orders(request: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request.replace(b"keep-alive", b"close"))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            answer = head + await reader.readexactly(length)
            writer.close()
            await writer.wait_closed()
            return b"" if request.startswith(b"POST") else answer

        async def ask(venue: VenueAdapter) -> object:
            with pytest.raises(FateUnknownError):
                await venue.submit(ORDER)
            return await venue.find_order("A", "c1")

        found = await _against(loses_answers_to_orders, ask)
        assert getattr(found, "state", None) == "filled"
        await server.close()

    asyncio.run(run())
    assert desk.position().contracts == 1
