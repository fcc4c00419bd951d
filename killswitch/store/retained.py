"""What retention removes from a store: in short transactions, since a tick of a run waits for each.

The beginning of the record moves in one transaction, with the line that announces it. What lies before it is not in the
record from then on, and is deleted afterwards; where that is interrupted, the next removal finds what is left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from msgspec import Struct
from sqlalchemy import TextClause

from killswitch.model.decision import Decision
from killswitch.model.record_entry import RecordEntry
from killswitch.model.store import RUNNER_VIEW
from killswitch.record.line import content_of, keys_of, references_of
from killswitch.store import rows
from killswitch.store import statements as sql
from killswitch.store.errors import StoreError
from killswitch.store.handle import retried
from killswitch.store.recorded import RecordedStore, StoredLine

BATCH: Final = 1_000
"""Rows that one transaction deletes: a few milliseconds."""
_DECISIONS_AT_ONCE: Final = 50
"""A decision has hundreds of journal entries, and one over a large book has a megabyte."""
_DECISIONS_REMOVED_AT_ONCE: Final = 5
"""SQLite overwrites what it deletes, and a run whose write waits for half a second goes on in memory."""
_NAMING: Final = ('"kind":"decision"', '"kind":"command"')


class RemovedRows(Struct, frozen=True):
    """How many rows were deleted, by what they are."""

    lines: int
    bodies: int
    decisions: int
    commands: int
    notices: int


class RetainedStore(RecordedStore):
    """A store from which retention removes what is old."""

    def waiting_line(self) -> int | None:
        """The number of the first line that announces a notification which is not delivered; None without any."""
        found = self._read(sql.WAITING_LINE)[0].number
        return None if found is None else rows.integer(found)

    def memories(self) -> Iterator[tuple[str, bytes]]:
        """What a restart remembers besides states of machines, by name: live blobs but the view of the last tick."""
        for row in self._read(sql.LIVE_BODIES, besides=RUNNER_VIEW):
            yield str(row.name), row.body if isinstance(row.body, bytes) else str(row.body).encode()

    def decisions_in_order(self) -> Iterator[Decision]:
        """Every decision, oldest first, without its snapshot; a page of them is in memory at a time."""
        after = 0
        while found := self._read(sql.DECISIONS_AFTER, after=after, limit=_DECISIONS_AT_ONCE):
            yield from (each.decision for each in self._decoded("a decision", rows.stored, found))
            after = found[-1].sequence

    @retried
    def begin_record_at(self, checkpoint: bytes, before: bytes | None, entry: RecordEntry) -> None:
        """Let the record begin behind the lines of a checkpoint, and write the entry that announces it, at once.

        `before`: the checkpoint that is replaced. Raises StoreError where another one is there.
        """
        with self._writing() as connection:
            row = connection.execute(sql.RECORD_START).first()
            if (None if row is None else bytes(row.body)) != before:
                raise StoreError(f"another retention of {self.place} is under way: run it again afterwards")
            connection.execute(sql.PUT_RECORD_START, {"body": checkpoint})
            self._record(connection, (entry,))

    def remove_before_start(self, before: int) -> RemovedRows:
        """Delete what lies before the beginning of the record: lines, what only they name, and rows that are older.

        `before` (microseconds): decisions, commands and notices are deleted that are older, and that no line names.
        """
        removed = self.record_start().number
        seen = 0 if (tip := self.record_tip()) is None else tip.number
        digests = self._only_named_by(self._lines(1, removed), removed, seen)
        bodies = sum(
            self._remove_bodies(digests[at : at + BATCH], seen) for at in range(0, len(digests), BATCH)
        )  # fmt: skip
        named = self._named(removed)
        decisions = self._remove_decisions(before, named)
        commands = self._remove_commands(before, named)
        notices = self._repeated(sql.REMOVE_NOTICES, before=before)
        return RemovedRows(self._repeated(sql.REMOVE_LINES, last=removed), bodies, decisions, commands, notices)

    def _only_named_by(self, lines: Iterable[StoredLine], removed: int, seen: int) -> list[str]:
        """The digests of what these lines keep outside, without what later lines name too."""
        found: dict[str, None] = {}
        for line in lines:
            found |= dict.fromkeys(self._digests_of(line.text))
        for line in self._lines(removed + 1, seen) if found else ():
            for digest in _references(line.text):
                found.pop(digest, None)
        return list(found)

    def _digests_of(self, text: bytes) -> Iterator[str]:
        """The digests of bodies and of erasable values, also of those that are in the bodies."""
        yield from _salted(keys_of(text) or {})
        for digest in _references(text):
            yield digest
            for row in self._read(sql.RECORD_KEPT, digest=digest):
                yield from _salted(keys_of(rows.bytes_of(row.content)) or {})

    @retried
    def _remove_bodies(self, digests: Sequence[str], seen: int) -> int:
        """Delete bodies, but those that a line names which was written since line `seen`."""
        many = 0
        with self._writing(background=True) as connection:
            newer = connection.execute(sql.RECORD_LINES, {"first": seen + 1, "limit": 1 << 31}).all()
            kept = {digest for row in newer for digest in _references(bytes(row.line))}
            for digest in digests:
                if digest not in kept:
                    many += connection.execute(sql.ERASE_KEPT, {"digest": digest}).rowcount
        return many

    def _named(self, removed: int) -> frozenset[str]:
        """The ids of decisions and commands whose bodies are named by lines that are kept."""
        found = set()
        for kind in _NAMING:
            for row in self._read(sql.NAMING_LINES, removed=removed, kind=kind):
                content = content_of(bytes(row.line))
                if content is not None:
                    found |= {content.decision, content.command}
        return frozenset(each for each in found if each is not None)

    def _remove_decisions(self, before: int, named: Collection[str]) -> int:
        """Delete decisions with their journal and incident; those that a line names stay."""
        ids = [str(row.id) for row in self._read(sql.OLD_DECISIONS, before=before) if row.id not in named]
        for at in range(0, len(ids), _DECISIONS_REMOVED_AT_ONCE):
            self._remove_by_id(sql.REMOVE_DECISION, ids[at : at + _DECISIONS_REMOVED_AT_ONCE])
        return len(ids)

    def _remove_commands(self, before: int, named: Collection[str]) -> int:
        """Delete operator commands that were consumed; those that a line names stay."""
        ids = [str(row.id) for row in self._read(sql.OLD_EVENTS, before=before) if row.id not in named]
        for at in range(0, len(ids), BATCH):
            self._remove_by_id((sql.REMOVE_EVENT,), ids[at : at + BATCH])
        return len(ids)

    @retried
    def _remove_by_id(self, statements: Sequence[TextClause], ids: Sequence[str]) -> None:
        with self._writing(background=True) as connection:
            for statement in statements:
                connection.execute(statement, [{"id": id_} for id_ in ids])

    def _repeated(self, statement: TextClause, **values: int) -> int:
        """Delete batch after batch; returns how many rows."""
        many = 0
        while found := self._remove_batch(statement, values):
            many += found
        return many

    @retried
    def _remove_batch(self, statement: TextClause, values: dict[str, int]) -> int:
        with self._writing(background=True) as connection:
            return len(connection.execute(statement, {**values, "limit": BATCH}).all())


def _references(text: bytes) -> tuple[str, ...]:
    content = content_of(text)
    return () if content is None else references_of(content)


def _salted(keys: dict[str, object]) -> Iterator[str]:
    """The digests of erasable values among the values of a line or of its details."""
    for value in keys.values():
        if isinstance(value, dict):
            if set(value) == {"salted"}:
                yield str(value["salted"])
            else:
                yield from _salted(value)
