"""Numbers, flags and times as venues write them, read exactly or not at all."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from killswitch.model.magnitude import LONGEST, readable_number

ODD = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What reading an answer raises that has another shape than any that is known."""
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_ROUNDED = re.compile(r"[0-9.]+[eE][+][0-9]+")
_YES = frozenset({"true", "yes", "y", "1"})
_NO = frozenset({"false", "no", "n", "0"})


class UnreadableError(Exception):
    """A row makes no sense; the message names it. The part of the snapshot that it is in is malformed."""


class NoSuchSymbolError(UnreadableError):
    """A row is about a symbol that the venue's rules do not have: perhaps not yet."""


def shapeless(error: Exception) -> str:
    """What is said of an answer that cannot be taken apart. The kind of error, since its words alone may be a name."""
    return f"the answer has no known shape: {type(error).__name__}: {error}"


def decimal(value: Any) -> Decimal | None:
    """The number, exactly as written; None for nothing. UnreadableError for what is none or beyond measure."""
    if value is None:
        return None
    text = value if isinstance(value, str) else str(value)
    if len(text) > LONGEST:
        raise UnreadableError(f"{text[:20]!r}… is no number: it has {len(text)} characters")
    return _decimal(text)


@lru_cache(maxsize=8192)
def _decimal(text: str) -> Decimal | None:
    """Remembered, since most numbers of an account are the same ones as a second ago, or zero."""
    if not text:
        return None
    found = readable_number(text)
    if found is None:
        raise UnreadableError(f"{text!r} is no number")
    return found


def positive(value: Any) -> Decimal | None:
    """A price or the like: zero and less are how venues write that there is none."""
    found = decimal(value)
    return found if found is not None and found > 0 else None


def needed(value: Any, what: str) -> Decimal:
    """The number; UnreadableError where it is missing or none, which says what it is about."""
    try:
        found = decimal(value)
    except UnreadableError as error:
        raise UnreadableError(f"{what}: {error}") from None
    if found is None:
        raise UnreadableError(f"{what} is missing")
    return found


def text(value: Any) -> str | None:
    """A name or a number that is one; None for nothing. UnreadableError for what is neither, or has lost digits.

    An id that a JSON reader or ccxt has made a float of (`1e+300`) is the same text for many ids.
    """
    if value is None or value == "":
        return None
    if isinstance(value, bool | dict | list):
        raise UnreadableError(f"{value!r} is no name")
    found = str(value)
    if isinstance(value, float) or _ROUNDED.fullmatch(found):
        raise UnreadableError(f"{found} is no name: a number that was rounded has lost its digits")
    return found


def told_of(value: Any, what: str) -> str:
    """A word that decides; UnreadableError where it is missing, or is no word."""
    if not isinstance(value, str) or not value:
        raise UnreadableError(f"{what}: {value!r} is no word")
    return value


def not_negative(value: Decimal | None) -> Decimal | None:
    """What is never less than zero: a negative one is not known."""
    return value if value is None or value >= 0 else None


def at_least_zero(value: Any, what: str) -> Decimal:
    """An amount; UnreadableError where it is missing or negative."""
    found = needed(value, what)
    if found < 0:
        raise UnreadableError(f"{what} is {found}")
    return found


def above_zero(value: Any, what: str) -> Decimal:
    """A size or a price; UnreadableError where it is missing, zero or less."""
    found = needed(value, what)
    if found <= 0:
        raise UnreadableError(f"{what} is {found}")
    return found


def any_flag(*values: Any) -> bool | None:
    """Whether one of them is a yes; None where none is, and one of them is not told."""
    found = [flag(value) for value in values]
    return True if True in found else None if None in found else False


def flag(value: Any) -> bool | None:
    """A yes or no in any of the ways in which venues write one; None for nothing and for anything else."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    return True if text in _YES else False if text in _NO else None


def instant(milliseconds: Any) -> datetime | None:
    """The UTC time; None for nothing. UnreadableError for what is no time, and for a negative one."""
    if milliseconds is None or milliseconds == "":
        return None
    try:
        found = None if isinstance(milliseconds, bool) else datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
    except (OverflowError, OSError, TypeError, ValueError):
        found = None
    if found is None or found < EARLIEST:
        raise UnreadableError(f"{milliseconds!r} is no time in milliseconds")
    return found
