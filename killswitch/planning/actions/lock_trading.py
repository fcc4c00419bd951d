"""`lock_trading`: locks the scope, or a part of it, from now on.

Several locks of a stage merge: those of the same part to the strictest and longest, different parts stay apart.
"""

from __future__ import annotations

from datetime import datetime

from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.model.effects import Lock, LockOrder
from killswitch.model.instant import from_micros
from killswitch.model.snapshot import LockPart
from killswitch.planning.actions.kind import ActionPlan, Context, Planned


def _plan(action: LockTrading, context: Context) -> Planned:
    part = LockPart(action.mode, _end(action, context.now), action.side, action.symbols)
    return Planned(effects=(Lock(LockOrder.of(context.scope, (part,))),))


def _end(action: LockTrading, now: int) -> datetime | None:
    """The end of a lock that is ordered at `now` (microseconds); None if it has none."""
    if action.until is not None:
        return action.until.next_after(from_micros(now))
    if action.until_session is not None:
        return from_micros(action.until_session.next_open(now))
    return None if action.duration is None else from_micros(now + action.duration)


KIND = ActionPlan(key="lock_trading", plan=_plan)
