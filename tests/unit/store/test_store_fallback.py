"""A store whose disk accepts no writes: the reserve, a copy in memory, and the way back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest

from killswitch.cli.session import acting_store
from killswitch.model.alert import NO_ALERTS
from killswitch.model.snapshot import Event
from killswitch.model.store import HEARTBEAT, Delivery, JournalEntry, Outgoing, TickRecord
from killswitch.runner.assembly import LockPaths
from killswitch.runner.disk_space import DiskSpace
from killswitch.runner.lease import this_process
from killswitch.store import fallback
from killswitch.store.adjacent_files import SLICE, Reserve, in_units
from killswitch.store.errors import DamagedStoreError, FencedError, MediumError, StoreError, store_error
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store

NOW = datetime(2021, 5, 19, tzinfo=UTC)


def entry(kind: Any = "sending", **data: str | None) -> JournalEntry:
    return JournalEntry("d1", kind, NOW, account="main", data=data)


def full(connections: list[sqlite3.Connection]) -> None:
    """No write of these connections may make the file longer any more: the answer is SQLITE_FULL, as on a full disk."""
    for each in connections:
        each.execute("PRAGMA max_page_count = 1")


def large(number: int) -> JournalEntry:
    return entry(note="x" * 40_000, number=str(number))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture
def store(path: Path, connections: list[sqlite3.Connection]) -> Iterator[SqlStore]:
    """A store under a lease of its own."""
    opened = open_store(str(path))
    opened.fence(opened.acquire("me", 0, 10).generation)
    yield opened
    opened.close()


def kinds(path: Path) -> list[str]:
    reader = open_store(str(path), read_only=True)
    try:
        return [each.kind for each in reader.journal()]
    finally:
        reader.close()


def test_a_full_disk_without_permission_to_use_memory_is_reported_with_file_cause_and_next_step(
    store: SqlStore, path: Path, connections: list[sqlite3.Connection]
) -> None:
    """A record for another process must not vanish with this one."""
    full(connections)
    with pytest.raises(MediumError, match=r"could not be written: .*full.*free some space.*--journal memory"):
        store.append(large(1))
    assert kinds(path) == []


def test_a_full_disk_moves_the_store_to_memory_and_every_entry_is_reported(
    store: SqlStore, path: Path, connections: list[sqlite3.Connection]
) -> None:
    """Reads see entries from before and after; the numbers of entries continue; the disk has none of the new ones."""
    assert store.in_memory_because is None
    reported: list[str] = []
    store.append(entry("planned"))
    store.allow_memory(reported.append)
    full(connections)
    assert [store.append(large(n)) for n in (1, 2)] == [2, 3]
    assert [each.kind for each in store.journal("d1")] == ["planned", "sending", "sending"]
    assert kinds(path) == ["planned"]
    assert len(reported) == 2
    assert '"number":"2"' in reported[1]
    assert "in memory only" in (store.trouble or "")
    assert "full" in (store.in_memory_because or "")


def test_heartbeats_of_other_processes_are_read_from_the_disk_and_never_overwritten(
    store: SqlStore, path: Path, connections: list[sqlite3.Connection]
) -> None:
    """While the run is in memory its copy of a heartbeat grows old; bots write to the disk, where they can."""
    store.allow_memory(lambda _: None)
    store.put_live(f"{HEARTBEAT}bot", b"old")
    full(connections)
    store.append(large(1))
    other = open_store(str(path))
    other.put_live(f"{HEARTBEAT}bot", b"new")
    other.put_live(f"{HEARTBEAT}maker", b"first")
    assert store.live_under(HEARTBEAT) == {"bot": b"new", "maker": b"first"}
    store.release("me")
    assert store.trouble is None
    assert other.live_under(HEARTBEAT) == {"bot": b"new", "maker": b"first"}
    other.close()


def test_the_content_of_memory_is_written_back_whole_once_there_is_space(
    store: SqlStore, path: Path, connections: list[sqlite3.Connection]
) -> None:
    """Journal, states, live blobs and operator commands: nothing is lost, nothing is there twice."""
    store.allow_memory(lambda _: None)
    store.put_event(Event("e1", NOW, "close"))
    page = Outgoing("m1", 1, "desk", "log", b"{}")
    store.commit_tick(TickRecord(NOW, "p", (), (), (), (), (), None, (), 0, (page,)))
    store.settle("m1", 5, "down", due_at=20)
    full(connections)
    store.append(large(1))
    store.put_live("tick", b"2")
    store.settle("m1", 5, "down", due_at=50)
    other = open_store(str(path))
    other.put_event(Event("e2", NOW, "reset"))
    assert [each.id for each in store.pending_events()] == ["e1", "e2"]
    store.commit_tick(TickRecord(NOW, "p", (), (), (), (), (entry("planned"),), None, ("e1",), 0))
    store.release("me")  # the end of a run retries once more, whenever it tried last
    assert store.trouble is None
    assert [each.kind for each in other.journal()] == ["sending", "planned"]
    assert [each.id for each in other.pending_events()] == ["e2"]
    assert other.live("tick") == b"2"
    assert other.claim("log", 40) == Delivery(page, error="down", due_at=50)
    assert other.lease() is None
    other.close()


def test_a_store_that_another_runner_has_taken_meanwhile_is_not_overwritten(
    store: SqlStore, path: Path, monkeypatch: pytest.MonkeyPatch, connections: list[sqlite3.Connection]
) -> None:
    """The fence holds for memory too, at every tick and every entry, and none of it reaches the disk."""
    store.allow_memory(lambda _: None)
    full(connections)
    store.append_all([large(1)])
    other = open_store(str(path))
    other.acquire("you", 20, 10)
    for every in (0.0, 1e9):
        monkeypatch.setattr(fallback, "RETURN_EVERY", every)
        with pytest.raises(FencedError, match="while this process could not write"):
            store.append(entry())
    assert other.journal() == []
    other.close()


def test_the_reserve_is_released_a_slice_at_a_time(path: Path) -> None:
    """The process that fills the disk would take all of it at once; the last slice removes the file too."""
    reserve = Reserve(path, size=2 * SLICE + 5)
    reserve.make()
    assert reserve.path.stat().st_blocks * 512 >= reserve.size, "it is there, and not only promised"
    assert reserve.path.stat().st_mode & 0o777 == 0o600
    sizes = []
    while reserve.give_slice():
        sizes.append(reserve.left())
    assert sizes == [SLICE + 5, 5, 0]
    assert not reserve.path.exists()


def test_a_link_in_place_of_the_reserve_is_left_unchanged(path: Path, tmp_path: Path) -> None:
    """A file put in its place is neither grown nor cut."""
    (tmp_path / "other").write_bytes(b"kept")
    reserve = Reserve(path, size=SLICE)
    reserve.path.symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic link"):
        reserve.make()
    assert (tmp_path / "other").read_bytes() == b"kept"


@pytest.mark.parametrize(
    ("code", "kind", "expected"),
    [
        (sqlite3.SQLITE_FULL, MediumError, "the disk is full"),
        (sqlite3.SQLITE_IOERR_WRITE, MediumError, "quota"),
        (sqlite3.SQLITE_IOERR_FSYNC, MediumError, "failed"),
        (sqlite3.SQLITE_READONLY, MediumError, "read-only"),
        (sqlite3.SQLITE_CANTOPEN, MediumError, "inodes"),
        (sqlite3.SQLITE_CORRUPT, DamagedStoreError, "restore a backup"),
        (sqlite3.SQLITE_NOTADB, DamagedStoreError, "restore a backup"),
    ],
)
def test_each_error_of_a_bad_disk_names_file_cause_and_next_step(
    code: int, kind: type[StoreError], expected: str
) -> None:
    """The extended codes of sqlite.org/rescode.html, by their low byte."""
    error = sqlite3.OperationalError("it said")
    error.sqlite_errorcode, error.sqlite_errorname = code, "SQLITE_X"
    found = store_error("/data/s.sqlite", error)
    assert type(found) is kind
    for part in ("/data/s.sqlite", "it said", expected, "--journal memory"):
        assert part in str(found)


def test_an_empty_file_is_not_taken_for_a_new_store(path: Path) -> None:
    """Where there was a store, a new one would know of no close and no latch; the file is left unchanged."""
    path.touch()
    for read_only in (False, True):
        with pytest.raises(DamagedStoreError, match=r"the file is empty.*if it is new, remove it"):
            open_store(str(path), read_only=read_only)
    assert path.stat().st_size == 0


@pytest.mark.parametrize("journal", ["memory", "elsewhere.sqlite"])
def test_the_emergency_copy_has_the_content_of_the_store(
    journal: str, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The store itself is not touched; an existing file is not overwritten."""
    before = open_store(str(path))
    before.append(entry("planned"))
    before.close()
    bytes_before = path.read_bytes()
    place = journal if journal == "memory" else str(tmp_path / journal)
    locks = LockPaths(tmp_path / "locks", None)
    with acting_store(str(path), place, locks) as store:
        assert [each.kind for each in store.journal()] == ["planned"]
        store.append(entry())
    assert "EMERGENCY" in capsys.readouterr().err
    assert path.read_bytes() == bytes_before
    if journal != "memory":
        assert kinds(Path(place)) == ["planned", "sending"]
        with (
            pytest.raises(click.ClickException, match=f"{place} already exists"),
            acting_store(str(path), place, locks),
        ):
            pass


