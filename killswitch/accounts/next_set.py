"""The set that a run is to take next: compiled with the accounts that run, and what of it waits for a start.

Accounts, adapters, credentials, arming and the venues' timers are read by a start only (P5). So a reload compiles the
new policies with the Account and DeadMansSwitch documents of the start, and names those that differ.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from killswitch.accounts.opening import STARTED_WITH, LoadedPolicies, PolicyProblemsError, commit_of, compiled, files_at
from killswitch.model.applied_set import AppliedSet, PolicyFile, PolicyOrigin
from killswitch.model.store import Store
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.kinds import TESTS
from killswitch.policy.loader import Document, LoadedDocuments, load_texts
from killswitch.policy.yaml.files import texts
from killswitch.render.formats import instant

LARGE = 64 << 10
"""Bytes of policies from which another process compiles them: smaller sets take less time than its start."""
_CHILD = "from killswitch.accounts.next_set import answer_as_child; answer_as_child()"
LOWER_PRIORITY = 15
"""By how much the priority of that process is lower (niceness)."""
LONGEST = 120.0
"""Seconds after which that process is killed."""
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
    base: str = ""
    """The policy digest of the set that it was compared with; empty where it may follow any."""

    def lapsed(self, in_force: str, now: datetime) -> str | None:
        """Why it may not be taken any more: another set than its base is in force, or an approval has expired."""
        if self.base and self.base != in_force:
            return f"it was compared with {self.base[:19]}, and another set is in force"
        expired = next((each for each in self.origin.approvals if each.expires_at <= now), None)
        return (
            None if expired is None else f"the approval of {expired.principal} expired at {instant(expired.expires_at)}"
        )

    @property
    def digest_of_files(self) -> str:
        return self.written or self.loaded.policies.digest


class CompilingError(Exception):
    """The policies could not be compiled, for a reason that is not in them."""


class NeedsStartError(Exception):
    """The policies fit the accounts of their own files only, so that nothing of them can be taken before a start."""


def next_set(files: Iterable[PolicyFile], origin: PolicyOrigin, running: LoadedPolicies) -> NextSet:
    """Compile files in memory for a run that was started with the accounts of `running`.

    PolicyProblemsError if a start would refuse them too; NeedsStartError if they only compile with other accounts than
    those that run. Takes as long as reading a folder of policies: not for the thread of the ticks.
    """
    files = tuple(files)
    if running.files and sum(len(each.content) for each in files) > LARGE:
        return _compiled_by_child(files, origin, running)
    return _next_set(load_texts(files, without=TESTS), files, origin, running.start_documents)


def _compiled_by_child(files: tuple[PolicyFile, ...], origin: PolicyOrigin, running: LoadedPolicies) -> NextSet:
    """The same by a process of its own: on a thread of this one it would delay ticks, by the interpreter's lock and by
    the collections of what compiling leaves behind."""
    request = pickle.dumps((files, origin, running.files))
    command = [sys.executable, "-P", "-c", _CHILD]  # -P: no file of the working folder is taken for a module
    try:
        done = subprocess.run(command, input=request, capture_output=True, timeout=LONGEST, check=True)
    except subprocess.TimeoutExpired as error:
        raise CompilingError(f"the policies took longer than {LONGEST:g} s to compile") from error
    except (OSError, subprocess.CalledProcessError) as error:
        raise CompilingError(f"the process that compiles the policies has ended: {error}") from error
    answer: _ChildAnswer = pickle.loads(done.stdout)  # our own process
    if answer.made is None:
        if answer.needs_start is not None:
            raise NeedsStartError(answer.needs_start)
        raise PolicyProblemsError(answer.problems)
    graphs = tuple([pickle.loads(each) for each in answer.graphs])  # as above
    policies = replace(answer.made.loaded.policies, graphs=graphs)
    loaded = replace(
        answer.made.loaded, policies=policies, accounts=running.accounts, places=running.places,
        start_documents=running.start_documents, files=files,
    )  # fmt: skip
    return replace(answer.made, loaded=loaded, files=files)


class _ChildAnswer(Struct, frozen=True):
    """The set, or why there is none."""

    made: NextSet | None = None
    graphs: tuple[bytes, ...] = ()
    """The policies of the set, each by itself: reading all of them at once would keep a tick waiting."""
    problems: tuple[Diagnostic, ...] = ()
    needs_start: str | None = None


def answer_as_child() -> None:
    """The whole of the other process: a request on stdin, its answer on stdout. The ticks come first on a busy machine.

    With its own priority it would keep the processors of a small machine from the ticks, as it parses in parallel.
    """
    os.nice(LOWER_PRIORITY)
    sys.stdout.buffer.write(pickle.dumps(_answer_of_child(sys.stdin.buffer.read())))


def _answer_of_child(request: bytes) -> _ChildAnswer:
    """What a child answers: without the documents and files, which its parent has."""
    files, origin, running_files = pickle.loads(request)  # written by this program
    documents = load_texts(running_files, without=TESTS).documents
    of_start = tuple(each for each in documents if each.kind in STARTED_WITH)
    try:
        made = _next_set(load_texts(files, without=TESTS), files, origin, of_start)
    except PolicyProblemsError as error:
        return _ChildAnswer(problems=error.diagnostics)
    except NeedsStartError as error:
        return _ChildAnswer(needs_start=str(error))
    policies = replace(made.loaded.policies, graphs=())
    loaded = replace(made.loaded, policies=policies, accounts=(), places={}, start_documents=(), files=())
    graphs = tuple(pickle.dumps(each) for each in made.loaded.policies.graphs)
    return _ChildAnswer(replace(made, loaded=loaded, files=()), graphs)


def next_set_at(paths: Sequence[Path], origin: PolicyOrigin, running: LoadedPolicies) -> NextSet:
    """The same of the files at or below `paths`, which are read once."""
    problems: list[Diagnostic] = []
    written = tuple(texts(paths, problems.append))
    if problems:
        raise PolicyProblemsError(problems)
    return next_set(files_at(paths, written), replace(origin, commit=commit_of(paths)), running)


def _next_set(
    loaded: LoadedDocuments, files: tuple[PolicyFile, ...], origin: PolicyOrigin, of_start: Sequence[Document]
) -> NextSet:
    as_written = compiled(loaded, origin.commit, files=files)
    held = tuple(_differences(of_start, as_written.start_documents))
    if not held:
        return NextSet(as_written, files, origin)
    documents = (*(each for each in loaded.documents if each.kind not in STARTED_WITH), *of_start)
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


@cache
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
