"""What is kept of a shadow set: in the runner's store that there is one, in a store of its own what it has done.

The store of its own is a file next to the runner's, so that no write of a shadow waits for, or delays, a tick.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.applied_set import PolicyOrigin
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Instant
from killswitch.model.store import Store, decoded
from killswitch.store.errors import StoreError
from killswitch.store.sqlite import open_store

SHADOW = "shadow/"
"""How the names of the live blobs with the records of shadow sets begin."""
SEEN = "seen"
"""The live blob of a shadow set's own store with the spans of ticks that it has seen."""
MOST_SPANS = 1_000
"""Number of spans that are kept; older ones are joined, and their gaps summed."""
REMEMBERED = 10_000
"""Number of the newest decisions that are read of a store."""

ShadowReason = Literal["candidate", "previous"]
"""A set that may be promoted, or one that was deployed until another was."""


class ShadowRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A shadow set. `id`: the beginning of the digest of its folder. `store_at`: its own store, a path."""

    id: str
    reason: ShadowReason
    origin: PolicyOrigin
    digest: str = ""
    """The digest of the compiled set; empty until it was compiled."""
    begun_at: Instant
    until: Instant | None = None
    ended_at: Instant | None = None
    store_at: str
    problem: str | None = None
    """Why it is not evaluated, or was not for a time; the last such reason."""

    @property
    def is_active(self) -> bool:
        return self.ended_at is None


class TickSpan(Struct, frozen=True):
    """Ticks without a gap, from the first to the last; `ticks`: their number."""

    first: Instant
    last: Instant
    ticks: int

    def covers(self, at: datetime) -> bool:
        return self.first <= at <= self.last


class SeenTicks(Struct, frozen=True):
    """The spans of ticks that a shadow set has seen, oldest first. `missed`: snapshots that are known to be lost."""

    spans: tuple[TickSpan, ...] = ()
    missed: int = 0

    def with_tick(self, at: datetime, missing: int, longest: timedelta, *, continues: bool) -> SeenTicks:
        """After a tick at `at`, before which `missing` snapshots were lost.

        `longest`: the longest time between two ticks without a gap. `continues`: whether the evaluation has run since
        the last one.
        """
        last = self.spans[-1] if self.spans else None
        if last is not None and continues and not missing and at - last.last <= longest:
            return replace(self, spans=(*self.spans[:-1], TickSpan(last.first, at, last.ticks + 1)))
        return SeenTicks((*self.spans, TickSpan(at, at, 1))[-MOST_SPANS:], self.missed + missing)

    @property
    def time(self) -> timedelta:
        """The time of all spans together."""
        return sum((each.last - each.first for each in self.spans), timedelta())

    @property
    def ticks(self) -> int:
        return sum(each.ticks for each in self.spans)

    def covers(self, at: datetime) -> bool:
        """Whether the set has seen the tick at `at`."""
        return any(each.covers(at) for each in self.spans)

    @property
    def gaps(self) -> tuple[tuple[datetime, datetime], ...]:
        """The times between the spans."""
        return tuple((before.last, after.first) for before, after in zip(self.spans, self.spans[1:], strict=False))


encode_record = msgspec.json.Encoder().encode
encode_seen = msgspec.json.Encoder().encode
_RECORD = msgspec.json.Decoder(ShadowRecord).decode
_SEEN = msgspec.json.Decoder(SeenTicks).decode


def shadow_records(store: Store) -> tuple[ShadowRecord, ...]:
    """The shadow sets of a runner's store, the oldest first; one that another version wrote is left out."""
    found = (decoded(_RECORD, blob) for blob in store.live_under(SHADOW).values())
    return tuple(sorted((each for each in found if each is not None), key=lambda each: each.begun_at))


class ShadowPast(Struct, frozen=True):
    """What a shadow set has decided, newest first, and the ticks that it has seen. `unread`: why that is not known."""

    seen: SeenTicks
    decisions: tuple[Decision, ...]
    unread: str | None = None


def past_of(record: ShadowRecord) -> ShadowPast:
    """What the store of the shadow set has; nothing, with the reason, if it cannot be read."""
    try:
        store = open_store(record.store_at, read_only=True)
    except StoreError as error:
        return ShadowPast(SeenTicks(), (), str(error))
    try:
        seen = seen_in(store)
        decided = (stored.decision for stored in store.decisions(REMEMBERED))
        # The store begins with the decisions of the deployed set, which come before the first tick that it has seen.
        return ShadowPast(seen, tuple(each for each in decided if seen.covers(each.as_of)))
    except StoreError as error:
        return ShadowPast(SeenTicks(), (), str(error))
    finally:
        store.close()


def seen_in(store: Store) -> SeenTicks:
    """The spans in the store of a shadow set; none if none were written."""
    return decoded(_SEEN, store.live(SEEN)) or SeenTicks()


def time_in_shadow(store: Store, digest: str) -> timedelta:
    """For how long a set was evaluated in shadow, without the gaps; zero for one that never was.

    `digest`: of the compiled set, or of its folder.
    """
    found = (each for each in shadow_records(store) if digest in (each.digest, each.origin.folder_digest))
    return sum((past_of(each).seen.time for each in found if each.reason == "candidate"), timedelta())


def shadow_folder(store_at: str) -> Path:
    """The folder with the files and the stores of the shadow sets of a runner's store."""
    return Path(f"{Path(store_at.removeprefix('sqlite:///')).absolute()}.shadow")


def of_shadow(decisions: Iterable[Decision]) -> tuple[Decision, ...]:
    """The decisions that a stage has fired: the rest repeats operators' commands and its own resets."""
    return tuple(each for each in decisions if each.kind is None)
