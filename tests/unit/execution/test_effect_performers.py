"""Performing effects: a complete table, by rank, and once for each decision whatever restarts there are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from killswitch.execution.effects.performing import (
    EffectPerformers,
    OncePerDecision,
    Performed,
    Performer,
    RunEnd,
    Waiting,
)
from killswitch.model.alert import Alerts, alert_if
from killswitch.model.decision import Decision
from killswitch.model.effects import EFFECTS, Cancels, Lock, LockOrder, Orders
from killswitch.model.registry import RegistryError
from killswitch.model.snapshot import Snapshot
from killswitch.model.store import JournalEntry, TickRecord
from killswitch.store.errors import StoreError
from killswitch.store.sql import SqlStore
from tests.performing import context, table
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

    async def perform(self, decisions: Sequence[Decision], snapshot: Snapshot) -> Alerts:
        self._calls.append(self._name)
        return alert_if(f"slow/{self._name}", f"{self._name} is slow")


def test_each_performer_runs_once_by_rank() -> None:
    """The lock before cancels and orders, whatever the order of the table; the result has the alerts of all."""
    calls: list[str] = []
    closing = RecordingPerformer("closing", calls)
    performing = EffectPerformers({**IDLE, Orders: closing, Cancels: closing, Lock: RecordingPerformer("lock", calls)})
    assert asyncio.run(performing.perform((), SNAPSHOT)).texts == ("lock is slow", "closing is slow")
    assert calls == ["lock", "closing"]


def test_a_table_with_a_missing_or_repeated_kind_is_refused() -> None:
    """Before anything is performed, with the kind's name."""
    with pytest.raises(RegistryError, match=r"^`lock` is in EFFECTS, and the table of performers lacks it$"):
        EffectPerformers({effect: performer for effect, performer in IDLE.items() if effect is not Lock})
    with pytest.raises(RegistryError, match=r"^`orders` is in the table of performers twice$"):
        EffectPerformers(IDLE | {Twin: Performer()})


ENDED = RunEnd("effect", "it is locked", 1)
DONE = Performed("done", ENDED)
VENUE = Waiting("the venue")


class Once(OncePerDecision[Lock]):
    """Performs a lock as if it were a kind of its own: `answers` are what each attempt comes to."""

    def __init__(self, store: SqlStore, *answers: Performed | Waiting | Exception, acts: bool = True) -> None:
        super().__init__(Lock, context(store, acts=acts))
        self._answers = list(answers)
        self.attempts = 0

    async def attempt(self, decision: Decision, effect: Lock) -> Performed | Waiting:
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
    once = Once(store, VENUE, RuntimeError("no answer"), DONE)
    planned = once.planned(LOCKS, SNAPSHOT)
    assert planned == (JournalEntry("d1", "planned", START, data={"effect": "lock"}),)
    commit_decision(store, planned)
    failed = "lock of decision d1 failed and is retried: no answer"
    seen = []
    for decisions in ((LOCKS,), (), (), ()):
        problems = asyncio.run(once.perform(decisions, SNAPSHOT)).texts
        seen.append((problems, [each.waits_for for each in once.pending], once.run_end))
    assert seen == [
        ((), ["the venue"], None), ((failed,), ["the next attempt: no answer"], None), ((), [], ENDED), ((), [], ENDED),
    ]  # fmt: skip
    assert once.attempts == 3
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
    once = Once(store, DONE)
    asyncio.run(once.recover())
    asyncio.run(once.perform((), SNAPSHOT))
    assert once.attempts == attempts


def test_a_run_that_only_observes_leaves_an_effect_of_an_earlier_run_open(store: SqlStore) -> None:
    """It was planned by an armed run, and the next armed run performs it."""
    commit_decision(store, Once(store).planned(LOCKS, SNAPSHOT))
    observing, armed = Once(store, DONE, acts=False), Once(store, DONE)
    for once in (observing, armed):
        asyncio.run(once.recover())
        asyncio.run(once.perform((), SNAPSHOT))
    assert (observing.attempts, observing.run_end, armed.attempts, armed.run_end) == (0, None, 1, ENDED)
    assert "a run that acts" in observing.pending[0].waits_for


def test_a_reset_ends_only_the_effects_of_a_kind_that_declares_so(store: SqlStore) -> None:
    """Of the same policy and scope; the status is journaled, and nothing is attempted any more."""

    class Withdrawn(Once):
        status_after_reset = "withdrawn"

    elsewhere = replace(LOCKS, id="r1", scope="account/other", kind="reset", lock=None)
    here = replace(elsewhere, id="r2", scope=LOCKS.scope)
    kept, ended = Once(store, VENUE, VENUE), Withdrawn(store, VENUE, VENUE)
    for once in (kept, ended):
        asyncio.run(once.perform((LOCKS, elsewhere), SNAPSHOT))
        assert len(once.pending) == 1
        asyncio.run(once.perform((here,), SNAPSHOT))
    assert (len(kept.pending), len(ended.pending)) == (1, 0)
    assert [each.data["status"] for each in store.journal("d1")] == ["withdrawn"]


def test_the_runner_has_a_performer_for_each_kind(store: SqlStore) -> None:
    """Its own table is complete, also where nothing is armed."""
    performing = table(store)
    assert performing.planned(LOCKS, SNAPSHOT) == ()
    assert performing.run_end is None
