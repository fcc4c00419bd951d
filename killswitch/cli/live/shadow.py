"""`ksctl shadow report`, and the files of the set that `ksctl run --shadow` names."""

from __future__ import annotations

import os
import subprocess
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
GIT_WITHIN: Final = 30.0
"""Seconds that git may take."""
LARGEST_SET: Final = 32 << 20


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
    if named.startswith("-") or any(not letter.isprintable() or letter.isspace() for letter in named):
        raise click.ClickException(f"--shadow: {named!r} is neither a folder nor a git ref")
    commit, files = _in_git(named, policies_at)
    return files, PolicyOrigin(source=SOURCE, ref=named, commit=commit)


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


def _in_git(ref: str, policies_at: Sequence[Path]) -> tuple[str, tuple[PolicyFile, ...]]:
    """The commit of the ref, and the files below `policies_at` in it."""
    from killswitch.model.applied_set import PolicyFile

    folder = policies_at[0] if policies_at[0].is_dir() else policies_at[0].parent
    what = f"--shadow: {ref} is no folder, and no ref of the git repository of {policies_at[0]}"
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}", failed=what)
    commit = commit.strip()
    root = Path(_git(folder, "rev-parse", "--show-toplevel", failed=what).decode().strip()).resolve()
    try:
        paths = [path.resolve().relative_to(root).as_posix() for path in policies_at]
    except ValueError as error:
        raise click.ClickException(f"--shadow: {ref} is a ref, and not all of --policies is in {root}") from error
    listed = _git(root, "ls-tree", "-r", "-z", "-l", commit.decode(), "--", *paths, failed=what)
    files, size = [], 0
    for line in filter(None, listed.decode(errors="replace").split("\0")):
        head, _, name = line.partition("\t")
        mode, kind, id_, length = head.split()
        if kind != "blob" or mode not in ("100644", "100755") or not _is_policy(name):
            continue
        size += int(length)
        if size > LARGEST_SET:
            raise click.ClickException(f"--shadow: the policies of {ref} are larger than {LARGEST_SET >> 20} MiB")
        files.append(PolicyFile(name, _git(root, "cat-file", "blob", id_, failed=what)))
    if not files:
        raise click.ClickException(f"--shadow: {ref} has no .yaml or .yml file at {', '.join(paths)}")
    return commit.decode(), tuple(files)


def _git(folder: Path, *arguments: str, failed: str) -> bytes:
    """The output of git, which runs nothing that the repository names. ClickException with `failed` if it fails."""
    off = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "--no-replace-objects")
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    try:
        done = subprocess.run(
            ("git", "-C", str(folder), *off, *arguments), capture_output=True, check=True, timeout=GIT_WITHIN,
            env=environment | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", "GIT_NO_LAZY_FETCH": "1"},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise click.ClickException(failed) from error
    return done.stdout
