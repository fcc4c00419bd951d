"""`ksctl test`: runs scenarios, and computes what they cover of the policies."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import Struct
from msgspec.structs import replace

from killswitch.cli import EXIT_FAILED
from killswitch.cli.options import (
    COUNT,
    DURATION,
    IN_FILE,
    OUT_FILE,
    ParsedParam,
    UncheckedPath,
    check_output,
    file_errors,
    option,
    variant,
    verb,
)
from killswitch.cli.policy.verbs import print_as, print_report, read_set
from killswitch.cli.terminal import print_json, print_note, print_page, print_text
from killswitch.render.formats import count_of

if TYPE_CHECKING:
    from killswitch.graph.nodes import PolicySet
    from killswitch.model.snapshot import Snapshot
    from killswitch.policy.diagnostics.diagnostic import Diagnostic
    from killswitch.policy.loader import LoadedDocuments
    from killswitch.scenario.cases import Scenario
    from killswitch.scenario.coverage import PolicyCoverage
    from killswitch.scenario.running import CaseResult, Ran

WATCH_EVERY = 0.5
"""Seconds between two looks at the files."""


def read_recording(path: str) -> Iterator[Snapshot]:
    """The snapshots of a recording that a scenario names."""
    from killswitch.lab.recording import read

    return read(Path(path))


def _instant(text: str) -> datetime:
    from killswitch.model.instant import from_micros
    from killswitch.policy.schema.part import MistakeError
    from killswitch.policy.schema.scalars import moment

    try:
        return from_micros(moment(text))
    except MistakeError as mistake:
        raise ValueError(f"{mistake.message}; {mistake.fix}") from mistake


INSTANT = ParsedParam("time", _instant)
"""A time with its zone."""


class ScenarioOptions(Struct, frozen=True):
    """The options of one run."""

    paths: tuple[Path, ...]
    variant: str | None
    pattern: str | None
    from_recording: Path | None
    between: tuple[datetime, datetime] | None
    save_as: Path | None
    jobs: int
    timeout: float
    allow_empty: bool
    update: bool
    fail_under: Fraction | None
    coverage: bool
    coverage_html: Path | None
    output: str


def within(limit: float, run: Callable[[], str]) -> str | None:
    """What `run` returns; None if it takes longer than `limit` seconds, also if it hangs inside of a step."""
    from killswitch.deadline import OverTimeError, interrupted_after

    try:
        with interrupted_after(limit):
            return run()
    except OverTimeError:
        return None


def _share(_context: click.Context, _param: click.Parameter, text: str | None) -> Fraction | None:
    if text is None:
        return None
    try:
        found = Fraction(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except (ValueError, ZeroDivisionError):
        found = Fraction(-1)
    if not 0 <= found <= 1:
        raise click.BadParameter(f"{text!r} is not a share; write 100%, 99.5% or 299/300")
    return found


@verb("ksctl test policies/circuit-breaker", "ksctl test policies/circuit-breaker --run trip --coverage",
      "ksctl test policies --fail-under 100% --output junit",
      "ksctl test policies --from-recording run.jsonl.gz --between 2026-03-02T08:00:00Z 2026-03-02T10:00:00Z "
      "--save-as policies/march.yaml")  # fmt: skip
@click.argument("paths", metavar="PATH…", nargs=-1, required=True, type=UncheckedPath())
@click.option("--run", "pattern", metavar="PATTERN", help="Only scenarios whose name contains PATTERN; * is any text.")
@click.option("--from-recording", type=IN_FILE, metavar="FILE",
              help="Make a scenario of this recording, print what it shows, and run nothing else.")  # fmt: skip
@click.option("--between", nargs=2, type=INSTANT, metavar="A B",
              help="The stretch of the recording, such as 2026-03-02T08:00:00Z 2026-03-02T10:00:00Z.")  # fmt: skip
@click.option("--save-as", type=OUT_FILE, metavar="FILE",
              help="The scenario to write, a new .yaml file; its snapshots are written next to it.")  # fmt: skip
@option("--jobs", type=COUNT, default=0, help="Processes; 0 is one for each processor.")
@option("--timeout", type=DURATION, default="30s", help="Time limit of each scenario.")
@click.option("--watch", is_flag=True, help="Run again whenever a file changes, until Ctrl-C.")
@click.option("--update", is_flag=True, help="Print what was seen as expectations. Writes no file.")
@click.option("--allow-empty", is_flag=True, help="A run without a scenario is no failure.")
@click.option("--coverage", is_flag=True, help="Print the coverage, with the text of the policies line by line.")
@click.option("--coverage-html", type=OUT_FILE, metavar="FILE", help="Write the coverage as an HTML page.")
@click.option("--fail-under", metavar="SHARE", callback=_share,
              help="Fail if less is covered, such as 100% or 299/300; exact, never rounded.")  # fmt: skip
@variant
@check_output
@click.pass_context
def test(context: click.Context, /, watch: bool, **given: object) -> None:
    """Run the scenarios next to policies, and compare what fires with what they expect.

    PATH is a file or a folder; all of them form one policy set, with its scenarios. An expectation that nothing meets
    fails, and so does a firing that nothing expects.
    """
    options = ScenarioOptions(**given)  # type: ignore[arg-type] # click passes the options by their names
    if options.from_recording is not None:
        context.exit(_from_recording(options))
    if options.between or options.save_as:
        raise click.UsageError("--between and --save-as belong to --from-recording")
    if not watch:
        context.exit(_run(options))
    watch_files(options.paths, lambda: _run(options), time.sleep)


def watch_files(
    paths: Sequence[Path], run: Callable[[], object], sleep: Callable[[float], None], most: int | None = None
) -> None:
    """Call `run`, and again after each change of a file below `paths`; at most `most` times."""
    runs = 0
    while most is None or runs < most:
        before = _signature(paths)
        run()
        runs += 1
        if runs == most:
            return
        print_note("waiting for a change; Ctrl-C ends")
        while _signature(paths) == before:
            sleep(WATCH_EVERY)


def _signature(paths: Sequence[Path]) -> dict[str, tuple[int, int]]:
    """Each file with its time of change and its size."""
    found: dict[str, tuple[int, int]] = {}
    for path in paths:
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            try:
                stat = file.stat()
            except OSError:  # it was just removed, which is a change
                continue
            found[str(file)] = (stat.st_mtime_ns, stat.st_size)
    return found


def _run(options: ScenarioOptions) -> int:
    """Load, run and print once; returns the exit code."""
    from killswitch.policy.diagnostics.diagnostic import has_errors
    from killswitch.scenario.coverage import coverage
    from killswitch.scenario.running import run_all
    from killswitch.scenario.trace import joined

    loaded, policies, scenarios, problems = _load(options)
    if policies is None or has_errors(problems):
        _print_problems(loaded, problems, options.output)
        return EXIT_FAILED
    chosen = [each for each in scenarios if _is_chosen(each, options.pattern)]
    jobs = options.jobs or os.cpu_count() or 1
    gc.freeze()  # documents and graphs stay until the end: looking for garbage among them costs a tenth of the time
    ran = run_all(policies, chosen, read_recording, jobs=jobs, within=partial(within, options.timeout))
    found = coverage(policies, joined(each.trace for each in ran))
    results = [each.result for each in ran]
    _print(results, found, options)
    return _verdict(ran, found, options)


def _from_recording(options: ScenarioOptions) -> int:
    """Write the stretch of the recording and its scenario, and print what the scenario shows."""
    from killswitch.scenario.pages import results_page, seen_page
    from killswitch.scenario.running import ScenarioRunner

    target, between = options.save_as, options.between
    if target is None or between is None:
        raise click.UsageError("--from-recording needs --between A B and --save-as FILE")
    loaded, policies, _, problems = _load(options)
    if policies is None:
        _print_problems(loaded, problems, options.output)
        return EXIT_FAILED
    count = _write_stretch(options.from_recording, target, between, [graph.policy for graph in policies.graphs])
    loaded, policies, scenarios, problems = _load(replace(options, paths=(*options.paths, target)))
    chosen = [each for each in scenarios if each.place.file == str(target)]
    if policies is None or not chosen:
        _print_problems(loaded, problems, options.output)
        return EXIT_FAILED
    results = [ScenarioRunner(policies, read_recording).run(each).result for each in chosen]
    print_page(results_page(results))
    print_page(seen_page(results))
    print_note(f"{target} replays {count_of(count, 'snapshot')}; write what is right into its `expect`")
    return 0 if all(each.outcome != "error" for each in results) else EXIT_FAILED


def _write_stretch(
    source: Path | None, target: Path, between: tuple[datetime, datetime], policies: Sequence[str]
) -> int:
    """Write the snapshots and the scenario; returns the number of snapshots. Existing files are never replaced."""
    from killswitch.lab.recording import RecordingWriter, stretch
    from killswitch.policy.schema.part import MistakeError
    from killswitch.policy.schema.scalars import name

    begins, ends = between
    if begins > ends:
        raise click.UsageError("--between: the end is before the begin")
    if source is None or _is_store(source):
        raise click.ClickException(
            f"{source} is a store. Of a tick it keeps the unit value and the profit of each position, and not its "
            "contracts, prices, orders, fills and health, without which policies would decide otherwise. "
            "Name a recording: `ksctl run --record FILE` writes one from now on. The snapshot of a decision that was "
            "taken is in the store, and `ksctl explain ID` shows it"
        )
    try:
        named = name(target.stem)
    except MistakeError as mistake:
        raise click.UsageError(f"--save-as: {mistake.message}; {mistake.fix}") from mistake
    snapshots = target.with_suffix(".jsonl.gz")
    for file in (target, snapshots):
        if file.exists():
            raise click.ClickException(f"{file} already exists; name another file with --save-as")
    found = list(stretch(read_recording(str(source)), begins, ends))
    if not found:
        raise click.ClickException(f"{source} has no snapshot between {begins} and {ends}")
    with file_errors(f"cannot write {target}"):
        with RecordingWriter(snapshots) as writer:
            for each in found:
                writer.write(each)
        target.write_text(_scenario_of_recording(named, policies, snapshots.name), encoding="utf-8")
    return len(found)


def _scenario_of_recording(name: str, policies: Sequence[str], recording: str) -> str:
    """The YAML of a scenario that replays `recording`, a path relative to it, and expects that nothing fires."""
    return (
        "apiVersion: killswitch.dev/v1\n"
        "kind: Scenario\n"
        f"metadata: {{name: {name}}}\n"
        "spec:\n"
        f"  policies: [{', '.join(policies)}]\n"
        f"  recording: {recording}\n"
        "  # What fires is a failure until it is written here: `ksctl test --update` prints what was seen.\n"
        "  expect: []\n"
    )


def _is_store(path: Path) -> bool:
    with file_errors(f"cannot read {path}"), path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def _is_chosen(scenario: Scenario, pattern: str | None) -> bool:
    return pattern is None or fnmatchcase(scenario.name, f"*{pattern}*")


def _load(
    options: ScenarioOptions,
) -> tuple[LoadedDocuments, PolicySet | None, Sequence[Scenario], Sequence[Diagnostic]]:
    from killswitch.policy.diagnostics.diagnostic import in_order
    from killswitch.scenario.resolve import resolve

    loaded, policies, problems = read_set(options.paths, options.variant, accounts=False)
    if policies is None:
        return loaded, None, (), problems
    scenarios, found = resolve(loaded.documents, policies)
    return loaded, policies, scenarios, in_order((*problems, *found))


def _print_problems(loaded: LoadedDocuments, problems: Sequence[Diagnostic], output: str) -> None:
    from killswitch.policy.diagnostics.diagnostic import as_json, counts, diagnostics_page

    if output == "json":
        print_json({"diagnostics": as_json(problems)})
        return
    if output != "text":
        print_report(output, "ksctl test", loaded, problems, strict=False)
    sums = f"{counts(problems)}; nothing was run; `ksctl explain CODE` says more"
    print_page(diagnostics_page(problems, sums), err=output != "text")


def _print(results: Sequence[CaseResult], found: PolicyCoverage, options: ScenarioOptions) -> None:
    from killswitch.policy.diagnostics.report_formats import junit_of
    from killswitch.scenario import results as reported
    from killswitch.scenario.pages import coverage_line, coverage_page, results_page, seen_page

    texts = {} if not (options.coverage or options.coverage_html) else _policy_texts(found)
    if options.output == "json":
        print_json(reported.as_json(results, found))
    elif options.output != "text":
        problems = tuple(reported.diagnostics(results))
        print_as(options.output, problems, lambda: junit_of("ksctl test", reported.cases(results), strict=False))
    else:
        print_page(results_page(results))
        if options.update:
            print_page(seen_page(results))
        if options.coverage:
            print_page(coverage_page(found, texts))
        else:
            print_text(coverage_line(found))
    if options.coverage_html is not None:
        from killswitch.render.html import html

        with file_errors(f"cannot write {options.coverage_html}"):
            options.coverage_html.write_text(html(coverage_page(found, texts)), encoding="utf-8")


def _policy_texts(found: PolicyCoverage) -> dict[str, list[str]]:
    """The lines of every file that has a point of coverage."""
    texts: dict[str, list[str]] = {}
    for file in sorted({point.place.file for point in found.points}):
        with file_errors(f"cannot read {file}"):
            texts[file] = Path(file).read_text(encoding="utf-8-sig").splitlines()
    return texts


def _verdict(ran: Sequence[Ran], found: PolicyCoverage, options: ScenarioOptions) -> int:
    """The exit code, and on stderr why the run as a whole fails."""
    from killswitch.scenario.pages import coverage_line

    results = [each.result for each in ran]
    failed = any(each.outcome in ("failed", "error") for each in results)
    if not options.allow_empty and all(each.outcome == "pending" for each in results):
        what = f"whose name contains {options.pattern!r}" if options.pattern else "in these files"
        pending = f"; {len(results)} pending" if results else ""
        print_note(f"error: there is no scenario to run {what}{pending}; --allow-empty accepts that")
        failed = True
    if options.fail_under is not None and found.share < options.fail_under:
        percent = options.fail_under * 100
        required = f"{percent}%" if percent.denominator == 1 else options.fail_under
        print_note(f"error: {coverage_line(found)} is less than {required} (--fail-under)")
        if options.output == "text" and not options.coverage:
            from killswitch.scenario.pages import coverage_page

            print_page(coverage_page(found, {}), err=True)
        failed = True
    return EXIT_FAILED if failed else 0
