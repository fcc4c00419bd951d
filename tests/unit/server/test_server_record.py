"""The server's own record: logins, requests with an effect, tokens; what waits for it, and what does not."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from killswitch.cli import ksctl
from killswitch.model.record_entry import RecordEntry
from killswitch.record.anchors import Anchor, anchor_text
from killswitch.record.line import keys_of
from killswitch.server.rates import ServerCounters
from killswitch.server.server_record import (
    MOST_FIRSTS,
    PERIOD,
    WITHIN,
    CountedRepetitions,
    ServerRecord,
    UnrecordedError,
)
from killswitch.store.recorded import server_record_of
from killswitch.store.sqlite import open_store
from tests.unit.server.conftest import CREATED, Served


def lines(store: Path) -> list[dict[str, Any]]:
    """The lines of the server's chain, without the one that begins it."""
    with closing(open_store(str(server_record_of(store)), read_only=True)) as found:
        read = [keys_of(each.text) for each in found.record_lines()]
    assert read[0] is not None and read[0]["kind"] == "chain"
    return [each for each in read[1:] if each is not None]


def written(served: Served, store: Path) -> list[dict[str, Any]]:
    """The lines once the server has ended, which writes what waits."""
    served.stop()
    assert served.record.finish()
    return lines(store)


@pytest.fixture
def store_at(tmp_path: Path) -> Path:
    path = tmp_path / "ks.sqlite"
    open_store(str(path)).close()
    return path


def test_a_credential_is_a_login_once_a_day_and_names_nobody_in_the_line(served: Served, store_path: Path) -> None:
    """Name and address are salted: they can be erased, and the chain stays whole."""
    for _ in range(3):
        assert served.ask("GET", "/v1/status", "viewer portfolio").status_code in (200, 409, 503)
    (login,) = written(served, store_path)
    assert (login["kind"], login["result"]) == ("login", "accepted")
    assert set(login["actor"]) == set(login["source"]) == {"salted"}


def test_failed_logins_of_a_source_are_one_line_and_then_a_count(served: Served, store_path: Path) -> None:
    """An attacker does not fill the record: 30 failures are two lines, whatever they are answered with."""
    for _ in range(30):
        assert served.ask("GET", "/v1/status").status_code in (401, 429)
    first, count = written(served, store_path)
    assert (first["kind"], first["result"], "count" in first) == ("login", "failed", False)
    assert (count["result"], count["count"]) == ("failed", 29)


def test_a_request_with_an_effect_is_announced_and_answered(served: Served, store_path: Path) -> None:
    """The answer has the number of the line that announced it; a read and a preview leave no line."""
    answer = served.give("trader account/main", "close-it-now", kind="close", scope="account/main", reason="feed lost")
    assert answer.status_code == 202
    served.ask("GET", "/v1/status", "trader account/main")
    served.ask("POST", "/v1/approvals/preview", "trader account/main", json={"statement": "none"})
    found = [each for each in written(served, store_path) if each["kind"] == "request"]
    announced, answered = found
    assert (announced["effect"], announced["scope"], announced["announces"]) == ("tighten", "account/main", True)
    assert (answered["answers"], answered["status"]) == (announced["seq"], 202)


CLEARED: dict[str, Any] = {"kind": "flag", "flag": "news", "set": False, "reason": "over"}
"""What lets risk in again, where a trigger reads the flag."""


