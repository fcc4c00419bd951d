"""`ksctl status` and its probe of a run whose store takes no writes: its process answers next to the store."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from killswitch import worker
from killswitch.cli.live.status import status
from killswitch.cli.operate.verbs import close
from killswitch.model.backoff import Backoff
from killswitch.model.instant import SECOND, to_micros
from killswitch.model.store import JournalEntry
from killswitch.operations.status import store_status
from killswitch.runner.lease import this_process
from killswitch.runner.status_blob import last_view
from killswitch.store import fallback
from killswitch.store.adjacent_files import SignOfLife
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from tests.runner_world import ScriptedVenue, Seen, World, book

DEAD = this_process().rpartition("/")[0] + "/1"
"""This process id with another start time."""


def tick(age: float, owner: str) -> bytes:
    as_of = (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
    return json.dumps({"owner": owner, "as_of": as_of, "ticks": 7, "interval": 1.0}).encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture
def store(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqlStore]:
    """The store of this process, whose last tick in the file is five minutes old and whose lease has expired since."""
    monkeypatch.setattr(fallback, "HOLDER_TIMEOUT", 0.01)
    monkeypatch.setattr(fallback, "LOCKED_RETURN_EVERY", 0.0)
    made = open_store(str(path))
    long_ago = datetime.now(UTC) - timedelta(minutes=5)
    made.fence(made.acquire(this_process(), to_micros(long_ago), 30 * SECOND).generation)
    made.put_live("runner", tick(300.0, this_process()))
    made.allow_memory(lambda _: None)
    yield made
    made.close()


def lock(path: Path) -> sqlite3.Connection:
    """Another process that has begun to write and does not end."""
    shell = sqlite3.connect(path, isolation_level=None)
    shell.execute("BEGIN IMMEDIATE")
    return shell


def tick_of(store: SqlStore, age: float, owner: str) -> None:
    """What a run does at each tick."""
    store.append(JournalEntry("d1", "sending", datetime.now(UTC), account="main"))
    store.leave_sign_of_life(tick(age, owner))


def probed(path: Path, probe: str = "live") -> tuple[bool, str]:
    found = CliRunner().invoke(status, ["--store", str(path), "--probe", probe], standalone_mode=False)
    return found.return_value == 0, found.stdout


def test_a_run_whose_store_stays_locked_is_live_and_not_ready(store: SqlStore, path: Path) -> None:
    """It ticks and closes in memory: a restart would find the same lock, and be refused."""
    with closing(lock(path)):
        tick_of(store, 1.0, this_process())
        passed, why = probed(path)
        assert passed
        assert "by the process itself, tick 7" in why
        assert not probed(path, "ready")[0]


def test_status_says_of_a_runner_in_memory_that_it_lives(store: SqlStore, path: Path) -> None:
    """Its lease has expired in the store; nobody is advised to start another runner."""
    with closing(lock(path)):
        tick_of(store, 1.0, this_process())
        shown = CliRunner().invoke(status, ["--store", str(path)], catch_exceptions=False).stdout
        found = json.loads(CliRunner().invoke(status, ["--store", str(path), "--output", "json"]).stdout)
    assert "NOT RUNNING" not in shown
    assert f"alive (pid {os.getpid()}, generation 1), NOT RECORDED: the store takes no writes; by the process" in shown
    assert "Let it run, and free the disk of the store" in shown
    assert (found["runner"]["liveness"], found["runner"]["is_process_running"]) == ("unrecorded", True)


def test_status_of_a_process_that_runs_and_does_not_answer_is_not_that_of_a_dead_one(
    store: SqlStore, path: Path
) -> None:
    """It hangs, or cannot answer: it is there, and a second runner next to it would do harm."""
    shown = CliRunner().invoke(status, ["--store", str(path)], catch_exceptions=False).stdout
    assert "NOT TICKING: its lease expired without renewal; its process runs and does not answer" in shown


def test_status_of_a_store_that_cannot_be_read_says_that_its_runner_lives(store: SqlStore, path: Path) -> None:
    """The file was overwritten during the run."""
    tick_of(store, 1.0, this_process())
    path.write_bytes(b"garbage" * 4096)
    for log in ("-wal", "-shm"):
        path.with_name(f"{path.name}{log}").unlink(missing_ok=True)
    found = CliRunner().invoke(status, ["--store", str(path)])
    assert found.exit_code == 1
    assert "Its runner lives and goes on without it: by the process itself, tick 7" in found.stderr


def test_the_answer_ends_with_the_process_that_gives_it(store: SqlStore, path: Path) -> None:
    """A normal end leaves nothing next to the store; what a killed process leaves answers nothing and is replaced."""
    tick_of(store, 1.0, this_process())
    sign = path.with_name("store.sqlite.alive")
    assert sign.is_socket()
    assert stat.S_IMODE(sign.stat().st_mode) == 0o600
    assert probed(path)[0]
    store.close()
    assert not sign.exists()
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(sign))
    assert not probed(path)[0]
    again = SignOfLife(path)
    again.leave(tick(1.0, this_process()))
    assert probed(path)[0]
    again.remove()


def test_a_long_path_prevents_no_answer(tmp_path: Path) -> None:
    """The address of a socket is shorter than a path may be."""
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    sign = SignOfLife(folder / "store.sqlite")
    sign.leave(b"tick")
    assert sign.read() == b"tick"
    sign.leave(b"next")
    assert sign.read() == b"next"
    sign.remove()
    assert sign.read() is None


@pytest.mark.parametrize(("age", "owner"), [(61.0, this_process()), (1.0, DEAD)], ids=["hung", "dead"])
def test_a_sign_of_life_that_proves_nothing_fails_the_probe(
    store: SqlStore, path: Path, age: float, owner: str
) -> None:
    """Older than a minute, or of a process that has ended."""
    with closing(lock(path)):
        tick_of(store, age, owner)
        passed, why = probed(path)
        assert not passed
        assert "over 60 s" in why


def test_a_run_whose_store_is_unreadable_is_live(store: SqlStore, path: Path) -> None:
    """The file is overwritten during a close; who holds the lease cannot be read."""
    with closing(lock(path)):
        tick_of(store, 1.0, this_process())
    path.write_bytes(b"garbage" * 4096)
    for log in ("-wal", "-shm"):
        path.with_name(f"{path.name}{log}").unlink(missing_ok=True)
    assert probed(path)[0]


def test_an_answer_that_cannot_be_understood_fails_the_probe(store: SqlStore, path: Path) -> None:
    """The verdict is that of the store alone."""
    store.leave_sign_of_life(b'{"owner": 1}')
    assert "over 60 s" in probed(path)[1]


def test_a_place_that_takes_no_socket_disturbs_no_tick(store: SqlStore, path: Path) -> None:
    """A folder is in its place."""
    path.with_name("store.sqlite.alive").mkdir()
    with closing(lock(path)):
        tick_of(store, 1.0, this_process())
        assert not probed(path)[0]


def test_a_process_without_free_files_answers_again_once_it_has_some(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No caller can be accepted for a moment; that must not silence the process for the rest of the run."""
    accept, failed = socket.socket.accept, threading.Event()

    def accept_later(listener: socket.socket) -> tuple[socket.socket, object]:
        if not failed.is_set():
            failed.set()
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(listener)

    monkeypatch.setattr(worker, "PAUSES", Backoff(0.0, 0.0))
    monkeypatch.setattr(socket.socket, "accept", accept_later)
    sign = SignOfLife(path)
    sign.leave(b"alive")
    assert failed.wait(60.0)
    assert sign.read() == b"alive"
    sign.remove()
    assert sign.read() is None


