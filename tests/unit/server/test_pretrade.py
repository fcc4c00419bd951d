"""The gate of a server: reservations between questions, the lock at each question, and what gives no verdict."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.gate.changes import LockChanges, LockRequest
from killswitch.gate.lock_folder import LockFolder
from killswitch.gate.lock_reader import LockVerdict
from killswitch.limits.question import Question, decode_verdict, encode_question
from killswitch.limits.view import GateView, encode_gate_view
from killswitch.model.decision import LockOrder
from killswitch.model.snapshot import LockPart
from killswitch.operations.gate_answers import lock_state
from killswitch.server.pretrade import Gate, MistakenQuestionError, NoViewError
from tests.unit.limits.gates import NOW, asks, gate_account, held, limits, sizes, usdt, view
from tests.unit.server.conftest import Served

LATER = NOW + timedelta(minutes=5)


class Desk:
    """A gate that has run for long, over a view that a test writes."""

    def __init__(self, folder: Path, seen: GateView) -> None:
        self.path = folder / "ks.sqlite.gate.json"
        self.now = NOW - timedelta(minutes=5)
        self.write(seen)
        self.gate = Gate(self.path, self.path.with_name("sentinel"), lambda: self.now)
        self.now = NOW

    def write(self, seen: GateView) -> None:
        self.path.with_suffix(".new").write_bytes(encode_gate_view(seen))
        self.path.with_suffix(".new").replace(self.path)

    def ask(self, name: str, side: str, amount: str, account: str = "main", **more: Any) -> tuple[bool, str]:
        question = Question(name, account, (asks(side, amount, **more),))
        found = self.gate.ask(encode_question(question), lambda _: None)
        return found.allowed, found.reason


def test_what_was_allowed_counts_for_the_next_question(tmp_path: Path) -> None:
    """A limit of 500 USDT at a mark of 100: three and three are more than five."""
    desk = Desk(tmp_path, view(gate_account(rule=limits(position_size=sizes(usdt("500"))))))
    assert desk.ask("q1", "buy", "3") == (True, "allowed")
    assert desk.ask("q2", "buy", "3") == (False, "position_size")
    assert desk.ask("q3", "buy", "2") == (True, "allowed")
    desk.gate.report("main", b'{"question": "q1", "outcome": "not_sent"}')
    assert desk.ask("q4", "buy", "3") == (True, "allowed")


def test_the_lock_file_is_read_at_every_question(tmp_path: Path) -> None:
    """A lock that is written between two questions holds at the second; a missing file is a lock."""
    folder = tmp_path / "locks"
    folder.mkdir()
    seen = view(gate_account(held("long", "2"), rule=limits()), lock_folder=str(folder))
    desk = Desk(tmp_path, seen)
    assert desk.ask("q1", "buy", "1") == (False, "locked")
    assert desk.ask("q2", "sell", "1", reduce_only=True) == (True, "exit")


def test_a_gate_that_has_just_started_allows_only_what_the_venue_bounds(tmp_path: Path) -> None:
    """An order that an earlier gate allowed may still arrive."""
    desk = Desk(tmp_path, view(gate_account(held("long", "2"), rule=limits())))
    desk.gate = Gate(desk.path, desk.path.with_name("sentinel"), lambda: desk.now)
    assert desk.ask("q1", "buy", "1") == (False, "warming_up")
    assert desk.ask("q2", "sell", "1") == (False, "warming_up")
    assert desk.ask("q3", "sell", "1", reduce_only=True) == (True, "exit")


def test_a_view_that_grows_old_allows_no_entry(tmp_path: Path) -> None:
    """A runner that hangs writes no view, also where the account was prepared while it was fresh."""
    desk = Desk(tmp_path, view(gate_account(rule=limits())))
    assert desk.ask("q1", "buy", "1") == (True, "allowed")
    desk.now = LATER
    assert desk.ask("q2", "buy", "1") == (False, "view_stale")


def test_a_clock_that_goes_back_allows_no_entry(tmp_path: Path) -> None:
    """A day would begin again, and a stale view look fresh."""
    desk = Desk(tmp_path, view(gate_account(rule=limits())))
    assert desk.ask("q1", "buy", "1") == (True, "allowed")
    desk.now = NOW - timedelta(seconds=30)
    assert desk.ask("q2", "buy", "1") == (False, "clock_went_back")


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(b"{")])
def test_without_a_view_there_is_no_verdict(tmp_path: Path, change: Callable[[Path], object]) -> None:
    """The client then decides by the order's own claim."""
    desk = Desk(tmp_path, view(gate_account()))
    change(desk.path)
    with pytest.raises(NoViewError):
        desk.ask("q1", "buy", "1")


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"id": "q", "account": "main", "orders": [{"symbol": "BTC", "reduceOnly": true}]}']
)
def test_what_is_no_question_is_refused_with_its_place(tmp_path: Path, content: bytes) -> None:
    """A misspelt flag is no order without the flag."""
    desk = Desk(tmp_path, view(gate_account()))
    with pytest.raises(MistakenQuestionError):
        desk.gate.ask(content, lambda _: None)
    with pytest.raises(MistakenQuestionError):
        desk.gate.report("main", b"{}")


