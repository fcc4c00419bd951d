"""Verbs that read policies only: `validate`, `schema`, `graph`."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from killswitch.cli import EXIT_FAILED, EXIT_WARNINGS, completion, options
from killswitch.cli.terminal import print_json, print_page
from killswitch.render.document import Items, Page, Section
from killswitch.render.formats import count_of

if TYPE_CHECKING:
    from killswitch.graph.nodes import PolicySet
    from killswitch.policy.diagnostics.diagnostic import Diagnostic
    from killswitch.policy.loader import LoadedDocuments

paths_argument = click.argument("paths", metavar="PATH…", nargs=-1, required=True, type=options.UncheckedPath())


@options.verb("ksctl validate policies/ --strict")
@paths_argument
@click.option("--strict", is_flag=True, help="Exit 3 when there are warnings.")
@options.variant
@options.check_output
@click.pass_context
def validate(context: click.Context, paths: tuple[Path, ...], strict: bool, variant: str | None, output: str) -> None:
    """Check policies: all mistakes of readable documents in one pass.

    PATH is a file or a folder; all of them form one policy set. All declared variants are checked, whichever is
    selected.
    """
    with _uncollected():
        loaded, policy_set, problems = read_set(paths, variant)
    if output == "json":
        print_json(_answer(loaded, policy_set, problems))
    elif output != "text":
        print_report(output, "ksctl validate", loaded, problems, strict=strict)
    else:
        print_page(_page(loaded, policy_set, problems))
    if any(problem.severity == "error" for problem in problems):
        context.exit(EXIT_FAILED)
    if strict and problems:
        context.exit(EXIT_WARNINGS)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection: modules and documents stay until the verb ends, and would all be visited in vain."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_set(
    paths: Sequence[Path], variant: str | None, *, accounts: bool = True
) -> tuple[LoadedDocuments, PolicySet | None, Sequence[Diagnostic]]:
    """Load and compile the paths: documents, policy set (None if there is an error), and diagnostics.

    `accounts`: also check accounts against their venues, and, if the set compiles, whether all recipients can be
    notified. Without garbage collection, which would look at documents that are all kept.
    """
    import gc

    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return _read_set(paths, variant, accounts=accounts)
    finally:
        if was_enabled:
            gc.enable()


def _read_set(
    paths: Sequence[Path], variant: str | None, *, accounts: bool
) -> tuple[LoadedDocuments, PolicySet | None, Sequence[Diagnostic]]:
    from killswitch.accounts.validation import account_misfits
    from killswitch.graph.invariants import compile_invariants
    from killswitch.graph.resolution.routes import unrouted_names
    from killswitch.incident.report.runbooks import compile_all
    from killswitch.policy.diagnostics.diagnostic import has_errors, in_order
    from killswitch.policy.loader import load
    from killswitch.policy.yaml.parsed_texts import ParsedTexts, cache_folder

    parsed = ParsedTexts(cache_folder())
    loaded = load(paths, parse_text=parsed.parse, parse_ahead=parsed.parse_ahead)
    policy_set, problems = compile_all(loaded, variant=variant)
    if policy_set is not None:
        _, wrong = compile_invariants(loaded.documents, policy_set)
        if wrong:
            policy_set, problems = None, in_order((*problems, *wrong))
    if not accounts:
        return loaded, policy_set, problems
    misfits = account_misfits(loaded)
    if policy_set is None or has_errors(misfits):
        return loaded, None, in_order((*problems, *misfits))
    unrouted = unrouted_names(loaded.documents)
    if any(target.kind != "log" for route in policy_set.routes for target in route.targets):  # a log always works
        from killswitch.runner.notify.target_check import target_warnings

        unrouted += target_warnings(policy_set)
    return loaded, policy_set, in_order((*problems, *misfits, *unrouted))


def print_report(
    output: str, verb: str, loaded: LoadedDocuments, problems: Sequence[Diagnostic], *, strict: bool
) -> None:
    """Print diagnostics in a format of other programs: sarif, github or junit. `strict`: warnings are failures."""
    from killswitch.policy.diagnostics import report_formats

    files = [*(each.source.file for each in loaded.documents), *(each.source.file for each in loaded.faulty)]
    print_as(output, problems, lambda: report_formats.junit(verb, files, problems, strict=strict))


def print_as(output: str, problems: Sequence[Diagnostic], junit: Callable[[], str]) -> None:
    """Print diagnostics as sarif, as github, or what `junit` returns."""
    from importlib.metadata import version

    from killswitch.policy.diagnostics import report_formats

    if output == "sarif":
        print_json(report_formats.sarif(problems, version("killswitch"), Path.cwd()))
    elif output == "github":
        for line in report_formats.github(problems, Path.cwd()):
            click.echo(line)
    else:
        click.echo(junit())


def _is_incomplete(loaded: LoadedDocuments) -> bool:
    """Whether parts of the documents are unreadable and therefore not checked further."""
    return loaded.has_unidentified or any(each.gaps.has_flaw(()) for each in loaded.faulty)


def _page(loaded: LoadedDocuments, policy_set: PolicySet | None, problems: Sequence[Diagnostic]) -> Page:
    from killswitch.policy.diagnostics.diagnostic import counts, diagnostics_page

    if policy_set is not None:
        return diagnostics_page(problems, _summary(loaded, policy_set, len(problems)), policy_set.digest)
    sums = [f"{counts(problems)}; `ksctl explain CODE` says more"]
    if _is_incomplete(loaded):
        sums.append("parts that cannot be read are not checked further: correct them and validate again")
    return diagnostics_page(problems, *sums)


def _summary(loaded: LoadedDocuments, policy_set: PolicySet, warnings: int) -> str:
    """What was checked: the documents by kind, and the stages and triggers that they compile to."""
    kinds = Counter(each.kind for each in loaded.documents)
    stages = sum(len(graph.stages) for graph in policy_set.graphs)
    triggers = sum(len(graph.triggers) for graph in policy_set.graphs)
    counted = [count_of(number, kind) for kind, number in kinds.items()]
    return (
        f"ok: {count_of(len(loaded.documents), 'document')} ({', '.join(counted)}), {count_of(stages, 'stage')}, "
        f"{count_of(triggers, 'trigger')}, {count_of(warnings, 'warning')}"
    )


def _answer(loaded: LoadedDocuments, policy_set: PolicySet | None, problems: Sequence[Diagnostic]) -> dict[str, object]:
    from killswitch.policy.diagnostics.diagnostic import as_json

    return {
        "valid": policy_set is not None,
        "complete": not _is_incomplete(loaded),
        "digest": policy_set.digest if policy_set is not None else None,
        "documents": [{"kind": each.kind, "name": each.name, "file": each.source.file} for each in loaded.documents],
        "diagnostics": as_json(problems),
    }


FORMATS = ("events", "plan", "gate-view", "pretrade", "verdict")
"""Formats of other programs with a JSON Schema."""


def _format_schema(what: str) -> dict[str, Any]:
    if what == "events":
        from killswitch.telemetry.events import event_schema

        return event_schema()
    if what == "plan":
        from killswitch.planning.operator.plan_file import plan_schema

        return plan_schema()
    if what == "gate-view":
        from killswitch.limits.view import gate_view_schema

        return gate_view_schema()
    from killswitch.limits.question import question_schema, verdict_schema

    return question_schema() if what == "pretrade" else verdict_schema()


@options.verb("ksctl schema > policies/killswitch.schema.json", "ksctl schema signals")
@click.argument(
    "what",
    metavar="[KIND|signals|events|plan|gate-view|pretrade|verdict|all]",
    default="all",
    shell_complete=completion.schemas,
)
@options.output
def schema(what: str, output: str) -> None:
    """Print the JSON Schema of one kind, all kinds, or a format of other programs; or the signal catalogue."""
    if what == "signals":
        _show_signals(output)
        return
    if what in FORMATS:
        print_json(_format_schema(what))
        return
    from killswitch.policy.kinds import KINDS
    from killswitch.policy.schema.json_schema import schema_of, schema_of_all
    from killswitch.policy.schema.validation import closest
    from killswitch.signals.catalogue import TRIGGER_SIGNALS
    from killswitch.source.settings import KIND, PolicySourceDocument

    if what == KIND:
        print_json(schema_of(KIND, PolicySourceDocument, TRIGGER_SIGNALS))
        return
    others = [*KINDS, KIND, "signals", *FORMATS, "all"]
    if what != "all" and what not in KINDS:
        near = closest(what, others)
        hint = f" Did you mean {near}?" if near else ""
        raise click.UsageError(f"{what} is not one of {', '.join(others)}.{hint}")
    document = schema_of_all(KINDS, TRIGGER_SIGNALS) if what == "all" else schema_of(what, KINDS[what], TRIGGER_SIGNALS)
    print_json(document)


_SIGNAL = ("name", "type", "unit", "arguments", "level", "measures", "meaning", "partly_known", "unknown")
"""Fields of a signal in `schema signals`."""


def _show_signals(output: str) -> None:
    from killswitch.signals.arguments import argument_text, example_text
    from killswitch.signals.catalogue import CATALOGUE

    if output == "json":
        print_json([{part: msgspec.to_builtins(getattr(signal, part)) for part in _SIGNAL} for signal in CATALOGUE])
        return
    sections = []
    for signal in CATALOGUE:
        use = example_text(signal.name, signal.arguments)
        lines = (
            signal.meaning,
            *map(argument_text, signal.arguments),
            f"partly known: {signal.partly_known}",
            f"unknown: {signal.unknown}",
        )
        sections.append(Section(f"{use}  ({signal.unit}, of a {signal.level})", (Items(lines),)))
    print_page(Page("Signals", sections=tuple(sections)))


@options.verb("ksctl graph policies/futures-drawdown --format mermaid")
@paths_argument
@options.option("--format", "form", type=click.Choice(["mermaid", "dot"]), default="mermaid",
                help="Language of the diagram.")  # fmt: skip
@options.variant
@options.output
@click.pass_context
def graph(context: click.Context, paths: tuple[Path, ...], form: str, variant: str | None, output: str) -> None:
    """Print the compiled decision graph as Mermaid or DOT."""
    _, policy_set, problems = read_set(paths, variant, accounts=False)
    if policy_set is None:
        from killswitch.policy.diagnostics.diagnostic import as_json, diagnostics_page

        if output == "json":
            print_json({"format": form, "text": None, "diagnostics": as_json(problems)})
        else:
            print_page(diagnostics_page(problems), err=True)
        context.exit(EXIT_FAILED)
    from killswitch.graph.diagram import dot, mermaid

    drawn = mermaid(policy_set) if form == "mermaid" else dot(policy_set)
    if output == "json":
        print_json({"format": form, "text": drawn, "digest": policy_set.digest})
    else:
        click.echo(drawn.rstrip("\n"))
