"""Positions of active targets as trusted snapshots show them, and which of them are journaled."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal

from killswitch.execution.account_context import AccountContext
from killswitch.execution.decide.position_trust import TrustedBook
from killswitch.execution.order_pass.pass_verdicts import held, is_shown
from killswitch.execution.state.account_job import AccountJob
from killswitch.execution.state.execution_state import ExecutionState
from killswitch.journal.entries import PositionKey, Verified
from killswitch.journal.lifecycle import TargetState
from killswitch.journal.targets import PositionTarget, TargetName
from killswitch.model.snapshot import Instrument

JOURNAL_AGAIN_AFTER = timedelta(seconds=5)
"""Age after which the last shown position is journaled again when an operator gives up a close."""


class VerifiedPositions:
    """Keeps the position that the venue last showed for each active target, and journals changes."""

    def __init__(self, context: AccountContext, state: ExecutionState) -> None:
        self._context = context
        self._state = state
        self.shown: dict[PositionKey, Decimal] = {}
        """Contracts of each active position, as last shown."""
        self._shown_at: dict[PositionKey, datetime] = {}
        self._journaled: dict[TargetName, tuple[Decimal, datetime]] = {}
        """The position last journaled for each target, and when."""

    def update(self, book: TrustedBook) -> None:
        """Keep the positions that the snapshot shows."""
        for target in self._state.targets():
            if not target.is_counted_by_fills and is_shown(target, book):
                self.shown[target.key] = book.contracts(target.key)
                self._shown_at[target.key] = self._context.clock.now()

    def verify(self, book: TrustedBook, instruments: Mapping[str, Instrument]) -> None:
        """Journal the position of every target whose status changes by the snapshot."""
        verified: list[tuple[PositionTarget, Decimal]] = []
        for target in self._state.targets():
            if target.is_counted_by_fills:
                job = self._state.jobs[target.decision]
                job.supply(target, book.contracts(target.key), instruments.get(target.symbol))
            elif not is_shown(target, book):
                continue
            shown = held(target, book)
            changed = not target.is_in_flight and (shown <= target.target_size) is not (
                target.state is TargetState.AT_TARGET
            )
            if changed or target.state is TargetState.SETTLED:
                verified.append((target, shown))
        now = self._context.clock.now()
        self._state.record([self._entry(target, shown, now) for target, shown in verified])
        self._journaled |= {target.name: (shown, now) for target, shown in verified}

    def unjournaled(self, job: AccountJob) -> list[Verified]:
        """The last positions of a job that ends short of its targets, where the journal does not have them."""
        return [
            self._entry(target, self.shown[target.key], self._shown_at[target.key], is_last=True)
            for target in job.targets
            if target.state is not TargetState.AT_TARGET
            and not target.is_counted_by_fills
            and self._is_unjournaled(job, target)
        ]

    def forget(self, job: AccountJob) -> None:
        """Drop the positions that only an ended job needed."""
        for target in job.targets:
            self._journaled.pop(target.name, None)
        at_work = {target.key for target in self._state.targets()}
        self.shown = {key: shown for key, shown in self.shown.items() if key in at_work}
        self._shown_at = {key: at for key, at in self._shown_at.items() if key in at_work}

    def _is_unjournaled(self, job: AccountJob, target: PositionTarget) -> bool:
        """Whether the last shown position of the target differs from the last journaled one.

        After an operator gives up a close, the last position is journaled again if it was journaled long before.
        """
        if target.key not in self.shown:
            return False
        shown, at = self._journaled.get(target.name, (None, None))
        if at is None or shown != self.shown[target.key]:
            return True
        return job.given_up is not None and self._shown_at[target.key] - at > JOURNAL_AGAIN_AFTER

    def _entry(self, target: PositionTarget, shown: Decimal, at: datetime, *, is_last: bool = False) -> Verified:
        place = (self._context.account, *target.key)
        return Verified(target.decision, at, *place, position=shown, target=target.target_size, is_last=is_last)
