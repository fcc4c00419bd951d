"""The review of a candidate: its class, the approvals that count, and what it would fire on arrival.

It compiles both sets from their texts in memory. No adapter is opened, no credential resolved, nothing sent; the store
of the runner is read for the history of what fires on arrival. Whatever cannot be found out is UNDECIDED.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from msgspec import Struct
from msgspec.structs import replace

from killswitch.accounts.opening import STARTED_WITH
from killswitch.deadline import OverTimeError, interrupted_after
from killswitch.graph.nodes import PolicySet
from killswitch.graph.variants import NoSuchVariantError
from killswitch.model.applied_set import ChangeClass, PolicyFile, folder_digest
from killswitch.model.legible import one_line
from killswitch.model.snapshot import decode_snapshot
from killswitch.model.store import HistoryRow, MachineState
from killswitch.operations.impact.classification import ClassifiedChange, ProofLimits, classify
from killswitch.operations.impact.document_differences import (
    DocumentDifference,
    combined,
    document_differences,
)
from killswitch.operations.impact.policy_side import PolicySide, compiled_side
from killswitch.operations.preview import from_store
from killswitch.operations.review.arrival import Arrival, StoredRun, arrival
from killswitch.operations.review.demands_of_base import broken_demands
from killswitch.operations.review.uncompared_keys import uncompared
from killswitch.planning.interpreter import Interpreter
from killswitch.policy.diagnostics.diagnostic import Diagnostic, has_errors
from killswitch.policy.kinds import TESTS
from killswitch.policy.loader import load_texts
from killswitch.policy.yaml.parser import ParseText, parse
from killswitch.render.formats import count_of
from killswitch.source.approval_rules import (
    SAFE,
    Given,
    approvals_needed,
    count_approvals,
    count_arrival_approvals,
)
from killswitch.source.candidate import Candidate, Review, ReviewRequest, SourceProblem
from killswitch.source.statement_signatures import verify_all
from killswitch.source.statements import StatementError, read_approval
from killswitch.source.trust import Trust
from killswitch.store.sqlite import open_store

QUESTION = 10.0
"""Seconds of one question to the prover."""
GRACE = 2.0
"""Seconds after the time limit at which a proof that does not look at it is ended."""
MOST_LINES, LONGEST_LINE = 400, 400
"""Bounds of the reasons of a verdict."""
MOST_PROBLEMS = 50
UNDECLARED = "declare the rename with `formerly`, or make two changes of it"
_RANK: tuple[ChangeClass, ...] = ("LOOSENING", "NEITHER", "UNDECIDED", "TIGHTENING", "EQUIVALENT")


Reason = tuple[ChangeClass, str]
"""The class of one difference, and what it is."""


class FoundClass(Struct, frozen=True):
    """The class of a change, and its reasons, the gravest first."""

    verdict: ChangeClass
    why: tuple[str, ...]


def review(request: ReviewRequest, trust: Trust | None, clock: Callable[[], float]) -> Review:
    """Review the candidate. `trust`: of the set in force. `clock`: seconds, for the time limit. Main thread only."""
    candidate = request.candidate
    try:
        head = side_of_files(candidate.files, request.variant, "the candidate")
    except NoSuchVariantError as error:
        problem = _problem("KS8320", str(error), "declare the variant that the run selects", candidate)
        return Review(problems=(problem,), approvals_needed=approvals_needed(trust))
    if head.policies is None or not head.compiles:
        return Review(problems=tuple(problems_of(head.problems, candidate)), approvals_needed=approvals_needed(trust))
    until = clock() + request.seconds
    base = _base_side(request)
    found = classified(base, head, unchanged_files(request.base, candidate.files), until, clock)
    arriving = _arrival(request, base, head.policies)
    refused = (_problem("KS8323", each.line, UNDECLARED, candidate) for each in arriving.preview.refused)
    reviewed = Review(
        policy_digest=head.policies.digest, verdict=found.verdict, why=found.why, problems=tuple(refused),
        arrival=arriving.firings, needs_start=tuple(_needs_start(base, head)),
        held_by_close=tuple(one_line(each.line) for each in arriving.preview.held),
        preview=(*map(one_line, arriving.preview.lines), *_without_history(request)),
    )  # fmt: skip
    return _with_approvals(reviewed, request, trust, lambda i: _step_class(request, i, until, clock))


def side_of_files(
    files: Sequence[PolicyFile], variant: str | None, label: str, *, parse_text: ParseText = parse
) -> PolicySide:
    """One side from texts in memory, compiled as a run compiles it: a mistake in a test beside policies counts for
    nothing. Only templates of runbooks are written, into a folder of their own, because they are read from a folder.

    `parse_text`: another way to the result of `parse`. NoSuchVariantError for a variant that no policy declares.
    """
    everything = load_texts(files, parse_text=parse_text)
    deployed = everything
    if has_errors(everything.diagnostics):
        deployed = load_texts(files, parse_text=parse_text, without=TESTS)
    deployed = replace(deployed, documents=tuple(each for each in deployed.documents if each.kind not in TESTS))
    with TemporaryDirectory(prefix="killswitch-review-") as folder:
        below = Path(folder)
        for each in files:
            parts = PurePosixPath(each.path).parts
            if not each.path.endswith((".yaml", ".yml")) and parts and ".." not in parts and parts[0] != "/":
                (below / each.path).parent.mkdir(parents=True, exist_ok=True)
                (below / each.path).write_bytes(each.content)
        side = compiled_side(deployed, variant, Path(), below)
    paths = frozenset(each.path for each in files if each.path.endswith((".yaml", ".yml")))
    return replace(side, label=label, loaded=everything, digest=folder_digest(files), paths=paths)


def _base_side(request: ReviewRequest) -> PolicySide:
    try:
        return side_of_files(request.base, request.variant, "the set in force")
    except NoSuchVariantError:
        return side_of_files(request.base, None, "the set in force")  # the candidate is the first to declare it


def classified(
    base: PolicySide, head: PolicySide, unchanged: frozenset[str], until: float, clock: Callable[[], float]
) -> FoundClass:
    """The class of the change from base to head, which compiles.

    `unchanged`: the files that are the same on both sides. `until`: when the time of the proof is over.
    """
    base, head = (_without_faulty(side, unchanged) for side in (base, head))
    differences = document_differences(base, head)
    left = max(0.0, until - clock())
    reasons: list[Reason] = list(_of_documents(differences))
    if base.policies is None or not base.compiles:
        why = [f"{each.file}:{each.line}: {each.code} {each.message}" for each in base.problems if _is_error(each)]
        texts = ["the base does not compile, so that nothing can be proved (KS8321)", *why]
        return FoundClass("UNDECIDED", lines_of([*reasons, *(("UNDECIDED", text) for text in texts)]))
    if not differences:
        return FoundClass("EQUIVALENT", ())
    try:
        with interrupted_after(left + GRACE):
            reasons += _proved(base, head, differences, left, clock)
    except OverTimeError:
        reasons.append(("UNDECIDED", f"the proof did not end within {left:g} s"))
    verdict = combined(each for each, _ in reasons)
    reasons += broken_demands(base, head, verdict, until, clock)
    return FoundClass(combined(each for each, _ in reasons), lines_of(reasons))


def _is_error(found: Diagnostic) -> bool:
    return found.severity == "error"


def unchanged_files(before: Iterable[PolicyFile], after: Iterable[PolicyFile]) -> frozenset[str]:
    """The paths of files with the same content in both."""
    return frozenset(each.path for each in {*before} & {*after})


def _without_faulty(side: PolicySide, unchanged: frozenset[str]) -> PolicySide:
    """The side without documents that have mistakes in files that did not change, such as a test that never worked."""
    faulty = tuple(each for each in side.loaded.faulty if each.source.file not in unchanged)
    return replace(side, loaded=replace(side.loaded, faulty=faulty))


def _of_documents(differences: Iterable[DocumentDifference]) -> Iterator[Reason]:
    """The reasons that the documents give; those that are no longer loaded come first, then removed triggers."""
    for each in differences:
        removed = [key.path.removeprefix("spec.triggers.") for key in each.keys if key.is_removed_trigger]
        if each.change == "no longer loaded":
            yield "LOOSENING", f"the {each.kind} {each.name} is no longer loaded: {each.why}"
        for name in removed:
            yield "UNDECIDED", f"the trigger {name} of {each.name} is removed"
        if each.change != "no longer loaded" and each.verdict is not None:
            yield each.verdict, f"the {each.kind} {each.name} is {each.change} ({each.place}): {each.why}"


def _proved(
    base: PolicySide, head: PolicySide, differences: Sequence[DocumentDifference], left: float,
    clock: Callable[[], float],
) -> Iterator[Reason]:  # fmt: skip
    """What the proof says of the policies that differ, and what it does not cover. No proof is needed without one."""
    if not any(each.kind == "Policy" for each in differences):
        return
    limits = ProofLimits(question=min(QUESTION, max(left, 0.1)), whole=left, with_scenarios=False)
    found = classify(base, head, differences, clock, limits)
    yield from (("UNDECIDED", text) for text in found.unfinished)
    reported = {each.policy for each in found.changes if each.part != "messages" and each.verdict != "EQUIVALENT"}
    for policy, text in uncompared(base, head, reported):
        yield "UNDECIDED", f"{policy}: {text}"
    yield from ((each.verdict, _line(each)) for each in found.changes)


def _line(change: ClassifiedChange) -> str:
    return f"{change.policy}: {change.text}"


def lines_of(reasons: Sequence[Reason]) -> tuple[str, ...]:
    """The reasons as lines, each once, with their classes; documents that are gone first, then the gravest.

    Nothing that loosens is left out: what has no place is counted at the end, from the harmless end.
    """
    ranked = sorted(dict.fromkeys(reasons), key=lambda it: ("no longer loaded" not in it[1], _RANK.index(it[0])))
    lines = [f"{verdict}: {one_line(text)}"[:LONGEST_LINE] for verdict, text in ranked]
    needing = sum(verdict not in SAFE for verdict, _ in ranked)
    most = max(MOST_LINES, needing)
    return tuple(lines[:most]) + ((f"and {len(lines) - most} more changes",) if len(lines) > most else ())


def _step_class(request: ReviewRequest, number: int, until: float, clock: Callable[[], float]) -> ChangeClass:
    """The class of one first-parent step (A5); UNDECIDED where its files were not read, or do not compile."""
    steps = request.candidate.steps
    before = request.base if number == 0 else steps[number - 1].files
    after = steps[number].files
    if before is None or after is None:
        return "UNDECIDED"
    try:
        sides = [side_of_files(files, request.variant, "a step") for files in (before, after)]
    except NoSuchVariantError:
        return "UNDECIDED"
    if not all(each.compiles for each in sides):
        return "UNDECIDED"
    return classified(sides[0], sides[1], unchanged_files(before, after), until, clock).verdict


def _with_approvals(
    reviewed: Review, request: ReviewRequest, trust: Trust | None, step_classes: Callable[[int], ChangeClass]
) -> Review:
    """The review with the approvals that count. No statement is verified where none is needed."""
    if reviewed.verdict in SAFE and not reviewed.arrival:
        return reviewed
    candidate, base = request.candidate, folder_digest(request.base)
    contents, others = _about_this_change((*candidate.statements, *request.statements), candidate, base)
    verified, refused = ((), ()) if trust is None else verify_all(contents, trust, request.now)
    given = Given(verified, frozenset(request.spent), trust)
    counted = count_approvals(candidate, base, reviewed.verdict, given, step_classes)
    firings = [(each.policy, each.scope, each.stage) for each in reviewed.arrival]
    of_arrival = count_arrival_approvals(candidate, base, reviewed.verdict, given, firings)
    given_names = {each.principal for each in (*counted.approvals, *of_arrival.approvals)}
    problems = [*refused, *counted.not_counted, *of_arrival.not_counted]
    shown = [each.line for each in problems if each.code != "KS8309" or not any(it in each.text for it in given_names)]
    shown += [f"{count_of(others, 'statement')} about other changes (KS8308)"] if others else []
    return replace(
        reviewed, approvals_needed=counted.needed, approvals=counted.approvals,
        arrival_approvals=of_arrival.approvals, not_counted=tuple(map(one_line, dict.fromkeys(shown)))[:MOST_LINES],
    )  # fmt: skip


def _about_this_change(contents: Iterable[bytes], candidate: Candidate, base: str) -> tuple[list[bytes], int]:
    """The files of approvals that begin or end where this change does, then those that are no statement, and how many
    others there are: a folder keeps the approvals of years, and each verified one costs a process."""
    digests = {candidate.folder_digest, *(each.folder_digest for each in candidate.steps)}
    about: list[bytes] = []
    unreadable: list[bytes] = []
    others = 0
    for content in dict.fromkeys(contents):
        try:
            statement = read_approval(content).statement
        except StatementError:
            unreadable.append(content)
            continue
        if statement.base == base or statement.result in digests:
            about.append(content)
        else:
            others += 1
    return [*about, *unreadable], others


def _arrival(request: ReviewRequest, base: PolicySide, head: PolicySet) -> Arrival:
    """What fires on arrival; nothing before the first tick, when there is nothing to compare with."""
    if request.snapshot is None or base.policies is None or base.policies.digest == head.digest:
        return Arrival()
    snapshot = decode_snapshot(request.snapshot)
    with ExitStack() as stack:
        return arrival(base.policies, head, snapshot, _state_of_runner(request, stack))


def _state_of_runner(request: ReviewRequest, stack: ExitStack) -> StoredRun:
    """The state of the runner: of its store, or the states of the request. StoreError if it cannot be read: without
    its history, what fires on arrival would be missed."""
    if request.store is not None:
        store = stack.enter_context(closing(open_store(request.store, read_only=True)))
        return StoredRun(lambda policies: from_store(policies, store)[0], tuple(store.states()), store.rows)
    states = [MachineState(*each) for each in request.states]

    def restored(policies: PolicySet) -> Interpreter:
        interpreter = Interpreter(policies)
        interpreter.restore(states, _no_rows)
        return interpreter

    return StoredRun(restored, states, _no_rows)


def _without_history(request: ReviewRequest) -> tuple[str, ...]:
    """What is missing where the store was not read."""
    if request.snapshot is not None and request.store is not None:
        return ()
    what = (
        "no snapshot: what fires on arrival is not known"
        if request.snapshot is None
        else ("no history: what fires on arrival is known only as far as no window is older than the last snapshot")
    )
    return (what,)


def _no_rows(_policy: str, _scope: str, _since: int) -> Sequence[HistoryRow]:
    return ()


def _needs_start(base: PolicySide, head: PolicySide) -> Iterator[str]:
    """What only a start reads (P5): accounts with their adapters, credentials and arming, and the venues' timers."""
    for each in document_differences(base, head):
        if each.kind in STARTED_WITH:
            keys = ", ".join(key.path.removeprefix("spec.") for key in each.keys)
            shown = f": {keys}" if keys else ""
            yield one_line(f"the {each.kind} {each.name} is {each.change}{shown}")[:LONGEST_LINE]


def problems_of(diagnostics: Sequence[Diagnostic], candidate: Candidate) -> Iterator[SourceProblem]:
    """The mistakes of a candidate that does not compile, with file, line, commit and signer (W5)."""
    errors = [each for each in diagnostics if each.severity == "error"]
    for each in errors[:MOST_PROBLEMS]:
        found = _problem(each.code, each.message, each.fix, candidate)
        yield replace(found, file=one_line(each.file), line=each.line)
    if len(errors) > MOST_PROBLEMS:
        text = f"{len(errors) - MOST_PROBLEMS} more mistakes are not shown"
        yield _problem("KS8320", text, "run `ksctl validate` on the folder", candidate)
    if not has_errors(diagnostics):
        yield _problem("KS8320", "the candidate does not compile", "run `ksctl validate` on the folder", candidate)


def _problem(code: str, text: str, fix: str, candidate: Candidate) -> SourceProblem:
    commits = candidate.steps[-1].commits if candidate.steps else ()
    return SourceProblem(
        code=code, text=one_line(text)[:LONGEST_LINE], fix=one_line(fix)[:LONGEST_LINE], is_page=False,
        commit=candidate.commit, principal=commits[-1].signer if commits else None,
    )  # fmt: skip
