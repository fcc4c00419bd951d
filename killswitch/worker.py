"""Work next to the ticks: one background thread that runs a step when it is woken, and when it is due.

For a single call that may hang, such as one on a dead network mount, see `killswitch.deadline`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

from killswitch.deadline import start_thread
from killswitch.model.backoff import Backoff

PAUSES = Backoff(first=1.0, longest=60.0)
"""Seconds before a step that failed so often in a row is repeated."""


class Worker:
    """Runs `step` on a daemon thread, one at a time.

    A step returns the seconds until it is due without being woken, 0.0 for immediately; None if it only waits to be
    woken. Wakes during a step are one wake: the step reads what there is to do. An exception that leaves a step is a
    problem while the step fails, and ends nothing.
    """

    def __init__(self, name: str, step: Callable[[], float | None]) -> None:
        self._name = name
        self._step = step
        self._changed = threading.Condition()
        self._wakes = 0
        self._taken = 0
        """Wakes that the step under way, or the last one, takes into account."""
        self._done = 0
        self._is_last = False
        """Whether the step under way knows of the stop."""
        self._is_abandoned = False
        self._thread: threading.Thread | None = None
        self._busy_since: float | None = None
        self._failures = 0
        self.is_stopping = False
        self.problem: str | None = None

    @property
    def has_begun(self) -> bool:
        """Whether its thread was started."""
        return self._thread is not None

    def hangs_for(self, seconds: float) -> bool:
        """Whether the step under way began, and last reported progress, at least `seconds` ago."""
        since = self._busy_since
        return since is not None and monotonic() - since >= seconds

    def report_progress(self) -> None:
        """Record, from the step, that it does not hang."""
        self._busy_since = monotonic()

    def wake(self) -> None:
        """Make the step due, and start the thread if it was not started.

        NoThreadError if it cannot be started; the next call tries again.
        """
        with self._changed:
            self._wakes += 1
            self._changed.notify_all()
            if self._thread is None and not self.is_stopping:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                start_thread(thread)
                self._thread = thread

    def wait(self, timeout: float) -> bool:
        """Wait until the step has run for every wake so far, for at most `timeout` seconds; whether it has."""
        with self._changed:
            wakes = self._wakes
            return self._changed.wait_for(lambda: self._done >= wakes, timeout)

    def pause(self, seconds: float) -> bool:
        """Pause the step that calls this. A stop ends the pause, a wake does not; whether there was no stop."""
        with self._changed:
            self._busy_since = None
            self._changed.wait_for(lambda: self.is_stopping, max(seconds, 0.0))
            self._take()
            return not self.is_stopping

    def begin_stop(self) -> None:
        """Run one more step, and further ones while they are due immediately; then end. Returns immediately."""
        with self._changed:
            if not self.is_stopping:
                self.is_stopping = True
                self._wakes += 1
                self._changed.notify_all()

    def stop(self, timeout: float) -> bool:
        """Stop as `begin_stop`, for at most `timeout` seconds; whether the thread has ended. No step begins later."""
        self.begin_stop()
        thread = self._thread
        if thread is None:
            return True
        thread.join(timeout)
        with self._changed:
            self._is_abandoned = True
        return not thread.is_alive()

    def _take(self) -> None:
        self._taken, self._is_last = self._wakes, self.is_stopping
        self.report_progress()

    def _run(self) -> None:
        due: float | None = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wakes > self._done, due)
                if self._is_abandoned:
                    return
                self._take()
            due = self._run_step()
            with self._changed:
                self._done, self._busy_since = self._taken, None
                self._changed.notify_all()
                if self._is_last and due != 0.0:
                    return

    def _run_step(self) -> float | None:
        try:
            due = self._step()
        except Exception as error:  # noqa: BLE001 - a defect next to the ticks is a problem, and ends no run
            self._failures += 1
            self.problem = f"{self._name} failed and is repeated: {type(error).__name__}: {error}"
            return PAUSES.after(self._failures)
        self._failures, self.problem = 0, None
        return due
