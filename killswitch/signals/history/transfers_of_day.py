"""What transfers took out of a scope within 24 hours: it raises a leverage without a loss."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct
from msgspec import json as msgjson

from killswitch.model.instant import HOUR
from killswitch.signals.history.collector import FollowedHistory, HistoryCollector, Needs
from killswitch.signals.history.rows import Correction

DAY = 24 * HOUR
ZERO = Decimal(0)


class MovedAmount(Struct, frozen=True, array_like=True):
    """Money that came into a scope (above 0) or left it, in its currency, and when (microseconds)."""

    at: int
    amount: Decimal


class TransfersOfDayState(Struct):
    """The serialised form of `TransfersOfDay`."""

    transfers: list[MovedAmount]
    last_at: int | None = None


class TransfersOfDay(HistoryCollector):
    """The transfers of the last 24 hours, as the history recognises them.

    A change of equity that is identified as a transfer later counts from the time of the change, and one that an
    operator restates as a loss no longer counts. What was moved before the first observation is not known, and does not
    count.
    """

    name = "transfers_of_day"

    def __init__(self, needs: Needs, max_gap: int) -> None:
        self._transfers: list[MovedAmount] = []
        self._last_at: int | None = None

    def net_withdrawn(self, now: int) -> Decimal:
        """What withdrawals exceeded deposits by in the 24 hours until `now` (microseconds); 0 if they did not."""
        return max(ZERO, -sum((each.amount for each in self._transfers if now - each.at < DAY), ZERO))

    def follow(self, history: FollowedHistory, equity: Decimal | None) -> None:
        """Add the transfers of the snapshot. The first observation has none."""
        if equity is None:
            return
        at, last = history.rows[-1].at, self._last_at
        self._last_at = at
        if last is not None and at > last and history.transferred:
            self._add(MovedAmount(at, history.transferred), at)

    def correct(self, correction: Correction) -> None:
        """Add a transfer that was identified later; a negative amount takes back what counted as one."""
        if self._last_at is not None and correction.amount:
            self._add(MovedAmount(correction.start, correction.amount), self._last_at)

    def _add(self, transfer: MovedAmount, now: int) -> None:
        self._transfers = [each for each in (*self._transfers, transfer) if now - each.at < DAY]

    def begin_series(self) -> None:
        """Earlier transfers stay: they are of this scope whatever its unit values are comparable with."""

    def restart(self, now: int, *, accept: bool) -> None:
        """A reset does not undo a withdrawal."""

    def state(self) -> TransfersOfDayState:
        """Everything."""
        return TransfersOfDayState(self._transfers, self._last_at)

    def restore(self, stored: bytes) -> None:
        """Restore everything; what is older than a day is dropped when something is added."""
        state = msgjson.decode(stored, type=TransfersOfDayState)
        self._transfers, self._last_at = state.transfers, state.last_at
