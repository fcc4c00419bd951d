"""`ksctl prove`: what is true of the policies in every situation, with witnesses of what is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import click

from killswitch.cli import EXIT_FAILED, options
from killswitch.cli.policy.verbs import paths_argument, read_set
from killswitch.cli.terminal import is_wide, print_json, print_page

if TYPE_CHECKING:
    from killswitch.cli.policy.proof_pages import ProofRun
    from killswitch.graph.invariants import Invariant
    from killswitch.graph.nodes import Graph, PolicySet
    from killswitch.policy.diagnostics.diagnostic import Diagnostic
    from killswitch.proof.solver import Prover
    from killswitch.proof.verdicts import ProofVerdict


@options.verb("ksctl prove policies/futures-drawdown", "ksctl prove policies/ --against main",
              "ksctl prove policies/ --witnesses policies/witnesses --traces")  # fmt: skip
@paths_argument
@options.option("--limit", type=click.FloatRange(min=0.01), default=10.0, show_default=True, metavar="SECONDS",
                help="Time of one question; what takes longer is undecided.")  # fmt: skip
@click.option("--timeout", type=options.DURATION,
              help="Time of all questions together, as 2m; what is not answered by then is undecided.")  # fmt: skip
@options.option("--against", metavar="REF",
                help="Compare with another set instead: a file or folder, or the paths at a git revision.")  # fmt: skip
@options.option("--witnesses", type=options.OUT_FOLDER, metavar="FOLDER",
                help="Write each counterexample into this folder as a scenario, which `ksctl test` runs.")  # fmt: skip
@options.option("--traces", is_flag=True, help="With --witnesses, also write a scenario that reaches each stage.")
@options.variant
@options.page_output
@click.pass_context
def prove(
    context: click.Context,
    paths: tuple[Path, ...],
    limit: float,
    timeout: float | None,
    against: str | None,
    witnesses: Path | None,
    traces: bool,
    variant: str | None,
    output: str,
) -> None:
    """Prove properties of the policies, and their invariants, for every situation that their signals allow.

    Exits 1 when a property is refuted or undecided. What is refuted is shown with a witness, which the engine has
    replayed. With --against, exits 1 unless the set is at least as strict as REF: TIGHTENING or EQUIVALENT.
    """
    from killswitch.cli.policy.comparison_pages import compared_with
    from killswitch.cli.policy.proof_pages import proofs_answer, proofs_page
    from killswitch.proof.solver import Prover, SolverMissingError

    if traces and (witnesses is None or against is not None):
        raise click.UsageError("--traces belongs to --witnesses FOLDER, and not to --against")
    try:
        prover = Prover(perf_counter, limit, until=None if timeout is None else perf_counter() + timeout)
    except SolverMissingError as error:
        raise click.ClickException(str(error)) from error
    read = _read(paths, variant)
    if isinstance(read, ReadProblems):
        read.show(output)
        context.exit(EXIT_FAILED)
    policy_set, invariants = read
    if against is not None:
        verdict = compared_with(prover, _base(paths, against, variant), policy_set, witnesses, output)
        context.exit(0 if verdict in ("TIGHTENING", "EQUIVALENT") else EXIT_FAILED)
    run = prove_all(prover, policy_set, invariants, witnesses, traces=traces)
    if output == "json":
        print_json(proofs_answer(run))
    else:
        page = proofs_page(run, is_wide=is_wide() or output != "text", is_drawn=output == "html")
        print_page(page, output)
    if any(each.outcome != "proved" for each in run.found):
        context.exit(EXIT_FAILED)


class ReadProblems:
    """What is wrong with the paths, so that nothing is proved."""

    def __init__(self, problems: Sequence[Diagnostic]) -> None:
        self.problems = problems

    def show(self, output: str) -> None:
        """Print what is wrong."""
        from killswitch.policy.diagnostics.diagnostic import as_json, diagnostics_page

        if output == "json":
            print_json({"findings": None, "diagnostics": as_json(self.problems)})
        else:
            print_page(diagnostics_page(self.problems), err=True)


def _read(paths: Sequence[Path], variant: str | None) -> tuple[PolicySet, Sequence[Invariant]] | ReadProblems:
    """The policies and their invariants, or what is wrong with them."""
    from killswitch.graph.invariants import compile_invariants

    loaded, policy_set, problems = read_set(paths, variant, accounts=False)
    if policy_set is None:
        return ReadProblems(problems)
    if not policy_set.graphs:
        raise click.ClickException("there is no policy to prove: name a file or a folder with a Policy")
    invariants, _ = compile_invariants(loaded.documents, policy_set)
    return policy_set, invariants


def prove_all(
    prover: Prover, policy_set: PolicySet, invariants: Sequence[Invariant], folder: Path | None, *, traces: bool
) -> ProofRun:
    """Prove everything, and write the witnesses."""
    from killswitch.cli.policy.proof_pages import ProofRun
    from killswitch.proof.invariants import HOLDS, prove_invariants, with_columns
    from killswitch.proof.policy_sets import nothing_reopened, routes_deliver
    from killswitch.proof.properties import prove as proofs_of

    found: list[ProofVerdict] = []
    for graph in policy_set.graphs:
        found += proofs_of(prover, graph)
        found += prove_invariants(prover, graph, invariants)
    found += [*routes_deliver(policy_set), *nothing_reopened(policy_set)]
    by_name = {graph.policy: graph for graph in policy_set.graphs}
    stated = {(each.name, each.policy): each for each in invariants}
    graphs: dict[int, Graph] = {}
    for number, each in enumerate(found):
        graph_of = by_name.get(each.policy)
        if graph_of is not None:
            own = stated.get((each.subject, each.policy)) if each.property == HOLDS else None
            graphs[number] = graph_of if own is None else with_columns(graph_of, own)
    scenarios = {} if folder is None else dict(_scenarios(policy_set, found, graphs, folder, traces=traces))
    return ProofRun(policy_set, found, graphs, scenarios, prover.limit)


SLUGS = {
    "a stage can fire": "fires",
    "a deeper loss never demands a lower level": "deeper",
    "past the outermost threshold the last level is demanded or in force": "outermost",
    "no trigger is idle": "idle",
    "unknown signals are reported": "unknown",
    "an automatic reset holds no trigger": "reset",
    "an invariant holds": "invariant",
}
"""Property → how the names of its witnesses begin."""
NO_WITNESS = {
    "a stage can fire": "no run fires the stage, so that there is none to show",
    "no trigger is idle": "that a trigger never changes anything is true of every run, and no single run shows it",
    "a notice of unknown signals is delivered": (
        "an expectation names routes that a message reaches, and cannot say that it reaches none; "
        "`ksctl test --update` shows the notice and its routes"
    ),
    "no hedge and no spot hop opens what another policy closes": (
        "scopes and selections are compared as they are written; whether an order opens anything depends on the book"
    ),
}
"""Property → why what refutes it is no scenario."""


def _scenarios(
    policy_set: PolicySet, found: Sequence[ProofVerdict], graphs: dict[int, Graph], folder: Path, *, traces: bool
) -> Iterator[tuple[int, str]]:
    """For each finding that is not proved (with `traces` also each that fires a stage), its file or why it has none."""
    from killswitch.cli.policy.comparison_pages import write_file
    from killswitch.operations.witness_scenarios import WitnessItem, file_name, scenario_of
    from killswitch.proof.witness import replay, unknown_evaluation

    taken: set[str] = set()
    for number, each in enumerate(found):
        is_trace = each.outcome == "proved" and traces and each.witness is not None
        if each.outcome == "proved" and not is_trace:
            continue
        witness, graph = each.witness, graphs.get(number)
        slug = SLUGS.get(each.property, "")
        if slug == "unknown" and each.outcome == "refuted" and graph is not None:
            witness = replay(graph, [unknown_evaluation(graph)])
        if witness is None or graph is None:
            if each.outcome == "refuted":
                yield number, f"No scenario: {NO_WITNESS.get(each.property, 'none was found')}."
            continue
        name = file_name(each.policy, slug, each.subject)
        while name in taken:
            name = file_name(name[:50], str(len(taken)))
        taken.add(name)
        written = scenario_of(WitnessItem(name, graph, witness, tuple(_comments(each))), policy_set)
        yield number, f"Scenario: {write_file(folder, written)}" if written.text else f"No scenario: {written.reason}."


def _comments(verdict: ProofVerdict) -> Iterator[str]:
    """What the file of a witness says above its document."""
    of = " ".join(part for part in (verdict.policy, verdict.subject) if part)
    if verdict.outcome == "proved":
        yield f"How `{verdict.subject}` of {verdict.policy} is reached, found by `ksctl prove`."
        return
    yield f"A counterexample of `ksctl prove` to: {verdict.property}."
    yield f"{of}: {verdict.text}."
    yield "It passes while the engine does what is shown here. Once the policy is mended it fails; remove it then."


def _base(paths: Sequence[Path], against: str, variant: str | None) -> PolicySet:
    """The policy set to compare with: the paths at a git revision, read from its objects, or REF as a path."""
    from killswitch.operations.impact.policy_side import UnreadableSideError, side_of_revision
    from killswitch.policy.diagnostics.diagnostic import diagnostics_page

    if Path(against).exists():
        _, policy_set, problems = read_set([Path(against)], variant, accounts=False)
    else:
        try:
            side = side_of_revision(paths, against, variant)
        except UnreadableSideError as error:
            way_out = "name a file, a folder, or a revision that `git rev-parse` knows"
            raise click.ClickException(f"{error}: {way_out}") from error
        policy_set, problems = side.policies if side.compiles else None, side.problems
    if policy_set is None:
        print_page(diagnostics_page(problems), err=True)
        raise click.ClickException(f"the policies of {against} have errors, so there is nothing to compare with")
    if not policy_set.graphs:
        raise click.ClickException(f"{against} holds no policy, so there is nothing to compare with; name another REF")
    return policy_set
