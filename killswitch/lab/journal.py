"""A journal that lives as long as a rehearsal: closing writes it down, and nobody else will ever ask."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from killswitch.model.decision import Decision
from killswitch.model.store import JournalEntry, StoredDecision


class MemoryJournal:
    """`model.store.Journal` in memory. Decisions are entered as they are made."""

    def __init__(self) -> None:
        self._entries: dict[str, list[JournalEntry]] = {}
        self._decisions: dict[str, Decision] = {}
        self._count = 0

    def enter(self, decision: Decision, planned: Sequence[JournalEntry]) -> None:
        """A decision with its `planned` entries, as a tick commits them."""
        self._decisions[decision.id] = decision
        for entry in planned:
            self.append(entry)

    def append(self, entry: JournalEntry) -> int:
        self._count += 1
        self._entries.setdefault(entry.decision, []).append(replace(entry, sequence=self._count))
        return self._count

    def append_all(self, entries: Sequence[JournalEntry]) -> None:
        for entry in entries:
            self.append(entry)

    def journal(self, decision: str | None = None) -> Sequence[JournalEntry]:
        if decision is not None:
            return tuple(self._entries.get(decision, ()))
        every = [entry for entries in self._entries.values() for entry in entries]
        return sorted(every, key=lambda entry: entry.sequence)

    def journal_from(self, sequence: int) -> Sequence[JournalEntry]:
        return [entry for entry in self.journal() if entry.sequence >= sequence]

    def decision(self, id_prefix: str) -> StoredDecision | None:
        found = [decision for id_, decision in self._decisions.items() if id_.startswith(id_prefix)]
        if len(found) > 1:
            raise LookupError(f"several decisions start with {id_prefix!r}")
        return StoredDecision(found[0], None) if found else None

    def unfinished(self) -> Sequence[StoredDecision]:
        kinds = {id_: {entry.kind for entry in entries} for id_, entries in self._entries.items()}
        return tuple(
            StoredDecision(decision, None)
            for id_, decision in self._decisions.items()
            if "planned" in kinds.get(id_, ()) and "finished" not in kinds[id_]
        )

    def decisions(self, limit: int) -> Sequence[StoredDecision]:
        newest = list(self._decisions.values())[::-1][:limit]
        return tuple(StoredDecision(decision, None) for decision in newest)
