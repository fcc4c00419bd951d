"""The set that `ksctl run` begins with, and what proposes the next ones: a source, or its policy files at a request."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from killswitch.cli.terminal import print_note

if TYPE_CHECKING:
    from killswitch.accounts.next_set import StoredStart
    from killswitch.accounts.opening import LoadedPolicies
    from killswitch.cli.live.run_outputs import RunOutputs
    from killswitch.cli.live.source_start import SourceStart
    from killswitch.model.applied_set import AppliedSet
    from killswitch.model.clock import Clock
    from killswitch.model.store import Store
    from killswitch.runner.hot_reload import SetOfStart
    from killswitch.runner.loop import Runner
    from killswitch.runner.policy_files import PolicyFiles
    from killswitch.runner.sources.policy_source import PolicySource


class StartingSet(Struct, frozen=True):
    """The policies that a run begins with."""

    loaded: LoadedPolicies
    in_force: AppliedSet | None
    """The same with their files and origin; None if this program does not compile the last good set of the store."""
    policies_at: tuple[Path, ...] = ()
    """The paths of --policies."""
    source: SourceStart | None = None
    """The source of --source."""
    loaded_at: float = 0.0
    """Unix seconds just before the policy files were read; 0 if the policies are not those of the files."""
    page: str | None = None
    """Why the set of the store runs, or none does, with the way out."""


def starting_set(policies_at: tuple[Path, ...], source_at: Path | None, store_at: str) -> StartingSet:
    """The set of the source, or of the policy files; where these have mistakes, the last good set of the store (P3).

    ClickException if there is none.
    """
    if source_at is not None:
        return _of_source(source_at, store_at)
    from killswitch.accounts.next_set import program_version, stored_start
    from killswitch.cli.session import load_policies, store_if_any
    from killswitch.model.applied_set import AppliedSet, PolicyOrigin, folder_digest

    loaded_at = time.time()
    try:
        loaded = load_policies(policies_at)
    except click.ClickException:
        with store_if_any(store_at) as store:
            stored = None if store is None else stored_start(store)
        if stored is None:
            raise
        page = _stored_start_text(stored, policies_at)
        print_note(page)
        return StartingSet(stored.loaded, _if_compiled(stored.in_force, stored.loaded), policies_at, page=page)
    origin = PolicyOrigin(
        source=" ".join(map(str, policies_at)), commit=loaded.policies.commit, folder_digest=folder_digest(loaded.files)
    )
    in_force = AppliedSet(
        digest=loaded.policies.digest, at=datetime.fromtimestamp(loaded_at, UTC), program=program_version(),
        origin=origin, files=loaded.files,
    )  # fmt: skip
    return StartingSet(loaded, in_force, policies_at, loaded_at=loaded_at)


def _of_source(source_at: Path, store_at: str) -> StartingSet:
    from killswitch.cli.live.source_start import start_source

    source = start_source(source_at, store_at)
    in_force = _if_compiled(source.in_force, source.loaded)
    return StartingSet(source.loaded, in_force, source=source, page=source.page)


def _if_compiled(in_force: AppliedSet, loaded: LoadedPolicies) -> AppliedSet | None:
    return in_force if loaded.policies.digest == in_force.digest else None


def _stored_start_text(stored: StoredStart, policies_at: tuple[Path, ...]) -> str:
    """Why a run starts with the set of the store, and the way out."""
    files = " ".join(map(str, policies_at))
    since = f"{stored.in_force.digest[:19]}, in force since {stored.in_force.at:%Y-%m-%d %H:%M} UTC"
    if stored.is_compiled:
        return (
            f"the policies in {files} have mistakes: this run goes on with the last good set of the store ({since}). "
            "Correct the files, as `ksctl validate` shows, then `ksctl reload` takes them"
        )
    return (
        f"NO POLICY IN FORCE: the policies in {files} have mistakes, and this program does not compile the last "
        f"good set of the store ({since}; {stored.why}). Latches, locks and open closes go on, and nothing new fires. "
        f"Correct the files, then `ksctl reload` takes them, or start ksctl {stored.in_force.program}"
    )


def set_of_start(start: StartingSet, *, has_to_notify: bool) -> SetOfStart:
    """The set of the start for the runner, and what a later one has to offer as well."""
    from killswitch.runner.hot_reload import SetOfStart

    def notified(following: LoadedPolicies) -> tuple[str, ...]:
        from killswitch.runner.notify.target_check import target_warnings

        found = (*following.unrouted, *target_warnings(following.policies))
        return tuple(f"{it.file}:{it.line}: {it.message}" for it in found)

    return SetOfStart(start.in_force, (notified,) if has_to_notify else ())


def next_sets(start: StartingSet, store: Store, store_at: str, clock: Clock) -> PolicyFiles | PolicySource:
    """The part of the run that proposes the next set: the source, or the policy files at a request."""
    from killswitch.runner.policy_files import PolicyFiles

    if start.source is not None:
        from killswitch.cli.live.source_start import followed_source

        return followed_source(start.source, store, store_at, clock)
    return PolicyFiles(start.policies_at, start.loaded, start.loaded_at, clock.monotonic)


def connect(files: PolicyFiles | PolicySource, runner: Runner, store: Store, outputs: RunOutputs) -> None:
    """Let sets be proposed to the runner from now on, and metrics show where they come from."""
    from killswitch.runner.policy_files import PolicyFiles
    from killswitch.runner.sources.source_alerts import source_gauges

    if isinstance(files, PolicyFiles):
        files.connect(runner.propose, store)
        outputs.policy_files = lambda: files.state
    else:
        files.follow(runner)
        outputs.source = lambda: source_gauges(files.condition)
