"""`ksctl prove`: what is true of the policies in every situation, with witnesses of what is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli import EXIT_FAILED, options
from killswitch.cli.policy.verbs import paths_argument, read_set
from killswitch.cli.terminal import print_json, print_page
from killswitch.render.document import Code, Items, Page, Section, Table

if TYPE_CHECKING:
    from killswitch.graph.nodes import PolicySet
    from killswitch.proof.against import Change, SetComparison
    from killswitch.proof.verdicts import ProofVerdict


@options.verb("ksctl prove policies/futures-drawdown", "ksctl prove policies/ --against main")
@paths_argument
@options.option("--limit", type=click.FloatRange(min=0.01), default=10.0, show_default=True, metavar="SECONDS",
                help="Time of one question; what takes longer is undecided.")  # fmt: skip
@options.option("--against", metavar="REF",
                help="Compare with another set instead: a file or folder, or the paths at a git revision.")  # fmt: skip
@options.variant
@options.output
@click.pass_context
def prove(
    context: click.Context,
    paths: tuple[Path, ...],
    limit: float,
    against: str | None,
    variant: str | None,
    output: str,
) -> None:
    """Prove properties of the policies for every situation that their signals allow.

    Exits 1 when a property is refuted or undecided. What is refuted is shown with a witness, which the engine has
    replayed. With --against, exits 1 unless the set is at least as strict as REF: TIGHTENING or EQUIVALENT.
    """
    from time import perf_counter

    from killswitch.proof.against import compare_sets
    from killswitch.proof.policy_sets import nothing_reopened, routes_deliver
    from killswitch.proof.properties import prove as proofs_of
    from killswitch.proof.solver import Prover

    _, policy_set, problems = read_set(paths, variant, accounts=False)
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
    if against is not None:
        compared = compare_sets(prover, _base(paths, against, variant), policy_set)
        if output == "json":
            print_json(_comparison_answer(compared))
        else:
            print_page(_comparison_page(compared))
        context.exit(0 if compared.verdict() in ("TIGHTENING", "EQUIVALENT") else EXIT_FAILED)
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
    from killswitch.proof.properties import short_ladders
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
    short = tuple(f"{graph.policy}: {text}" for graph in policy_set.graphs for text in short_ladders(graph))
    if short:
        sections.append(Section("Signals that never reach the last level", (Items(short),)))
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
    from killswitch.proof.properties import short_ladders
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
        "short_ladders": {graph.policy: short_ladders(graph) for graph in policy_set.graphs},
        "assumed": {graph.policy: assumed(graph) for graph in policy_set.graphs},
        "not_lowered": {graph.policy: opaque_texts(graph) for graph in policy_set.graphs},
    }  # fmt: skip


PARTS = ("scope", "demand", "memory", "response")
NOT_CLAIMED = (
    "Asked at every moment of one history: whenever the base fires, the head fires at once and at least as hard, and "
    "both reset alike. Not claimed: how many firings there are, how much is closed in all, or how a run ends."
)


def _base(paths: Sequence[Path], against: str, variant: str | None) -> PolicySet:
    """The policy set to compare with: REF as a path, or the paths at that git revision."""
    from tempfile import TemporaryDirectory

    if Path(against).exists():
        return _compiled([Path(against)], variant, against)
    with TemporaryDirectory() as folder:
        return _compiled([_checked_out(path, against, Path(folder) / str(i)) for i, path in enumerate(paths)], variant,
                         against)  # fmt: skip


def _compiled(paths: Sequence[Path], variant: str | None, name: str) -> PolicySet:
    _, policy_set, problems = read_set(paths, variant, accounts=False)
    if policy_set is None:
        from killswitch.policy.diagnostics.diagnostic import diagnostics_page

        print_page(diagnostics_page(problems), err=True)
        raise click.ClickException(f"the policies of {name} have errors, so there is nothing to compare with")
    return policy_set


def _checked_out(path: Path, revision: str, to: Path) -> Path:
    """A copy of `path` at a git revision below `to`."""
    import io
    import subprocess
    import tarfile

    where = path if path.is_dir() else path.parent
    wanted = "." if path.is_dir() else path.name
    command = ["git", "-C", str(where), "archive", "--format=tar", revision, "--", wanted]
    try:
        found = subprocess.run(command, capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", b"") or str(error).encode()
        reason = output.decode(errors="replace").strip().splitlines()[-1:]
        way_out = "name a file, a folder, or a revision that `git rev-parse` knows"
        raise click.ClickException(f"cannot read {path} at {revision} ({''.join(reason)}): {way_out}") from error
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(to, filter="data")
    return to if path.is_dir() else to / path.name


def _comparison_page(compared: SetComparison) -> Page:
    words = tuple((part, compared.verdict(part)) for part in PARTS)
    texts = tuple(
        (each.part, each.policy, _direction(each.keeps, each.exceeds_nothing), each.text) for each in compared.changes
    )
    sections = [Section("Parts", (Table(("part", "verdict"), words),))]
    if texts:
        sections.append(Section("Differences", (Table(("part", "policy", "head is", "why"), texts),)))
    for each in compared.changes:
        if each.witness is not None:
            sections.append(Section(f"Witness: {each.policy}: {each.text}", (Code(_lines(each)),)))
    messages = compared.messages or ("the same",)
    sections.append(Section("Messages", (Items(messages),)))
    return Page("Comparison", summary=(compared.verdict(), NOT_CLAIMED), sections=tuple(sections))


def _lines(change: Change) -> tuple[str, ...]:
    """A witness, one line for each evaluation."""
    from killswitch.proof.witness import table_of

    if change.graph is None or change.witness is None:
        return ()
    head, rows = table_of(change.graph, change.witness)
    return tuple("; ".join(f"{name} {value}" for name, value in zip(head, row, strict=True)) for row in rows)


def _direction(keeps: bool | None, mirror: bool | None) -> str:
    if keeps is None or mirror is None:
        return "undecided"
    return {(True, True): "equal", (True, False): "harder", (False, True): "softer", (False, False): "neither"}[
        keeps, mirror
    ]


def _comparison_answer(compared: SetComparison) -> dict[str, object]:
    from killswitch.proof.witness import records_of

    return {
        "verdict": compared.verdict(),
        "parts": {part: compared.verdict(part) for part in PARTS},
        "changes": [
            {
                "part": each.part, "policy": each.policy, "head_is": _direction(each.keeps, each.exceeds_nothing),
                "text": each.text,
                "witness": None if each.witness is None or each.graph is None
                else records_of(each.graph, each.witness),
            }
            for each in compared.changes
        ],
        "messages": list(compared.messages),
    }  # fmt: skip
