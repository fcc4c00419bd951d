"""A virtual clock and an in-memory journal for runs that leave nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from killswitch.model.decision import Decision
from killswitch.model.store import JournalEntry, StoredDecision


class VirtualClock:
    """A clock that `sleep` advances immediately. It supports one sleeper at a time, as the runner's loop is.

    `on_advance` receives the new instant, for what else happens in that time (a market that moves).
    """

    def __init__(self, start: datetime, on_advance: Callable[[datetime], object] | None = None) -> None:
        """`start` is an aware UTC datetime."""
        self._start = start
        self._elapsed = 0.0
        self._on_advance = on_advance

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    @property
    def origin(self) -> str:
        """What `monotonic` counts from: two runs on one such clock can compare their times."""
        return f"virtual {id(self)}"

    def set(self, now: datetime) -> None:
        """Advance to `now` immediately. ValueError if that is in the past."""
        elapsed = (now - self._start).total_seconds()
        if elapsed < self._elapsed:
            raise ValueError(f"it is {self.now().isoformat()} already, later than {now.isoformat()}")
        self._elapsed = elapsed

    async def sleep(self, seconds: float) -> None:
        """Advance by `seconds`, and let everything else that is ready run."""
        self._elapsed += max(seconds, 0.0)
        if self._on_advance is not None:
            self._on_advance(self.now())
        await asyncio.sleep(0)


class MemoryJournal:
    """`model.store.EffectStore` in memory. Decisions are entered when they are made."""

    def __init__(self) -> None:
        self._entries: dict[str, list[JournalEntry]] = {}
        self._decisions: dict[str, Decision] = {}
        self._count = 0
        self._live: dict[str, bytes] = {}

    def add_decision(self, decision: Decision, planned: Sequence[JournalEntry]) -> None:
        """Add a decision with its `planned` entries, as a tick commits them."""
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

    @property
    def in_memory_because(self) -> None:
        """None: a rehearsal has no restart that could repeat what it has done."""

    def put_live(self, name: str, blob: bytes) -> None:
        self._live[name] = blob

    def live(self, name: str) -> bytes | None:
        return self._live.get(name)

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
        return tuple(StoredDecision(decision, None) for decision in list(self._decisions.values())[::-1][:limit])
