"""Fixed fractional sizing: a fraction of equity at risk to a stop, or a fraction of equity as notional.

At risk: q = f·E ÷ (|entry − stop| + costs), so that the stop costs the fraction f of the equity E (Vince, 1990,
"Portfolio Management Formulas", Wiley; "percent risk" of Tharp, 1998, "Trade Your Way to Financial Freedom",
McGraw-Hill). `costs` are those of entry and exit together, as a fraction of the entry price.

An inverse contract of face F in quote loses F·|1 ÷ entry − 1 ÷ stop| of its coin, so that
n = f·E ÷ (F·|1 ÷ entry − 1 ÷ stop| + F·costs ÷ entry), with E in the coin.

Both are one leverage at the entry price, f ÷ (d + costs), where d is |1 − stop ÷ entry|, or |1 − entry ÷ stop| of an
inverse contract: with the same stop an inverse long risks more than a linear one, an inverse short less.

Limits: the loss is f only if the stop fills at its price; a gap costs more. A near stop suggests a large position: a
stop 0.2% away makes 2% of equity a leverage of 10, and the leverage cap decides.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Final

from killswitch.model.snapshot import Side
from killswitch.risk.sizing.answer import (
    SizingError,
    SizingInput,
    Suggestion,
    given,
    require_positive,
    unknown_suggestion,
)

AT_RISK: Final = "fixed-fractional"
OF_NOTIONAL: Final = "fixed-notional"


def risk_to_stop(
    fraction: Decimal, entry: SizingInput, stop: Decimal, side: Side, costs: Decimal, *, inverse: bool
) -> Suggestion:
    """The position that loses `fraction` of equity from `entry` to `stop`, prices in quote; `costs` of the entry price.

    SizingError for a fraction outside of (0, 1], costs below 0 or not below 1, and a stop at or beyond the entry.
    """
    _require_fraction("fraction at risk", fraction)
    require_positive("stop", stop)
    if not 0 <= costs < 1:
        raise SizingError(f"costs are {costs:f}: write a fraction of the entry price, such as 0.1%, or 0")
    inputs = (given("fraction at risk", fraction), given("stop", stop), given("costs", costs))
    if entry.value is None:
        return unknown_suggestion(AT_RISK, entry.unknown or "the entry price is unknown", *inputs)
    require_positive("entry", entry.value)
    if stop >= entry.value if side == "long" else stop <= entry.value:
        where = "below" if side == "long" else "above"
        raise SizingError(f"the stop of a {side} position is {where} its entry of {entry.value:f}, and {stop:f} is not")
    distance = stop_distance(Fraction(entry.value), Fraction(stop), inverse=inverse)
    leverage = Fraction(fraction) / (distance + Fraction(costs))
    details = (
        ("loss at the stop", f"{fraction:.2%} of equity, costs included"),
        ("stop", f"{float(distance):.2%} away"),
    )
    return Suggestion(AT_RISK, leverage, "fraction at risk", inputs, details=details)


def stop_distance(entry: Fraction, stop: Fraction, *, inverse: bool) -> Fraction:
    """The loss from entry to stop per unit of notional at the entry: |1 − stop ÷ entry|, inverse |1 − entry ÷ stop|.

    A stop 20% below the entry costs a linear long 20%, and an inverse one 25% of its coin; 20% above, a short of the
    two 20% and 16.7%. Both prices are above 0.
    """
    return abs(1 - entry / stop) if inverse else abs(1 - stop / entry)


def share_of_equity(fraction: Decimal) -> Suggestion:
    """The position whose notional is `fraction` of equity: q = f·E ÷ price. SizingError unless it is above 0."""
    require_positive("fraction of equity", fraction)
    return Suggestion(OF_NOTIONAL, Fraction(fraction), "fraction of equity", (given("fraction of equity", fraction),))


def _require_fraction(name: str, value: Decimal) -> None:
    require_positive(name, value)
    if value > 1:
        raise SizingError(f"the {name} is {value:%}: more than all equity cannot be at risk")
