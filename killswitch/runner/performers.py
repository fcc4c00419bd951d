"""Which part of the runner performs which kind of effect, and what accounts must be able to do for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from killswitch.accounts.arming import ArmedAccount, Arming, is_acted_on
from killswitch.accounts.plug_ins import AdapterError
from killswitch.execution.effects.performing import Performer, Performing
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


def performers(
    locking: LockWriter | None,
    closings: Closings,
    suspending: Suspending,
    beside: Beside,
    armed: frozenset[str],
    store: Store,
    clock: Clock,
) -> dict[type[Any], Performer]:
    """The performer of each kind of effect; `Performing` holds the table to the kinds that there are.

    `locking`: None where nothing is armed. `armed`: accounts that may be acted on. `store` and `clock`: what a
    `OncePerDecision` is made with.
    """
    closing = ClosingPerformer(closings, suspending, beside, armed)
    return {Lock: LockPerformer(locking, beside), Cancels: closing, Orders: closing}


class LockPerformer(Performer):
    """Writes and lifts locks. A lock folder that hangs is not waited for: what is written there is written beside."""

    def __init__(self, locking: LockWriter | None, beside: Beside) -> None:
        self._locking = locking
        self._beside = beside

    def planned(self, decision: Decision, snapshot: Snapshot) -> tuple[JournalEntry, ...]:
        return () if self._locking is None else self._locking.planned(decision)

    async def perform(self, decisions: Sequence[Decision], snapshot: Snapshot) -> tuple[str, ...]:
        if (locking := self._locking) is None:
            return ()
        return await self._beside.wait("the locks", lambda: locking.act(decisions, snapshot.events), ())


class ClosingPerformer(Performer):
    """Hands orders and cancels to the accounts' executors, which go on between ticks."""

    def __init__(self, closings: Closings, suspending: Suspending, beside: Beside, armed: frozenset[str]) -> None:
        self._closings = closings
        self._suspending = suspending
        self._beside = beside
        self._armed = armed

    def planned(self, decision: Decision, snapshot: Snapshot) -> tuple[JournalEntry, ...]:
        return planned_entries(decision, snapshot=snapshot, accounts=self._armed)

    async def perform(self, decisions: Sequence[Decision], snapshot: Snapshot) -> tuple[str, ...]:
        concerned = self._closings.concerned(decisions)
        ways = self._beside.call("letting orders through at brokers", lambda: self._suspending.make_way(concerned), {})
        self._closings.hold(ways)
        self._closings.adopt(decisions)
        return ()


class Effects:
    """Carries out decisions: locks first, then the closers of the accounts, then all else by the effects' ranks."""

    def __init__(
        self,
        performing: Performing,
        arming: Arming,
        closings: Closings,
        locking: LockWriter | None,
        suspending: Suspending,
        beside: Beside,
    ) -> None:
        """`locking`: None where nothing is armed."""
        self._performing = performing
        self._arming = arming
        self._closings = closings
        self._locking = locking
        self._suspending = suspending
        self._beside = beside

    @property
    def end_run(self) -> bool:
        """Whether an effect that was performed ends the run."""
        return self._performing.ends_run

    async def recover(self, patience: float) -> tuple[str, ...]:
        """Take up what an earlier run left: locks first, then suspensions, closings, and all other effects.

        `patience`: real seconds for which closings are waited for. What is wrong with the locks, in words.
        """
        problems: tuple[str, ...] = ()
        if self._locking is not None:
            problems = await self._beside.wait("the locks", self._locking.recover, ())
        self._closings.hold(self._beside.call("suspensions at brokers", self._suspending.start, {}))
        await self._closings.recover(patience)
        await self._performing.recover()
        return problems

    def acted_on(self, decisions: Iterable[Decision]) -> tuple[Decision, ...]:
        """Those of `decisions` that something is done about; the others are recorded only."""
        return tuple(decision for decision in decisions if is_acted_on(decision, self._arming))

    def planned(self, decision: Decision, snapshot: Snapshot) -> tuple[JournalEntry, ...]:
        """What the decision's own transaction says of its effects."""
        return self._performing.planned(decision, snapshot)

    async def perform(self, decisions: Sequence[Decision], snapshot: Snapshot) -> tuple[str, ...]:
        """One pass of every performer, and of the suspensions at brokers. What is wrong, in words."""
        problems = await self._performing.perform(decisions, snapshot)
        return problems + self._beside.call("suspensions at brokers", self._suspend, ())

    def _suspend(self) -> tuple[str, ...]:
        locked = frozenset() if self._locking is None else self._locking.locked_whole()
        self._suspending.settle(locked, self._closings.busy)
        return self._suspending.problems

    @property
    def suspended(self) -> tuple[str, ...]:
        """Accounts whose broker refuses every new order because this run asked for it."""
        return self._suspending.suspended

    @property
    def mild(self) -> frozenset[str]:
        """Those of the problems that keep no lock from being written."""
        return frozenset() if self._locking is None else self._locking.mild

    @property
    def subjects(self) -> Mapping[str, str]:
        """What each problem with locks is about, however its words change."""
        return {} if self._locking is None else self._locking.subjects

    async def settle(self, patience: float) -> None:
        """A clean stop: lift what was taken back and is not closed for any more. All other locks go stale in time."""
        if (locking := self._locking) is not None:
            await self._beside.wait("the locks", lambda: locking.settle(patience), ())

    async def abandon(self) -> None:
        """Call off what is under way, and give threads back."""
        await self._suspending.abandon()
        if self._locking is not None:
            self._locking.close()


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
