"""The SQLite store: files, durability, versions, and readers that change nothing."""

from __future__ import annotations

import errno
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from killswitch.model.store import Delivery, JournalEntry, Outgoing
from killswitch.store import sqlite
from killswitch.store.errors import StoreError, StoreMissingError, StoreVersionError
from killswitch.store.migrations import MIGRATIONS, NEWEST
from killswitch.store.sqlite import copy_store, open_in_memory, open_store

NOW = datetime(2021, 5, 19, tzinfo=UTC)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a test's store; nothing is there yet."""
    return tmp_path / "store.sqlite"


def test_reading_creates_no_store(path: Path) -> None:
    """A reader of a missing store is told so, and no file appears."""
    with pytest.raises(StoreMissingError, match="there is no store at"):
        open_store(str(path), read_only=True)
    assert contents(path.parent) == {}


@pytest.mark.parametrize("read_only", [False, True])
def test_a_store_on_a_mount_that_hangs_times_out(path: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool) -> None:
    """Writer and reader report that the file system does not answer, and what to do about it."""
    answers = threading.Event()
    monkeypatch.setattr(Path, "exists", lambda _: answers.wait())
    monkeypatch.setattr(sqlite, "ANSWERS_WITHIN", 0.05)
    try:
        with pytest.raises(StoreError, match=r"store.sqlite did not answer within 0.05 s; .* `--journal memory`"):
            open_store(str(path), read_only=read_only)
    finally:
        answers.set()


def test_reading_changes_no_byte(path: Path) -> None:
    """After a reader has been there, the folder holds the same files with the same content and times."""
    writer = open_store(str(path))
    writer.put_live("tick", b"1")
    writer.close()
    before = contents(path.parent)
    reader = open_store(str(path), read_only=True)
    assert reader.live("tick") == b"1"
    with pytest.raises(StoreError, match="readonly"):
        reader.put_live("tick", b"2")
    reader.close()
    assert contents(path.parent) == before


def test_a_reader_sees_the_last_write_of_a_running_writer(path: Path) -> None:
    """Content of the write-ahead log only is read too, and the database file is left unchanged."""
    writer = open_store(str(path))
    reader = open_store(str(path), read_only=True)
    before = path.read_bytes()
    writer.put_live("tick", b"1")
    assert reader.live("tick") == b"1"
    assert path.read_bytes() == before
    reader.close()
    writer.close()


def test_a_url_and_a_path_name_the_same_store(path: Path) -> None:
    """`sqlite:///FILE` is FILE; another scheme is refused with a message."""
    store = open_store(f"sqlite:///{path}")
    store.close()
    assert path.is_file()
    with pytest.raises(StoreError, match="postgresql:// is not supported"):
        open_store("postgresql://db/killswitch")


@pytest.mark.parametrize("read_only", [False, True])
def test_a_newer_schema_is_refused(path: Path, read_only: bool) -> None:
    """A store that a newer program has migrated is left alone, and the message says what to do."""
    open_store(str(path)).close()
    with sqlite3.connect(path) as raw:
        raw.execute("INSERT INTO schema_version (version) VALUES (99)")
    raw.close()
    with pytest.raises(StoreVersionError, match=f"schema 99, this program knows up to {NEWEST}.*newer ksctl"):
        open_store(str(path), read_only=read_only)


def test_an_outbox_without_due_times_is_migrated_with_what_waits_in_it(path: Path) -> None:
    """A store of schema 3: every message that waits is due immediately, in order, and what has ended stays ended."""
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE schema_version (version INTEGER NOT NULL PRIMARY KEY)")
        for number, statements in enumerate(MIGRATIONS[:3], start=1):
            for statement in statements:
                raw.execute(statement)
            raw.execute("INSERT INTO schema_version (version) VALUES (?)", (number,))
        columns = "id, at, route, target, body, state, attempts, error, ended_at"
        for row in (
            ("m1", 1, "desk", "log", b"1", "delivered", 1, None, 5),
            ("m2", 2, "desk", "log", b"2", "pending", 3, "refused", None),
            ("m3", 3, "desk", "log", b"3", "pending", 0, None, None),
        ):
            raw.execute(f"INSERT INTO outbox ({columns}) VALUES ({', '.join('?' * len(row))})", row)
    raw.close()
    before, second = contents(path.parent), Outgoing("m2", 2, "desk", "log", b"2")
    for reader in (open_store(str(path), read_only=True), open_in_memory(str(path))):
        assert [each.due_at for each in reader.deliveries(9)] == [0, 0, 0]
        reader.close()
    assert contents(path.parent) == before, "who only reads migrates nothing"
    store = open_store(str(path))
    assert [each.state for each in store.deliveries(9)] == ["pending", "pending", "delivered"]
    assert store.claim("log", 9) == Delivery(second, attempts=4, error="refused")
    store.settle("m2", 10, "refused", due_at=1_000_000)
    store.close()
    again = open_store(str(path), read_only=True)
    assert again.claim("log", 11) == Delivery(second, attempts=4, error="refused", due_at=1_000_000)
    again.close()