def test_who_waits_for_a_line_of_the_record_holds_up_nobody(
    served: Served, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one request waits to be on record, a halt is given and answered: the loop is free."""
    begun, may_end = threading.Event(), threading.Event()

    def confirm(_line: threading.Event) -> None:
        begun.set()
        assert may_end.wait(60.0)

    monkeypatch.setattr(served.record, "confirm", confirm)
    answers: list[int] = []
    loosening = threading.Thread(
        target=lambda: answers.append(served.give("risk portfolio", "clear-the-flag", **CLEARED).status_code)
    )
    loosening.start()
    try:
        assert begun.wait(60.0)
        halt = served.give("risk portfolio", "halt-it-now", kind="halt", scope="account/main", reason="seen")
        assert (halt.status_code, answers) == (202, [])
    finally:
        may_end.set()
        loosening.join()
    assert answers == [202]


def test_a_refusal_for_want_of_a_record_is_answered_in_it(served: Served, store_path: Path) -> None:
    """Announced and answered with 503 once the file accepts lines, so that nobody looks for its effect."""
    at = server_record_of(store_path)
    at.mkdir()
    refused = served.give("risk portfolio", "clear-the-flag", **CLEARED)
    assert refused.status_code == 503
    assert not served.spool.is_waiting
    at.rmdir()
    announced, answered = [each for each in written(served, store_path) if each["kind"] == "request"]
    assert (announced["effect"], answered["status"]) == ("loosen", 503)
    assert answered["answers"] == announced["seq"]


def test_a_token_is_on_record_when_it_is_issued_and_when_it_is_revoked(served: Served, store_path: Path) -> None:
    """With its id, its role and its scopes, and never with its secret."""
    body = {"principal": "maker", "role": "viewer", "scopes": ["account/main"]}
    issued = served.ask("POST", "/v1/tokens", "admin portfolio", json=body, headers={"Idempotency-Key": "token-one"})
    assert issued.status_code == 201
    id_ = issued.json()["id"]
    assert served.ask("POST", f"/v1/tokens/{id_}/revoke", "admin portfolio", json={}).status_code == 204
    found = written(served, store_path)
    tokens = [each for each in found if each["kind"] == "token"]
    assert [(each["token"], each["result"], each["role"]) for each in tokens] == [
        (id_, "issued", "viewer"), (id_, "revoked", "viewer"),
    ]  # fmt: skip
    assert [each["effect"] for each in found if "effect" in each] == ["administer", "administer"]
    assert issued.json()["token"] not in json.dumps(found)


class Unwritable:
    """A server's record whose file accepts nothing until `free`."""

    def __init__(self, store: Path) -> None:
        self._at = server_record_of(store)
        self._at.mkdir()
        self.record = ServerRecord(store, lambda: datetime.now(UTC), lambda: 0.0, ServerCounters())

    def free(self) -> None:
        self._at.rmdir()


@pytest.fixture
def unwritable(store_at: Path) -> Iterator[Unwritable]:
    found = Unwritable(store_at)
    yield found
    found.record.finish()


def test_what_loosens_is_refused_while_the_record_cannot_be_written_and_what_tightens_is_not(
    unwritable: Unwritable, store_at: Path
) -> None:
    """It names the way out, and the attempt is on record once the file accepts lines, with when that was."""
    unwritable.record.requested("ann", "tighten", None, "/v1/commands")
    with pytest.raises(UnrecordedError, match="Free space on its disk, or give the command with `ksctl`"):
        unwritable.record.confirm(unwritable.record.requested("ann", "loosen", None, "/v1/commands")[1])
    unwritable.free()
    assert unwritable.record.finish()
    assert [(each["effect"], "late" in each) for each in lines(store_at)] == [("tighten", True), ("loosen", True)]


def test_repetitions_are_counted_by_name_and_those_of_many_names_together() -> None:
    """A flood from many addresses is a bounded number of lines; a period without any ends the count."""
    now = [0.0]
    counted = CountedRepetitions(lambda: now[0])
    assert [counted.first(f"10.0.0.{each % 256}.{each}") for each in range(500)].count(True) == MOST_FIRSTS
    assert counted.due() == []
    now[0] = PERIOD
    assert counted.due() == [("", 500 - MOST_FIRSTS)]
    now[0] = 2 * PERIOD
    assert counted.due() == [] and not counted.is_open
    assert counted.first("10.0.0.1") and not counted.first("10.0.0.1")
    assert counted.due(at_end=True) == [("10.0.0.1", 1)]


def verify(*arguments: object) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(ksctl, ["audit", "verify", *map(str, arguments), "-o", "json"], standalone_mode=False)
    assert result.exception is None, result.exception
    return result.return_value, json.loads(result.stdout)


def test_verify_covers_both_chains_and_holds_an_anchor_against_the_one_that_it_names(store_at: Path) -> None:
    """A change of the server's chain contradicts; a chain that was replaced leaves an anchor of another one."""
    record = ServerRecord(store_at, lambda: datetime.now(UTC), lambda: 0.0, ServerCounters())
    record.login("ann", "01234567", "127.0.0.1")
    assert record.finish()
    tips = []
    with closing(open_store(str(store_at))) as store:
        store.add_to_record([RecordEntry("started", CREATED)])
        tips.append(store.record_tip())
    at = server_record_of(store_at)
    with closing(open_store(str(at), read_only=True)) as server:
        tips.append(server.record_tip())
    anchors = store_at.with_name("anchors.txt")
    anchors.write_text("".join(anchor_text(Anchor(it.chain, it.number, it.root.hex())) for it in tips if it))
    code, found = verify("--store", store_at, "--anchors", anchors)
    assert (code, found["report"]["entries"], found["server"]["entries"]) == (0, 2, 2)
    with closing(sqlite3.connect(at)) as raw:
        raw.execute("UPDATE record SET line = replace(line, 'accepted', 'rejected') WHERE number = 2")
        raw.commit()
    assert verify("--store", store_at, "--anchors", anchors)[0] == 1
    at.unlink()
    assert verify("--store", store_at, "--anchors", anchors)[0] == 4


def test_a_record_that_hangs_is_waited_for_by_one_request_and_refuses_the_others_at_once(
    store_at: Path,
) -> None:
    """Each wait takes a thread: of many requests only the first has one for half a second."""
    record = ServerRecord(store_at, lambda: CREATED, lambda: 0.0, ServerCounters())
    waits: list[float | None] = []

    class Hanging(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            return False

    for _ in range(3):
        with pytest.raises(UnrecordedError, match="accepts no line within"):
            record.confirm(Hanging())
    assert waits == [WITHIN]
    record.later("request", {}).wait()
    record.confirm(record.later("request", {}))
    assert record.finish()
