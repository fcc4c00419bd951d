"""Trading hours of stocks: the regular session by Alpaca's clock, the extended session by its calendar."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Literal

from msgspec import Struct

from killswitch.model.parsing import Row, UnreadableError, required_text, written_time_of, zoned

Session = Literal["regular", "extended", "closed"]


class VenueClock(Struct, frozen=True):
    """Alpaca's clock at one moment. `skew` is its time minus ours."""

    is_open: bool
    next_open: datetime
    next_close: datetime
    offset: timedelta
    """Offset of New York from UTC at that time."""
    skew: timedelta

    def is_regular(self, now: datetime) -> bool:
        """Whether the regular session is open at `now`, a local time not long after the clock was read."""
        theirs = now + self.skew
        if self.is_open:
            return theirs < self.next_close or theirs >= self.next_open
        return self.next_open <= theirs < self.next_close


def read_clock(answer: Row, now: datetime) -> VenueClock:
    """Parse the clock. `now` is the local time in the middle of the request. Raises UnreadableError."""
    theirs = zoned(required_text(answer.get("timestamp"), "timestamp"))
    opens, closes = (written_time_of(answer.get(name), name) for name in ("next_open", "next_close"))
    is_open = answer.get("is_open")
    offset = None if theirs is None else theirs.utcoffset()
    if theirs is None or offset is None or not isinstance(is_open, bool):
        raise UnreadableError("the clock has no valid is_open or timestamp")
    return VenueClock(is_open, opens, closes, offset, theirs.astimezone(UTC) - now)


class TradingDay(Struct, frozen=True):
    """One trading day, with the extended session around it, in UTC."""

    begins: datetime
    ends: datetime


def read_calendar(answer: Sequence[Row], offset: timedelta) -> tuple[TradingDay, ...]:
    """The trading days of the answer, whose times are New York's at `offset` from UTC."""
    return tuple(
        TradingDay(
            _moment(required_text(each.get("date"), "date"), each.get("session_open") or "0400", offset),
            _moment(required_text(each.get("date"), "date"), each.get("session_close") or "2000", offset),
        )
        for each in answer
    )


def _moment(date: str, clock: object, offset: timedelta) -> datetime:
    digits = str(clock).replace(":", "")
    try:
        return datetime.combine(
            datetime.fromisoformat(date).date(), time(int(digits[:2]), int(digits[2:4])), UTC
        ) - offset  # fmt: skip
    except ValueError:
        raise UnreadableError(f"{date} {clock!r} is not a calendar time") from None


class Hours(Struct):
    """What is known of the sessions. Without a clock nothing is assumed to be open or closed."""

    clock: VenueClock | None = None
    days: tuple[TradingDay, ...] = ()

    def session(self, now: datetime) -> Session | None:
        """The current session; None while it is unknown."""
        if self.clock is None:
            return None
        if self.clock.is_regular(now):
            return "regular"
        theirs = now + self.clock.skew
        return "extended" if any(day.begins <= theirs < day.ends for day in self.days) else "closed"

    def next_session(self, now: datetime, *, extended: bool) -> datetime | None:
        """When the next session begins, extended sessions included where `extended`; None while it is unknown."""
        if self.clock is None:
            return None
        theirs = now + self.clock.skew
        begins = [day.begins for day in self.days if day.begins > theirs] if extended else []
        return min([*begins, self.clock.next_open], default=None)
