"""The record in the store: lines are chained in the transaction of what they record, and read in their order.

The tip is a row of the database and is read under its write lock: two writers never fork the chain, and neither a crash
nor a rollback leaves a number unused.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from killswitch.model.record_entry import RecordEntry
from killswitch.record.line import FORMAT, NO_LEAF, SALT_BYTES, Line, make_line
from killswitch.record.tree import TreeEdge

_ENTRIES: Final = msgspec.json.Decoder(RecordEntry)
_ENCODER: Final = msgspec.json.Encoder()

_TIP: Final = "SELECT chain, number, leaf, edge FROM {schema}.record_tip WHERE one = 1"
_PUT_TIP: Final = "INSERT INTO {schema}.record_tip (one, chain, number, leaf, edge) VALUES (1, ?, ?, ?, ?)"
_MOVE_TIP: Final = "UPDATE {schema}.record_tip SET chain = ?, number = ?, leaf = ?, edge = ? WHERE one = 1"
_PUT_LINE: Final = "INSERT INTO {schema}.record (number, line, subject) VALUES (?, ?, ?)"
_PUT_KEPT: Final = "INSERT OR IGNORE INTO {schema}.record_kept (digest, content, salt) VALUES (?, ?, ?)"
_ANNOUNCED: Final = "SELECT max(number) FROM {schema}.record WHERE subject = ?"
_STATEMENTS: Final = {
    schema: tuple(each.format(schema=schema) for each in (_TIP, _PUT_TIP, _MOVE_TIP, _PUT_LINE, _PUT_KEPT, _ANNOUNCED))
    for schema in ("main", "disk")
}
"""Of the store's own file, and of the file that a store in memory is written back to."""
_MAKE_WAITING: Final = "CREATE TABLE IF NOT EXISTS main.record_waiting (sequence INTEGER PRIMARY KEY, body BLOB)"
_WAIT: Final = "INSERT INTO record_waiting (body) VALUES (?)"
_WAITING: Final = "SELECT body FROM main.record_waiting ORDER BY sequence"


class RecordTip(Struct, frozen=True):
    """The end of a chain: its id, the number and leaf of its last line, and the edge of its tree."""

    chain: str
    number: int
    leaf: bytes
    hashes: tuple[bytes, ...]

    @property
    def root(self) -> bytes:
        """The root of the tree of all lines."""
        return TreeEdge(self.number, self.hashes).root()


def tip_of(row: Sequence[object] | None) -> RecordTip | None:
    """The tip in a row. ValueError or TypeError where it cannot be one."""
    if row is None:
        return None
    chain, leaf, edge = _read_tip(row)
    return RecordTip(chain, edge.size, leaf, tuple(edge.hashes))


def _read_tip(row: Sequence[object]) -> tuple[str, bytes, TreeEdge]:
    """Chain, last leaf and edge of a row. ValueError or TypeError where it cannot be a tip."""
    chain, number, leaf, edge = row
    if not (isinstance(chain, str) and type(number) is int and isinstance(leaf, bytes) and isinstance(edge, bytes)):
        raise TypeError("the tip of the record cannot be read")
    return chain, leaf, TreeEdge.decode(number, edge)


class ChainWriter:
    """Chains entries to the lines of one schema, within an open write transaction.

    The writer keeps the row that it wrote last with its decoded edge: a close waits for each line. A row that is
    another one by now, after a rollback or another process's line, is decoded.
    """

    def __init__(self, schema: str = "main") -> None:
        self._tip, self._put_tip, self._move_tip, self._put_line, self._put_kept, self._announced = _STATEMENTS[schema]
        self._row: tuple[str, int, bytes, bytes] | None = None
        self._edge = TreeEdge()

    def write(self, connection: sqlite3.Connection, entries: Iterable[RecordEntry], late: str | None = None) -> None:
        """Chain the entries in their order. `late`: when they are stored, where they were made earlier.

        The first entry of a store is preceded by the line that begins its chain. ValueError or TypeError where the tip
        cannot be read.
        """
        pending = list(entries)
        if not pending:
            return
        row = connection.execute(self._tip).fetchone()
        if row is None:
            chain, leaf, edge = secrets.token_hex(16), NO_LEAF, TreeEdge()
            pending.insert(0, RecordEntry("chain", pending[0].at, {"chain": chain, "format": FORMAT}))
        else:
            chain, leaf, edge = (row[0], row[2], self._edge) if row == self._row else _read_tip(row)
        self._row = None
        for entry in pending:
            line = self._line(connection, entry, edge.size + 1, leaf, late)
            leaf = line.leaf
            edge.append(leaf)
            connection.execute(self._put_line, (line.number, line.text, entry.announces))
            if line.kept:
                connection.executemany(self._put_kept, [(it.digest, it.content, it.salt) for it in line.kept])
            if entry.kind == "epoch":
                chain = str(entry.fields["chain"])
        written = (chain, edge.size, leaf, edge.encode())
        connection.execute(self._put_tip if row is None else self._move_tip, written)
        self._row, self._edge = written, edge

    def _line(
        self, connection: sqlite3.Connection, entry: RecordEntry, number: int, leaf: bytes, late: str | None
    ) -> Line:
        answers = None
        if entry.answers is not None:
            (answers,) = connection.execute(self._announced, (entry.answers,)).fetchone()
        return make_line(entry, number, leaf, lambda: os.urandom(SALT_BYTES), answers=answers, late=late)


def keep_waiting(connection: sqlite3.Connection, entries: Iterable[RecordEntry]) -> None:
    """Keep entries while the store is in memory: they get numbers and hashes once the file accepts writes."""
    connection.execute(_MAKE_WAITING)
    connection.executemany(_WAIT, [(_ENCODER.encode(entry),) for entry in entries])


def waiting(connection: sqlite3.Connection) -> Iterator[RecordEntry]:
    """The entries that wait in memory, oldest first."""
    connection.execute(_MAKE_WAITING)
    for (body,) in connection.execute(_WAITING).fetchall():
        yield _ENTRIES.decode(body)
