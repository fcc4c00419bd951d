"""Streams of events: bounded for each reader, ended with its token, and one read of the store for all of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from killswitch.operations.board import BoardScope, TriggerBar, is_lost
from killswitch.runner.status_blob import LIVE_NAME, encode_view
from killswitch.server.access import TokenFile, read_tokens, write_tokens
from killswitch.server.board import event_stream, feed
from killswitch.server.board.event_stream import (
    MOST_EVENTS,
    MOST_STREAMS,
    EventStream,
    OpenStreams,
    TooManyStreamsError,
)
from killswitch.server.board.parts import HtmlChannel, RecordChannel
from killswitch.store.sqlite import open_store
from tests.unit.server.boards import board, put_view, run_view
from tests.unit.server.conftest import Served


def taken(stream: EventStream) -> list[bytes]:
    """What a reader gets that takes everything until the stream ends."""

    async def take() -> list[bytes]:
        stream.end("the test has seen enough")
        return [event async for event in stream.events()]

    return anyio.run(take)


def stream() -> EventStream:
    """A stream of somebody who may read on."""
    return EventStream("html", "ann", lambda: None)


def test_a_reader_that_keeps_up_gets_every_event_in_order() -> None:
    found = stream()
    for number in range(MOST_EVENTS):
        found.put(b"%d" % number)
    assert taken(found)[:-1] == [b"%d" % number for number in range(256)]


def test_a_reader_that_is_257_events_behind_gets_lost_instead_of_them() -> None:
    """And what comes after it: the reader reads the state again, and goes on."""
    found = stream()
    for number in range(257):
        found.put(b"%d" % number)
    found.put(b"later")
    lost, later, end = taken(found)
    assert (lost.split(b"\n")[0], later, end.split(b"\n")[0]) == (b"event: lost", b"later", b"event: end")


def test_a_reader_that_is_more_than_a_mebibyte_behind_gets_lost() -> None:
    found = stream()
    found.put(b"x" * (1 << 20))
    assert len(taken(found)) == 2
    found = stream()
    found.put(b"x" * (1 << 20))
    found.put(b"x")
    assert taken(found)[0].startswith(b"event: lost")


def test_a_principal_has_at_most_eight_streams_and_another_is_not_counted_with_it() -> None:
    streams = OpenStreams()
    first = [streams.open("html", "ann", lambda: None) for _ in range(MOST_STREAMS)]
    assert len(first) == 8
    with pytest.raises(TooManyStreamsError, match="ann has 8 streams open"):
        streams.open("records", "ann", lambda: None)
    streams.open("html", "bob", lambda: None)
    streams.close(first[0])
    streams.close(first[0])
    streams.open("html", "ann", lambda: None)
    with pytest.raises(TooManyStreamsError):
        streams.open("html", "ann", lambda: None)


@pytest.mark.parametrize(
    ("age", "interval", "expected"),
    [(0.0, 1.0, False), (2.0, 1.0, False), (2.001, 1.0, True), (-2.5, 1.0, True), (None, 1.0, True), (1.0, None, True)],
)
def test_data_older_than_two_intervals_are_lost(age: float | None, interval: float | None, expected: bool) -> None:
    """And so are data of the future, and none at all."""
    assert is_lost(age, interval) is expected


# Changes


def scope(reached: float, value: str, name: str = "account/main") -> BoardScope:
    bars = (TriggerBar("fall", "clear", "≥ 4.5%", value, reached), TriggerBar("rout", "clear", "≥ 7%", "0.10%", 0.014))
    return BoardScope(f"drawdown/{name}", name, "drawdown", "calm", "normal", None, None, "", bars)


def test_a_scope_whose_bars_moved_costs_its_bars_and_nothing_else() -> None:
    before, after = board(scopes=(scope(0.5, "2.25%"),)), board(scopes=(scope(0.52, "2.34%"),))
    moved = {"drawdown/account/main": [(0, 0.52, "2.34%")]}
    assert HtmlChannel().changed(before, after) == {"html": {}, "scopes": {}, "values": moved}
    assert RecordChannel().changed(before, after) == {"values": moved}


def test_a_scope_that_fires_is_sent_whole_and_the_order_with_it() -> None:
    quiet, other = scope(0.5, "2.25%"), scope(0.1, "0.45%", "account/other")
    fired = replace(other, tone="alarm", stage="close-everything, level 3")
    found: Mapping[str, Any] = HtmlChannel().changed(board(scopes=(quiet, other)), board(scopes=(fired, quiet)))
    assert list(found["scopes"]) == ["drawdown/account/other"]
    assert "close-everything" in found["scopes"]["drawdown/account/other"]
    assert found["order"] == ["drawdown/account/other", "drawdown/account/main"]
    assert RecordChannel().changed(board(scopes=(quiet, other)), board(scopes=(fired, quiet))) == {"scopes": [fired]}


def test_a_text_of_somebody_else_is_escaped_on_the_page() -> None:
    """Names of scopes come from policy files, reasons of locks from any program that writes lock files."""
    attack = "<script>alert(1)</script>"
    found: Mapping[str, Any] = HtmlChannel().changed(
        board(), board(scopes=(replace(scope(0.5, attack), note=attack, stage=attack),))
    )
    html = "".join(found["scopes"].values())
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 3


# Over HTTP


class Listener:
    """Reads a stream until it has what it waits for."""

    def __init__(self, served: Served, who: str, path: str = "/v1/events") -> None:
        self.answer = served.ask("GET", path, who, stream=True)
        self.lines: Iterator[Any] = self.answer.iter_lines(decode_unicode=True) if self.answer.ok else iter(())

    def next(self, kind: str) -> dict[str, Any]:
        """The data of the next event of this kind; beats alone for a minute are a failure."""
        name, others = "", 0
        for line in self.lines:
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
                others += name != kind
                assert others < 60, f"no {kind} in a minute"
            elif line.startswith("data: ") and name == kind:
                found: dict[str, Any] = json.loads(line.removeprefix("data: "))
                return found
        raise AssertionError(f"the stream has ended without {kind}")


def test_a_tick_reaches_a_stream_as_a_change_with_the_age_of_the_data(served: Served, store_path: Path) -> None:
    put_view(store_path, run_view(datetime.now(UTC)))
    listener = Listener(served, "viewer portfolio")
    hello = listener.next("hello")
    assert hello["interval"] == 1.0
    assert 0 <= hello["age"] < 30
    at = datetime.now(UTC) - timedelta(seconds=5)
    put_view(store_path, run_view(at))
    change = listener.next("change")
    assert change["beat"]["number"] == hello["number"] + 1
    assert 5 <= change["beat"]["age"] < 30
    assert change["beat"]["lost"] is True
    assert listener.next("beat")["age"] > change["beat"]["age"]


def test_many_streams_cost_one_read_of_the_store(served: Served, store_path: Path) -> None:
    put_view(store_path, run_view(datetime.now(UTC)))
    whos = [f"{role} portfolio" for role in ("viewer", "trader", "risk")]
    listeners = [Listener(served, who) for who in whos for _ in range(8)]
    assert all(listener.next("hello")["number"] == 1 for listener in listeners)
    put_view(store_path, run_view(datetime.now(UTC) + timedelta(seconds=1)))
    numbers = {listener.next("change")["beat"]["number"] for listener in listeners}
    assert numbers == {2}
    assert Listener(served, "viewer portfolio").answer.status_code == 429


def test_a_revoked_token_ends_its_stream_and_nobody_elses(
    served: Served, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the 15 seconds between two looks, which are shortened here."""
    assert feed.CHECK_EVERY < 60
    monkeypatch.setattr(feed, "BEAT_EVERY", 0.05)
    monkeypatch.setattr(feed, "CHECK_EVERY", 0.05)
    revoked, kept = Listener(served, "viewer portfolio"), Listener(served, "risk portfolio")
    records = [each for each in read_tokens(served.tokens_at).tokens if each.principal != "viewer of portfolio"]
    write_tokens(served.tokens_at, TokenFile(tuple(records)))
    assert "valid token" in revoked.next("end")["why"]
    assert not any(revoked.lines)
    kept.next("beat")


