"""Trading cost: the expected market impact before a trade, and the measured cost after it.

Square root: I(Q) = Y·σ·√(Q/V), with σ the volatility of a day as a fraction, V the volume of a day and Q the size, in
the same unit. Y is of order one; here it is 1 (Tóth, Lempérière, Deremble, de Lataillade, Kockelkoren & Bouchaud,
2011, "Anomalous price impact and the critical nature of liquidity in financial markets", Physical Review X 1, 021006;
Almgren, Thum, Hauptmann & Li, 2005, "Direct estimation of equity market impact", Risk 18(7), have the power 3/5 for
the temporary part, which lies between the two models here).

Linear: I(Q) = Y·σ·Q/V, the form of Kyle (1985), "Continuous auctions and insider trading", Econometrica 53(6). Below
a day's volume it expects less than the square root, so it cuts into larger slices.

Both are averages over many trades of a market that is quiet enough to have averages: in a crash they expect too little.

Perold, 1988, "The implementation shortfall: paper versus reality", Journal of Portfolio Management 14(3), counts a
trade against the price at which it was decided. Kissell, 2006, "The expanded implementation shortfall", Journal of
Trading 1(3), divides that at the arrival price, the mark when the order was sent: what the market moved until then is
the delay cost, what the fill was worse than that is the execution cost (slippage). Both are signed: below 0, a gain.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal

from msgspec import Struct

from killswitch.model.snapshot import OrderSide

Model = Literal["square_root", "linear"]

Y: Final = Decimal(1)
"""The factor of both models. Tóth et al. find it of order one over markets and sizes."""

DAY: Final = Decimal(86_400)
"""Seconds of a day."""


def daily_volume(volume: Decimal, over: float) -> Decimal:
    """A day's volume, in the unit of `volume`, if every `over` seconds traded as the last did.

    ValueError unless `over` is above zero.
    """
    seconds = _number(over)
    if not seconds > 0:
        raise ValueError(f"a volume over {over} seconds cannot be scaled to a day")
    return volume * DAY / seconds


def greatest_size(model: Model, at_most: Decimal, volume: Decimal, volatility: float) -> Decimal:
    """The greatest size whose expected impact is at most the fraction `at_most`: the inverse of the model.

    In the unit of the day's `volume`; infinite where the price does not move. `volatility` of a day as a fraction.
    ValueError for a number below zero.
    """
    spread = _number(volatility)
    if not (at_most >= 0 and volume >= 0 and spread >= 0):
        raise ValueError(f"at_most, volume and volatility are not all at least 0: {at_most}, {volume}, {volatility}")
    if not spread:
        return Decimal("Infinity")
    share = at_most / (Y * spread)
    return volume * (share * share if model == "square_root" else share)


def expected_impact(size: Decimal, volume: Decimal, volatility: float) -> Decimal:
    """The expected impact of a size by the square root, as a fraction of the price.

    In the unit of the day's `volume`, which is above 0; `volatility` of a day as a fraction. ValueError for a number
    below zero.
    """
    spread = _number(volatility)
    if not (size >= 0 and volume > 0 and spread >= 0):
        raise ValueError(
            f"size and volatility are not at least 0, or volume is not above: {size}, {volatility}, {volume}"
        )
    return Y * spread * (size / volume).sqrt()


def _number(value: float) -> Decimal:
    """The shortest decimal form of a float, such as 0.02. ValueError unless it is finite."""
    number = Decimal(repr(float(value)))
    if not number.is_finite():
        raise ValueError(f"{value} is not a finite number")
    return number


class MarkedContract(Struct, frozen=True):
    """A mark, and the account currency that one contract moves per 100% of that mark; both above 0."""

    mark: Decimal
    value: Decimal

    @classmethod
    def of(cls, mark: Decimal | None, value: Decimal | None) -> MarkedContract | None:
        """The pair; None if either number is unknown or not positive."""
        return None if not mark or not value or mark < 0 or value < 0 else cls(mark, value)

    def cost(self, side: OrderSide | str | None, contracts: Decimal, price: Decimal) -> Decimal:
        """The cost of trading `contracts` at `price` instead of the mark, in the account's currency."""
        return contracts * self.value * slippage(side, self.mark, price)


def slippage(side: OrderSide | str | None, mark: Decimal, price: Decimal) -> Decimal:
    """The slippage of `price` against `mark` for an order of this side, as a fraction of the mark; above 0 is worse."""
    fall = (mark - price) / mark
    return fall if side == "sell" else -fall


def delay_cost(
    side: OrderSide | str | None, contracts: Decimal, decided: MarkedContract | None, arrival: MarkedContract | None
) -> Decimal | None:
    """The cost of the market's move from the decision's mark to the arrival mark; None if one of them is unknown."""
    return None if decided is None or arrival is None else decided.cost(side, contracts, arrival.mark)
