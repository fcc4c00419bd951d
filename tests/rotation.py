"""Tests that apply to every venue run at one of them in `make test` and at the others in `make test-venues`.

The venue depends on the test's name and on the commit that is checked out, so that different tests use different venues
and all processes of a run agree. With KILLSWITCH_VENUE=okx every test uses that venue.

The two commands together run everything once if both run at the same commit and with the same KILLSWITCH_VENUE: another
commit has other venues, so that some cases would run in neither. End-to-end tests do not rotate: their venues in
`make test` are fixed (bitget, alpaca, binance, okx), the others are in `make test-venues`.
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
"""The values of KILLSWITCH_VENUE. A test may use a longer name of a venue (binanceusdm)."""
LEFT: Final = pytest.mark.venues
"""The mark of tests for `make test-venues`: other venues, and a few long tests that do not concern venues
(the soak of one hour, the complete run of the oracle)."""


@cache
def commit() -> str:
    """The commit that is checked out; empty if the tree is not a git checkout."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def wanted() -> str | None:
    """KILLSWITCH_VENUE. ValueError if it is not a venue."""
    named = os.environ.get("KILLSWITCH_VENUE") or None
    if named is not None and named not in VENUES:
        raise ValueError(f"KILLSWITCH_VENUE is {named}, and must be one of {', '.join(VENUES)}")
    return named


def headline() -> str:
    """The venues of a run, as the line that pytest prints first."""
    if (venue := wanted()) is not None:
        return f"Tests that apply to every venue run at {venue} (KILLSWITCH_VENUE); `make test-venues` runs the others."
    of = f"the commit {commit()[:12]}" if commit() else "the test, because there is no commit"
    return (
        f"A test that applies to every venue runs at one of them, chosen by {of}; `make test-venues` runs it at the "
        "others. KILLSWITCH_VENUE=okx chooses okx."
    )


def at_its_turn(venues: Iterable[str], test: str) -> str:
    """The one of several venues at which a test runs in `make test`."""
    names = list(venues)
    if (venue := wanted()) is not None and (named := [it for it in names if it.startswith(venue)]):
        return named[0]
    return names[zlib.crc32(f"{commit()} {test}".encode()) % len(names)]


def taking_turns(venues: Iterable[str], test: str, *others: object) -> list[Any]:
    """Parameters `(venue, *others)` for each venue: all but the selected one are for `make test-venues`.

    `test`: a name that other tests do not use. The selection also depends on `others`.
    """
    names = list(venues)
    now = at_its_turn(names, " ".join((test, *map(str, others))))
    return [pytest.param(name, *others, marks=() if name == now else LEFT) for name in names]


def each_taking_turns(venues: Iterable[str], test: str, others: Iterable[object]) -> list[Any]:
    """Parameters `(venue, other)` for each venue with each of the others, with a selection per other."""
    names = list(venues)
    return [each for other in others for each in taking_turns(names, test, other)]


def turn_of(venue: str, venues: Iterable[str], test: str) -> Callable[[T], T] | pytest.MarkDecorator:
    """Decorate a class or function of tests for one venue, where other venues have their own."""
    return (lambda decorated: decorated) if at_its_turn(venues, test) == venue else LEFT


def may_leave(file: Path) -> bool:
    """Whether a test file may have tests for `make test-venues`: it uses the mark, or imports this module."""
    return re.search(r"mark\.venues|tests\.rotation", file.read_text(encoding="utf-8")) is not None
