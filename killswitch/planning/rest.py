"""A watch at rest: what would have to change before a tick could change or say anything."""

from __future__ import annotations

from dataclasses import dataclass

from killswitch.engine.rest import rests_until
from killswitch.planning.watch import Watch


@dataclass(frozen=True, slots=True)
class Rest:
    """A watch that only other conditions move before `until` (microseconds).

    `true` and `unknown` are the masks of its conditions now; `places` says which accounts of the snapshot it sums.
    """

    watch: Watch
    places: tuple[int, ...]
    until: int
    true: int
    unknown: int


def rest_of(watch: Watch, places: tuple[int, ...] | None, now: int) -> Rest | None:
    """The watch's rest after its last step at `now`, or None if it has none."""
    columns = watch.columns
    if places is None or columns is None or not watch.history.explained or watch.history.last_at != now:
        return None
    true, unknown = watch.prepared.machine.evaluate(columns.lo, columns.hi, columns.text)
    until = rests_until(watch.prepared.machine, watch.state, true, unknown)
    return Rest(watch, places, until, true, unknown) if until > now else None
