"""Merges decisions: each position has one target, the smallest, of equals the most urgent; targets never add up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.decision import Decision, Intent, urgency_of
from killswitch.model.effects import wanted_intents
from killswitch.planning.spot_routes import base_of
from killswitch.valuation.scope_view import PnlKey

MANUAL_LEVEL = 1_000_000
"""Level of a manual close in a merge: above that of every stage, because an operator waits for it."""

_Asset = tuple[str, str]
"""(account, base asset) of a holding that is sold on another market than its own."""


class Aim(Struct, frozen=True):
    """Target of a decision for a position, in contracts, and its urgency.

    `asset`: the asset that a first hop sells, which no position of its market shows.
    """

    target: Decimal
    urgency: tuple[float, float, int] = (0.0, 0.0, 0)
    level: int = 0
    asset: str | None = None

    @property
    def precedence(self) -> tuple[Decimal, tuple[float, float, int], int]:
        """Sort key, the smallest applies: smaller target, then more urgent, then higher level."""
        return self.target, self.urgency, -self.level


Targets = Mapping[PnlKey, Aim]
"""Position → target; a first hop is listed under the market that it sells on."""


def targets_of(decisions: Iterable[Decision]) -> dict[PnlKey, Aim]:
    """Effective target of the decisions for each position. Second hops and hedges have none."""
    return least(
        {_key(intent): _aim_of(intent, decision)}
        for decision in decisions
        for intent in decision.intents
        if intent.purpose != "hedge" and intent.after is None
    )


def least(targets: Iterable[Targets]) -> dict[PnlKey, Aim]:
    """Effective target for each position; of equals the first."""
    found: dict[PnlKey, Aim] = {}
    for each in targets:
        for key, aim in each.items():
            _store_if_first(found, key, aim)
    return found


def contracts_left(targets: Targets) -> dict[PnlKey, Decimal]:
    """The contracts that the targets leave of each position; a holding that is sold elsewhere is not among them."""
    return {key: aim.target for key, aim in targets.items() if aim.asset is None}


def have_common_position(one: Targets, other: Targets) -> bool:
    """Whether two have a position or holding in common."""
    moved = _moved([one, other])
    return not _places(one, moved).isdisjoint(_places(other, moved))


def merge(decisions: Sequence[Decision], active: Targets) -> tuple[Decision, ...]:
    """Assign each position's orders to the decision with the smallest target, then the most urgent, then the first.

    `active`: targets already being worked on; a decision that would leave as much or more, no sooner, is not needed.
    Decisions in observe mode stay unchanged, because they show what they would do alone; so do manual closes, for which
    an operator waits (the executor sends one order for a position regardless of the number of decisions), and hedges,
    which reduce no position.
    """
    enforcing = [d for d in decisions if _merges(d)]
    if len(enforcing) < 2 and not active:
        return tuple(decisions)
    wanted = {decision.id: targets_of([decision]) for decision in enforcing}
    moved = _moved([active, *wanted.values()])
    best: dict[PnlKey, Aim] = {}
    for key, aim in active.items():
        _store_if_first(best, _place(key, moved), aim)
    owner: dict[PnlKey, str] = {}
    for decision in enforcing:
        for key, aim in wanted[decision.id].items():
            if _store_if_first(best, _place(key, moved), aim):
                owner[_place(key, moved)] = decision.id
    return tuple(_left_to(decision, owner, moved) if _merges(decision) else decision for decision in decisions)


def _store_if_first(best: dict[PnlKey, Aim], place: PnlKey, aim: Aim) -> bool:
    """Store the aim if it precedes the known one of the place; True if it was stored."""
    if place in best and aim.precedence >= best[place].precedence:
        return False
    best[place] = aim
    return True


def _left_to(decision: Decision, owner: Mapping[PnlKey, str], moved: Collection[_Asset]) -> Decision:
    return with_intents(decision, lambda intent: owner.get(_place(_key(intent), moved)) == decision.id)


def with_intents(decision: Decision, wanted: Callable[[Intent], bool]) -> Decision:
    """The decision with only the `wanted` intents. A second hop belongs to its first."""
    kept = wanted_intents(decision.intents, wanted)
    return decision if len(kept) == len(decision.intents) else replace(decision, intents=kept)


def ordered_on(decision: Decision) -> frozenset[str]:
    """Accounts with orders of the decision."""
    return frozenset(intent.account for intent in decision.intents)


def ordered_symbols(decision: Decision) -> frozenset[tuple[str, str]]:
    """Account and symbol of each market with orders of the decision."""
    return frozenset((intent.account, intent.symbol) for intent in decision.intents)


def _merges(decision: Decision) -> bool:
    return decision.mode == "enforce" and decision.kind not in ("manual", "hedge")


def _aim_of(intent: Intent, decision: Decision) -> Aim:
    asset = base_of(intent.symbol) if intent.purpose == "hop" else None
    level = MANUAL_LEVEL if decision.kind == "manual" else decision.level
    return Aim(intent.target, urgency_of(decision.unwinding), level, asset)


def _moved(targets: Iterable[Targets]) -> frozenset[_Asset]:
    """Holdings that are sold on another market than their own."""
    return frozenset((key[0], aim.asset) for each in targets for key, aim in each.items() if aim.asset is not None)


def _places(targets: Targets, moved: Collection[_Asset]) -> frozenset[PnlKey]:
    return frozenset(_place(key, moved) for key in targets)


def _place(key: PnlKey, moved: Collection[_Asset]) -> PnlKey:
    """Merge key of a target: the position, or the holding if its asset is sold on several markets.

    An account has one balance of an asset, so sales of it on any market compete (C23).
    """
    account, symbol, side = key
    asset = base_of(symbol)
    return (account, asset, side) if (account, asset) in moved else key


def _key(intent: Intent) -> PnlKey:
    return (intent.account, intent.symbol, intent.position_side)
