"""Positions of active lines as trusted snapshots show them, and which of them are journaled."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal

from killswitch.execution.account_context import AccountContext
from killswitch.execution.decide.position_trust import TrustedBook
from killswitch.execution.order_pass.order_decision import held, is_shown
from killswitch.execution.state.account_job import AccountJob
from killswitch.execution.state.execution_state import ExecutionState
from killswitch.journal.entries import PositionKey, Verified
from killswitch.journal.lifecycle import TargetState
from killswitch.journal.targets import PositionTarget, TargetName
from killswitch.model.snapshot import Instrument

JOURNAL_AGAIN_AFTER = timedelta(seconds=5)
"""Age after which the last shown position is journaled again when an operator gives up a close."""


class VerifiedPositions:
    """Keeps the position that the venue last showed for each active line, and journals changes."""

    def __init__(self, context: AccountContext, state: ExecutionState) -> None:
        self._context = context
        self._state = state
        self.shown: dict[PositionKey, Decimal] = {}
        """Contracts of each active position, as last shown."""
        self._shown_at: dict[PositionKey, datetime] = {}
        self._journaled: dict[TargetName, tuple[Decimal, datetime]] = {}
        """The position last journaled for each line, and when."""

    def update(self, book: TrustedBook) -> None:
        """Keep the positions that the snapshot shows."""
        for line in self._state.lines():
            if not line.is_counted_by_fills and is_shown(line, book):
                self.shown[line.key] = book.contracts(line.key)
                self._shown_at[line.key] = self._context.clock.now()

    def verify(self, book: TrustedBook, instruments: Mapping[str, Instrument]) -> None:
        """Journal the position of every line whose status changes by the snapshot."""
        verified: list[tuple[PositionTarget, Decimal]] = []
        for line in self._state.lines():
            if line.is_counted_by_fills:
                job = self._state.jobs[line.decision]
                job.supply(line, book.contracts(line.key), instruments.get(line.symbol))
            elif not is_shown(line, book):
                continue
            shown = held(line, book)
            changed = not line.is_in_flight and (shown <= line.target) is not (line.state is TargetState.AT_TARGET)
            if changed or line.state is TargetState.SETTLED:
                verified.append((line, shown))
        now = self._context.clock.now()
        self._state.record([self._entry(line, shown, now) for line, shown in verified])
        self._journaled |= {line.name: (shown, now) for line, shown in verified}

    def unjournaled(self, job: AccountJob) -> list[Verified]:
        """The last positions of a job that ends short of its targets, where the journal does not have them."""
        return [
            self._entry(line, self.shown[line.key], self._shown_at[line.key], is_last=True)
            for line in job.lines
            if line.state is not TargetState.AT_TARGET
            and not line.is_counted_by_fills
            and self._is_unjournaled(job, line)
        ]

    def forget(self, job: AccountJob) -> None:
        """Drop the positions that only an ended job needed."""
        for line in job.lines:
            self._journaled.pop(line.name, None)
        at_work = {line.key for line in self._state.lines()}
        self.shown = {key: shown for key, shown in self.shown.items() if key in at_work}
        self._shown_at = {key: at for key, at in self._shown_at.items() if key in at_work}

    def _is_unjournaled(self, job: AccountJob, line: PositionTarget) -> bool:
        """Whether the last shown position of the line differs from the last journaled one.

        After an operator gives up a close, the last position is journaled again if it was journaled long before.
        """
        if line.key not in self.shown:
            return False
        shown, at = self._journaled.get(line.name, (None, None))
        if at is None or shown != self.shown[line.key]:
            return True
        return job.given_up is not None and self._shown_at[line.key] - at > JOURNAL_AGAIN_AFTER

    def _entry(self, line: PositionTarget, shown: Decimal, at: datetime, *, is_last: bool = False) -> Verified:
        place = (self._context.account, *line.key)
        return Verified(line.decision, at, *place, position=shown, target=line.target, is_last=is_last)
