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
_PUT_TIP: Final = (
    "INSERT INTO {schema}.record_tip (one, chain, number, leaf, edge) VALUES (1, ?, ?, ?, ?) "
    "ON CONFLICT (one) DO UPDATE SET chain = excluded.chain, number = excluded.number, leaf = excluded.leaf, "
    "edge = excluded.edge"
)
_PUT_LINE: Final = "INSERT INTO {schema}.record (number, line, subject) VALUES (?, ?, ?)"
_PUT_KEPT: Final = "INSERT OR IGNORE INTO {schema}.record_kept (digest, content, salt) VALUES (?, ?, ?)"
_ANNOUNCED: Final = "SELECT max(number) FROM {schema}.record WHERE subject = ?"
_STATEMENTS: Final = {
    schema: tuple(each.format(schema=schema) for each in (_TIP, _PUT_TIP, _PUT_LINE, _PUT_KEPT, _ANNOUNCED))
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
    found = _read_tip(row)
    return None if found is None else RecordTip(found[0], found[2].size, found[1], tuple(found[2].hashes))


def _read_tip(row: Sequence[object] | None) -> tuple[str, bytes, TreeEdge] | None:
    """Chain, last leaf and edge of a row. ValueError or TypeError where it cannot be a tip."""
    if row is None:
        return None
    chain, number, leaf, edge = row
    if not (isinstance(chain, str) and type(number) is int and isinstance(leaf, bytes) and isinstance(edge, bytes)):
        raise TypeError("the tip of the record cannot be read")
    return chain, leaf, TreeEdge.decode(number, edge)


class ChainWriter:
    """Chains entries to the lines of one schema, within an open write transaction of its connection."""

    def __init__(self, connection: sqlite3.Connection, schema: str = "main") -> None:
        self._connection = connection
        self._tip, self._put_tip, self._put_line, self._put_kept, self._announced = _STATEMENTS[schema]

    def write(self, entries: Iterable[RecordEntry], late: str | None = None) -> None:
        """Chain the entries in their order. `late`: when they are stored, where they were made earlier.

        The first entry of a store is preceded by the line that begins its chain.
        """
        pending = list(entries)
        if not pending:
            return
        tip = _read_tip(self._connection.execute(self._tip).fetchone())
        if tip is None:
            begun = secrets.token_hex(16)
            pending.insert(0, RecordEntry("chain", pending[0].at, {"chain": begun, "format": FORMAT}))
            tip = begun, NO_LEAF, TreeEdge()
        chain, leaf, edge = tip
        for entry in pending:
            line = self._line(entry, edge.size + 1, leaf, late)
            leaf = line.leaf
            edge.append(leaf)
            self._connection.execute(self._put_line, (line.number, line.text, entry.announces))
            if line.kept:
                self._connection.executemany(self._put_kept, [(it.digest, it.content, it.salt) for it in line.kept])
            if entry.kind == "epoch":
                chain = str(entry.fields["chain"])
        self._connection.execute(self._put_tip, (chain, edge.size, leaf, edge.encode()))

    def _line(self, entry: RecordEntry, number: int, leaf: bytes, late: str | None) -> Line:
        answers = None
        if entry.answers is not None:
            (answers,) = self._connection.execute(self._announced, (entry.answers,)).fetchone()
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
