"""Outside trades: whether a position that is larger than our fills leave was enlarged by others, or is shown late.

Two things show that others have enlarged it, without waiting until the venue has contradicted our fills for long:

- The venue's list of fills. Fills of others that are newer than our newest fill in the same list cannot be part of what
  our fills left. Both times are the venue's, so that no difference of clocks counts.
- The position itself. If the venue has shown it gone since our last fill, and shows it again, it was opened again, or
  the snapshot is an old one. So that counts only where the venue caps our order by the position, and then refuses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from killswitch.execution.report_validation import finite
from killswitch.journal.entries import PositionKey
from killswitch.journal.ledger import PositionLedger
from killswitch.journal.lifecycle import ZERO
from killswitch.model.snapshot import AccountSnapshot, Fill


class OutsideTrades:
    """The venue's fills of the positions that we work on, and which of these positions it has shown gone."""

    def __init__(self) -> None:
        self._fills: dict[PositionKey, dict[str, Fill]] = {}
        self._is_hedged = False
        self._gone: dict[PositionKey, Decimal] = {}
        """Position → contracts that our orders had closed of it when it was shown gone."""

    def collect(
        self, account: AccountSnapshot, ledgers: Mapping[PositionKey, PositionLedger], *, is_newest: bool
    ) -> None:
        """Collect what a snapshot shows of the positions in `ledgers`, and forget others. Each fill counts once.

        `is_newest`: whether it was requested after the last change of an order of ours.
        """
        self._is_hedged = account.position_mode == "hedge"
        self._fills = {key: fills for key, fills in self._fills.items() if key in ledgers}
        self._gone = {key: closed for key, closed in self._gone.items() if key in ledgers}
        for fill in account.fills or ():
            for key in _positions_of(fill):
                if key in ledgers:
                    self._fills.setdefault(key, {})[fill.id] = fill
        if is_newest and account.quality == "ok" and account.positions is not None:
            held = {position.key for position in account.positions if position.contracts}
            gone = (key for key, ledger in ledgers.items() if key not in held and not ledger.outstanding)
            self._gone |= {key: ledgers[key].closed for key in gone}

    def is_opened_again(self, key: PositionKey, ledger: PositionLedger) -> bool:
        """Whether the venue has shown the position gone since our last fill of it."""
        return self._gone.get(key) == ledger.closed and not ledger.outstanding

    def grown(self, key: PositionKey, ledger: PositionLedger) -> Decimal:
        """Contracts that others have added, net, since our last fill of the position; 0 while that is not known.

        It is at most what they have added beyond `ledger.anchor`: reductions of theirs that the anchor contains already
        are subtracted once more.
        """
        fills = self._fills.get(key, {}).values()
        if ledger.last_filled is None or ledger.outstanding:
            return ZERO
        if not any(fill.order == ledger.last_filled for fill in fills):
            return ZERO  # what is newer than it is not known yet
        since = max(fill.at for fill in fills if fill.order in ledger.filled_orders)
        newer = (fill for fill in fills if fill.at > since and fill.order not in ledger.filled_orders)
        return max(ZERO, sum((self._change(fill, key) for fill in newer), ZERO))

    def _change(self, fill: Fill, key: PositionKey) -> Decimal:
        """The change of the position by the fill. In hedge mode, one that names no side never enlarges it."""
        amount = finite(fill.amount) or ZERO
        if (fill.side == "buy") is not (key[1] == "long"):
            return -amount
        return ZERO if self._is_hedged and fill.position_side is None else amount


def _positions_of(fill: Fill) -> Iterable[PositionKey]:
    """The positions that the fill may have changed."""
    if fill.position_side is not None:
        return ((fill.symbol, fill.position_side),)
    return (fill.symbol, "long"), (fill.symbol, "short")
