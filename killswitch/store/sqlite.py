"""Stores in one SQLite file: WAL, every commit synced to disk, readers that change nothing."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from killswitch.deadline import DeadlineError, call_within
from killswitch.store.adjacent_files import Reserve, SignOfLife
from killswitch.store.errors import (
    DamagedStoreError,
    MediumError,
    NoDescriptorsError,
    StoreError,
    StoreMissingError,
    StoreVersionError,
    store_error,
)
from killswitch.store.fallback import Fallback, backup, driver_connection, memory_engine
from killswitch.store.handle import WRITE
from killswitch.store.migrations import NEWEST, migrate, require_known, schema_version
from killswitch.store.recorded import server_record_of
from killswitch.store.sql import SqlStore

_CREATION_TIMEOUT = 0.5
"""Seconds for which a file may be empty while another process creates a store in it."""

LOOK_EVERY = 10_000
"""Steps of SQLite between two looks at the time of a read that has a limit; ten thousand take below a millisecond."""

ANSWERS_WITHIN = 10.0
"""Seconds after which a file system counts as hung."""

BUSY_SECONDS = 10.0
"""Seconds that a write waits for another process's write, which takes milliseconds. The holder of the lease waits
less: `killswitch.store.fallback.HOLDER_TIMEOUT`."""


class _OlderSchemaError(StoreVersionError):
    """The store has an older schema: a copy of it can be read."""


def open_store(url_or_path: str, *, read_only: bool = False, within: float | None = None) -> SqlStore:
    """Open the store at a path or `sqlite:///` URL; it is created and migrated where needed.

    With `read_only` nothing is created, migrated or written: a store of an older schema is read as a migrated copy in
    memory. `within`: seconds after which what is read there is broken off, so that no reader keeps the log of a writer
    from being folded. Raises StoreMissingError, StoreVersionError or, for any other trouble with the file, StoreError.
    """
    path = _path(url_or_path)
    engine = _reading_engine(path, within) if read_only else _writing_engine(path)
    try:
        _prepare(engine, path, read_only=read_only)
    except (MediumError, _OlderSchemaError):
        engine.dispose()
        if not read_only:
            raise
        return _opened_as_copy(path)
    except StoreError:
        engine.dispose()
        raise
    return SqlStore(engine, str(path), None if read_only else Fallback(path, _begin))


def _opened_as_copy(path: Path) -> SqlStore:
    """A copy of the store for reading, where SQLite cannot read it in place, as on a full disk with a leftover log."""
    engine = _copied(path)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only = ON")
    return SqlStore(engine, str(path))


def sign_of_life(url_or_path: str) -> bytes | None:
    """What the process that ticks on the store answers; None where none does. Raises StoreError."""
    return SignOfLife(_path(url_or_path)).read()


class CommandCounter:
    """The number of the newest operator command in a store file, for a thread next to the one that ticks.

    It has a connection of its own, and reads for microseconds: what a hung disk holds up is this thread alone.
    """

    def __init__(self, url_or_path: str) -> None:
        """Opens nothing: the first call of `newest` does."""
        self._path = _path(url_or_path)
        self._connection: sqlite3.Connection | None = None

    def newest(self) -> int | None:
        """The number of the newest command, 0 if there was never one; None while the file cannot be read."""
        try:
            if self._connection is None:
                uri = f"file:{quote(str(self._path.resolve()))}?mode=ro"
                self._connection = sqlite3.connect(uri, uri=True, **_CONNECT | {"timeout": 0.0})
            (found,) = self._connection.execute("SELECT max(sequence) FROM events").fetchone()
        except sqlite3.OperationalError:  # busy for a moment, or no store yet
            return None
        except sqlite3.Error:
            self.close()
            return None
        return found or 0

    def close(self) -> None:
        """Close the connection; a further call of `newest` opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def exposure(url_or_path: str) -> str | None:
    """Who may write the store besides its owner; None if nobody, or if there is none yet."""
    path = _path(url_or_path)
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if not mode & (stat.S_IWGRP | stat.S_IWOTH):
        return None
    return (
        f"the store {path} may be written by others than its owner (mode {stat.S_IMODE(mode):04o}): they can submit "
        "operator commands and change records; run `chmod 600` on it and its -wal and -shm"
    )


