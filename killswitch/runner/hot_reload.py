"""Takes another policy set between two ticks.

A set is proposed from any thread, and prepared next to the ticks. It is taken between the commit of one tick and the
next poll, and recorded in the transaction of that next tick, with the states that it moved: a kill on either side finds
one whole state (ADR 0165).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Literal, Protocol

from msgspec import Struct
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.accounts.next_set import NextSet, last_good, program_version
from killswitch.accounts.opening import LoadedPolicies, PolicyProblemsError, compiled
from killswitch.deadline import DaemonThreadExecutor
from killswitch.incident.record.incident_decisions import keep_runbooks
from killswitch.incident.record.source_places import store_places
from killswitch.model.alert import NO_ALERTS, Alert, Alerts
from killswitch.model.applied_set import AppliedSet, folder_digest
from killswitch.model.snapshot import Instant
from killswitch.model.store import HistoryRow, MachineState, Store, StoreTroubleError, decoded
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.reload.continuation import SetContinuation, continuation
from killswitch.planning.reload_preview import ReloadPreview
from killswitch.planning.scopes.migrated_states import blob_after
from killswitch.planning.scopes.prepared_reload import PreparedReload
from killswitch.policy.kinds import TESTS
from killswitch.policy.loader import load_texts

ReloadStatus = Literal["taken", "held", "refused", "superseded"]
"""`held`: it is taken as soon as what it waits for is over, unless another set is proposed."""


class ReloadAnswer(Struct, frozen=True):
    """What became of a proposed set. `reasons`: why it is refused or held. `preview`: what it does, in lines."""

    status: ReloadStatus
    digest: str
    reasons: tuple[str, ...] = ()
    needs_start: tuple[str, ...] = ()
    preview: tuple[str, ...] = ()


class ReloadReply(Struct, frozen=True):
    """The answer to the command with this id."""

    event: str
    answer: ReloadAnswer


REPLIES = "reload/replies"
"""The live blob with the answers to the newest commands."""
KEPT_REPLIES = 20
_REPLIES = msgjson.Decoder(tuple[ReloadReply, ...])


def put_reply(store: Store, event: str, answer: ReloadAnswer) -> None:
    """Store the answer to a command."""
    before = decoded(_REPLIES.decode, store.live(REPLIES)) or ()
    store.put_live(REPLIES, msgjson.encode((*before[1 - KEPT_REPLIES :], ReloadReply(event, answer))))


def reply_to(store: Store, event: str) -> ReloadAnswer | None:
    """The answer to the command with this id; None if there is none yet."""
    replies = decoded(_REPLIES.decode, store.live(REPLIES)) or ()
    return next((each.answer for each in replies if each.event == event), None)


class ProposedReload:
    """A proposed set on its way. `answer` is completed once it is taken, refused, held or superseded."""

    def __init__(self, proposed: NextSet) -> None:
        self.proposed = proposed
        self.answer: Future[ReloadAnswer] = Future()
        self.is_prepared = threading.Event()
        """Set once the next tick can take it, or knows why not."""
        self.ready: PreparedReload | None = None
        self.preview = ReloadPreview()
        self.refusals: tuple[str, ...] = ()
        self.held: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        return self.proposed.loaded.policies.digest

    def end(self, status: ReloadStatus, reasons: Sequence[str] = ()) -> None:
        """Answer, once; a set that is held is answered when it begins to wait."""
        if not self.answer.done():
            answer = ReloadAnswer(status, self.digest, tuple(reasons), self.proposed.needs_start, self.preview.lines)
            self.answer.set_result(answer)


class TakenSet(Struct, frozen=True):
    """A set that was taken and is not committed yet; `in_force` has the time of the tick before."""

    proposed: NextSet
    in_force: AppliedSet
    change: SetContinuation

    @property
    def loaded(self) -> LoadedPolicies:
        return self.proposed.loaded


class FollowsReload(Protocol):
    """A part of a run that holds the policy set, and takes the next one between two ticks. It must not fail."""

    def __call__(self, taken: TakenSet, /) -> None: ...


Check = Callable[[LoadedPolicies], Sequence[str]]
"""Why a start would refuse the policies; called on another thread than that of the ticks."""


class SetOfStart(Struct, frozen=True):
    """The set of a start with its files, which the store is to keep, and why a start would refuse another one."""

    in_force: AppliedSet | None = None
    """None where there are no files, as in commands that tick once themselves."""
    checks: tuple[Check, ...] = ()


WITHOUT_FILES = SetOfStart()
LONGEST_WAIT = 0.25
"""Seconds that one step of a preparation waits for a tick."""


class HotReload:
    """The sets that are proposed to a run, and the one in force."""

    def __init__(
        self,
        interpreter: Interpreter,
        store: Store,
        in_force: AppliedSet,
        checks: Sequence[Check] = (),
        *,
        of_start: Alerts = NO_ALERTS,
        of_set: Alerts = NO_ALERTS,
        is_new: bool = False,
        renamed: Mapping[str, str] | None = None,
    ) -> None:
        """`in_force`: the set of the start. `is_new`, `renamed`: whether the store is to record it, and what moved.

        `of_start`: what is wrong before the run, for the whole of it; `of_set`: for as long as the set is in force.
        """
        self.in_force = in_force
        """The set in force, as the last tick has committed it."""
        self.needs_start: tuple[str, ...] = ()
        """What of the files of the set in force waits for a start."""
        self.of_start = of_start
        self.of_set = of_set
        self.follow: list[FollowsReload] = []
        """The parts of the run that hold the set, in the order in which they take the next one."""
        self.interpreter = interpreter
        self._store = store
        self._checks = tuple(checks)
        self._lock = threading.Lock()
        self._waiting: ProposedReload | None = None
        self._threads = DaemonThreadExecutor("reload")
        self._between_ticks = threading.Event()
        self._between_ticks.set()
        self._uncommitted: tuple[AppliedSet, Mapping[str, str]] | None = (in_force, renamed or {}) if is_new else None
        self._taken: ProposedReload | None = None

    def propose(self, proposed: NextSet) -> ProposedReload:
        """Propose a set, from any thread; it supersedes one that was proposed before and was not taken yet."""
        proposal = ProposedReload(proposed)
        with self._lock:
            before, self._waiting = self._waiting, proposal
        if before is not None:
            before.end("superseded", ["a newer set was proposed"])
        self._threads.submit(self._prepare, proposal)
        return proposal

    @contextmanager
    def ticking(self) -> Iterator[None]:
        """A tick: what prepares a set waits for its end, because both would share one interpreter lock."""
        self._between_ticks.clear()
        try:
            yield
        finally:
            self._between_ticks.set()

    def _let_tick_pass(self) -> None:
        """Wait for the end of a tick under way; of one that waits for a venue, not for long."""
        self._between_ticks.wait(LONGEST_WAIT)

    @property
    def lasting(self) -> Alerts:
        """What is known to be wrong before a tick: for the whole run, and with the set in force."""
        return self.of_start + self.of_set

    @property
    def held(self) -> tuple[str, ...]:
        """Why the proposed set is not taken yet; empty if none waits."""
        proposal = self._waiting
        return () if proposal is None else proposal.held

    @property
    def judges(self) -> tuple[str, ...]:
        return ("reload",)

    @property
    def alerts(self) -> Alerts:
        """A warning while a set waits for a close."""
        held = self.held
        if not held:
            return NO_ALERTS
        text = f"a policy set was proposed and is not taken yet: {'; '.join(held)}"
        return Alerts((Alert("reload/held", "warning", text, over="no policy set waits to be taken any more"),))

    def _prepare(self, proposal: ProposedReload) -> None:
        """Everything that takes time: checks of a start, compiling, histories, and the texts that reports need."""
        loaded = proposal.proposed.loaded
        try:
            refused = [each for check in self._checks for each in check(loaded)]
            if not refused:
                store_places(self._store, loaded.policies)
                files = proposal.proposed.files
                self._store.prepare_policy_set(loaded.policies.digest, program_version(), files)
                keep_runbooks(self._store, loaded.policies.digest, loaded.runbooks)
                states = self._store.states()
                rest = self._let_tick_pass
                proposal.ready = self.interpreter.prepare(loaded.policies, states, self._store.rows, rest)
                proposal.preview = self.interpreter.preview_reload(proposal.ready.continuation, rest)
            proposal.refusals = tuple(refused)
        except Exception as error:  # noqa: BLE001 - whatever a set causes, the one in force runs on
            proposal.refusals = (f"it cannot be prepared: {type(error).__name__}: {error}",)
        proposal.is_prepared.set()

    def take(self, now: Instant) -> TakenSet | None:
        """Take the proposed set if it is prepared and nothing is in its way at `now`; between two ticks only.

        Returns it for the parts of the runner that hold the set themselves; the others have it already.
        """
        proposal = self._waiting
        if proposal is None or not proposal.is_prepared.is_set():
            return None
        lapsed = proposal.proposed.lapsed(self.in_force.digest, now)
        if lapsed is not None:
            self._refuse(proposal, [lapsed])
            return None
        ready = proposal.ready
        if ready is not None and ready.continuation.before is not self.interpreter.policies:
            proposal.is_prepared.clear()  # another set was taken meanwhile
            self._threads.submit(self._prepare, proposal)
            return None
        refused, held = (proposal.refusals, ()) if ready is None else self._obstacles(ready)
        if ready is None or refused or held:
            self._wait(proposal, held) if held and not refused else self._refuse(proposal, refused)
            return None
        try:
            self.interpreter.reload(ready)
        except (StoreTroubleError, LookupError, ValueError, TypeError, ArithmeticError) as error:
            self._refuse(proposal, [f"its state cannot be moved: {type(error).__name__}: {error}"])
            return None
        return self._follow(proposal, ready.continuation)

    def _obstacles(self, ready: PreparedReload) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Why the set cannot be taken at all, and why it cannot be taken yet, by what is in force now."""
        found = self.interpreter.reload_obstacles(ready.continuation)
        held = [each.line for each in found.held]
        if (why := self._store.in_memory_because) is not None:
            held.append(f"records are in memory only: {why}")
        return tuple(each.line for each in found.refused), tuple(held)

    def _follow(self, proposal: ProposedReload, change: SetContinuation) -> TakenSet:
        with self._lock:
            self._waiting = None if self._waiting is proposal else self._waiting
        proposed = proposal.proposed
        applied = AppliedSet(
            digest=proposal.digest, at=self.in_force.at, program=program_version(), origin=proposed.origin,
            files=proposed.files,
        )  # fmt: skip
        taken = TakenSet(proposed, applied, change)
        self._taken, self._uncommitted = proposal, (applied, change.renamed)
        for follow in self.follow:
            follow(taken)
        return taken

    def _wait(self, proposal: ProposedReload, reasons: Sequence[str]) -> None:
        proposal.held = tuple(reasons)
        proposal.end("held", reasons)

    def _refuse(self, proposal: ProposedReload, reasons: Sequence[str]) -> None:
        with self._lock:
            self._waiting = None if self._waiting is proposal else self._waiting
        proposal.end("refused", reasons)

    def rows(self, policy: str, scope: str, since: int) -> Sequence[HistoryRow]:
        """The stored rows of a scope, also between a rename and the tick that records it."""
        renamed = {} if self._uncommitted is None else self._uncommitted[1]
        former = next((former for former, name in renamed.items() if name == policy), policy)
        return self._store.rows(former, scope, since)

    def states(self) -> Sequence[MachineState]:
        """The stored states for a start, under the names and texts of the set that it starts with.

        Where the store has the set that made them, and this program still compiles it, it is continued as by a
        reload. What is not declared to be renamed, and is in force, stays as an orphan.
        """
        states = self._store.states()
        before = last_good(self._store)
        if before is None or before.digest == self.interpreter.policies.digest:
            return states
        try:
            old = compiled(load_texts(before.files, without=TESTS), before.origin.commit).policies
        except PolicyProblemsError:
            return states
        change = continuation(old, self.interpreter.policies)
        moved = [blob_after(each, change.links[each.policy]) for each in states if each.policy in change.links]
        taken = {(each.policy, each.scope) for each in moved}
        left = [each for each in states if each.policy not in change.links]
        if change.renamed and self._uncommitted is not None:
            self._uncommitted = self._uncommitted[0], change.renamed
        return (*moved, *(each for each in left if (each.policy, each.scope) not in taken))

    def to_commit(self, at: Instant) -> tuple[AppliedSet | None, Mapping[str, str]]:
        """The set that the tick at `at` is to record with its changes, and former name → name of its policies."""
        if self._uncommitted is None:
            return None, {}
        applied, renamed = self._uncommitted
        return replace(applied, at=at), renamed

    def committed(self, at: Instant) -> None:
        """The tick at `at` has recorded what `to_commit` returned."""
        if self._uncommitted is None:
            return
        self.in_force, self._uncommitted = replace(self._uncommitted[0], at=at), None
        if self._taken is not None:
            self.needs_start = self._taken.proposed.needs_start
            self._taken.end("taken")
            self._taken = None


def is_same_set(one: AppliedSet, other: AppliedSet) -> bool:
    """Whether two sets have the same policies, from the same files and commit, compiled by the same program."""
    return (
        (one.digest, one.program) == (other.digest, other.program)
        and one.origin.commit == other.origin.commit
        and folder_digest(one.files) == folder_digest(other.files)
    )
