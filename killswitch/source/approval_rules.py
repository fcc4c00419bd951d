"""Which statements count for a change (A1 to A9): pure rules over the candidate, the trust set and verified statements.

A class other than TIGHTENING and EQUIVALENT needs N different principals, none of whom has a part in the change. The
rules concern edits only: a close, or anything else that reduces risk, asks nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.applied_set import Approval, ChangeClass, identities, same_person
from killswitch.model.instant import from_micros, rfc3339
from killswitch.source.candidate import Candidate, FirstParentStep, SourceKind, VerifiedCommit
from killswitch.source.statement_signatures import StatementProblem, VerifiedStatement
from killswitch.source.statements import ARRIVAL_SEPARATOR, Purpose, Statement, arrival_subject
from killswitch.source.trust import Trust

SAFE: frozenset[ChangeClass] = frozenset({"TIGHTENING", "EQUIVALENT"})
"""The classes that need no approval. Whatever is not proved one of them needs what a loosening needs (A1)."""
_SEVERITY: Mapping[ChangeClass, int] = {"EQUIVALENT": 0, "TIGHTENING": 1, "NEITHER": 2, "LOOSENING": 2, "UNDECIDED": 2}


class ApprovedChange(Struct, frozen=True, kw_only=True):
    """What an approval must state to count (A3): the place, both digests, and the class that the runner has found."""

    source: str
    ref: str | None
    path: str | None
    base: str | None
    """None for what replaces nothing, such as a drill."""
    result: str
    verdict: ChangeClass
    commits: tuple[VerifiedCommit, ...] = ()
    """The commits of the change; nobody with a part in one of them approves it."""
    signer: str | None = None
    """Who signed the manifest of a folder, which has no commits."""


class CountedApprovals(Struct, frozen=True):
    """How many approvals the change needs, those that count, and why the others do not.

    It is approved if `approvals` are at least `needed`; each is of another principal.
    """

    needed: int
    approvals: tuple[Approval, ...] = ()
    not_counted: tuple[StatementProblem, ...] = ()

    @property
    def is_approved(self) -> bool:
        """Whether the change may be taken as far as approvals go."""
        return len(self.approvals) >= self.needed


class Given(Struct, frozen=True):
    """What was given for a candidate: verified statements, the ids that are spent, and the trust set of the base.

    `remembered_since`: microseconds from which on it is known which are spent; None: always.
    """

    statements: tuple[VerifiedStatement, ...]
    spent: frozenset[str]
    trust: Trust | None
    remembered_since: int | None = None


def count_approvals(
    candidate: Candidate, base: str, verdict: ChangeClass, given: Given, step_classes: Callable[[int], ChangeClass]
) -> CountedApprovals:
    """The approvals of a candidate: of the whole change, or of each step that loosens (A5).

    `base`: the digest of the folder in force. `step_classes`: the class of step `i` against the one before it; it is
    called only where steps are approved one by one, and is UNDECIDED where nothing was proved.
    """
    if verdict in SAFE:
        return CountedApprovals(0)
    needed = approvals_needed(given.trust)
    if given.trust is None or needed > len(given.trust.approvers):
        return CountedApprovals(needed, (), (_nobody_may(given.trust, needed),))
    commits = tuple(each for step in candidate.steps for each in step.commits)
    whole = _counted(_change(candidate, base, candidate.folder_digest, verdict, commits), "change", given, needed)
    if whole.is_approved or len(candidate.steps) < 2:
        return whole
    by_steps = _steps_approved(candidate, base, given, needed, step_classes)
    return whole if by_steps is None else CountedApprovals(needed, by_steps)


def approvals_needed(trust: Trust | None) -> int:
    """N of the trust set; at least one, so that no configuration means that nothing is approved."""
    return max(1, 0 if trust is None else trust.approvals)


def count_arrival_approvals(
    candidate: Candidate, base: str, verdict: ChangeClass, given: Given, firings: Sequence[tuple[str, str, str]]
) -> CountedApprovals:
    """The approvals of what fires on arrival: one by somebody who is no author (A8). No firing needs none.

    `firings`: policy, scope and stage of each. An approval names stages; it counts if it names all that fire.
    """
    if not firings:
        return CountedApprovals(0)
    if given.trust is None or not given.trust.approvers:
        return CountedApprovals(1, (), (_nobody_may(given.trust, 1),))
    commits = tuple(each for step in candidate.steps for each in step.commits)
    change = _change(candidate, base, candidate.folder_digest, verdict, commits)
    wanted = set(arrival_subject(firings).split(ARRIVAL_SEPARATOR))

    def unnamed(statement: Statement) -> StatementProblem | None:
        missing = sorted(wanted - set((statement.subject or "").split(ARRIVAL_SEPARATOR)))
        return StatementProblem("KS8313", f"it does not name {missing[0]}, which fires on arrival") if missing else None

    return _counted(change, "arrival", given, 1, unnamed)


def count_drill_approvals(subject: str, change: ApprovedChange, given: Given, author: str) -> CountedApprovals:
    """The approvals of a live drill: as many as a loosening needs, none of them by whoever runs it.

    `subject`: what an approval names. `author` is a claim that nobody verified; it can only take an approval away.
    """
    needed = approvals_needed(given.trust)
    if given.trust is None or needed > len(given.trust.approvers):
        return CountedApprovals(needed, (), (_nobody_may(given.trust, needed),))
    own = frozenset(identities(author))
    by_others = tuple(each for each in given.statements if own.isdisjoint(identities(each.principal)))
    refused = tuple(
        StatementProblem("KS8311", f"the approval of {each.principal}: {author} runs the drill, and approves none")
        for each in given.statements
        if each not in by_others
    )

    def other(statement: Statement) -> StatementProblem | None:
        if statement.subject != subject:
            return StatementProblem("KS8308", f"it approves `{statement.subject or '-'}`, not `{subject}`")
        since = given.remembered_since
        if since is not None and statement.given < since:
            began = rfc3339(from_micros(since))
            why = f"it was given before the record of this store began at {began}, and may be spent: approve it again"
            return StatementProblem("KS8310", why)
        return None

    found = _counted(change, "drill", replace(given, statements=by_others), needed, other)
    return replace(found, not_counted=(*found.not_counted, *refused))


def _change(
    candidate: Candidate, base: str, result: str, verdict: ChangeClass, commits: tuple[VerifiedCommit, ...]
) -> ApprovedChange:
    path = stated_path(candidate.kind, candidate.path)
    return ApprovedChange(
        source=candidate.source, ref=candidate.ref, path=path, base=base, result=result, verdict=verdict,
        commits=commits, signer=candidate.signer,
    )  # fmt: skip


def stated_path(kind: SourceKind, path: str) -> str | None:
    """The path in a statement: that in a repository. Where a folder is on the machine of a runner is no part of it."""
    return (path or None) if kind == "git" else None


def _nobody_may(trust: Trust | None, needed: int) -> StatementProblem:
    if trust is None:
        return StatementProblem("KS8314", "no trust set is configured, so that nobody may approve")
    text = f"{needed} approvals are needed, and the trust set has {len(trust.approvers)} principals who may approve"
    return StatementProblem("KS8314", text)


def _steps_approved(
    candidate: Candidate, base: str, given: Given, needed: int, step_classes: Callable[[int], ChangeClass]
) -> tuple[Approval, ...] | None:
    """The approvals of all steps that need some; None if one of them has too few, or if no step needs any.

    Steps of which each is harmless do not make a change harmless that is not: then the whole is approved, or nothing.
    """
    found: dict[str, Approval] = {}
    before = base
    for number, step in enumerate(candidate.steps):
        if step.folder_digest != before:
            counted = _step(candidate, before, step, given, needed)
            if not counted.is_approved and step_classes(number) not in SAFE:
                return None
            found.update((each.id, each) for each in counted.approvals)
        before = step.folder_digest
    is_whole = before == candidate.folder_digest
    return tuple(found.values()) if is_whole and len(found) >= needed else None


def _step(candidate: Candidate, before: str, step: FirstParentStep, given: Given, needed: int) -> CountedApprovals:
    change = _change(candidate, before, step.folder_digest, "UNDECIDED", step.commits)
    return _counted(change, "change", given, needed)


Check = Callable[[Statement], StatementProblem | None]


def _counted(
    change: ApprovedChange, purpose: Purpose, given: Given, needed: int, check: Check = lambda _: None
) -> CountedApprovals:
    """The statements that count: one of each principal, in the order of their ids."""
    counted: dict[str, Approval] = {}
    keys: set[str] = set()
    problems: list[StatementProblem] = []
    part = authors(change.commits, given.trust, change.signer)
    for each in sorted(given.statements, key=lambda it: it.id):
        problem = mismatch(each.statement, change, purpose) or check(each.statement)
        person = same_person(each.principal)
        if problem is None and each.id in given.spent:
            problem = StatementProblem("KS8310", "it was spent by an earlier change")
        if problem is None and each.principal in part:
            problem = StatementProblem("KS8311", f"{part[each.principal]}, and nobody approves a change of their own")
        if problem is None and (person in counted or each.key in keys):
            problem = StatementProblem("KS8312", "another approval of the same person counts already")
        if problem is None:
            keys.add(each.key)
            counted[person] = Approval(
                id=each.id, principal=each.principal, key=each.key, expires_at=from_micros(each.statement.expires)
            )
        else:
            problems.append(StatementProblem(problem.code, f"the approval of {each.principal}: {problem.text}"))
    return CountedApprovals(needed, tuple(counted.values()), tuple(dict.fromkeys(problems)))


def mismatch(statement: Statement, change: ApprovedChange, purpose: Purpose) -> StatementProblem | None:
    """Why a statement is about another change; None if it is about this one (A3, A4)."""
    return next(_mismatches(statement, change, purpose), None)


def _mismatches(statement: Statement, change: ApprovedChange, purpose: Purpose) -> Iterator[StatementProblem]:
    if statement.purpose != purpose:
        yield StatementProblem("KS8309", f"it approves another purpose, `{statement.purpose}`, not `{purpose}`")
    for name in ("source", "ref", "path"):
        stated, wanted = getattr(statement, name), getattr(change, name)
        if stated != wanted:
            yield StatementProblem("KS8308", f"it is about the {name} `{stated or '-'}`, not `{wanted or '-'}`")
    if statement.base != change.base:
        yield StatementProblem("KS8308", "the set in force is another one than it was given for: the base has moved")
    if statement.result != change.result:
        yield StatementProblem("KS8308", "it approves other files than those that are proposed")
    shown = statement.shown
    if purpose in ("change", "arrival") and (shown is None or _SEVERITY[shown] < _SEVERITY[change.verdict]):
        text = f"its approver was shown {shown or 'no class'}, and the change is {change.verdict}"
        yield StatementProblem("KS8313", text)


def authors(commits: Iterable[VerifiedCommit], trust: Trust | None, signer: str | None = None) -> Mapping[str, str]:
    """Principal → how they have a part in the commits: as signer, which a merge has too, or by a claimed name.

    Names and addresses in commits are claims that nobody verified; here they can only take an approval away.
    """
    found: dict[str, str] = {}
    principals = sorted({key.principal for key in trust.keys}) if trust is not None else []
    by_person: dict[str, list[str]] = {}
    for principal in principals:
        for identity in identities(principal):
            by_person.setdefault(identity, []).append(principal)
    if signer is not None:
        for each in (signer, *by_person.get(same_person(signer), ())):
            found.setdefault(each, f"{signer} signed the manifest")
    for commit in commits:
        for each in (commit.signer, *by_person.get(same_person(commit.signer), ())):
            found.setdefault(each, f"{commit.signer} signed {commit.id[:12]}")
        for claim in commit.claimed:
            for identity in identities(claim):
                for principal in by_person.get(identity, ()):
                    found.setdefault(principal, f"a name in {commit.id[:12]} is theirs")
    return found
