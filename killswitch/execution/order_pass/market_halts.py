"""Halted markets: orders that rest in them, and lines that wait until a market opens.

Snapshots show whether a market is open: `halted` holds until a snapshot shows otherwise, like every instrument rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from killswitch.execution.closing_pace import ClosingPace
from killswitch.execution.report_validation import finite
from killswitch.journal.lifecycle import ZERO, TargetState
from killswitch.journal.targets import PositionTarget
from killswitch.model.snapshot import AccountSnapshot, Instrument, InstrumentState

MARKET_CLOSED = "market_closed"
"""The refusal that ends when the market opens."""


@dataclass(frozen=True, slots=True)
class _RestingOrder:
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

    def is_resting(self, line: PositionTarget) -> bool:
        """Whether the venue has the line's order and cannot fill it before its market opens."""
        return line.state is TargetState.WORKING and self.is_halted(line.symbol)

    def is_refused(self, line: PositionTarget) -> bool:
        """Whether the venue refused the line's last order because the market is closed.

        Lines counted by their own fills are excluded: a hop or a hedge is not sent after a weekend.
        """
        return line.state is TargetState.READY and line.refusal == MARKET_CLOSED and not line.is_counted_by_fills

    def is_waiting(self, line: PositionTarget) -> bool:
        """Whether the line sends nothing before a snapshot shows its market in another state."""
        return self.is_refused(line) and self.is_halted(line.symbol)

    def changed_orders(self, lines: list[PositionTarget], account: AccountSnapshot, opened: frozenset[str]) -> set[str]:
        """Names of resting orders that the snapshot shows as changed, to be queried at once.

        The market is in `opened`, the position changed, or the order is no longer among the open orders.
        """
        found: set[str] = set()
        resting: dict[str, _RestingOrder] = {}
        working = [line for line in lines if line.state is TargetState.WORKING and line.client_order_id is not None]
        for line in working:
            name = line.client_order_id or ""
            if line.symbol in opened:
                found.add(name)
            if not self.is_halted(line.symbol):
                continue
            before = self._resting.get(name, _RestingOrder(None, None))
            seen = resting[name] = _resting_order(line, account, before)
            has_moved = before.contracts is not None and seen.contracts != before.contracts
            if has_moved or (seen.listed is False and before.listed is not False):
                found.add(name)
        self._resting = resting
        return found

    def notices(self, lines: Sequence[PositionTarget], now: datetime, pace: ClosingPace) -> list[str]:
        """The notices about lines that have waited for a while; the text is unchanged until one of them changes.

        Lines with an order of unknown status are left out: `stall_reason` reports those.
        """
        sent = [(line, line.sent_at) for line in lines if not line.detached and line.sent_at is not None]
        due = [line for line, at in sent if (now - at).total_seconds() >= pace.notify_after]
        resting = sorted({line.symbol for line in due if self.is_resting(line)})
        refused = sorted({line.symbol for line in due if self.is_waiting(line)})
        return [
            f"{', '.join(symbols)} wait{'s' if len(symbols) == 1 else ''} for the market to open: {state}"
            for symbols, state in (
                (resting, "the venue has the order" if len(resting) == 1 else "the venue has the orders"),
                (refused, f"until then orders are refused ({MARKET_CLOSED})"),
            )
            if symbols
        ]

    def has_notice(self, line: PositionTarget) -> bool:
        """Whether `notices` covers the line, now or after a while."""
        return not line.detached and (self.is_resting(line) or self.is_waiting(line))


def _resting_order(line: PositionTarget, account: AccountSnapshot, before: _RestingOrder) -> _RestingOrder:
    """The line's order as the snapshot shows it; what it does not show is kept from `before`."""
    if account.quality != "ok":
        return before
    contracts, listed = before.contracts, before.listed
    if account.positions is not None:
        sizes = [finite(each.contracts) for each in account.positions if each.key == line.key]
        if None not in sizes:
            contracts = sum((size for size in sizes if size is not None), ZERO)
    if account.orders is not None:
        listed = any(it.client_order_id == line.client_order_id or it.id == line.order_id for it in account.orders)
    return _RestingOrder(contracts, listed)
