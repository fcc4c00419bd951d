"""A trigger's reading as the policy's own line spells its threshold: in percent, in seconds, in money."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from killswitch.model.spelling import INFINITY, interval

if TYPE_CHECKING:
    from killswitch.graph.nodes import PolicySet
    from killswitch.model.decision import Decision, TriggerReading

Written = Mapping[tuple[str, str], tuple[str | None, str]]
"""Policy and trigger → the unit of its signal, and its threshold as the policy writes it."""


def as_written(policies: PolicySet) -> Written:
    """What the thresholds of the policies are in, so that a reading is told in the same spelling."""
    from killswitch.signals.catalogue import CATALOGUE

    units = {spec.name: spec.unit for spec in CATALOGUE}
    found: dict[tuple[str, str], tuple[str | None, str]] = {}
    for graph in policies.graphs:
        for trigger in graph.triggers:
            limit = trigger.threshold
            if limit is not None:
                unit = units.get(graph.signals[limit.index].name)
                found[graph.policy, trigger.name] = (unit, f"{limit.op} {limit.written}")
    return found


def reading(decision: Decision, trigger: TriggerReading, written: Written) -> str:
    """`20.00% against >= 10%`; without the policy's own line, the numbers of the record."""
    unit, threshold = written.get((decision.policy, trigger.name), (None, trigger.threshold))
    if trigger.value is None:
        return f"unknown against {threshold}" if threshold else "true"
    if unit is not None:
        low, high = (None if each is None else float(each) for each in trigger.value)
        return f"{interval((low, high), unit)} against {threshold or 'its expression'}"
    least, most = trigger.value
    value = least if least == most else f"[{least or '-' + INFINITY}, {most or INFINITY}]"
    return f"{value or 'unknown'} against {threshold or 'its expression'}"
