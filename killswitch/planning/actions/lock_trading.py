"""`lock_trading`: locks the scope from now on. Several locks of a stage merge to the strictest and longest."""

from __future__ import annotations

from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.model.effects import Lock, LockOrder
from killswitch.model.instant import from_micros
from killswitch.planning.actions.kind import ActionPlan, Context, Planned


def _plan(action: LockTrading, context: Context) -> Planned:
    until = None if action.duration is None else from_micros(context.now + action.duration)
    return Planned(effects=(Lock(LockOrder(context.scope, action.mode, until)),))


KIND = ActionPlan(key="lock_trading", plan=_plan)
