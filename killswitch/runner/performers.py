"""The performers of effects, what they may need of a run, and the adapter capabilities that effects require."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from killswitch.accounts.arming import ArmedAccount, Arming, is_acted_on, scopes_over
from killswitch.accounts.plug_ins import AdapterError
from killswitch.execution.effects.performing import EffectPerformers, Performer, PerformerContext
from killswitch.execution.effects.process_exit import ProcessExitPerformer
from killswitch.execution.effects.transfer import TransferPerformer
from killswitch.execution.state.intents import planned_entries
from killswitch.graph.actions.kind import of_node
from killswitch.graph.actions.registry import action_kind
from killswitch.graph.actions.top_up_margin import TopUpMargin
from killswitch.graph.nodes import PolicySet
from killswitch.model.alert import NO_ALERTS, Alerts
from killswitch.model.decision import Decision
from killswitch.model.effects import Cancels, Lock, Orders, ProcessExit, Transfer, kind_named
from killswitch.model.snapshot import Snapshot, WrittenLock
from killswitch.model.store import JournalEntry
from killswitch.planning.interpreter import Interpreter
from killswitch.runner.closing_workers import ClosingWorkers
from killswitch.runner.fault_isolation import FaultIsolation
from killswitch.runner.locks.broker_suspension import BrokerSuspension
from killswitch.runner.locks.lock_writer import LockWriter


def performers(locks: Performer, closing: Performer, context: PerformerContext) -> dict[type[Any], Performer]:
    """The performer of each kind of effect; `EffectPerformers` checks that every kind has one.

    `locks` and `closing` perform locks, and orders and cancels; all others need only the `context`.
    """
    return {
        Lock: locks,
        Cancels: closing,
        Orders: closing,
        ProcessExit: ProcessExitPerformer(context),
        Transfer: TransferPerformer(context),
    }


class OpenCloses:
    """The closes of a run that have not ended: a phrase for each, for `PerformerContext.open_closes`."""

    def __init__(
        self, closings: ClosingWorkers, suspension: BrokerSuspension, interpreter: Interpreter, arming: Arming
    ) -> None:
        self.closings = closings
        self.suspension = suspension
        self.interpreter = interpreter
        self.arming = arming

    def __call__(self) -> tuple[str, ...]:
        return (
            *(f"the close on account {name}" for name in sorted(self.closings.busy)),
            *(f"the request to the broker of account {name}" for name in self.suspension.busy),
            *self._of_stages(),
            *self._of_commands(),
        )

    def _of_stages(self) -> Iterator[str]:
        """Stages that fired while accounts could not be read, and close those later; only armed accounts count."""
        for graph, scope, waiting in self.interpreter.pending_closes():
            armed = self.arming.reached_by(graph.policy, scope)
            names = armed & frozenset(waiting.accounts) if waiting.accounts else armed
            if graph.mode == "enforce" and names:
                yield (
                    f"the close of stage {waiting.stage} of {graph.policy} on {' and '.join(sorted(names))}, which "
                    "cannot be read"
                )

    def _of_commands(self) -> Iterator[str]:
        """Operator closes that are not complete."""
        for event, close in self.interpreter.unfinished_closes().items():
            if names := self.arming.names & close.accounts:
                yield f"the operator's close {event} on {' and '.join(sorted(names))}, which cannot be read"
            if names := self.arming.names & close.unseen:
                yield f"the operator's close {event} on {' and '.join(sorted(names))}, until it is seen closed"


class ClosingPerformer(Performer):
    """Passes orders and cancels to the account executors, which continue between ticks, and manages suspensions."""

    def __init__(
        self,
        closings: ClosingWorkers,
        suspension: BrokerSuspension,
        lock_writer: LockWriter | None,
        isolation: FaultIsolation,
        armed: frozenset[str],
        timeout: float,
    ) -> None:
        self.closings = closings
        self.suspension = suspension
        self.lock_writer = lock_writer
        self.isolation = isolation
        self.armed = armed
        self.timeout = timeout
        """Real seconds for which a start waits for the recovery of closings."""

    def planned(self, decision: Decision, snapshot: Snapshot) -> tuple[JournalEntry, ...]:
        return planned_entries(decision, snapshot=snapshot, accounts=self.armed)

    async def recover(self) -> None:
        self.closings.delay_until(self.isolation.call("suspensions at brokers", self.suspension.start, {}))
        await self.closings.recover(self.timeout)

    async def perform(self, decisions: Sequence[Decision], snapshot: Snapshot) -> Alerts:
        concerned = self.closings.accounts_of(decisions)
        lifts = self.isolation.call("letting orders through at brokers", lambda: self.suspension.lift(concerned), {})
        self.closings.delay_until(lifts)
        self.closings.adopt(decisions)
        return self.isolation.call("suspensions at brokers", self._suspend, Alerts(unknown=("broker",)))

    def _suspend(self) -> Alerts:
        locked = frozenset() if self.lock_writer is None else self.lock_writer.fully_locked()
        self.suspension.settle(locked, self.closings.busy)
        return self.suspension.alerts


class Effects:
    """Performs decisions: locks first, then the account executors, then all else by the effects' ranks."""

    def __init__(
        self, performing: EffectPerformers, arming: Arming, lock_writer: LockWriter | None, suspension: BrokerSuspension
    ) -> None:
        self.performing = performing
        self.arming = arming
        self.lock_writer = lock_writer
        """None if no account is armed."""
        self.suspension = suspension

    def acted_on(self, decisions: Iterable[Decision]) -> tuple[Decision, ...]:
        """The decisions that are acted on; the others are only recorded."""
        return tuple(decision for decision in decisions if is_acted_on(decision, self.arming))

    @property
    def lock_alerts(self) -> Alerts:
        """An alert for each problem with the locks."""
        return NO_ALERTS if self.lock_writer is None else self.lock_writer.alerts

    @property
    def written_locks(self) -> tuple[WrittenLock, ...]:
        """The locks in force that are in their files."""
        return () if self.lock_writer is None else self.lock_writer.written

    def hold_files_back(self) -> None:
        """Keep no lock file open before the first tick: a command that locks waits for it."""
        if self.lock_writer is not None:
            self.lock_writer.renews_at_start = False

    async def finish(self, within: float) -> None:
        """Stop cleanly, in at most `within` seconds."""
        if self.lock_writer is not None:
            await self.lock_writer.finish(within)

    async def abandon(self) -> None:
        """Cancel requests under way, and end the threads."""
        await self.suspension.abandon()
        await self.performing.abandon()
        if self.lock_writer is not None:
            self.lock_writer.close()


