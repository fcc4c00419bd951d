"""Runs scenarios: each in an interpreter of its own, in the order of its steps, with the engine of production.

Several processes may run them; the results are in the order of the scenarios, whatever ran first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.nodes import Graph, PolicySet
from killswitch.graph.routing import Receiver, Route, RouteRule, RouteTarget
from killswitch.incident.notify.routing import NotificationRouter
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import Snapshot
from killswitch.model.words import Place
from killswitch.planning.replayed_ticks import ReplayedTicks
from killswitch.planning.routing.tree import ROOT
from killswitch.planning.scopes.compiled_policy import reader_of
from killswitch.render.formats import count_of
from killswitch.scenario.book import snapshots
from killswitch.scenario.cases import Expectation, Outage, Scenario
from killswitch.scenario.comparison import EVERYTHING, Failure, Seen, StepComparison
from killswitch.scenario.given_signals import GivenReader
from killswitch.scenario.trace import CompiledClauses, StepTracer, Trace, compile_clauses
from killswitch.signals.arguments import span
from killswitch.signals.signal_values import ColumnReader

Outcome = Literal["passed", "failed", "pending", "error"]
ReadRecording = Callable[[str], Iterator[Snapshot]]
"""Path → the snapshots of a recording, oldest first; raises an exception of Killswitch if it cannot be read."""
Within = Callable[[Callable[[], str]], str | None]
"""Calls a run, and returns what it returns; None if its time was over first."""
FEW = 24
"""Up to this many scenarios a further process costs more than it saves."""
PARTS = 4
"""Parts of the work for each process, so that none waits long for another."""
_NOWHERE = RouteRule(None, None, (), None, None, None, ())


def without_limit(run: Callable[[], str]) -> str | None:
    """A run that may take as long as it takes."""
    return run()


class CaseResult(Struct, frozen=True):
    """The result of one scenario. `error`: why it could not be run to its end; `steps`: how many were evaluated."""

    name: str
    place: Place
    outcome: Outcome
    failures: tuple[Failure, ...] = ()
    seen: tuple[Seen, ...] = ()
    steps: int = 0
    error: str = ""
    pending: str = ""


class Ran(Struct, frozen=True):
    """A result, and what the run has seen of its policies."""

    result: CaseResult
    trace: Trace


class PreparedSet(Struct, frozen=True):
    """The policies of a scenario, the router of all their messages, and their clauses."""

    policies: PolicySet
    router: NotificationRouter
    clauses: CompiledClauses


class ScenarioRunner:
    """Runs the scenarios of one policy set."""

    def __init__(self, policies: PolicySet, read: ReadRecording, within: Within = without_limit) -> None:
        """`within`: applies the time limit to each run."""
        self._policies = policies
        self._read = read
        self._within = within
        self._sets: dict[tuple[str, ...], PreparedSet] = {}

    def run(self, scenario: Scenario) -> Ran:
        """Run one scenario to its end, or until it is late."""
        if scenario.pending is not None:
            return Ran(CaseResult(scenario.name, scenario.place, "pending", pending=scenario.pending), Trace())
        case = _Case(scenario, self._set_of(scenario.policies))
        steps = snapshots(scenario) if scenario.recording is None else enumerate(self._read(scenario.recording))
        try:
            ended = self._within(lambda: case.run(steps))
            error = f"the time limit is over after {count_of(case.steps, 'step')}" if ended is None else ended
        except Exception as problem:
            if not type(problem).__module__.startswith("killswitch."):
                raise
            error = str(problem)
        return Ran(case.result(error), case.tracer.trace)

    def _set_of(self, names: tuple[str, ...]) -> PreparedSet:
        """The policy set with these policies alone; a message reaches the last route, `EVERYTHING`, always."""
        found = self._sets.get(names)
        if found is None:
            graphs = tuple(graph for graph in self._policies.graphs if graph.policy in names)
            policies = replace(self._policies, graphs=graphs)
            # A target of its own for each route, because a message is sent once to a target that several routes share.
            routes = tuple(
                replace(each, targets=(RouteTarget("log", each.name),), receiver=None) for each in policies.routes
            )
            every = Route(EVERYTHING, _NOWHERE, (RouteTarget("log", EVERYTHING),), 0, Place("", 1, 1, ""))
            root = policies.notification
            if root is not None:
                own = Receiver(root.receiver, (RouteTarget("log", ROOT),), 0)
                root = replace(root, receivers=(*(it for it in root.receivers if it.name != own.name), own))
            router = NotificationRouter(replace(policies, routes=(*routes, every), notification=root))
            found = self._sets[names] = PreparedSet(policies, router, compile_clauses(graphs))
        return found


class _Case:
    """One run."""

    def __init__(self, scenario: Scenario, prepared: PreparedSet) -> None:
        self._scenario = scenario
        self._comparison = StepComparison(prepared.policies, prepared.router, scenario)
        self.tracer = StepTracer(prepared.clauses)
        self._ticks = ReplayedTicks(
            prepared.policies, self.tracer.observe, keeps_rows=bool(scenario.outages), reader=self._reader
        )
        self._expected: dict[timedelta, list[Expectation]] = {}
        for each in scenario.expectations:
            self._expected.setdefault(each.at, []).append(each)
        self._failures: list[Failure] = []
        self._seen: list[Seen] = []
        self.steps = 0

    def run(self, steps: Iterable[tuple[int, Snapshot]]) -> str:
        """Evaluate every step; returns why the run ended before its end, or an empty text."""
        outages = {each.first: each for each in self._scenario.outages}
        starts: datetime | None = None
        stream = iter(steps)
        current = next(stream, None)
        if current is None:
            return "the recording has no snapshot"
        while current is not None:
            step, snapshot = current
            starts = snapshot.as_of if starts is None else starts
            self._restart(outages.get(step), snapshot)
            following = next(stream, None)
            self._step(snapshot.as_of - starts, snapshot, None if following is None else following[1])
            current = following
        for at, left in sorted(self._expected.items()):  # only a recording has steps that are not known before
            self._failures += [
                Failure(at, it.place, it.words, "the recording has no snapshot at this time") for it in left
            ]
        return ""

    def _reader(self, graph: Graph) -> ColumnReader:
        """What reads the signals of a policy: those that the scenario gives are not computed."""
        scenario = self._scenario
        if not scenario.signals:
            return reader_of(graph)
        steps = {to_micros(scenario.at(step)): step for step in range(scenario.steps)}
        return GivenReader(graph.signals, scenario.signals, steps)

    def _restart(self, outage: Outage | None, snapshot: Snapshot) -> None:
        if outage is not None:
            self._ticks.restart(to_micros(snapshot.as_of))

    def _step(self, at: timedelta, snapshot: Snapshot, following: Snapshot | None) -> None:
        tick = self._ticks.tick(snapshot, lambda: following)
        self.steps += 1
        expected = self._expected.pop(at, ())
        if tick.decisions or tick.notices:
            found = self._comparison.seen(at, snapshot, tick)
            self._seen += found
            for each in found:
                self.tracer.trace.routes.update(each.notifies)
        else:
            found = []
        fired = ((it.policy, it.scope, it.name) for it in found if it.subject == "fires")
        self.tracer.end_tick(fired, ((it.policy, it.name, it.is_by_hand) for it in found if it.subject == "resets"))
        if expected or found:
            self._failures += self._comparison.failures(expected, found, self._ticks.interpreter, snapshot, at)

    def result(self, error: str) -> CaseResult:
        """The result of what has run until now."""
        scenario = self._scenario
        outcome: Outcome = "error" if error else "failed" if self._failures else "passed"
        return CaseResult(
            scenario.name, scenario.place, outcome, tuple(self._failures), tuple(self._seen), self.steps, error
        )


def offset(at: timedelta) -> str:
    """A time after the start as scenarios write it: `1m30s`."""
    return span(at // timedelta(microseconds=1))


def counts(results: Sequence[CaseResult]) -> dict[Outcome, int]:
    """How many scenarios have each outcome."""
    order: tuple[Outcome, ...] = ("passed", "failed", "error", "pending")
    return {outcome: sum(each.outcome == outcome for each in results) for outcome in order}


def run_all(
    policies: PolicySet, scenarios: Sequence[Scenario], read: ReadRecording, *, jobs: int, within: Within
) -> list[Ran]:
    """Run the scenarios in at most `jobs` processes; `within` applies the time limit to each of them.

    `read` and `within` can be pickled, because other processes call them.
    """
    if jobs <= 1 or len(scenarios) <= FEW:
        return run_part(policies, scenarios, read, within)
    size = max(1, -(-len(scenarios) // (jobs * PARTS)))
    parts = [scenarios[at : at + size] for at in range(0, len(scenarios), size)]
    with ProcessPoolExecutor(jobs) as pool:
        waiting = [pool.submit(run_part, policies, part, read, within) for part in parts]
        return [ran for future, part in zip(waiting, parts, strict=True) for ran in _result(future, part)]


def run_part(policies: PolicySet, scenarios: Sequence[Scenario], read: ReadRecording, within: Within) -> list[Ran]:
    """Run scenarios one after the other in this process."""
    runner = ScenarioRunner(policies, read, within)
    return [runner.run(scenario) for scenario in scenarios]


def _result(future: Future[list[Ran]], part: Sequence[Scenario]) -> list[Ran]:
    try:
        return future.result()
    except BrokenProcessPool:
        why = "the process that ran it ended; run it alone with --jobs 1"
        return [Ran(CaseResult(each.name, each.place, "error", error=why), Trace()) for each in part]
