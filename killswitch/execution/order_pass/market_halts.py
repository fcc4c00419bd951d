"""Halted markets: orders that rest in them, and targets that wait until a market opens.

Snapshots show whether a market is open: `halted` holds until a snapshot shows otherwise, like every instrument rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from msgspec import Struct

from killswitch.execution.closing_pace import ClosingPace
from killswitch.execution.report_validation import finite
from killswitch.journal.lifecycle import ZERO, TargetState
from killswitch.journal.targets import PositionTarget
from killswitch.model.snapshot import AccountSnapshot, Instrument, InstrumentState

MARKET_CLOSED = "market_closed"
"""The refusal that ends when the market opens."""


class _RestingOrder(Struct, frozen=True):
    """A resting order as the last snapshot shows it: the position, and whether the open orders include the order."""

    contracts: Decimal | None
    listed: bool | None


class MarketHalts:
    """Tracks what waits for a market of one account, and when a snapshot shows a change. Kept in memory only."""

    def __init__(self, instruments: Mapping[str, Instrument]) -> None:
        """`instruments` maps symbols to their latest rules; it is read at each call, never copied."""
        self._instruments = instruments
        self._resting: dict[str, _RestingOrder] = {}

    def state(self, symbol: str) -> InstrumentState | None:
        """The market's latest state; None where no snapshot shows it."""
        found = self._instruments.get(symbol)
        return None if found is None else found.state

    def is_halted(self, symbol: str) -> bool:
        """Whether the market is halted now."""
        return self.state(symbol) == "halted"

    def is_resting(self, target: PositionTarget) -> bool:
        """Whether the venue has the target's order and cannot fill it before its market opens."""
        return target.state is TargetState.WORKING and self.is_halted(target.symbol)

    def is_refused(self, target: PositionTarget) -> bool:
        """Whether the venue refused the target's last order because the market is closed.

        Targets counted by their own fills are excluded: a hop or a hedge is not sent after a weekend.
        """
        return target.state is TargetState.READY and target.refusal == MARKET_CLOSED and not target.is_counted_by_fills

    def is_waiting(self, target: PositionTarget) -> bool:
        """Whether the target sends nothing before a snapshot shows its market in another state."""
        return self.is_refused(target) and self.is_halted(target.symbol)

    def changed_orders(
        self, targets: list[PositionTarget], account: AccountSnapshot, opened: frozenset[str]
    ) -> set[str]:
        """Names of resting orders that the snapshot shows as changed, to be queried at once.

        The market is in `opened`, the position changed, or the order is no longer among the open orders.
        """
        found: set[str] = set()
        resting: dict[str, _RestingOrder] = {}
        working = [
            target for target in targets if target.state is TargetState.WORKING and target.client_order_id is not None
        ]
        for target in working:
            name = target.client_order_id or ""
            if target.symbol in opened:
                found.add(name)
            if not self.is_halted(target.symbol):
                continue
            before = self._resting.get(name, _RestingOrder(None, None))
            seen = resting[name] = _resting_order(target, account, before)
            has_moved = before.contracts is not None and seen.contracts != before.contracts
            if has_moved or (seen.listed is False and before.listed is not False):
                found.add(name)
        self._resting = resting
        return found

    def notices(self, targets: Sequence[PositionTarget], now: datetime, pace: ClosingPace) -> dict[str, str]:
        """What has waited for a market for a while, by symbol: others that begin to wait do not change it.

        Targets with an order of unknown status are left out: `stall_reason` reports those.
        """
        sent = [(target, target.sent_at) for target in targets if not target.detached and target.sent_at is not None]
        due = [target for target, at in sent if (now - at).total_seconds() >= pace.notify_after]
        resting = sorted({target.symbol for target in due if self.is_resting(target)})
        refused = sorted({target.symbol for target in due if self.is_waiting(target)})
        return {
            f"{symbol}/{key}": f"{symbol} waits for the market to open: {state}"
            for key, symbols, state in (
                ("resting", resting, "the venue has the order"),
                ("refused", refused, f"until then orders are refused ({MARKET_CLOSED})"),
            )
            for symbol in symbols
        }

    def has_notice(self, target: PositionTarget) -> bool:
        """Whether `notices` covers the target, now or after a while."""
        return not target.detached and (self.is_resting(target) or self.is_waiting(target))


def _resting_order(target: PositionTarget, account: AccountSnapshot, before: _RestingOrder) -> _RestingOrder:
    """The target's order as the snapshot shows it; what it does not show is kept from `before`."""
    if account.quality != "ok":
        return before
    contracts, listed = before.contracts, before.listed
    if account.positions is not None:
        sizes = [finite(each.contracts) for each in account.positions if each.key == target.key]
        if None not in sizes:
            contracts = sum((size for size in sizes if size is not None), ZERO)
    if account.orders is not None:
        listed = any(it.client_order_id == target.client_order_id or it.id == target.order_id for it in account.orders)
    return _RestingOrder(contracts, listed)
