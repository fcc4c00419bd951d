"""Registry of action kinds, checked against the schema of a stage's `actions`."""

from __future__ import annotations

from typing import Final

from killswitch.graph.actions import cancel_orders, close, exit_process, lock_trading
from killswitch.graph.actions.kind import AnyActionKind
from killswitch.graph.nodes import Action, Stage
from killswitch.model.registry import RegistryError, require_same_keys
from killswitch.policy.schema.actions import ACTIONS as WRITTEN

ACTIONS: Final[tuple[AnyActionKind, ...]] = (
    lock_trading.KIND,
    cancel_orders.KIND,
    close.KIND,
    exit_process.KIND,
)

require_same_keys(
    "ACTIONS of killswitch.graph.actions.registry", [kind.key for kind in ACTIONS],
    "the schema of a stage's actions", WRITTEN,
)  # fmt: skip
_BY_KEY: Final = {kind.key: kind for kind in ACTIONS}
_BY_NODE: Final = {kind.node: kind for kind in ACTIONS}


def kind_named(key: str) -> AnyActionKind:
    """The kind with this key; RegistryError for an unknown key."""
    if key not in _BY_KEY:
        raise RegistryError(f"`{key}` is no action: there are {', '.join(_BY_KEY)}")
    return _BY_KEY[key]


def action_kind(action: Action) -> AnyActionKind:
    """The kind of an action; RegistryError for an unregistered class."""
    found = _BY_NODE.get(type(action))
    if found is None:
        raise RegistryError(f"{action!r} is of no kind that ACTIONS has")
    return found


def needs_the_book(stage: Stage) -> bool:
    """Whether an action of the stage depends on positions and orders; a lock does not."""
    return any(action_kind(action).needs_the_book for action in stage.actions)
