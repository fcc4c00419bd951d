"""`ksctl lint`: what is valid in policies and probably not meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from killswitch.cli import EXIT_FAILED, EXIT_WARNINGS, options
from killswitch.cli.policy.verbs import paths_argument, print_report, read_set
from killswitch.cli.terminal import print_json, print_page, print_text
from killswitch.render.formats import count_of

if TYPE_CHECKING:
    from killswitch.policy.diagnostics.diagnostic import Diagnostic
    from killswitch.policy.lint.own_rules import OwnRules
    from killswitch.policy.lint.rule import LintFinding
    from killswitch.policy.loader import LoadedDocuments

MOST_PASSES = 5
"""How often `--fix` edits, because the edit of one finding may overlap with that of another."""


class Linted(Struct, frozen=True):
    """The documents, and what was found in them; `is_valid` is false if they were not linted."""

    loaded: LoadedDocuments
    findings: tuple[LintFinding, ...]
    is_valid: bool

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        return tuple(each.diagnostic for each in self.findings)

    @property
    def fixable(self) -> int:
        """How many findings `--fix` corrects."""
        return sum(each.edit is not None for each in self.findings)


@options.verb("ksctl lint policies/ --strict", "ksctl lint policies/ --rules desk-rules.yaml --output sarif")
@paths_argument
@click.option("--fix", is_flag=True, help="Correct what has only one correction, and report the rest.")
@click.option("--rules", "rules_at", type=options.UncheckedPath(), multiple=True,
              help="File with rules of your own in CEL. May be given more than once.")  # fmt: skip
@click.option("--strict", is_flag=True, help="Exit 3 when there are warnings.")
@options.check_output
@click.pass_context
def lint(
    context: click.Context, paths: tuple[Path, ...], fix: bool, rules_at: tuple[Path, ...], strict: bool, output: str
) -> None:
    """Find what is valid in policies and probably not meant.

    PATH is a file or a folder; all of them form one policy set, which must be valid. A comment ignores a finding of its
    line, or of the next one: `# ksctl: ignore KS7201: REASON`; the reason is required.
    """
    from killswitch.policy.lint.own_rules import OwnRules

    own = OwnRules(rules_at)
    found = _linted(paths, own)
    fixed: Counter[str] = Counter()
    for _ in range(MOST_PASSES):
        if not (fix and found.is_valid and found.fixable):
            break
        fixed.update(each.diagnostic.file for each in found.findings if each.edit is not None)
        found = _fixed(found, paths, own)
    if output == "json":
        print_json({**_answer(found), "fixed": fixed})
    elif output == "text":
        for file, number in sorted(fixed.items()):
            print_text(f"corrected: {file} ({count_of(number, 'finding')})")
        _print(found, is_fixed=fix)
    else:
        print_report(output, "ksctl lint", found.loaded, found.diagnostics, strict=strict)
    if not found.is_valid or any(each.severity == "error" for each in found.diagnostics):
        context.exit(EXIT_FAILED)
    if strict and found.findings:
        context.exit(EXIT_WARNINGS)


def _linted(paths: Sequence[Path], own: OwnRules) -> Linted:
    from killswitch.model.instant import to_micros
    from killswitch.policy.diagnostics.diagnostic import in_order
    from killswitch.policy.lint.linting import lint as lint_documents
    from killswitch.policy.lint.rule import LintFinding

    loaded, policy_set, problems = read_set(paths, None, accounts=False)
    if policy_set is None or own.problems:
        errors = (each for each in problems if each.severity == "error")
        return Linted(loaded, tuple(map(LintFinding, in_order((*errors, *own.problems)))), is_valid=False)
    return Linted(loaded, lint_documents(loaded.documents, to_micros(datetime.now(UTC)), own), is_valid=True)


def _fixed(found: Linted, paths: Sequence[Path], own: OwnRules) -> Linted:
    """Make the edits and lint again; if the set is no longer valid, the files are what they were."""
    from killswitch.policy.lint.rule import edited, edits_of

    written = {each.source.file: each.source.written for each in found.loaded.documents}
    edits = edits_of(found.findings)
    after = {file: edited(written[file], of_file) for file, of_file in edits.items()}
    for file in edits:
        _refuse_unwritable(file, written[file].text)
    for file, text in after.items():
        _replace(file, written[file].text, text)
    again = _linted(paths, own)
    if again.is_valid:
        return again
    for file, text in after.items():
        _replace(file, text, written[file].text)
    raise click.ClickException(
        "the set would not be valid after the edits, so that nothing was changed; correct each finding in the file"
    )


def _refuse_unwritable(file: str, before: str) -> None:
    """ClickException for a file that cannot be written, before any other is."""
    from killswitch.policy.format.files import WriteRefusedError, require_writable

    try:
        require_writable(Path(file), before)
    except WriteRefusedError as refused:
        raise click.ClickException(f"{file} {refused}, so that nothing was changed; {refused.fix}") from refused


def _replace(file: str, before: str, text: str) -> None:
    from killswitch.policy.format.files import WriteRefusedError, replace_file

    try:
        replace_file(Path(file), before, text)
    except WriteRefusedError as refused:
        raise click.ClickException(f"{file} {refused}; {refused.fix}, and lint again") from refused


def _print(found: Linted, *, is_fixed: bool) -> None:
    from killswitch.policy.diagnostics.diagnostic import counts, diagnostics_page

    if not found.is_valid:
        sums = [f"{counts(found.diagnostics)}; nothing was linted: correct them, and lint again"]
    else:
        total = f"{counts(found.diagnostics)} in {count_of(len(found.loaded.documents), 'document')}"
        sums = [f"ok: {total}" if not found.findings else f"{total}; `ksctl explain CODE` says more"]
        if found.fixable and not is_fixed:
            sums.append(f"--fix corrects {found.fixable} of them")
    print_page(diagnostics_page(found.diagnostics, *sums))


def _answer(found: Linted) -> dict[str, object]:
    from killswitch.policy.diagnostics.diagnostic import as_json

    listed = zip(as_json(found.diagnostics), found.findings, strict=True)
    return {
        "linted": found.is_valid,
        "diagnostics": [{**each, "fixable": finding.edit is not None} for each, finding in listed],
    }
