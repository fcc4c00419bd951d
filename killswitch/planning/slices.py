"""The greatest slice of a position that its market takes: by expected impact, and by participation."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from killswitch.graph.unwinding import ImpactRule
from killswitch.model.magnitude import sane
from killswitch.model.snapshot import Liquidity, OrderSide
from killswitch.risk.impact import daily_volume, greatest_size
from killswitch.signals.position import ZERO


@dataclass(frozen=True, slots=True)
class Slice:
    """`greatest` in contracts, None where nothing bounds it; `unknown` says what could not be asked, or is None."""

    greatest: Decimal | None = None
    unknown: str | None = None


WHOLE = Slice()


def greatest_slice(rule: ImpactRule | None, liquidity: Liquidity | None, side: OrderSide) -> Slice:
    """What one order on this `side` of the market may be at most; the smallest of the bounds that are known."""
    if rule is None:
        return WHOLE
    if liquidity is None:
        return Slice(unknown="liquidity")
    by_impact = _by_impact(rule, liquidity)
    by_share = None if rule.participation is None else _by_participation(rule.participation, liquidity, side)
    missing = [
        name
        for name, bound, asked in (
            ("volume or volatility", by_impact, True),
            ("depth and volume", by_share, rule.participation is not None),
        )
        if asked and bound is None
    ]
    known = [bound for bound in (by_impact, by_share) if bound is not None]
    return Slice(min(known, default=None), " and ".join(missing) or None)


def _by_impact(rule: ImpactRule, liquidity: Liquidity) -> Decimal | None:
    """The size of the greatest impact that is accepted. A market that has not moved at all has no known volatility."""
    volume, over, volatility = _known(liquidity.volume), liquidity.over, liquidity.volatility
    if volume is None or over is None or volatility is None or not (_positive(over) and _positive(volatility)):
        return None
    return greatest_size(rule.model, rule.at_most, daily_volume(volume, over), volatility)


def _by_participation(share: Decimal, liquidity: Liquidity, side: OrderSide) -> Decimal | None:
    """The share of what rests on the side that is traded against, or of what was traded last: the smaller."""
    depth = _known(liquidity.bid_depth if side == "sell" else liquidity.ask_depth)
    seen = [each for each in (depth, _known(liquidity.volume)) if each is not None]
    return share * min(seen) if seen else None


def _known(value: Decimal | None) -> Decimal | None:
    """A depth or volume that can be one; None is unknown."""
    return value if value is not None and sane(value) and value >= ZERO else None


def _positive(value: float) -> bool:
    return 0.0 < value < 1e30
