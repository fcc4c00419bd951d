"""Opening a store in one SQLite file: WAL, every commit synced to disk, readers that touch nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from killswitch.store.errors import (
    MediumError,
    StoreError,
    StoreMissingError,
    StoreVersionError,
    damaged,
    store_error,
)
from killswitch.store.fallback import Fallback, memory_engine
from killswitch.store.migrations import NEWEST, migrate, require_known, schema_version
from killswitch.store.reserve import Reserve
from killswitch.store.sql import WRITE, SqlStore

BUSY_SECONDS = 10.0
"""How long a write waits for another process's write: a tick's takes milliseconds, a hand's too."""


def open_store(url_or_path: str, *, read_only: bool = False) -> SqlStore:
    """Open the store at a path or `sqlite:///` URL, made and migrated where needed.

    `read_only` neither makes, migrates nor writes anything. Raises StoreMissingError, StoreVersionError or,
    for any other trouble with the file, StoreError.
    """
    path = _path(url_or_path)
    engine = _reading_engine(path) if read_only else _writing_engine(path)
    try:
        _prepare(engine, path, read_only=read_only)
    except StoreError:
        engine.dispose()
        raise
    return SqlStore(engine, str(path), None if read_only else Fallback(path, _begin))


def open_in_memory(url_or_path: str) -> SqlStore:
    """A store in memory that nothing outlives: a copy of the one at `url_or_path`, which is only read.

    StoreMissingError where there is none, StoreVersionError for one of another schema, StoreError where it cannot be
    read.
    """
    path = _path(url_or_path)
    reading = _reading_engine(path)
    try:
        _prepare(reading, path, read_only=True)
        with reading.connect() as pooled:
            disk: Any = pooled.connection.driver_connection
            engine = memory_engine(_begin, disk, str(path))
    finally:
        reading.dispose()
    return SqlStore(engine, f"in memory, a copy of {path}")


def open_empty_in_memory() -> SqlStore:
    """A store in memory that knows of nothing."""
    engine = memory_engine(_begin, None, "in memory")
    with engine.execution_options(**{WRITE: True}).begin() as connection:
        migrate(connection)
    return SqlStore(engine, "in memory")


def copy_store(url_or_path: str, to: Path) -> None:
    """Copy the store, which is only read, to a new file. StoreError where either is not possible."""
    path = _path(url_or_path)
    reading = _reading_engine(path)
    try:
        _prepare(reading, path, read_only=True)
        with reading.connect() as pooled:
            disk: Any = pooled.connection.driver_connection
            try:
                copied = sqlite3.connect(f"{to.resolve().as_uri()}?mode=rwc", uri=True, isolation_level=None)
                try:
                    disk.backup(copied)
                finally:
                    copied.close()
            except sqlite3.Error as error:
                raise store_error(f"{path}, or its copy {to},", error) from error
    finally:
        reading.dispose()


def _path(url_or_path: str) -> Path:
    scheme, separator, rest = url_or_path.partition("://")
    if not separator:
        return Path(url_or_path)
    if scheme != "sqlite":
        raise StoreError(f"a store at {scheme}:// is not supported: name a file, or sqlite:///FILE")
    return Path(rest.removeprefix("/"))


def _prepare(engine: Engine, path: Path, *, read_only: bool) -> None:
    """Bring it to the newest schema, or see that it has it. A full disk gets the reserve, a slice at a time."""
    reserve = Reserve(path)
    while True:
        try:
            return _at_newest(engine, path, read_only=read_only)
        except MediumError:
            if read_only or not reserve.give_slice():
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
        raise damaged(str(path), f"its schema version cannot be read ({error})") from error
    if version < NEWEST:
        raise StoreVersionError(
            f"{path}: the store has schema {version}, this program reads {NEWEST}: "
            "start `ksctl run` on it once, which migrates it"
        )


def _writing_engine(path: Path) -> Engine:
    if not path.parent.is_dir():
        raise StoreError(f"{path}: the folder {path.parent} is not there")
    return _engine(lambda: sqlite3.connect(path, **_CONNECT), on_connect=_be_durable)


def _reading_engine(path: Path) -> Engine:
    """An engine that changes no byte of the store.

    Where no write-ahead log lies beside the file, no writer has it open and it is whole: `immutable` then
    reads it without making the log's files, which `mode=ro` would. While a writer is at work, its log must
    be read too.
    """
    if not path.is_file():
        raise StoreMissingError(f"there is no store at {path}")
    writer_at_work = path.with_name(path.name + "-wal").exists()
    uri = f"file:{quote(str(path.resolve()))}?mode=ro" + ("" if writer_at_work else "&immutable=1")
    return _engine(lambda: sqlite3.connect(uri, uri=True, **_CONNECT), on_connect=None)


# isolation_level None: Python's own guessing about when a transaction begins is off, `_begin` says it.
_CONNECT: dict[str, Any] = {"timeout": BUSY_SECONDS, "isolation_level": None, "check_same_thread": False}


def _engine(connect: Any, on_connect: Any) -> Engine:
    engine = create_engine("sqlite://", creator=connect, poolclass=_pool())
    event.listen(engine, "begin", _begin)
    if on_connect is not None:
        event.listen(engine, "connect", on_connect)
    return engine


def _pool() -> Any:
    from sqlalchemy.pool import QueuePool

    return QueuePool


def _be_durable(raw: sqlite3.Connection, _record: object) -> None:
    raw.execute("PRAGMA journal_mode = WAL")
    raw.execute("PRAGMA synchronous = FULL")


def _begin(connection: Connection) -> None:
    """Take the write lock at once when writing: a read that turns into a write cannot wait for another's."""
    immediate = connection.get_execution_options().get(WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
