"""Why a stage fired, in the units of its signals."""

from __future__ import annotations

from datetime import timedelta

from killswitch.graph.nodes import Graph, PolicySet, Trigger
from killswitch.lab.outcome import Closed, Firing
from killswitch.model.decision import TriggerReading
from killswitch.model.spelling import interval, lasting, money
from killswitch.signals.catalogue import CATALOGUE

_UNITS = {signal.name: signal.unit for signal in CATALOGUE}
_FEW = 4


class Reasons:
    """Words for the firings of one policy set."""

    def __init__(self, policies: PolicySet) -> None:
        self._triggers: dict[tuple[str, str], tuple[Graph, Trigger]] = {
            (graph.policy, trigger.name): (graph, trigger) for graph in policies.graphs for trigger in graph.triggers
        }

    def why(self, firing: Firing) -> str:
        """Its triggers: `equity.drawdown over 15m 4.67% >= 4.5%`."""
        return "; ".join(self._why(firing.policy, reading) for reading in firing.triggers) or "-"

    def _why(self, policy: str, reading: TriggerReading) -> str:
        graph, trigger = self._triggers.get((policy, reading.name), (None, None))
        threshold = trigger.threshold if trigger else None
        if graph is None or threshold is None:
            return reading.name
        signal = graph.signals[threshold.index]
        over = f" over {lasting(timedelta(microseconds=signal.window))}" if signal.window else ""
        low, high = reading.value or (None, None)
        span = (None if low is None else float(low), None if high is None else float(high))
        return f"{signal.name}{over} {interval(span, _UNITS.get(signal.name))} {threshold.op} {threshold.written}"


def closed_words(closed: tuple[Closed, ...], *, short: bool) -> str:
    """What a firing closed, largest first; `short` names a few and counts the rest."""
    ordered = sorted(closed, key=lambda each: (-each.notional, each.symbol))
    if not ordered:
        return "nothing"
    shown = ordered[:_FEW] if short else ordered
    words = [f"{each.symbol} {each.side} {money(each.notional)}" for each in shown]
    left = len(ordered) - len(shown)
    return ", ".join(words) + (f" and {left} more" if left else "")


def verified_words(firing: Firing) -> str:
    """When the venue showed every target reached, counted from the firing."""
    if firing.ended is None:
        return "nothing to close"
    if firing.verified_at is None:
        return "never"
    after = firing.verified_at - firing.at
    return f"after {lasting(after)}" if after >= timedelta(seconds=1) else "at once"


def hedge_words(firing: Firing) -> str:
    """Whether the other side stood when the close was verified, and how much of it."""
    if firing.hedge is None:
        return "-"
    kept = "" if firing.hedge_kept is None or firing.hedge == "closed" else f" ({firing.hedge_kept:.0%})"
    return f"{firing.hedge}{kept}"
