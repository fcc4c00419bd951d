"""The gate as a bot asks it: a verdict is an answer of 200 to this question, and without one the claim decides."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from killswitch.client import PretradeAnswer, PretradeGate, lock_mode
from killswitch.client.heartbeat import monotonic_seconds

ENTRY = {"symbol": "BTC", "side": "buy", "amount": "1", "unit": "contracts"}
EXIT = {"symbol": "BTC", "side": "sell", "amount": "1", "unit": "contracts", "reduce_only": True}
Answers = Callable[[dict[str, Any]], tuple[int, Any]]


def allows(question: dict[str, Any]) -> tuple[int, Any]:
    """A verdict that allows."""
    return 200, {
        "format": "killswitch.verdict/v1", "question": question["id"], "allowed": True, "reason": "allowed",
        "text": "allowed", "valid_for_ms": 2000,
    }  # fmt: skip


def test_a_verdict_is_passed_on_with_its_time(tmp_path: Path) -> None:
    """It counts from when the question was put."""
    with gate(allows) as asked:
        before = monotonic_seconds()
        answer = asked.ask("main", ENTRY)
        assert (answer.may_send, answer.reason, answer.is_verdict) == (True, "allowed", True)
        assert before + 2 <= answer.until <= monotonic_seconds() + 2
        assert asked.may_still_send(answer, ENTRY)
        late = PretradeAnswer(answer.question, True, "allowed", "", True, monotonic_seconds() - 0.001)
        assert not asked.may_still_send(late, ENTRY)
        assert asyncio.run(asked.ask_async("main", ENTRY)).may_send


@pytest.mark.parametrize(
    "answers",
    [
        lambda _: (500, {}), lambda _: (503, {}), lambda _: (401, {}), lambda _: (202, {}), lambda _: (200, {}),
        lambda _: (200, []), lambda _: (200, "<html>"), lambda _: (204, ""),
        lambda q: (200, {**allows(q)[1], "question": "another"}), lambda q: (200, {**allows(q)[1], "format": "other"}),
        lambda q: (404, allows(q)[1]), lambda q: (200, {"format": "killswitch.verdict/v1", "question": q["id"]}),
    ],
)  # fmt: skip
def test_anything_else_is_no_verdict(answers: Answers) -> None:
    """What opens is not sent; what says that it reduces is."""
    with gate(answers) as asked:
        entry, leaving = asked.ask("main", ENTRY), asked.ask("main", EXIT)
    assert (entry.may_send, entry.reason, entry.is_verdict) == (False, "no_verdict", False)
    assert (leaving.may_send, leaving.reason, leaving.is_verdict) == (True, "no_verdict", False)


@pytest.mark.parametrize("allowed", ["true", 1, None, "yes"])
def test_only_true_is_consent(allowed: object) -> None:
    """A word that is nearly true denies."""
    with gate(lambda q: (200, {**allows(q)[1], "allowed": allowed})) as asked:
        assert not asked.ask("main", ENTRY).may_send


@pytest.mark.parametrize("claim", ["true", 1, "yes", None, False])
def test_only_true_is_a_claim(claim: object) -> None:
    """A text or a number in the flag claims nothing."""
    asked = PretradeGate("http://127.0.0.1:9", timeout=0.2)
    assert not asked.ask("main", {**EXIT, "reduce_only": claim}).may_send
    assert not asked.ask("main", EXIT, ENTRY).may_send, "a list with an entry is no exit"


def test_a_server_that_is_gone_or_hangs_gives_no_verdict() -> None:
    """Within its time-out."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        asked = PretradeGate(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2)
        assert not asked.ask("main", ENTRY).may_send
        assert asked.ask("main", EXIT).may_send
        asked.close()


@pytest.mark.parametrize("mode", ["reduce_only", "all"])
def test_without_a_verdict_a_lock_of_everything_keeps_exits_as_well(tmp_path: Path, mode: str) -> None:
    """And a lock that is written after the verdict holds when the order is about to be sent."""
    path = tmp_path / "account__main.json"
    write_lock(path, locked=True, mode=mode)
    asked = PretradeGate("http://127.0.0.1:9", timeout=0.2, lock_file=str(path))
    assert asked.ask("main", EXIT).may_send is (mode != "all")
    with gate(allows, lock_file=str(path)) as answering:
        answer = answering.ask("main", ENTRY)
        assert not answering.may_still_send(answer, ENTRY)
        assert answering.may_still_send(answer, EXIT) is (mode != "all")


def test_an_idle_connection_that_the_server_has_closed_is_opened_again() -> None:
    """With the same question, so that nothing is reserved twice."""
    with gate(allows, closes=True) as asked:
        assert asked.ask("main", ENTRY).is_verdict
        assert asked.ask("main", ENTRY).is_verdict


