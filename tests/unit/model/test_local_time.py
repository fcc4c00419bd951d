"""Clock times of a zone: the next instant at which its clocks show them, also around changes of the clocks.

The transitions are those published for Europe/Berlin (2026-03-29 and 2026-10-25, both at 01:00 UTC), America/New_York
(2026-03-08 07:00 UTC, 2026-11-01 06:00 UTC) and Pacific/Apia, which left out 2011-12-30.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.model.instant import LocalTime, UnknownZoneError
from killswitch.policy.schema import scalars
from killswitch.policy.schema.part import MistakeError


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "now", "wanted"),
    [
        ("08:00 Europe/Berlin", "2026-01-15T06:59:59", "2026-01-15T07:00:00"),
        ("08:00 Europe/Berlin", "2026-01-15T07:00:00", "2026-01-16T07:00:00"),  # the next one, not this one
        ("08:00 Europe/Berlin", "2026-07-15T05:00:00", "2026-07-15T06:00:00"),
        ("00:15 Europe/Berlin", "2026-01-15T23:00:00", "2026-01-15T23:15:00"),  # it is the 16th there
        ("22:30 UTC", "2026-01-15T22:29:00", "2026-01-15T22:30:00"),
        ("09:30 America/New_York", "2026-01-15T15:00:00", "2026-01-16T14:30:00"),
    ],
)
def test_it_is_the_next_time_that_the_clocks_of_the_zone_show(written: str, now: str, wanted: str) -> None:
    """Strictly after now, on the same day there or the next."""
    assert scalars.local_time(written).next_after(at(now)) == at(wanted)


@pytest.mark.parametrize(
    ("written", "now", "wanted"),
    [
        ("02:30 Europe/Berlin", "2026-03-29T00:00:00", "2026-03-29T01:00:00"),  # from 01:00 UTC it is 03:00 there
        ("02:00 Europe/Berlin", "2026-03-29T00:00:00", "2026-03-29T01:00:00"),
        ("03:00 Europe/Berlin", "2026-03-29T00:00:00", "2026-03-29T01:00:00"),
        ("02:30 America/New_York", "2026-03-08T05:00:00", "2026-03-08T07:00:00"),
        ("12:00 Pacific/Apia", "2011-12-30T00:00:00", "2011-12-30T10:00:00"),  # the 30th was left out
    ],
)
def test_where_the_clocks_skip_it_it_is_the_first_instant_after_the_gap(written: str, now: str, wanted: str) -> None:
    """Never an hour later, and never the day after."""
    assert scalars.local_time(written).next_after(at(now)) == at(wanted)


@pytest.mark.parametrize(
    ("written", "now", "wanted"),
    [
        ("02:30 Europe/Berlin", "2026-10-24T20:00:00", "2026-10-25T00:30:00"),
        ("02:30 Europe/Berlin", "2026-10-25T00:45:00", "2026-10-26T01:30:00"),  # the second 02:30 does not count
        ("01:30 America/New_York", "2026-11-01T04:00:00", "2026-11-01T05:30:00"),
    ],
)
def test_where_the_clocks_show_it_twice_it_is_the_first_time(written: str, now: str, wanted: str) -> None:
    """A lock until then ends once."""
    assert scalars.local_time(written).next_after(at(now)) == at(wanted)


@given(
    now=st.integers(0, 10 * 365 * 86_400).map(lambda seconds: at("2020-01-01") + timedelta(seconds=seconds)),
    minute=st.integers(0, 24 * 60 - 1),
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]),
)
def test_it_lies_within_a_day_and_shows_the_time_unless_the_clocks_skip_it(
    now: datetime, minute: int, zone: str
) -> None:
    """At most 25 hours ahead; where it shows another time, the minute before shows an earlier one than wanted."""
    wanted = (minute // 60, minute % 60)
    found = LocalTime(*wanted, zone).next_after(now)
    assert now < found <= now + timedelta(hours=26)
    shown = found.astimezone(ZoneInfo(zone))
    if (shown.hour, shown.minute) != wanted:
        before = (found - timedelta(seconds=1)).astimezone(ZoneInfo(zone))
        assert (before.hour, before.minute) < wanted < (shown.hour, shown.minute)
        assert before.utcoffset() != shown.utcoffset()


@pytest.mark.parametrize(
    ("written", "fix"),
    [
        ("08:00", "write hours and minutes"),
        ("24:00 UTC", "write hours and minutes"),
        ("8:00 Europe/Berlin", "write hours and minutes"),
        ("08:00 Europe/Berln", "did you mean Europe/Berlin?"),
        ("08:00 ../../etc/passwd", "write hours and minutes"),
        (800, "write hours and minutes"),
        (None, "write hours and minutes"),
    ],
)
def test_a_time_of_the_day_without_a_known_zone_is_refused(written: object, fix: str) -> None:
    """KS2112, with the nearest zone."""
    with pytest.raises(MistakeError) as raised:
        scalars.local_time(written)
    assert raised.value.code == "KS2112"
    assert raised.value.fix.startswith(fix)


def test_a_zone_that_the_machine_does_not_know_is_an_error() -> None:
    """It is never taken for UTC."""
    with pytest.raises(UnknownZoneError, match="there is no time zone `Mars/Olympus` on this machine"):
        LocalTime(8, 0, "Mars/Olympus").next_after(at("2026-01-01"))