def record_trouble(url_or_path: str) -> str | None:
    """Why a record does not end as it was written, that of the store or of its servers; None if both do.

    None also for a store that cannot be read: whoever opens it says that.
    """
    path = _path(url_or_path)
    for each in (path, server_record_of(path)):
        with suppress(StoreError):
            if each.exists():
                with closing(open_store(str(each), read_only=True)) as store:
                    why = store.record_trouble()
                if why is not None:
                    return why
    return None


def open_in_memory(url_or_path: str) -> SqlStore:
    """A store in memory that ends with the process: a copy of the one at `url_or_path`, which is only read.

    Raises StoreMissingError where there is none, StoreVersionError for another schema, StoreError where it cannot be
    read.
    """
    path = _path(url_or_path)
    engine = _copied(path)
    return SqlStore(engine, f"in memory, a copy of {path}", volatile=True)


def _copied(path: Path) -> Engine:
    """An engine over a copy in memory, at the newest schema."""
    with _copy_source(path) as disk:
        engine = memory_engine(_begin, disk, str(path))
    with engine.execution_options(**{WRITE: True}).begin() as connection:
        migrate(connection)
    return engine


def open_empty_in_memory() -> SqlStore:
    """An empty store in memory."""
    engine = memory_engine(_begin, None, "in memory")
    with engine.execution_options(**{WRITE: True}).begin() as connection:
        migrate(connection)
    return SqlStore(engine, "in memory", volatile=True)


def copy_store(url_or_path: str, to: Path) -> None:
    """Copy the store, which is only read, to a new file. Raises StoreError where that fails."""
    path = _path(url_or_path)
    with _copy_source(path) as disk:
        try:
            _make_private(to)
            with closing(sqlite3.connect(to, isolation_level=None)) as copied:
                backup(disk, copied)
        except sqlite3.Error as error:
            with suppress(OSError):  # nothing can be removed from a read-only disk
                to.unlink(missing_ok=True)  # an incomplete copy is useless
            raise store_error(f"{path}, or its copy {to},", error) from error


