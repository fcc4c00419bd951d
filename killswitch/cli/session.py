"""Start of live verbs: policies, accounts, locks and the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli.terminal import print_page, print_text

if TYPE_CHECKING:
    from killswitch.accounts.opening import LoadedPolicies
    from killswitch.model.store import Lease
    from killswitch.runner.assembly import LockPaths
    from killswitch.store.sql import SqlStore


_MAX_READ = 1_000
"""Maximum decisions and notices that a start reads."""


def opened_store(store_at: str, *, read_only: bool) -> AbstractContextManager[SqlStore]:
    """Open the store, to be closed at the end of the block. Read-only access changes no byte of it."""
    from killswitch.store.sqlite import open_store

    return _closing(open_store(store_at, read_only=read_only))


@contextmanager
def store_if_any(store_at: str) -> Iterator[SqlStore | None]:
    """Open the store read-only; None if there is none."""
    from killswitch.store.errors import StoreMissingError
    from killswitch.store.sqlite import open_store

    try:
        store = open_store(store_at, read_only=True)
    except StoreMissingError:
        yield None
        return
    with _closing(store):
        yield store


@contextmanager
def _closing(store: SqlStore) -> Iterator[SqlStore]:
    from killswitch.model.store import DamagedStateError
    from killswitch.store.errors import DamagedStoreError

    try:
        yield store
    except DamagedStateError as error:
        raise DamagedStoreError(store.place, str(error)) from error
    finally:
        store.close()


@contextmanager
def acting_store(store_at: str, journal: str | None, locks: LockPaths) -> Iterator[SqlStore]:
    """The store of a process that acts: at `store_at`, or with `--journal` a copy elsewhere, with a warning.

    StoreError as usual; an unreadable store is replaced by an empty one elsewhere. ClickException if a runner is alive.
    """
    from killswitch.model.store import DamagedStateError
    from killswitch.store.errors import StoreError, StoreMissingError
    from killswitch.store.sqlite import copy_store, open_empty_in_memory, open_in_memory, open_store

    if journal is None:
        with opened_store(store_at, read_only=False) as store:
            yield store
        return
    if journal != "memory" and Path(journal).exists():
        raise click.ClickException(f"{journal} already exists: continue with `--store {journal}`, or name another file")
    try:
        with opened_store(store_at, read_only=True) as before:
            _require_no_runner(before.lease())
            _require_readable(before)
        known = "it is a copy of STORE"
        if journal == "memory":
            store = open_in_memory(store_at)
        else:
            copy_store(store_at, Path(journal))
            store = open_store(journal)
    except StoreMissingError:
        raise
    except (StoreError, DamagedStateError) as error:
        print_text(f"{store_at}: {error}", err=True)
        known = "STORE cannot be read, so earlier closes, latches and runners are unknown: make sure that none is alive"
        store = open_empty_in_memory() if journal == "memory" else open_store(journal)
    print_text(_emergency_warning(journal, store_at, locks, known), err=True)
    with _closing(store):
        yield store


def _require_readable(store: SqlStore) -> None:
    """StoreError or DamagedStateError if a row that a start reads cannot be read."""
    from killswitch.planning.scopes.evaluator import require_readable

    store.unfinished(), store.decisions(_MAX_READ), store.notices(_MAX_READ), store.pending_events(), store.journal()
    for state in store.states():
        require_readable(state, (row.blob for row in store.rows(state.policy, state.scope, 0)))


def _emergency_warning(journal: str, store_at: str, locks: LockPaths, known: str) -> str:
    if journal == "memory":
        return (
            f"EMERGENCY: the journal is in memory only; {known.replace('STORE', store_at)}. What this command does "
            f"is not recorded in {store_at}, and a later run on that store does not know of it: keep the lines below "
            "that begin with `journal`. Positions that are not closed within --wait are left without a runner"
        )
    return (
        f"EMERGENCY: the journal is now {journal}; {known.replace('STORE', store_at)}. {store_at} does not "
        f"record this command: continue with `--store {journal} --lock-dir {locks.folder}`, and move it back once the "
        "old place can be written"
    )


def _require_no_runner(lease: Lease | None) -> None:
    """ClickException if the lease holder runs on this machine, or may run on another one."""
    from datetime import UTC, datetime

    from killswitch.operations.status import runner_state
    from killswitch.runner.lease import is_running, pid_of

    if lease is None:
        return
    if is_running(lease.owner) or runner_state(lease, datetime.now(UTC)).liveness == "alive":
        pid = pid_of(lease.owner)
        raise click.ClickException(
            f"a runner is alive on this store: {lease.owner}. It runs on without its disk and cannot receive a command "
            f"that cannot be written there; stop it first (kill -TERM {pid}), then repeat this command"
        )


def load_policies(policies_at: Sequence[Path], variant: str | None = None) -> LoadedPolicies:
    """Load and compile the policies; print all errors and warnings.

    `variant` is selected in every policy that declares it; the default is the selection of the files.
    """
    from killswitch.accounts.opening import PolicyProblemsError, read_policies
    from killswitch.policy.diagnostics.diagnostic import counts, diagnostics_page

    try:
        loaded = read_policies(policies_at, variant=variant)
    except PolicyProblemsError as problems:
        print_page(diagnostics_page(problems.diagnostics), err=True)
        raise click.ClickException(f"{counts(problems.diagnostics)} in the policies; nothing was started") from None
    if loaded.warnings:
        print_page(diagnostics_page(loaded.warnings), err=True)
    return loaded
