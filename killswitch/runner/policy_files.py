"""Whether the policy files are still those of the set in force, and taking them at a request.

A change of the files is reported and not taken: `ksctl reload` and SIGHUP take it. The files are read on a thread of
their own: their disk may hang, and compiling takes longer than a tick should wait.
"""

from __future__ import annotations

import os
import shlex
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Literal

from msgspec import Struct

from killswitch.accounts.next_set import CompilingError, NeedsStartError, NextSet, next_set_at
from killswitch.accounts.opening import LoadedPolicies, PolicyProblemsError, read_policies
from killswitch.deadline import DaemonThreadExecutor
from killswitch.model.alert import NO_ALERTS, Alert, Alerts
from killswitch.model.applied_set import PolicyOrigin
from killswitch.model.snapshot import Event
from killswitch.model.store import Store
from killswitch.policy.diagnostics.diagnostic import counts
from killswitch.runner.hot_reload import ProposedReload, ReloadAnswer, TakenSet, put_reply
from killswitch.runner.observers import TickReport

CHECK_EVERY = 10.0
"""Seconds between two looks at the files."""
BROKEN = "policies/broken/"
"""How the key of an alert about files that do not compile begins; its end names the mistake."""
MOST_CULPRITS = 20
MOST_FILES = 10_000
MOST_REQUESTS = 4
"""Reloads that are read at once; a further one is refused until one of them has ended."""

PolicyFilesState = Literal["as loaded", "changed", "broken"]
_Stamps = tuple[tuple[str, int, int, int], ...]
"""Path, inode, size and change time of every file."""


class _Found(Struct, frozen=True):
    """The files at one look: what identifies their content, and how they differ from the set in force."""

    stamps: _Stamps
    state: PolicyFilesState
    text: str | None = None
    culprit: str = ""
    """Code and file of the first mistake, where they are broken."""