def test_another_programs_database_is_refused(path: Path) -> None:
    """A database with other tables is not migrated into a store."""
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE orders (id INTEGER)")
    raw.close()
    with pytest.raises(StoreVersionError, match="not a Killswitch store: it holds orders"):
        open_store(str(path))
    with sqlite3.connect(path) as raw:
        assert [name for (name,) in raw.execute("SELECT name FROM sqlite_master")] == ["orders"]
    raw.close()


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    """Another file in its place is reported as what it is, not overwritten, and a text is not called damaged."""
    path.write_bytes(b"\x7fELF\0" * 1000)
    with pytest.raises(StoreError, match=r"is no store: this is another file \(name the store with --store\)"):
        open_store(str(path))
    path.write_text("apiVersion: killswitch.dev/v1 ä\n" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="is a text file and no store: name the store with --store") as refused:
        open_store(str(path))
    assert "damaged" not in str(refused.value)
    assert path.read_bytes() == before


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    """The folder is named; it is not created."""
    with pytest.raises(StoreError, match=r"the folder .*nowhere does not exist"):
        open_store(str(tmp_path / "nowhere" / "store.sqlite"))


def test_every_commit_is_synced(path: Path, connections: list[sqlite3.Connection]) -> None:
    """Connections of the store run in WAL with synchronous FULL, as the journal requires."""
    store = open_store(str(path))
    store.put_live("tick", b"1")
    assert connections
    assert [each.execute("PRAGMA journal_mode").fetchone() for each in connections] == [("wal",)] * len(connections)
    assert [each.execute("PRAGMA synchronous").fetchone() for each in connections] == [(2,)] * len(connections)
    store.close()


def test_a_write_holds_the_lock_from_its_first_read(path: Path, connections: list[sqlite3.Connection]) -> None:
    """Taking the lease reads before it writes: nobody may come in between."""
    store = open_store(str(path))
    others: list[str] = []

    def another_process(statement: str) -> None:
        if statement.startswith("SELECT") and "lease" in statement:
            with closing(open_impatiently(path, isolation_level=None)) as other:
                try:
                    other.execute("BEGIN IMMEDIATE")
                    others.append("it came in between")
                except sqlite3.OperationalError as error:
                    others.append(str(error))

    open_impatiently = partial(sqlite3.Connection, timeout=0)
    for each in connections:
        each.set_trace_callback(another_process)
    store.acquire("me", 0, 10)
    assert set(others) == {"database is locked"}
    store.close()


def test_a_written_entry_survives_kill_9(path: Path) -> None:
    """Entries for which `append` has returned survive when the process is killed without a chance to close."""
    program = (
        "import os, signal, sys\nfrom datetime import UTC, datetime\n"
        "from killswitch.model.store import JournalEntry\nfrom killswitch.store.sqlite import open_store\n"
        "open_store(sys.argv[1]).append(JournalEntry('d1', 'sending', datetime(2021, 5, 19, tzinfo=UTC)))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, path], check=False, capture_output=True)
    assert ended.returncode == -9
    reader = open_store(str(path), read_only=True)
    assert [each.kind for each in reader.journal("d1")] == ["sending"]
    reader.close()


def test_two_processes_may_create_the_same_store_at_once(path: Path) -> None:
    """Migrations run once, whichever process comes first."""
    program = "import sys\nfrom killswitch.store.sqlite import open_store\nopen_store(sys.argv[1]).close()\n"
    several = [
        subprocess.Popen([sys.executable, "-c", program, path], stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    assert [process.communicate()[1] for process in several] == [""] * 4


def test_writers_in_several_threads_wait_for_each_other(path: Path) -> None:
    """Concurrent writes all succeed; none is refused for a locked database."""
    store = open_store(str(path))

    def write(name: str) -> None:
        for _ in range(25):
            store.append(JournalEntry(name, "sending", NOW))

    threads = [threading.Thread(target=write, args=(name,)) for name in ("a", "b", "c", "d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.journal()) == 100
    store.close()


def test_a_read_with_a_limit_of_time_is_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no reader holds up the folding of a writer's log; within its time the same is read."""
    at = tmp_path / "long.sqlite"
    open_store(str(at)).close()
    monkeypatch.setattr(sqlite, "LOOK_EVERY", 1)
    with closing(open_store(str(at), read_only=True, within=60.0)) as store:
        assert store.decisions(10) == []
    with pytest.raises(StoreError, match="in time: it is large, or the machine is busy"):
        open_store(str(at), read_only=True, within=0.0)


def test_a_copy_to_a_disk_that_is_read_only_is_an_error_of_the_store(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, removing the incomplete copy fails too, even of a file that was never created (EROFS)."""
    open_store(str(path)).close()

    def refused(self: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(StoreError, match="could not be written"):
        copy_store(str(path), tmp_path / "no-folder" / "copy.sqlite")
