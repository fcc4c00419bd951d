"""One position, one target: decisions merge to the smallest target, never to a sum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal

from msgspec.structs import replace

from killswitch.model.decision import Decision, Intent
from killswitch.signals.view import PnlKey

Targets = dict[PnlKey, Decimal]
_Aim = tuple[str, PnlKey]


def targets_of(decisions: Iterable[Decision]) -> Targets:
    """The smallest target of each position over the decisions. Hops and hedges have none."""
    smallest: Targets = {}
    for decision in decisions:
        for intent in decision.intents:
            if intent.purpose == "reduce":
                key = _key(intent)
                smallest[key] = min(intent.target, smallest.get(key, intent.target))
    return smallest


def merge(decisions: Sequence[Decision], active: Targets) -> tuple[Decision, ...]:
    """Leave each position's orders to the one decision with the smallest target, the first of equals.

    `active` are targets that are being worked on already: an order that would leave more is not needed.
    Decisions that only observe are left as they are: they show what they would do alone. So is a close by hand:
    whoever gave it waits for it, and closing sends one order for a position whoever wants it. So is a hedge: it
    reduces no position.
    """
    enforcing = [d for d in decisions if _merges(d)]
    if len(enforcing) < 2 and not active:
        return tuple(decisions)
    smallest: dict[_Aim, Decimal] = {}
    for intent in _aiming(enforcing):
        smallest[_aim(intent)] = min(intent.target, smallest.get(_aim(intent), intent.target))
    owner: dict[_Aim, str] = {}
    for decision in enforcing:
        for intent in _aiming([decision]):
            worked_on = active.get(_key(intent)) if intent.purpose == "reduce" else None
            if intent.target == smallest[_aim(intent)] and (worked_on is None or intent.target < worked_on):
                owner.setdefault(_aim(intent), decision.id)
    return tuple(_left_to(decision, owner) if _merges(decision) else decision for decision in decisions)


def _left_to(decision: Decision, owner: Mapping[_Aim, str]) -> Decision:
    return only(decision, lambda intent: owner.get(_aim(intent)) == decision.id)


def only(decision: Decision, wanted: Callable[[Intent], bool]) -> Decision:
    """The decision with the intents that are `wanted`. A second hop goes with the first, whose place it names anew."""
    kept: list[Intent] = []
    place: dict[int, int] = {}
    for index, intent in enumerate(decision.intents):
        if intent.after is None and wanted(intent):
            place[index] = len(kept)
            kept.append(intent)
        elif intent.after is not None and intent.after in place:
            place[index] = len(kept)
            kept.append(replace(intent, after=place[intent.after]))
    return decision if len(kept) == len(decision.intents) else replace(decision, intents=tuple(kept))


def _merges(decision: Decision) -> bool:
    return decision.mode == "enforce" and decision.kind not in ("manual", "hedge")


def _aiming(decisions: Iterable[Decision]) -> Iterable[Intent]:
    """The intents that bring something to a target; second hops follow the first."""
    return (intent for decision in decisions for intent in decision.intents if intent.after is None)


def _aim(intent: Intent) -> _Aim:
    """What the target is of: the position, or the holding that is listed on another market than it is sold on."""
    return intent.purpose, _key(intent)


def _key(intent: Intent) -> PnlKey:
    return (intent.account, intent.symbol, intent.position_side)
