"""The record in the store: chained in the transaction of what it records, never forked, whole after every fault."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from killswitch.model.applied_set import AppliedSet, Approval, PolicyOrigin
from killswitch.model.decision import Decision, Notice, encode_decision
from killswitch.model.instant import to_micros
from killswitch.model.record_entry import RecordEntry
from killswitch.model.snapshot import Event
from killswitch.model.store import JournalEntry, Outgoing, TickRecord
from killswitch.record.verification import RecordReport, RecordVerifier
from killswitch.store.errors import DuplicateDecisionError, FencedError
from killswitch.store.record_chain import ChainWriter
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
DECISION = Decision(
    id="d1", as_of=NOW, policy="p", policy_set="sha256:0", scope="account/main", mode="enforce", stage="close",
    level=1, previous_level=0, commit="c0ffee",
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture
def store(path: Path, connections: list[sqlite3.Connection]) -> Iterator[SqlStore]:
    """A store under a lease of its own; the lines of the chain and of the start are its first two."""
    opened = open_store(str(path))
    opened.fence(opened.acquire("me", to_micros(NOW), 10).generation)
    yield opened
    opened.close()


def tick(**more: Any) -> TickRecord:
    values = {"states": (), "rows": (), "decisions": (), "notices": (), "journal": (), "snapshot": None}
    return TickRecord(**{"as_of": NOW, "policy_set": "p", "consumed_events": (), "prune_before": 0, **values, **more})


def row(kind: Any, order: str | None = None, /, **data: str | None) -> JournalEntry:
    return JournalEntry("d1", kind, NOW, "main", "BTC/USDT:USDT", "long", order, 1 if order else None, data)


def lines(store: SqlStore, first: int = 3) -> list[dict[str, Any]]:
    """The lines of the record, parsed."""
    return [json.loads(line.text) for line in store.record_lines(first)]


def report_of(store: SqlStore) -> RecordReport:
    verifier = RecordVerifier(body=store.record_body)
    verifier.read("store", (line.text + b"\n" for line in store.record_lines()))
    return verifier.report()


def test_a_chain_begins_with_its_id_and_the_start_of_the_run(store: SqlStore) -> None:
    """Who started it is a salted digest; the tip is the last line."""
    first, second = lines(store, 1)
    assert (first["kind"], first["format"], first["seq"], first["prev"]) == (
        "chain",
        "killswitch.audit/v1",
        1,
        "0" * 64,
    )
    assert (second["kind"], second["generation"]) == ("started", 1)
    assert set(second["owner"]) == {"salted"}
    tip = store.record_tip()
    assert tip is not None
    assert (tip.chain, tip.number, tip.root.hex()) == (first["chain"], 2, report_of(store).root)


def test_a_tick_is_on_record_in_the_order_in_which_it_acts(store: SqlStore) -> None:
    """Set, command, decision, plan, notice, notification: announced before anything is sent."""
    origin = PolicyOrigin(
        source="git", commit="c0ffee", verdict="LOOSENING", signers=("ingrid",),
        approvals=(Approval(id="a", principal="bo", key="k", expires_at=NOW),),
    )  # fmt: skip
    store.put_event(Event("e1", NOW, "reset", "account/main", author="ingrid@desk.example", reason="checked by phone"))
    store.commit_tick(
        tick(
            applied=AppliedSet(digest="sha256:0", at=NOW, program="1", origin=origin),
            decisions=(DECISION,),
            journal=(row("planned", target="0"), row("planned", target="0")),
            notices=(Notice(NOW, "p", "account/main", "warning", "page", "it is falling"),),
            messages=(Outgoing("m1", to_micros(NOW), "desk", "mail desk@example.org", b"{}"),),
            consumed_events=("e1",),
            refused_events=frozenset({"e1"}),
        )
    )
    found = lines(store)
    assert [each["kind"] for each in found] == [
        "policy_set", "loosening", "command", "loosening", "decision", "order", "order", "notice", "notification",
    ]  # fmt: skip
    by_kind = {each["kind"]: each for each in found}
    assert (by_kind["policy_set"]["commit"], by_kind["policy_set"]["approvals"]) == ("c0ffee", 1)
    assert (by_kind["command"]["verb"], by_kind["command"]["refused"]) == ("reset", True)
    loosened = [(each["class"], each["result"]) for each in found if each["kind"] == "loosening"]
    assert loosened == [("policy set", "granted"), ("reset", "refused")]
    body = encode_decision(DECISION)
    assert by_kind["decision"]["body"] == {"sha256": sha256(body).hexdigest(), "size": len(body)}
    assert [each.get("announces", False) for each in found if each["kind"] == "order"] == [True, False]
    assert report_of(store).verdict == "verified"
    assert not any(name in json.dumps(found) for name in ("ingrid", "phone", "example.org", "falling"))


def test_an_answer_names_the_line_that_announced_the_request(store: SqlStore) -> None:
    """An order is announced before it is sent; an open result answers nothing."""
    store.append(row("sending", "ks-1", amount="1"))
    store.append(row("sending", "ks-2", amount="1"))
    store.append(row("acknowledged", "ks-1", order="77"))
    store.append_all((row("unknown", "ks-2", text="no answer"), row("filled", "ks-1", filled="1")))
    found = [(each["entry"], each.get("announces"), each.get("answers")) for each in lines(store)]
    assert found == [
        ("sending", True, None), ("sending", True, None), ("acknowledged", None, 3), ("unknown", None, None),
        ("filled", None, 3),
    ]  # fmt: skip
    assert report_of(store).unanswered.first == [4]


def test_the_end_of_work_answers_its_plan_and_a_cancel_its_announcement(store: SqlStore) -> None:
    """Also of protective orders, whose answer may leave them open."""
    store.append_all((row("planned", target="0"), row("unprotected", order="p9"), row("cancelled", order="p9")))
    store.append_all((row("protected", "ks-3"), row("guarded", "ks-3", state="unknown")))
    store.append_all((row("guarded", "ks-3", state="accepted"), row("finished", status="flat")))
    found = [(each["seq"], each["entry"], each.get("answers")) for each in lines(store)]
    assert found == [
        (3, "planned", None), (4, "unprotected", None), (5, "cancelled", 4), (6, "protected", None),
        (7, "guarded", None), (8, "guarded", 6), (9, "finished", 3),
    ]  # fmt: skip
    assert report_of(store).unanswered.count == 0


def test_what_became_of_a_notification_answers_it(store: SqlStore) -> None:
    """Delivered, or given up with the reason kept outside of the line."""
    sent = [Outgoing(name, to_micros(NOW), "desk", "t", b"{}") for name in ("m1", "m2", "m3")]
    store.commit_tick(tick(messages=tuple(sent)))
    store.settle("m1", to_micros(NOW), None)
    store.settle("m2", to_micros(NOW), "down")
    assert store.give_up("t", to_micros(NOW) + 1, to_micros(NOW), "too old") == 2
    found = [(each["message"], each["state"], each["answers"]) for each in lines(store) if each["kind"] == "delivery"]
    assert found == [("m1", "delivered", 3), ("m2", "given_up", 4), ("m3", "given_up", 5)]


def test_a_tick_that_fails_leaves_no_line(store: SqlStore) -> None:
    """Journal and record cannot disagree: both are written, or neither."""
    store.commit_tick(tick(decisions=(DECISION,)))
    before = store.record_tip()
    with pytest.raises(DuplicateDecisionError):
        store.commit_tick(tick(decisions=(DECISION,), journal=(row("planned"),)))
    assert store.record_tip() == before
    store.append(row("sending", "ks-1"))
    assert report_of(store).verdict == "verified"


def test_two_writers_never_fork_the_chain(store: SqlStore, path: Path) -> None:
    """The tip is read under the write lock of the database, whoever writes."""
    other = open_store(str(path))
    writers = [
        threading.Thread(target=lambda each=each: [each.append(row("verified", position="1")) for _ in range(40)])
        for each in (store, other)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    other.close()
    report = report_of(store)
    assert (report.entries, report.breaks, report.verdict) == (82, 0, "verified")


def test_a_holder_that_lost_its_lease_writes_no_line(store: SqlStore, path: Path) -> None:
    """One writer a chain."""
    later = open_store(str(path))
    later.acquire("another", to_micros(NOW) + 100, 10)
    later.close()
    with pytest.raises(FencedError):
        store.add_to_record([RecordEntry("watched", NOW)])
    assert [each["kind"] for each in lines(store)] == ["started"]


def test_an_end_in_order_is_on_record_and_a_released_lease_of_the_dead_is_not(store: SqlStore) -> None:
    """So a start without an end before the next start is an unclean end."""
    store.release("me", to_micros(NOW))
    store.acquire("next", to_micros(NOW), 10)
    store.release("next")
    assert [each["kind"] for each in lines(store)] == ["ended", "started"]


def test_entries_of_a_run_in_memory_get_numbers_and_hashes_once_they_are_stored(
    store: SqlStore, connections: list[sqlite3.Connection]
) -> None:
    """They are marked late, keep the time at which they were made, and answer what was announced before."""
    store.append(row("sending", "ks-1"))
    store.allow_memory(lambda _: None)
    for each in connections:
        each.execute("PRAGMA max_page_count = 1")  # the answer is SQLITE_FULL, as on a full disk
    store.append(row("filled", "ks-1", note="x" * 40_000))
    store.append(row("sending", "ks-2"))
    assert len(lines(store)) == 1
    store.release("me", to_micros(NOW))
    found = lines(store)
    assert [(each["kind"], "late" in each) for each in found] == [
        ("order", False), ("order", True), ("order", True), ("ended", False),
    ]  # fmt: skip
    assert (found[1]["answers"], found[1]["at"]) == (3, "2026-03-02T09:30:00Z")
    report = report_of(store)
    assert (report.verdict, report.late.count, report.unanswered.first) == ("verified", 2, [5])


def test_a_changed_row_is_found_where_it_is(store: SqlStore, path: Path) -> None:
    """Of a line, and of a body that the store keeps elsewhere."""
    store.commit_tick(tick(decisions=(DECISION,)))
    store.append(row("sending", "ks-1"))
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE decisions SET body = replace(body, 'account/main', 'account/none')")
    assert (report_of(store).altered.first, report_of(store).verdict) == ([3], "contradicted")
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE record SET line = CAST(replace(line, 'sha256:0', 'sha256:1') AS BLOB) WHERE number = 3")
    found = report_of(store).first_break
    assert found is not None
    assert found.number == 4


def test_erasing_a_name_leaves_the_chain_whole(store: SqlStore) -> None:
    """Value and salt are gone, so that the digest in the line says nothing any more."""
    for number in (1, 2):
        event = Event(f"e{number}", NOW, "reset", author="ingrid@desk.example", reason="because")
        store.put_event(event)
        store.commit_tick(tick(consumed_events=(event.id,)))
    assert [value for _, _, value in store.record_values() if value == b"ingrid@desk.example"] == [
        b"ingrid@desk.example"
    ] * 2
    assert store.erase_values(b"ingrid@desk.example") == 2
    assert b"ingrid@desk.example" not in [value for _, _, value in store.record_values()]
    assert report_of(store).verdict == "verified"


def test_a_command_that_cannot_be_read_is_on_record_as_refused(store: SqlStore, path: Path) -> None:
    """By the digest of its bytes."""
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("INSERT INTO events (id, body) VALUES ('odd', CAST('{' AS BLOB))")
    store.commit_tick(tick(consumed_events=("odd",)))
    (found,) = lines(store)
    assert (found["command"], found["refused"], found["body"]["size"]) == ("odd", True, 1)


def test_people_ask_for_decisions_orders_and_positions_with_sqlite(store: SqlStore, path: Path) -> None:
    """Views over rows that the store has anyway: the newest entry of an order, the last position of a decision."""
    store.commit_tick(tick(decisions=(DECISION,)))
    store.append_all((row("sending", "ks-1", side="sell", amount="2"), row("sending", "ks-2", side="sell", amount="3")))
    store.append_all((row("filled", "ks-1", filled="2", price="99.5"), row("charged", "ks-1", fee="0.1")))
    store.append_all((row("verified", position="5", target="0"), row("verified", position="3", target="0")))
    with closing(sqlite3.connect(path)) as raw:
        decisions = raw.execute("SELECT decision, at, stage, level, decided, intents FROM ask_decisions").fetchall()
        orders = raw.execute("SELECT client_order_id, amount, state, filled, fill_price FROM ask_orders").fetchall()
        positions = raw.execute("SELECT symbol, position, target FROM ask_positions").fetchall()
    assert decisions == [("d1", "2026-03-02T09:30:00.000Z", "close", 1, "stage", 0)]
    assert orders == [("ks-1", "2", "filled", "2", "99.5"), ("ks-2", "3", "sending", None, None)]
    assert positions == [("BTC/USDT:USDT", "3", "0")]


def test_a_line_that_was_rolled_back_leaves_no_trace_in_the_next_one(store: SqlStore, path: Path) -> None:
    """The writer keeps the end that it wrote, which is not the end of the record where its commit failed."""
    chain, entry = ChainWriter(), RecordEntry("notice", NOW, {"policy": "p"})
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        for end in ("COMMIT", "ROLLBACK", "COMMIT", "COMMIT"):
            raw.execute("BEGIN IMMEDIATE")
            chain.write(raw, [entry])
            raw.execute(end)
    report = report_of(store)
    assert (report.breaks, report.verdict) == (0, "verified")
    assert [each["seq"] for each in lines(store) if each["kind"] == "notice"] == [3, 4, 5]