def write_lock(path: Path, **changed: object) -> None:
    """A lock file as a runner writes it."""
    record = {"locked": False, "mode": "reduce_only", "alive_until": time.time() + 30, **changed}
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("changed", "mode"),
    [
        ({}, "open"), ({"locked": True}, "reduce_only"), ({"locked": True, "mode": "all"}, "all"),
        ({"alive_until": 1.0}, "reduce_only"), ({"alive_until": 1e12}, "reduce_only"),
        ({"alive_until": None}, "reduce_only"), ({"locked": "false"}, "reduce_only"), ({"locked": 0}, "reduce_only"),
    ],
)  # fmt: skip
def test_a_lock_file_is_read_as_the_documentation_says(tmp_path: Path, changed: dict[str, Any], mode: str) -> None:
    """Stale is locked, and so is what is not surely open."""
    write_lock(tmp_path / "lock.json", **changed)
    assert lock_mode(str(tmp_path / "lock.json")) == mode


def test_a_missing_or_damaged_lock_file_is_a_lock(tmp_path: Path) -> None:
    """Also a folder, and a file of another program."""
    assert lock_mode(str(tmp_path / "none.json")) == "reduce_only"
    assert lock_mode(str(tmp_path)) == "reduce_only"
    for content in ("", "[]", "{}", '{"locked": false}', "\x00"):
        (tmp_path / "lock.json").write_text(content)
        assert lock_mode(str(tmp_path / "lock.json")) == "reduce_only", content


@pytest.mark.parametrize("address", ["", "127.0.0.1:8600", "ftp://a", "http://a:b@c", "http://a/?token=x"])
def test_an_address_that_is_none_is_an_error_at_the_start(address: str) -> None:
    """Not at the first order."""
    with pytest.raises(ValueError, match="no address of a gate"):
        PretradeGate(address)


@contextmanager
def gate(answers: Answers, *, closes: bool = False, lock_file: str | None = None) -> Iterator[PretradeGate]:
    """A client of a server on loopback that answers each question so. `closes`: after each answer, unannounced."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = answers(question)
            content = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = closes

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    asked = PretradeGate(f"http://127.0.0.1:{server.server_port}", "kst_test", lock_file=lock_file, timeout=10.0)
    try:
        yield asked
    finally:
        asked.close()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("only", "order", "may_send"),
    [
        ([{"mode": "reduce_only", "until": None, "side": "short"}], {}, True),
        ([{"mode": "reduce_only", "until": None, "side": "long"}], {}, False),
        ([{"mode": "reduce_only", "until": None, "side": "long"}], {"side": "sell"}, True),
        ([{"mode": "reduce_only", "until": None, "side": "long"}], {"side": "sell", "position_side": "long"}, False),
        ([{"mode": "all", "until": None, "symbols": ["ETH"]}], {}, True),
        ([{"mode": "all", "until": None, "symbols": ["ETH", "BTC"]}], {"reduce_only": True}, False),
        ([{"mode": "reduce_only", "until": None, "symbols": ["BTC"]}], {"reduce_only": True}, True),
        ([{"mode": "reduce_only", "until": None, "symbols": ["ETH"]}, {"mode": "all", "until": None}], {}, False),
        ([{"mode": "reduce_only", "until": None, "side": "short", "symbols": ["BTC"]}], {}, True),
        ([{"mode": "reduce_only", "until": None, "side": "short"}], {"side": None}, False),
        ([{"mode": "reduce_only", "until": None, "symbols": ["ETH"]}], {"symbol": None}, False),
        ([], {}, False), ("short", {}, False), ({}, {}, False), ([1], {}, False), ([None], {}, False),
        ([{"side": "up", "mode": "all", "until": None}], {}, False), ([{"symbols": "ETH"}], {}, False),
        ([{"side": "short", "mode": "all", "symbols": [1]}], {}, False), ([{"side": "short"}], {}, False),
    ],
)  # fmt: skip
def test_a_lock_of_a_part_holds_the_orders_that_it_reaches(
    tmp_path: Path, only: object, order: dict[str, object], may_send: bool
) -> None:
    """As docs/lock.md has it: what cannot be understood is a lock of everything. Unjudged, the order is held."""
    path = tmp_path / "account__main.json"
    write_lock(path, locked=True, only=only)
    sent = {**ENTRY, **order}
    with gate(allows, lock_file=str(path)) as asked:
        answer = asked.ask("main", sent)
        assert asked.may_still_send(answer, sent) is may_send
        if "reduce_only" not in sent:
            assert not asked.may_still_send(answer, sent, {**ENTRY, "symbol": None, "side": None}), (
                "a list goes as a whole"
            )
            assert not asked.may_still_send(PretradeAnswer("q", True, "no_verdict", "", False, answer.until), sent)