def test_no_emergency_copy_is_made_while_a_runner_lives(path: Path, tmp_path: Path) -> None:
    """Also where its lease has expired because it cannot write: the process is what counts."""
    store = open_store(str(path))
    store.acquire(this_process(), 0, 1)
    store.close()
    with (
        pytest.raises(click.ClickException, match=r"a runner is alive on this store.*kill -TERM"),
        acting_store(str(path), "memory", LockPaths(tmp_path / "locks", None)),
    ):
        pass


class Disk:
    """A store whose reserve is whole."""

    def __init__(self) -> None:
        self.troubles: dict[str, str] = {}

    displaced: str | None = None

    def renew_reserve(self) -> str | None:
        return None


def test_free_space_below_the_declared_amount_is_a_problem_with_constant_text(tmp_path: Path) -> None:
    """Numbers that change at every check are no new alert; a store in trouble comes first."""
    disk, now = Disk(), [0.0]
    space = DiskSpace(disk, tmp_path, 2**62, lambda: now[0])
    (first,) = space.alerts.texts
    assert f"fewer than {in_units(2**62)} (--min-free)" in first
    (tmp_path / "more").write_bytes(b"x" * 5_000_000)
    now[0] = 60.0
    space.ticked(None)  # type: ignore[arg-type]  # a report is not looked at
    assert space.alerts.texts == (first,)
    disk.troubles = {"memory": "in memory only"}
    assert space.alerts.texts == ("in memory only",)
    assert DiskSpace(Disk(), tmp_path, 0, lambda: 0.0).alerts == NO_ALERTS


def test_a_disk_whose_free_space_is_unknown_is_not_known_to_have_space_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart on a file system that does not answer, an alert of the run before is not over."""

    def fail(_: Path) -> None:
        raise OSError(5, "Input/output error")

    now = [0.0]
    with monkeypatch.context() as failing:
        failing.setattr("killswitch.runner.disk_space.os.statvfs", fail)
        space = DiskSpace(Disk(), tmp_path, 0, lambda: now[0])
    assert set(space.alerts.unknown) == {"disk/space", "disk/inodes"}
    now[0] = 60.0
    space.ticked(None)  # type: ignore[arg-type]  # a report is not looked at
    assert space.alerts == NO_ALERTS
