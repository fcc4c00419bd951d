"""`ksctl prove --against`: the comparison as a page and as data, and its differences as scenarios."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from killswitch.cli.terminal import print_json, print_page
from killswitch.render.document import Items, Page, Section, Table, section

if TYPE_CHECKING:
    from killswitch.graph.nodes import Graph, PolicySet
    from killswitch.proof.against import Change, SetComparison
    from killswitch.proof.differences import RunApart
    from killswitch.proof.solver import Prover
    from killswitch.proof.witness import Witness
    from killswitch.scenario.comparison import Seen

PARTS = ("scope", "demand", "memory", "response")
PART_MEANINGS = {
    "scope": "what the policies watch",
    "demand": "which levels the triggers confirm",
    "memory": "cooldowns, resets, and what re-arms a level",
    "response": "what a firing locks, cancels and closes",
}
NOT_CLAIMED = (
    "Asked at every moment of one history: whenever the base fires, does the head fire at once and at least as hard, "
    "and do both reset alike? Not claimed: how many firings there are, how much is closed in all, or how a run ends. "
    "Not compared: Account documents, runbooks and the configuration of the runner."
)


class ShownChange(Struct, frozen=True):
    """A change with the runs that show it, at most one for each direction, and what became of their scenarios."""

    change: Change
    runs: tuple[RunApart, ...]
    scenarios: tuple[str, ...] = ()


def compared_with(prover: Prover, base: PolicySet, head: PolicySet, folder: Path | None, output: str) -> str:
    """Compare head with base, print the comparison, and return the verdict."""
    from killswitch.proof.against import compare_sets
    from killswitch.proof.conditions import opaque_texts

    compared = compare_sets(prover, base, head)
    shown = tuple(_shown(prover, base, head, compared, folder))
    if output == "json":
        print_json(comparison_answer(compared, shown))
    else:
        opaque = dict.fromkeys(text for each in (base, head) for graph in each.graphs for text in opaque_texts(graph))
        print_page(comparison_page(compared, shown, tuple(opaque)), output)
    return compared.verdict()


def _shown(
    prover: Prover, base: PolicySet, head: PolicySet, compared: SetComparison, folder: Path | None
) -> Iterator[ShownChange]:
    """Each change with its run; runs of memory are searched, and those of responses only for a scenario."""
    from killswitch.proof.differences import run_of_change, run_of_memory

    before, after = ({graph.policy: graph for graph in each.graphs} for each in (base, head))
    taken: set[str] = set()
    for each in compared.changes:
        one, other = before.get(each.policy), after.get(each.policy)
        runs: list[RunApart] = []
        if one is not None and other is not None:
            demanded = run_of_change(one, other, each)
            ways = [way for way, holds in ((True, each.keeps), (False, each.exceeds_nothing)) if holds is False]
            searched = (run_of_memory(prover, one, other, base_is_harder=way) for way in ways if each.part == "memory")
            runs = [run for run in (demanded, *searched) if run is not None]
        scenarios: tuple[str, ...] = ()
        if folder is not None:
            shown: Sequence[RunApart | None] = runs or (None,)
            scenarios = tuple(_scenario(prover, base, head, each, run, folder, taken) for run in shown)
        yield ShownChange(each, tuple(runs), scenarios)


def _scenario(
    prover: Prover, base: PolicySet, head: PolicySet, change: Change, run: RunApart | None, folder: Path,
    taken: set[str],
) -> str:  # fmt: skip
    """What became of the scenario of a change: its file, or why it has none."""
    from killswitch.cli.policy.witness_scenarios import WitnessItem, file_name, scenario_of, write_file

    if change.keeps is None or change.exceeds_nothing is None:
        return "No scenario: it is undecided."
    if change.part == "scope":
        return "No scenario: what is watched is compared as it is written."
    if run is None and change.part == "response":
        return _response_scenario(prover, base, head, change, folder, taken)
    if run is None:
        return "No scenario: no short run from the start shows it."
    base_level, head_level = run.last_levels
    is_softer = base_level > head_level or (base_level == head_level and run.runs[1][-1].reset)
    name = _unused(file_name(change.policy, change.part, "softer" if is_softer else "harder"), taken)
    comments = (f"Found by `ksctl prove --against`: {change.policy}: {change.text}.", _who_does_what(run), PASSES)
    items = [WitnessItem(name, graph, shown, comments) for graph, shown in zip(run.graphs, run.runs, strict=True)]
    of_base, of_head = scenario_of(items[0], base), scenario_of(items[1], head)
    if not of_head.text or not of_base.text:
        return f"No scenario: {of_head.reason or of_base.reason}."
    return f"Scenario: {write_file(folder, of_head)}"


PASSES = "It passes with the head, of which it expects what the engine does; with the base it fails."


def _unused(name: str, taken: set[str]) -> str:
    names = (name, *(f"{name[:56]}-{number}" for number in range(2, len(taken) + 3)))
    found = next(each for each in names if each not in taken)
    taken.add(found)
    return found


def _who_does_what(run: RunApart) -> str:
    """At the last evaluation of a run, what base and head do."""
    from killswitch.signals.arguments import span

    words = []
    for who, shown in zip(("the base", "the head"), run.runs, strict=True):
        last = shown[-1]
        does = f"fires {last.fired}" if last.fired else "resets" if last.reset else "does nothing"
        words.append(f"{who} {does}")
    return f"After {span(run.runs[0][-1].seen.now)} {' and '.join(words)}."


def _response_scenario(
    prover: Prover, base: PolicySet, head: PolicySet, change: Change, folder: Path, taken: set[str]
) -> str:
    """A run that fires the stage of both, if they then decide otherwise on the book of the scenario."""
    from killswitch.cli.policy.witness_scenarios import WitnessItem, file_name, run_text, scenario_of, write_file

    head_graph = next(each for each in head.graphs if each.policy == change.policy)
    reached = [each for each in _reached(prover, head_graph) if each[0] in change.text.replace("`", " ").split()]
    if not reached:
        return "No scenario: no short run fires the stage."
    _, witness = reached[0]
    direction = "other" if change.keeps == change.exceeds_nothing else "harder" if change.keeps else "softer"
    name = _unused(file_name(change.policy, "response", direction), taken)
    comments = (f"Found by `ksctl prove --against`: {change.policy}: {change.text}.",)
    found = scenario_of(WitnessItem(name, head_graph, witness, comments), head)
    if not found.text or found.result is None:
        return f"No scenario: {found.reason}."
    _, of_base = run_text(found.text, base)
    decided = [_decided(each.seen) for each in (found.result, of_base) if each is not None]
    if len(decided) < 2 or decided[0] == decided[1]:
        return "No scenario: on the small book of a scenario both decide alike."
    lines = (*comments, f"The head {decided[0]}.", f"The base {decided[1]}.", PASSES)
    fired = found.result.seen[-1]
    expected = (("lock", fired.lock), ("orders", f"[{', '.join(fired.orders)}]"))
    again = scenario_of(WitnessItem(name, head_graph, witness, lines, expected), head)
    return f"Scenario: {write_file(folder, again)}" if again.text else f"No scenario: {again.reason}."


def _reached(prover: Prover, graph: Graph) -> Iterator[tuple[str, Witness]]:
    """Each stage with a run that fires it."""
    from killswitch.proof.properties import reachable
    from killswitch.proof.verdicts import Situation

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


def comparison_page(compared: SetComparison, shown: Sequence[ShownChange], opaque: tuple[str, ...]) -> Page:
    """The verdict, its parts, each difference with its run, what is not lowered (`opaque`), and the messages."""
    rows = tuple((part, compared.verdict(part), PART_MEANINGS[part]) for part in PARTS)
    sections = [Section("Parts", (Table(("part", "verdict", "what it compares"), rows, expendable=(2,)),))]
    for each in shown:
        change = each.change
        direction = _direction(change.keeps, change.exceeds_nothing)
        parts: list[str | Table | Items] = [f"{change.policy}: {change.text}"]
        for number, run in enumerate(each.runs):
            parts += [*_run_parts(run), *each.scenarios[number : number + 1]]
        parts += each.scenarios[len(each.runs) :]
        sections.append(Section(f"{change.part}: head is {direction}", tuple(parts)))
    sections += section("Not lowered: true, false or unknown at any time", Items(opaque))
    sections.append(Section("Messages", (Items(compared.messages or ("the same",)),)))
    return Page("Comparison", summary=(compared.verdict(), NOT_CLAIMED), sections=tuple(sections))


def _run_parts(run: RunApart) -> Iterator[Table | Items]:
    """The inputs of a run, and what base and head do at each evaluation."""
    from killswitch.proof.witness import events_of, table_of

    yield Table(*table_of(run.graphs[1], run.runs[1]))
    lines = []
    for who, graph, witness in zip(("base", "head"), run.graphs, run.runs, strict=True):
        lines += [f"{who}, {line}" for line in events_of(graph, witness)]
    yield Items(tuple(lines))


def _direction(keeps: bool | None, mirror: bool | None) -> str:
    if keeps is None or mirror is None:
        return "undecided"
    return {
        (True, True): "equal", (True, False): "harder", (False, True): "softer",
        (False, False): "harder in some situations and softer in others",
    }[keeps, mirror]  # fmt: skip


def comparison_answer(compared: SetComparison, shown: Sequence[ShownChange]) -> dict[str, object]:
    """The same for programs; `head_is` is one of equal, harder, softer, neither and undecided."""
    from killswitch.proof.witness import records_of

    return {
        "verdict": compared.verdict(),
        "parts": {part: compared.verdict(part) for part in PARTS},
        "changes": [
            {
                "part": each.change.part, "policy": each.change.policy, "text": each.change.text,
                "head_is": _direction(each.change.keeps, each.change.exceeds_nothing).replace(
                    "harder in some situations and softer in others", "neither"
                ),
                "witnesses": [
                    {
                        who: records_of(graph, witness)
                        for who, graph, witness in zip(("base", "head"), run.graphs, run.runs, strict=True)
                    }
                    for run in each.runs
                ],
                "scenarios": each.scenarios,
            }
            for each in shown
        ],
        "messages": list(compared.messages),
    }  # fmt: skip
