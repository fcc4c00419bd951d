"""The one background thread: what wakes it, what a failure does, how it stops, and that it starts when it can."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from killswitch import worker as worker_module
from killswitch.deadline import NoThreadError
from killswitch.model.backoff import Backoff
from killswitch.worker import Worker
from tests.threads import NoThreads

PATIENCE = 60.0


class Steps:
    """Steps that wait to be let through, and return or raise what the test has prepared."""

    def __init__(self, *outcomes: float | Exception | None) -> None:
        self.outcomes = list(outcomes)
        self.count = 0
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def __call__(self) -> float | None:
        self.entered.release()
        assert self.gate.acquire(timeout=PATIENCE)
        self.count += 1
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def let(self, number: int = 1) -> None:
        for _ in range(number):
            self.gate.release()

    def begun(self) -> None:
        assert self.entered.acquire(timeout=PATIENCE)


@pytest.fixture
def steps() -> Iterator[Steps]:
    made = Steps()
    yield made
    made.let(1000)


def test_wakes_during_a_step_are_one_further_step(steps: Steps) -> None:
    """What was announced while it ran may have come too late for it; how often does not matter."""
    worker = Worker("work", steps)
    assert not worker.has_begun
    worker.wake()
    steps.begun()
    for _ in range(5):
        worker.wake()
    assert not worker.wait(0.0)
    steps.let(2)
    assert worker.wait(PATIENCE)
    assert steps.count == 2


def test_a_step_that_is_due_runs_without_a_wake(steps: Steps) -> None:
    """Two that are due immediately after the first."""
    steps.outcomes = [0.0, 0.0, None]
    worker = Worker("work", steps)
    worker.wake()
    for _ in range(3):
        steps.begun()
        steps.let()
    assert worker.wait(PATIENCE)


def test_a_failed_step_is_a_problem_until_one_succeeds_and_is_repeated(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread survives, names the defect, and runs the step again without being woken."""
    monkeypatch.setattr(worker_module, "PAUSES", Backoff(0.0, 0.0))
    steps.outcomes = [ValueError("no such column"), None]
    worker = Worker("notify desk", steps)
    worker.wake()
    steps.begun()
    steps.let()
    steps.begun()
    assert worker.problem == "notify desk failed and is repeated: ValueError: no such column"
    steps.let(10)
    assert worker.stop(PATIENCE)
    assert worker.problem is None


def test_a_stop_runs_a_last_step_and_those_that_are_due_at_once(steps: Steps) -> None:
    """What was announced just before the stop is done, and what is due later is left."""
    steps.outcomes = [None, 0.0, 0.0, 30.0]
    steps.let(4)
    worker = Worker("work", steps)
    worker.wake()
    assert worker.wait(PATIENCE)
    assert worker.stop(PATIENCE)
    assert steps.count == 4
    assert worker.stop(PATIENCE), "a second stop does nothing"
    worker.wake()
    assert steps.count == 4


def test_a_step_that_hangs_is_not_awaited_and_none_follows_it(steps: Steps) -> None:
    """The stop returns; the thread ends by itself once the step does, whatever is due."""
    steps.outcomes = [0.0]
    worker = Worker("work", steps)
    worker.wake()
    steps.begun()
    assert worker.hangs_for(0.0)
    assert not worker.stop(0.0)
    steps.let(5)
    assert worker.stop(PATIENCE)
    assert steps.count == 1
    assert not worker.hangs_for(0.0)


def test_a_stop_ends_the_pause_of_a_step() -> None:
    """A step that waits before its next attempt knows then that there is none; the pause itself is no hang."""
    answers: list[bool] = []
    pausing = threading.Event()

    def step() -> None:
        pausing.set()
        answers.append(worker.pause(PATIENCE))

    worker = Worker("work", step)
    worker.wake()
    assert pausing.wait(PATIENCE)
    assert worker.stop(PATIENCE)
    assert answers == [False]


def test_a_thread_that_cannot_be_started_is_started_by_a_later_wake(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the limit of processes the caller gets an OSError; the work is done once there is room."""
    threads, worker = NoThreads(monkeypatch), Worker("work", steps)
    steps.let(3)
    threads.begin()
    with pytest.raises(NoThreadError, match="cannot start a thread"):
        worker.wake()
    threads.end()
    assert not worker.has_begun
    worker.wake()
    assert worker.wait(PATIENCE)
    assert worker.stop(PATIENCE)


def test_a_worker_that_never_began_has_stopped_at_once(steps: Steps) -> None:
    """And begins no more."""
    worker = Worker("work", steps)
    assert worker.stop(0.0)
    worker.wake()
    assert not worker.has_begun
