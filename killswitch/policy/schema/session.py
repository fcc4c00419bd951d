"""The `Session` document: when a market opens and closes by its local calendar."""

import re
from datetime import date
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from killswitch.model.instant import HOUR, MINUTE
from killswitch.model.words import Weekday
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.part import AtLeastOne, MistakeError, Part, Scalar
from killswitch.policy.schema.scalars import pattern_json, quoted

_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)", re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]*", re.ASCII)


def time_of_day(value: object) -> int:
    """The microseconds from midnight to a local time such as `09:30`."""
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        fix = "write hours and minutes with two digits each, from 00:00 to 23:59, such as 09:30"
        raise MistakeError("KS2112", f"{quoted(value)} is not a time of day", fix)
    return int(found[1]) * HOUR + int(found[2]) * MINUTE


def calendar_date(value: object) -> str:
    """A date such as `2026-12-25`, unchanged."""
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError:
            pass  # no such day, such as 2026-02-30
    raise MistakeError("KS2113", f"{quoted(value)} is not a date", "write year, month and day, such as 2026-12-25")


def time_zone(value: object) -> str:
    """The name of a time zone of the IANA database, such as `America/New_York`."""
    fix = "write a name of the IANA time zone database, such as America/New_York, or UTC"
    if isinstance(value, str) and _ZONE.fullmatch(value):
        try:
            ZoneInfo(value)
        except (OSError, ValueError):  # unknown, or the name of a folder
            pass
        else:
            return value
    raise MistakeError("KS2114", f"{quoted(value)} is not a time zone", fix)


TimeOfDay = Annotated[int, Scalar(time_of_day, pattern_json(_TIME.pattern, "09:30", "17:00"))]
CalendarDate = Annotated[str, Scalar(calendar_date, pattern_json(_DATE.pattern, "2026-12-25"))]
TimeZone = Annotated[str, Scalar(time_zone, pattern_json(_ZONE.pattern, "America/New_York", "UTC"))]


class SessionSpec(Part):
    """The opening hours of a market. A local time that clocks skip is the first instant after the skip; one that occurs
    twice is its first occurrence."""

    zone: TimeZone
    """The time zone of its times and days, by the IANA database."""
    opens: TimeOfDay
    """The local time at which it opens."""
    closes: TimeOfDay
    """The local time at which it closes; at or before `opens` it is on the next day."""
    weekdays: Annotated[tuple[Weekday, ...], AtLeastOne()]
    """The local weekdays on which it opens."""
    holidays: tuple[CalendarDate, ...] = ()
    """Local dates on which it does not open. Left out: none."""


class SessionDocument(VersionedPart):
    """The trading session of a market, for signals since its open and whether the market is closed."""

    kind: Literal["Session"]
    spec: SessionSpec