class CapabilityError(AdapterError):
    """An adapter lacks a capability that an effect requires; the message has the place, the cause and the way out."""


def require_capabilities(policies: PolicySet, accounts: Mapping[str, ArmedAccount]) -> None:
    """CapabilityError if a stage that enforces has an effect that an armed account of its scope cannot perform."""
    armed = {name: account for name, account in accounts.items() if account.armed}
    found = [
        f"{stage.place.file}:{stage.place.line}: `{action_kind(action).key}` of stage {stage.name} cannot be performed "
        f"on account {name}: the adapter of venue {armed[name].venue} does not offer `{needs}`; take the account "
        "out of the scope, or the action out of the stage"
        for graph in policies.graphs
        if graph.mode == "enforce"
        for stage in graph.stages
        for action in stage.actions
        for effect in action_kind(action).effects
        if (needs := kind_named(effect).needs) is not None
        for names in scopes_over(graph.scope, armed.values()).values()
        for name in names
        if getattr(armed[name].adapter, needs) is None
    ]
    found += _without_transfers(policies, armed)
    if found:
        raise CapabilityError("; ".join(dict.fromkeys(found)))


def _without_transfers(policies: PolicySet, armed: Mapping[str, ArmedAccount]) -> list[str]:
    """What is wrong with the sources of the `top_up_margin` of stages that enforce, one text for each account."""
    return [
        f"{stage.place.file}:{stage.place.line}: `top_up_margin` of stage {stage.name} cannot be performed on account "
        f"{name}: {why}; name another source, or take the action out of the stage"
        for graph in policies.graphs
        if graph.mode == "enforce"
        for stage in graph.stages
        for action in of_node(stage.actions, TopUpMargin)
        for names in scopes_over(graph.scope, armed.values()).values()
        for name in names
        if (why := _why_not_from(action.source, armed[name], armed)) is not None
    ]


def _why_not_from(source: str, account: ArmedAccount, armed: Mapping[str, ArmedAccount]) -> str | None:
    """Why the source cannot give margin to the account, or None. That the account offers nothing is reported before."""
    if source not in armed:
        return f"its source {source} is not armed"
    ways = armed[source].adapter.transfers, account.adapter.transfers
    if ways[0] is None:
        return f"the adapter of its source {source} does not offer `transfers`"
    if ways[1] is not None and ways[0].place != ways[1].place:
        return f"its source {source} is at another place of {armed[source].venue}, and nothing moves money between them"
    return None
