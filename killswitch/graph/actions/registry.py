"""Registry of action kinds, checked against the schema of a stage's `actions`."""

from __future__ import annotations

from typing import Final

from killswitch.graph.actions import cancel_orders, close, exit_process, lock_trading, neutralise, reduce, top_up_margin
from killswitch.graph.actions.kind import AnyActionKind
from killswitch.graph.nodes import Action, Stage
from killswitch.model.registry import RegistryError, require_same_keys
from killswitch.policy.schema.actions import ACTIONS as WRITTEN

ACTIONS: Final[tuple[AnyActionKind, ...]] = (
    lock_trading.KIND,
    cancel_orders.KIND,
    close.KIND,
    reduce.KIND,
    neutralise.KIND,
    top_up_margin.KIND,
    exit_process.KIND,
)

require_same_keys(
    "ACTIONS of killswitch.graph.actions.registry", [kind.key for kind in ACTIONS],
    "the schema of a stage's actions", WRITTEN,
)  # fmt: skip


def kind_named(key: str) -> AnyActionKind:
    """The kind with this key; RegistryError for an unknown key."""
    for kind in ACTIONS:
        if kind.key == key:
            return kind
    raise RegistryError(f"`{key}` is no action: there are {', '.join(kind.key for kind in ACTIONS)}")


def action_kind(action: Action) -> AnyActionKind:
    """The kind of an action; RegistryError for an unregistered class."""
    for kind in ACTIONS:
        if kind.node is type(action):
            return kind
    raise RegistryError(f"{action!r} is of no kind that ACTIONS has")


def needs_the_book(stage: Stage) -> bool:
    """Whether an action of the stage depends on positions and orders; a lock does not."""
    return any(action_kind(action).needs_the_book for action in stage.actions)
