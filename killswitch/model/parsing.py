"""Parsing of a venue's answers: numbers, flags, times, objects and lists of several pages, exactly or not at all.

Adapters of any venue may use it. What cannot be read raises UnreadableError, and never becomes a zero.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, TypeVar

from killswitch.model.magnitude import LONGEST, readable_number

T = TypeVar("T")
Cursor = TypeVar("Cursor")
Row = Mapping[str, Any]
"""One object of an answer, as JSON gives it or as a library parses it."""
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_ROUNDED = re.compile(r"[0-9.]+[eE][+][0-9]+")
_YES = frozenset({"true", "yes", "y", "1"})
_NO = frozenset({"false", "no", "n", "0"})


class UnreadableError(Exception):
    """A row cannot be parsed; the message names the row. The part of the snapshot with the row is malformed."""


@contextmanager
def about_row(what: str) -> Iterator[None]:
    """Prefix an UnreadableError with the row that it is about."""
    try:
        yield
    except UnreadableError as error:
        raise UnreadableError(f"{what}: {error}") from None


def decimal(value: Any) -> Decimal | None:
    """The number, exactly as written; None for nothing. UnreadableError for text that is no number or is too large."""
    if value is None:
        return None
    text = value if isinstance(value, str) else str(value)
    if len(text) > LONGEST:
        raise UnreadableError(f"{text[:20]!r}… is no number: it has {len(text)} characters")
    return _decimal(text)


@lru_cache(maxsize=8192)
def _decimal(text: str) -> Decimal | None:
    """Cached, since most numbers of an account are those of the last snapshot, or zero."""
    if not text:
        return None
    found = readable_number(text)
    if found is None:
        raise UnreadableError(f"{text!r} is no number")
    return found


def optional_number(value: Any) -> Decimal | None:
    """An optional number; None where it is missing or unreadable."""
    try:
        return decimal(value)
    except UnreadableError:
        return None


def positive(value: Any) -> Decimal | None:
    """A price or the like; None for zero and less, which venues write for a missing price."""
    found = decimal(value)
    return found if found is not None and found > 0 else None


def required_number(value: Any, what: str) -> Decimal:
    """The number; UnreadableError where it is missing or unreadable, with `what` it is in the message."""
    try:
        found = decimal(value)
    except UnreadableError as error:
        raise UnreadableError(f"{what}: {error}") from None
    if found is None:
        raise UnreadableError(f"{what} is missing")
    return found


def optional_text(value: Any) -> str | None:
    """A name, or a number that serves as one; None for nothing. UnreadableError for other types and for rounded
    numbers.

    An id that a JSON reader or ccxt has parsed as a float (`1e+300`) is the same text for many ids.
    """
    if value is None or value == "":
        return None
    if isinstance(value, bool | dict | list):
        raise UnreadableError(f"{value!r} is no id")
    found = str(value)
    if isinstance(value, float) or _ROUNDED.fullmatch(found):
        raise UnreadableError(f"{found} is no id: a rounded number has lost its digits")
    return found


def identifier(value: Any, what: str) -> str:
    """The id, as `optional_text` reads it; UnreadableError where it is missing."""
    found = optional_text(value)
    if found is None:
        raise UnreadableError(f"{what} has no id")
    return found


def one_of(table: Mapping[str, T], value: Any, what: str) -> T:
    """The entry of `table` for a value of the venue. UnreadableError for a value that is not in it."""
    if str(value) not in table:
        raise UnreadableError(f"{what}: unknown value {value!r}")
    return table[str(value)]


def required_text(value: Any, what: str) -> str:
    """A text that decides about the meaning of a row; UnreadableError where it is missing or no text."""
    if not isinstance(value, str) or not value:
        raise UnreadableError(f"{what}: {value!r} is no text")
    return value


def not_negative(value: Decimal | None) -> Decimal | None:
    """A quantity that is never negative; a negative one is unknown."""
    return value if value is None or value >= 0 else None


def at_least_zero(value: Any, what: str) -> Decimal:
    """An amount; UnreadableError where it is missing or negative."""
    found = required_number(value, what)
    if found < 0:
        raise UnreadableError(f"{what} is {found}")
    return found


def above_zero(value: Any, what: str) -> Decimal:
    """A size or a price; UnreadableError where it is missing, zero or less."""
    found = required_number(value, what)
    if found <= 0:
        raise UnreadableError(f"{what} is {found}")
    return found


def total(amounts: Iterable[Decimal | None]) -> Decimal | None:
    """The sum; None where one of the amounts is unknown."""
    found = list(amounts)
    return None if None in found else sum((it for it in found if it is not None), Decimal(0))


def any_flag(*values: Any) -> bool | None:
    """Whether one of them is true; None where none is true and one is unknown."""
    found = [flag(value) for value in values]
    return True if True in found else None if None in found else False


def flag(value: Any) -> bool | None:
    """A boolean in any of the forms that venues use; None for everything else."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    return True if text in _YES else False if text in _NO else None


