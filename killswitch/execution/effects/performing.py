"""Performers of effects: the table without which no runner starts, and what effects write to the journal.

Orders, cancels and locks are performed by components with records of their own. Any other effect is performed once for
each decision, by a `OncePerDecision`: an entry `planned` is committed with the decision, an entry `finished` ends it,
and both name the kind of effect. Neither names an account: entries with an account belong to closes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar

from msgspec import Struct

from killswitch.journal.codec import decode_all, encode
from killswitch.journal.entries import Finished, PlannedWork
from killswitch.model.alert import NO_ALERTS, Alerts, alert_if, together
from killswitch.model.clock import Clock
from killswitch.model.decision import Decision
from killswitch.model.effects import EFFECTS, kind_of, of_kind, tag_of
from killswitch.model.legible import legible
from killswitch.model.registry import require_same_keys
from killswitch.model.snapshot import Snapshot
from killswitch.model.store import EffectStore, JournalEntry, StoreTroubleError
from killswitch.model.venue import Transfers

SEARCHED_DECISIONS = 10_000
"""Number of decisions that a start searches for planned effects that are not finished."""


class RunEnd(Struct, frozen=True):
    """The end of a run: what ended it, the reason for people, and the exit code of its process."""

    cause: Literal["stop", "ticks", "effect"]
    reason: str
    exit_code: int = 0


class PerformerContext(Struct, frozen=True):
    """What the performer of an effect may need of its run. The functions return the state at the time of the call."""

    store: EffectStore
    clock: Clock
    acts_on: Callable[[Decision], bool]
    """Whether this run acts on the decision: its policy enforces, and an account of its scope is armed."""
    open_closes: Callable[[], tuple[str, ...]]
    """A phrase for each close of the run that has not ended, of whatever policy, and for each close that waits for
    accounts that cannot be read; empty if there is none. Complete after orders and cancels were performed."""
    is_run: bool = True
    """False in a command that ticks once itself because no runner is alive: there is no run to end."""
    transfers: Mapping[str, Transfers] = {}
    """The armed accounts whose adapters move money to other accounts of their venue."""


class Performer:
    """Performs the effects of one kind, or of several. Methods that are not overridden do nothing."""

    @property
    def run_end(self) -> RunEnd | None:
        """How the run is to end after this pass; None: it continues."""
        return None

    @property
    def pending(self) -> tuple[PendingEffect, ...]:
        """The effects that wait for something, for `ksctl status`."""
        return ()

    def planned(self, decision: Decision, snapshot: Snapshot) -> tuple[JournalEntry, ...]:
        """Entries about a decision's effects for the decision's own transaction, so that a crash loses none."""
        return ()

    async def recover(self) -> None:
        """Resume effects that an earlier run left unfinished, before the first tick."""

    async def perform(self, decisions: Sequence[Decision], snapshot: Snapshot) -> Alerts:
        """Perform the effects of these decisions and continue unfinished ones. Called at each pass, even without a
        decision.

        Returns what is wrong after it. Raises only what must end the run.
        """
        return NO_ALERTS

    async def abandon(self) -> None:
        """Cancel what is under way at the end of the run; the journal has what the next one must know."""


class PendingEffect(Struct, frozen=True):
    """An effect that is not performed yet, in the words of its kind, and what it waits for."""

    decision: str
    policy: str
    scope: str
    text: str
    waits_for: str


class EffectPerformers:
    """The performers of all kinds of effect, in the order of their ranks."""

    def __init__(self, performers: Mapping[type[Any], Performer]) -> None:
        """RegistryError unless each kind of effect has a performer, and each performer a kind."""
        require_same_keys(
            "the table of performers", [tag_of(effect) for effect in performers],
            "EFFECTS", [kind.key for kind in EFFECTS],
        )  # fmt: skip
        ranked = sorted(performers, key=lambda effect: kind_of(effect).rank)
        self._performers = tuple(dict.fromkeys(performers[effect] for effect in ranked))

    @property
    def run_end(self) -> RunEnd | None:
        """How the effects that were performed end the run; None: it continues. The first by rank decides."""
        return next((end for performer in self._performers if (end := performer.run_end) is not None), None)

    @property
    def pending(self) -> tuple[PendingEffect, ...]:
        """The effects that wait for something."""
        return tuple(each for performer in self._performers for each in performer.pending)

    def planned(self, decision: Decision, snapshot: Snapshot) -> tuple[JournalEntry, ...]:
        """The entries about the decision's effects for its own transaction."""
        return tuple(entry for performer in self._performers for entry in performer.planned(decision, snapshot))

    async def recover(self) -> None:
        """Recover every performer, one after the other, before the first tick."""
        for performer in self._performers:
            await performer.recover()

    async def perform(self, decisions: Sequence[Decision], snapshot: Snapshot) -> Alerts:
        """Run one pass of every performer, one after the other; returns what is wrong after it."""
        return together([await performer.perform(decisions, snapshot) for performer in self._performers])

    async def abandon(self) -> None:
        """Cancel what is under way at the end of the run."""
        for performer in self._performers:
            await performer.abandon()


