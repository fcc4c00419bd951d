"""The child process of one shadow set, and the bounded queue of snapshots in front of it.

Threads feed and read it, so that a child that hangs blocks them and never a tick. What does not fit into the queue is
dropped and counted; the operator commands of dropped snapshots are passed on with the next one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from time import monotonic
from typing import Final

import msgspec
from msgspec.structs import replace

from killswitch.model.backoff import Backoff
from killswitch.model.snapshot import Event, Snapshot, encode_snapshot
from killswitch.runner.shadow.evaluation import ShadowAnswer, ShadowStart, decode_answer, encode_start
from killswitch.worker import Worker

COMMAND: Final = (sys.executable, "-P", "-m", "killswitch.runner.shadow.evaluation")
MOST_QUEUED: Final = 600
"""Number of snapshots that wait for the process."""
MOST_SENT: Final = 60
"""Number of snapshots that are sent ahead of their answers."""
AWAITED_FROM: Final = 2
"""Number of snapshots sent from which an answer is awaited."""
HANGS_AFTER: Final = 60.0
"""Seconds without an answer, while several are awaited, after which the process is killed."""
HEALTHY_AFTER: Final = 100
"""Number of answers after which a process counts as healthy, and the next failure as the first."""
RESTARTS: Final = Backoff(first=1.0, longest=300.0)
_ENVIRONMENT: Final = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ", "HOME", "LD_LIBRARY_PATH")
"""What the process sees of the runner's environment: no credential."""


class ShadowProcessError(Exception):
    """The process has ended, or does not answer."""


