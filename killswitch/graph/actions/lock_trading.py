"""`lock_trading`: locks a scope for trading bots."""

from __future__ import annotations

from killswitch.graph.actions.kind import ActionKind
from killswitch.graph.nodes import Action
from killswitch.graph.wording import span
from killswitch.model.words import LockMode
from killswitch.policy.schema import actions


class LockTrading(Action, frozen=True):
    mode: LockMode
    duration: int | None
    """Microseconds; None: without end."""


def _text(lock: LockTrading) -> str:
    return f"lock {lock.mode}" + ("" if lock.duration is None else f" for {span(lock.duration)}")


KIND: ActionKind[actions.LockTrading, LockTrading] = ActionKind(
    key="lock_trading",
    node=LockTrading,
    effects=("lock",),
    is_reversible=True,
    needs_the_book=False,
    resolve=lambda written, _stage, _path, _around: LockTrading(written.mode, written.duration),
    text=lambda lock, _signals: _text(lock),
)
