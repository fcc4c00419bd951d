"""What `ksctl run` checks before its first tick: accounts, locks, other runs, recipients, and what a policy expects."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import click

from killswitch.cli import EXIT_NOT_STARTED
from killswitch.cli.terminal import print_note, print_page

if TYPE_CHECKING:
    from killswitch.accounts.arming import ArmedAccount
    from killswitch.accounts.opening import LoadedPolicies
    from killswitch.model.snapshot import AccountSnapshot
    from killswitch.model.store import Store
    from killswitch.preflight.key_rights import KeyWarning
    from killswitch.runner.assembly import LockPaths
    from killswitch.runner.loop import Runner


class NotStartedError(click.ClickException):
    """The run has failed before its first tick was complete."""

    exit_code = EXIT_NOT_STARTED


class StartFailures:
    """Turns every error before the end of the first tick into a NotStartedError; wrong usage stays wrong usage."""

    def __init__(self) -> None:
        self.runner: Runner | None = None
        """Set once there is one."""

    def __enter__(self) -> StartFailures:
        return self

    def __exit__(self, _type: object, error: BaseException | None, trace: TracebackType | None) -> None:
        has_started = self.runner is not None and self.runner.ticks > 0
        kept = (click.UsageError, click.Abort, click.exceptions.Exit)
        if has_started or not isinstance(error, Exception) or isinstance(error, kept):
            return
        if isinstance(error, click.ClickException):
            raise NotStartedError(error.message) from error
        if type(error).__module__.startswith("killswitch."):
            raise NotStartedError(str(error)) from error
        sys.excepthook(type(error), error, trace)
        raise NotStartedError(f"the run could not start: unexpected {type(error).__name__}: {error}") from error


def checked_accounts(
    loaded: LoadedPolicies, store_at: str, locks: LockPaths, read_timeout: float, *, live: bool, unnotified: bool,
    emergency: bool,
) -> tuple[dict[str, ArmedAccount], tuple[KeyWarning, ...]]:  # fmt: skip
    """Open the accounts, run all start-up checks, and return the warnings for the first tick."""
    from killswitch.accounts.opening import open_accounts, require_encrypted
    from killswitch.preflight.key_rights import require_harmless_keys
    from killswitch.preflight.run_start import require_locks
    from killswitch.runner import process
    from killswitch.runner.process import make_room
    from killswitch.store.sqlite import exposure, record_trouble

    gated = {name for rule in loaded.policies.limits for name in rule.accounts}
    accounts = open_accounts(loaded.accounts, live=live, gated=gated)
    machine_warnings = [*require_locks(accounts, locks, store_at, emergency=emergency)]
    key_warnings: tuple[KeyWarning, ...] = ()
    if live:
        require_encrypted(loaded.accounts, loaded.places)
        key_warnings = process.run(require_harmless_keys(loaded.accounts, loaded.places, read_timeout))
        if not unnotified and any(account.armed for account in accounts.values()):
            _require_notified(loaded)
    machine_warnings += [
        warning
        for warning in (make_room(len(accounts)), exposure(store_at), record_trouble(store_at))
        if warning is not None
    ]
    for warning in machine_warnings:
        print_note(warning)
    return accounts, (*key_warnings, *(("warning", warning) for warning in machine_warnings))


def _require_notified(loaded: LoadedPolicies) -> None:
    """ClickException if a name under `notify` has no route, or a target cannot work from this machine."""
    from killswitch.policy.diagnostics.diagnostic import diagnostics_page
    from killswitch.runner.notify.target_check import target_warnings

    warnings = (*loaded.unrouted, *target_warnings(loaded.policies))
    if warnings:
        print_page(diagnostics_page(warnings), err=True)
        raise click.ClickException(
            "some recipients cannot be notified; nothing was started. Correct the NotificationRoutes, test them "
            "with `ksctl notify test --policies …`, or start with --unnotified"
        )


def require_expected(
    loaded: LoadedPolicies, accounts: Mapping[str, ArmedAccount], store: Store, lock_folder: Path, read_timeout: float
) -> None:
    """ClickException if this is a first start, and a policy touches more than it expects.

    Positions are read only if a policy states how many; an account that cannot be read refuses nothing.
    """
    from killswitch.accounts.opening import open_accounts, read_once
    from killswitch.planning.expectations import needs_positions
    from killswitch.runner import process
    from killswitch.runner.expectation_check import has_begun, refused_at_start

    stated = any(graph.expect is not None for graph in loaded.policies.graphs)
    if not stated or has_begun(store, lock_folder):
        return
    snapshots: tuple[AccountSnapshot, ...] = ()
    if needs_positions(loaded.policies):
        readers = open_accounts(loaded.accounts, live=False)
        snapshots = process.run(read_once(readers, read_timeout))
    refused = refused_at_start(loaded.policies, list(accounts.values()), snapshots)
    if refused:
        raise click.ClickException(
            f"{'; '.join(refused)}. This is a first start, and nothing was started: correct the scope, or `expect`"
        )
