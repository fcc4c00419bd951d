"""Liveness and readiness probes of the runner on a store, for supervisors.

Only the runner itself is probed: a restart helps neither a venue that is down, nor a stage that has fired, nor a lock
that cannot be written.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from killswitch.model.clock import Clock
from killswitch.model.instant import from_micros, rfc3339, to_micros
from killswitch.model.store import Lease, Store
from killswitch.runner.lease import is_dead
from killswitch.runner.status_blob import LIVE_NAME, LastTick, decode_last_tick

Probe: TypeAlias = Literal["live", "ready"]
"""`live`: the process that holds the lease is ticking. `ready`: its last tick is recent, and its lease is valid."""

MIN_AGE_LIMIT: Final[dict[Probe, float]] = {"live": 60.0, "ready": 20.0}
"""Minimum limit on the age of the last tick, in seconds. `live` allows more: a process that fails it is killed."""
AGE_LIMIT_INTERVALS: Final = 4
"""The limit in intervals, if that is longer."""


class ProbeResult(Struct, frozen=True):
    """The result of a probe, and its reason in one line."""

    passed: bool
    why: str


def probe_of(
    store: Store, probe: Probe, now: datetime, within: float | None = None, clock: Clock | None = None
) -> ProbeResult:
    """Probe the runner on `store` at `now`. `within`: maximum age of its last tick in seconds; None: by its interval.

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
        tick = decode_last_tick(blob)
    except msgspec.DecodeError as error:
        return ProbeResult(False, f"the last tick was written by another version of ksctl ({error})")
    if tick.owner != lease.owner:
        return ProbeResult(False, f"{lease.owner} has not ticked yet; the last tick is by {tick.owner}")
    return _of_tick(probe, tick, lease, now, within, clock)


def live_by_sign(
    sign: bytes | None, lease: Lease | None, now: datetime, within: float | None = None, clock: Clock | None = None
) -> ProbeResult | None:
    """Whether the process that answers with `sign` is live. None where the answer proves nothing.

    `lease`: the store's, if that was read: its holder must be the process.
    """
    try:
        tick = None if sign is None else decode_last_tick(sign)
    except msgspec.DecodeError:
        return None
    if tick is None or is_dead(tick.owner) or (lease is not None and lease.owner != tick.owner):
        return None
    result = _of_tick("live", tick, lease, now, within, clock)
    return ProbeResult(True, f"by the process itself, {result.why}") if result.passed else None


def _of_tick(
    probe: Probe, tick: LastTick, lease: Lease | None, now: datetime, within: float | None, clock: Clock | None
) -> ProbeResult:
    if probe == "ready" and lease is not None and lease.expires_at <= to_micros(now):
        lease_until = from_micros(lease.expires_at)
        return ProbeResult(False, f"the lease expired at {rfc3339(lease_until)} without renewal")
    counted = None if tick.clock is None or clock is None else tick.clock.elapsed(clock)
    age = now - tick.as_of if counted is None else counted
    bound = timedelta(
        seconds=max(MIN_AGE_LIMIT[probe], AGE_LIMIT_INTERVALS * tick.interval) if within is None else within
    )
    which = f"tick {tick.ticks} at {rfc3339(tick.as_of)}"
    if -age > bound:
        # The clock moved back: the age of the tick is unknown, and a restart would not change that.
        return ProbeResult(probe == "live", f"{which} is dated after this machine's clock, so its age is unknown")
    seconds = age.total_seconds()
    if age > bound:
        return ProbeResult(False, f"the last {which} is {seconds:.0f} s old, over {bound.total_seconds():g} s")
    return ProbeResult(True, f"{which} is {max(seconds, 0.0):.1f} s old; interval {tick.interval:g} s")
