"""Sessions by their local calendar: the last open, the next one, and whether a market is open."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from killswitch.model.instant import HOUR, MINUTE, from_micros, to_micros
from killswitch.signals.sessions import UTC_DAY, WEEKDAYS, TradingSession, last_open, next_open

NEW_YORK = TradingSession(
    "us", "America/New_York", 9 * HOUR + 30 * MINUTE, 16 * HOUR, WEEKDAYS[:5], ("2026-12-25", "2027-01-01")
)
CHICAGO = TradingSession("cme", "America/Chicago", 17 * HOUR, 16 * HOUR, ("sun", "mon", "tue", "wed", "thu"))
ALWAYS = WEEKDAYS


def at(text: str) -> int:
    """Microseconds of an ISO time in UTC."""
    return to_micros(datetime.fromisoformat(text).replace(tzinfo=UTC))


def session(zone: str, opens: int) -> TradingSession:
    return TradingSession("it", zone, opens, opens, ALWAYS)


@pytest.mark.parametrize(
    ("anchor", "now", "last", "following"),
    [
        # 2026-11-20 is a Friday; New York is at −5 h
        (UTC_DAY, "2026-11-20T00:00:00", "2026-11-20T00:00:00", "2026-11-21T00:00:00"),
        (UTC_DAY, "2026-11-19T23:59:59.999999", "2026-11-19T00:00:00", "2026-11-20T00:00:00"),
        (NEW_YORK, "2026-11-20T14:30:00", "2026-11-20T14:30:00", "2026-11-23T14:30:00"),
        (NEW_YORK, "2026-11-20T14:29:59", "2026-11-19T14:30:00", "2026-11-20T14:30:00"),
        (NEW_YORK, "2026-11-22T12:00:00", "2026-11-20T14:30:00", "2026-11-23T14:30:00"),  # Sunday: Friday's
        (NEW_YORK, "2026-12-27T12:00:00", "2026-12-24T14:30:00", "2026-12-28T14:30:00"),  # over a holiday
        (CHICAGO, "2026-11-20T12:00:00", "2026-11-19T23:00:00", "2026-11-22T23:00:00"),  # Thursday's evening
        (NEW_YORK, "2026-03-09T13:30:00", "2026-03-09T13:30:00", "2026-03-10T13:30:00"),  # −4 h since the Sunday
        (NEW_YORK, "2026-03-09T13:00:00", "2026-03-06T14:30:00", "2026-03-09T13:30:00"),
    ],
    ids=[
        "midnight",
        "before-midnight",
        "at-the-open",
        "before-it",
        "weekend",
        "holiday",
        "evening",
        "dst",
        "dst-before",
    ],
)
def test_the_last_and_the_next_open(anchor: str | TradingSession, now: str, last: str, following: str) -> None:
    """The last one may be now, the next one is later; weekends and holidays have none."""
    assert (last_open(anchor, at(now)), next_open(anchor, at(now))) == (at(last), at(following))


@pytest.mark.parametrize(
    ("zone", "opens", "day", "opened"),
    [
        # New York skips 02:00 to 03:00 on 2026-03-08, and repeats 01:00 to 02:00 on 2026-11-01
        ("America/New_York", 2 * HOUR + 30 * MINUTE, "2026-03-08T12:00:00", "2026-03-08T07:00:00"),
        ("America/New_York", 2 * HOUR, "2026-03-08T12:00:00", "2026-03-08T07:00:00"),
        ("America/New_York", 3 * HOUR, "2026-03-08T12:00:00", "2026-03-08T07:00:00"),
        ("America/New_York", HOUR + 59 * MINUTE, "2026-03-08T12:00:00", "2026-03-08T06:59:00"),
        ("America/New_York", HOUR + 30 * MINUTE, "2026-11-01T12:00:00", "2026-11-01T05:30:00"),
        ("America/New_York", 2 * HOUR, "2026-11-01T12:00:00", "2026-11-01T07:00:00"),
        # Lord Howe's clocks change by half an hour: 02:00 to 02:30 is skipped on 2026-10-04
        ("Australia/Lord_Howe", 2 * HOUR + 15 * MINUTE, "2026-10-03T20:00:00", "2026-10-03T15:30:00"),
        # Santiago skips midnight itself on 2026-09-06
        ("America/Santiago", 0, "2026-09-06T12:00:00", "2026-09-06T04:00:00"),
    ],
    ids=["skipped", "skip-begins", "skip-ends", "before-it", "repeated", "after-it", "half-an-hour", "midnight"],
)
def test_a_skipped_time_is_the_first_instant_after_and_a_repeated_one_the_first(
    zone: str, opens: int, day: str, opened: str
) -> None:
    """A session opens once on such a day."""
    assert from_micros(session(zone, opens).last_open(at(day))) == from_micros(at(opened))


@pytest.mark.parametrize(
    ("now", "is_open"),
    [
        ("2026-11-19T22:59:59", False),  # the pause of an hour: 16:00 to 17:00 in Chicago
        ("2026-11-19T23:00:00", True),
        ("2026-11-20T21:59:59", True),  # Friday, in the session that opened on Thursday
        ("2026-11-20T22:00:00", False),
        ("2026-11-21T12:00:00", False),
    ],
)
def test_a_session_over_midnight_is_open_until_it_closes_on_the_next_day(now: str, is_open: bool) -> None:
    """Its close is excluded."""
    assert CHICAGO.is_open(at(now)) is is_open


def test_a_session_that_closes_when_it_opens_lasts_a_day() -> None:
    """As the market of currencies from 17:00 to 17:00."""
    assert session("UTC", 17 * HOUR).is_open(at("2026-11-20T16:59:00"))


ZONES = st.sampled_from(["America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kolkata", "UTC"])


def naive_opens(one: TradingSession, around: datetime) -> list[datetime]:
    """The first minute of each local day, four days around, at which its clock shows at least `opens`."""
    found, minute = {}, around - timedelta(days=4)
    while minute < around + timedelta(days=4):
        local = minute.astimezone(ZoneInfo(one.zone))
        shown = (local.hour * 60 + local.minute) * MINUTE
        if shown >= one.opens and WEEKDAYS[local.weekday()] in one.weekdays and str(local.date()) not in one.holidays:
            found.setdefault(local.date(), minute)
        minute += timedelta(minutes=1)
    return list(found.values())[1:]  # the first day may have begun before


@settings(max_examples=40, deadline=None)
@given(
    zone=ZONES,
    opens=st.integers(0, 24 * 60 - 1),
    minute=st.integers(0, 340 * 24 * 60),
    weekdays=st.sampled_from([ALWAYS, ALWAYS[:5]]),
)
def test_opens_are_those_of_a_clock_on_the_wall(zone: str, opens: int, minute: int, weekdays: tuple[str, ...]) -> None:
    """Of a watcher who looks at a local clock each minute."""
    now = datetime(2026, 1, 10, tzinfo=UTC) + timedelta(minutes=minute)
    one = TradingSession("it", zone, opens * MINUTE, 0, weekdays, ("2026-05-04",))  # type: ignore[arg-type]  # weekdays
    opened = naive_opens(one, now)
    assert from_micros(one.last_open(to_micros(now))) == max(each for each in opened if each <= now)
    assert from_micros(one.next_open(to_micros(now))) == min(each for each in opened if each > now)
