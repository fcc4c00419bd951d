"""Processes that are killed at each of their writes, one after the other: what they leave is what a crash leaves."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import Engine, event

KILLED = 9
_WRITES = frozenset({"os.rename", "os.remove", "os.link", "os.truncate", "os.mkdir", "os.rmdir", "sqlite3.connect"})
"""Audit events of writes besides files that are opened for writing."""


def killed_at_each_write(act: Callable[[], object], most: int = 500) -> Iterator[int]:
    """Yield after each process that was killed right before its first, its second, … write; ends with one that was not.

    Writes are those to files, and commits of stores: what a kill between two of them leaves is what a kill before the
    second one leaves. `act` runs in a fork; the test puts the folder back as it was after each.
    """
    for number in range(1, most):
        if not _was_killed(act, number):
            return
        yield number
    raise AssertionError(f"{most} writes were not enough")


def _was_killed(act: Callable[[], object], number: int) -> bool:
    child = os.fork()
    if child == 0:
        try:
            _kill_at(number)
            act()
        except BaseException:  # noqa: BLE001 - the fork must not go on with the test
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED), f"the process ended with {code}: see its output"
    return code == KILLED


def _kill_at(number: int) -> None:
    """End this process right before its write of that number."""
    left = number

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os._exit(KILLED)

    def follow(name: str, args: tuple[object, ...]) -> None:
        is_opened_to_write = name == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if name in _WRITES or (is_opened_to_write and isinstance(args[0], str | Path | bytes)):
            count()

    sys.addaudithook(follow)
    event.listen(Engine, "commit", count)
