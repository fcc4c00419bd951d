"""`ksctl status --probe live` of a run whose store takes no writes: it goes by the file next to the store."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from killswitch.cli.live.status import status
from killswitch.model.instant import SECOND, to_micros
from killswitch.model.store import JournalEntry
from killswitch.runner.lease import this_process
from killswitch.store import fallback
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from tests.runner_world import ScriptedVenue, Seen, World, book

OF_ANOTHER = "host-7/0b5e4f1a/4026531836/1/8127"
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
        assert "the store takes no writes; by the sign of life next to it, tick 7" in why
        assert not probed(path, "ready")[0]


def test_the_sign_of_life_goes_with_the_lock(store: SqlStore, path: Path) -> None:
    """From then on the store says when the last tick was; nothing is left next to it, nor at a normal end."""
    shell = lock(path)
    tick_of(store, 1.0, this_process())
    assert path.with_name("store.sqlite.alive").exists()
    shell.close()
    tick_of(store, 1.0, this_process())
    assert not path.with_name("store.sqlite.alive").exists()
    assert not probed(path)[0]


@pytest.mark.parametrize(
    ("age", "owner"), [(61.0, this_process()), (1.0, OF_ANOTHER), (1.0, DEAD)], ids=["hung", "of another", "dead"]
)
def test_a_sign_of_life_that_proves_nothing_fails_the_probe(
    store: SqlStore, path: Path, age: float, owner: str
) -> None:
    """Older than a minute, not by the holder of the lease, or of a process that has ended."""
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


def test_a_sign_of_life_that_cannot_be_read_fails_the_probe(store: SqlStore, path: Path) -> None:
    """The verdict is that of the store alone."""
    path.with_name("store.sqlite.alive").write_bytes(b'{"owner": 1}')
    assert "over 60 s" in probed(path)[1]


def test_a_sign_of_life_that_cannot_be_written_disturbs_no_tick(store: SqlStore, path: Path) -> None:
    """A folder is in its place."""
    path.with_name("store.sqlite.alive").mkdir()
    with closing(lock(path)):
        tick_of(store, 1.0, this_process())
        assert not probed(path)[0]
    assert [each.name for each in path.parent.glob("*.alive.*")] == []


def test_each_tick_of_a_run_in_memory_leaves_a_sign_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the owner of the lease and the instant of the tick; a tick that the store takes leaves none."""
    monkeypatch.setattr(fallback, "HOLDER_TIMEOUT", 0.01)
    world = World(tmp_path)
    store, seen = world.open(), Seen()
    sign = tmp_path / "store.sqlite.alive"

    async def run() -> None:
        runner = world.runner(store, [ScriptedVenue(book("1100"))], witnesses=(seen,))
        store.allow_memory(lambda _: None)
        await runner.start()
        await runner.tick()
        assert not sign.exists()
        with closing(lock(tmp_path / "store.sqlite")):
            for _ in range(2):
                await world.clock.sleep(1.0)
                await runner.tick()
                left = json.loads(sign.read_bytes())
                assert datetime.fromisoformat(left["as_of"]) == seen.reports[-1].snapshot.as_of
                assert (holder := store.lease()) is not None
                assert left["owner"] == holder.owner
        await runner.finish()

    asyncio.run(run())
    world.close()
    assert not sign.exists()
