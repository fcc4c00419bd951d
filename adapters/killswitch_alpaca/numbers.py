"""Parsers of the numbers, texts and times in Alpaca's answers. A value is parsed exactly or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from killswitch.model.magnitude import LONGEST, readable, readable_number

Row = Mapping[str, Any]
"""One object of an answer, as parsed from JSON; numbers that were not texts are Decimal or int."""


class UnreadableError(Exception):
    """A row cannot be parsed; the message names it. The part of the snapshot that contains it is unknown."""


@contextmanager
def about_row(what: str) -> Iterator[None]:
    """Prefix an UnreadableError with the row that it is about."""
    try:
        yield
    except UnreadableError as error:
        raise UnreadableError(f"{what}: {error}") from None


def rows(answer: Any, what: str) -> list[Row]:
    """The answer as a list of objects. Raises UnreadableError for anything else."""
    if not isinstance(answer, list) or not all(isinstance(each, Mapping) for each in answer):
        raise UnreadableError(f"{what}: not a list of objects")
    return answer


def row(answer: Any, what: str) -> Row:
    """The answer as one object. Raises UnreadableError for anything else."""
    if not isinstance(answer, Mapping):
        raise UnreadableError(f"{what}: not an object")
    return answer


def decimal(value: Any) -> Decimal | None:
    """The number, exactly as written; None for an absent one. Raises UnreadableError for an invalid or out-of-range
    one."""
    if value is None or value == "":
        return None
    found = value if isinstance(value, Decimal) else readable_number(str(value))
    if found is None or isinstance(value, bool) or not readable(found):
        raise UnreadableError(f"{str(value)[:LONGEST]!r} is not a number")
    return found


def positive(value: Any) -> Decimal | None:
    """A price or a step: zero and less mean that there is none."""
    found = decimal(value)
    return found if found is not None and found > 0 else None


def not_negative(value: Any) -> Decimal | None:
    """A number that is never below zero: a negative one is unknown."""
    found = decimal(value)
    return found if found is not None and found >= 0 else None


def needed(found: Row, name: str) -> Decimal:
    """The number under `name`. Raises UnreadableError where it is missing."""
    value = decimal(found.get(name))
    if value is None:
        raise UnreadableError(f"{name} is missing")
    return value


def more_than_zero(found: Row, name: str) -> Decimal:
    """A size or a price under `name`. Raises UnreadableError where it is missing, zero or less."""
    value = needed(found, name)
    if value <= 0:
        raise UnreadableError(f"{name} is {value}")
    return value


def optional_text(found: Row, name: str) -> str | None:
    """The text under `name`; None for an absent one. Raises UnreadableError for anything else."""
    value = found.get(name)
    return None if value is None or value == "" else required_text(found, name)


def required_text(found: Row, name: str) -> str:
    """The text under `name`. Raises UnreadableError where it is missing or empty."""
    value = found.get(name)
    if not isinstance(value, str) or not value:
        raise UnreadableError(f"{name} is missing")
    return value


def instant(value: Any) -> datetime | None:
    """The UTC time of an RFC 3339 text, truncated to microseconds; None for an absent one. Raises UnreadableError."""
    found = zoned(value)
    return None if found is None else found.astimezone(UTC)


def required_instant(found: Row, name: str) -> datetime:
    """The UTC time under `name`. Raises UnreadableError where it is missing or no text."""
    at = instant(required_text(found, name))
    if at is None:
        raise UnreadableError(f"{name} is missing")
    return at


def zoned(value: Any) -> datetime | None:
    """The same in the zone in which it is written."""
    if value is None or value == "":
        return None
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        raise UnreadableError(f"{value!r} is not a time") from None
    if found.tzinfo is None:
        raise UnreadableError(f"{value!r} has no time zone")
    return found
