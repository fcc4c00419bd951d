"""A store that is locked, damaged, moved or out of descriptors during a run: the run continues."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from killswitch.cli.session import acting_store
from killswitch.model.alert import NO_ALERTS
from killswitch.model.snapshot import Event
from killswitch.model.store import EquityCurvePoint, JournalEntry, Outgoing, TickRecord
from killswitch.operations.status import store_status
from killswitch.runner import process
from killswitch.runner.assembly import LockPaths
from killswitch.runner.disk_space import DiskSpace
from killswitch.runner.process import BASE, PER_ACCOUNT, make_room
from killswitch.store import fallback
from killswitch.store.errors import (
    DamagedStoreError,
    FencedError,
    MediumError,
    StoreError,
    WriteLockedError,
)
from killswitch.store.fallback import TABLES, salvage
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import copy_store, exposure, open_store
from tests.runner_world import ScriptedVenue, Seen, World, book

NOW = datetime(2021, 5, 19, tzinfo=UTC)
LONG = 60.0
"""Seconds that nothing here comes near: a patience that ends with what it waits for."""


def entry(kind: Any = "sending") -> JournalEntry:
    return JournalEntry("d1", kind, NOW, account="main")


def tick(*consumed: str, messages: tuple[Outgoing, ...] = ()) -> TickRecord:
    return TickRecord(NOW, "p", (), (), (), (), (entry(),), None, consumed, 0, messages)


def message(id_: str) -> Outgoing:
    return Outgoing(id_, 1, "desk", "file", b"{}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[SqlStore]:
    """A store under a lease of its own, whose holder need not have it on the disk."""
    opened = open_store(str(path))
    opened.fence(opened.acquire("me", 0, 10).generation)
    opened.allow_memory(lambda _: None)
    yield opened
    opened.close()


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Another connection has started to write and does not end, like a forgotten shell."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        yield shell
        if shell.in_transaction:
            shell.execute("ROLLBACK")


def altered(path: Path, *statements: str) -> None:
    """Another process writes into the store during the run."""
    with closing(sqlite3.connect(path, isolation_level=None)) as shell:
        for statement in statements:
            shell.execute(statement)


def journal(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as shell:
        return [kind for (kind,) in shell.execute("SELECT kind FROM journal ORDER BY sequence")]


# A write lock of another process


def test_a_write_lock_of_another_process_does_not_stop_the_holder(
    store: SqlStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It continues in memory, reports why, and all of it is in the store once the lock is released."""
    monkeypatch.setattr(fallback, "HOLDER_TIMEOUT", 0.01)
    monkeypatch.setattr(fallback, "RETURN_EVERY", 0.0)
    store.commit_tick(tick())
    with locked(path):
        store.commit_tick(tick())
        store.append(entry("acknowledged"))
        assert journal(path) == ["sending"]
        assert "another process holds its write lock" in (store.trouble or "")
    store.append(entry("filled"))
    assert store.trouble is None
    assert journal(path) == ["sending", "sending", "acknowledged", "filled"]


