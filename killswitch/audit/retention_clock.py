"""Whether the times of a record confirm the clock, before anything is removed by that clock.

A clock that is a year ahead makes everything older than declared, and what is removed then is gone. So the record has
to go on, line after line, from before `clock_within` until now, without a gap that long: a clock that leaps ahead shows
as a gap, whether or not a run has written lines by it since. Every retention leaves a line, also one that removes
nothing or is refused, so that a record in which nothing else happens has no gaps either; and people have `clock_within`
to see that a retention was refused, and to set the clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct

from killswitch.audit.log_files import LineSource
from killswitch.model.instant import rfc3339
from killswitch.record.line import content_of
from killswitch.render.formats import rounded_duration

_PAGE: Final = 1_000
"""Lines that are read at once."""


class ClockDoubt(Struct, frozen=True):
    """Why a record does not confirm the clock, with what to do.

    `is_young`: no gap was found, the record only does not reach back far enough; nothing is wrong with that.
    """

    why: str
    is_young: bool = False


def doubt_of_clock(source: LineSource, now: datetime, within: timedelta) -> ClockDoubt | None:
    """Why the record does not confirm that it is `now`; None where it does. `within`: the longest gap."""
    newest_first = _times(source)
    number, at = next(newest_first, (0, now))
    if number == 0:
        return ClockDoubt(f"the record has no line that shows how late it is; {_again(now, within)}", is_young=True)
    if at > now + within:
        return ClockDoubt(
            f"line {number:,}, the newest of the record, was written at {rfc3339(at)}, and the clock shows "
            f"{rfc3339(now)}: it is behind, or was ahead then. Set the clock; if it is right now, retention goes on "
            "once the record does"
        )
    if now - at > within:
        return ClockDoubt(
            f"the clock shows {rfc3339(now)}, {rounded_duration(now - at)} after line {number:,}, the newest of the "
            f"record: it is ahead, or nothing was written for that long. Set the clock; if it is right, "
            f"{_again(now, within)}"
        )
    return _gap_behind(number, at, _not_ahead(newest_first, now + within), now, within)


def _gap_behind(
    later: int, ended: datetime, newest_first: Iterator[tuple[int, datetime]], now: datetime, within: timedelta
) -> ClockDoubt | None:
    """Why lines from before `within` until the line `later` do not follow one another closely enough."""
    for earlier, at in newest_first:
        if ended - at > within:
            return ClockDoubt(
                f"the lines {earlier:,} and {later:,} of the record are {rounded_duration(ended - at)} apart: the "
                "clock was set ahead then, or nothing was written for that long. See that the clock is right; "
                f"{_again(ended, within)}"
            )
        later, ended = earlier, at
        if at < now - within:
            return None
    return ClockDoubt(f"the record begins at {rfc3339(ended)}; {_again(ended, within)}", is_young=True)


def _times(source: LineSource) -> Iterator[tuple[int, datetime]]:
    """Number and time of each line that has one, the newest first."""
    tip, start = source.record_tip(), source.record_start().number
    last = 0 if tip is None else tip.number
    while last > start:
        page = list(source.record_lines(max(start + 1, last - _PAGE + 1), last))
        for line in reversed(page):
            content = content_of(line.text)
            if content is not None:
                yield line.number, datetime.fromisoformat(content.at)
        last = max(start, last - _PAGE)


def _not_ahead(newest_first: Iterator[tuple[int, datetime]], most: datetime) -> Iterator[tuple[int, datetime]]:
    """Those that are no later than `most`, each with the least time since: the others are of a clock that was ahead."""
    least = most
    for number, at in newest_first:
        if at <= most:
            least = min(least, at)
            yield number, least


def _again(begin: datetime, within: timedelta) -> str:
    """When retention goes on by itself, where the record has no other gap."""
    return (
        f"retention goes on after {rfc3339(begin + within)}, where it is run at least once in "
        f"{rounded_duration(within)} until then: each run leaves a line"
    )


def retained_blob(at: datetime) -> bytes:
    """The live blob `RETAINED`: when the last retention was."""
    return at.astimezone(UTC).isoformat().encode()


def retained_at(blob: bytes | None) -> datetime | None:
    """When the last retention was; None where there was none, or that cannot be read."""
    try:
        return None if blob is None else datetime.fromisoformat(blob.decode())
    except ValueError:
        return None
