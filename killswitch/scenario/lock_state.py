"""The locks that the decisions of a run have written, as `in force` after a step.

A lock of a scope is the strictest of those that no reset of its policy has lifted and that have not ended. A lock on
the portfolio or a venue reaches its accounts; any other counts for the scope that the decision names.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct

from killswitch.model.decision import Decision
from killswitch.model.lock_parts import strictest_mode
from killswitch.model.snapshot import Snapshot
from killswitch.model.words import LockMode

PORTFOLIO = "portfolio"


class _Lock(Struct, frozen=True):
    policy: str
    scope: str
    mode: LockMode
    until: datetime | None
    is_on_suspicion: bool


class LocksInForce:
    """The locks of one run."""

    def __init__(self) -> None:
        self._locks: list[_Lock] = []

    def apply(self, decisions: Iterable[Decision], now: datetime) -> None:
        """Add the locks of the decisions, and remove those that they lift or that have ended."""
        for decision in decisions:
            if decision.kind == "reset":
                self._locks = [
                    each for each in self._locks
                    if each.scope != decision.scope or (each.policy != decision.policy and not decision.is_unlock)
                ]  # fmt: skip
            elif decision.is_withdrawal:
                same = (decision.policy, decision.scope)
                self._locks = [it for it in self._locks if not it.is_on_suspicion or (it.policy, it.scope) != same]
            elif decision.lock is not None and decision.mode == "enforce":
                order = decision.lock
                lock = _Lock(decision.policy, order.scope, order.mode, order.until, decision.is_suspicion)
                self._locks.append(lock)
        self._locks = [each for each in self._locks if each.until is None or each.until > now]

    def mode(self, scope: str, snapshot: Snapshot) -> str:
        """The mode of the strictest lock that reaches the scope: `reduce_only`, `all` or `none`."""
        reached = {scope}
        kind, _, name = scope.partition("/")
        if kind == "account":
            reached |= {PORTFOLIO} | {f"venue/{each.venue}" for each in snapshot.accounts if each.account == name}
        modes: list[LockMode] = [
            each.mode
            for each in self._locks
            if each.scope in reached and (each.until is None or each.until > snapshot.as_of)
        ]
        return strictest_mode(modes) if modes else "none"
