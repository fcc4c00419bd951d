"""The rows of an account, fills or flows, as its snapshots show them: some venues write them down late."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from killswitch.model.snapshot import Fill, Flow

R = TypeVar("R", Fill, Flow)


class Statement(Generic[R]):
    """Rows in the order in which they happened, each shown `lag` after its own time."""

    def __init__(self) -> None:
        self.lag = timedelta(0)
        self._rows: deque[R] = deque()
        self._shown_from: dict[str, datetime] = {}
        """By id; of a row that is not late there is none."""

    def add(self, row: R, lag: timedelta | None = None) -> None:
        """Write a row down, to be shown `lag` later; None is the statement's own."""
        late = self.lag if lag is None else lag
        if late:
            self._shown_from[row.id] = row.at + late
        self._rows.append(row)

    def shown(self, at: datetime) -> tuple[R, ...]:
        """The rows that a snapshot of that moment shows."""
        if not self._shown_from:
            return tuple(self._rows)
        return tuple(row for row in self._rows if self._shown_from.get(row.id, row.at) <= at)

    def forget_before(self, oldest: datetime) -> None:
        """Drop the rows that are shown since before `oldest`."""
        if not self._shown_from:
            while self._rows and self._rows[0].at < oldest:
                self._rows.popleft()
            return
        self._rows = deque(row for row in self._rows if self._shown_from.get(row.id, row.at) >= oldest)
        kept = {row.id for row in self._rows}
        self._shown_from = {name: at for name, at in self._shown_from.items() if name in kept}
