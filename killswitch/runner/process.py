"""Settings of an acting process: its event loop, its file descriptors, and thread switching.

`asyncio.run` waits without a limit for every thread of the loop's default executor, and the interpreter waits for them
again at exit. Names are resolved there (`getaddrinfo`), which may hang without end; once all its threads hang, no other
name is resolved.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from killswitch.deadline import DaemonThreadExecutor

if TYPE_CHECKING:
    from killswitch.runner.observers import TickReport

P = ParamSpec("P")
T = TypeVar("T")

IDLE = 600.0
"""Seconds for which a thread waits for another look-up, so that one is available if none can be started."""


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self._look_ups = DaemonThreadExecutor("look-up", idle=IDLE)
        self.set_default_executor(self._look_ups)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncio's own signature
        """Shut down without asyncio's own thread, which waits for all threads of the executor."""
        self._look_ups.shutdown()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` as `asyncio.run` does, without waiting for threads that hang."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)


BASE: Final = 256
"""Descriptors of a run without any account: the store's connections, logs, sinks, reports, notifications."""
PER_ACCOUNT: Final = 32
"""Descriptors of an account: a pool of connections to its venue, its pushes, look-ups of names, its lock file."""
MOST: Final = 65_536
"""Upper limit: no run needs more, and some programs iterate over all descriptors up to the limit."""


def make_room(accounts: int) -> str | None:
    """Raise the soft limit of file descriptors to the hard one; a warning if that is too low for so many accounts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # then the limit stays, and is reported below if it is too low
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = BASE + PER_ACCOUNT * accounts
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return None
    return (
        f"this process may open {soft} files and connections, and {accounts} accounts may need {needed}: raise the "
        "limit (`ulimit -n`, LimitNOFILE= of the service), or orders may find no connection"
    )


SWITCH_AFTER = 0.0005
"""Seconds after which a busy thread yields to a waiting one."""


def switch_threads_often() -> None:
    """Switch threads often, and exclude the present objects from garbage collection."""
    sys.setswitchinterval(SWITCH_AFTER)
    freeze_garbage_collection()


def freeze_garbage_collection() -> None:
    """Exclude the present objects from garbage collection; reference counting still frees them."""
    gc.freeze()


class FirstAnswers:
    """An observer that excludes an adapter's data from garbage collection when its account first answers.

    The rules of a venue are some ten thousand objects, and a collection that visits those of fifty accounts takes an
    eighth of a second. The exclusion happens at most once per account.
    """

    def __init__(self) -> None:
        self._answered: set[str] = set()

    def ticked(self, report: TickReport) -> None:
        """Exclude the data of accounts that have answered for the first time."""
        answered = {account.account for account in report.snapshot.accounts if account.quality == "ok"}
        if not answered <= self._answered:
            self._answered |= answered
            freeze_garbage_collection()
