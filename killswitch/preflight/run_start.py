"""What a run checks and takes before its first tick, as a command and as a library: locks, and claims of accounts.

Whatever refuses a start raises; what only deserves a warning is returned.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.opening import LoadedPolicies
from killswitch.accounts.validation import account_identity
from killswitch.deadline import DeadlineError, call_within
from killswitch.gate.changes import LockError, UnwritableError
from killswitch.gate.foreign_files import require_writable, weaknesses
from killswitch.graph.nodes import PolicySet
from killswitch.model.words import Severity
from killswitch.runner.assembly import FOLDER_TIMEOUT, LockPaths
from killswitch.runner.claims import IN_LOCK_FOLDER, RunClaims, account_claim
from killswitch.store.adjacent_files import Reserve


def lock_paths(store_at: str, lock_dir: Path | None, lock_file: Path | None) -> LockPaths:
    """Where lock files are written; the default folder is next to the store."""
    default_folder = Path(store_at.removeprefix("sqlite:///") + ".locks")
    return LockPaths(lock_dir or default_folder, lock_file)


def require_locks(
    accounts: Mapping[str, ArmedAccount],
    locks: LockPaths,
    store_at: str,
    *,
    closes: bool = False,
    emergency: bool = False,
) -> tuple[str, ...]:
    """LockError if an account is armed and its lock is not writable; returns warnings.

    A full disk gets the reserve of the store. A lock folder that does not respond stops nothing: the runner continues
    without it and pages. `closes`: an unwritable folder does not stop a manual close either. `emergency`: nothing is
    refused.
    """

    def check(union: Path | None) -> tuple[str, ...]:
        require_writable(locks.folder, union, datetime.now(UTC))
        return weaknesses(locks.folder, union)

    if not any(account.armed for account in accounts.values()):
        return ()
    reserve = Reserve(Path(store_at.removeprefix("sqlite:///")))
    while True:
        try:
            found = call_within(FOLDER_TIMEOUT, f"the lock folder {locks.folder}", lambda: check(None))
            if locks.union is None:
                return found
            try:
                return call_within(FOLDER_TIMEOUT, f"the lock file {locks.union}", lambda: check(locks.union))
            except DeadlineError as error:
                return (*found, f"{error} Continuing without it; the locks in {locks.folder} are written")
        except DeadlineError as error:
            return (f"{error} Continuing without locks",)
        except LockError as error:
            is_full = isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT)
            if is_full and reserve.give_slice():
                continue
            if not emergency and not (closes and isinstance(error, UnwritableError)):
                raise
            return (f"{error}. Continuing without locks: bots can reopen closed positions",)


def arming_summary(accounts: Mapping[str, ArmedAccount], *, live: bool) -> str:
    """Which accounts are armed, and why the others are not."""
    armed = [account.name for account in accounts.values() if account.armed]
    observed = [account.name for account in accounts.values() if not account.armed]
    parts = [f"armed: {', '.join(armed)}"] if armed else []
    if observed:
        why = "their documents say execution: observe" if live else "started without --live"
        parts.append(f"observed only ({why}): {', '.join(observed)}")
    return "; ".join(parts)


def unapprovable(policies: PolicySet, *, has_trust: bool) -> tuple[tuple[Severity, str], ...]:
    """A warning where policies demand approvals that nobody can give, because the run knows no key of an approver."""
    if has_trust:
        return ()
    resets = [
        f"the reset of {stage.name} of {graph.policy} ({stage.place.file}:{stage.place.line})"
        for graph in policies.graphs
        for stage in graph.stages
        if stage.reset_approvals and graph.mode == "enforce"
    ]
    steps = [
        f"each step of {rule.name} ({rule.place.file}:{rule.place.line})"
        for rule in {graph.recovery.name: graph.recovery for graph in policies.graphs if graph.recovery}.values()
        if rule.ramp.approvals
    ]
    if not (resets or steps):
        return ()
    text = (
        f"nobody can approve {' and '.join([*resets, *steps])}: this run follows no source with a trust file, by which "
        "it would verify approvals. Start it with `ksctl run --source FILE`, and name `trust` in that file"
    )
    return (("warning", text),)


def claimed(
    claims: RunClaims,
    loaded: LoadedPolicies,
    accounts: Mapping[str, ArmedAccount],
    locks: LockPaths,
    *,
    is_forced: bool,
) -> tuple[tuple[Severity, str], ...]:
    """Claim the armed accounts and the lock folder; AnotherRunnerError if a living run with another store has one."""
    armed = [document for document in loaded.accounts if accounts[document.metadata.name].armed]
    if not armed:
        return ()
    files = {f"account {it.metadata.name}": account_claim(account_identity(it)) for it in armed}
    found = claims.take(files, is_forced=is_forced)
    what = f"the lock folder {locks.folder}"
    folder = {what: locks.folder / IN_LOCK_FOLDER}
    try:
        return (*found, *call_within(FOLDER_TIMEOUT, what, lambda: claims.take(folder, is_forced=is_forced)))
    except DeadlineError as error:
        return (*found, ("warning", f"{error} Whether another runner uses it is unknown"))
