"""Performers of effects: the table without which no runner starts, and what effects write to the journal.

Orders, cancels and locks are performed by components with records of their own. Any other effect is performed once for
each decision, by a `OncePerDecision`: an entry `planned` is committed with the decision, an entry `finished` ends it,
and both name the kind of effect. Neither names an account: entries with an account belong to closes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from msgspec import Struct

from killswitch.journal.codec import decode_all, encode
from killswitch.journal.entries import Finished, PlannedWork
from killswitch.model.clock import Clock
from killswitch.model.decision import Decision
from killswitch.model.effects import EFFECTS, kind_of, of_kind, tag_of
from killswitch.model.legible import legible
from killswitch.model.record import require_same_keys
from killswitch.model.snapshot import Snapshot
from killswitch.model.store import JournalEntry, Store, StoreTroubleError

SEARCHED_DECISIONS = 10_000
"""Number of decisions that a start searches for planned effects that are not finished."""


class Performer:
    """Performs the effects of one kind, or of several. Methods that are not overridden do nothing."""

    ends_run: bool = False
    """Whether the run is to end after this pass."""

    def planned(self, decision: Decision, snapshot: Snapshot) -> tuple[JournalEntry, ...]:
        """Entries about a decision's effects for the decision's own transaction, so that a crash loses none."""
        return ()

    async def recover(self) -> None:
        """Resume effects that an earlier run left unfinished, before the first tick."""

    async def perform(self, decisions: Sequence[Decision], snapshot: Snapshot) -> tuple[str, ...]:
        """Perform the effects of these decisions and continue unfinished ones. Called at each pass, even without a
        decision.

        Returns the problems; the text of one is unchanged while its cause lasts. Raises only what must end the run.
        """
        return ()


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
    def ends_run(self) -> bool:
        """Whether an effect that was performed ends the run."""
        return any(performer.ends_run for performer in self._performers)

    def planned(self, decision: Decision, snapshot: Snapshot) -> tuple[JournalEntry, ...]:
        """The entries about the decision's effects for its own transaction."""
        return tuple(entry for performer in self._performers for entry in performer.planned(decision, snapshot))

    async def recover(self) -> None:
        """Recover every performer, one after the other, before the first tick."""
        for performer in self._performers:
            await performer.recover()

    async def perform(self, decisions: Sequence[Decision], snapshot: Snapshot) -> tuple[str, ...]:
        """Run one pass of every performer, one after the other; returns the problems."""
        problems: tuple[str, ...] = ()
        for performer in self._performers:
            problems += await performer.perform(decisions, snapshot)
        return problems


E = TypeVar("E", bound=Struct)


class OncePerDecision(Performer, ABC, Generic[E]):
    """Performs an effect once for each decision that has it, across restarts.

    `attempt` is called at every pass until it returns how the effect has ended. That is journaled before anything
    follows from it: subclasses that override `ends_run` check `self.ended`.
    """

    def __init__(self, effect: type[E], store: Store, clock: Clock) -> None:
        self._effect = effect
        self._key = tag_of(effect)
        self._store = store
        self._clock = clock
        self._open: dict[str, tuple[Decision, E]] = {}
        self.ended: tuple[str, ...] = ()
        """Ids of the decisions whose effect this run has performed."""

    @abstractmethod
    async def attempt(self, decision: Decision, effect: E) -> str | None:
        """Perform the effect; returns the status that `finished` names, or None where it must be tried again."""

    def planned(self, decision: Decision, snapshot: Snapshot) -> tuple[JournalEntry, ...]:
        if of_kind(decision.effects, self._effect) is None:
            return ()
        return (encode(PlannedWork(decision.id, decision.as_of, effect=self._key)),)

    async def recover(self) -> None:
        for stored in reversed(self._store.decisions(SEARCHED_DECISIONS)):
            effect = of_kind(stored.decision.effects, self._effect)
            if effect is not None and self._is_open(stored.decision.id):
                self._open[stored.decision.id] = (stored.decision, effect)

    async def perform(self, decisions: Sequence[Decision], snapshot: Snapshot) -> tuple[str, ...]:
        for decided in decisions:
            if (wanted := of_kind(decided.effects, self._effect)) is not None:
                self._open[decided.id] = (decided, wanted)
        problems: tuple[str, ...] = ()
        for decision, effect in tuple(self._open.values()):
            try:
                status = await self.attempt(decision, effect)
            except StoreTroubleError:
                raise
            except Exception as error:  # noqa: BLE001 - a failing effect must not keep positions open
                why = legible(str(error) or type(error).__name__)
                problems += (f"{self._key} of decision {decision.id} failed and is retried: {why}",)
                continue
            if status is not None:
                self._store.append(encode(Finished(decision.id, self._clock.now(), effect=self._key, status=status)))
                del self._open[decision.id]
                self.ended += (decision.id,)
        return problems

    def _is_open(self, decision: str) -> bool:
        entries = decode_all(self._store.journal(decision))
        found = {type(it) for it in entries if isinstance(it, PlannedWork | Finished) and it.effect == self._key}
        return PlannedWork in found and Finished not in found
