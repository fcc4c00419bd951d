"""Fallbacks of a store whose file cannot be written or read: the reserve, and memory.

Where the disk is full, the reserve is released first; after that the store continues in memory: as a copy, which is
written back once the file accepts writes, or as the readable part of a damaged file, which is never written back.

This is for a process that is under way: it acts on its own memory, and needs a store that accepts its records.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from msgspec import Struct, field
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from killswitch.model.instant import from_micros, rfc3339
from killswitch.model.store import HEARTBEAT
from killswitch.store.adjacent_files import Reserve, SignOfLife
from killswitch.store.errors import (
    DamagedStoreError,
    MediumError,
    NoDescriptorsError,
    StoreError,
    WriteLockedError,
    require_lease,
    store_error,
)
from killswitch.store.migrations import migrate
from killswitch.store.record_chain import ChainWriter, waiting

RETURN_EVERY: Final = 5.0
"""Seconds between two attempts to write memory back."""
_RETURN_TIMEOUT: Final = 0.25
"""Seconds that such an attempt, which delays a tick, waits for another process's write."""
LOCKED_RETURN_EVERY: Final = 1.0
"""The same where the file was only locked: another process that waits for the lock must not see a stale lease."""
_LOCKED_RETURN_TIMEOUT: Final = 0.05
LAST_TIMEOUT: Final = 5.0
"""Seconds that the last attempt, at the end of a run, waits for another process's write."""
KEPT_CONNECTIONS: Final = 3
"""Connections to the file that a holder of the lease keeps open: two in use, and one spare."""
HOLDER_TIMEOUT: Final = 0.5
"""Seconds that a write of the lease's holder waits for another process's write, which takes milliseconds."""

_COPY_TIMEOUT: Final = 2.0
"""Seconds that a copy waits for a lock on the store."""

_OVERTAKEN: Final = (
    " while this process could not write to the store: it stops, and no store has what it has done since"
)

Begin = Callable[..., None]

_NEW_ROWS: Final = ("decisions", "journal", "notices", "set_changes", "suppressions")
"""Tables that only grow: rows later than the copy are written back under their own numbers."""
_WRITE_BACK: Final = (
    "INSERT INTO disk.events (id, body, consumed_at) SELECT id, body, consumed_at FROM main.events WHERE true "
    "ON CONFLICT (id) DO UPDATE SET consumed_at = excluded.consumed_at",
    "INSERT OR REPLACE INTO disk.states SELECT * FROM main.states EXCEPT SELECT * FROM disk.states",
    "INSERT OR REPLACE INTO disk.history SELECT * FROM main.history m WHERE m.at >= :history",
    "INSERT OR REPLACE INTO disk.outbox SELECT * FROM main.outbox m WHERE NOT EXISTS (SELECT 1 FROM disk.outbox d "
    "WHERE d.id = m.id AND d.state = m.state AND d.attempts = m.attempts AND d.error IS m.error "
    "AND d.due_at = m.due_at AND d.is_refused = m.is_refused AND d.hop_at = m.hop_at AND d.batch IS m.batch)",
    "INSERT OR IGNORE INTO disk.policy_sets SELECT * FROM main.policy_sets",
    "DELETE FROM disk.states WHERE NOT EXISTS (SELECT 1 FROM main.states m WHERE m.policy = disk.states.policy "
    "AND m.scope = disk.states.scope)",  # of a policy that has another name by now
    "INSERT OR IGNORE INTO disk.incidents SELECT * FROM main.incidents",
    "INSERT OR IGNORE INTO disk.course SELECT * FROM main.course",
)
_HEARTBEATS: Final = (
    f"INSERT OR REPLACE INTO disk.live SELECT * FROM main.live WHERE name NOT LIKE '{HEARTBEAT}%' "
    "EXCEPT SELECT * FROM disk.live",
    "INSERT OR REPLACE INTO disk.lease SELECT * FROM main.lease",
)
"""Small rows that replace earlier ones, and that `status` and probes read; often writable when nothing else is.

Heartbeats of bots are not among them: other processes have written newer ones to the disk meanwhile."""


class MemoryCopy(Struct):
    """A copy of the store in memory, and what of it is newer than the file."""

    engine: Engine
    cause: str
    since: float
    """`time.time()` of the copy."""
    marks: dict[str, int] = field(default_factory=dict)
    is_locked: bool = False
    """Whether another process's write lock is the only problem of the file."""
    lost: tuple[str, ...] | None = None
    """The tables that could not be read completely; None for a complete copy. Only a complete copy is written back."""