class Performed(Struct, frozen=True):
    """An effect has ended: the status that its entry `finished` has, and how the run ends once that entry is durable.

    `run_end` is None for a run that continues.
    """

    status: str
    run_end: RunEnd | None = None


class Waiting(Struct, frozen=True):
    """An effect cannot be performed yet; the next pass tries again. `reason` is what it waits for."""

    reason: str


E = TypeVar("E", bound=Struct)


class OncePerDecision(Performer, ABC, Generic[E]):
    """Performs an effect once for each decision that has it, across restarts.

    `attempt` is called at every pass until it returns that the effect has ended, which is journaled before anything
    follows from it. A run that does not act on the decision leaves the effect to one that does.
    """

    status_after_reset: ClassVar[str | None] = None
    """The status of an effect whose stage is reset before it was performed; None: it is performed nevertheless."""

    def __init__(self, effect: type[E], context: PerformerContext) -> None:
        self._effect = effect
        self._key = tag_of(effect)
        self._context = context
        self._open: dict[str, tuple[Decision, E]] = {}
        self._waiting: dict[str, str] = {}
        self._run_end: RunEnd | None = None
        self.recovered: frozenset[str] = frozenset()
        """Ids of the decisions of earlier runs whose effect is left to this one."""

    @abstractmethod
    async def attempt(self, decision: Decision, effect: E) -> Performed | Waiting:
        """Perform the effect, or return what it waits for. An exception is a problem of the run, and tried again."""

    def recall(self, decision: Decision, status: str | None) -> None:
        """Called at the start for each earlier decision with this effect, the oldest first, and for every reset.

        `status`: how the effect has ended; None if it has not, or was not acted on.
        """

    @property
    def run_end(self) -> RunEnd | None:
        return self._run_end

    @property
    def pending(self) -> tuple[PendingEffect, ...]:
        return tuple(
            PendingEffect(id_, decision.policy, decision.scope, kind_of(self._effect).text(effect), self._waiting[id_])
            for id_, (decision, effect) in self._open.items()
            if id_ in self._waiting
        )

    def planned(self, decision: Decision, snapshot: Snapshot) -> tuple[JournalEntry, ...]:
        if of_kind(decision.effects, self._effect) is None:
            return ()
        return (encode(PlannedWork(decision.id, decision.as_of, effect=self._key)),)

    async def recover(self) -> None:
        for stored in reversed(self._context.store.decisions(SEARCHED_DECISIONS)):
            decision = stored.decision
            effect = of_kind(decision.effects, self._effect)
            if effect is not None:
                is_planned, status = self._journaled(decision.id)
                if is_planned and status is None:
                    self._open[decision.id] = (decision, effect)
                self.recall(decision, status)
            elif decision.kind == "reset":
                self.recall(decision, None)
        self.recovered = frozenset(self._open)

    async def perform(self, decisions: Sequence[Decision], snapshot: Snapshot) -> Alerts:
        for decided in decisions:
            if decided.kind == "reset":
                self._end_by(decided)
                self.recall(decided, None)
            elif (wanted := of_kind(decided.effects, self._effect)) is not None:
                self._open[decided.id] = (decided, wanted)
        alerts = NO_ALERTS
        for decision, effect in tuple(self._open.values()):
            try:
                result = await self._attempt(decision, effect)
            except StoreTroubleError:
                raise
            except Exception as error:  # noqa: BLE001 - a failing effect must not keep positions open
                why = legible(str(error) or type(error).__name__)
                text = f"{self._key} of decision {decision.id} failed and is retried: {why}"
                alerts += alert_if(f"effect/{self._key}/{decision.id}", text)
                self._waiting[decision.id] = f"the next attempt: {why}"
                continue
            if isinstance(result, Waiting):
                self._waiting[decision.id] = result.reason
                continue
            self._finish(decision, result.status)
            self._run_end = self._run_end or result.run_end
        return alerts

    async def _attempt(self, decision: Decision, effect: E) -> Performed | Waiting:
        if not self._context.acts_on(decision):
            return Waiting("a run that acts on its policy and scope: this one only observes them")
        return await self.attempt(decision, effect)

    def _end_by(self, reset: Decision) -> None:
        """End the open effects of the stage that is reset, if their kind says so."""
        for decision, _ in tuple(self._open.values()):
            same = (decision.policy, decision.scope) == (reset.policy, reset.scope)
            if same and self.status_after_reset is not None:
                self._finish(decision, self.status_after_reset)

    def _finish(self, decision: Decision, status: str) -> None:
        """Journal the end of the decision's effect; it is never attempted again."""
        entry = Finished(decision.id, self._context.clock.now(), effect=self._key, status=status)
        self._context.store.append(encode(entry))
        del self._open[decision.id]
        self._waiting.pop(decision.id, None)

    def _journaled(self, decision: str) -> tuple[bool, str | None]:
        """Whether the effect was planned, and the status with which it has ended."""
        entries = decode_all(self._context.store.journal(decision))
        mine = [it for it in entries if isinstance(it, PlannedWork | Finished) and it.effect == self._key]
        ends = [it.status or "ended" for it in mine if isinstance(it, Finished)]
        return any(isinstance(it, PlannedWork) for it in mine), (ends[-1] if ends else None)
