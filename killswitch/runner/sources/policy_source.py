"""Follows a source of policies during a run, on a thread of its own: poll, review, and proposal to the runner.

Polls and reviews are child processes; what follows from them is decided by `killswitch.source`. A tick only passes what
it has (commands, its snapshot) and stores what has changed: a source that hangs delays none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from killswitch.accounts.next_set import CompilingError, NeedsStartError, NextSet, next_set, set_in_force
from killswitch.accounts.opening import LoadedPolicies, PolicyProblemsError
from killswitch.model.alert import Alerts
from killswitch.model.applied_set import AppliedSet, folder_digest
from killswitch.model.clock import Clock
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import Snapshot, encode_snapshot
from killswitch.model.store import Store, decoded
from killswitch.runner.hot_reload import ReloadAnswer, ReloadStatus, put_reply
from killswitch.runner.observers import TickReport
from killswitch.runner.sources.proposals import Proposed, TakesSets, next_of_head, restored_set, settled
from killswitch.runner.sources.source_alerts import described, source_alerts, without_time
from killswitch.runner.sources.step_approvals import StepApprovals
from killswitch.source import sync
from killswitch.source.approval_rules import stated_path
from killswitch.source.candidate import Candidate, Review, ReviewRequest
from killswitch.source.poller import SourcePoller
from killswitch.source.polling import SourceSettings
from killswitch.source.statements import DELIVERED
from killswitch.source.sync import (
    answered,
    applied,
    commanded,
    passed,
    reopened,
    reviewed,
)
from killswitch.source.sync_decision import condition, decide, next_poll
from killswitch.source.sync_state import (
    SOURCE_COMMANDS,
    SOURCE_STATE,
    Restore,
    SourceCommand,
    SourceCondition,
    SourcePlace,
    SourceRules,
    SourceState,
    Take,
    Wait,
    decode_command,
    encode_source,
)
from killswitch.worker import Worker

STORED_EVERY: Final = 10.0
"""Seconds after which counted time is stored where nothing else has changed."""
LOOKS_EVERY: Final = 1.0
"""Seconds between two looks of the thread at what it waits for."""
MOST_STEPS: Final = 8
"""Steps that follow from each other at one look, such as a poll, a review and a proposal."""


class SourceAccess(Struct, frozen=True):
    """The ways to the child processes of a source. Both may take as long as their limits, and raise nothing."""

    poller: SourcePoller
    review: Callable[[ReviewRequest], Review]


class SourceRun(Struct, frozen=True):
    """What a source needs of the run. `running`: the policies of the start, whose accounts run."""

    store: Store
    store_at: str
    running: LoadedPolicies
    clock: Clock
    monotonic: Callable[[], float]
    jitter: Callable[[], float]


def rules_of(settings: SourceSettings) -> SourceRules:
    """What the configuration demands of every set."""
    git = settings.git
    return SourceRules(
        poll=settings.poll,
        stale_after=settings.stale_after,
        frozen_after=settings.frozen_after,
        loosening_after=settings.loosening_after,
        shadow_before=settings.shadow_before,
        place=SourcePlace() if git is None else SourcePlace(ref=git.ref, path=stated_path(settings.kind, git.path)),
    )


class PolicySource:
    """An observer that follows the source. Call `follow` with the runner before its first tick."""

    def __init__(self, settings: SourceSettings, access: SourceAccess, run: SourceRun, state: SourceState) -> None:
        """`state`: as `restored` at this start."""
        self.settings = settings
        self.rules = rules_of(settings)
        self._access = access
        self._run = run
        self._state = replace(state, rules=self.rules)
        self._runner: TakesSets | None = None
        self._worker = Worker("policy source", self._look)
        self._inbox: dict[str, SourceCommand] = {}
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._candidate: Candidate | None = None
        """The files of the head; after a restart they are polled again."""
        self._statements: frozenset[str] = frozenset()
        """The names of the statements that the last look has found."""
        self._steps = StepApprovals(settings.name, run.store, run.clock)
        self._proposal: tuple[Take | Restore, Proposed] | None = None
        self._held: str | None = None
        """The folder digest of the set that the runner holds until a close is over."""
        self._counted = run.monotonic()
        self._poll_at = run.monotonic()
        self._in_shadow: tuple[str, int] | None = None
        """The folder digest of the set in shadow, and for how long it was (microseconds)."""
        self._stored: SourceState | None = None
        self._stored_at = run.monotonic()
        self._asked: list[Callable[[ReloadAnswer], None]] = []
        self._asked_by: str | None = None
        """The operator who has brought the next poll forward."""
        self._awaiting: list[Callable[[ReloadAnswer], None]] = []
        """Who is answered as soon as it is known what becomes of the poll under way."""

    @property
    def judges(self) -> tuple[str, ...]:
        return ("source",)

    @property
    def state(self) -> SourceState:
        """The state after the last step."""
        return self._state

    @property
    def condition(self) -> SourceCondition:
        """Sync and health now."""
        since = int((self._run.monotonic() - self._counted) * 1_000_000)
        return condition(passed(self._state, since), self.rules, to_micros(self._run.clock.now()))

    def follow(self, runner: TakesSets) -> None:
        """Begin to follow the source for this runner."""
        self._runner = runner
        self._worker.wake()

    def request(self, answer: Callable[[ReloadAnswer], None], by: str | None = None, reason: str | None = None) -> None:
        """Bring the next poll forward, and call `answer` from another thread with what became of it.

        `by`, `reason`: who requests it. A poll that is brought forward takes nothing that a later one would not, but
        for what an unprotected source would fire on arrival: for that it waits for an operator.
        """
        with self._lock:
            self._asked.append(answer)
            self._asked_by = by or self._asked_by
        self._worker.wake()

    def ticked(self, report: TickReport) -> None:
        """Pass on commands and the snapshot, and store what has changed. Starts nothing that could wait."""
        if not report.snapshot.scheduled:
            return
        self._snapshot = report.snapshot
        for event in report.snapshot.events:
            if event.kind == "reload":
                self.request(partial(put_reply, self._run.store, event.id), event.author, event.reason)
        found = self._run.store.live_under(SOURCE_COMMANDS)
        results = {result.id for result in self._state.results}
        for name, blob in found.items():
            command = decoded(decode_command, blob)
            if command is not None and command.id not in results and name not in self._inbox:
                with self._lock:
                    self._inbox[name] = command
                self._worker.wake()
        state, now = self._state, self._run.monotonic()
        if frozenset(self._run.store.live_under(DELIVERED)) != self._statements:
            self._worker.wake()
        is_event = self._stored is None or without_time(state) != without_time(self._stored)
        if is_event or (state is not self._stored and now - self._stored_at >= STORED_EVERY):
            self._run.store.put_live(SOURCE_STATE, encode_source(state))
            self._stored, self._stored_at = state, now

    @property
    def for_shadow(self) -> Candidate | None:
        """The head while it has to be in shadow before it is taken."""
        wait, candidate, head = self.condition.wait, self._candidate, self._state.head
        is_head = candidate is not None and head is not None and candidate.folder_digest == head.folder_digest
        return candidate if is_head and wait is not None and wait.what == "shadow" else None

    def was_in_shadow(self, digest: str, micros: int) -> None:
        """Note for how long the set of this folder digest was in shadow; from any thread."""
        self._in_shadow = digest, micros

    @property
    def alerts(self) -> Alerts:
        """One alert for each culprit, and one while an operator has suspended the source (W5)."""
        found = self.condition
        if found.wait is not None and found.wait.what == "poll" and found.hold is None and found.culprit is None:
            return Alerts(unknown=("source",))
        return source_alerts(self.settings.name, self._state, found)

    def stop(self) -> None:
        """Begin no further step; a child that is waited for ends by its own limits."""
        self._worker.stop(0.1)

    def _look(self) -> float | None:
        """One look: count time, obey commands, poll when due, and do what follows. Returns the seconds to the next."""
        runner = self._runner
        if runner is None or self._worker.is_stopping:
            return None
        self._count()
        self._obey()
        self._compare(runner)
        self._settle(runner)
        files = self._run.store.live_under(DELIVERED)
        self._steps.pass_on(files, lambda: self._access.poller.base_trust(self._state))
        delivered = frozenset(files)
        if delivered != self._statements:
            self._state, self._statements = reopened(self._state), delivered
        hold = self._state.hold
        is_paused = hold is not None and hold.kind == "pause"
        with self._lock:
            self._awaiting, self._asked = [*self._awaiting, *self._asked], []
            by, self._asked_by = self._asked_by, None
        if by is not None:
            self._state = sync.arrival_accepted(self._state, by)
        if (self._awaiting or self._run.monotonic() >= self._poll_at) and self._proposal is None and not is_paused:
            self._poll()
        for _ in range(MOST_STEPS):
            self._obey()  # a poll or a review takes up to minutes: what was commanded or taken meanwhile counts
            self._compare(runner)
            if self._worker.is_stopping or not self._advance(runner):
                break
        self._withdraw_groundless()
        if self._proposal is None:
            self._reply()
        return LOOKS_EVERY

    def _withdraw_groundless(self) -> None:
        """Withdraw a set that the runner holds for a close, once it is no more what is to be taken after it."""
        held = self._held
        if held is None or held == self._state.in_force:
            self._held = None
            return
        step, head = decide(self._state, self.rules), self._state.head
        is_wanted = isinstance(step, Take) or (isinstance(step, Wait) and step.what in ("close", "review"))
        if head is None or head.folder_digest != held or not is_wanted:
            self._withdraw()

    def _reply(self) -> None:
        """Answer who has brought a poll forward."""
        awaiting, self._awaiting = self._awaiting, []
        if not awaiting:
            return
        found = self.condition
        text, state = described(found), self._state
        status: ReloadStatus = "taken" if found.sync == "synced" else "refused" if found.wait is None else "held"
        for answer in awaiting:
            answer(ReloadAnswer(status, state.policy_digest, () if status == "taken" else (text,), state.needs_start))

    def _count(self) -> None:
        now = self._run.monotonic()
        self._state = passed(self._state, int((now - self._counted) * 1_000_000))
        if (in_shadow := self._in_shadow) is not None:
            self._state = sync.shadowed(self._state, *in_shadow)
        self._counted = now

    def _obey(self) -> None:
        with self._lock:
            commands, self._inbox = self._inbox, {}
        was_suspended = self._state.hold is not None
        for command in sorted(commands.values(), key=lambda each: (each.at, each.id)):
            digest, is_anchor = command.digest, command.verb == "anchor"
            known = None if digest is None or is_anchor else set_in_force(self._run.store, digest)
            is_approved = is_anchor and digest is not None and self._approves_anchor(digest)
            sets = () if known is None else (known,)
            self._state = commanded(self._state, command, sets, is_approved=is_approved)
            if command.verb in ("resume", "anchor"):
                self._poll_at = self._run.monotonic()

        if commands and self._state.hold is not None and not was_suspended:
            self._withdraw()

    def _approves_anchor(self, commit: str) -> bool:
        delivered = self._run.store.live_under(DELIVERED).values()
        return self._access.poller.is_anchor_approved(self._state, commit, delivered, self._now())

    def _withdraw(self) -> None:
        """Propose the set in force: it supersedes what was proposed before, or is held, and is not to be taken."""
        runner, head = self._runner, self._state.head
        if runner is None or (self._proposal is None and self._held is None):
            return
        self._held = None
        now = runner.in_force
        with suppress(PolicyProblemsError, NeedsStartError, CompilingError):  # it runs, so that it compiles
            runner.propose(next_set(now.files, now.origin, self._run.running))
        self._proposal = None
        if head is not None:
            self._state = replace(self._state, head=replace(head, held=None, review=None))

    def _compare(self, runner: TakesSets) -> None:
        """Another set may be in force than at the last look: one that was held, or one of a command."""
        now = runner.in_force
        digest = now.origin.folder_digest or folder_digest(now.files)
        if digest == self._state.in_force and now.digest == self._state.policy_digest:
            return
        if self._candidate is not None and self._candidate.folder_digest == digest:
            self._state = replace(self._state, verified=self._access.poller.after(self._state, self._candidate))
        now = replace(now, origin=replace(now.origin, folder_digest=digest))
        self._state = applied(self._state, now)
        if self._state.head is None:
            self._candidate, self._poll_at = None, self._run.monotonic()

    def _settle(self, runner: TakesSets) -> None:
        """What the runner has answered to the last proposal."""
        if self._proposal is None or not self._proposal[1].answer.done():
            return
        (step, proposal), self._proposal = self._proposal, None
        answer = proposal.answer.result()
        if answer.status == "held" and isinstance(step, Take):
            self._held = step.folder_digest
        if answer.status == "taken":
            self._compare(runner)
        self._state = settled(self._state, step, answer, self._now())

    def _poll(self) -> None:
        state = self._state
        head = state.head
        is_known = (
            self._candidate is not None and head is not None and state.in_force in (head.base, head.folder_digest)
        )
        previous = head.mark if head is not None and is_known else None
        result = self._access.poller.poll(state, previous, self._now())
        self._count()
        if result.answer.candidate is not None:
            self._candidate = result.answer.candidate
        self._state = replace(answered(self._state, result.answer, self._now()), verified=result.verified)
        if result.newest_commit_at is not None:
            self._state = replace(self._state, newest_commit_at=to_micros(result.newest_commit_at))
        pause = next_poll(self._state, self.rules, self._run.jitter())
        self._poll_at = self._run.monotonic() + pause / 1_000_000

    def _advance(self, runner: TakesSets) -> bool:
        """Do what is to be done now; whether more may follow at once."""
        step = decide(self._state, self.rules)
        candidate, head = self._candidate, self._state.head
        if isinstance(step, Restore):
            return self._restore(runner, step)
        if head is None or candidate is None or candidate.folder_digest != head.folder_digest:
            return False  # the next poll brings the files
        if isinstance(step, Wait) and step.what == "review":
            review = self._access.review(self._request(runner.in_force, candidate))
            self._count()
            base = self._state.in_force if head.base == self._state.in_force else head.base
            self._state = reviewed(self._state, head.folder_digest, base, review, self._now())
            return True
        return isinstance(step, Take) and self._take(runner, step, candidate)

    def _take(self, runner: TakesSets, step: Take, candidate: Candidate) -> bool:
        """Compile and propose the head; whether something was found that is wrong with it."""
        if self._proposal is not None:
            return False
        return self._propose(runner, step, next_of_head(self._state, step, candidate, self._run.running, self._now()))

    def _restore(self, runner: TakesSets, step: Restore) -> bool:
        """Compile and propose a set that was in force; whether it cannot be put in force again."""
        if self._proposal is not None and isinstance(self._proposal[0], Restore):
            return False
        earlier = set_in_force(self._run.store, step.policy_digest)
        return self._propose(runner, step, restored_set(self._state, step, earlier, self._run.running, self._now()))

    def _propose(self, runner: TakesSets, step: Take | Restore, found: NextSet | SourceState) -> bool:
        """Propose what was compiled, or keep the state with why it was not; whether it was not."""
        if isinstance(found, SourceState):
            self._state = found
            return True
        proposal = runner.propose(found)
        self._proposal = (step, proposal)
        proposal.answer.add_done_callback(lambda _: self._worker.wake())
        return False

    def _request(self, in_force: AppliedSet, candidate: Candidate) -> ReviewRequest:
        store, snapshot = self._run.store, self._snapshot
        statements = store.live_under(DELIVERED)
        return ReviewRequest(
            base=in_force.files,
            base_digest=in_force.digest,
            candidate=candidate,
            trust=self._access.poller.base_trust(self._state),
            statements=tuple(blob for blob in statements.values() if blob),
            spent=self._state.spent,
            snapshot=None if snapshot is None else encode_snapshot(snapshot),
            states=tuple((each.policy, each.scope, each.blob) for each in store.states()),
            now=self._now(),
            store=self._run.store_at or None,
        )

    def _now(self) -> int:
        return to_micros(self._run.clock.now())
