"""The files of a lock folder that nobody has asked for: looked at last, only so many of them, and never kept alive."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from killswitch.gate.files import is_temporary
from killswitch.gate.reading import LockFile, read_file
from killswitch.model.legible import legible, one_line

MOST = 200
"""So many files are read in one turn: ten milliseconds on a disk that answers."""
LISTED = 20_000
"""So many names are looked at in one turn."""
STEP = 50
NAMED = 3


@dataclass(frozen=True, slots=True)
class Strangers:
    """What else is in the folder."""

    files: tuple[LockFile, ...]
    count: int
    is_cut: bool
    """There are more than were read, or more than were counted."""
    temporary: tuple[Path, ...] = ()


def strangers(folder: Path, expected: Collection[Path], is_late: Callable[[], bool]) -> Strangers:
    """Every lock file of `folder` but those `expected`. OSError if it cannot be listed, or if it is late."""
    ours = {path.name for path in expected if path.parent == folder}
    with os.scandir(folder) as entries:
        names = [entry.name for entry in islice(entries, LISTED)]
    others = sorted(name for name in names if name.endswith(".json") and name not in ours)
    return Strangers(
        files=tuple(_read([folder / name for name in others[:MOST]], is_late)),
        count=len(others),
        is_cut=len(others) > MOST or len(names) == LISTED,
        temporary=tuple(folder / name for name in names if is_temporary(name)),
    )


def _read(paths: list[Path], is_late: Callable[[], bool]) -> Iterator[LockFile]:
    for number, path in enumerate(paths):
        if number % STEP == 0 and is_late():
            raise TimeoutError("the lock folder is too slow")
        file = read_file(path)
        if file.lock is not None or file.problem is not None:
            yield file


def some_of(paths: Collection[Path]) -> str:
    """The first names, for people."""
    names = [one_line(legible(path.name)) for path in sorted(paths)[:NAMED]]
    return ", ".join(names) + (", …" if len(paths) > NAMED else "")
