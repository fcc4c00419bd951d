"""`cancel_orders`: cancel resting orders."""

from __future__ import annotations

from typing import Literal

from killswitch.graph.actions.kind import ActionKind
from killswitch.graph.nodes import Action
from killswitch.policy.schema import actions


class CancelOrders(Action, frozen=True):
    kind: Literal["entry", "all"]


KIND: ActionKind[actions.CancelOrders, CancelOrders] = ActionKind(
    key="cancel_orders",
    node=CancelOrders,
    effects=("cancels",),
    is_reversible=False,
    needs_the_book=True,
    resolve=lambda written, _stage, _path, _around: CancelOrders(written.kind),
    text=lambda cancel, _signals: f"cancel {cancel.kind} orders",
)