def test_over_http_the_token_must_reach_the_account(served: Served, store_path: Path) -> None:
    """200 is a verdict, and nothing else is."""
    question = encode_question(Question("q1", "main", (asks("sell", "1", reduce_only=True),)))
    json_body = {"Content-Type": "application/json"}
    path = "/v1/pretrade"
    assert served.ask("POST", path, "trader account/main", data=question, headers=json_body).status_code == 503
    seen = view(gate_account(held("long", "2")))
    Path(f"{store_path}.gate.json").write_bytes(encode_gate_view(replace(seen, as_of=datetime.now(NOW.tzinfo))))
    found = served.ask("POST", path, "trader account/main", data=question, headers=json_body)
    assert found.status_code == 200
    assert decode_verdict(found.content).allowed
    assert served.ask("POST", path, "viewer portfolio", data=question, headers=json_body).status_code == 403
    other = encode_question(Question("q2", "other", (asks("sell", "1"),)))
    assert served.ask("POST", path, "trader account/main", data=other, headers=json_body).status_code == 403
    unknown = served.ask("POST", path, "trader portfolio", data=other, headers=json_body)
    assert decode_verdict(unknown.content).reason == "unknown_account"
    report = served.ask("POST", f"{path}/main/result", "trader account/main",
                        json={"question": "q1", "outcome": "not_sent"})  # fmt: skip
    assert report.status_code == 204
    assert served.ask("POST", f"{path}/other/result", "trader account/main", json={}).status_code == 403


def test_the_sentinel_is_looked_for_at_every_question(tmp_path: Path) -> None:
    """It halts every account, and no exit."""
    desk = Desk(tmp_path, view(gate_account(held("long", "2"), rule=limits())))
    assert desk.ask("q1", "buy", "1") == (True, "allowed")
    desk.path.with_name("sentinel").touch()
    assert desk.ask("q1", "buy", "1") == (False, "sentinel")
    assert desk.ask("q2", "buy", "1") == (False, "sentinel")
    assert desk.ask("q3", "sell", "1") == (True, "exit")


def test_the_lock_of_a_strategy_is_read_where_the_question_names_one(tmp_path: Path) -> None:
    """The other strategies of the account trade on; a missing file of a strategy is a lock."""
    now = datetime.now(UTC)
    folder = tmp_path / "locks"
    folder.mkdir()
    files = LockFolder(folder, None, generation=1, alive_for=3600.0)
    watch = frozenset({"account/main", "strategy/grid", "strategy/trend"})
    request = LockRequest(LockOrder("strategy/grid", "reduce_only", None), None, "grid misbehaves", "d1")
    files.settle_scopes(LockChanges((request,), watch=watch), now, lambda: False)
    account = gate_account(rule=limits(stale_after=10**15))
    desk = Desk(tmp_path, view(account, lock_folder=str(folder)))
    desk.now = now

    def ask(name: str, strategy: str | None) -> str:
        question = Question(name, "main", (asks("buy", "1"),), strategy=strategy)
        return desk.gate.ask(encode_question(question), lambda _: None).reason

    assert ask("q1", None) == "allowed"
    assert ask("q2", "trend") == "allowed"
    assert ask("q3", "grid") == "locked"
    assert ask("q4", "unknown") == "locked"


def test_several_lock_files_say_the_strictest_together() -> None:
    """A part of one next to the whole of another is everything, each in its own mode."""
    long = LockPart("reduce_only", None, "long")
    parts = LockVerdict(True, "reduce_only", "a", (long,))
    whole = LockVerdict(True, "all", "b")
    opened = LockVerdict(False, None, "open")
    assert lock_state([opened]).mode is None
    assert lock_state([opened, parts]).only == (long,)
    both = lock_state([parts, whole])
    assert (both.mode, both.reason, both.mode_at("short", "X")) == ("all", "a; b", "all")
