"""How far long work is, on stderr: bars on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
from time import monotonic
from typing import TYPE_CHECKING

from killswitch.cli.terminal import mention

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


class Lines:
    """Says a line at most every so many seconds, the first one after that time."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._next = monotonic() + every

    def say(self, line: str) -> None:
        if (now := monotonic()) >= self._next:
            self._next = now + self._every
            mention(line)


def bars(done: ProgressColumn) -> Progress:
    """Bars that go when the work is over. `done`: the column that says how much is."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    what = TextColumn("{task.description}", markup=False)
    columns = (BarColumn(bar_width=24), done, TimeRemainingColumn(), what)
    return Progress(*columns, console=Console(file=sys.stderr), transient=True)
