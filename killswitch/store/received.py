"""What a server has received from other programs: one file next to the store, which the server replaces as a whole.

It is state and no command: the newest heartbeat of each name, and the alerts of monitoring systems as their last
notifications state them. The runner reads it at every tick, and reads it again only where it has changed. Notifications
arrive late, twice and in any order, so that two states of one alert are merged by a rule that does not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from msgspec import MsgspecError, Struct
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.model.snapshot import ExternalAlert, Instant

RECEIVED_FORMAT: Final = "killswitch.received/v1"
MOST_ALERTS: Final = 1_000
"""Alerts that are kept; one more is refused, so that its sender tries again and pages."""
RESOLVED_KEPT: Final = timedelta(days=1)
"""How long a resolved alert is remembered, against notifications of it that arrive late."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


class StampedBeat(Struct, frozen=True, omit_defaults=True):
    """The newest heartbeat of a name by the clock of the server. `moved_at`: the newest whose progress had changed."""

    at: Instant
    moved_at: Instant
    progress: int | None = None


class ReceivedState(Struct, frozen=True, omit_defaults=True):
    """Everything that a server has received. `alerts_as_of`: when the newest notification of any alert arrived."""

    format: Literal["killswitch.received/v1"] = RECEIVED_FORMAT
    alerts: tuple[ExternalAlert, ...] = ()
    alerts_as_of: Instant | None = None
    heartbeats: Mapping[str, StampedBeat] = {}


NOTHING_RECEIVED: Final = ReceivedState()


class TooManyAlertsError(Exception):
    """More alerts than `MOST_ALERTS` are known."""


_ENCODER: Final = msgjson.Encoder()
_DECODER: Final = msgjson.Decoder(ReceivedState)
encode_received = _ENCODER.encode


def received_file(store_at: Path) -> Path:
    """The file next to a store."""
    return store_at.with_name(f"{store_at.name}.received.json")


def read_received(path: Path) -> ReceivedState | None:
    """What the file has; None where there is none, or none that can be read: nothing is known then."""
    try:
        return _DECODER.decode(path.read_bytes())
    except (OSError, MsgspecError, ValueError):
        return None


def received_at(store_at: str | None, as_of: datetime) -> ReceivedState:
    """What a tick at `as_of` on the store at this path or `sqlite:///` URL would have; nothing without a store."""
    if store_at is None:
        return NOTHING_RECEIVED
    return ReceivedInput(received_file(Path(store_at.removeprefix("sqlite:///")))).at_tick(as_of)


def identity_of(alert: ExternalAlert) -> tuple[tuple[str, str], ...]:
    """What an alert is known by: all its labels, as Alertmanager does."""
    return tuple(sorted(alert.labels.items()))


def with_alerts(state: ReceivedState, found: Iterable[ExternalAlert], now: datetime) -> ReceivedState:
    """The state after a notification that arrived now. TooManyAlertsError leaves it as it was."""
    kept = {identity_of(each): each for each in state.alerts}
    for each in found:
        name = identity_of(each)
        kept[name] = merged(kept[name], each) if name in kept else each
    fresh = tuple(each for each in kept.values() if each.status == "firing" or now - each.received_at < RESOLVED_KEPT)
    if len(fresh) > MOST_ALERTS:
        raise TooManyAlertsError(f"{len(fresh)} alerts are known, of at most {MOST_ALERTS}")
    return replace(state, alerts=fresh, alerts_as_of=now)


def merged(one: ExternalAlert, other: ExternalAlert) -> ExternalAlert:
    """The later state of one alert, whichever notification arrived first.

    The later start counts. Of one start a resolution is final: an alert that fires again has another start. Of two that
    fire the one with the later end counts.
    """
    later = max(one, other, key=_order)
    return replace(later, received_at=max(one.received_at, other.received_at))


def _order(alert: ExternalAlert) -> tuple[datetime, bool, datetime]:
    return alert.starts_at or _EPOCH, alert.status == "resolved", alert.ends_at or _NEVER


def with_beat(state: ReceivedState, name: str, progress: int | None, now: datetime) -> ReceivedState:
    """The state after a heartbeat that arrived now; one whose progress has not changed does not count as moved."""
    before = state.heartbeats.get(name)
    is_stuck = before is not None and progress is not None and before.progress == progress
    beat = StampedBeat(now, before.moved_at if before is not None and is_stuck else now, progress)
    return replace(state, heartbeats={**state.heartbeats, name: beat})


class ReceivedInput:
    """What the ticks of a run read. A file that is gone or damaged is nothing received, so that alerts are unknown."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._state = ReceivedState()
        self._stated: datetime | None = None
        self._first_seen: datetime | None = None

    def at_tick(self, as_of: datetime) -> ReceivedState:
        """What was received, of which nothing is newer than the first tick that has it: two clocks may differ."""
        try:
            stat = self._path.stat()
            changed = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        except OSError:
            changed = None
        if changed is None:
            self._state, self._seen = ReceivedState(), None
        elif changed != self._seen:
            self._state, self._seen = read_received(self._path) or ReceivedState(), changed
        stated = self._state.alerts_as_of
        if stated is None:
            return self._state
        if stated != self._stated or self._first_seen is None:
            self._stated, self._first_seen = stated, as_of
        return replace(self._state, alerts_as_of=min(stated, self._first_seen))
