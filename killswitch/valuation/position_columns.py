"""The positions of a scope as columns: float64 arrays for signals, and exact sums in Decimal.

Money is in the scope's currency. The arrays have a number for each open position, in the order of the accounts and of
their positions; NaN is unknown, and any arithmetic with it is unknown, too. An array is computed when it is first read,
once for each account and tick. `exposure` is added up in Decimal, because policies write thresholds of it exactly: a
float sum may miss a threshold by its last digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from math import isnan
from typing import TYPE_CHECKING

from killswitch.model.computed_once import computed_once
from killswitch.model.snapshot import Side
from killswitch.valuation.held_positions import BookExposure, HeldPositions
from killswitch.valuation.position_measures import ZERO

if TYPE_CHECKING:
    from killswitch.valuation.held_positions import Booleans, Floats

ONE = Decimal(1)
_MONEY = frozenset({"notional", "unrealised", "entry_value", "margin"})


class PositionColumns:
    """The columns of a scope whose positions are known."""

    def __init__(self, parts: Sequence[tuple[HeldPositions, Decimal | None]]) -> None:
        """`parts`: the positions of each account, and the rate of its currency to the scope's; None if unknown."""
        self._parts = parts

    def __len__(self) -> int:
        """The number of open positions."""
        return sum(len(held.sides) for held, _ in self._parts)

    @computed_once
    def accounts(self) -> tuple[str, ...]:
        return tuple(held.name for held, _ in self._parts for _ in held.sides)

    @computed_once
    def symbols(self) -> tuple[str, ...]:
        return tuple(symbol for held, _ in self._parts for symbol in held.symbols)

    @computed_once
    def sides(self) -> tuple[Side, ...]:
        return tuple(side for held, _ in self._parts for side in held.sides)

    @computed_once
    def sign(self) -> Floats:
        """+1 for a long position, −1 for a short one."""
        return self._column("sign")

    @computed_once
    def contracts(self) -> Floats:
        """Sizes in contracts, never negative."""
        return self._column("contracts")

    @computed_once
    def notional(self) -> Floats:
        """Absolute notionals."""
        return self._column("notional")

    @computed_once
    def unrealised(self) -> Floats:
        """Unrealised P&L."""
        return self._column("unrealised")

    @computed_once
    def entry_value(self) -> Floats:
        """Absolute notionals at the entry prices."""
        return self._column("entry_value")

    @computed_once
    def margin(self) -> Floats:
        """The margin of each position, as the venue reports it."""
        return self._column("margin")

    @computed_once
    def liquidation_distance(self) -> Floats:
        """The distance of the mark from the liquidation price ÷ mark; 0 at or beyond it."""
        return self._column("liquidation_distance")

    @computed_once
    def adl_rank(self) -> Floats:
        """Rank in the venue's queue of automatic deleveraging ÷ its highest rank: 1 is deleveraged first."""
        return self._column("adl_rank")

    @computed_once
    def spread(self) -> Floats:
        """(ask − bid) ÷ their middle, at least 0."""
        return self._column("spread")

    @computed_once
    def gross(self) -> float:
        """The sum of the notionals, rounded; NaN if one is unknown."""
        return float(self.notional.sum())

    @computed_once
    def share(self) -> Floats:
        """Notional ÷ gross, 0…1; unknown for every position if one notional is unknown, or the gross is 0."""
        return self.notional / (self.gross or float("nan"))

    def members(self, symbols: tuple[str, ...]) -> Booleans:
        """Which positions are in one of these symbols."""
        import numpy as np

        found = [held.members(symbols) for held, _ in self._parts]
        return found[0] if len(found) == 1 else np.concatenate(found) if found else np.empty(0, dtype=np.bool_)

    def reason(self, column: str) -> str | None:
        """The first position whose number in `column` is unknown, as a text; None if all are known."""
        of_share = column == "share"
        values = self.notional if of_share else self._column(column)
        for account, symbol, value in zip(self.accounts, self.symbols, values, strict=True):
            if isnan(value):
                return f"the {column.replace('_', ' ')} of {symbol} in {account} is unknown"
        if of_share and len(self) and not values.any():
            return "no position has a share: their notionals are all 0"
        return None

    # Exact sums

    @computed_once
    def exposure(self) -> BookExposure | None:
        """Gross, net and largest notional; None if a notional or a rate is unknown."""
        gross = net = largest = ZERO
        for held, rate in self._parts:
            own = held.exposure
            if own is None or (rate is None and held.merged):
                return None
            if rate is not None and rate != ONE:
                own = own.times(rate)
            gross, net, largest = gross + own.gross, net + own.net, max(largest, own.largest)
        return BookExposure(gross, net, largest)

    def _column(self, name: str) -> Floats:
        import numpy as np

        found = []
        for held, rate in self._parts:
            column = held.floats(name)
            if name in _MONEY and rate != ONE:
                column = column * (np.nan if rate is None else float(rate))
            found.append(column)
        return found[0] if len(found) == 1 else np.concatenate(found) if found else np.empty(0)
