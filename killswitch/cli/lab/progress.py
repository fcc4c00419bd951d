"""Progress of long operations on stderr: bars on a terminal, otherwise periodic lines."""

from __future__ import annotations

import sys
from time import monotonic
from typing import TYPE_CHECKING

from killswitch.cli.terminal import mention

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


class Lines:
    """Print a line at most once per interval, the first one after the first interval."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._next = monotonic() + every

    def say(self, line: str) -> None:
        if (now := monotonic()) >= self._next:
            self._next = now + self._every
            mention(line)


def bars(done: ProgressColumn) -> Progress:
    """Progress bars that disappear at the end. `done`: the column that shows the completed part."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    what = TextColumn("{task.description}", markup=False)
    columns = (BarColumn(bar_width=24), done, TimeRemainingColumn(), what)
    return Progress(*columns, console=Console(file=sys.stderr), transient=True)