def test_a_token_without_positions_reads_no_board(served: Served) -> None:
    assert served.ask("GET", "/v1/board", "admin portfolio").status_code == 403
    assert served.ask("GET", "/v1/events", "admin account/main").status_code == 403
    assert served.ask("GET", "/v1/events").status_code == 401


def test_a_store_that_cannot_be_read_leaves_the_stream_with_its_age_and_the_reason(
    served: Served, store_path: Path
) -> None:
    put_view(store_path, run_view(datetime.now(UTC)))
    listener = Listener(served, "viewer portfolio")
    listener.next("hello")
    for path in (store_path, *store_path.parent.glob("ks.sqlite-*")):
        path.unlink(missing_ok=True)
    while (beat := listener.next("beat"))["problem"] is None:
        pass
    assert "cannot be read" in beat["problem"]
    assert beat["as_of"] is not None


def test_a_killed_browser_leaves_no_stream_behind(served: Served, store_path: Path) -> None:
    """Eight more may be opened after eight were cut off."""
    put_view(store_path, run_view(datetime.now(UTC)))
    for _ in range(8):
        listener = Listener(served, "viewer portfolio")
        listener.next("hello")
        listener.answer.raw.close()
        listener.answer.close()
    assert eventually(lambda: Listener(served, "viewer portfolio").answer.status_code) == 200


