"""Trading sessions: when a market opens by its local calendar, as exact instants.

A session belongs to the local date on which it opens, also if it closes after midnight.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

from killswitch.model.instant import HOUR, from_micros, local_instant, to_micros, zone_named
from killswitch.model.words import Weekday
from killswitch.signals.arguments import Argument, Declared

DAY = 24 * HOUR
UTC_DAY = "utc_day"
"""The word for the day from 00:00 UTC."""
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = timedelta(days=1)


class TradingSession(Declared, frozen=True):
    """The sessions of a market. `opens` and `closes` are microseconds of the local day of `zone`.

    `closes` is on the next day if it is not after `opens`. `weekdays` are local days on which it opens, except
    `holidays` (ISO dates).
    """

    zone: str
    opens: int
    closes: int
    weekdays: tuple[Weekday, ...]
    holidays: tuple[str, ...] = ()

    def last_open(self, at: int) -> int:
        """The last open at or before `at`, microseconds since the epoch."""
        return self._open(self._last_day(at))

    def next_open(self, at: int) -> int:
        """The next open after `at`, microseconds since the epoch."""
        day = self._last_day(at)
        while True:
            day += _DAY
            if self._is_trading_day(day) and (found := self._open(day)) > at:
                return found

    def is_open(self, at: int) -> bool:
        """Whether `at` is in a session, its open included and its close excluded."""
        day = self._last_day(at)
        last = day if self.closes > self.opens else day + _DAY
        return at < _instant(last, self.closes, self.zone)

    def _last_day(self, at: int) -> date:
        """The local date of the last open at or before `at`."""
        day = from_micros(at).astimezone(zone_named(self.zone)).date() + _DAY
        while not (self._is_trading_day(day) and self._open(day) <= at):
            day -= _DAY
        return day

    def _open(self, day: date) -> int:
        return _instant(day, self.opens, self.zone)

    def _is_trading_day(self, day: date) -> bool:
        return WEEKDAYS[day.weekday()] in self.weekdays and day.isoformat() not in self.holidays


Anchor = str | TradingSession
"""`UTC_DAY`, or a session."""


def last_open(anchor: Anchor, at: int) -> int:
    """The last open at or before `at`, both in microseconds since the epoch."""
    return at - at % DAY if isinstance(anchor, str) else anchor.last_open(at)


def next_open(anchor: Anchor, at: int) -> int:
    """The next open after `at`, both in microseconds since the epoch."""
    return at - at % DAY + DAY if isinstance(anchor, str) else anchor.next_open(at)


def _instant(day: date, of_day: int, zone: str) -> int:
    """The instant of a local time of a day, both in microseconds."""
    shown = (datetime.min + timedelta(microseconds=of_day)).time()  # noqa: DTZ901 - a time of the day, of no date
    return to_micros(local_instant(day, shown, zone_named(zone)))


ANCHOR = Argument(
    key="anchor",
    kind="reference",
    document="Session",
    words=(UTC_DAY,),
    meaning="The open from which it counts: `utc_day` is 00:00 UTC, any other name is that of a Session.",
    example=UTC_DAY,
)
