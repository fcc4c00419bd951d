"""Proposals of a source to the runner: the set that is compiled for a step, and what the answer changes in the state.

A set that cannot be proposed gives the state with the reason, by which nothing is taken.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

from msgspec.structs import replace

from killswitch.accounts.next_set import CompilingError, NeedsStartError, NextSet, next_set
from killswitch.accounts.opening import LoadedPolicies, PolicyProblemsError
from killswitch.model.applied_set import AppliedSet, PolicyOrigin
from killswitch.runner.hot_reload import ReloadAnswer
from killswitch.source.candidate import Candidate, SourceProblem
from killswitch.source.sync import declined, held, restore_declined
from killswitch.source.sync_state import Restore, SourceState, Take


class Proposed(Protocol):
    """A set on its way to the runner."""

    answer: Future[ReloadAnswer]


class TakesSets(Protocol):
    """The runner, as far as a source needs it."""

    @property
    def in_force(self) -> AppliedSet: ...

    def propose(self, proposed: NextSet, /) -> Proposed: ...


def next_of_head(
    state: SourceState, step: Take, candidate: Candidate, running: LoadedPolicies, now: int
) -> NextSet | SourceState:
    """The set of the head, compiled for a run with `running`; or the state with what is wrong with it."""
    head = state.head
    origin = PolicyOrigin(
        source=state.source,
        ref=candidate.ref,
        commit=candidate.commit,
        folder_digest=candidate.folder_digest,
        signers=() if head is None else head.signers,
        claimed=() if head is None else head.claimed,
        verdict=step.verdict,
        approvals=step.approvals,
    )
    try:
        following = next_set(candidate.files, origin, running)
    except PolicyProblemsError as error:
        return declined(state, step.folder_digest, _mistakes(state, error), now)
    except CompilingError as error:  # compared again after a while, as its cause is not in the files
        return declined(state, step.folder_digest, (_problem(state, "KS8245", str(error)),), now)
    except NeedsStartError as error:
        return held(state, step.folder_digest, "start", str(error))
    if not following.loaded.policies.graphs:
        problem = _problem(state, "KS8240", "the source proposes no policy; an emptied source removes nothing")
        return declined(state, step.folder_digest, (problem,), now)
    return replace(following, base=state.policy_digest)


def restored_set(
    state: SourceState, step: Restore, earlier: AppliedSet | None, running: LoadedPolicies, now: int
) -> NextSet | SourceState:
    """A set that was in force, compiled again; or the state with why it cannot be put in force."""
    if earlier is None:
        return restore_declined(state, "the store no longer has that set", now)
    origin = replace(earlier.origin, operator=step.hold.author, reason=step.hold.reason, verdict=None, approvals=())
    try:
        return next_set(earlier.files, origin, running)
    except (PolicyProblemsError, NeedsStartError, CompilingError) as error:
        return restore_declined(state, str(error), now)


def settled(state: SourceState, step: Take | Restore, answer: ReloadAnswer, now: int) -> SourceState:
    """The state after the answer of the runner. Of a set that was taken, the state has to name it in force already."""
    text = "; ".join(answer.reasons)
    if answer.status == "taken":
        return replace(state, needs_start=answer.needs_start)
    if isinstance(step, Restore):
        return restore_declined(state, text, now) if answer.status == "refused" else state
    if answer.status == "held":
        return held(state, step.folder_digest, "close", text)
    if answer.status == "refused":
        problem = _problem(state, "KS8245", f"the runner refuses the set: {text}")
        return declined(state, step.folder_digest, (problem,), now)
    return state  # superseded


def _mistakes(state: SourceState, error: PolicyProblemsError) -> tuple[SourceProblem, ...]:
    errors = [each for each in error.diagnostics if each.severity == "error"]
    head = state.head
    return tuple(
        SourceProblem(
            code=each.code, text=each.message, fix=each.fix, is_page=False, file=each.file, line=each.line,
            commit=None if head is None else head.commit,
            principal=None if head is None else next(iter(head.signers), None),
        )
        for each in errors[:10]
    )  # fmt: skip


def _problem(state: SourceState, code: str, text: str) -> SourceProblem:
    fix = f"`ksctl explain {code}` says what to do; the set in force stays"
    commit = None if state.head is None else state.head.commit
    return SourceProblem(code=code, text=text, fix=fix, is_page=False, commit=commit)