def eventually(ask: Callable[[], int]) -> int:
    """The answer once it is 200; the last one after a hundred times."""
    found = 0
    for _ in range(100):
        found = ask()
        if found == 200:
            return found
        threading.Event().wait(0.05)
    return found


def test_the_store_is_never_written_by_the_board(served: Served, store_path: Path) -> None:
    put_view(store_path, run_view(datetime.now(UTC)))
    before = store_path.read_bytes()
    listener = Listener(served, "viewer portfolio")
    listener.next("beat")
    served.ask("GET", "/board", "viewer portfolio")
    assert store_path.read_bytes() == before


def test_the_board_as_json_has_the_number_of_its_changes(served: Served, store_path: Path) -> None:
    put_view(store_path, run_view(datetime.now(UTC)))
    answer = served.ask("GET", "/v1/board", "viewer portfolio")
    assert answer.json()["format"] == "killswitch.board/v1"
    assert answer.headers["X-Killswitch-Number"] == "1"


def test_a_reader_that_takes_nothing_for_a_minute_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "TAKEN_WITHIN", 0.01)
    closed: list[bool] = []

    async def stuck(message: Any) -> None:
        if message["type"] == "http.response.body" and message["body"]:
            await anyio.sleep_forever()

    async def silent() -> dict[str, str]:
        await anyio.sleep_forever()
        return {}

    async def answer() -> None:
        with anyio.fail_after(10):
            await event_stream.EventAnswer(stream(), b"hello", lambda: closed.append(True))({}, silent, stuck)

    anyio.run(answer)
    assert closed == [True]


def test_another_version_of_the_view_is_shown_as_unknown(served: Served, store_path: Path) -> None:
    store = open_store(str(store_path))
    store.put_live(LIVE_NAME, encode_view(run_view(datetime.now(UTC))).replace(b'"ticks"', b'"tocks"'))
    store.close()
    found = served.ask("GET", "/v1/board", "viewer portfolio").json()
    assert found["headline"]["tone"] == "alarm"
    assert any("another version" in each["text"] for each in found["troubles"])
