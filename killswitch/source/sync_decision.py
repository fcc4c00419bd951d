"""What is to be done with the head of a source, and how the source is: the reading side of its state.

Each check is a function of the state that answers or leaves the question to the next one, in the order of `_CHECKS`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from killswitch.model.applied_set import Approval
from killswitch.model.backoff import Backoff
from killswitch.model.instant import SECOND
from killswitch.render.formats import count_of, rounded_duration
from killswitch.source.candidate import Review, SourceProblem
from killswitch.source.sync_state import (
    Head,
    Keep,
    Restore,
    SourceCondition,
    SourceRules,
    SourceState,
    Stay,
    SyncStep,
    Take,
    Wait,
)

PAUSES: Final = Backoff(first=SECOND, longest=300 * SECOND)
"""Between two polls that fail (P6), in microseconds."""
FRESH: Final = 60 * SECOND
"""How old a review may be when its set is taken: what would fire on arrival changes with the book."""
REPEATED: Final = 300 * SECOND
"""When a set with a problem is reviewed again: a refusal may end, a mistake in a file does not."""
_REDUCING = ("TIGHTENING", "EQUIVALENT")


def decide(state: SourceState, rules: SourceRules) -> SyncStep:
    """What is to be done now."""
    for check in _CHECKS:
        step = check(state, rules)
        if step is not None:
            return step
    head = state.head
    if head is None:
        return Wait("poll", "the source was not polled against the set in force yet")
    for check_head in _CHECKS_OF_REVIEW:
        step = check_head(state, rules, head, head.review or Review())
        if step is not None:
            return step
    review = head.review or Review()
    return Take(head.folder_digest, review.verdict, _spendable(state, review))


def _suspended(state: SourceState, _rules: SourceRules) -> SyncStep | None:
    hold = state.hold
    if hold is None:
        return None
    if hold.digest is not None and hold.digest != state.policy_digest:
        return Restore(hold.digest, hold)
    return Wait("operator", f"{hold.kind} by {hold.author}: {hold.reason}", hold.left)


def _unreadable(state: SourceState, _rules: SourceRules) -> SyncStep | None:
    if state.problems:
        return Keep(state.problems)
    return None if state.progress is None else Wait("poll", state.progress)


def _in_force(state: SourceState, _rules: SourceRules) -> SyncStep | None:
    head = state.head
    if head is None:
        return None
    if head.folder_digest == state.in_force:
        if state.needs_start:
            return Wait("start", f"a start reads the rest: {'; '.join(state.needs_start)}")
        return Stay()
    if head.base != state.in_force:
        return Wait("poll", "the set in force has changed since the poll")
    return None


def _rolled_back(state: SourceState, _rules: SourceRules) -> SyncStep | None:
    head = state.head
    if head is None:
        return None
    for bad in state.bad:
        if bad.folder_digest == head.folder_digest or (bad.commit is not None and bad.commit == head.commit):
            text = f"it was rolled back by {bad.author} ({bad.reason}); `ksctl source resume --forget` takes it again"
            return Wait("operator", text)
    return None


_CHECKS: Final[tuple[Callable[[SourceState, SourceRules], SyncStep | None], ...]] = (
    _suspended,
    _unreadable,
    _in_force,
    _rolled_back,
)


def _refused(_state: SourceState, _rules: SourceRules, head: Head, review: Review) -> SyncStep | None:
    if head.review is None or (head.problems and head.reviewed_for >= REPEATED):
        return Wait("review", "it is compared with the set in force")
    if head.problems:
        return Keep(head.problems)
    if review.policy_digest is None:
        text = "the review names no digest of the proposed set"
        fix = "see the log of the runner; the set in force stays"
        return Keep((SourceProblem(code="KS8243", text=text, fix=fix, is_page=False, commit=head.commit),))
    return None


def _held_by_close(_state: SourceState, _rules: SourceRules, head: Head, review: Review) -> SyncStep | None:
    if not review.held_by_close:
        return None
    text = f"it would drop a pending close: {'; '.join(review.held_by_close)}"
    return Wait("review" if head.reviewed_for >= FRESH else "close", text)


def _unapproved(state: SourceState, _rules: SourceRules, head: Head, review: Review) -> SyncStep | None:
    return None if is_approved(state, head) else Wait("approvals", lacking_approvals(state, review))


def _arriving(state: SourceState, _rules: SourceRules, head: Head, review: Review) -> SyncStep | None:
    """A8: what would fire at the first tick waits for somebody who is not the author.

    Nobody can approve what an unprotected source proposes: an operator's reload takes it.
    """
    if not review.arrival or counted(state, review.arrival_approvals):
        return None
    if not head.is_protected and head.arrival_accepted_by is not None:
        return None
    fires = "; ".join(each.text for each in review.arrival)
    who = "an approver" if head.is_protected else "an operator's `ksctl reload`"
    text = f"it would fire at its first tick ({fires}) and waits for {who}; `ksctl close` closes now"
    return Wait("review" if head.reviewed_for >= FRESH else "arrival", text)


def _delayed(_state: SourceState, rules: SourceRules, head: Head, review: Review) -> SyncStep | None:
    if review.verdict in _REDUCING:
        return None
    if head.delayed < rules.loosening_after:
        left = rules.loosening_after - head.delayed
        return Wait("delay", f"a loosening takes effect in {_rounded(left)}", left)
    if rules.shadow_before and (head.shadowed is None or head.shadowed < rules.shadow_before):
        return Wait("shadow", "it is evaluated in shadow first", rules.shadow_before - (head.shadowed or 0))
    return None


def _held_by_runner(_state: SourceState, _rules: SourceRules, head: Head, _review: Review) -> SyncStep | None:
    if head.held is None:
        return None
    # Its end is seen at the set in force. It is compared again meanwhile, because the runner takes it by itself.
    return Wait("review" if head.reviewed_for >= FRESH else head.held[0], head.held[1])


def _outdated(_state: SourceState, _rules: SourceRules, head: Head, _review: Review) -> SyncStep | None:
    is_old = head.reviewed_for >= FRESH
    return Wait("review", "it is compared again just before it is taken") if is_old else None


_CHECKS_OF_REVIEW: Final[tuple[Callable[[SourceState, SourceRules, Head, Review], SyncStep | None], ...]] = (
    _refused,
    _held_by_close,
    _unapproved,
    _arriving,
    _delayed,
    _held_by_runner,
    _outdated,
)


def is_approved(state: SourceState, head: Head) -> bool:
    """Whether the head has the approvals that its class needs. An unprotected source has nobody who could give any."""
    review = head.review
    if review is None:
        return False
    if review.verdict in _REDUCING or not head.is_protected:
        return True
    return len(counted(state, review.approvals)) >= max(review.approvals_needed, 1)


def counted(state: SourceState, approvals: tuple[Approval, ...]) -> tuple[Approval, ...]:
    """The approvals that are not spent, of different keys and of different persons."""
    found: list[Approval] = []
    for each in approvals:
        is_new = all(each.principal != other.principal and each.key != other.key for other in found)
        if is_new and each.id not in state.spent:
            found.append(each)
    return tuple(found)


def _spendable(state: SourceState, review: Review) -> tuple[Approval, ...]:
    of_change = () if review.verdict in _REDUCING else counted(state, review.approvals)
    of_arrival = counted(state, review.arrival_approvals) if review.arrival else ()
    return tuple({each.id: each for each in (*of_change, *of_arrival)}.values())


def lacking_approvals(state: SourceState, review: Review) -> str:
    """What a change lacks, in a sentence."""
    if review.approvals_needed < 1:
        return f"the change is {review.verdict}, and no approver is configured: without one nothing is approved"
    needed, given = count_of(review.approvals_needed, "approval"), len(counted(state, review.approvals))
    return f"the change is {review.verdict} and needs {needed}, of which it has {given}"


def condition(state: SourceState, rules: SourceRules, now: int) -> SourceCondition:
    """Sync and health by the table of states; `now` is the clock of the runner, for ages only."""
    step = decide(state, rules)
    problems = state.problems or (state.head.problems if state.head is not None else ())
    problems = problems or (step.problems if isinstance(step, Keep) else ())
    culprit = next((each for each in problems if each.is_page), next(iter(problems), None))
    answer_age = None if state.answered_at is None else max(state.answer_age, now - state.answered_at)
    commit_age = None if state.newest_commit_at is None else max(now - state.newest_commit_at, 0)
    if culprit is None and state.hold is None:
        culprit = _aged(rules, answer_age, commit_age)
    return SourceCondition(
        sync="synced" if isinstance(step, Stay) else "out of sync",
        health="healthy" if culprit is None else "degraded + page" if culprit.is_page else "degraded",
        culprit=culprit,
        wait=step if isinstance(step, Wait) else None,
        hold=state.hold,
        is_protected=state.is_protected if state.head is None else state.head.is_protected,
        answer_age=answer_age,
        commit_age=commit_age,
    )


def _aged(rules: SourceRules, answer_age: int | None, commit_age: int | None) -> SourceProblem | None:
    """A problem of age, which changes nothing that runs (H6)."""
    for age, most, what in (
        (answer_age, rules.stale_after, "the source has not answered"),
        (commit_age, rules.frozen_after, "the source has no newer commit"),
    ):
        if age is not None and most is not None and age > most:
            text = f"{what} for more than {_rounded(most)}: it may withhold a change"
            fix = "compare it with the repository as others see it; the set in force stays"
            return SourceProblem(code="KS8246", text=text, fix=fix, is_page=False)
    return None


def next_poll(state: SourceState, rules: SourceRules, jitter: float) -> int:
    """Microseconds until the next poll. `jitter`: from 0.0 to 1.0, so that many runners do not come at once (P6).

    A failed reading is tried again after 1 s to 5 min; what was read and is bad, not before the next regular poll.
    """
    if not state.problems:
        return rules.poll
    pause = PAUSES.after(state.failures) * (0.5 + 0.5 * min(max(jitter, 0.0), 1.0))
    is_judged = any(each.is_page for each in state.problems)
    return int(max(pause, rules.poll) if is_judged else max(pause, SECOND))


def culprit_key(problem: SourceProblem) -> str:
    """What identifies a culprit for as long as it is the same: its code, commit, person and file."""
    parts = (problem.code, problem.commit, problem.principal, problem.file, problem.line)
    return "/".join(str(part) for part in parts if part is not None)


def _rounded(micros: int) -> str:
    return rounded_duration(timedelta(microseconds=micros))
