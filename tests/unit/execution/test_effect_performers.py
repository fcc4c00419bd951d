"""Performing effects: a complete table, by rank, and once for each decision whatever restarts there are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from killswitch.execution.effects.performing import EffectPerformers, OncePerDecision, Performer
from killswitch.lab.rehearsal import VirtualClock
from killswitch.model.decision import Decision
from killswitch.model.effects import EFFECTS, Cancels, Lock, LockOrder, Orders
from killswitch.model.record import RegistryError
from killswitch.model.snapshot import Snapshot
from killswitch.model.store import JournalEntry, TickRecord
from killswitch.runner.performers import performers
from killswitch.store.errors import StoreError
from killswitch.store.sql import SqlStore
from tests.worlds import START

SNAPSHOT = Snapshot(START, (), "killswitch.snapshot/v1")
LOCKS = Decision(
    "d1", START, "p", "sha256:0", "account/main", "enforce", "s", 1, 0, lock=LockOrder("account/main", "all", None)
)


IDLE: dict[type, Performer] = {kind.effect: Performer() for kind in EFFECTS}
"""A performer of each kind that does nothing."""


class Twin(Orders, frozen=True, tag="orders", tag_field="kind"):
    """A class with the tag of another."""


class RecordingPerformer(Performer):
    """Records when it is called."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self._name, self._calls = name, calls

    async def perform(self, decisions: Sequence[Decision], snapshot: Snapshot) -> tuple[str, ...]:
        self._calls.append(self._name)
        return (f"{self._name} is slow",)


def test_each_performer_runs_once_by_rank() -> None:
    """The lock before cancels and orders, whatever the order of the table; the result has the problems of all."""
    calls: list[str] = []
    closing = RecordingPerformer("closing", calls)
    table = EffectPerformers({**IDLE, Orders: closing, Cancels: closing, Lock: RecordingPerformer("lock", calls)})
    assert asyncio.run(table.perform((), SNAPSHOT)) == ("lock is slow", "closing is slow")
    assert calls == ["lock", "closing"]


def test_a_table_with_a_missing_or_repeated_kind_is_refused() -> None:
    """Before anything is performed, with the kind's name."""
    with pytest.raises(RegistryError, match=r"^`lock` is in EFFECTS, and the table of performers lacks it$"):
        EffectPerformers({effect: performer for effect, performer in IDLE.items() if effect is not Lock})
    with pytest.raises(RegistryError, match=r"^`orders` is in the table of performers twice$"):
        EffectPerformers(IDLE | {Twin: Performer()})


class Once(OncePerDecision[Lock]):
    """Performs a lock as if it were a kind of its own: `answers` are what each attempt comes to."""

    def __init__(self, store: SqlStore, *answers: str | Exception | None) -> None:
        super().__init__(Lock, store, VirtualClock(START))
        self._answers = list(answers)
        self.attempts = 0

    @property
    def ends_run(self) -> bool:  # type: ignore[override]  # asked anew each time
        return bool(self.ended)

    async def attempt(self, decision: Decision, effect: Lock) -> str | None:
        self.attempts += 1
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def commit_decision(store: SqlStore, journal: tuple[JournalEntry, ...], decision: Decision = LOCKS) -> None:
    """The tick that stores the decision with its planned entries."""
    store.commit_tick(TickRecord(START, "sha256:0", (), (), (decision,), (), journal, None, (), 0))


def test_an_effect_is_retried_until_it_is_performed_once(store: SqlStore) -> None:
    """An unfinished or failed effect is tried at the next pass; its end is journaled with its kind."""
    once = Once(store, None, RuntimeError("no answer"), "done")
    planned = once.planned(LOCKS, SNAPSHOT)
    assert planned == (JournalEntry("d1", "planned", START, data={"effect": "lock"}),)
    commit_decision(store, planned)
    failed = "lock of decision d1 failed and is retried: no answer"
    reported = [asyncio.run(once.perform(each, SNAPSHOT)) for each in ((LOCKS,), (), (), ())]
    assert reported == [(), (failed,), (), ()]
    assert (once.attempts, once.ended, once.ends_run) == (3, ("d1",), True)
    assert [(each.kind, each.data.get("status")) for each in store.journal("d1")] == [
        ("planned", None), ("finished", "done"),
    ]  # fmt: skip


def test_a_store_error_ends_the_pass(store: SqlStore) -> None:
    """Nothing is performed without a record: a store error is not an error of the effect."""
    with pytest.raises(StoreError):
        asyncio.run(Once(store, StoreError("the disk is full")).perform((LOCKS,), SNAPSHOT))


@pytest.mark.parametrize(("finished", "attempts"), [(False, 1), (True, 0)])
def test_after_a_restart_only_unfinished_effects_are_performed(store: SqlStore, finished: bool, attempts: int) -> None:
    """Planned and not finished: performed; finished: never again; another kind's end does not count."""
    planned = JournalEntry("d1", "planned", START, data={"effect": "lock"})
    other = JournalEntry("d1", "finished", START, data={"effect": "mark", "status": "done"})
    mine = JournalEntry("d1", "finished", START, data={"effect": "lock", "status": "done"})
    commit_decision(store, (planned, other, *([mine] if finished else [])))
    once = Once(store, "done")
    asyncio.run(once.recover())
    asyncio.run(once.perform((), SNAPSHOT))
    assert once.attempts == attempts


def test_the_runner_has_a_performer_for_each_kind() -> None:
    """Its own table is complete, also where nothing is armed."""
    table = EffectPerformers(performers(None, Performer(), None, VirtualClock(START)))  # type: ignore[arg-type]  # not asked here
    assert table.planned(LOCKS, SNAPSHOT) == ()
    assert not table.ends_run
