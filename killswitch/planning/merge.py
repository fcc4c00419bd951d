"""One position, one target: decisions merge to the smallest target, never to a sum."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from msgspec.structs import replace

from killswitch.model.decision import Decision
from killswitch.signals.view import PnlKey

Targets = dict[PnlKey, Decimal]


def targets_of(decisions: Iterable[Decision]) -> Targets:
    """The smallest target of each position over the decisions."""
    smallest: Targets = {}
    for decision in decisions:
        for intent in decision.intents:
            key = (intent.account, intent.symbol, intent.position_side)
            smallest[key] = min(intent.target, smallest.get(key, intent.target))
    return smallest


def merge(decisions: Sequence[Decision], active: Targets) -> tuple[Decision, ...]:
    """Leave each position's orders to the one decision with the smallest target, the first of equals.

    `active` are targets that are being worked on already: an order that would leave more is not needed.
    Decisions that only observe are left as they are: they show what they would do alone. So is a close by hand:
    whoever gave it waits for it, and closing sends one order for a position whoever wants it.
    """
    enforcing = [d for d in decisions if d.mode == "enforce" and d.kind != "manual"]
    if len(enforcing) < 2 and not active:
        return tuple(decisions)
    smallest = targets_of(enforcing)
    owner: dict[PnlKey, str] = {}
    for decision in enforcing:
        for intent in decision.intents:
            key = (intent.account, intent.symbol, intent.position_side)
            if intent.target == smallest[key] and intent.target < active.get(key, intent.target + 1):
                owner.setdefault(key, decision.id)
    return tuple(
        decision
        if decision.mode != "enforce" or decision.kind == "manual"
        else replace(
            decision,
            intents=tuple(
                intent
                for intent in decision.intents
                if owner.get((intent.account, intent.symbol, intent.position_side)) == decision.id
            ),
        )
        for decision in decisions
    )
