"""Texts of arguments that have a form of their own: a time of the day, a time zone, weekdays, labels.

Each function returns what the text means, or raises ValueError with what is wrong and what to write instead. The
compiler checks the texts of a policy with them, so that a reader never meets a wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

Form = Literal["time", "zone", "days", "labels"]

ANY: Final = "any"
"""The word for every day of the week, and for any labels."""
WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)", re.ASCII)


class FormError(ValueError):
    """A text that has not the form of its argument: the message, and what to write instead."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(f"{message}: {fix}")
        self.message = message
        self.fix = fix


@cache
def minute_of_day(text: str) -> int:
    """The minute of the day of `22:00`: 0 to 1439."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise FormError(f"`{text}` is no time of the day", "write hours and minutes, 00:00 to 23:59, such as 22:00")
    return 60 * int(found[1]) + int(found[2])


@cache
def weekdays(text: str) -> frozenset[int]:
    """The weekdays of `mon-fri`, `sat,sun` or `any`: Monday is 0. A range may go over Sunday."""
    if text == ANY:
        return frozenset(range(7))
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        ends = [first, last] if dash else [first]
        if any(each not in WEEKDAYS for each in ends):
            fix = f"write {', '.join(WEEKDAYS)}, ranges such as mon-fri, several as sat,sun, or {ANY}"
            raise FormError(f"`{text}` is no list of weekdays", fix)
        begin = WEEKDAYS.index(first)
        length = (WEEKDAYS.index(last) - begin) % 7 if dash else 0
        found.update((begin + day) % 7 for day in range(length + 1))
    return frozenset(found)


@cache
def zone(text: str) -> ZoneInfo:
    """The time zone of an IANA name such as `Europe/Berlin`, by the machine's time zone database."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        near = get_close_matches(text, available_timezones(), n=1)
        hint = f"did you mean {near[0]}?" if near else "write an IANA name such as Europe/Berlin, or UTC"
        raise FormError(f"there is no time zone `{text}`", hint) from None


@cache
def labels(text: str) -> Mapping[str, str]:
    """The labels of `team=risk,severity=page`; none, which any alert has, for `any`."""
    if text == ANY:
        return {}
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not (name and equals and value):
            fix = f"write labels as team=risk,severity=page, or {ANY}"
            raise FormError(f"`{part}` is no label with a value", fix)
        if name in found:
            raise FormError(f"the label {name} is there twice", "write it once: an alert has one value of it")
        found[name] = value
    return found


FORMS: Final[Mapping[str, Callable[[str], object]]] = {
    "time": minute_of_day, "zone": zone, "days": weekdays, "labels": labels,
}  # fmt: skip
"""Kind of argument → its parser."""
