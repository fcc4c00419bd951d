"""Reads what can still be read of a damaged database, row by row.

For a process that is under way: what it acts on is in its own memory, and it needs a store that takes what it does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

TABLES: Final = (
    "lease", "live", "states", "events", "decisions", "journal", "outbox", "notices", "incidents", "course", "history",
)  # fmt: skip
_BOTH_WAYS: Final = ("ASC", "DESC")
"""From the oldest row up to the damage, then from the newest one down to it."""


def salvage(source: sqlite3.Connection, to: sqlite3.Connection) -> tuple[str, ...]:
    """Copy every row of `source` that can be read into `to`, which has the schema; the tables that lost any.

    Nothing that `source` answers is an error.
    """
    if source.in_transaction:
        with suppress(sqlite3.Error):
            source.rollback()
    before, source.text_factory = source.text_factory, _legible
    to.execute("BEGIN")
    try:
        lost = tuple(table for table in TABLES if not _copied(source, to, table))
        _keep_counting(source, to)
    finally:
        to.execute("COMMIT")
        source.text_factory = before
    return lost


def _legible(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _copied(source: sqlite3.Connection, to: sqlite3.Connection, table: str) -> bool:
    """Whether all of it could be read."""
    names = [row[1] for row in to.execute(f"PRAGMA table_info({table})")]
    columns, places = ", ".join(names), ", ".join("?" * len(names))
    whole = True
    for way in _BOTH_WAYS:
        rows = _rows(source, f"SELECT {columns} FROM {table} ORDER BY rowid {way}")
        try:
            to.executemany(f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({places})", rows)
        except sqlite3.Error:
            whole = False
        else:
            break
    return whole


def _rows(source: sqlite3.Connection, statement: str) -> Iterator[Any]:
    yield from source.execute(statement)


def _keep_counting(source: sqlite3.Connection, to: sqlite3.Connection) -> None:
    """Numbers of rows go on behind those that were given already, also where such rows are lost."""
    with suppress(sqlite3.Error):
        for name, count in source.execute("SELECT name, seq FROM sqlite_sequence").fetchall():
            if name in TABLES and type(count) is int:
                to.execute("DELETE FROM sqlite_sequence WHERE name = ? AND seq < ?", (name, count))
                to.execute(
                    "INSERT INTO sqlite_sequence (name, seq) SELECT ?, ? "
                    "WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = ?)",
                    (name, count, name),
                )
