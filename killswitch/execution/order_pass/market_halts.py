"""What waits for a market to open: orders that rest where nothing is traded, and lines that are refused until it does.

Whether a market is open, the readings say: `halted` holds until a reading says otherwise, as every rule of a symbol.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from killswitch.execution.patience import Pace
from killswitch.execution.recorded_reports import finite
from killswitch.journal.lifecycle import ZERO, State
from killswitch.journal.targets import Line
from killswitch.model.snapshot import AccountSnapshot, Instrument, InstrumentState

CLOSED = "market_closed"
"""The refusal that an opening lifts."""


@dataclass(frozen=True, slots=True)
class _Sight:
    """An order that rests, as a reading showed it: what was held, and whether it was among the open orders."""

    contracts: Decimal | None
    listed: bool | None


class Halts:
    """Tells what waits on one account, and when a reading has news of it. Memory of this process only."""

    def __init__(self, instruments: Mapping[str, Instrument]) -> None:
        """`instruments`: symbol → its rules as last told; looked into, never copied."""
        self._instruments = instruments
        self._sights: dict[str, _Sight] = {}

    def state(self, symbol: str) -> InstrumentState | None:
        """The market's state as last told; None where no reading tells it."""
        found = self._instruments.get(symbol)
        return None if found is None else found.state

    def halted(self, symbol: str) -> bool:
        """Whether nothing is traded there now."""
        return self.state(symbol) == "halted"

    def rests(self, line: Line) -> bool:
        """Whether the venue has the line's order and cannot fill it before its market opens."""
        return line.state is State.WORKING and self.halted(line.symbol)

    def refused(self, line: Line) -> bool:
        """Whether the venue has refused the line's last order because the market is closed.

        Not what is counted by its own fills: a way around or a hedge that comes after a weekend is none.
        """
        return line.state is State.READY and line.refusal == CLOSED and not line.by_fills

    def waits(self, line: Line) -> bool:
        """Whether the line sends nothing before a reading shows its market in another state."""
        return self.refused(line) and self.halted(line.symbol)

    def news(self, lines: Iterable[Line], account: AccountSnapshot, opened: frozenset[str]) -> set[str]:
        """Names of resting orders of which the reading says that something has happened: the venue is asked at once.

        Their market is in `opened`, the position is another, or they are no longer among the open orders.
        """
        found: set[str] = set()
        sights: dict[str, _Sight] = {}
        working = [line for line in lines if line.state is State.WORKING and line.client_order_id is not None]
        for line in working:
            name = line.client_order_id or ""
            if line.symbol in opened:
                found.add(name)
            if not self.halted(line.symbol):
                continue
            before = self._sights.get(name, _Sight(None, None))
            seen = sights[name] = _sight(line, account, before)
            moved = before.contracts is not None and seen.contracts != before.contracts
            if moved or (seen.listed is False and before.listed is not False):
                found.add(name)
        self._sights = sights
        return found

    def remarks(self, lines: Sequence[Line], now: datetime, pace: Pace) -> list[str]:
        """What a person is told of the lines that wait, once they have for a while: the same until one of them moves.

        Those with an order of unknown fate beside are left out: that is told instead.
        """
        due = [
            line
            for line in lines
            if not line.aside and line.sent_at is not None and (now - line.sent_at).total_seconds() >= pace.resting_for
        ]
        resting = sorted({line.symbol for line in due if self.rests(line)})
        refused = sorted({line.symbol for line in due if self.waits(line)})
        return [
            f"{', '.join(symbols)} wait{'s' if len(symbols) == 1 else ''} for the market to open: {how}"
            for symbols, how in (
                (resting, "the venue has the order" if len(resting) == 1 else "the venue has the orders"),
                (refused, f"until then orders are refused ({CLOSED})"),
            )
            if symbols
        ]

    def tells(self, line: Line) -> bool:
        """Whether `remarks` speaks of the line, at once or after a while."""
        return not line.aside and (self.rests(line) or self.waits(line))


def _sight(line: Line, account: AccountSnapshot, before: _Sight) -> _Sight:
    """What a reading shows of the line's order; what it does not tell is as it was."""
    if account.quality != "ok":
        return before
    contracts, listed = before.contracts, before.listed
    if account.positions is not None:
        sizes = [finite(each.contracts) for each in account.positions if each.key == line.key]
        if None not in sizes:
            contracts = sum((size for size in sizes if size is not None), ZERO)
    if account.orders is not None:
        listed = any(
            order.client_order_id == line.client_order_id or order.id == line.order_id for order in account.orders
        )
    return _Sight(contracts, listed)
