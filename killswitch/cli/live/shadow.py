"""`ksctl shadow report`, and the files of the set that `ksctl run --shadow` names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from killswitch.cli import options
from killswitch.cli.terminal import encode_record, print_answer

if TYPE_CHECKING:
    from killswitch.model.applied_set import PolicyFile, PolicyOrigin

SOURCE: Final = "--shadow"
"""The name of the source of a set that the option names."""


@click.group(epilog=options.example_text("ksctl shadow report --store ks.sqlite"))
def shadow() -> None:
    """Show what policy sets in shadow would have done."""


@options.verb("ksctl shadow report --store ks.sqlite", group=shadow)
@click.argument("set_id", metavar="[SET]", required=False, default="")
@options.store
@options.page_output
def report(set_id: str, store_at: str, output: str) -> None:
    """Report what a set in shadow would have done, when, and where the deployed set did something else.

    SET is the beginning of the id of a shadow set; the default is all of them, the newest first. Reads stores only,
    with or without a runner. `--output markdown` is a text for a comment. What the set has not seen, because its
    process or the runner was not there, is named as a gap; nothing is known of it.
    """
    from killswitch.cli.session import opened_store
    from killswitch.operations.pages.shadow import shadow_page
    from killswitch.runner.clock import SystemClock
    from killswitch.runner.shadow.comparison import shadow_reports
    from killswitch.runner.status_blob import tick_time

    with opened_store(store_at, read_only=True) as store:
        reports = shadow_reports(store, tick_time(store, SystemClock()), set_id)
    if set_id and not reports:
        raise click.ClickException(f"no shadow set of this store has an id that begins with {set_id}")
    print_answer(output, lambda: encode_record({"reports": reports}), lambda: shadow_page(reports))


def shadow_files(named: str, policies_at: Sequence[Path]) -> tuple[tuple[PolicyFile, ...], PolicyOrigin]:
    """The files of DIR, or of the git ref REF of the repository that holds `policies_at`; and their origin.

    Nothing is checked out. ClickException if there are none.
    """
    from killswitch.model.applied_set import PolicyOrigin

    path = Path(named)
    if path.exists():
        return _read(path), PolicyOrigin(source=f"{SOURCE} {named}")
    from killswitch.operations.impact.revision import GitRevisionError, PolicyRepository

    try:
        found = PolicyRepository(policies_at[0]).files(named, policies_at)
    except GitRevisionError as error:
        raise click.ClickException(f"--shadow: {error}") from error
    files = tuple(each for each in found.files if _is_policy(each.path))
    if not files:
        raise click.ClickException(f"--shadow: {named} has no .yaml or .yml file where --policies is")
    return files, PolicyOrigin(source=SOURCE, ref=named, commit=found.commit)


def _read(path: Path) -> tuple[PolicyFile, ...]:
    from killswitch.model.applied_set import PolicyFile

    with options.file_errors(f"--shadow: {path} cannot be read"):
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        base = path if path.is_dir() else path.parent
        kept = [each for each in found if each.is_file() and _is_policy(each.relative_to(base).as_posix())]
        files = tuple(PolicyFile(each.relative_to(base).as_posix(), each.read_bytes()) for each in kept)
    if not files:
        raise click.ClickException(f"--shadow: {path} contains no .yaml or .yml file")
    return files


def _is_policy(path: str) -> bool:
    return path.endswith((".yaml", ".yml")) and not any(part.startswith(".") for part in path.split("/"))
