"""`lock_trading`: locks the scope, or a part of it, from now on.

Several locks of a stage merge: those of the same part to the strictest and longest, different parts stay apart.
"""

from __future__ import annotations

from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.model.effects import Lock, LockOrder
from killswitch.model.instant import from_micros
from killswitch.model.snapshot import LockPart
from killswitch.planning.actions.kind import ActionPlan, Context, Planned


def _plan(action: LockTrading, context: Context) -> Planned:
    until = None if action.duration is None else from_micros(context.now + action.duration)
    if action.until is not None:
        until = action.until.next_after(from_micros(context.now))
    part = LockPart(action.mode, until, action.side, action.symbols)
    return Planned(effects=(Lock(LockOrder.of(context.scope, (part,))),))


KIND = ActionPlan(key="lock_trading", plan=_plan)
