"""What a fill cost against marks, by the implementation shortfall in parts.

Perold, 1988, "The implementation shortfall: paper versus reality", Journal of Portfolio Management 14(3), counts a
trade against the price at which it was decided. Kissell, 2006, "The expanded implementation shortfall", Journal of
Trading 1(3), divides that at the arrival price, the mark when the order was sent: what the market moved until then is
the delay cost, what the fill was worse than that is the execution cost (slippage). Both are signed: below 0, a gain.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from killswitch.model.snapshot import OrderSide


@dataclass(frozen=True, slots=True)
class Marked:
    """A mark, and the account currency that one contract moves when that mark doubles; both above 0."""

    mark: Decimal
    value: Decimal

    @classmethod
    def of(cls, mark: Decimal | None, value: Decimal | None) -> Marked | None:
        """The pair; None where a part of it is unknown or makes no sense."""
        return None if not mark or not value or mark < 0 or value < 0 else cls(mark, value)

    def cost(self, side: OrderSide | str | None, contracts: Decimal, price: Decimal) -> Decimal:
        """What trading `contracts` at `price` in place of the mark costs, in the account's currency."""
        return contracts * self.value * slipped(side, self.mark, price)


def slipped(side: OrderSide | str | None, mark: Decimal, price: Decimal) -> Decimal:
    """How much worse `price` is than `mark` for an order of this side, as a fraction of the mark."""
    fall = (mark - price) / mark
    return fall if side == "sell" else -fall


def delay_cost(
    side: OrderSide | str | None, contracts: Decimal, decided: Marked | None, arrival: Marked | None
) -> Decimal | None:
    """What the market's move from the decision's mark to the arrival mark cost; None where one of them is unknown."""
    return None if decided is None or arrival is None else decided.cost(side, contracts, arrival.mark)
