"""In words how a decision is carried out."""

from __future__ import annotations

from decimal import Decimal

from killswitch.graph.wording import percent
from killswitch.model.decision import Decision, Rung


def manner(decision: Decision) -> str:
    """`within 3% of the mark, 1 try, then at market, …; as fast as the venue allows`: the ladder, and the pace."""
    ladder = () if decision.unwinding is None else decision.unwinding.ladder
    bounds = sorted({intent.band for intent in decision.intents if intent.band is not None})
    one = bounds[0] if len(bounds) == 1 else None
    words = ", then ".join(_rung(rung, one) for rung in ladder) or "at market"
    if ladder and len(bounds) > 1:
        words += f"; the bound is {percent(bounds[0])} to {percent(bounds[-1])} of the mark"
    return f"{words}; {_pace(decision)}"


def _rung(rung: Rung, bound: Decimal | None) -> str:
    """`bound`: of every order, where it is the same."""
    tries = "1 try" if rung.tries == 1 else f"{rung.tries} tries"
    if rung.order == "market":
        return f"at market, {tries}"
    times = "the bound" if rung.widen == 1 else f"{rung.widen.normalize():f} × the bound"
    limit = times if bound is None else f"{percent(bound * rung.widen)} of the mark"
    return (
        f"within {limit}, {tries}"
        if rung.order == "limit_ioc"
        else f"resting within {limit} where no market order fills"
    )


def _pace(decision: Decision) -> str:
    unwinding = decision.unwinding
    if unwinding is None or (unwinding.max_orders_per_minute is None and unwinding.pause is None):
        return "as fast as the venue allows"
    parts = []
    if unwinding.max_orders_per_minute is not None:
        parts.append(f"at most {unwinding.max_orders_per_minute} orders a minute")
    if unwinding.pause is not None:
        parts.append(f"{unwinding.pause:g} s between two slices of a position")
    return ", ".join(parts)
