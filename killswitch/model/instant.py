"""Instants as whole microseconds since 1970, so that window edges compare exactly, and clock times of a zone.

A clock time, such as `08:00 Europe/Berlin`, has a next instant at which the clocks of its zone show it.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ONE_DAY = timedelta(days=1)

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def to_micros(at: datetime) -> int:
    """Whole microseconds since the epoch of an aware `at`; a naive one is a TypeError."""
    return (at - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The UTC datetime `micros` after the epoch."""
    return _EPOCH + timedelta(microseconds=micros)


def rfc3339(at: datetime) -> str:
    """`at` as RFC 3339 in UTC with a `Z`, without a fraction when it has none."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


class UnknownZoneError(Exception):
    """No time zone has this name in the machine's time zone database."""


class LocalTime(Struct, frozen=True):
    """A time of the day by the clocks of `zone`, an IANA name."""

    hour: int
    minute: int
    zone: str

    def __str__(self) -> str:
        return f"{self.hour:02}:{self.minute:02} {self.zone}"

    def next_after(self, now: datetime) -> datetime:
        """The first instant after `now` at which the clocks of the zone show this time, in UTC.

        On a day on which they skip it, the first instant after the gap; where they show it twice, the first time.
        UnknownZoneError.
        """
        zone = zone_named(self.zone)
        today = now.astimezone(zone).date()
        found = (self._on(today + number * _ONE_DAY, zone) for number in range(-1, 3))
        return next(instant for instant in found if instant > now)

    def _on(self, day: date, zone: ZoneInfo) -> datetime:
        """The instant at which the clocks of the zone show this time on a day."""
        shown = datetime.combine(day, time(self.hour, self.minute), zone)
        first, later = shown.astimezone(UTC), shown.replace(fold=1).astimezone(UTC)
        return first if first <= later else _end_of_gap(later, first, zone)


def _end_of_gap(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The first whole second from which the zone has the offset that it has `after`; `before`, it has another."""
    offset = after.astimezone(zone).utcoffset()
    low, high = before, after
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low) // timedelta(seconds=1) // 2)
        low, high = (low, middle) if middle.astimezone(zone).utcoffset() == offset else (middle, high)
    return high


@cache
def zone_named(name: str) -> ZoneInfo:
    """The time zone of an IANA name such as `Europe/Berlin`, by the machine's database. UnknownZoneError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UnknownZoneError(f"there is no time zone `{name}` on this machine") from error
