"""Proofs as pages for people: first what is not proved with its witness, then what is, then what gets no response."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from killswitch.render.document import Code, Figure, Items, Page, Section, Table
from killswitch.render.formats import count_of

if TYPE_CHECKING:
    from killswitch.graph.nodes import Graph, PolicySet
    from killswitch.proof.verdicts import ProofVerdict
    from killswitch.render.range_chart import RangeRow

FEW = 3
"""Up to so many policies, everything is shown; of more, each verdict, the silence and the assumptions on demand."""


class ProofRun(Struct, frozen=True):
    """Everything that one run of proofs has found. `graphs`: by policy, with the columns that their witnesses have.

    `scenarios`: number of the finding → its scenario file, or why there is none.
    """

    policy_set: PolicySet
    found: Sequence[ProofVerdict]
    graphs: dict[int, Graph]
    scenarios: dict[int, str]
    limit: float


def proofs_page(run: ProofRun, *, is_wide: bool, is_drawn: bool) -> Page:
    """The page. `is_wide`: whether everything is shown. `is_drawn`: figures instead of lines of characters."""
    shows_all = is_wide or len(run.policy_set.graphs) <= FEW
    sections = [*_open(run), Section("Properties", (_properties(run),))]
    if shows_all:
        sections.append(Section("Each property of each policy", tuple(_each(run))))
    sections += _silence(run, folded=not shows_all, is_drawn=is_drawn)
    sections += _short_ladders(run, folded=not shows_all)
    sections += _assumed(run, folded=not shows_all)
    return Page("Proofs", summary=tuple(_summary(run)), sections=tuple(sections))


def _summary(run: ProofRun) -> Iterator[str]:
    from killswitch.proof.verdicts import LONGEST

    counted = Counter(each.outcome for each in run.found)
    seconds = sum(each.seconds for each in run.found)
    yield (
        f"{count_of(len(run.policy_set.graphs), 'policy')}: {counted['proved']} proved, "
        f"{counted['refuted']} refuted, {counted['undecided']} undecided; {seconds:.1f} s"
    )
    yield (
        "Proved is: in every situation of any length. A counterexample is searched in runs of at most "
        f"{LONGEST} evaluations with any time between them (more where `confirm` counts ticks), at most "
        f"{run.limit:g} s a question."
    )


def _open(run: ProofRun) -> Iterator[Section]:
    """What is refuted or undecided: a section for each witness, and for each property without one."""
    plain: dict[tuple[str, str], list[int]] = {}
    for number, each in enumerate(run.found):
        if each.outcome != "proved":
            title = f"{each.outcome.upper()}: {each.property}"
            if each.witness is not None and number in run.graphs:
                parts = [*_witness(each, run.graphs[number]), *filter(None, [run.scenarios.get(number)])]
                yield Section(title, tuple(parts))
            else:
                plain.setdefault((title, run.scenarios.get(number, "")), []).append(number)
    for (title, reason), numbers in plain.items():
        texts = tuple(_named(run.found[number]) for number in numbers)
        yield Section(title, (Items(texts), *filter(None, [reason])))


def _named(found: ProofVerdict) -> str:
    """What was found, after the policy and the part of it that it is about."""
    of = " ".join(part for part in (found.policy, found.subject) if part)
    return found.text if not of or found.text.startswith(f"{found.policy}/") else f"{of}: {found.text}"


def _witness(found: ProofVerdict, graph: Graph) -> Iterator[str | Items | Table]:
    from killswitch.proof.witness import events_of, table_of

    assert found.witness is not None
    yield _named(found)
    yield Table(*table_of(graph, found.witness))
    yield Items(events_of(graph, found.witness))


def _properties(run: ProofRun) -> Table:
    names = dict.fromkeys(each.property for each in run.found)
    rows = []
    for name in names:
        of = [each for each in run.found if each.property == name]
        counted = Counter(each.outcome for each in of)
        seconds = sum(each.seconds for each in of)
        numbers = (str(counted[word] or "") for word in ("proved", "refuted", "undecided"))
        rows.append((name, *numbers, f"{seconds * 1000:.0f}"))
    return Table(("property", "proved", "refuted", "undecided", "ms"), tuple(rows), numbers=(1, 2, 3, 4))


def _each(run: ProofRun) -> Iterator[Table]:
    """The verdicts of each policy, and those of the set."""
    for policy in dict.fromkeys(each.policy for each in run.found):
        rows = tuple(
            (each.property, each.subject, each.outcome, f"{each.seconds * 1000:.0f}", each.text)
            for each in run.found
            if each.policy == policy
        )
        head = ("property", "of", "verdict", "ms", "why")
        yield Table(head, rows, numbers=(3,), caption=policy or "all together", expendable=(4,))


def _silence(run: ProofRun, *, folded: bool, is_drawn: bool) -> Iterator[Section]:
    """For each policy the falls that get no response at each level in force, in words and as a picture."""
    from killswitch.proof.silence import SHOWN_TO, silence_rows
    from killswitch.render.range_chart import range_figure, range_lines

    parts: list[str | Items | Figure | Code] = []
    for graph in run.policy_set.graphs:
        rows = silence_rows(graph)
        if not rows:
            continue
        parts += [f"{graph.policy}:", Items(tuple(_silent_words(rows)))]
        if is_drawn:
            caption = f"{graph.policy}: the level that a fall may fire, by the level in force"
            parts.append(range_figure(caption, rows, SHOWN_TO))
        else:
            parts.append(Code((*range_lines(rows, SHOWN_TO), "·: no response; a digit: the level that may fire")))
    if parts:
        again = (
            "Counted are triggers that read one size of a loss alone. The level in force fires again only after its "
            "cooldown, and at a lower unit value."
        )
        yield Section("Silent while latched", (*parts, again), folded=folded)


def _silent_words(rows: Sequence[RangeRow]) -> Iterator[str]:
    for group in dict.fromkeys(row.group for row in rows):
        state = "in normal state" if group == "normal" else f"with {group} in force"
        falls = (
            f"{row.name} below {row.bands[0].begins * 100:.10g}%" if row.bands else f"{row.name} of any size drawn"
            for row in rows
            if row.group == group
        )
        yield f"No response {state} to: {'; '.join(falls)}"


def _short_ladders(run: ProofRun, *, folded: bool) -> Iterator[Section]:
    from killswitch.proof.properties import short_ladders

    texts = tuple(f"{graph.policy}: {text}" for graph in run.policy_set.graphs for text in short_ladders(graph))
    if texts:
        yield Section("Signals that never reach the last level", (Items(texts),), folded=folded)


def _assumed(run: ProofRun, *, folded: bool) -> Iterator[Section]:
    from killswitch.proof.axioms import assumed
    from killswitch.proof.conditions import opaque_texts

    graphs = run.policy_set.graphs
    texts = dict.fromkeys(text for graph in graphs for text in assumed(graph))
    if texts:
        yield Section("Assumed, by the declarations of the signals", (Items(tuple(texts)),), folded=folded)
    opaque = dict.fromkeys(text for graph in graphs for text in opaque_texts(graph))
    if opaque:
        yield Section("Not lowered: true, false or unknown at any time", (Items(tuple(opaque)),))


def proofs_answer(run: ProofRun) -> dict[str, object]:
    """The same for programs: every finding with its time, its witness and its scenario."""
    from killswitch.proof.axioms import assumed
    from killswitch.proof.conditions import opaque_texts
    from killswitch.proof.properties import short_ladders
    from killswitch.proof.silence import silence_rows, silent_ranges
    from killswitch.proof.verdicts import LONGEST
    from killswitch.proof.witness import records_of

    graphs = run.policy_set.graphs
    return {
        "digest": run.policy_set.digest,
        "bound": {"evaluations": LONGEST, "seconds_of_a_question": run.limit},
        "seconds": sum(each.seconds for each in run.found),
        "findings": [
            {
                "property": each.property, "policy": each.policy, "subject": each.subject, "outcome": each.outcome,
                "text": each.text, "seconds": each.seconds,
                "witness": None if each.witness is None else records_of(run.graphs[number], each.witness),
                "scenario": run.scenarios.get(number),
            }
            for number, each in enumerate(run.found)
        ],
        "silent": {graph.policy: silent_ranges(graph) for graph in graphs},
        "silent_ranges": {
            graph.policy: [
                {
                    "in_force": row.group, "signal": row.name,
                    "fires": [{"from": band.begins, "level": band.level} for band in row.bands],
                }
                for row in silence_rows(graph)
            ]
            for graph in graphs
        },
        "short_ladders": {graph.policy: short_ladders(graph) for graph in graphs},
        "assumed": {graph.policy: assumed(graph) for graph in graphs},
        "not_lowered": {graph.policy: opaque_texts(graph) for graph in graphs},
    }  # fmt: skip
