"""`lock_trading`: locks a scope for trading bots."""

from __future__ import annotations

from typing import Literal

from killswitch.graph.actions.kind import ActionKind, Surroundings
from killswitch.graph.freezing import freeze, frozen_from
from killswitch.graph.nodes import Action
from killswitch.graph.problems import Problem
from killswitch.graph.wording import span
from killswitch.model.instant import LocalTime
from killswitch.model.words import LockMode, place_text
from killswitch.policy.schema import actions
from killswitch.policy.yaml.source_map import Path
from killswitch.signals.arguments import Argument
from killswitch.signals.sessions import TradingSession

_SESSION = Argument(
    key="until_session", kind="reference", document="Session", meaning="The session at whose open the lock ends.",
    example="xnys",
)  # fmt: skip


@frozen_from(actions.LockTrading, by_hand=["until_session"], duration="for")
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
    until_session: TradingSession | None = None
    """The session at whose next open the lock ends."""
    positions: Literal["closed"] | None = None
    """Whether it reaches only the positions that the stage's closes select."""


def _text(lock: LockTrading) -> str:
    place = "" if lock.side is None and lock.symbols is None else f" of {place_text(lock.side, lock.symbols)}"
    closed = "" if lock.positions is None else " of what is closed"
    return f"lock {lock.mode}{place}{closed}{_end_text(lock)}"


def _end_text(lock: LockTrading) -> str:
    if lock.until_session is not None:
        return f" until {lock.until_session.name} opens"
    if lock.until is not None:
        return f" until {lock.until}"
    return "" if lock.duration is None else f" for {span(lock.duration)}"


def _resolve(written: actions.LockTrading, path: Path, around: Surroundings) -> LockTrading:
    """The node; a session that no document declares is reported."""
    found = None if written.until_session is None else around.columns.declared.resolve(_SESSION, written.until_session)
    if isinstance(found, Problem):
        around.found.error(found.code, (*path, "until_session"), found.message, found.fix)
    session = found if isinstance(found, TradingSession) else None
    return freeze(written, LockTrading, until_session=session)


KIND: ActionKind[actions.LockTrading, LockTrading] = ActionKind(
    key="lock_trading",
    node=LockTrading,
    effects=("lock",),
    is_reversible=True,
    needs_the_book=False,
    resolve=lambda written, _stage, path, around: _resolve(written, path, around),
    text=lambda lock, _signals: _text(lock),
)
