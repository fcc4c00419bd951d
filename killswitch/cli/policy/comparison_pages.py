"""`ksctl prove --against`: the comparison as a page and as data, and its differences as scenarios."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from killswitch.cli.options import file_errors
from killswitch.cli.terminal import print_json, print_page
from killswitch.render.document import Items, Page, Section, Table, section

if TYPE_CHECKING:
    from killswitch.graph.nodes import PolicySet
    from killswitch.operations.witness_scenarios import WrittenWitness
    from killswitch.proof.against import Change, SetComparison
    from killswitch.proof.differences import RunApart
    from killswitch.proof.solver import Prover

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


class ChangeInWords(Struct, frozen=True):
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
) -> Iterator[ChangeInWords]:
    """Each change with its runs, and the lines about their scenarios, which are written into the folder."""
    from killswitch.operations.comparison_witnesses import change_witnesses

    for each in change_witnesses(prover, base, head, compared.changes, with_scenarios=folder is not None):
        lines = (_scenario_line(written, folder) for written in each.scenarios if folder is not None)
        yield ChangeInWords(each.change, each.runs, tuple(lines))


def _scenario_line(written: WrittenWitness, folder: Path) -> str:
    return f"Scenario: {write_file(folder, written)}" if written.text else f"No scenario: {written.reason}."


def write_file(folder: Path, written: WrittenWitness) -> Path:
    """Write the scenario into the folder, which is made if it does not exist."""
    path = folder / f"{written.name}.yaml"
    with file_errors(f"cannot write {path}"):
        folder.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(f".{path.name}.part")  # no reader of policies reads it, and the file is whole or absent
        hidden.write_text(written.text, encoding="utf-8")
        hidden.replace(path)
    return path


def comparison_page(compared: SetComparison, shown: Sequence[ChangeInWords], opaque: tuple[str, ...]) -> Page:
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


def comparison_answer(compared: SetComparison, shown: Sequence[ChangeInWords]) -> dict[str, object]:
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
