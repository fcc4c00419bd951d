"""The server's own record: logins, requests with an effect, and tokens, in a chain next to the store of the runner.

It has the form of a store, so that `ksctl audit` reads it as one, and never shares a transaction with the runner. One
thread writes. A request that lets risk in again waits for its line, and is refused where that cannot be written; one
that tightens never waits: its line is written by itself, later where that takes longer.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from msgspec import Struct

from killswitch.model.instant import rfc3339
from killswitch.model.record_entry import EntryKind, Field, RecordEntry, private, with_known
from killswitch.server.guard import App, Message, Receive, Scope, Send
from killswitch.server.rates import MOST_NAMES, ServerCounters
from killswitch.store.errors import StoreError
from killswitch.store.recorded import server_record_of
from killswitch.store.sqlite import open_store
from killswitch.worker import Worker

WITHIN: Final = 0.5
"""Seconds that a request which loosens waits for its line."""
AGAIN: Final = 5.0
"""Seconds after which lines that could not be written are tried again."""
MOST_WAITING: Final = 10_000
"""Lines that wait for a file which accepts none; further ones are counted, and the number is recorded."""
PERIOD: Final = 60.0
"""Seconds for which repetitions are counted."""
MOST_FIRSTS: Final = 20
"""Sources that get a line of their own within a period; those of further ones are counted together."""
LOGIN_AGAIN: Final = 24 * 3600.0
"""Seconds after which the next request of one credential from one source is a login again."""
ASKED: Final = "killswitch.asked"
"""The key of a request's scope with the subjects that were announced for it."""


class UnrecordedError(Exception):
    """A line could not be written: what it announces must not happen. The message has the cause and the way out."""