class PolicyFiles:
    """An observer that compares the policy files with the set in force, and proposes them when that is requested."""

    def __init__(
        self, paths: Sequence[Path], loaded: LoadedPolicies, loaded_at: float, monotonic: Callable[[], float]
    ) -> None:
        """`loaded`: the policies of the start, which were read after `loaded_at` (Unix seconds)."""
        self._paths = tuple(paths)
        self._loaded = loaded
        self._running = loaded.policies.digest
        """The digest of the files of the set in force."""
        self._propose: Callable[[NextSet], ProposedReload] | None = None
        self._store: Store | None = None
        self._requests = DaemonThreadExecutor("reload of policy files", most=MOST_REQUESTS)
        self._loaded_at = loaded_at
        self._monotonic = monotonic
        self._threads = DaemonThreadExecutor("policy files", most=1)
        self._look: Future[_Found] | None = None
        self._found: _Found | None = None
        self._culprits: deque[str] = deque(maxlen=MOST_CULPRITS)
        """The mistakes of this run, whose alerts another mistake replaces: it does not say that the files compile."""
        self._next = monotonic()

    @property
    def judges(self) -> tuple[str, ...]:
        return ("policies",)

    @property
    def state(self) -> PolicyFilesState | None:
        """None before the first look has ended."""
        return None if self._found is None else self._found.state

    @property
    def alerts(self) -> Alerts:
        """A warning while the files differ from what runs; a page while they do not compile."""
        found = self._found
        if found is None:
            return Alerts(unknown=("policies",))
        if found.text is None:
            return NO_ALERTS
        over = "the policy files are those that run again"
        if found.state == "broken":
            over = "the policy files compile again"
            key = f"{BROKEN}{found.culprit}"
            replaces = ("policies/changed", *(f"{BROKEN}{each}" for each in self._culprits if each != found.culprit))
            return Alerts((Alert(key, "page", found.text, over=over, replaces=replaces),))
        return Alerts((Alert("policies/changed", "warning", found.text, over=over),))

    def connect(self, propose: Callable[[NextSet], ProposedReload], store: Store) -> None:
        """Take files at a request from now on. `store`: where the commands of `ksctl reload` are answered."""
        self._propose, self._store = propose, store

    def reload(self, taken: TakenSet) -> None:
        """The files of another set are in force."""
        self._running, self._found, self._next = taken.proposed.digest_of_files, None, self._monotonic()

    def request(self, answer: Callable[[ReloadAnswer], None], by: str | None = None, reason: str | None = None) -> None:
        """Read the files, propose them, and call `answer` from another thread with what became of it."""
        call = partial(self._reloaded, answer, PolicyOrigin(source=self._files, operator=by, reason=reason))
        failed = self._requests.submit(call)
        if failed.done() and failed.exception() is not None:
            answer(ReloadAnswer("refused", "", (str(failed.exception()),)))

    def _reloaded(self, answer: Callable[[ReloadAnswer], None], origin: PolicyOrigin) -> None:
        if self._propose is None:
            return
        try:
            proposed = next_set_at(self._paths, origin, self._loaded)
        except PolicyProblemsError as error:
            found = tuple(f"{it.file}:{it.line}:{it.column}: {it.code} {it.message}" for it in error.diagnostics)
            answer(ReloadAnswer("refused", "", found))
            return
        except NeedsStartError as error:
            answer(ReloadAnswer("refused", "", (f"it needs a start: {error}",)))
            return
        except CompilingError as error:
            answer(ReloadAnswer("refused", "", (str(error),)))
            return
        answer(self._propose(proposed).answer.result())

    def _answer(self, event: Event) -> None:
        """Take the files as a command requests, and answer it in the store."""
        store = self._store
        if store is not None:
            self.request(partial(put_reply, store, event.id), event.author, event.reason)

    def ticked(self, report: TickReport) -> None:
        """Take the result of a look that has ended, begin the next one when it is due, and carry out commands."""
        for event in report.snapshot.events:
            if event.kind == "reload":
                self._answer(event)
        if self._look is not None and self._look.done():
            look, self._look = self._look, None
            self._found = look.result()
            if self._found.state == "broken" and self._found.culprit not in self._culprits:
                self._culprits.append(self._found.culprit)
        if self._look is None and self._monotonic() >= self._next:
            self._next = self._monotonic() + CHECK_EVERY
            self._look = self._threads.submit(self._compared, self._found)

    def stop(self) -> None:
        """Nothing is to be ended: a look that is under way ends by itself, and changes nothing."""

    def _compared(self, before: _Found | None) -> _Found:
        """Compile the files if they have changed since the last look, or since they were loaded."""
        stamps = tuple(_stamps(self._paths))
        if before is None:
            is_same = bool(stamps) and all(changed / 1e9 < self._loaded_at for *_, changed in stamps)
            before = _Found(stamps if is_same else (), "as loaded")
        if stamps == before.stamps and stamps:
            return before
        try:
            found = read_policies(self._paths).policies.digest
        except PolicyProblemsError as error:
            first = next(iter(error.diagnostics), None)
            culprit = "" if first is None else f"{first.code}/{Path(first.file).name}"
            return _Found(stamps, "broken", self._broken_text(error), culprit)
        return _Found(stamps, "as loaded") if found == self._running else _Found(stamps, "changed", self._text(found))

    def _text(self, found: str) -> str:
        return (
            f"the policy files have changed: {self._running[:19]} runs, and the files are {found[:19]}, which compile. "
            f"`ksctl reload` takes them, `ksctl plan {self._named}` shows what they would do; or restore the files"
        )

    def _broken_text(self, error: PolicyProblemsError) -> str:
        first = next((f"{it.file}:{it.line}: {it.code} {it.message}" for it in error.diagnostics), "")
        return (
            f"the policy files have changed and do not compile ({counts(error.diagnostics)}; {first}): this run goes "
            f"on with {self._running[:19]}, and so does a restart. Correct them, as `ksctl validate {self._files}` "
            "shows, or restore them"
        )

    @property
    def _files(self) -> str:
        return " ".join(self._places)

    @property
    def _named(self) -> str:
        return " ".join(f"--policies {path}" for path in self._places)

    @property
    def _places(self) -> tuple[str, ...]:
        """Whole paths: a reader of the notice is in another folder than the runner."""
        return tuple(shlex.quote(str(path.absolute())) for path in self._paths)


def _stamps(paths: Sequence[Path]) -> Iterator[tuple[str, int, int, int]]:
    """A stamp for each file at or below `paths`; none for one that cannot be looked at."""
    left = MOST_FILES
    for path in paths:
        files = [str(path)] if path.is_file() else [
            os.path.join(folder, name)  # noqa: PTH118 # thousands of files, and os.walk gives texts
            for folder, _, names in os.walk(path, followlinks=True)
            for name in names
        ]  # fmt: skip
        for file in sorted(files)[:left]:
            left -= 1
            try:
                found = os.stat(file)  # noqa: PTH116 # as above
            except OSError:
                continue
            yield file, found.st_ino, found.st_size, found.st_ctime_ns
