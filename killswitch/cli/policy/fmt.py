"""`ksctl fmt`: the uniform layout of policy files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli import EXIT_FAILED, options
from killswitch.cli.policy.verbs import paths_argument
from killswitch.cli.terminal import print_json, print_page, print_text
from killswitch.render.document import Items, Page, Section
from killswitch.render.formats import count_of

if TYPE_CHECKING:
    from killswitch.policy.diagnostics.diagnostic import Diagnostic
    from killswitch.policy.format.files import FormattedFile


@options.verb("ksctl fmt policies/", "ksctl fmt policies/ --check --diff")
@paths_argument
@click.option("--check", is_flag=True, help="Write nothing, and exit 1 if a file would change.")
@click.option("--diff", is_flag=True, help="Write nothing, and show what would change.")
@options.output
@click.pass_context
def fmt(context: click.Context, paths: tuple[Path, ...], check: bool, diff: bool, output: str) -> None:
    """Lay out policy files uniformly. Changes white space only, never what a file means.

    PATH is a file or a folder. Comments, the order of keys, quoting, line breaks and aligned columns stay as
    they are. A file that is not valid YAML is reported and left as it is, and the exit code is 1.
    """
    from killswitch.policy.diagnostics.diagnostic import in_order
    from killswitch.policy.format.files import format_files, write_formatted
    from killswitch.policy.yaml.parsed_texts import ParsedTexts, cache_folder

    problems: list[Diagnostic] = []
    parsed = ParsedTexts(cache_folder())
    files = list(format_files(paths, problems.append, parsed.parse))
    changed = [each for each in files if each.is_changed]
    if not (check or diff):
        problems += [each for each in map(write_formatted, changed) if each is not None]
        refused = {each.file for each in problems}
        files = [each for each in files if each.file not in refused]
    found = in_order(problems)
    if output == "json":
        print_json(_answer(files, found, is_written=not (check or diff)))
    else:
        if diff:
            for each in changed:
                print_text("\n".join(each.diff()))
        print_page(_page(files, found, is_written=not (check or diff)))
    if found or (check and changed):
        context.exit(EXIT_FAILED)


def _page(files: Sequence[FormattedFile], problems: Sequence[Diagnostic], *, is_written: bool) -> Page:
    from killswitch.policy.diagnostics.diagnostic import diagnostics_page

    names = [each.file for each in files if each.is_changed]
    verb = "formatted" if is_written else "would be formatted"
    kept = count_of(len(files) - len(names), "file")
    total = f"{count_of(len(names), 'file')} {verb}, {kept} unchanged, {count_of(len(problems), 'problem')}"
    page = diagnostics_page(problems, total)
    if not names:
        return page
    listed = Section("", (Items(tuple(f"{verb}: {name}" for name in names)),))
    return Page(page.title, sections=(listed, *page.sections))


def _answer(files: Sequence[FormattedFile], problems: Sequence[Diagnostic], *, is_written: bool) -> dict[str, object]:
    from killswitch.policy.diagnostics.diagnostic import as_json

    return {
        "written": is_written,
        "changed": [each.file for each in files if each.is_changed],
        "unchanged": [each.file for each in files if not each.is_changed],
        "diagnostics": as_json(problems),
    }
