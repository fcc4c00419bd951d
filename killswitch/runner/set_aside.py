"""Commands in the store that this version cannot read: each is consumed with a page, and the run goes on.

A newer ksctl, or a damaged row, must not keep a tick from what it can read.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from killswitch.model.decision import Notice
from killswitch.model.legible import legible, one_line
from killswitch.model.store import UnreadableCommand

_LONGEST: Final = 80
"""Characters of an id, or of a reason, that a page repeats."""


class SetAside:
    """Pages each unreadable command once, also where the store cannot mark it as consumed."""

    def __init__(self) -> None:
        self._paged: set[str] = set()

    def notices(self, unreadable: Iterable[UnreadableCommand], at: datetime) -> tuple[Notice, ...]:
        """A page for every command that is new."""
        found = tuple(each for each in unreadable if each.id not in self._paged)
        self._paged |= {each.id for each in found}
        return tuple(
            Notice(at, "operator", "portfolio", "warning", "page", set_aside_words(each), _short(each.id))
            for each in found
        )


def set_aside_words(command: UnreadableCommand) -> str:
    """What has become of the command, why, and what to do about it."""
    return (
        f"the command {_short(command.id)} cannot be read and is set aside: nothing of it is done "
        f"({command.why[:_LONGEST]}): give it again with the ksctl of this runner's version"
    )


def _short(text: str) -> str:
    return one_line(legible(text))[:_LONGEST]
