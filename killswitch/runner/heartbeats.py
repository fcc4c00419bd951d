"""Heartbeats of bots: a small row in the store for each name, which the next tick reads.

They are sent often, so that they take a light path: no event that waits for a tick, and no row for each beat. They are
stored, and outlive a restart of the runner.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct
from msgspec import json as msgjson

from killswitch.model.clock import Clock
from killswitch.model.snapshot import Instant
from killswitch.model.store import HEARTBEAT, Store, decoded
from killswitch.runner.clock import ClockState, now_after
from killswitch.runner.status_blob import LIVE_NAME, decode_last_tick


class Heartbeat(Struct, frozen=True, omit_defaults=True):
    """The last heartbeat of a name. `moved_at`: the last one that counts.

    A heartbeat that declares its `progress`, a counter of the bot's loops, counts only if that differs from the one
    before: a thread may go on beating next to a loop that hangs.
    """

    at: Instant
    moved_at: Instant
    progress: int | None = None


_ENCODER = msgjson.Encoder()
_DECODER = msgjson.Decoder(Heartbeat)


def beat(store: Store, name: str, at: datetime, progress: int | None) -> Heartbeat:
    """Store a heartbeat that was sent at `at`, as ticks are dated; returns it as it counts."""
    before = decoded(_DECODER.decode, store.live(HEARTBEAT + name))
    is_stuck = before is not None and progress is not None and before.progress == progress
    found = Heartbeat(at, before.moved_at if before is not None and is_stuck else at, progress)
    store.put_live(HEARTBEAT + name, _ENCODER.encode(found))
    return found


def tick_time_of(store: Store, clock: Clock) -> datetime:
    """Now, as the next tick on the store would be dated, from the least of the last tick that says it."""
    last = decoded(decode_last_tick, store.live(LIVE_NAME))
    return now_after(None if last is None else last.clock or ClockState(last.as_of), clock)


def last_heartbeats(store: Store) -> dict[str, Heartbeat]:
    """Name → its last heartbeat; one that another version wrote and this one cannot read is left out."""
    found = ((name, decoded(_DECODER.decode, blob)) for name, blob in store.live_under(HEARTBEAT).items())
    return {name: heartbeat for name, heartbeat in sorted(found) if heartbeat is not None}
