"""The set that a run is to take next: compiled with the accounts that run, and what of it waits for a start.

Accounts, adapters, credentials, arming and the venues' timers are read by a start only (P5). So a reload compiles the
new policies with the Account and DeadMansSwitch documents of the start, and names those that differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version

from msgspec import Struct
from msgspec.structs import replace

from killswitch.accounts.opening import STARTED_WITH, LoadedPolicies, PolicyProblemsError, compiled
from killswitch.model.applied_set import AppliedSet, PolicyFile, PolicyOrigin
from killswitch.model.store import Store
from killswitch.policy.kinds import TESTS
from killswitch.policy.loader import Document, LoadedDocuments, load_texts

NO_POLICY = "none"
"""In place of the digest of a set while no policy is in force."""
KEPT_SETS = 50
"""How many changes of the set are searched for one that is in force."""


class NextSet(Struct, frozen=True):
    """A set to be taken between two ticks. `needs_start`: what of its files is not taken before the next start."""

    loaded: LoadedPolicies
    files: tuple[PolicyFile, ...]
    origin: PolicyOrigin
    needs_start: tuple[str, ...] = ()
    written: str = ""
    """The policy digest of the files as a start would compile them, where that is another one than of `loaded`."""

    @property
    def digest_of_files(self) -> str:
        return self.written or self.loaded.policies.digest


class NeedsStartError(Exception):
    """The policies fit the accounts of their own files only, so that nothing of them can be taken before a start."""


def next_set(files: Iterable[PolicyFile], origin: PolicyOrigin, running: LoadedPolicies) -> NextSet:
    """Compile files in memory for a run that was started with the accounts of `running`.

    PolicyProblemsError if a start would refuse them too; NeedsStartError if they only compile with other accounts than
    those that run. Takes as long as reading a folder of policies: not for the thread of the ticks.
    """
    files = tuple(files)
    loaded = load_texts(files, without=TESTS)
    return _next_set(loaded, files, origin, running)


def next_set_of(read: LoadedPolicies, origin: PolicyOrigin, running: LoadedPolicies) -> NextSet:
    """The same of policies that were read from a folder, whose files are `read.files`."""
    return next_set(read.files, origin, running)


def _next_set(
    loaded: LoadedDocuments, files: tuple[PolicyFile, ...], origin: PolicyOrigin, running: LoadedPolicies
) -> NextSet:
    as_written = compiled(loaded, origin.commit, files=files)
    held = tuple(_differences(running.start_documents, as_written.start_documents))
    if not held:
        return NextSet(as_written, files, origin)
    documents = (*(each for each in loaded.documents if each.kind not in STARTED_WITH), *running.start_documents)
    try:
        taken = compiled(replace(loaded, documents=documents), origin.commit, files=files)
    except PolicyProblemsError as error:
        first = next(iter(error.diagnostics), None)
        where = "" if first is None else f": {first.file}:{first.line}: {first.message}"
        raise NeedsStartError(f"{'; '.join(held)}, and the policies do not fit those that run{where}") from error
    return NextSet(taken, files, origin, held, as_written.policies.digest)


def _differences(running: Sequence[Document], written: Sequence[Document]) -> Iterator[str]:
    """What a start would open otherwise, in words."""
    before = {(each.kind, each.name): each.model for each in running}
    after = {(each.kind, each.name): each.model for each in written}
    for kind, name in sorted(before.keys() | after.keys()):
        what = f"{kind} {name}"
        if (kind, name) not in before:
            yield f"{what} is new"
        elif (kind, name) not in after:
            yield f"{what} is gone"
        elif before[kind, name] != after[kind, name]:
            yield f"{what} has changed"


def program_version() -> str:
    """The version of this program, which a set in force is recorded with."""
    return version("killswitch")


def last_good(store: Store) -> AppliedSet | None:
    """The set that was in force last on this store, with its files; None if none was recorded."""
    for change in store.set_changes(1):
        files = store.policy_files(change.digest, change.content)
        if files is not None:
            return AppliedSet(
                digest=change.digest, at=change.at, program=change.program, origin=change.origin, files=files
            )
    return None


def set_in_force(store: Store, digest: str) -> AppliedSet | None:
    """The newest set with this digest that was ever in force on this store; None if none was."""
    for change in store.set_changes(KEPT_SETS):
        if change.digest == digest and (files := store.policy_files(digest, change.content)) is not None:
            return AppliedSet(digest=digest, at=change.at, program=change.program, origin=change.origin, files=files)
    return None


class StoredStart(Struct, frozen=True):
    """A start from the last good set of a store. `is_compiled`: whether this program still compiles its policies.

    Where it does not, `loaded` has the accounts alone: nothing is evaluated, and what is in force and open goes on.
    """

    loaded: LoadedPolicies
    in_force: AppliedSet
    is_compiled: bool
    why: str = ""
    """The first mistake that this program finds in it."""


def stored_start(store: Store) -> StoredStart | None:
    """The last good set for a start whose source cannot be read (P3); None if there is none, or it has no accounts."""
    good = last_good(store)
    if good is None:
        return None
    documents = load_texts(good.files, without=TESTS)
    try:
        return StoredStart(compiled(documents, good.origin.commit, files=good.files), good, True)
    except PolicyProblemsError as error:
        first = next((f"{it.file}:{it.line}: {it.code} {it.message}" for it in error.diagnostics), str(error))
    accounts = tuple(each for each in documents.documents if each.kind in STARTED_WITH)
    try:
        without = compiled(replace(documents, documents=accounts, diagnostics=(), faulty=()), None, files=good.files)
    except PolicyProblemsError:
        return None
    bare = replace(without, policies=replace(without.policies, digest=NO_POLICY))
    return StoredStart(bare, good, False, first)
