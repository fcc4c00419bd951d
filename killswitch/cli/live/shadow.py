"""`ksctl shadow report`, and the sets in shadow of `ksctl run`: their files, their start and their end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from killswitch.cli import options
from killswitch.cli.terminal import encode_record, print_answer, print_note

if TYPE_CHECKING:
    from killswitch.accounts.arming import ArmedAccount
    from killswitch.cli.live.starting_set import StartingSet
    from killswitch.model.applied_set import PolicyFile, PolicyOrigin
    from killswitch.model.store import Store
    from killswitch.runner.observers import Observer
    from killswitch.runner.policy_files import PolicyFiles
    from killswitch.runner.shadow.shadow_sets import ShadowSets
    from killswitch.runner.sources.policy_source import PolicySource

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


@contextmanager
def open_shadows(
    start: StartingSet, store: Store, store_at: str, accounts: Mapping[str, ArmedAccount], interval: float,
    *, is_emergency: bool,
) -> Iterator[ShadowSets | None]:  # fmt: skip
    """The shadow sets of a run, to be stopped at its end; none in an emergency, whose store is in memory.

    `interval`: seconds between two ticks.
    """
    from killswitch.runner.shadow.shadow_sets import ShadowSets

    if is_emergency:
        yield None
        return
    armed = [name for name, account in accounts.items() if account.armed]
    after = 0 if start.source is None else start.source.settings.shadow_after
    shadows = ShadowSets(
        store, store_at, armed, interval, print_note,
        deployed=start.in_force, previous_for=timedelta(microseconds=after),
    )  # fmt: skip
    try:
        yield shadows
    finally:
        for problem in shadows.close():
            print_note(problem)


def shadow_observers(shadows: ShadowSets | None, files: PolicyFiles | PolicySource) -> tuple[Observer, ...]:
    """The sets in shadow, and with a source what has its heads in shadow before they are taken."""
    from killswitch.runner.policy_files import PolicyFiles
    from killswitch.runner.shadow.shadow_sets import SourceShadows

    if shadows is None:
        return ()
    if isinstance(files, PolicyFiles):
        return (shadows,)
    return shadows, SourceShadows(shadows, files, files.settings.name)


def begin_shadow(shadows: ShadowSets, named: str | None, policies_at: Sequence[Path], now: datetime) -> None:
    """Continue the shadow sets of the run before, and begin that of --shadow: whatever is wrong with it ends no run."""
    from killswitch.runner.shadow.shadow_sets import ShadowRefusedError

    shadows.resume(now)
    begun: str | None = None
    if named is not None:
        try:
            files, origin = shadow_files(named, policies_at)
            begun = shadows.begin(files, origin, None, now)
            print_note(f"shadow {begun}: the set of {named} is evaluated next to this one; nothing is sent")
        except (click.ClickException, ShadowRefusedError) as error:
            print_note(f"nothing is in shadow: {error}")
    for record in shadows.active:
        if record.origin.source.startswith(SOURCE) and record.id != begun:
            shadows.end(record.id, now)
