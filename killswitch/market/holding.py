"""One position's ledger, kept by cost so that money is conserved to the last digit."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

from killswitch.model.snapshot import Side

MONEY_STEP = Decimal("0.00000001")
"""Where a division leaves a remainder, money is kept to this."""
_ENTRY_STEP = Decimal("0.000000000001")
ZERO = Decimal(0)


@dataclass(slots=True)
class Holding:
    """A position of `quantity` base units, above zero for long, bought (or sold) for `cost`.

    `cost` is Σ quantity × price of what is open, with the sign of `quantity`. The unrealised P&L is therefore
    quantity × mark − cost, without a rounded average price in between.
    """

    symbol: str
    quantity: Decimal
    cost: Decimal
    leverage: Decimal

    @property
    def side(self) -> Side:
        return "long" if self.quantity > 0 else "short"

    @property
    def entry_price(self) -> Decimal:
        """The average price of what is open, rounded for people to twelve decimals."""
        price = (self.cost / self.quantity).quantize(_ENTRY_STEP, ROUND_HALF_EVEN)
        return Decimal(f"{price:f}".rstrip("0").rstrip("."))

    def unrealized(self, mark: Decimal) -> Decimal:
        """P&L of what is open, at `mark`."""
        return self.quantity * mark - self.cost

    def trade(self, quantity: Decimal, price: Decimal) -> Decimal:
        """Add a fill of signed `quantity` at `price`; the realised P&L of what it closed, before fees.

        The cost of a part that is closed is its share of the whole, rounded to `MONEY_STEP`; the rest stays
        in the cost, so nothing is lost.
        """
        if self.quantity * quantity >= 0:
            self.quantity += quantity
            self.cost += quantity * price
            return ZERO
        closed = -quantity if abs(quantity) <= abs(self.quantity) else self.quantity
        removed = self._cost_of(closed)
        self.quantity -= closed
        self.cost -= removed
        opened = quantity + closed
        self.quantity += opened
        self.cost += opened * price
        return closed * price - removed

    def _cost_of(self, closed: Decimal) -> Decimal:
        if closed == self.quantity:
            return self.cost
        return (self.cost * closed / self.quantity).quantize(MONEY_STEP, ROUND_HALF_EVEN)
