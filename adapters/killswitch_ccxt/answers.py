"""What every dialect does with an answer: concurrent requests, ccxt's parsers, and answers of an unknown shape."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from killswitch.model.parsing import Row, UnreadableError
from killswitch.model.venue import VenueError

T = TypeVar("T")
UNKNOWN_SHAPE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""Exceptions that an answer of an unknown shape raises."""


class NoSuchSymbolError(UnreadableError):
    """A row has a symbol that the venue's rules do not have, perhaps not yet."""


def failure_text(error: Exception) -> str:
    """The message of an error. It names the kind of one that an answer of an unknown shape has raised, because the text
    alone may be a mere name."""
    if isinstance(error, VenueError | UnreadableError):
        return str(error)
    return f"the answer has an unknown shape: {type(error).__name__}: {error}"


def forget_oldest(table: dict[T, Any], most: int) -> None:
    """Remove the first entries of a table that has more than `most`."""
    while len(table) > most:
        table.pop(next(iter(table)))


async def answered(requests: Iterable[Awaitable[Any]]) -> list[Any]:
    """The answers to several concurrent requests, without those to which the venue has none."""
    answers = await asyncio.gather(*requests, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, VenueError):
            raise answer
    return [answer for answer in answers if not isinstance(answer, BaseException)]


def parsed(parse: Callable[[list[dict[str, Any]]], list[Row]], rows: Iterable[Row]) -> list[Row]:
    """The result of ccxt's parser for raw rows. UnreadableError where the parser fails."""
    try:
        return parse([dict(row) for row in rows])
    except Exception as error:
        raise UnreadableError(f"ccxt cannot parse the venue's rows: {type(error).__name__}: {error}") from error
