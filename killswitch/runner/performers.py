"""Which part of the runner performs which kind of effect, and what accounts must be able to do for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.plug_ins import AdapterError
from killswitch.execution.effects.performing import Performer
from killswitch.execution.state.intents import planned_entries
from killswitch.graph.actions.registry import kind_of
from killswitch.graph.nodes import PolicySet
from killswitch.model.clock import Clock
from killswitch.model.decision import Decision
from killswitch.model.effects import Cancels, Lock, Orders, kind_named
from killswitch.model.snapshot import Snapshot
from killswitch.model.store import JournalEntry, Store
from killswitch.planning.scopes.compiled_policy import Identity, scopes_of
from killswitch.runner.closing_workers import Closings
from killswitch.runner.fault_isolation import Beside
from killswitch.runner.locks.broker_suspension import Suspending
from killswitch.runner.locks.lock_writer import LockWriter


@dataclass(frozen=True, slots=True)
class RunnerParts:
    """What performers are made of. `locking`: None where nothing is armed; `armed`: accounts that may be acted on."""

    locking: LockWriter | None
    closings: Closings
    suspending: Suspending | None
    beside: Beside
    armed: frozenset[str]
    store: Store
    clock: Clock


def performers(parts: RunnerParts) -> dict[type[Any], Performer]:
    """The performer of each kind of effect; `Performing` holds the table to the kinds that there are."""
    closing = ClosingPerformer(parts)
    return {Lock: LockPerformer(parts), Cancels: closing, Orders: closing}


class LockPerformer(Performer):
    """Writes and lifts locks. A lock folder that hangs is not waited for: what is written there is written beside."""

    def __init__(self, parts: RunnerParts) -> None:
        self._locking = parts.locking
        self._beside = parts.beside

    def planned(self, decision: Decision, snapshot: Snapshot) -> tuple[JournalEntry, ...]:
        return () if self._locking is None else self._locking.planned(decision)

    async def perform(self, decisions: Sequence[Decision], snapshot: Snapshot) -> tuple[str, ...]:
        if (locking := self._locking) is None:
            return ()
        problems: tuple[str, ...] = ()
        return await self._beside.wait("the locks", lambda: locking.act(decisions, snapshot.events), problems)


class ClosingPerformer(Performer):
    """Hands orders and cancels to the accounts' executors, which go on between ticks."""

    def __init__(self, parts: RunnerParts) -> None:
        self._closings = parts.closings
        self._suspending = parts.suspending
        self._beside = parts.beside
        self._armed = parts.armed

    def planned(self, decision: Decision, snapshot: Snapshot) -> tuple[JournalEntry, ...]:
        return planned_entries(decision, snapshot=snapshot, accounts=self._armed)

    async def perform(self, decisions: Sequence[Decision], snapshot: Snapshot) -> tuple[str, ...]:
        if (suspending := self._suspending) is not None:
            concerned = self._closings.concerned(decisions)
            ways = self._beside.call("letting orders through at brokers", lambda: suspending.make_way(concerned), {})
            self._closings.hold(ways)
        self._closings.adopt(decisions)
        return ()


class CapabilityError(AdapterError):
    """An effect asks of a venue what its adapter cannot do; the message has the place, the cause and the way out."""


def require_capabilities(policies: PolicySet, accounts: Mapping[str, ArmedAccount]) -> None:
    """CapabilityError if a stage that enforces has an effect that an armed account of its scope cannot perform."""
    armed = {name: account for name, account in accounts.items() if account.armed}
    identities: list[Identity] = [(it.name, it.venue, it.market, it.currency) for it in armed.values()]
    found = [
        f"{stage.place.file}:{stage.place.line}: `{kind_of(action).key}` of stage {stage.name} cannot be done on "
        f"account {name}: the adapter of venue {armed[name].venue} is no {needs.__name__}; take the account out of the "
        "scope, or the action out of the stage"
        for graph in policies.graphs
        if graph.mode == "enforce"
        for stage in graph.stages
        for action in stage.actions
        for effect in kind_of(action).effects
        if (needs := kind_named(effect).needs) is not None
        for names in scopes_of(graph.scope, identities).values()
        for name in names
        if not isinstance(armed[name].adapter, needs)
    ]
    if found:
        raise CapabilityError("; ".join(dict.fromkeys(found)))