def test_a_short_commit_of_another_process_moves_no_holder_to_memory(
    store: SqlStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands are stored during a run all the time: a commit that ends within the timeout is only waited for."""
    monkeypatch.setattr(fallback, "HOLDER_TIMEOUT", LONG)
    with locked(path) as shell:
        threading.Timer(0.1, shell.execute, ("COMMIT",)).start()
        store.append(entry())
    assert store.trouble is None
    assert journal(path) == ["sending"]


def test_the_last_write_of_a_run_waits_for_a_lock(store: SqlStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content that is in memory only ends with the process, so that the end of a run is worth some patience."""
    monkeypatch.setattr(fallback, "HOLDER_TIMEOUT", 0.01)
    monkeypatch.setattr(fallback, "LAST_TIMEOUT", LONG)
    with locked(path) as shell:
        store.append(entry())
        threading.Timer(0.1, shell.execute, ("COMMIT",)).start()
        store.release("me")
    assert store.trouble is None
    assert journal(path) == ["sending"]


def test_a_runner_that_acquired_the_store_after_the_lock_ends_the_one_in_memory(
    store: SqlStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease expired behind the lock: it sends nothing in parallel with the new one, and overwrites nothing."""
    monkeypatch.setattr(fallback, "HOLDER_TIMEOUT", 0.01)
    with locked(path):
        store.append(entry())
    other = open_store(str(path))
    other.acquire("you", 20, 10)
    for every in (1e9, 0.0):
        monkeypatch.setattr(fallback, "LOCKED_RETURN_EVERY", every)
        with pytest.raises(FencedError, match="while this process could not write"):
            store.append(entry())
    assert other.journal() == []
    other.close()


def test_a_command_that_finds_the_store_locked_names_the_way_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that only starts holds no lease, and must not act on a memory of its own without being asked."""
    open_store(str(path)).close()
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda at, **options: connect(at, **options | {"timeout": 0.01}))
    with locked(path), pytest.raises(WriteLockedError, match=r"`fuser` on the file.*--journal memory"):
        open_store(str(path))


# Commands that cannot be read


def put(path: Path, id_: str, body: object) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as shell:
        shell.execute("INSERT INTO events (id, body) VALUES (?, ?)", (id_, body))


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"id": "e1", "at": "2021-05-19T00:00:00Z", "kind": "freeze"}).encode(),
        b"{}",
        b"\xff",
        b"[" * 100_000,
        7,
        json.dumps({"id": "another", "at": "2021-05-19T00:00:00Z", "kind": "close"}).encode(),
    ],
)
def test_an_unreadable_command_does_not_keep_others_from_their_tick(store: SqlStore, path: Path, body: object) -> None:
    """One of a newer version, a damaged one, and one under another's id, which no tick would ever consume."""
    put(path, "e1", body)
    store.put_event(Event("e2", NOW, "close"))
    found = store.commands()
    assert [each.id for each in found.events] == ["e2"]
    assert [each.id for each in found.unreadable] == ["e1"]
    store.commit_tick(tick("e1"))
    assert store.commands().unreadable == ()


def test_an_unreadable_command_is_paged_once_consumed_and_the_run_continues(tmp_path: Path) -> None:
    """Its author reads that it must be given again; `status` shows it while no runner has consumed it."""
    world = World(tmp_path)
    store, seen = world.open(), Seen()
    put(tmp_path / "store.sqlite", "hand-1", b'{"kind": "freeze"}')
    assert any("hand-1 cannot be read and is discarded" in each for each in store_status(store, NOW, 0).problems)

    async def run() -> None:
        runner = world.runner(store, [ScriptedVenue(book("1100"))], witnesses=(seen,))
        await runner.start()
        for _ in range(3):
            await runner.tick()
            await world.clock.sleep(1.0)
        await runner.finish()

    asyncio.run(run())
    notices = [each for report in seen.reports for each in report.notices if each.subject == "hand-1"]
    assert [(each.severity, "repeat it" in each.text) for each in notices] == [("page", True)]
    assert store.commands().unreadable == ()
    world.close()


# Damage during a run


@pytest.mark.parametrize("table", TABLES)
def test_a_run_continues_in_memory_whatever_table_is_lost(store: SqlStore, path: Path, table: str) -> None:
    """It keeps its lease, pages that are due and commands that can still be read, and leaves the file unchanged."""
    store.commit_tick(tick(messages=(message("m1"),)))
    store.put_event(Event("e1", NOW, "close"))
    altered(path, f"DROP TABLE {table}")
    before = path.read_bytes()
    store.acquire("me", 5, 10)
    waiting = [each.id for each in store.pending_events()]
    store.commit_tick(tick(messages=(message("m2"),)))
    store.put_live("tick", b"1")
    store.keep_incident("i1", b"{}", (EquityCurvePoint(1, 1.0),))
    assert [len(each) for each in (store.states(), store.decisions(9), store.notices(9))] == [0, 0, 0]
    assert (store.set_changes(9), store.policy_files("sha256:d"), store.suppressions(9)) == ([], None, [])
    assert store.record_checkpoint() is None
    assert f"some rows could not be read of {table}" in (store.trouble or "")
    assert waiting == ([] if table == "events" else ["e1"])
    claimed = store.claim("file", 9)
    assert claimed is not None
    assert claimed.message.id == ("m2" if table == "outbox" else "m1")
    store.release("me")
    assert path.read_bytes() == before
    assert "nothing is written to the file" in (store.trouble or "")