class Fallback:
    """The fallbacks of one store in a file: its reserve, and a copy in memory where that is allowed."""

    def __init__(self, path: Path, begin: Begin) -> None:
        """`begin`: listener of the engine that begins a transaction of the store. The file exists."""
        self.path = path
        self.reserve = Reserve(path)
        self.sign = SignOfLife(path)
        self.lock = threading.RLock()
        self.copy: MemoryCopy | None = None
        self.may_use_memory = False
        self.reserve_used_because: str | None = None
        """Why the reserve was used; None while it is whole."""
        self._begin = begin
        self._tried_at = 0.0
        self._identity = _identity(path)
        self._own: sqlite3.Connection | None = None
        """A connection opened at the start, which can be read when no further one can be opened."""

    def allow_memory(self) -> None:
        """Allow a copy in memory where the file accepts no write. Raises StoreError where it cannot be opened."""
        self.may_use_memory = True
        if self._own is not None:
            return
        try:
            self._own = sqlite3.connect(
                self.path, timeout=HOLDER_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            self._own.execute("SELECT 1 FROM lease").fetchall()
        except sqlite3.Error as error:
            raise store_error(str(self.path), error, "could not be opened") from error

    def close(self) -> None:
        """Close the connection to the file, and remove what was left next to it."""
        self.sign.remove()
        with self.lock:
            if self._own is not None:
                self._own.close()
                self._own = None

    @property
    def displaced(self) -> str | None:
        """What has happened to the file at the path, where it is no longer the one that is written; else None."""
        now = _identity(self.path)
        if now == self._identity:
            return None
        change = "was removed or moved away" if now is None else "was replaced by another file"
        return (
            f"the store {self.path} {change} under this run, which still writes to the old file: operator "
            "commands do not reach it, and another runner could start. Restore the old file, or stop this run "
            f"(kill -TERM {os.getpid()}) and start it again"
        )

    def make_room(self, connection: sqlite3.Connection, cause: MediumError) -> bool:
        """Release a slice of the reserve, and restart the log; False where no slice is left or none would help."""
        if isinstance(cause, NoDescriptorsError) or not self.reserve.give_slice():
            return False
        self.reserve_used_because = cause.cause
        _restart_log(connection, "main")
        return True

    def to_memory(self, cause: StoreError, failed: sqlite3.Connection | None = None) -> Engine:
        """Copy the store into memory: completely, or the readable part of a damaged one.

        `failed`: the copy in memory that is damaged too, where that is the cause. Raises DamagedStoreError where the
        cause was another and the copy shows that the file lacks a table.
        """
        engine = None
        if failed is None and not isinstance(cause, DamagedStoreError) and self._own is not None:
            with suppress(StoreError):  # what cannot be copied whole is read row by row
                engine = memory_engine(self._begin, self._own, str(self.path))
        if engine is None:
            return self._to_memory_in_parts(cause, failed or self._own)
        try:
            with driver_connection(engine) as copied:
                marks = _newest_rows(copied)
        except sqlite3.Error as error:
            engine.dispose()
            raise store_error(str(self.path), error, "could not be copied") from error
        self.copy = MemoryCopy(engine, cause.cause, time.time(), marks, is_locked=isinstance(cause, WriteLockedError))
        self._tried_at = time.monotonic()
        return engine

    def _to_memory_in_parts(self, cause: StoreError, source: sqlite3.Connection | None) -> Engine:
        engine = memory_engine(self._begin, None, str(self.path))
        with engine.begin() as connection:
            migrate(connection)
        with driver_connection(engine) as memory:
            lost = ("all of it",) if source is None else salvage(source, memory)
        self.copy = MemoryCopy(engine, cause.cause, time.time(), lost=lost)
        return engine

    @property
    def is_due(self) -> bool:
        """Whether it is time for another attempt to write memory back."""
        every = RETURN_EVERY
        if self.copy is not None and self.copy.is_locked:
            every = min(every, LOCKED_RETURN_EVERY)
        return self.can_write_back and time.monotonic() - self._tried_at >= every

    @property
    def can_write_back(self) -> bool:
        """Whether memory may be written back: a damaged file is left unchanged."""
        return self.copy is not None and self.copy.lost is None

    def require_own_lease(self, fence: int | None) -> None:
        """Raise FencedError where the lease on the disk has passed to another runner; an unreadable file is ignored."""
        for generation, owner in self._on_disk("SELECT generation, owner FROM lease WHERE one = 1"):
            if type(generation) is int:
                require_lease(fence, generation, owner, _OVERTAKEN)

    def write_back(self, fence: int | None, *, last: bool = False) -> bool:
        """Write memory to the disk, all of it or nothing; whether that succeeded.

        Raises FencedError where another runner has used the store since. Where not all of it can be written, the lease
        and the last tick alone are tried, so that `status` shows a live runner. `last`: there is no other attempt, so
        that this one waits for a lock.
        """
        if self.copy is None:
            raise RuntimeError("there is no copy in memory to write back")
        self._tried_at = time.monotonic()
        if self.displaced is not None:
            return False  # another file is not this store, whatever it holds
        locked_for = _LOCKED_RETURN_TIMEOUT if self.copy.is_locked else _RETURN_TIMEOUT
        timeout = LAST_TIMEOUT if last and self.copy.is_locked else locked_for
        with driver_connection(self.copy.engine) as raw:
            try:
                raw.execute("ATTACH ? AS disk", (str(self.path),))
                raw.execute("PRAGMA disk.synchronous = FULL")
                raw.execute(f"PRAGMA busy_timeout = {int(timeout * 1000)}")
            except sqlite3.Error:
                return False
            try:
                return self._write(raw, fence, self.copy.marks)
            finally:
                raw.execute("DETACH disk")

    def _write(self, raw: sqlite3.Connection, fence: int | None, marks: dict[str, int]) -> bool:
        new_rows = tuple(
            f"INSERT INTO disk.{table} SELECT * FROM main.{table} WHERE sequence > {marks[table]}"
            for table in _NEW_ROWS
        )
        for _ in range(2):
            try:
                _transact(raw, (*new_rows, *_WRITE_BACK, *_HEARTBEATS), marks, fence, _chain_waiting)
            except sqlite3.Error as error:
                if isinstance(store_error("", error), WriteLockedError):
                    return False  # neither more room nor less to write is of any help
                if not _restart_log(raw, "disk"):
                    break
            else:
                return True
        with suppress(sqlite3.Error):  # nothing of it is lost: it is in memory, and tried again
            _transact(raw, _HEARTBEATS, {}, fence)
        return False

    def events_on_disk(self) -> list[tuple[str, bytes]]:
        """Operator commands that other processes have left on the disk meanwhile, oldest first; none where it cannot
        be read."""
        return self._on_disk("SELECT id, body FROM events WHERE consumed_at IS NULL ORDER BY sequence")

    def live_on_disk(self, first: str, end: str) -> list[tuple[str, bytes]]:
        """The live blobs with names from `first` up to before `end` as other processes have left them on the disk."""
        return self._on_disk("SELECT name, body FROM live WHERE name >= ? AND name < ?", first, end)

    def _on_disk(self, statement: str, *values: str) -> list[Any]:
        """Rows from the file at the path; from the connection held open where that cannot be opened."""
        try:
            place = f"{self.path.resolve().as_uri()}?mode=ro"
            with closing(sqlite3.connect(place, uri=True, timeout=_RETURN_TIMEOUT)) as disk:
                return disk.execute(statement, values).fetchall()
        except sqlite3.Error:
            with self.lock, suppress(sqlite3.Error):
                return [] if self._own is None else self._own.execute(statement, values).fetchall()
            return []


def _newest_rows(copied: sqlite3.Connection) -> dict[str, int]:
    """The last row of each table that only grows: what is later is not on the disk. Raises sqlite3.Error."""
    columns = {**dict.fromkeys(_NEW_ROWS, "sequence"), "history": "at"}
    return {
        table: copied.execute(f"SELECT coalesce(max({column}), 0) FROM {table}").fetchone()[0]
        for table, column in columns.items()
    }


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of the file at the path; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def driver_connection(engine: Engine) -> Iterator[sqlite3.Connection]:
    """A connection of the engine, as the driver's object."""
    with engine.connect() as pooled:
        raw = pooled.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        yield raw


def memory_engine(begin: Begin, source: sqlite3.Connection | None, place: str) -> Engine:
    """An engine over a database in memory, a copy of `source` where one is given. Raises StoreError if that cannot be
    read.

    It has one connection, which threads use in turn: the database ends with it.
    """
    # A BEGIN IMMEDIATE prepared before a file is attached does not lock that file: no statement is cached.
    memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=0)
    if source is not None:
        try:
            backup(source, memory)
        except sqlite3.Error as error:
            memory.close()
            raise store_error(place, error, "could not be copied") from error
    engine = create_engine("sqlite://", creator=lambda: memory, poolclass=QueuePool, pool_size=1, max_overflow=0)
    event.listen(engine, "begin", begin)
    return engine


