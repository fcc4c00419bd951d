"""Clock times of a zone, such as `08:00 Europe/Berlin`, and the next instant at which such a clock shows them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

_DAY = timedelta(days=1)


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
        shown = time(self.hour, self.minute)
        found = (local_instant(today + number * _DAY, shown, zone) for number in range(-1, 3))
        return next(instant for instant in found if instant > now)


def local_instant(day: date, shown: time, zone: ZoneInfo) -> datetime:
    """The instant at which the clocks of the zone show this time on a day, in UTC.

    A time that they skip is the first instant after the gap; one that they show twice is the first time (PEP 495 names
    both).
    """
    local = datetime.combine(day, shown, zone)
    first, later = local.astimezone(UTC), local.replace(fold=1).astimezone(UTC)
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
