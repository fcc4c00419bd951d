"""What trading costs and what margin asks for in the paper market."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct


class MarketRules(Struct, frozen=True):
    """The paper venue's terms, all of them fractions. The defaults are of the size that large venues publish."""

    taker_fee: Decimal = Decimal("0.0005")
    """Of the notional, for what trades at once."""
    maker_fee: Decimal = Decimal("0.0002")
    """Of the notional, for what rested in the book."""
    half_spread: Decimal = Decimal("0.0001")
    """Bid and ask lie this far from the last price."""
    impact: Decimal = Decimal("0.1")
    """Linear slippage: taking the fraction v of the bar's volume moves the price by impact × v on average."""
    jitter: Decimal = Decimal(0)
    """The slippage of each fill is multiplied by a number drawn from [1 − jitter, 1 + jitter]."""
    participation: Decimal = Decimal("0.1")
    """At most this fraction of a bar's volume is there for all accounts together; what is left works on."""
    maintenance: Decimal = Decimal("0.005")
    """Maintenance margin, of the notional at the mark."""
    liquidation_fee: Decimal = Decimal("0.005")
    """Of the notional, for what the venue liquidates."""
    liquidation_step: Decimal = Decimal("0.25")
    """The venue liquidates this part of the position with the largest maintenance margin at a time."""
    liquidates: bool = True
    """False lets an account go below its maintenance margin, and below zero."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__[:-1]:
            value: Decimal = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} {value} is not between 0 and 1")
        if self.liquidation_step == 0:
            raise ValueError("liquidation_step must be above 0: nothing would ever be liquidated")
