"""The runs that show the changes of two policy sets, and their scenarios, which pass with head and fail with base."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from killswitch.graph.nodes import Graph, PolicySet
from killswitch.operations.witness_scenarios import WitnessItem, WrittenWitness, file_name, run_text, scenario_of
from killswitch.proof.against import Change
from killswitch.proof.differences import RunApart, run_of_change, run_of_memory
from killswitch.proof.properties import reachable
from killswitch.proof.solver import Prover
from killswitch.proof.verdicts import Situation
from killswitch.proof.witness import Witness
from killswitch.scenario.comparison import Seen
from killswitch.signals.arguments import span

PASSES = "It passes with the head, of which it expects what the engine does; with the base it fails."


class ChangeWitness(Struct, frozen=True):
    """A change with the runs that show it, at most one for each direction, and a scenario for each run.

    A scenario without a text has a reason. A change without a run has one entry if scenarios were wanted.
    """

    change: Change
    runs: tuple[RunApart, ...]
    scenarios: tuple[WrittenWitness, ...] = ()


def change_witnesses(
    prover: Prover, base: PolicySet, head: PolicySet, changes: Iterable[Change], *, with_scenarios: bool
) -> Iterator[ChangeWitness]:
    """Each change with its runs; runs of memory are searched, and those of responses only for a scenario."""
    before, after = ({graph.policy: graph for graph in each.graphs} for each in (base, head))
    writer = _ScenarioWriter(prover, base, head)
    for each in changes:
        one, other = before.get(each.policy), after.get(each.policy)
        runs: list[RunApart] = []
        if one is not None and other is not None:
            demanded = run_of_change(one, other, each)
            ways = [way for way, holds in ((True, each.keeps), (False, each.exceeds_nothing)) if holds is False]
            searched = (run_of_memory(prover, one, other, base_is_harder=way) for way in ways if each.part == "memory")
            runs = [run for run in (demanded, *searched) if run is not None]
        shown: Sequence[RunApart | None] = runs or (None,)
        written = tuple(writer.write(each, run) for run in shown) if with_scenarios else ()
        yield ChangeWitness(each, tuple(runs), written)


class _ScenarioWriter:
    """Writes the scenarios of one comparison, each with a name of its own."""

    def __init__(self, prover: Prover, base: PolicySet, head: PolicySet) -> None:
        self._prover, self._base, self._head = prover, base, head
        self._names: set[str] = set()

    def write(self, change: Change, run: RunApart | None) -> WrittenWitness:
        """The scenario of a change, or why it has none."""
        if change.keeps is None or change.exceeds_nothing is None:
            return _without("it is undecided")
        if change.part == "scope":
            return _without("what is watched is compared as it is written")
        if run is None and change.part == "response":
            return self._of_response(change)
        if run is None:
            return _without("no short run from the start shows it")
        base_level, head_level = run.last_levels
        is_softer = base_level > head_level or (base_level == head_level and run.runs[1][-1].reset)
        name = self._unused(file_name(change.policy, change.part, "softer" if is_softer else "harder"))
        comments = (_found_by(change), _who_does_what(run), PASSES)
        items = [WitnessItem(name, graph, shown, comments) for graph, shown in zip(run.graphs, run.runs, strict=True)]
        of_base, of_head = scenario_of(items[0], self._base), scenario_of(items[1], self._head)
        if not of_head.text or not of_base.text:
            return _without(of_head.reason or of_base.reason)
        return of_head

    def _of_response(self, change: Change) -> WrittenWitness:
        """A run that fires the stage of both, if they then decide otherwise on the book of the scenario."""
        graph = next((each for each in self._head.graphs if each.policy == change.policy), None)
        words = change.text.replace("`", " ").split()
        reached = [] if graph is None else [each for each in _reached(self._prover, graph) if each[0] in words]
        if graph is None or not reached:
            return _without("no short run fires the stage")
        _, witness = reached[0]
        direction = "other" if change.keeps == change.exceeds_nothing else "harder" if change.keeps else "softer"
        name = self._unused(file_name(change.policy, "response", direction))
        found = scenario_of(WitnessItem(name, graph, witness, (_found_by(change),)), self._head)
        if not found.text or found.result is None:
            return _without(found.reason)
        _, of_base = run_text(found.text, self._base)
        decided = [_decided(each.seen) for each in (found.result, of_base) if each is not None]
        if len(decided) < 2 or decided[0] == decided[1]:
            return _without("on the small book of a scenario both decide alike")
        lines = (_found_by(change), f"The head {decided[0]}.", f"The base {decided[1]}.", PASSES)
        fired = found.result.seen[-1]
        expected = (("lock", fired.lock), ("orders", f"[{', '.join(fired.orders)}]"))
        return scenario_of(WitnessItem(name, graph, witness, lines, expected), self._head)

    def _unused(self, name: str) -> str:
        names = (name, *(f"{name[:56]}-{number}" for number in range(2, len(self._names) + 3)))
        found = next(each for each in names if each not in self._names)
        self._names.add(found)
        return found


def _without(reason: str) -> WrittenWitness:
    return WrittenWitness("", "", reason)


def _found_by(change: Change) -> str:
    return f"Found by `ksctl prove --against`: {change.policy}: {change.text}."


def _who_does_what(run: RunApart) -> str:
    """At the last evaluation of a run, what base and head do."""
    words = []
    for who, shown in zip(("the base", "the head"), run.runs, strict=True):
        last = shown[-1]
        does = f"fires {last.fired}" if last.fired else "resets" if last.reset else "does nothing"
        words.append(f"{who} {does}")
    return f"After {span(run.runs[0][-1].seen.now)} {' and '.join(words)}."


def _reached(prover: Prover, graph: Graph) -> Iterator[tuple[str, Witness]]:
    """Each stage with a run that fires it."""
    for stage, _, _, witness in reachable(Situation(prover, graph)):
        if witness is not None:
            yield stage, witness


def _decided(seen: Sequence[Seen]) -> str:
    """The firings of a run in words, with their locks and orders."""
    words = []
    for each in seen:
        if each.subject == "fires":
            parts = [f"lock {each.lock}", *each.orders, *(f"cancel {order}" for order in each.cancels)]
            words.append(f"fires {each.name} ({', '.join(parts)})")
    return "; ".join(words) or "fires nothing"
