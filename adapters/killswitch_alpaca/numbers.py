"""Numbers and times as Alpaca writes them, read exactly or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from killswitch.model.magnitude import LONGEST, readable, readable_number

Row = Mapping[str, Any]
"""One object of an answer, as JSON gave it; numbers that were no strings are Decimal or int."""


class UnreadableError(Exception):
    """A row makes no sense; the message names it. The part of the snapshot that it is in is unknown."""


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Say of which row an UnreadableError is."""
    try:
        yield
    except UnreadableError as error:
        raise UnreadableError(f"{what}: {error}") from None


def rows(answer: Any, what: str) -> list[Row]:
    """The answer as a list of objects; UnreadableError where it is none."""
    if not isinstance(answer, list) or not all(isinstance(each, Mapping) for each in answer):
        raise UnreadableError(f"{what} are no list of objects")
    return answer


def row(answer: Any, what: str) -> Row:
    """The answer as one object; UnreadableError where it is none."""
    if not isinstance(answer, Mapping):
        raise UnreadableError(f"{what} is no object")
    return answer


def decimal(value: Any) -> Decimal | None:
    """The number, exactly as written; None for nothing. UnreadableError for what is none or beyond measure."""
    if value is None or value == "":
        return None
    found = value if isinstance(value, Decimal) else readable_number(str(value))
    if found is None or isinstance(value, bool) or not readable(found):
        raise UnreadableError(f"{str(value)[:LONGEST]!r} is no number")
    return found


def positive(value: Any) -> Decimal | None:
    """A price or a step: zero and less mean that there is none."""
    found = decimal(value)
    return found if found is not None and found > 0 else None


def not_negative(value: Any) -> Decimal | None:
    """What is never less than zero: a negative one is not known."""
    found = decimal(value)
    return found if found is not None and found >= 0 else None


def needed(found: Row, name: str) -> Decimal:
    """The number under `name`; UnreadableError where it is missing."""
    value = decimal(found.get(name))
    if value is None:
        raise UnreadableError(f"{name} is missing")
    return value


def more_than_zero(found: Row, name: str) -> Decimal:
    """A size or a price under `name`; UnreadableError where it is missing, zero or less."""
    value = needed(found, name)
    if value <= 0:
        raise UnreadableError(f"{name} is {value}")
    return value


def text(found: Row, name: str) -> str | None:
    """The text under `name`; None for nothing, UnreadableError for anything else."""
    value = found.get(name)
    return None if value is None or value == "" else word(found, name)


def word(found: Row, name: str) -> str:
    """The text under `name`; UnreadableError where it is missing or empty."""
    value = found.get(name)
    if not isinstance(value, str) or not value:
        raise UnreadableError(f"{name} is missing")
    return value


def instant(value: Any) -> datetime | None:
    """The UTC time of an RFC 3339 text, nanoseconds cut off; None for nothing. UnreadableError for what is no time."""
    found = zoned(value)
    return None if found is None else found.astimezone(UTC)


def zoned(value: Any) -> datetime | None:
    """The same in the zone that it is written in."""
    if value is None or value == "":
        return None
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        raise UnreadableError(f"{value!r} is no time") from None
    if found.tzinfo is None:
        raise UnreadableError(f"{value!r} has no zone")
    return found
