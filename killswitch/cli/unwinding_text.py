"""In words how a decision is carried out."""

from __future__ import annotations

from killswitch.cli.wording import number
from killswitch.model.decision import Decision, Rung


def manner(decision: Decision) -> str:
    """`at market, as fast as the venue allows`, or the ladder with its bounds, and the pace."""
    unwinding = decision.unwinding
    ladder = () if unwinding is None else unwinding.ladder
    words = ", then ".join(_rung(rung) for rung in ladder) or "at market"
    bounds = sorted({intent.band for intent in decision.intents if intent.band is not None}) if ladder else []
    if bounds:
        least, most = (number(float(bound), "fraction") for bound in (bounds[0], bounds[-1]))
        words += f"; the bound is {least if least == most else f'{least} to {most}'} of the mark"
    return f"{words}; {_pace(decision)}"


def _rung(rung: Rung) -> str:
    times = "" if rung.tries == 1 else f", {rung.tries} times"
    if rung.order == "market":
        return f"at market{times}"
    bound = "the bound" if rung.widen == 1 else f"{rung.widen.normalize():f} × the bound"
    return f"within {bound}{times}" if rung.order == "limit_ioc" else f"resting at {bound}"


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