def backup(source: sqlite3.Connection, to: sqlite3.Connection) -> None:
    """Copy a whole database. Raises sqlite3.Error, also where `source` stays locked: the driver would wait for ever."""
    if source.in_transaction:
        source.rollback()  # SQLite copies nothing out of a connection that is writing
    give_up_at = time.monotonic() + _COPY_TIMEOUT

    def bound(status: int, _remaining: int, _total: int) -> None:
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and time.monotonic() > give_up_at:
            error = sqlite3.OperationalError("it stays locked by another process")
            error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_BUSY, "SQLITE_BUSY"
            raise error

    source.backup(to, progress=bound, sleep=0.05)


def _restart_log(connection: sqlite3.Connection, schema: str) -> bool:
    """Restart the write-ahead log in the blocks that it has; False where a reader or the disk prevents it."""
    try:
        busy, *_ = connection.execute(f"PRAGMA {schema}.wal_checkpoint(RESTART)").fetchone()
    except sqlite3.Error:
        return False
    return not busy


def _chain_waiting(raw: sqlite3.Connection) -> None:
    """Number and chain, on the disk, the entries of the record that were made in memory."""
    stored_at = rfc3339(from_micros(int(time.time() * 1_000_000)))
    ChainWriter("disk").write(raw, waiting(raw), late=stored_at)


