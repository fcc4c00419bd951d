"""Which locks the decisions call for, and the lock folder brought to say so.

A scope may be locked by several policies at once. A reset takes back the lock of its own policy only; the scope's
file is lifted when no policy wants it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol

from killswitch.gate.errors import LockError, StaleGenerationError
from killswitch.model.decision import Decision, LockOrder
from killswitch.model.instant import rfc3339
from killswitch.model.store import JournalEntry, JournalKind, Store
from killswitch.runner.accounts import Arming
from killswitch.runner.acting import REMEMBERED


class LockKeeper(Protocol):
    """The part of the gate's lock folder that the runner uses."""

    def write(
        self, order: LockOrder, stage: str | None, reason: str | None, decision: str, now: datetime
    ) -> object: ...

    def holds(self, order: LockOrder, now: datetime) -> bool: ...

    def lift(self, scope: str, now: datetime) -> object: ...

    def watch(self, scope: str, now: datetime) -> object: ...

    def renew(self, now: datetime) -> object: ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """One policy's lock on one scope, and the decision that called for it."""

    order: LockOrder
    stage: str | None
    reason: str
    decision: str

    def in_force(self, now: datetime) -> bool:
        return self.order.until is None or self.order.until > now


class Locking:
    """Keeps the lock folder at what the acted-on decisions call for.

    A folder that cannot be written is told in words and tried again at the next call: it must not keep positions
    from being closed. Only StaleGenerationError is raised: a newer runner writes there, so this one must not.
    """

    def __init__(self, keeper: LockKeeper, store: Store, arming: Arming) -> None:
        self._keeper = keeper
        self._store = store
        self._wanted: dict[tuple[str, str], Wanted] = {}
        self._unwritten: dict[tuple[str, str], Wanted] = {}
        self._to_lift: set[str] = set()
        self._to_watch = {f"account/{name}" for name in arming.names}

    def planned(self, decision: Decision) -> tuple[JournalEntry, ...]:
        """What the decision's own transaction says of its lock, so that a crash before writing loses nothing."""
        order = decision.lock
        if order is None:
            return ()
        until = None if order.until is None else rfc3339(order.until)
        data = {"lock": order.mode, "scope": order.scope, "until": until}
        return (JournalEntry(decision.id, "planned", decision.as_of, data=data),)

    def recover(self, now: datetime) -> tuple[str, ...]:
        """Before the first tick: write what was called for and still holds, lift what was taken back since."""
        unfinished = {stored.decision.id for stored in self._store.unfinished()}
        for stored in reversed(self._store.decisions(REMEMBERED)):
            decision = stored.decision
            if decision.kind == "reset":
                if self._wanted.pop((decision.scope, decision.policy), None) is not None:
                    self._to_lift.add(decision.scope)
            elif decision.lock is not None and self._was_ordered(decision.id):
                wanted = _wanted(decision, decision.lock)
                self._wanted[decision.lock.scope, decision.policy] = wanted
                if decision.id in unfinished and not wanted.in_force(now):
                    self._journal(wanted, "finished", now, "the lock ran out before it was written")
        self._forget_expired(now)
        self._unwritten.update(self._wanted)
        return self.settle(now)

    def act(self, decisions: Iterable[Decision], now: datetime) -> tuple[str, ...]:
        """Write the locks of decisions to act on, and take back those of resets; what went wrong, in words."""
        for decision in decisions:
            if decision.kind == "reset":
                self._take_back(decision)
            elif decision.lock is not None:
                key = (decision.lock.scope, decision.policy)
                self._wanted[key] = self._unwritten[key] = _wanted(decision, decision.lock)
        return self.settle(now)

    def settle(self, now: datetime) -> tuple[str, ...]:
        """Write, lift and renew what is due; what fails is due again at the next call.

        What the files say is looked at each time: one that was deleted or weakened by others is written again
        before the union is made of them.
        """
        problems: list[str] = []
        self._forget_expired(now)
        self._unwritten |= {key: each for key, each in self._wanted.items() if not self._keeper.holds(each.order, now)}
        for key, wanted in tuple(self._unwritten.items()):
            if _tried(partial(self._write, wanted, now), f"writing the lock of {key[0]}", problems):
                del self._unwritten[key]
        locked = {scope for scope, _ in self._wanted}
        for scope in sorted(self._to_lift - locked):
            if _tried(partial(self._keeper.lift, scope, now), f"lifting the lock of {scope}", problems):
                self._to_lift.discard(scope)
        for scope in sorted(self._to_watch):
            _tried(partial(self._keeper.watch, scope, now), f"opening the lock file of {scope}", problems)
        _tried(partial(self._keeper.renew, now), "renewing the locks", problems)
        return tuple(problems)

    def _take_back(self, reset: Decision) -> None:
        self._wanted.pop((reset.scope, reset.policy), None)
        self._unwritten.pop((reset.scope, reset.policy), None)
        self._to_lift.add(reset.scope)

    def _write(self, wanted: Wanted, now: datetime) -> None:
        self._keeper.write(wanted.order, wanted.stage, wanted.reason, wanted.decision, now)
        if any(entry.kind == "locked" for entry in self._store.journal(wanted.decision)):
            return
        self._journal(wanted, "locked", now, wanted.order.mode)
        self._journal(wanted, "finished", now, "locked")

    def _journal(self, wanted: Wanted, kind: JournalKind, now: datetime, status: str) -> None:
        data: dict[str, str | None] = {"scope": wanted.order.scope, "status": status}
        self._store.append(JournalEntry(wanted.decision, kind, now, data=data))

    def _was_ordered(self, decision: str) -> bool:
        """Whether the decision was acted on: one that was only observed has no planned lock."""
        return any(entry.kind == "planned" and "lock" in entry.data for entry in self._store.journal(decision))

    def _forget_expired(self, now: datetime) -> None:
        """The folder ends its locks by itself; here they only stop being wanted."""
        self._wanted = {key: wanted for key, wanted in self._wanted.items() if wanted.in_force(now)}
        self._unwritten = {key: wanted for key, wanted in self._unwritten.items() if wanted.in_force(now)}


def _wanted(decision: Decision, order: LockOrder) -> Wanted:
    triggers = ", ".join(trigger.name for trigger in decision.triggers)
    reason = decision.reason or (f"{decision.policy}: {triggers}" if triggers else decision.policy)
    return Wanted(order, decision.stage, reason, decision.id)


def _tried(step: Callable[[], object], what: str, problems: list[str]) -> bool:
    try:
        step()
    except StaleGenerationError:
        raise
    except LockError as error:
        problems.append(f"{what} failed and will be tried again: {error}")
        return False
    return True