def test_each_tick_of_a_run_changes_what_its_process_answers(tmp_path: Path) -> None:
    """With the owner of the lease and the instant of the tick; nothing is left after a clean end."""
    world = World(tmp_path)
    store, seen = world.open(), Seen()
    sign = SignOfLife(tmp_path / "store.sqlite")

    async def run() -> None:
        runner = world.runner(store, [ScriptedVenue(book("1100"))], witnesses=(seen,))
        await runner.start()
        for _ in range(2):
            await world.clock.sleep(1.0)
            await runner.tick()
            left = json.loads(sign.read() or b"{}")
            assert datetime.fromisoformat(left["as_of"]) == seen.reports[-1].snapshot.as_of
            assert (holder := store.lease()) is not None
            assert left["owner"] == holder.owner
        await runner.finish()

    asyncio.run(run())
    world.close()
    assert sign.read() is None
    assert not sign.path.exists()


def test_a_close_that_cannot_reach_a_living_runner_names_it(store: SqlStore, path: Path) -> None:
    """It does not claim that no runner is alive, after which an operator would start a second one."""
    with closing(lock(path)):
        tick_of(store, 1.0, this_process())
        found = CliRunner().invoke(close, ["--store", str(path), "--scope", "account/main", "--reason", "drill"])
    assert found.exit_code == 2
    assert f"the runner (pid {os.getpid()}) is alive, but its store takes no writes" in found.stderr


def test_status_says_before_the_lease_ends_that_ticks_are_not_recorded(tmp_path: Path) -> None:
    """The lease is valid and the store 20 s behind the process that ticks; 5 s behind is no trouble."""
    world = World(tmp_path)
    store = world.open()
    asyncio.run(world.runner(store, [ScriptedVenue(book("1000"))]).run(asyncio.Event(), 2))
    view = last_view(store)
    assert view is not None
    seen_at = view.as_of
    store.acquire(this_process(), to_micros(seen_at), 60 * SECOND)

    def liveness(seconds: float) -> str:
        now = seen_at + timedelta(seconds=seconds)
        sign = json.dumps({"owner": this_process(), "as_of": now.isoformat(), "ticks": 7, "interval": 1.0}).encode()
        return store_status(store, now, 0, sign=sign).runner.liveness

    assert (liveness(5), liveness(20)) == ("alive", "unrecorded")
    store.close()
