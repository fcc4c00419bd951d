"""The performers of effects, and the adapter capabilities that effects require."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from killswitch.accounts.arming import ArmedAccount, Arming, is_acted_on, scopes_over
from killswitch.accounts.plug_ins import AdapterError
from killswitch.execution.effects.performing import EffectPerformers, Performer
from killswitch.execution.state.intents import planned_entries
from killswitch.graph.actions.registry import kind_of
from killswitch.graph.nodes import PolicySet
from killswitch.model.clock import Clock
from killswitch.model.decision import Decision
from killswitch.model.effects import Cancels, Lock, Orders, kind_named
from killswitch.model.snapshot import Snapshot
from killswitch.model.store import JournalEntry, Store
from killswitch.runner.closing_workers import ClosingWorkers
from killswitch.runner.fault_isolation import FaultIsolation
from killswitch.runner.locks.broker_suspension import BrokerSuspension
from killswitch.runner.locks.lock_writer import LockWriter


def performers(
    locking: LockWriter | None, closing: ClosingPerformer, store: Store, clock: Clock
) -> dict[type[Any], Performer]:
    """The performer of each kind of effect; `EffectPerformers` checks that the table is complete.

    `locking`: None where no account is armed. `store` and `clock` are the arguments of a `OncePerDecision`.
    """
    return {Lock: locking or Performer(), Cancels: closing, Orders: closing}


@dataclass(eq=False)
class ClosingPerformer(Performer):
    """Passes orders and cancels to the account executors, which continue between ticks, and manages suspensions."""

    closings: ClosingWorkers
    suspending: BrokerSuspension
    locking: LockWriter | None
    beside: FaultIsolation
    armed: frozenset[str]
    patience: float
    """Real seconds for which a start waits for the recovery of closings."""

    def planned(self, decision: Decision, snapshot: Snapshot) -> tuple[JournalEntry, ...]:
        return planned_entries(decision, snapshot=snapshot, accounts=self.armed)

    async def recover(self) -> None:
        self.closings.hold(self.beside.call("suspensions at brokers", self.suspending.start, {}))
        await self.closings.recover(self.patience)

    async def perform(self, decisions: Sequence[Decision], snapshot: Snapshot) -> tuple[str, ...]:
        concerned = self.closings.accounts_of(decisions)
        ways = self.beside.call("letting orders through at brokers", lambda: self.suspending.lift(concerned), {})
        self.closings.hold(ways)
        self.closings.adopt(decisions)
        return self.beside.call("suspensions at brokers", self._suspend, ())

    def _suspend(self) -> tuple[str, ...]:
        locked = frozenset() if self.locking is None else self.locking.locked_whole()
        self.suspending.settle(locked, self.closings.busy)
        return self.suspending.problems


@dataclass(eq=False)
class Effects:
    """Carries out decisions: locks first, then the closers of the accounts, then all else by the effects' ranks."""

    performing: EffectPerformers
    arming: Arming
    locking: LockWriter | None
    """None where nothing is armed."""
    suspending: BrokerSuspension

    def acted_on(self, decisions: Iterable[Decision]) -> tuple[Decision, ...]:
        """The decisions that are acted on; the others are only recorded."""
        return tuple(decision for decision in decisions if is_acted_on(decision, self.arming))

    @property
    def problems(self) -> tuple[str, ...]:
        """One message for each problem with the locks."""
        return () if self.locking is None else self.locking.problems

    @property
    def mild(self) -> frozenset[str]:
        """The problems that prevent no lock from being written."""
        return frozenset() if self.locking is None else self.locking.mild

    @property
    def subjects(self) -> Mapping[str, str]:
        """Message → subject of each problem with the locks."""
        return {} if self.locking is None else self.locking.subjects

    async def finish(self, patience: float) -> None:
        """A clean stop, in at most `patience` seconds."""
        if self.locking is not None:
            await self.locking.finish(patience)

    async def abandon(self) -> None:
        """Cancel what is under way, and end the threads."""
        await self.suspending.abandon()
        if self.locking is not None:
            self.locking.close()


class CapabilityError(AdapterError):
    """An adapter lacks a capability that an effect requires; the message has the place, the cause and the way out."""


def require_capabilities(policies: PolicySet, accounts: Mapping[str, ArmedAccount]) -> None:
    """CapabilityError if a stage that enforces has an effect that an armed account of its scope cannot perform."""
    armed = {name: account for name, account in accounts.items() if account.armed}
    found = [
        f"{stage.place.file}:{stage.place.line}: `{kind_of(action).key}` of stage {stage.name} cannot be performed on "
        f"account {name}: the adapter of venue {armed[name].venue} is no {needs.__name__}; take the account out of the "
        "scope, or the action out of the stage"
        for graph in policies.graphs
        if graph.mode == "enforce"
        for stage in graph.stages
        for action in stage.actions
        for effect in kind_of(action).effects
        if (needs := kind_named(effect).needs) is not None
        for names in scopes_over(graph.scope, armed.values()).values()
        for name in names
        if not isinstance(armed[name].adapter, needs)
    ]
    if found:
        raise CapabilityError("; ".join(dict.fromkeys(found)))
