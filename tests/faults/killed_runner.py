"""`ksctl` as a process that kills itself with SIGKILL at a statement that writes to its store.

    python -m tests.faults.killed_runner KILL_AT ARGUMENTS…

KILL_AT: `12-before` or `12-after` the twelfth statement that inserts, updates, deletes or commits.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from killswitch.cli import main

WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE")


class Death:
    """Counts what is written, and kills the process where it was told to."""

    def __init__(self, kill_at: str) -> None:
        number, self._side = kill_at.split("-")
        self._number = int(number)
        self._count = 0

    def before(self, *_: Any) -> None:
        """Just before a write."""
        self._count += 1
        self._kill_if("before")

    def after(self, *_: Any) -> None:
        """Just after it."""
        self._kill_if("after")

    def _kill_if(self, side: str) -> None:
        if self._number and self._count >= self._number and side == self._side:  # nothing comes after a commit
            os.kill(os.getpid(), signal.SIGKILL)

    def before_statement(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        """The listener of the engine, for statements of any kind."""
        if statement.lstrip().upper().startswith(WRITES):
            self.before()

    def after_statement(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        """The same, for statements that were executed."""
        if statement.lstrip().upper().startswith(WRITES):
            self.after()


def observe_writes(death: Death) -> None:
    """Count the writes of this process from now on."""
    event.listen(Engine, "before_cursor_execute", death.before_statement)
    event.listen(Engine, "after_cursor_execute", death.after_statement)
    event.listen(Engine, "commit", death.before)


if __name__ == "__main__":
    observe_writes(Death(sys.argv.pop(1)))
    main()