class CountedRepetitions:
    """What happens often: the first of a name, then a count a period. No clock of its own."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._open: OrderedDict[str, list[float]] = OrderedDict()
        """Name → when its period began, and how many were counted in it; of the others under the empty name."""

    @property
    def is_open(self) -> bool:
        """Whether anything is counted, so that a period ends."""
        return bool(self._open)

    def first(self, name: str) -> bool:
        """Whether one more is the first of its name, and gets a line; else it is counted."""
        if name not in self._open and len(self._open) >= MOST_FIRSTS:
            name = ""
        if name in self._open:
            self._open[name][1] += 1
            return False
        self._open[name] = [self._monotonic(), 0 if name else 1]
        return bool(name)

    def due(self, *, at_end: bool = False) -> list[tuple[str, int]]:
        """Names with their counts whose period is over. A name that was repeated begins another period."""
        now, found = self._monotonic(), []
        for name, (since, many) in list(self._open.items()):
            if not at_end and now - since < PERIOD:
                continue
            if many:
                found.append((name, int(many)))
                self._open[name] = [now, 0]
            else:
                del self._open[name]
        return found


class _Waiting(Struct):
    """An entry that is not written yet, and what is set once it is."""

    entry: RecordEntry
    written: threading.Event


class ServerRecord:
    """Writes the chain of a server. `later` is called from the loop, the file is used by one thread."""

    def __init__(
        self, store: Path, now: Callable[[], datetime], monotonic: Callable[[], float], counters: ServerCounters
    ) -> None:
        """`store`: that of the runner; nothing is opened before the first line."""
        self._path = server_record_of(store)
        self._now = now
        self._monotonic = monotonic
        self._lock = threading.Lock()
        """Held for what both threads change, and never during a write."""
        self._waiting: deque[_Waiting] = deque()
        self._omitted = 0
        self._problem: str | None = None
        self._is_late = False
        """Whether a request has waited in vain since the last write: the next ones are refused at once."""
        self._failed_logins = CountedRepetitions(monotonic)
        self._refused = CountedRepetitions(monotonic)
        self._logins: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._number = 0
        self._worker = Worker("server-record", self._step)
        counters.gauges["record_waiting"] = lambda: float(len(self._waiting) + self._omitted)

    def login(self, principal: str, credential: str, source: str) -> None:
        """Record a valid credential that this source has not used for a day."""
        name, now = (principal, credential, source), self._monotonic()
        if now - self._logins.get(name, -LOGIN_AGAIN) < LOGIN_AGAIN:
            return
        self._logins[name] = now
        self._logins.move_to_end(name)
        if len(self._logins) > MOST_NAMES:
            self._logins.popitem(last=False)
        fields: dict[str, Field | None] = {
            "actor": private(principal), "credential": credential, "source": private(source), "result": "accepted",
        }  # fmt: skip
        self.later("login", fields)

    def failed_login(self, source: str) -> None:
        """Record the first failed login of a source; further ones are counted, and the count is recorded a minute."""
        with self._lock:
            is_first = self._failed_logins.first(source)
        if is_first:
            self.later("login", {"source": private(source), "result": "failed"})
        else:
            self._worker.wake()

    def refused(self, principal: str, wanted: str, status: int) -> None:
        """Record the first request with an effect that a principal may not make, then a count a minute."""
        with self._lock:
            is_first = self._refused.first(f"{wanted} {principal}")
        if is_first:
            fields: dict[str, Field | None] = {
                "actor": private(principal), "effect": wanted, "result": "refused", "status": status,
            }  # fmt: skip
            self.later("request", fields)
        else:
            self._worker.wake()

    def requested(self, principal: str, wanted: str, scope: str | None, path: str) -> tuple[str, threading.Event]:
        """Announce a request with an effect, before it has one; its subject, and what is set once it is written."""
        self._number += 1
        subject = f"request/{self._number}"
        fields: dict[str, Field | None] = {
            "actor": private(principal), "effect": wanted, "scope": scope, "path": path[:100],
        }  # fmt: skip
        return subject, self.later("request", fields, announces=subject)

    def answered(self, subject: str, status: int) -> None:
        """Record how an announced request was answered: the status of HTTP."""
        self.later("request", {"status": status, "result": "answered"}, answers=subject)

    def later(
        self, kind: EntryKind, fields: dict[str, Field | None], announces: str | None = None, answers: str | None = None
    ) -> threading.Event:
        """Write an entry without waiting for it; returns what is set once it is written."""
        waiting = _Waiting(
            RecordEntry(kind, self._now(), with_known(fields), announces=announces, answers=answers), threading.Event()
        )
        with self._lock:
            if len(self._waiting) >= MOST_WAITING:
                self._omitted += 1
            else:
                self._waiting.append(waiting)
        self._worker.wake()
        return waiting.written

    def confirm(self, done: threading.Event) -> None:
        """Wait until an entry is on disk, on another thread than the loop's.

        Raises UnrecordedError, at once while writes fail or hang.
        """
        if done.is_set():
            return
        if self._problem is not None or self._is_late or not done.wait(WITHIN):
            self._is_late = not done.is_set()
            why = self._problem or f"{self._path} accepts no line within {WITHIN:g} s"
            raise UnrecordedError(
                f"the record of the server cannot be written, and what lets risk in again must be on record: {why}. "
                "Free space on its disk, or give the command with `ksctl`; halts, locks and closes are accepted"
            )

    def finish(self, timeout: float = 5.0) -> bool:
        """Write what waits, and end; whether that was done in time."""
        return self._worker.stop(timeout)

    def _step(self) -> float | None:
        self._note_counts()
        if self._waiting or self._omitted:
            try:
                self._write()
            except (StoreError, OSError) as error:
                self._problem = str(error)
                return None if self._worker.is_stopping else AGAIN
        self._problem = None
        return PERIOD / 4 if self._failed_logins.is_open or self._refused.is_open else None

    def _note_counts(self) -> None:
        """Add a line for each name whose period is over."""
        with self._lock:
            logins = self._failed_logins.due(at_end=self._worker.is_stopping)
            refused = self._refused.due(at_end=self._worker.is_stopping)
            for name, many in logins:
                self._append("login", {"source": private(name or None), "result": "failed", "count": many})
            for name, many in refused:
                effect, _, principal = name.partition(" ")
                actor, kind = private(principal or None), effect or None
                self._append("request", {"actor": actor, "effect": kind, "result": "refused", "count": many})

    def _append(self, kind: EntryKind, fields: dict[str, Field | None]) -> None:
        self._waiting.append(_Waiting(RecordEntry(kind, self._now(), with_known(fields)), threading.Event()))

    def _write(self) -> None:
        """Write what waits in one transaction. Raises StoreError, and everything waits on."""
        with self._lock:
            batch, omitted = list(self._waiting), self._omitted
        entries = [each.entry for each in batch]
        if omitted:
            entries.append(RecordEntry("request", self._now(), {"result": "omitted", "count": omitted}))
        store = open_store(str(self._path))
        try:
            store.add_to_record(entries, rfc3339(self._now()) if self._problem is not None else None)
        finally:
            store.close()
        with self._lock:
            self._omitted -= omitted
            for _ in batch:
                self._waiting.popleft()
        self._is_late = False
        for each in batch:
            each.written.set()


class AnsweredRequests:
    """Records how each announced request was answered."""

    def __init__(self, app: App, record: ServerRecord) -> None:
        self._app = app
        self._record = record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                for subject in scope.get(ASKED, {}).values():
                    self._record.answered(subject, message["status"])
            await send(message)

        await self._app(scope, receive, sent)
