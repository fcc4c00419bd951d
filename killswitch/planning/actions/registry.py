"""Registry of action kinds in planning, checked against those of the graph."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from killswitch.graph.actions.kind import AnyActionKind
from killswitch.graph.actions.registry import ACTIONS, action_kind
from killswitch.graph.nodes import Action, Stage
from killswitch.model.effects import Effect, Orders, kind_named, merge_effects, tag_of
from killswitch.model.effects import kind_of as effect_kind_of
from killswitch.model.registry import RegistryError, require_same_keys
from killswitch.planning.actions import (
    cancel_orders,
    close,
    exit_process,
    lock_trading,
    neutralise,
    reduce,
    top_up_margin,
)
from killswitch.planning.actions.kind import AnyActionPlan, Context, Most, MostContext, Planned

PLANS: Final[tuple[AnyActionPlan, ...]] = (
    lock_trading.KIND,
    cancel_orders.KIND,
    close.KIND,
    reduce.KIND,
    neutralise.KIND,
    top_up_margin.KIND,
    exit_process.KIND,
)

require_same_keys(
    "PLANS of killswitch.planning.actions.registry", [plan.key for plan in PLANS],
    "ACTIONS of killswitch.graph.actions.registry", [kind.key for kind in ACTIONS],
)  # fmt: skip


def check_reversible(kinds: Iterable[AnyActionKind]) -> None:
    """RegistryError if the reversibility of a kind contradicts that of its effects."""
    for kind in kinds:
        wrong = kind.is_reversible is not all(kind_named(key).is_reversible for key in kind.effects)
        if wrong:
            verb = "is" if kind.is_reversible else "is not"
            raise RegistryError(f"`{kind.key}` says that it {verb} reversible, and its effects in EFFECTS do not")


check_reversible(ACTIONS)


def plan(action: Action, context: Context) -> Planned:
    """Plan the action; RegistryError if the plan has an effect that its kind does not declare."""
    kind = action_kind(action)
    found = _plan_of(action).plan(action, context)
    effects = [type(effect) for effect in found.effects] + ([Orders] if found.targets else [])
    for effect in effects:
        if tag_of(effect) not in kind.effects:
            raise RegistryError(f"`{kind.key}` has the effect `{tag_of(effect)}`, which it does not declare")
    return found


def most(action: Action, context: MostContext) -> Most:
    """Worst-case work of the action on an account."""
    return _plan_of(action).most(action, context)


def _plan_of(action: Action) -> AnyActionPlan:
    key = action_kind(action).key
    return next(each for each in PLANS if each.key == key)


def certain_effects(scope: str, stage: Stage, now: int) -> tuple[Effect, ...]:
    """Effects of the stage that do not depend on the book."""
    context = Context(scope, stage, now)
    actions = (action for action in stage.actions if not action_kind(action).needs_the_book)
    return merge_effects(effect for action in actions for effect in plan(action, context).effects)


def reversible_effects(scope: str, stage: Stage, now: int) -> tuple[Effect, ...]:
    """Reversible effects of the stage that do not depend on the book: those allowed on suspicion."""
    return tuple(effect for effect in certain_effects(scope, stage, now) if effect_kind_of(effect).is_reversible)
