"""The record of a store: entries are chained in the transaction of what they record, and lines read in their order."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from msgspec import Struct
from sqlalchemy import Connection, Engine

from killswitch.model.record_entry import RecordEntry
from killswitch.record.checkpoint import Start, read_checkpoint
from killswitch.record.line import LineContent, content_of, leaf_of
from killswitch.store import rows
from killswitch.store import statements as sql
from killswitch.store.errors import DamagedStoreError
from killswitch.store.fallback import Fallback
from killswitch.store.handle import StoreHandle, retried
from killswitch.store.record_chain import ChainWriter, RecordTip, keep_waiting, tip_of

PAGE: Final = 5_000
"""Lines that are read at once."""
_BEGINNINGS: Final = ('"kind":"chain"', '"kind":"epoch"')
_BODIES: Final = {"decision": sql.DECISION_BODY, "command": sql.EVENT_BODY}
"""Kind of entry → where its body is kept already, under the id in the key of that name."""


def _as_bytes(value: object) -> bytes:
    """What a column has: its digest shows whether it was changed, also to another type."""
    return value if isinstance(value, bytes) else str(value).encode()


def server_record_of(store: Path) -> Path:
    """The file with the record of the servers of a store, next to it: a chain of its own in the form of a store."""
    return store.with_name(f"{store.name}.server")


class StoredLine(Struct, frozen=True):
    """A line of the record, without its LF."""

    number: int
    text: bytes


class RecordedStore(StoreHandle):
    """A store whose writes are on record."""

    def __init__(self, engine: Engine, place: str, fallback: Fallback | None = None, *, volatile: bool = False) -> None:
        """As `StoreHandle`."""
        super().__init__(engine, place, fallback, volatile=volatile)
        self._chain = ChainWriter()

    @retried
    def add_to_record(self, entries: Sequence[RecordEntry], late: str | None = None) -> None:
        """Write entries of the record that belong to no other write. Raises FencedError as `commit_tick`.

        `late`: the present time, where they were made earlier.
        """
        if entries:
            self._return_to_disk()
            with self._writing_fenced() as connection:
                self._record(connection, entries, late)

    def record_start(self) -> Start:
        """Where the record begins: behind the lines that retention has removed. Raises DamagedStoreError."""
        content = self.record_checkpoint()
        try:
            return Start() if content is None else read_checkpoint(content)
        except ValueError as error:
            raise DamagedStoreError(self.place, f"the beginning of the record cannot be read ({error})") from error

    def record_checkpoint(self) -> bytes | None:
        """The checkpoint of the lines that retention has removed; None where it has removed none."""
        found = self._read(sql.RECORD_START)
        return _as_bytes(found[0].body) if found else None

    def record_tip(self) -> RecordTip | None:
        """The end of the record; None where nothing is recorded yet. Raises DamagedStoreError."""
        found = self._read(sql.RECORD_TIP)
        try:
            return tip_of(found[0] if found else None)
        except (TypeError, ValueError) as error:
            raise DamagedStoreError(self.place, f"the end of the record cannot be read ({error})") from error

    def record_began_at(self) -> datetime | None:
        """When the record began, or the epoch of its last restore; None where nothing is recorded yet.

        Where retention has removed that line, the time of the first one that is kept, which is later.
        """
        removed = self.record_start().number
        found = [
            content.at
            for kind in _BEGINNINGS
            for row in self._read(sql.NAMING_LINES, removed=removed, kind=kind)
            if (content := content_of(_as_bytes(row.line))) is not None and content.kind in ("chain", "epoch")
        ]
        if not found:
            kept = (content_of(each.text) for each in self.record_lines())
            found = [next((content.at for content in kept if content is not None), "")]
        return datetime.fromisoformat(found[-1]) if found[-1] else None

    def record_trouble(self) -> str | None:
        """Why the end of the record is not as the store keeps it apart: its number, and the leaf of its last line.

        None if it is. A change before the last line takes `ksctl audit verify`, which reads all of them.
        """
        way_out = (
            f"run `ksctl audit verify --store {self.place}`, keep a copy of the file, and find out who wrote to it"
        )
        try:
            tip = self.record_tip()
            end = 0 if tip is None else tip.number
            found = [*self.record_lines(max(end, 1), end + 1)]
            if tip != self.record_tip():
                return None  # a run has written meanwhile
        except DamagedStoreError as error:
            return f"{error}: {way_out}"
        if [each.number for each in found] != ([end] if end else []):
            return f"the record of {self.place} does not end at line {end:,}, the last that was written: {way_out}"
        if tip is not None and leaf_of(found[0].text) != tip.leaf:
            return f"line {end:,}, the last of the record of {self.place}, is not as it was written: {way_out}"
        return None

    def record_lines(self, first: int = 1, last: int | None = None) -> Iterator[StoredLine]:
        """The lines from number `first` to `last`, in their order; a page of them is in memory at a time.

        A removal that was interrupted may have left lines before the beginning of the record: they are not in it.
        """
        yield from self._lines(max(first, self.record_start().number + 1), last)

    def _lines(self, first: int, last: int | None) -> Iterator[StoredLine]:
        """The rows of these numbers, whether or not they are in the record."""
        while last is None or first <= last:
            limit = PAGE if last is None else min(PAGE, last - first + 1)
            found = self._read(sql.RECORD_LINES, first=first, limit=limit)
            for row in found:
                yield StoredLine(rows.integer(row.number), _as_bytes(row.line))
            if len(found) < limit or limit < PAGE:
                return
            first = found[-1].number + 1

    def record_body(self, digest: str, content: LineContent) -> bytes | None:
        """The bytes that a line names by their digest; None where they are nowhere."""
        for row in self._read(sql.RECORD_KEPT, digest=digest):
            return _as_bytes(row.content)
        id_ = content.decision if content.kind == "decision" else content.command
        if content.kind in _BODIES and content.body is not None and content.body.get("sha256") == digest:
            for row in self._read(_BODIES[content.kind], id=id_):
                return _as_bytes(row.body)
        return None

    def record_values(self) -> Iterator[tuple[str, bytes, bytes]]:
        """Digest, salt and value of everything erasable that is kept."""
        for row in self._read(sql.RECORD_SALTED):
            yield rows.text(row.digest), rows.bytes_of(row.salt), rows.bytes_of(row.content)

    @retried
    def erase_values(self, value: bytes) -> int:
        """Erase a value with its salts wherever it is kept outside of the record; returns how often it was.

        The chain stays whole: nobody can see any more what the digests in its lines are of.
        """
        digests = [digest for digest, _salt, found in self.record_values() if found == value]
        with self._writing() as connection:
            for digest in digests:
                connection.execute(sql.ERASE_KEPT, {"digest": digest})
        return len(digests)

    def _record(self, connection: Connection, entries: Sequence[RecordEntry], late: str | None = None) -> None:
        """Chain entries to the record, in the transaction of what they record.

        While the store is in memory they wait: they get numbers and hashes once they are on the disk.
        """
        if not entries:
            return
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        if self._engine is not self._on_disk:
            keep_waiting(raw, entries)
            return
        try:
            self._chain.write(raw, entries, late)
        except (TypeError, ValueError) as error:
            raise DamagedStoreError(self.place, f"the end of the record cannot be read ({error})") from error
