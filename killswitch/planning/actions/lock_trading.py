"""`lock_trading`: locks the scope, or a part of it, from now on.

Several locks of a stage merge: those of the same part to the strictest and longest, different parts stay apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.model.effects import Lock, LockOrder
from killswitch.model.instant import from_micros
from killswitch.model.lock_parts import merged_parts
from killswitch.model.snapshot import LockPart, Side
from killswitch.planning.actions.kind import ActionPlan, Context, Planned


def _plan(action: LockTrading, context: Context) -> Planned:
    part = LockPart(action.mode, _end(action, context.now), action.side, action.symbols)
    if action.positions == "closed":
        return Planned(locks_selected=(part,), effects=(Lock(LockOrder.of(context.scope, (part,))),))
    return Planned(effects=(Lock(LockOrder.of(context.scope, (part,))),))


def selected_parts(part: LockPart, closed: Iterable[tuple[str, Side]]) -> tuple[LockPart, ...]:
    """The part of a lock that reaches only the `closed` positions, (symbol, side); itself if it reaches none."""
    found: dict[Side, list[str]] = {}
    for symbol, side in closed:
        if part.reaches(side, symbol):
            found.setdefault(side, []).append(symbol)
    parts = (LockPart(part.mode, part.until, side, tuple(symbols)) for side, symbols in found.items())
    return merged_parts(parts) or (part,)


def _end(action: LockTrading, now: int) -> datetime | None:
    """The end of a lock that is ordered at `now` (microseconds); None if it has none."""
    if action.until is not None:
        return action.until.next_after(from_micros(now))
    if action.until_session is not None:
        return from_micros(action.until_session.next_open(now))
    return None if action.duration is None else from_micros(now + action.duration)


KIND = ActionPlan(key="lock_trading", plan=_plan)
