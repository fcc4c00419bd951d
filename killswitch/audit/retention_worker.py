"""Carries out the declared retention of a run's store on its schedule: `ksctl run --retain`.

A process of its own does it, as `ksctl store retain` by hand: a tick waits for none of its work but for its short
transactions, and it may be killed at any moment. It does not begin while a close is in progress, nor while the records
of the run are in memory only. When it was done last is in the store, so that a run that starts every day does it too.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

from killswitch.audit.retention_clock import retained_at
from killswitch.audit.retention_settings import RetentionSettings
from killswitch.model.alert import Alert, Alerts
from killswitch.model.legible import one_line
from killswitch.model.snapshot import IN_PROGRESS, Snapshot
from killswitch.model.store import RETAINED
from killswitch.worker import Worker

AUTHOR: Final = "ksctl run --retain"
COMMAND: Final = (sys.executable, "-P", "-c", "from killswitch.cli import main; main()", "store", "retain")
"""With -P, so that no file of the folder in which the run was started is taken for a module of the program."""
RETRIED_AFTER: Final = 6 * 3600.0
"""Seconds after which one that failed is tried again."""
LOOKS_EVERY: Final = 300.0
"""The longest seconds between two looks at the clock: it may be set meanwhile."""
WAITS: Final = 10.0
"""Seconds after which one that may not begin looks again."""
LONGEST: Final = 2 * 3600.0
"""Seconds after which one that has not ended is reported: the folder of the archive may not answer any more."""
STOP_WITHIN: Final = 5.0
"""Seconds that the end of a run waits for one under way, before it is killed."""
_LONGEST_REASON: Final = 500


class ScheduledStore(Protocol):
    """The part of a store that the schedule needs."""

    @property
    def in_memory_because(self) -> str | None: ...

    def live(self, name: str) -> bytes | None: ...


class TickSnapshot(Protocol):
    """The part of a tick's report that shows the closes in progress."""

    @property
    def snapshot(self) -> Snapshot: ...


class RetentionWorker:
    """An observer of a run that starts a retention when it is due, on a thread of its own."""

    def __init__(
        self,
        declared: Path,
        settings: RetentionSettings,
        place: Path,
        store: ScheduledStore,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        command: Sequence[str] = COMMAND,
    ) -> None:
        """`declared`: the file of the settings, which have an interval. `place`: the file of the store."""
        self._command = (*command, "--declared", str(declared), "--store", str(place), "--author", AUTHOR)
        self._every = settings.interval or timedelta.max
        self._store = store
        self._now = now
        self._monotonic = monotonic
        self._begun = monotonic()
        self._failed_at: float | None = None
        self._is_closing = True
        self._has_run = False
        self._is_under_way = False
        self._is_stopping = False
        self._process: subprocess.Popen[bytes] | None = None
        self._problem: str | None = None
        self._worker = Worker("retention", self.retain_if_due)

    @property
    def judges(self) -> tuple[str, ...]:
        return ("retention",)

    @property
    def alerts(self) -> Alerts:
        """A warning while the declared retention is refused, fails or does not end; unknown before the first one."""
        problem = self._overdue() or self._problem or self._worker.problem
        found = () if problem is None else (Alert("retention/failed", "warning", problem),)
        return Alerts(found, () if self._has_run or found else ("retention",))

    def ticked(self, report: TickSnapshot) -> None:
        """Start the thread with the first tick, and know of each whether a close is in progress."""
        self._is_closing = any(each.status in IN_PROGRESS for each in report.snapshot.closings)
        if not self._worker.has_begun:
            self._worker.wake()

    def finish(self, timeout: float = STOP_WITHIN) -> bool:
        """End one that is under way: the next one goes on where it was. Whether the thread has ended."""
        self._is_stopping = True
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
        return self._worker.stop(timeout)

    def due_in(self) -> float:
        """Seconds until the next one. A clock that was set back since the last one does not postpone it for ever."""
        if self._failed_at is not None:
            pause = min(RETRIED_AFTER, self._every.total_seconds())
            return self._failed_at + pause - self._monotonic()
        last = retained_at(self._store.live(RETAINED))
        if last is None:
            return 0.0
        now = self._now()
        if last > now:
            return self._every.total_seconds() - (self._monotonic() - self._begun)
        return (last + self._every - now).total_seconds()

    def retain_if_due(self) -> float | None:
        """Run one that is due; a step of the worker. Returns the seconds until the next look."""
        if self._is_stopping:
            return None
        due_in = self.due_in()
        if due_in > 0:
            return min(due_in, LOOKS_EVERY)
        if self._is_closing or self._store.in_memory_because is not None:
            return WAITS
        self._begun, self._is_under_way = self._monotonic(), True
        try:
            self._problem = self._run()
        finally:
            self._is_under_way = False
        self._failed_at = None if self._problem is None else self._monotonic()
        self._has_run = True
        return WAITS

    def _overdue(self) -> str | None:
        """That the one under way does not end, and what to look at."""
        process = self._process
        if process is None or not self._is_under_way or self._monotonic() - self._begun < LONGEST:
            return None
        return (
            f"the declared retention of the store (process {process.pid}) began {LONGEST / 3600:g} h ago or earlier, "
            "and has not ended, so that nothing else is removed. See whether the folder of its archive answers, and "
            "end the process: the next one goes on where it was"
        )

    def _run(self) -> str | None:
        """Run the process to its end; why it failed."""
        try:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
        except OSError as error:
            return f"the declared retention of the store cannot be started: {error.strerror or error}"
        with self._process as process:
            if self._is_stopping:  # `finish` has not seen this one
                process.terminate()
            _, errors = process.communicate()
        if process.returncode == 0 or self._is_stopping:
            return None
        text = one_line(errors.decode("utf-8", "replace").strip()[-_LONGEST_REASON:])
        return f"the declared retention of the store was not carried out: {text or f'code {process.returncode}'}"
