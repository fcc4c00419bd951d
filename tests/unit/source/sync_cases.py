"""Short constructors for the state of a source: sets in force, candidates, reviews, approvals."""

from __future__ import annotations

from datetime import UTC, datetime

from killswitch.model.applied_set import AppliedSet, Approval, ChangeClass, PolicyFile, PolicyOrigin, folder_digest
from killswitch.source.candidate import ArrivalFiring, Candidate, FirstParentStep, Review, SourceProblem, VerifiedCommit
from killswitch.source.sync_state import SourceRules

AT = datetime(2026, 11, 25, 2, tzinfo=UTC)
SECOND = 1_000_000
HOUR = 3_600 * SECOND
RULES = SourceRules(poll=30 * SECOND)
DELAYED = SourceRules(poll=30 * SECOND, loosening_after=4 * HOUR)


def files(text: str) -> tuple[PolicyFile, ...]:
    """A folder with one file of this text."""
    return (PolicyFile("desk.yaml", text.encode()),)


def digest(text: str) -> str:
    """The digest of that folder."""
    return folder_digest(files(text))


def in_force(
    text: str, commit: str | None = None, approvals: tuple[Approval, ...] = (), operator: str | None = None
) -> AppliedSet:
    """That folder as the set in force."""
    origin = PolicyOrigin(
        source="desk", commit=commit, folder_digest=digest(text), approvals=approvals, operator=operator
    )
    return AppliedSet(digest=f"set of {text}", at=AT, program="1", origin=origin, files=files(text))


def candidate(text: str, *commits: str, is_protected: bool = True) -> Candidate:
    """That folder, proposed by the last of `commits` on a first-parent line; the parent of `c7` is `c6`."""

    def step(commit: str) -> FirstParentStep:
        parent = f"{commit[0]}{int(commit[1:]) - 1}"
        verified = VerifiedCommit(commit, (parent,), "sam", ("Sam <sam@desk>",), "a change")
        return FirstParentStep(commit, digest(text), (verified,))

    steps = tuple(map(step, commits))
    return Candidate(
        source="desk", kind="git", files=files(text), folder_digest=digest(text),
        commit=commits[-1] if commits else None, steps=steps, is_protected=is_protected,
    )  # fmt: skip


def approval(person: str, key: str | None = None, id_: str | None = None) -> Approval:
    """An approval by this person with this key."""
    return Approval(id=id_ or f"by {person}", principal=person, key=key or f"SHA256:{person}", expires_at=AT)


def review(
    verdict: ChangeClass = "TIGHTENING", *approvals: Approval, needed: int = 0, arrival: bool = False,
    arrival_approvals: tuple[Approval, ...] = (), problems: tuple[SourceProblem, ...] = (),
    held_by_close: tuple[str, ...] = (),
) -> Review:  # fmt: skip
    """A review that found this."""
    firing = ArrivalFiring("desk", "account/main", "stop", "desk closes account/main") if arrival else None
    return Review(
        policy_digest=None if problems else "digest", verdict=verdict, approvals=approvals, approvals_needed=needed,
        arrival=() if firing is None else (firing,), arrival_approvals=arrival_approvals, problems=problems,
        held_by_close=held_by_close,
    )  # fmt: skip


def problem(
    code: str = "KS8101", *, page: bool = True, commit: str | None = "c9", file: str | None = None
) -> SourceProblem:
    """Something that is wrong with a source."""
    return SourceProblem(
        code=code, text=f"{code} is wrong", fix="correct it", is_page=page, commit=commit, principal="sam", file=file
    )
