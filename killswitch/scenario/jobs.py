"""Runs many scenarios in several processes; the results are in the order of the scenarios, whatever ran first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from killswitch.graph.nodes import PolicySet
from killswitch.scenario.cases import Scenario
from killswitch.scenario.running import CaseResult, Ran, ReadRecording, ScenarioRunner
from killswitch.scenario.trace import Trace

FEW = 24
"""Up to this many scenarios a further process costs more than it saves."""
PARTS = 4
"""Parts of the work for each process, so that none waits long for another."""


def run_all(
    policies: PolicySet, scenarios: Sequence[Scenario], read: ReadRecording, *, jobs: int, limit: float,
    clock: Callable[[], float],
) -> list[Ran]:  # fmt: skip
    """Run the scenarios in at most `jobs` processes; each may take `limit` seconds by `clock`.

    `read` and `clock` are functions of a module, because other processes call them.
    """
    if jobs <= 1 or len(scenarios) <= FEW:
        return run_part(policies, scenarios, read, limit, clock)
    size = max(1, -(-len(scenarios) // (jobs * PARTS)))
    parts = [scenarios[at : at + size] for at in range(0, len(scenarios), size)]
    with ProcessPoolExecutor(jobs) as pool:
        waiting = [pool.submit(run_part, policies, part, read, limit, clock) for part in parts]
        return [ran for future, part in zip(waiting, parts, strict=True) for ran in _result(future, part)]


def run_part(
    policies: PolicySet, scenarios: Sequence[Scenario], read: ReadRecording, limit: float, clock: Callable[[], float]
) -> list[Ran]:
    """Run scenarios one after the other in this process."""
    began = [clock()]
    runner = ScenarioRunner(policies, read, lambda _: clock() - began[0] > limit)
    found = []
    for scenario in scenarios:
        began[0] = clock()
        found.append(runner.run(scenario))
    return found


def _result(future: Future[list[Ran]], part: Sequence[Scenario]) -> list[Ran]:
    try:
        return future.result()
    except BrokenProcessPool:
        why = "the process that ran it ended; run it alone with --jobs 1"
        return [Ran(CaseResult(each.name, each.place, "error", error=why), Trace()) for each in part]
