"""Where tests say the same of every venue, each runs at one of them in `make test` and at the others in
`make test-venues`.

Which one it is goes by the test's name and by the commit that is checked out, so that different tests take different
venues, and all processes of a run agree. KILLSWITCH_VENUE=okx has every test take that venue that is told there.

The two commands together run everything once, where both are given at one commit and with one KILLSWITCH_VENUE: after
another commit the turns are others, and what neither has run may be left. Stories from end to end take no turns: the
venues that they have in `make test` are fixed (bitget, alpaca, binance, okx), the others are in `make test-venues`.
"""

from __future__ import annotations

import os
import re
import subprocess
import zlib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

T = TypeVar("T")
VENUES: Final = ("binance", "bybit", "okx", "bitget", "krakenfutures", "mexc", "alpaca")
"""What KILLSWITCH_VENUE may be. A test may call a venue by a longer name (binanceusdm)."""
LEFT: Final = pytest.mark.venues
"""The mark of what is left to `make test-venues`: other venues, and a few long courses that are not about venues at all
(the hour of the soak, the whole course of the oracle's crash)."""


@cache
def commit() -> str:
    """The commit that is checked out; empty where the tree is no git checkout."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        told = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return told.stdout.strip() if told.returncode == 0 else ""


def wanted() -> str | None:
    """KILLSWITCH_VENUE. ValueError for what is no venue."""
    named = os.environ.get("KILLSWITCH_VENUE") or None
    if named is not None and named not in VENUES:
        raise ValueError(f"KILLSWITCH_VENUE is {named}, which is none of {', '.join(VENUES)}")
    return named


def headline() -> str:
    """Which venues a run takes, in a line."""
    if (venue := wanted()) is not None:
        return f"venues: what is said of every venue runs at {venue} here, at the others in `make test-venues`"
    by = f"by commit {commit()[:12]}" if commit() else "the same each time, as this is no git checkout"
    return (
        f"venues: what is said of every venue runs at one here, {by} (KILLSWITCH_VENUE=okx: at okx), "
        "at the others in `make test-venues`"
    )


def at_its_turn(venues: Iterable[str], test: str) -> str:
    """The venue, of several, that a test takes in `make test`."""
    names = list(venues)
    if (venue := wanted()) is not None and (named := [it for it in names if it.startswith(venue)]):
        return named[0]
    return names[zlib.crc32(f"{commit()} {test}".encode()) % len(names)]


def taking_turns(venues: Iterable[str], test: str, *others: object) -> list[Any]:
    """Parameters `(venue, *others)` for each venue: all but the one whose turn it is are for `make test-venues`.

    `test`: a name that other tests do not use; with others, the turn goes by them too.
    """
    names = list(venues)
    now = at_its_turn(names, " ".join((test, *map(str, others))))
    return [pytest.param(name, *others, marks=() if name == now else LEFT) for name in names]


def each_taking_turns(venues: Iterable[str], test: str, others: Iterable[object]) -> list[Any]:
    """Parameters `(venue, other)` for each venue with each of the others, which take their turns each by itself."""
    names = list(venues)
    return [each for other in others for each in taking_turns(names, test, other)]


def turn_of(venue: str, venues: Iterable[str], test: str) -> Callable[[T], T] | pytest.MarkDecorator:
    """Decorates what is said of one venue in a class or function of its own."""
    return (lambda told: told) if at_its_turn(venues, test) == venue else LEFT


def may_leave(file: Path) -> bool:
    """Whether a test file may leave tests to `make test-venues`: it names the mark, or imports from here."""
    return re.search(r"mark\.venues|tests\.rotation", file.read_text(encoding="utf-8")) is not None
