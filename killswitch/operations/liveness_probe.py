"""Probes whether the runner on a store ticks, for a supervisor.

Only the runner itself counts: a restart of the process helps neither a venue that is down, nor a stage that has fired,
nor a lock that cannot be written.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from killswitch.model.clock import Clock
from killswitch.model.instant import from_micros, rfc3339, to_micros
from killswitch.model.store import Lease, Store
from killswitch.runner.clock import ClockState
from killswitch.runner.lease import is_dead
from killswitch.runner.status_blob import LIVE_NAME

Probe: TypeAlias = Literal["live", "ready"]
"""live: the process that holds the store goes on ticking. ready: its last tick is fresh, and so is its lease."""

SHORTEST_WITHIN: Final[dict[Probe, float]] = {"live": 60.0, "ready": 20.0}
"""Seconds that the last tick may be old. `live` is patient: what fails it is killed, `ready` is only shown."""
INTERVALS: Final = 4
"""As many intervals as the last tick may be old where the interval is a long one."""


class ProbeResult(Struct, frozen=True):
    """The answer and its reason, in one line."""

    passed: bool
    why: str


class _LastTick(Struct, frozen=True):
    """What a probe needs of the view that `status` shows. All else may be another version's."""

    owner: str
    as_of: datetime
    ticks: int
    interval: float
    clock: ClockState | None = None


_DECODER = msgspec.json.Decoder(_LastTick)


def probe_of(
    store: Store, probe: Probe, now: datetime, within: float | None = None, clock: Clock | None = None
) -> ProbeResult:
    """Probe the runner on `store` at `now`. `within`: maximal age of its last tick in seconds; None: by its interval.

    `clock`: its monotonic seconds give the age of the tick if they can be compared; otherwise `now` does.

    StoreError if the store cannot be read; nothing else raises.
    """
    lease, blob = store.lease(), store.live(LIVE_NAME)
    if lease is None:
        return ProbeResult(False, "no runner holds the lease of this store")
    if is_dead(lease.owner):
        return ProbeResult(False, f"the process that holds the lease is dead: {lease.owner}")
    if blob is None:
        return ProbeResult(False, f"{lease.owner} has not ticked yet")
    try:
        tick = _DECODER.decode(blob)
    except msgspec.DecodeError as error:
        return ProbeResult(False, f"the last tick was written by another version of ksctl ({error})")
    if tick.owner != lease.owner:
        return ProbeResult(False, f"{lease.owner} has not ticked yet; the last tick is by {tick.owner}")
    counted = None if tick.clock is None or clock is None else tick.clock.elapsed(clock)
    return _of_tick(probe, tick, lease, now, within, now - tick.as_of if counted is None else counted)


def _of_tick(
    probe: Probe, tick: _LastTick, lease: Lease, now: datetime, within: float | None, age: timedelta
) -> ProbeResult:
    lease_until = from_micros(lease.expires_at)
    if probe == "ready" and lease.expires_at <= to_micros(now):
        return ProbeResult(False, f"the lease expired at {rfc3339(lease_until)} without renewal")
    bound = timedelta(seconds=max(SHORTEST_WITHIN[probe], INTERVALS * tick.interval) if within is None else within)
    which = f"tick {tick.ticks} at {rfc3339(tick.as_of)}"
    if -age > bound:
        # The clock was put back: no tick can be dated, and a new process would not be able to either.
        return ProbeResult(probe == "live", f"{which} is dated after this machine's clock, so its age is unknown")
    seconds = age.total_seconds()
    if age > bound:
        return ProbeResult(False, f"the last {which} is {seconds:.0f} s old, over {bound.total_seconds():g} s")
    return ProbeResult(True, f"{which} is {max(seconds, 0.0):.1f} s old, every {tick.interval:g} s")
