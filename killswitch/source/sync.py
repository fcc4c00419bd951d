"""How the state of a source changes: by its answers, reviews, time, what is put in force, and operators. All is pure.

A head is taken only if it was reviewed against the set in force now (`killswitch.source.sync_decision`). Nothing
here remembers a bad input for longer than the source repeats it, so that the next honest head is taken as ever.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from msgspec.structs import replace

from killswitch.model.applied_set import AppliedSet
from killswitch.model.instant import to_micros
from killswitch.source.candidate import Candidate, Review, SourceAnswer, SourceProblem
from killswitch.source.polling import candidate_mark
from killswitch.source.sync_decision import REPEATED, is_approved, lacking_approvals
from killswitch.source.sync_state import (
    BadSet,
    CommandResult,
    Head,
    Hold,
    HoldKind,
    RefusedAttempt,
    SourceCommand,
    SourceState,
    WaitFor,
)

MOST_REFUSED: Final = 100
MOST_SPENT: Final = 10_000
MOST_RESULTS: Final = 20
MOST_BAD: Final = 100
NOT_POLLED: Final = "the source was not polled since the start"


def restored(
    state: SourceState | None, source: str, last_good: AppliedSet | None, spent: Iterable[str] = ()
) -> SourceState:
    """The state at a start. The floor is the store (H4): what it has in force counts, whatever else was kept.

    `last_good`: the set in force by the store. `spent`: the approvals of all sets that were in force by the store,
    which let nothing through again where the state is damaged (A6). The state of another source is not continued.
    """
    if state is None or state.source != source:
        state = SourceState(source=source)
    state = replace(state, spent=tuple(dict.fromkeys((*state.spent, *spent)))[-MOST_SPENT:])
    head = state.head
    if head is not None:  # for how long nothing ran is unknown: an approval may have ended, and the book is another
        head = replace(head, reviewed_for=max(head.reviewed_for, REPEATED))
    state = replace(state, problems=(), progress=NOT_POLLED, failures=0, head=head)
    if last_good is None or last_good.origin.folder_digest == state.in_force:
        return state
    return applied(state, last_good)


def answered(state: SourceState, answer: SourceAnswer, now: int) -> SourceState:
    """The state after a poll. `now`: the clock of the runner, in microseconds, shown only."""
    if answer.problems:
        problems = tuple(sorted(answer.problems, key=lambda each: not each.is_page))
        return _recorded(replace(state, problems=problems, progress=None, failures=state.failures + 1), now)
    state = replace(state, problems=(), progress=answer.progress, failures=0, answered_at=now, answer_age=0)
    if answer.is_in_force:
        here = Head(folder_digest=state.in_force, base=state.in_force, commit=state.commit, seen_at=now)
        return replace(state, head=replace(here, is_protected=state.is_protected))
    return state if answer.candidate is None else _recorded(_with_head(state, answer.candidate, now), now)


def _with_head(state: SourceState, candidate: Candidate, now: int) -> SourceState:
    if candidate.newest_commit_at is not None:
        state = replace(state, newest_commit_at=to_micros(candidate.newest_commit_at))
    problem = _misplaced(state, candidate)
    if problem is not None:
        return replace(state, problems=(problem,), failures=state.failures + 1)
    commits = [commit for step in candidate.steps for commit in step.commits]
    head = Head(
        folder_digest=candidate.folder_digest,
        base=state.in_force,
        commit=candidate.commit,
        generation=candidate.generation,
        mark=candidate_mark(candidate),
        signers=tuple(dict.fromkeys(filter(None, (*(each.signer for each in commits), candidate.signer)))),
        claimed=tuple(dict.fromkeys(name for each in commits for name in each.claimed)),
        is_protected=candidate.is_protected,
        manifest_version=candidate.manifest_version,
        seen_at=now,
    )
    state = replace(state, head=_continued(head, state.head))
    return _advanced(state, head) if head.folder_digest == state.in_force else state


def _continued(head: Head, before: Head | None) -> Head:
    """The head, with the time that the same change has waited under another commit or with fewer statements."""
    if before is None or (before.folder_digest, before.base) != (head.folder_digest, head.base):
        return head
    head = replace(head, seen_at=before.seen_at, delayed=before.delayed, shadowed=before.shadowed)
    if before.mark != head.mark:
        return head
    return replace(
        head,
        review=before.review,
        reviewed_for=before.reviewed_for,
        problems=before.problems,
        held=before.held,
        arrival_accepted_by=before.arrival_accepted_by,
    )


def _advanced(state: SourceState, head: Head) -> SourceState:
    """The set in force under a later commit, which changed nothing of it."""
    return replace(
        state,
        commit=head.commit or state.commit,
        floor=head.commit or state.floor,
        manifest_version=max(state.manifest_version, head.manifest_version or 0),
        is_protected=head.is_protected,
    )


def _misplaced(state: SourceState, candidate: Candidate) -> SourceProblem | None:
    """Why a candidate is no successor of what was in force, whatever its signatures are."""
    if not any(file.path.endswith((".yaml", ".yml")) for file in candidate.files):
        text = "the source proposes no policy file; an emptied source removes nothing"
        fix = "restore the files; to remove a policy, leave at least one other"
        return SourceProblem(code="KS8240", text=text, fix=fix, is_page=False, commit=candidate.commit)
    lost = _lost(state, candidate)
    if lost is not None:
        text = f"commit {candidate.commit} does not contain commit {lost}, which was in force"
        fix = "push the later history again, or move the anchor with `ksctl source anchor`, which needs approvals"
        return SourceProblem(code="KS8241", text=text, fix=fix, is_page=True, commit=candidate.commit)
    if candidate.manifest_version is not None and candidate.manifest_version < state.manifest_version:
        text = f"the manifest has version {candidate.manifest_version}, and {state.manifest_version} was in force"
        return SourceProblem(code="KS8232", text=text, fix="sign the folder with a higher version", is_page=True)
    return None


def _lost(state: SourceState, candidate: Candidate) -> str | None:
    """A commit that was in force and is not on the first-parent line of the candidate; None if all are (H2, H4).

    The source has verified the line; that it begins at the commit in force is looked at here again.
    """
    if candidate.commit is None or state.commit is None:
        return None
    if candidate.steps:
        first = candidate.steps[0]
        begins = next((each.parents[:1] for each in first.commits if each.id == first.commit), None)
        if begins is not None and begins != (state.commit,):
            return state.commit
    elif candidate.commit != state.commit:
        return state.commit
    line = {state.commit, *(step.commit for step in candidate.steps)}
    return state.floor if state.floor is not None and state.floor not in line else None


def reviewed(state: SourceState, folder_digest: str, base: str, review: Review, now: int) -> SourceState:
    """The state after a review of that folder against that base; one of another head or base counts for nothing."""
    head = state.head
    if head is None or head.folder_digest != folder_digest or base != state.in_force or head.base != base:
        return state
    head = replace(head, review=review, reviewed_for=0, problems=review.problems, held=None)
    head = replace(head, delayed=head.delayed if is_approved(state, head) else 0)
    return _recorded(replace(state, head=head), now)


def arrival_accepted(state: SourceState, by: str) -> SourceState:
    """The state after an operator's reload: what its set would fire waits no longer, where nobody could approve it.

    A protected source waits for its approvers, whoever reloads.
    """
    head = state.head
    if head is None or head.is_protected or head.review is None or not head.review.arrival:
        return state
    return replace(state, head=replace(head, arrival_accepted_by=by))


def passed(state: SourceState, micros: int) -> SourceState:
    """The state after so much time of the runner, which a monotonic clock has measured; none if it is negative."""
    if micros <= 0:
        return state
    head, hold = state.head, state.hold
    if head is not None:
        delayed = head.delayed + micros if is_approved(state, head) else head.delayed
        head = replace(head, reviewed_for=head.reviewed_for + micros, delayed=delayed)
    if hold is not None:
        left = hold.left - micros
        is_over = left <= 0 and hold.digest is None
        hold = None if is_over else replace(hold, left=max(left, 0), lasted=hold.lasted + micros)
    return replace(state, head=head, hold=hold, answer_age=state.answer_age + micros)


def shadowed(state: SourceState, folder_digest: str, micros: int) -> SourceState:
    """The state, with how long the set with that digest was in shadow."""
    head = state.head
    if head is None or head.folder_digest != folder_digest:
        return state
    return replace(state, head=replace(head, shadowed=micros))


def applied(state: SourceState, now_in_force: AppliedSet, needs_start: tuple[str, ...] = ()) -> SourceState:
    """The state once a set is in force, from wherever it came. What was approved for it is spent (A6)."""
    origin, head = now_in_force.origin, state.head
    spent = tuple(dict.fromkeys((*state.spent, *(each.id for each in origin.approvals))))
    # A commit of another source, or of a folder that was given by path, is none of this history.
    commit = origin.commit if origin.source == state.source else None
    is_ahead = origin.operator is None and commit is not None
    state = replace(
        state,
        in_force=origin.folder_digest,
        policy_digest=now_in_force.digest,
        commit=commit,
        floor=commit if is_ahead else state.floor or commit,
        needs_start=needs_start,
        spent=spent[-MOST_SPENT:],
        hold=None if state.hold is None else replace(state.hold, digest=None),
    )
    if head is None or head.folder_digest != origin.folder_digest:
        return replace(state, head=None)  # what was found against the set before says nothing of a change of this one
    return _advanced(replace(state, head=replace(head, review=None, problems=(), held=None)), head)


def declined(state: SourceState, folder_digest: str, problems: tuple[SourceProblem, ...], now: int) -> SourceState:
    """The state after the compiler or the runner has refused the head."""
    head = state.head
    if head is None or head.folder_digest != folder_digest or not problems:
        return state
    return _recorded(replace(state, head=replace(head, problems=problems, reviewed_for=0)), now)


def reopened(state: SourceState) -> SourceState:
    """The state with a head that is to be reviewed again, as somebody has delivered another approval."""
    head = state.head
    if head is None or head.review is None or head.problems:
        return state
    return replace(state, head=replace(head, review=None))


def held(state: SourceState, folder_digest: str, what: WaitFor, text: str) -> SourceState:
    """The state while the runner holds the head, until a close is over or a start has read the rest of it."""
    head = state.head
    if head is None or head.folder_digest != folder_digest:
        return state
    return replace(state, head=replace(head, held=(what, text)))


def restore_declined(state: SourceState, text: str, now: int) -> SourceState:
    """The state after the runner has refused a set that an operator ordered: the source stays suspended without it."""
    hold = state.hold
    if hold is None or hold.digest is None:
        return state
    refused = RefusedAttempt(now, None, None, hold.author, "KS8245", text)
    return replace(state, hold=replace(hold, digest=None), refused=(*state.refused, refused)[-MOST_REFUSED:])


def _recorded(state: SourceState, now: int) -> SourceState:
    """The state with the refused attempt on record, once for each set and cause."""
    attempt = _attempt(state, now)
    if attempt is None:
        return state
    what = (attempt.folder_digest, attempt.commit, attempt.code, attempt.principal)
    if what in {(each.folder_digest, each.commit, each.code, each.principal) for each in state.refused}:
        return state
    return replace(state, refused=(*state.refused, attempt)[-MOST_REFUSED:])


def _attempt(state: SourceState, now: int) -> RefusedAttempt | None:
    """What the source attempts and is refused, if it is."""
    if state.problems:
        cause = state.problems[0]
        return RefusedAttempt(now, None, cause.commit, cause.principal, cause.code, cause.text)
    head = state.head
    if head is None or head.folder_digest == state.in_force:
        return None
    signer = next(iter(head.signers), None)
    if head.problems:
        cause = head.problems[0]
        commit, principal = cause.commit or head.commit, cause.principal or signer
        return RefusedAttempt(now, head.folder_digest, commit, principal, cause.code, cause.text)
    if head.review is None or is_approved(state, head):
        return None
    text = lacking_approvals(state, head.review)
    return RefusedAttempt(now, head.folder_digest, head.commit, signer, None, text)


def commanded(
    state: SourceState, command: SourceCommand, known: Collection[AppliedSet], *, is_approved: bool = False
) -> SourceState:
    """The state after an operator's command, with its result; the same command counts once.

    `known`: the sets that were in force. `is_approved`: whether the command has the approvals that it needs, which only
    an `anchor` does.
    """
    if any(result.id == command.id for result in state.results):
        return state
    change = _COMMANDS[command.verb](state, command, known, is_approved)
    text, state_after = (change, state) if isinstance(change, str) else (_accepted(command), change)
    result = CommandResult(command.id, not isinstance(change, str), text, command.verb)
    return replace(state_after, results=_kept((*state.results, result)))


def _kept(results: tuple[CommandResult, ...]) -> tuple[CommandResult, ...]:
    """The newest results, and the last one of each verb: the store keeps that command, which must not count again."""
    last = {each.verb: each.id for each in results}
    newest = {each.id for each in results[-MOST_RESULTS:]}
    return tuple(each for each in results if each.id in newest or last[each.verb] == each.id)


def _accepted(command: SourceCommand) -> str:
    what = f" {command.digest}" if command.digest is not None else ""
    return f"{command.verb}{what} by {command.author}: {command.reason}"


def _hold(kind: HoldKind, command: SourceCommand, digest: str | None = None) -> Hold:
    return Hold(
        kind=kind,
        author=command.author,
        reason=command.reason,
        at=command.at,
        left=command.lasts,
        remind=command.remind,
        digest=digest,
    )


def _lasting(command: SourceCommand) -> str | None:
    return None if command.lasts > 0 else f"{command.verb} needs an end: say for how long"


def _pause(
    state: SourceState, command: SourceCommand, _known: Collection[AppliedSet], _is_approved: bool
) -> SourceState | str:
    return _lasting(command) or replace(state, hold=_hold("pause", command))


def _pin(
    state: SourceState, command: SourceCommand, known: Collection[AppliedSet], _is_approved: bool
) -> SourceState | str:
    if command.digest is not None and not any(each.digest == command.digest for each in known):
        return f"no set with the digest {command.digest} was in force"
    digest = None if command.digest == state.policy_digest else command.digest
    return _lasting(command) or replace(state, hold=_hold("pin", command, digest))


def _rollback(
    state: SourceState, command: SourceCommand, known: Collection[AppliedSet], _is_approved: bool
) -> SourceState | str:
    """To a set that was in force. The one in force becomes bad, and with it a head that waits."""
    if not any(each.digest == command.digest for each in known):
        return f"no set with the digest {command.digest} was in force"
    if command.digest == state.policy_digest:
        return "that set is in force; `ksctl source pin` keeps it there"
    bad = [BadSet(state.in_force, state.commit, command.author, command.reason, command.at)]
    bad += [each for each in state.bad if each.folder_digest != state.in_force]
    return _lasting(command) or replace(
        state, hold=_hold("rollback", command, command.digest), bad=tuple(bad[:MOST_BAD])
    )


def _resume(
    state: SourceState, command: SourceCommand, _known: Collection[AppliedSet], _is_approved: bool
) -> SourceState | str:
    kept = tuple(each for each in state.bad if command.forget not in (each.commit, each.folder_digest))
    if command.forget is not None and kept == state.bad:
        return f"no set with the commit or digest {command.forget} was rolled back"
    if command.forget is None and state.hold is None:
        return "the source is not suspended"
    return replace(state, hold=None, bad=state.bad if command.forget is None else kept)


def _anchor(
    state: SourceState, command: SourceCommand, _known: Collection[AppliedSet], is_approved: bool
) -> SourceState | str:
    """H7: the one way forward after a rewrite. The set in force stays the base of the next review."""
    if command.digest is None:
        return "name the commit"
    if not is_approved:
        return f"the anchor {command.digest} lacks its approvals"
    return replace(state, anchor=command.digest, commit=None, floor=None, verified=None, problems=(), head=None)


_COMMANDS: Final = {"pause": _pause, "pin": _pin, "rollback": _rollback, "resume": _resume, "anchor": _anchor}
