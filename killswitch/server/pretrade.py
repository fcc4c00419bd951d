"""The gate of a server: questions are answered one after the other, each with its reservation in the same step.

There is one gate for a run: one process, one loop, and nothing is awaited between a verdict and what it reserves, or
two questions would both be given the last of a limit. What the gate knows is the view that the runner writes after each
tick; the lock file is read at every question, as a bot reads it. A gate that has just started has no reservations, and
orders may still arrive which an earlier one allowed: `limits` lets nothing plain pass until a read disproves that.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from msgspec import MsgspecError

from killswitch.gate.lock_reader import lock_path, read_lock, read_own_lock
from killswitch.gate.sentinel import sentinel_at
from killswitch.limits.moment import GateMoment, LockState
from killswitch.limits.question import GateVerdict, OutcomeReport, Question, decode_question, decode_report
from killswitch.limits.reservations import Reservations
from killswitch.limits.verdict import PreparedBook, book_of, verdict
from killswitch.limits.view import GateView, decode_gate_view
from killswitch.operations.gate_answers import lock_state

BOOK_KEPT: Final = timedelta(milliseconds=250)
"""How long an account that was prepared for questions is used, where its view does not change: a state grows old."""


class NoViewError(Exception):
    """There is no view of the run, so that the gate gives no verdict; the message has the cause and the way out."""


class MistakenQuestionError(Exception):
    """A question or a report that is none; the message names the place."""


class Gate:
    """Answers questions by the view of one run. Not thread-safe: all calls come from one loop."""

    def __init__(self, view_at: Path, sentinel: Path, now: Callable[[], datetime]) -> None:
        """`view_at`: the file of the runner's view. `now`: the wall clock, as the run's clock follows it."""
        self._view_at = view_at
        self._sentinel = sentinel
        self._now = now
        self._started_at = now()
        self._latest = self._started_at
        self._seen: tuple[int, int, int] | None = None
        self._view: GateView | None = None
        self._reservations = Reservations()
        self._books: dict[str, tuple[datetime, PreparedBook]] = {}

    def ask(self, content: bytes, permit: Callable[[str], None]) -> GateVerdict:
        """The verdict on a question. `permit` is called with its account, and raises where the asker may not ask.

        Raises NoViewError and MistakenQuestionError.
        """
        question = self._decoded(content)
        permit(question.account)
        view, moment = self._current(), self._moment_of(question)
        book = self._book(view, question.account, moment)
        judged = verdict(question, view, self._reservations, moment, book)
        self._reservations = judged.reservations
        return judged.verdict

    def report(self, account: str, content: bytes) -> None:
        """Take a bot's report of what became of a question. MistakenQuestionError if it is none."""
        try:
            found: OutcomeReport = decode_report(content)
        except (MsgspecError, ValueError) as error:
            raise MistakenQuestionError(str(error)) from error
        self._reservations = self._reservations.reported(account, found)

    def _decoded(self, content: bytes) -> Question:
        try:
            return decode_question(content)
        except (MsgspecError, ValueError) as error:
            raise MistakenQuestionError(str(error)) from error

    def _current(self) -> GateView:
        """The newest view, whose reads have ended what they show. NoViewError where there is none to read."""
        try:
            stat = self._view_at.stat()
            changed = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if self._view is None or changed != self._seen:
                self._view, self._seen = decode_gate_view(self._view_at.read_bytes()), changed
                self._books.clear()
                for account in self._view.accounts:
                    self._reservations = self._reservations.seen(account)
        except FileNotFoundError as error:
            raise NoViewError(f"no run has written {self._view_at}: is `ksctl run` alive on this store?") from error
        except (OSError, MsgspecError, ValueError) as error:
            raise NoViewError(f"{self._view_at} cannot be read: {error}") from error
        return self._view

    def _moment_of(self, question: Question) -> GateMoment:
        now = self._now()
        # The gate's own clock: one that is behind what it was judges no entry.
        is_back = now < self._latest - timedelta(seconds=1)
        self._latest = max(self._latest, now)
        return GateMoment(now, self._started_at, self._lock_of(question, now), sentinel_at(self._sentinel), is_back)

    def _lock_of(self, question: Question, now: datetime) -> LockState:
        """The lock of the account, and of the strategy that the question names, as their files say now.

        Without a lock folder the run is armed for no account. Of a strategy's file only its own lock counts: the file
        of a strategy that trades in several accounts is locked as soon as one of them is.
        """
        folder = None if self._view is None else self._view.lock_folder
        if folder is None:
            return LockState()
        found = [read_lock(lock_path(Path(folder), f"account/{question.account}"), now)]
        if question.strategy is not None:
            found.append(read_own_lock(lock_path(Path(folder), f"strategy/{question.strategy}"), now))
        return lock_state(found)

    def _book(self, view: GateView, account: str, moment: GateMoment) -> PreparedBook | None:
        """The account prepared for questions; None if the run has no such account."""
        found = view.account(account)
        if found is None:
            return None
        made, book = self._books.get(account, (None, None))
        if book is None or made is None or moment.now - made > BOOK_KEPT or moment.clock_went_back:
            book = book_of(found, moment)
            self._books[account] = (moment.now, book)
        return book