def test_a_damaged_store_is_refused_at_a_start(store: SqlStore, path: Path) -> None:
    """Before the first tick the store is all that a run remembers."""
    altered(path, "DROP TABLE outbox")
    with pytest.raises(DamagedStoreError, match="--journal memory"):
        store.commit_tick(tick(messages=(message("m1"),)))


def test_a_copy_that_turns_out_to_be_damaged_is_dropped_too(
    store: SqlStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock moved the run to memory, and with the whole file its damage came along: it is never written back."""
    monkeypatch.setattr(fallback, "HOLDER_TIMEOUT", 0.01)
    monkeypatch.setattr(fallback, "RETURN_EVERY", 0.0)
    store.commit_tick(tick())
    altered(path, "DROP TABLE outbox")
    with locked(path):
        store.append(entry("acknowledged"))
        store.commit_tick(tick(messages=(message("m1"),)))
    store.append(entry("filled"))
    assert [each.kind for each in store.journal()] == ["sending", "acknowledged", "sending", "filled"]
    assert journal(path) == ["sending"]


def test_an_unlisted_error_ends_no_run_either(
    connections: list[sqlite3.Connection], store: SqlStore, path: Path
) -> None:
    """Memory is the rule for the holder of the lease; the exceptions are the ones that are listed."""
    store.commit_tick(tick())
    for each in connections:
        each.set_progress_handler(lambda: 1, 1)
    store.append(entry("acknowledged"))
    assert [each.kind for each in store.journal()] == ["sending", "acknowledged"]
    assert "could not be written in time" in (store.trouble or ""), "SQLite was interrupted"


def test_a_lease_that_another_runner_acquired_on_a_damaged_disk_ends_the_run_in_memory(
    store: SqlStore, path: Path
) -> None:
    """As far as the file can still be read, it decides who acts."""
    store.commit_tick(tick())
    altered(path, "DROP TABLE history", "UPDATE lease SET generation = 2, owner = 'you'")
    with pytest.raises(FencedError):
        store.commit_tick(tick())


def test_salvaging_keeps_rows_before_and_after_the_damage(tmp_path: Path) -> None:
    """Rows on both sides of a corrupt page are kept, and numbers continue after the newest one."""
    path = tmp_path / "store.sqlite"
    made = open_store(str(path))
    made.append_all([JournalEntry("d1", "sending", NOW, data={"note": "x" * 300}) for _ in range(400)])
    made.close()
    with closing(sqlite3.connect(path)) as shell:
        (root,) = shell.execute("SELECT rootpage FROM sqlite_master WHERE name = 'journal'").fetchone()
        (size,) = shell.execute("PRAGMA page_size").fetchone()
    content = bytearray(path.read_bytes())
    cells = int.from_bytes(content[(root - 1) * size + 3 : (root - 1) * size + 5], "big")
    pointer = (root - 1) * size + 12 + 2 * (cells // 2)  # an interior page: the children of its cells
    cell = (root - 1) * size + int.from_bytes(content[pointer : pointer + 2], "big")
    child = int.from_bytes(content[cell : cell + 4], "big")
    content[(child - 1) * size : child * size] = b"\xff" * size
    path.write_bytes(content)
    open_store(str(tmp_path / "empty.sqlite")).close()
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as memory:
        with closing(sqlite3.connect(tmp_path / "empty.sqlite")) as empty:
            empty.backup(memory)
        with closing(sqlite3.connect(path)) as source:
            assert salvage(source, memory) == ("journal",)
        kept = [number for (number,) in memory.execute("SELECT sequence FROM journal ORDER BY sequence")]
        memory.execute("INSERT INTO journal (decision, kind, at, data) VALUES ('d2', 'sending', 0, '{}')")
        assert memory.execute("SELECT max(sequence) FROM journal").fetchone() == (401,)
    assert kept[0] == 1
    assert kept[-1] == 400
    assert 300 < len(kept) < 400


@pytest.mark.parametrize("table", ["history", "journal", "decisions", "notices"])
def test_a_store_that_is_locked_and_lacks_a_table_is_replaced_by_its_readable_part(
    store: SqlStore, path: Path, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock leads to memory, where the damage shows: the run goes on, says what is lost, and writes nothing back."""
    monkeypatch.setattr(fallback, "HOLDER_TIMEOUT", 0.01)
    monkeypatch.setattr(fallback, "RETURN_EVERY", 0.0)
    store.put_live("tick", b"before")
    store.commit_tick(tick())
    altered(path, f"DROP TABLE {table}")
    with locked(path):
        store.commit_tick(tick())
    assert store.live("tick") == b"before"
    trouble = store.troubles["lost-rows"]
    assert f"the file {path} is damaged (no such table: {table})" in trouble
    assert f"some rows could not be read of {table}" in trouble
    store.append(entry("acknowledged"))
    assert store.journal()[-1].kind == "acknowledged"
    with closing(sqlite3.connect(path)) as disk:
        assert disk.execute("SELECT name FROM sqlite_master WHERE name = ?", (table,)).fetchall() == []


def test_a_locked_store_that_lacks_a_table_ends_a_start_with_cause_and_way_out(
    store: SqlStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its first tick a process remembers nothing: it must not begin with the readable part of a store."""
    monkeypatch.setattr(fallback, "HOLDER_TIMEOUT", 0.01)
    altered(path, "DROP TABLE history")
    with locked(path), pytest.raises(DamagedStoreError) as caught:
        store.append(entry())
    assert f"the store {path} is damaged: no such table: history" in str(caught.value)
    assert "restore a backup" in str(caught.value)
    assert store.trouble is None


def test_an_unreadable_notification_does_not_keep_others_from_being_sent(store: SqlStore, path: Path) -> None:
    """It is abandoned, which `status` counts, and it is a problem of the run."""
    store.commit_tick(tick(messages=(message("m1"), message("m2"))))
    altered(path, "UPDATE outbox SET body = 'text' WHERE id = 'm1'")
    claimed = store.claim("file", 9)
    assert claimed is not None
    assert claimed.message.id == "m2"
    assert [(each.pending, each.given_up) for each in store.outbox()] == [(1, 1)]
    assert "a notification to file cannot be read and is left out" in (store.trouble or "")


# Descriptors


@pytest.mark.parametrize("code", [sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR_SHMOPEN])
def test_too_many_open_files_are_distinguished_from_a_bad_disk_and_use_no_reserve(
    store: SqlStore, path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite reports of both that it is unable to open the file."""
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorcode, error.sqlite_errorname = code, "SQLITE_CANTOPEN"
    opened = os.open

    def refuse_once(*_: object) -> int:
        monkeypatch.setattr(os, "open", opened)
        raise OSError(errno.EMFILE, "Too many open files")

    def fail_on_disk(cursor: sqlite3.Cursor, statement: str, *_: object) -> None:
        file = cursor.connection.execute("PRAGMA database_list").fetchone()[2]
        if file and statement.startswith("INSERT INTO journal"):
            monkeypatch.setattr(os, "open", refuse_once)
            raise error

    store.renew_reserve()
    size = path.with_name("store.sqlite.reserve").stat().st_size
    event.listen(Engine, "do_execute", fail_on_disk)
    try:
        store.append(entry())
    finally:
        event.remove(Engine, "do_execute", fail_on_disk)
    assert path.with_name("store.sqlite.reserve").stat().st_size == size
    assert [each.kind for each in store.journal()] == ["sending"]
    assert "used up its file descriptors" in (store.trouble or "")
    assert "raise their limit" in (store.trouble or "")


@pytest.mark.parametrize(
    ("soft", "hard", "becomes", "warned"),
    [
        (1024, 4096, 4096, False),
        (1024, resource.RLIM_INFINITY, process.MOST, False),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, resource.RLIM_INFINITY, False),
        (64, BASE + 10 * PER_ACCOUNT - 1, BASE + 10 * PER_ACCOUNT - 1, True),
    ],
)
def test_a_start_raises_its_limit_of_descriptors_and_warns_where_it_is_too_low(
    soft: int, hard: int, becomes: int, warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A soft limit is a default, a hard one is an administrator's decision."""
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    warning = make_room(10)
    assert limits[-1][0] == becomes
    assert (warning is not None) is warned
    assert warning is None or f"10 accounts may need {BASE + 10 * PER_ACCOUNT}" in warning


# A full disk under a leftover log


def test_a_store_whose_log_cannot_be_indexed_in_place_is_read_as_a_copy(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a full disk `-shm` cannot grow: history is read all the same, and the emergency copy has the same content."""
    writer = open_store(str(path))
    writer.append(entry("planned"))
    connect = sqlite3.connect

    def full(at: object, **options: Any) -> sqlite3.Connection:
        if str(path) in str(at):
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_IOERR_SHMSIZE, "SQLITE_IOERR_SHMSIZE"
            raise error
        return connect(at, **options)

    monkeypatch.setattr(sqlite3, "connect", full)
    with pytest.raises(MediumError, match="the disk is full"):
        open_store(str(path))
    reader = open_store(str(path), read_only=True)
    assert [each.kind for each in reader.journal()] == ["planned"]
    with pytest.raises(StoreError, match="readonly"):
        reader.put_live("tick", b"1")
    reader.close()
    with acting_store(str(path), "memory", LockPaths(tmp_path / "locks", None)) as memory:
        assert [each.kind for each in memory.journal()] == ["planned"]
    assert f"it is a copy of {path}" in capsys.readouterr().err
    writer.close()


# Modes and locations


def test_a_new_store_and_its_companion_files_are_its_owners_alone(path: Path, tmp_path: Path) -> None:
    """Whatever the umask is: a user who may write there gives commands. A copy on another disk too."""
    before = os.umask(0o022)
    try:
        made = open_store(str(path))
        made.put_live("tick", b"1")
        copy_store(str(path), tmp_path / "copy.sqlite")
        modes = {each.name: oct(each.stat().st_mode & 0o777) for each in tmp_path.iterdir()}
        made.close()
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("store.sqlite", "store.sqlite-wal", "store.sqlite-shm", "copy.sqlite"), "0o600")
    assert exposure(str(path)) is None


def test_a_store_that_other_users_may_write_is_a_warning(path: Path) -> None:
    """An existing store keeps its mode: its operator decides."""
    assert exposure(str(path)) is None
    open_store(str(path)).close()
    path.chmod(0o644)
    assert exposure(str(path)) is None
    path.chmod(0o664)
    assert "may be written by others than its owner (mode 0664)" in (exposure(str(path)) or "")


@pytest.mark.parametrize("became", ["was removed or moved away", "was replaced by another file"])
def test_a_store_that_was_moved_away_is_a_problem_at_the_next_tick(
    store: SqlStore, path: Path, became: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content that is in memory only is never written into the file that is there now."""
    monkeypatch.setattr(fallback, "HOLDER_TIMEOUT", 0.01)
    monkeypatch.setattr(fallback, "RETURN_EVERY", 0.0)
    copy_store(str(path), path.with_name("other.sqlite"))
    space = DiskSpace(store, path.parent, 0, lambda: 0.0)
    assert space.alerts == NO_ALERTS
    with locked(path):
        store.append(entry())
        path.rename(path.with_name("moved.sqlite"))
        if "replaced" in became:
            path.with_name("other.sqlite").rename(path)
    space.ticked(None)  # type: ignore[arg-type]  # a report is not looked at
    assert f"store.sqlite {became} under this run" in "; ".join(space.alerts.texts)
    store.append(entry())
    assert "in memory only" in (store.trouble or "")
    assert path.exists() is ("replaced" in became)
    assert not path.exists() or journal(path) == []