class ShadowProcess:
    """Feeds snapshots to the process, restarts it when it fails, and collects what it answers."""

    def __init__(
        self, name: str, start: Callable[[], ShadowStart], command: Sequence[str] = COMMAND,
        most_queued: int = MOST_QUEUED, *, hangs_after: float = HANGS_AFTER,
    ) -> None:  # fmt: skip
        """`start`: makes the first message, on the feeding thread, before each start of the process."""
        self._start = start
        self._command = tuple(command)
        self._most = most_queued
        self._hangs_after = hangs_after
        self._queue: deque[Snapshot] = deque()
        self._answers: deque[ShadowAnswer] = deque()
        self._missing = 0
        """Snapshots lost that no snapshot has counted yet."""
        self._carried: tuple[Event, ...] = ()
        """Operator commands of lost snapshots."""
        self._changed = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._sent: deque[Snapshot] = deque()
        """Snapshots whose answer is awaited."""
        self._waits_since: float | None = None
        self._answered = 0
        self._failures = 0
        self._retry_at = 0.0
        self.dropped = 0
        """Snapshots that did not fit into the queue, or were lost with a process."""
        self._lost: deque[datetime] = deque(maxlen=MOST_QUEUED)
        """Times of the last snapshots that were dropped."""
        self.seen: datetime | None = None
        """The last snapshot that the set has evaluated."""
        self.seconds = 0.0
        """The time that the set has seen, as of its last answer."""
        self.problem: str | None = None
        """Why it is not evaluated now; None while it is."""
        self._feeder = Worker(f"shadow {name}", self._feed)

    def put(self, snapshot: Snapshot) -> None:
        """Pass on a snapshot soon, or drop it. Returns immediately."""
        with self._changed:
            if len(self._queue) >= self._most:
                self._lose((snapshot,))
            else:
                self._queue.append(self._counting(snapshot))
        self._feeder.wake()

    def answers(self) -> list[ShadowAnswer]:
        """The answers since the last call, oldest first."""
        found = []
        with suppress(IndexError):
            while True:
                found.append(self._answers.popleft())
        return found

    def was_lost(self, at: datetime) -> bool:
        """Whether the snapshot of this time was dropped, as far as that is remembered."""
        return at in self._lost

    def check(self) -> None:
        """Kill the process if it hangs. Returns immediately."""
        since, process = self._waits_since, self._process
        if process is not None and since is not None and monotonic() - since >= self._hangs_after:
            self.problem = f"it has not answered for {self._hangs_after:g} s, and is started again"
            _kill(process)

    def stop(self, timeout: float) -> bool:
        """Let the process end by the end of its input, for at most `timeout` seconds; then kill it.

        Returns whether it has ended by itself.
        """
        self._feeder.begin_stop()
        with self._changed:
            self._changed.notify_all()
        is_sent = self._feeder.stop(timeout / 2)
        process = self._process  # which the last step of the feeder may have started
        if process is None:
            return is_sent
        if process.stdin is not None and is_sent:
            with suppress(OSError, ValueError):
                process.stdin.close()
        try:
            process.wait(timeout / 2)
        except subprocess.TimeoutExpired:
            _kill(process)
            return False
        finally:
            if self._reader is not None:
                self._reader.join(timeout / 2)
        return True

    def _lose(self, snapshots: Sequence[Snapshot]) -> None:
        self._missing += sum(1 + each.missing for each in snapshots)
        self.dropped += len(snapshots)
        self._lost.extend(each.as_of for each in snapshots)
        self._carried += tuple(event for each in snapshots for event in each.events)

    def _counting(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with the number of those lost before it, and with their commands."""
        if not self._missing and not snapshot.missing:
            return snapshot
        counted = replace(snapshot, missing=self._missing, events=self._carried + snapshot.events)
        self._missing, self._carried = 0, ()
        return counted

    def _feed(self) -> float | None:
        """Send what is queued; the seconds until it is due again."""
        if self._process is None or self._process.poll() is not None:
            wait = self._retry_at - monotonic()
            is_last = self._feeder.is_stopping and (self._failures > 0 or not self._queue)
            if wait > 0 or is_last:  # a set whose first snapshots wait is evaluated before it ends
                return max(wait, 0.1)
            self._begin()
        process = self._process
        if process is None or process.stdin is None:
            return None
        while True:
            with self._changed:
                is_full = len(self._sent) >= MOST_SENT and not self._feeder.is_stopping
                if not self._queue or is_full:
                    return 1.0 if self._queue else None
                snapshot = self._queue.popleft()
                self._sent.append(snapshot)
                self._await()
            try:
                process.stdin.write(encode_snapshot(snapshot) + b"\n")
                process.stdin.flush()
            except (OSError, ValueError):
                return 0.1  # it has ended: its reader records why

    def _begin(self) -> None:
        """Start the process; a failure is a problem, and is retried later."""
        try:
            first = encode_start(self._start()) + b"\n"
            environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
            process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env=environment, start_new_session=True,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            self._failed(f"it cannot be started: {error}")
            return
        self._process, self._answered = process, 0
        self._reader = threading.Thread(target=self._read, args=(process,), name="shadow answers", daemon=True)
        self._reader.start()
        with suppress(OSError):
            if process.stdin is not None:
                process.stdin.write(first)
                process.stdin.flush()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        """Collect the answers of a process until it ends."""
        why: str | None = None
        for line in process.stdout or ():
            try:
                answer = decode_answer(line)
            except msgspec.DecodeError:
                why = "its answer cannot be read"
                _kill(process)
                break
            why = answer.problem or why
            self._take(answer)
        code = process.wait()
        for pipe in (process.stdout, process.stdin):
            with suppress(OSError, ValueError):
                if pipe is not None:
                    pipe.close()
        if not self._feeder.is_stopping:
            self._failed(why or self.problem or f"its process ended ({_end_of(code)})")

    def _take(self, answer: ShadowAnswer) -> None:
        with self._changed:
            if answer.fired or answer.digest is not None:
                self._answers.append(answer)  # before `seen`, which says that nothing of an earlier one is missing
            if answer.seen is not None:
                if self._sent:
                    self._sent.popleft()
                self._waits_since = None
                self._await()
                self._answered += 1
                self.seconds, self.seen = answer.seconds, answer.seen
                self.problem = None
                if self._answered >= HEALTHY_AFTER:
                    self._failures = 0
        self._feeder.wake()

    def _await(self) -> None:
        """Note since when an answer is awaited: the process may need the next snapshot to answer to one."""
        if len(self._sent) >= AWAITED_FROM and self._waits_since is None:
            self._waits_since = monotonic()

    def _failed(self, why: str) -> None:
        """Record why the process is not there; what it had not answered is lost."""
        with self._changed:
            self._lose(tuple(self._sent))
            self._sent.clear()
            self._waits_since = None
            if self._queue:
                self._queue[0] = self._counting(self._queue[0])
            self._failures += 1
            self._retry_at = monotonic() + RESTARTS.after(self._failures)
            self.problem = why
        with suppress(RuntimeError):
            self._feeder.wake()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the process with everything that it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _end_of(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
