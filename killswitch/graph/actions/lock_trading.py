"""`lock_trading`: locks a scope for trading bots."""

from __future__ import annotations

from typing import Literal

from killswitch.graph.actions.kind import ActionKind
from killswitch.graph.freezing import freeze, frozen_from
from killswitch.graph.nodes import Action
from killswitch.graph.wording import span
from killswitch.model.instant import LocalTime
from killswitch.model.words import LockMode, place_text
from killswitch.policy.schema import actions


@frozen_from(actions.LockTrading, duration="for")
class LockTrading(Action, frozen=True):
    mode: LockMode
    duration: int | None
    """Microseconds; None: without end, unless there is an `until`."""
    side: Literal["long", "short"] | None = None
    """The side that is locked; None: both."""
    symbols: tuple[str, ...] | None = None
    """The symbols that are locked; None: all."""
    until: LocalTime | None = None
    """The time of the day at which the lock ends."""


def _text(lock: LockTrading) -> str:
    place = "" if lock.side is None and lock.symbols is None else f" of {place_text(lock.side, lock.symbols)}"
    end = f" for {span(lock.duration)}" if lock.duration is not None else f" until {lock.until}" if lock.until else ""
    return f"lock {lock.mode}{place}{end}"


KIND: ActionKind[actions.LockTrading, LockTrading] = ActionKind(
    key="lock_trading",
    node=LockTrading,
    effects=("lock",),
    is_reversible=True,
    needs_the_book=False,
    resolve=lambda written, _stage, _path, _around: freeze(written, LockTrading),
    text=lambda lock, _signals: _text(lock),
)
