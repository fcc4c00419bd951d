"""What a tick tells of problems: each once when it comes up, and not again while it lasts."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from killswitch.model.decision import Notice
from killswitch.model.snapshot import Closing, Snapshot
from killswitch.model.words import Severity
from killswitch.runner.tick_words import shortfall


class News:
    """What one run has told."""

    def __init__(self, before: tuple[tuple[Severity, str], ...] = ()) -> None:
        """`before`: what was found before the run; told once by the first tick, and no problem after it."""
        self._before = before
        self._told: frozenset[str] = frozenset()

    def remember(self, notices: Iterable[Notice], closings: Iterable[Closing]) -> None:
        """How closings ended is shown for a while, over restarts too; what was told once is not news again."""
        told = {notice.text for notice in notices}
        self._told = frozenset(text for each in closings if (text := shortfall(each)) is not None and text in told)

    def of(self, snapshot: Snapshot, problems: tuple[str, ...], mild: Collection[str]) -> tuple[Notice, ...]:
        """A page for every problem, and every closing that ended short of its target, not told at the tick before.

        `mild`: those problems that are a warning.
        """
        texts = problems + tuple(text for each in snapshot.closings if (text := shortfall(each)) is not None)
        fresh = [text for text in texts if text not in self._told]
        self._told = frozenset(texts)
        before, self._before = self._before, ()
        return tuple(_notice(snapshot, severity, text) for severity, text in before) + tuple(
            _notice(snapshot, "warning" if text in mild else "page", text) for text in fresh
        )


def _notice(snapshot: Snapshot, severity: Severity, text: str) -> Notice:
    return Notice(snapshot.as_of, "runner", "runner", "warning", severity, text)
