"""What each tool finds in a mutant, in one process: parsed texts, solver and originals are shared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from msgspec import Struct

from killswitch.accounts.validation import account_misfits
from killswitch.graph.nodes import PolicySet
from killswitch.graph.resolution.routes import unrouted_names
from killswitch.incident.report.runbooks import compile_all
from killswitch.lab.recording import read
from killswitch.policy.diagnostics.diagnostic import Diagnostic, has_errors
from killswitch.policy.lint.linting import lint
from killswitch.policy.lint.own_rules import OwnRules
from killswitch.policy.loader import LoadedDocuments, load
from killswitch.policy.yaml.parser import DocumentRoot, YamlProblem, parse
from killswitch.proof.against import SetComparison, compare_sets
from killswitch.proof.policy_sets import nothing_reopened, routes_deliver
from killswitch.proof.properties import prove
from killswitch.proof.solver import Prover
from killswitch.scenario.coverage import coverage
from killswitch.scenario.resolve import resolve
from killswitch.scenario.running import ScenarioRunner
from killswitch.scenario.trace import joined
from tests.corpus.mutant import Edit, Mutant, Scenarios

NOW = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z, for rules about dates."""


class Read(Struct, frozen=True):
    """What the tools find in one set; without a compiled set only `validate` finds anything."""

    problems: frozenset[tuple[str, str]]
    """Code and message."""
    compiled: PolicySet | None
    scenarios: Scenarios = ""
    has_scenarios: bool = False
    unproved: frozenset[tuple[str, str, str]] = frozenset()
    """Policy, property and subject."""


class Judge:
    """Runs the tools on shipped sets and their mutants. `policies`: the shipped folder; `folder`: for edited files."""

    def __init__(self, policies: Path, folder: Path) -> None:
        self._policies = policies
        self._folder = folder
        self._prover = Prover(perf_counter)
        self._parsed: dict[str, list[DocumentRoot]] = {}
        self._originals: dict[tuple[str, tuple[Edit, ...]], Read] = {}

    def original(self, mutant: Mutant) -> Read:
        """The set that the mutant is compared with."""
        key = mutant.shipped, mutant.given
        if key not in self._originals:
            self._originals[key] = self._read(self._files(mutant.shipped, mutant.given))
        return self._originals[key]

    def mutated(self, mutant: Mutant) -> Read:
        """The mutant itself."""
        return self._read(self._files(mutant.shipped, mutant.all_edits))

    def compared(self, mutant: Mutant) -> SetComparison:
        """`--against` the original. ValueError if one of both is not valid."""
        sets = [self._compiled(self._files(mutant.shipped, each))[1] for each in (mutant.given, mutant.all_edits)]
        if sets[0] is None or sets[1] is None:
            raise ValueError(f"{mutant.name}: there is nothing to compare")
        return compare_sets(self._prover, sets[0], sets[1])

    def _files(self, shipped: str, edits: tuple[Edit, ...]) -> dict[str, str]:
        files = {each.name: each.read_text(encoding="utf-8") for each in (self._policies / shipped).glob("*.yaml")}
        for each in edits:
            files = each.of(files)
        return files

    def _compiled(self, files: dict[str, str]) -> tuple[LoadedDocuments, PolicySet | None, list[Diagnostic]]:
        for path in self._folder.iterdir():
            path.unlink()
        for name, text in files.items():
            (self._folder / name).write_text(text, encoding="utf-8")
        documents = load([self._folder], parse_text=self._parse)
        compiled, problems = compile_all(documents, variant=None)
        found = [*problems, *account_misfits(documents)]
        if compiled is None or has_errors(found):
            return documents, None, found
        return documents, compiled, [*found, *unrouted_names(documents.documents)]

    def _read(self, files: dict[str, str]) -> Read:
        documents, compiled, found = self._compiled(files)
        if compiled is None:
            return Read(frozenset((each.code, each.message) for each in found), None)
        found += [each.diagnostic for each in lint(documents.documents, NOW, OwnRules())]
        scenarios, mistakes = resolve(documents.documents, compiled)
        ran = [ScenarioRunner(compiled, lambda path: read(Path(path))).run(each) for each in scenarios]
        verdicts = [each for graph in compiled.graphs for each in prove(self._prover, graph)]
        verdicts += [*routes_deliver(compiled), *nothing_reopened(compiled)]
        outcome: Scenarios = ""
        if mistakes or any(each.result.outcome != "passed" for each in ran):
            outcome = "fails"
        elif ran and coverage(compiled, joined(each.trace for each in ran)).share != 1:
            outcome = "covers less"
        return Read(
            frozenset((each.code, each.message) for each in found), compiled, outcome, "scenarios.yaml" in files,
            frozenset((it.policy, it.property, it.subject) for it in verdicts if it.outcome != "proved"),
        )  # fmt: skip

    def _parse(self, text: str, report: Callable[[YamlProblem], None]) -> list[DocumentRoot]:
        """Parse a text once, unless it has problems."""
        if text not in self._parsed:
            problems: list[YamlProblem] = []
            roots = parse(text, problems.append)
            for each in problems:
                report(each)
            if problems:
                return roots
            self._parsed[text] = roots
        return self._parsed[text]
