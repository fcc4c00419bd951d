"""`ksctl prove`: what is true of the policies in every situation, with witnesses of what is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli import EXIT_FAILED, options
from killswitch.cli.policy.verbs import paths_argument, read
from killswitch.cli.terminal import print_json, print_page
from killswitch.render.document import Code, Items, Page, Section, Table

if TYPE_CHECKING:
    from killswitch.graph.nodes import PolicySet
    from killswitch.proof.verdicts import ProofVerdict


@options.verb("ksctl prove policies/futures-drawdown")
@paths_argument
@options.option("--limit", type=click.FloatRange(min=0.01), default=10.0, show_default=True, metavar="SECONDS",
                help="Time of one question; what takes longer is undecided.")  # fmt: skip
@options.variant
@options.output
@click.pass_context
def prove(context: click.Context, paths: tuple[Path, ...], limit: float, variant: str | None, output: str) -> None:
    """Prove properties of the policies for every situation that their signals allow.

    Exits 1 when a property is refuted or undecided. What is refuted is shown with a witness, which the engine has
    replayed.
    """
    from time import perf_counter

    from killswitch.proof.policy_sets import nothing_reopened, routes_deliver
    from killswitch.proof.properties import prove as proofs_of
    from killswitch.proof.solver import Prover

    _, policy_set, problems = read(paths, variant, accounts=False)
    if policy_set is None:
        from killswitch.policy.diagnostics.diagnostic import as_json, diagnostics_page

        if output == "json":
            print_json({"findings": None, "diagnostics": as_json(problems)})
        else:
            print_page(diagnostics_page(problems), err=True)
        context.exit(EXIT_FAILED)
    if not policy_set.graphs:
        raise click.ClickException("there is no policy to prove: name a file or a folder with a Policy")
    prover = Prover(perf_counter, limit)
    found = [each for graph in policy_set.graphs for each in proofs_of(prover, graph)]
    found += [*routes_deliver(policy_set), *nothing_reopened(policy_set)]
    if output == "json":
        print_json(_answer(policy_set, found))
    else:
        print_page(_page(policy_set, found))
    if any(each.outcome != "proved" for each in found):
        context.exit(EXIT_FAILED)


def _page(policy_set: PolicySet, found: Sequence[ProofVerdict]) -> Page:
    from killswitch.proof.axioms import assumed
    from killswitch.proof.conditions import opaque_texts
    from killswitch.proof.policy_sets import silence_picture, silent_ranges
    from killswitch.proof.witness import table_of

    counted = Counter(each.outcome for each in found)
    rows = tuple(
        (each.policy, each.property, each.subject, each.outcome, f"{each.seconds * 1000:.0f}", each.text)
        for each in found
    )
    head = ("policy", "property", "of", "verdict", "ms", "why")
    sections = [Section("Properties", (Table(head, rows, numbers=(4,), expendable=(4, 5)),))]
    graphs = {graph.policy: graph for graph in policy_set.graphs}
    for each in found:
        if each.outcome == "refuted" and each.witness is not None:
            table = Table(*table_of(graphs[each.policy], each.witness))
            sections.append(Section(f"Witness: {each.policy}: {each.property}", (each.text, table)))
    for graph in policy_set.graphs:
        silent = silent_ranges(graph)
        if silent:
            key = "one character for each percent from 1% to 40%; · is no response, a digit the level that may fire"
            drawn = Code((*silence_picture(graph), key))
            sections.append(Section(f"Silent while latched: {graph.policy}", (Items(silent), drawn)))
    assumptions = dict.fromkeys(text for graph in policy_set.graphs for text in assumed(graph))
    if assumptions:
        sections.append(Section("Assumed, by the declarations of the signals", (Items(tuple(assumptions)),)))
    opaque = dict.fromkeys(text for graph in policy_set.graphs for text in opaque_texts(graph))
    if opaque:
        sections.append(Section("Not lowered: true, false or unknown at any time", (Items(tuple(opaque)),)))
    summary = ", ".join(f"{counted[word]} {word}" for word in ("proved", "refuted", "undecided"))
    return Page("Proofs", summary=(summary,), sections=tuple(sections))


def _answer(policy_set: PolicySet, found: Sequence[ProofVerdict]) -> dict[str, object]:
    from killswitch.proof.axioms import assumed
    from killswitch.proof.conditions import opaque_texts
    from killswitch.proof.policy_sets import silent_ranges
    from killswitch.proof.witness import records_of

    graphs = {graph.policy: graph for graph in policy_set.graphs}
    return {
        "digest": policy_set.digest,
        "findings": [
            {
                "property": each.property, "policy": each.policy, "subject": each.subject, "outcome": each.outcome,
                "text": each.text, "seconds": each.seconds,
                "witness": None if each.witness is None else records_of(graphs[each.policy], each.witness),
            }
            for each in found
        ],
        "silent": {graph.policy: silent_ranges(graph) for graph in policy_set.graphs},
        "assumed": {graph.policy: assumed(graph) for graph in policy_set.graphs},
        "not_lowered": {graph.policy: opaque_texts(graph) for graph in policy_set.graphs},
    }  # fmt: skip