def instant(milliseconds: Any) -> datetime | None:
    """The UTC time; None for nothing. UnreadableError for text that is no time, and for a time before 1970."""
    if milliseconds is None or milliseconds == "":
        return None
    try:
        found = None if isinstance(milliseconds, bool) else datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
    except (OverflowError, OSError, TypeError, ValueError):
        found = None
    if found is None or found < EARLIEST:
        raise UnreadableError(f"{milliseconds!r} is no time in ms")
    return found


def time_of(milliseconds: Any, what: str) -> datetime:
    """The UTC time, as `instant` reads it; UnreadableError where it is missing."""
    found = instant(milliseconds)
    if found is None:
        raise UnreadableError(f"{what} has no time")
    return found


def written_instant(value: Any) -> datetime | None:
    """The UTC time of an RFC 3339 text, truncated to microseconds; None for nothing. UnreadableError as `zoned`."""
    found = zoned(value)
    return None if found is None else found.astimezone(UTC)


def zoned(value: Any) -> datetime | None:
    """The time of an RFC 3339 text in the zone in which it is written; None for nothing.

    UnreadableError for text that is no time, and for one without a zone.
    """
    if value is None or value == "":
        return None
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        raise UnreadableError(f"{value!r} is no time") from None
    if found.tzinfo is None:
        raise UnreadableError(f"{value!r} has no time zone")
    return found


def written_time_of(value: Any, what: str) -> datetime:
    """The UTC time, as `written_instant` reads it; UnreadableError where it is missing."""
    found = written_instant(required_text(value, what))
    if found is None:
        raise UnreadableError(f"{what} is missing")
    return found


def value_at(answer: Any, *names: str) -> Any:
    """The value under nested names of an answer; None where one of the objects on the way is none."""
    for name in names:
        answer = answer.get(name) if isinstance(answer, Mapping) else None
    return answer


def object_at(answer: Any, *names: str, what: str = "the answer") -> Row:
    """The object under nested names of an answer. UnreadableError where there is none, about `what`."""
    found = value_at(answer, *names)
    if not isinstance(found, Mapping):
        raise UnreadableError(f"{what} has no object `{'.'.join(names)}`" if names else f"{what} is no object")
    return found


def rows_at(answer: Any, *names: str, what: str = "the answer") -> list[Row]:
    """The list of objects under nested names of an answer. UnreadableError where there is none, about `what`."""
    found = value_at(answer, *names)
    if not isinstance(found, list) or not all(isinstance(it, Mapping) for it in found):
        raise UnreadableError(f"{what} has no list `{'.'.join(names)}`" if names else f"{what} is no list")
    return found


class EndlessListError(UnreadableError):
    """A list has more pages than are read; `rows` are those of the pages that were read."""

    def __init__(self, message: str, rows: Sequence[Any]) -> None:
        super().__init__(message)
        self.rows = rows


async def every_page(
    page: Callable[[Cursor], Awaitable[tuple[Iterable[T], Cursor | None]]], first: Cursor, most: int, what: str
) -> list[T]:
    """The rows of all pages of a list.

    `page` fetches the page at a cursor, and returns its rows and the cursor of the next page, None after the last one;
    `first` is the cursor of the first page. EndlessListError where the list has more than `most` pages: a part of it
    would pass for the whole list. UnreadableError for a cursor of a page that was read: the pages would repeat.
    """
    found: list[T] = []
    cursors = [first]
    for _ in range(most):
        rows, cursor = await page(cursors[-1])
        found += rows
        if cursor is None:
            return found
        if cursor in cursors:
            raise UnreadableError(
                f"{what}: the list does not end after {len(found)} rows: a page is repeated, and there may be more"
            )
        cursors.append(cursor)
    raise EndlessListError(f"{what}: the list does not end after {len(found)} rows", found)
