"""What the live verbs begin with: policies, accounts and a store, with every refusal in words and exit 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from killswitch.runner.accounts import ArmedAccount
    from killswitch.runner.assembly import LockPaths
    from killswitch.runner.opening import Written
    from killswitch.store.sql import SqlStore


@contextmanager
def friendly() -> Iterator[None]:
    """Turn what a person can do something about into one line and exit 1, instead of a traceback."""
    from killswitch.gate.errors import LockError
    from killswitch.runner.adapters import AdapterError
    from killswitch.runner.credentials import CredentialError
    from killswitch.runner.lease import LeaseLostError, LeaseRefusedError
    from killswitch.runner.opening import NoAccountsError
    from killswitch.store.errors import StoreError

    try:
        yield
    except (
        AdapterError, CredentialError, LeaseLostError, LeaseRefusedError, LockError, NoAccountsError, StoreError,
    ) as error:  # fmt: skip
        raise click.ClickException(str(error)) from error


@contextmanager
def opened_store(store_at: str, *, read_only: bool) -> Iterator[SqlStore]:
    """The store, closed again at the end. Read-only opening changes no byte of it."""
    from killswitch.store.sqlite import open_store

    store = open_store(store_at, read_only=read_only)
    try:
        yield store
    finally:
        store.close()


def written(policies_at: Sequence[Path], variant: str | None = None) -> Written:
    """The policies, compiled; every mistake of theirs is told, and so are the warnings.

    `variant` is selected in every policy that declares it; without it the text selects.
    """
    from killswitch.graph.variants import NoSuchVariantError
    from killswitch.policy.diagnostics import render
    from killswitch.runner.opening import PolicyProblemsError, read_policies

    try:
        found = read_policies(policies_at, variant=variant)
    except PolicyProblemsError as problems:
        click.echo(render(problems.diagnostics), err=True)
        count = len(problems.diagnostics)
        found_wrong = "1 problem" if count == 1 else f"{count} problems"
        raise click.ClickException(f"{found_wrong} in the policies; nothing was started") from None
    except NoSuchVariantError as error:
        raise click.ClickException(str(error)) from error
    if found.warnings:
        click.echo(render(found.warnings), err=True)
    return found


def lock_paths(store_at: str, lock_dir: Path | None, lock_file: Path | None) -> LockPaths:
    """Where locks go: as told, or into a folder beside the store."""
    from killswitch.runner.assembly import LockPaths

    beside = Path(store_at.removeprefix("sqlite:///") + ".locks")
    return LockPaths(lock_dir or beside, lock_file)


def require_locks(accounts: dict[str, ArmedAccount], locks: LockPaths, *, closes: bool = False) -> tuple[str, ...]:
    """LockError if an account is armed and its lock could not be written; what is only to be said, in words.

    A folder that does not answer stops nothing: the runner goes on without it, and pages. `closes`: nor does one that
    refuses, because a close by hand comes before its lock.
    """
    from datetime import UTC, datetime

    from killswitch.gate.deadline import within
    from killswitch.gate.errors import LockTimeoutError, UnwritableError
    from killswitch.gate.probe import require_writable, weaknesses
    from killswitch.runner.standing import FOLDER_PATIENCE

    def look() -> tuple[str, ...]:
        require_writable(locks.folder, locks.union, datetime.now(UTC))
        return weaknesses(locks.folder, locks.union)

    if not any(account.armed for account in accounts.values()):
        return ()
    try:
        return within(FOLDER_PATIENCE, f"the lock folder {locks.folder}", look)
    except LockTimeoutError as error:
        return (f"{error} Going on without locks",)
    except UnwritableError as error:
        if not closes:
            raise
        return (f"{error}. Going on without locks",)


def arming_words(accounts: dict[str, ArmedAccount], *, live: bool) -> str:
    """Which accounts are acted on, and why the others are not."""
    armed = [account.name for account in accounts.values() if account.armed]
    others = [account.name for account in accounts.values() if not account.armed]
    words = [f"armed: {', '.join(armed)}"] if armed else []
    if others:
        why = "their documents say execution: observe" if live else "started without --live"
        words.append(f"observed only ({why}): {', '.join(others)}")
    return "; ".join(words)