@contextmanager
def _copy_source(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection to the store at `path`. Raises StoreMissingError, StoreVersionError, StoreError.

    The log of a dead process cannot be read where nothing can be written next to it (a full or read-only disk): then
    both files are copied to a temporary folder, and read there.
    """
    with ExitStack() as stack:
        engine = _reading_engine(path)
        stack.callback(engine.dispose)
        try:
            with suppress(_OlderSchemaError):
                _prepare(engine, path, read_only=True)
        except MediumError:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="ksctl-")))
            moved = folder / path.name
            try:
                for each in (path, path.with_name(f"{path.name}-wal")):
                    if each.exists():
                        copyfile(each, folder / each.name)
            except OSError as error:
                why = error.strerror or error
                raise StoreError(
                    f"the store {path} cannot be read in its place or from a copy in {folder}: {why}"
                ) from error
            engine = _writing_engine(moved)
            stack.callback(engine.dispose)
            _prepare(engine, moved, read_only=False)
        yield stack.enter_context(driver_connection(engine))


def _path(url_or_path: str) -> Path:
    """The path of the file. Raises StoreError for another kind of store, and for a file system that hangs."""
    scheme, separator, rest = url_or_path.partition("://")
    if separator and scheme != "sqlite":
        raise StoreError(f"a store at {scheme}:// is not supported: name a file, or sqlite:///FILE")
    path = Path(rest.removeprefix("/")) if separator else Path(url_or_path)
    try:
        call_within(ANSWERS_WITHIN, f"the store {path}", path.exists)
    except DeadlineError as error:
        raise StoreError(f"{error}. Name another with --store; to close positions, use `--journal memory`") from error
    return path


def _prepare(engine: Engine, path: Path, *, read_only: bool) -> None:
    """Migrate to the newest schema, or check it for reading. On a full disk the reserve is released a slice at a
    time."""
    reserve = Reserve(path)
    while True:
        try:
            return _at_newest(engine, path, read_only=read_only)
        except MediumError as error:
            if read_only or isinstance(error, NoDescriptorsError) or not reserve.give_slice():
                raise


def _at_newest(engine: Engine, path: Path, *, read_only: bool) -> None:
    try:
        if not read_only:
            with engine.execution_options(**{WRITE: True}).begin() as connection:
                migrate(connection)
            return
        with engine.connect() as connection:
            version = schema_version(connection, create=False)
        require_known(version)
    except StoreVersionError as error:
        raise StoreVersionError(f"{path}: {error}") from error
    except DBAPIError as error:
        raise store_error(str(path), error.orig) from error
    except (TypeError, ValueError) as error:
        raise DamagedStoreError(str(path), f"its schema version cannot be read ({error})") from error
    if version < NEWEST:
        raise _OlderSchemaError(f"{path}: the store has schema {version}, this program reads {NEWEST}")


def _writing_engine(path: Path) -> Engine:
    if not path.parent.is_dir():
        raise StoreError(f"{path}: the folder {path.parent} does not exist")
    _require_content(path)

    def connect() -> sqlite3.Connection:
        _make_private(path)  # right before SQLite writes it: other processes treat a file that stays empty as damaged
        connection: sqlite3.Connection = sqlite3.connect(path, **_CONNECT)
        return connection

    return _engine(connect, on_connect=_set_durable)


def _make_private(path: Path) -> None:
    """Create a file that only its owner may read and write; SQLite gives its log and index the same mode.

    Where it cannot be created, SQLite raises the error.
    """
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def _reading_engine(path: Path, within: float | None = None) -> Engine:
    """An engine that changes no byte of the store. `within`: as of `open_store`.

    Without a write-ahead log next to the file no writer has it open, and it is complete: `immutable` then reads it
    without creating the log's files, which `mode=ro` would. While a writer is active, its log must be read too.
    """
    if not path.is_file():
        raise StoreMissingError(f"there is no store at {path}")
    _require_content(path)
    # An empty log without an index was left by a writer that could not begin a transaction.
    writer_at_work = _has_log(path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm"))
    uri = f"file:{quote(str(path.resolve()))}?mode=ro" + ("" if writer_at_work else "&immutable=1")
    ends = None if within is None else time.monotonic() + within

    def connect() -> sqlite3.Connection:
        connection: sqlite3.Connection = sqlite3.connect(uri, uri=True, **_CONNECT)
        if ends is not None:
            connection.set_progress_handler(lambda: time.monotonic() > ends, LOOK_EVERY)
        return connection

    return _engine(connect, on_connect=None)


def _require_content(path: Path) -> None:
    """Raise DamagedStoreError for an empty file: SQLite would create a store in it that has no closes and latches.

    A file that a process is about to initialise is empty for a moment too, and then has a log or a journal next to it.
    """
    logs = [path.with_name(f"{path.name}{suffix}") for suffix in ("-wal", "-journal")]
    deadline = time.monotonic() + _CREATION_TIMEOUT
    while path.is_file() and path.stat().st_size == 0 and not any(each.exists() for each in logs):
        if time.monotonic() > deadline:
            what = "the file is empty, as a truncation or a failed copy leaves it; if it is new, remove it"
            raise DamagedStoreError(str(path), what)
        time.sleep(_CREATION_TIMEOUT / 20)


def _has_log(log: Path, index: Path) -> bool:
    sizes = [each.stat().st_size if each.exists() else None for each in (log, index)]
    return sizes[0] is not None and any(sizes)


# isolation_level None turns off implicit transactions: `_begin` begins them.
_CONNECT: dict[str, Any] = {"timeout": BUSY_SECONDS, "isolation_level": None, "check_same_thread": False}


def _engine(connect: Any, on_connect: Any) -> Engine:
    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool)
    event.listen(engine, "begin", _begin)
    if on_connect is not None:
        event.listen(engine, "connect", on_connect)
    return engine


def _set_durable(raw: sqlite3.Connection, _record: object) -> None:
    raw.execute("PRAGMA journal_mode = WAL")
    raw.execute("PRAGMA synchronous = FULL")


def _begin(connection: Connection) -> None:
    """Begin a transaction; take the write lock at once for writing, because a read that becomes a write cannot wait."""
    immediate = connection.get_execution_options().get(WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
