"""Opening a store in one SQLite file: WAL, every commit synced to disk, readers that touch nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from killswitch.store.errors import StoreError, StoreMissingError, StoreVersionError
from killswitch.store.migrations import NEWEST, migrate, require_known, schema_version
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
    except StoreVersionError as error:
        engine.dispose()
        raise StoreVersionError(f"{path}: {error}") from error
    except DBAPIError as error:
        engine.dispose()
        raise StoreError(f"{path}: {error.orig}") from error
    return SqlStore(engine)


def _path(url_or_path: str) -> Path:
    scheme, separator, rest = url_or_path.partition("://")
    if not separator:
        return Path(url_or_path)
    if scheme != "sqlite":
        raise StoreError(f"a store at {scheme}:// is not supported: name a file, or sqlite:///FILE")
    return Path(rest.removeprefix("/"))


def _prepare(engine: Engine, path: Path, *, read_only: bool) -> None:
    if not read_only:
        with engine.execution_options(**{WRITE: True}).begin() as connection:
            migrate(connection)
        return
    with engine.connect() as connection:
        version = schema_version(connection, create=False)
    require_known(version)
    if version < NEWEST:
        raise StoreVersionError(
            f"the store has schema {version}, this program reads {NEWEST}: "
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