def _transact(
    raw: sqlite3.Connection,
    statements: tuple[str, ...],
    values: dict[str, int],
    fence: int | None,
    last: Callable[[sqlite3.Connection], None] = lambda _: None,
) -> None:
    """Carry out statements on the attached disk, then `last`, in one transaction."""
    raw.execute("BEGIN IMMEDIATE")
    try:
        row = raw.execute("SELECT generation, owner FROM disk.lease").fetchone()
        if row is not None:
            require_lease(fence, row[0], row[1], _OVERTAKEN)
        for statement in statements:
            raw.execute(statement, values if ":" in statement else {})
        last(raw)
        raw.execute("COMMIT")
    except (sqlite3.Error, StoreError):
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        raise


TABLES: Final = (
    "lease", "live", "states", "events", "decisions", "journal", "outbox", "notices", "incidents", "course",
    "policy_sets", "set_changes", "suppressions", "record", "record_tip", "record_kept", "record_start", "history",
)  # fmt: skip
_DIRECTIONS: Final = ("ASC", "DESC")
"""From the oldest row up to the damage, then from the newest one down to it."""


def salvage(source: sqlite3.Connection, to: sqlite3.Connection) -> tuple[str, ...]:
    """Copy every readable row of `source` into `to`, which has the schema; return the tables that lost any.

    Errors of `source` are not raised.
    """
    if source.in_transaction:
        with suppress(sqlite3.Error):
            source.rollback()
    before, source.text_factory = source.text_factory, lambda raw: raw.decode("utf-8", "replace")
    to.execute("BEGIN")
    try:
        lost = tuple(table for table in TABLES if not _copy_table(source, to, table))
        _continue_numbering(source, to)
    finally:
        to.execute("COMMIT")
        source.text_factory = before
    return lost


def _copy_table(source: sqlite3.Connection, to: sqlite3.Connection, table: str) -> bool:
    """Whether the whole table could be read."""
    names = [row[1] for row in to.execute(f"PRAGMA table_info({table})")]
    columns, places = ", ".join(names), ", ".join("?" * len(names))
    for way in _DIRECTIONS:
        with suppress(sqlite3.Error):
            rows = source.execute(f"SELECT {columns} FROM {table} ORDER BY rowid {way}")
            to.executemany(f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({places})", rows)
            return way == _DIRECTIONS[0]
    return False


def _continue_numbering(source: sqlite3.Connection, to: sqlite3.Connection) -> None:
    """Continue row numbers after those that were used already, also where such rows are lost."""
    with suppress(sqlite3.Error):
        for name, count in source.execute("SELECT name, seq FROM sqlite_sequence").fetchall():
            if name in TABLES and type(count) is int:
                to.execute("DELETE FROM sqlite_sequence WHERE name = ? AND seq < ?", (name, count))
                to.execute(
                    "INSERT INTO sqlite_sequence (name, seq) SELECT ?, ? "
                    "WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = ?)",
                    (name, count, name),
                )
