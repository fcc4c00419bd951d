"""What an approver is shown and signs: from the state of a runner, or from two folders that are reviewed here."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from msgspec import UNSET, Struct

from killswitch.model.applied_set import ChangeClass, PolicyFile, folder_digest
from killswitch.model.instant import from_micros
from killswitch.model.store import Store, decoded
from killswitch.operations.impact.revision import PolicyRepository
from killswitch.operations.review.child import reviewed
from killswitch.planning.operator.reset_approvals import reset_subject
from killswitch.planning.recovery.recoveries import approval_subject
from killswitch.render.document import Facts, Items, Page, Section, section
from killswitch.render.formats import count_of, instant
from killswitch.runner.status_blob import last_view
from killswitch.signals.arguments import span
from killswitch.source.approval_rules import SAFE, stated_path
from killswitch.source.candidate import Candidate, Review, ReviewRequest
from killswitch.source.folders import FolderProblemError, NotYetError, read_directory
from killswitch.source.poller import SourcePoller
from killswitch.source.polling import SourceSettings
from killswitch.source.statement_signatures import StatementProblem, verify_statement
from killswitch.source.statements import (
    DELIVERED,
    NAMESPACE,
    Purpose,
    SignedStatement,
    Statement,
    arrival_subject,
    encode_statement,
    given_by,
    join_signature,
    read_approval,
)
from killswitch.source.sync_state import SOURCE_STATE, SourceState, decode_source
from killswitch.source.trust import Trust
from killswitch.source.trust_file import TrustFileError, parse_trust

MOST_FILES, LARGEST_FILE = 2_000, 1 << 20
SIGNING_WITHIN = 120.0
"""Seconds to sign, in which a person may type a passphrase or touch a key."""


class ApprovalError(Exception):
    """Nothing can be signed; the message says why, and what to do."""


class ChangeToApprove(Struct, frozen=True, kw_only=True):
    """What is approved, as it is shown before it is signed."""

    source: str
    ref: str | None
    path: str | None
    base: str
    result: str
    review: Review
    commit: str | None = None
    delay: int = 0
    """How long a loosening waits once it is approved, in microseconds."""
    is_of_runner: bool = False
    """Whether the review is the runner's own, which knows the trust set and the approvals that it has."""

    @property
    def purposes(self) -> tuple[Purpose, ...]:
        """What the change waits for: approvals of itself, of what it fires on arrival, or nothing."""
        wanted: list[Purpose] = []
        if self.review.verdict not in SAFE:
            wanted.append("change")
        if self.review.arrival:
            wanted.append("arrival")
        return tuple(wanted)


class SigningKey(Struct, frozen=True):
    """The key of the approver. `file`: an SSH key, or its public part if an agent holds it; None: OpenPGP."""

    fingerprint: str
    file: Path | None = None


def change_of_runner(store: Store, settings: SourceSettings) -> ChangeToApprove:
    """The change that the runner on this store waits with. ApprovalError if there is none, or none is reviewed."""
    state = decoded(decode_source, store.live(SOURCE_STATE))
    if state is None or state.source != settings.name:
        raise ApprovalError(f"the store has no source named {settings.name}: check `ksctl run --source`")
    head = state.head
    if head is None or head.folder_digest == state.in_force:
        raise ApprovalError(f"the source {settings.name} proposes nothing but the set in force")
    if head.review is None or head.problems or head.review.problems:
        problem = next(iter(head.problems or (head.review.problems if head.review else ())), None)
        why = "the runner has not compared it yet" if problem is None else f"{problem.code} {problem.text}"
        raise ApprovalError(f"what the source proposes cannot be approved: {why}")
    ref, path = statement_place(settings)
    return ChangeToApprove(
        source=settings.name, ref=ref, path=path, base=head.base, result=head.folder_digest, review=head.review,
        commit=head.commit, delay=settings.loosening_after, is_of_runner=True,
    )  # fmt: skip


def change_of_files(
    base: Sequence[PolicyFile], head: Sequence[PolicyFile], settings: SourceSettings, seconds: float
) -> ChangeToApprove:
    """The change between two folders, reviewed here in a process of its own. ApprovalError if head does not compile."""
    ref, path = statement_place(settings)
    result = folder_digest(head)
    candidate = Candidate(
        source=settings.name, kind=settings.kind, files=tuple(head), folder_digest=result, ref=ref, path=path or ""
    )
    request = ReviewRequest(base=tuple(base), base_digest="", candidate=candidate, trust=None, seconds=seconds)
    review = reviewed(request)
    for problem in review.problems:
        where = f"{problem.file}:{problem.line}: " if problem.file else ""
        raise ApprovalError(f"{where}{problem.code} {problem.text}; {problem.fix}")
    return ChangeToApprove(
        source=settings.name, ref=ref, path=path, base=folder_digest(base), result=result, review=review,
        delay=settings.loosening_after,
    )  # fmt: skip


def statement_place(settings: SourceSettings) -> tuple[str | None, str | None]:
    """The ref and the path that statements about the source have; none of either unless it is a repository."""
    if settings.git is None:
        return None, None
    return settings.git.ref, stated_path("git", settings.git.path)


def files_of(where: str, settings: SourceSettings, repository: Path) -> tuple[PolicyFile, ...]:
    """The files of a folder, or of the source's path at a git revision: what the runner reads. ApprovalError, or
    GitRevisionError for a revision that cannot be read."""
    folder = Path(where)
    if settings.git is None:
        try:
            return read_directory(folder).files
        except (FolderProblemError, NotYetError) as error:
            raise ApprovalError(f"{where} cannot be read: {error}") from error
    if folder.is_dir():
        return tuple(_files_below(folder))
    wanted = settings.git.path.strip("/")
    found = PolicyRepository(repository).files(where, [repository / wanted])
    prefix = f"{wanted}/" if wanted else ""
    relative = (PolicyFile(each.path.removeprefix(prefix), each.content) for each in found.files)
    kept = tuple(each for each in relative if not _is_hidden(each.path))
    if not kept:
        raise ApprovalError(f"there is no file below {wanted or 'the root'} at {where}")
    return kept


def _files_below(folder: Path) -> Iterator[PolicyFile]:
    for number, each in enumerate(sorted(folder.rglob("*"))):
        path = each.relative_to(folder).as_posix()
        if _is_hidden(path) or each.is_dir():
            continue
        if each.is_symlink() or not each.is_file() or each.stat().st_size > LARGEST_FILE or number > MOST_FILES:
            raise ApprovalError(f"{each} is a link, no regular file, larger than 1 MiB, or one file too many")
        yield PolicyFile(path, each.read_bytes())


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def statements_of(change: ChangeToApprove, key: str, now: int, lasts: int) -> tuple[Statement, ...]:
    """The statements that the change waits for, given `now` and valid for `lasts` microseconds, at most 14 days."""
    firings = [(each.policy, each.scope, each.stage) for each in change.review.arrival]
    return tuple(
        given_by(
            Statement(
                purpose=purpose, source=change.source, key=key, given=0, expires=0, ref=change.ref, path=change.path,
                base=change.base, result=change.result, shown=change.review.verdict,
                subject=arrival_subject(firings) if purpose == "arrival" else None,
            ),
            key, now, lasts,
        )
        for purpose in change.purposes
    )  # fmt: skip


def plain_statement(
    settings: SourceSettings, purpose: Purpose, digests: tuple[str | None, str | None], subject: str | None
) -> Statement:
    """A statement that no review precedes: of a merge, a trust file, an anchor, a folder. No key, no times yet."""
    ref, path = statement_place(settings)
    return Statement(
        purpose=purpose, source=settings.name, key="-", given=0, expires=0, ref=ref, path=path, base=digests[0],
        result=digests[1], subject=subject,
    )  # fmt: skip


def next_step(store: Store, place: str) -> tuple[str, str]:
    """What an approval of the next step of the way back at `POLICY/SCOPE` names, and the step for people.

    ApprovalError if none has begun there, or no step is ahead of it.
    """
    view = last_view(store)
    found = () if view is None else view.recoveries or ()
    here = next((each for each in found if f"{each.policy}/{each.scope}" == place), None)
    if here is None:
        known = ", ".join(f"{each.policy}/{each.scope}" for each in found) or "none"
        raise ApprovalError(f"no way back has begun at {place}. Begun: {known}")
    if here.phase != "ramp" or here.step >= here.steps:
        raise ApprovalError(f"the way back at {place} has no next step now: {here.progress}")
    subject = approval_subject(here.policy, here.scope, here.step, here.since)
    return subject, f"step {here.step + 1} of {here.steps} at {place}, after {here.progress}"


def reset_to_approve(store: Store, place: str) -> tuple[str, str]:
    """What an approval of the reset at `POLICY/SCOPE` names, and what it ends for people.

    ApprovalError if nothing is in force there, or if its reset needs no approval.
    """
    view = last_view(store)
    waiting = [each for each in (() if view is None else view.machines) if each.reset_approvals is not UNSET]
    here = next((each for each in waiting if f"{each.policy}/{each.scope}" == place), None)
    if here is None or here.reset_approvals is UNSET or here.decision is None:
        known = ", ".join(f"{each.policy}/{each.scope}" for each in waiting) or "none"
        raise ApprovalError(f"no reset at {place} needs an approval. Resets that need one: {known}")
    given = ", ".join(here.reset_approvals.approved) or "nobody yet"
    shown = (
        f"the reset of {here.stage}, level {here.level}, at {place}, fired at {instant(here.fired_at)} as "
        f"{here.decision}, which accepts the loss: {count_of(here.reset_approvals.needed, 'approval')} by other people "
        f"needed; given by {given}"
    )
    return reset_subject(here.policy, here.scope, here.decision), shown


def require_source(store: Store, settings: SourceSettings) -> None:
    """ApprovalError unless the run on this store follows the source: another one verifies no approval."""
    state = decoded(decode_source, store.live(SOURCE_STATE))
    if state is None or state.source != settings.name:
        raise ApprovalError(
            f"no run on this store follows the source {settings.name}, so that nothing verifies the approval: start "
            f"`ksctl run --source {settings.file}`, with a trust file in it"
        )


def trust_digest(content: bytes) -> str:
    """The digest of a trust file, as statements name it."""
    return f"sha256:{sha256(content).hexdigest()}"


def ssh_signing_key(file: Path) -> SigningKey:
    """The SSH key in a file, or in its `.pub` if an agent holds the private part. ApprovalError if it is none."""
    public = file if file.suffix == ".pub" else file.with_name(f"{file.name}.pub")
    shown = _tool(["ssh-keygen", "-l", "-f", str(public if public.exists() else file)], b"")
    found = re.search(r"SHA256:[A-Za-z0-9+/]+", shown.decode(errors="replace"))
    if found is None:
        raise ApprovalError(f"{file} is no SSH key")
    return SigningKey(found[0], file)


def sign(statement: Statement, key: SigningKey) -> SignedStatement:
    """The statement with its signature by the key. ApprovalError if ssh-keygen or gpg does not sign."""
    signed = encode_statement(statement)
    if key.file is not None:
        command = ["ssh-keygen", "-Y", "sign", "-n", NAMESPACE, "-f", str(key.file), "-"]
    else:
        command = ["gpg", "--armor", "--detach-sign", "--local-user", key.fingerprint]
    return read_approval(join_signature(signed, _tool(command, signed)))


def _tool(command: Sequence[str], text: bytes) -> bytes:
    """The output of a tool that may ask a person on the terminal, and talk to the person's agent."""
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, timeout=SIGNING_WITHIN, check=False,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise ApprovalError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise ApprovalError(f"{command[0]} failed: {lines[-1] if lines else 'it gives no reason'}")
    return done.stdout


def trust_of(settings: SourceSettings, store: Store | None) -> Trust | str:
    """The trust set by which a runner with this store counts approvals; why it is not known here."""
    state = SourceState(source=settings.name)
    if store is not None:
        state = decoded(decode_source, store.live(SOURCE_STATE)) or state
    text = SourcePoller(settings, Path()).base_trust(state)
    if text is None:
        return f"{settings.file} names no trust file that can be read"
    try:
        return parse_trust(text, "the trust file")
    except TrustFileError as error:
        return str(error)


def why_not_counted(signed: Iterable[SignedStatement], trust: Trust, store: Store | None, now: int) -> tuple[str, ...]:
    """Why approvals do not count at `now` (microseconds), in a sentence each: by the trust set, and by who has signed
    what the runner with this store waits with.

    Rules that need the whole change (how many, what is spent) are the runner's own.
    """
    state = None if store is None else decoded(decode_source, store.live(SOURCE_STATE))
    authors = state.head.signers if state is not None and state.head is not None else ()
    found: list[str] = []
    for each in signed:
        verified = verify_statement(each, trust, now)
        if isinstance(verified, StatementProblem):
            found.append(verified.line)
        elif each.statement.purpose in ("change", "arrival") and verified.principal in authors:
            found.append(f"{verified.principal} has signed a commit of this change, and cannot approve it (KS8311)")
    return tuple(found)


def deliver(store: Store, signed: SignedStatement) -> None:
    """Leave the approval for the runner, which verifies it at its next look."""
    store.put_live(f"{DELIVERED}{signed.id}", join_signature(signed.signed, signed.signature))


def change_page(change: ChangeToApprove, expires: int) -> Page:
    """What is approved: its place, its class with the reasons, what fires on arrival, and the delay."""
    review = change.review
    rows = [
        ("source", change.source), ("ref", change.ref or "-"), ("path", change.path or "-"),
        *((("commit", change.commit),) if change.commit else ()), ("base", change.base), ("result", change.result),
        ("class", _class_text(review.verdict)), ("approvals", _approvals(change)),
        *((("delay", f"takes effect {span(change.delay)} after it is approved"),) if change.delay else ()),
        ("expires", instant(from_micros(expires))),
    ]  # fmt: skip
    firing = (f"{each.policy} on {each.scope}: {each.stage} {each.text}" for each in review.arrival)
    return Page(
        "Approval",
        sections=(
            Section("", (Facts(tuple(rows)),)),
            *section("Why", Items(review.why)),
            *section("Fires on arrival", Items(tuple(firing))),
            *section("What the reload does", Items(review.preview)),
            *section("Waits for a start", Items(review.needs_start)),
        ),
    )


def _class_text(verdict: ChangeClass) -> str:
    meaning = {
        "LOOSENING": "less strict in some situation", "NEITHER": "stricter in one situation, less strict in another",
        "UNDECIDED": "could not be analysed: whether it loosens anything is not known",
        "TIGHTENING": "at least as strict in every situation", "EQUIVALENT": "no difference in effect",
    }  # fmt: skip
    return f"{verdict}: {meaning[verdict]}"


def _approvals(change: ChangeToApprove) -> str:
    review = change.review
    if not review.approvals_needed:
        return "none needed for the change itself"
    if not change.is_of_runner:
        return "as many as the trust set of the runner demands"
    given = ", ".join(each.principal for each in review.approvals) or "nobody yet"
    return f"{count_of(review.approvals_needed, 'approval')} needed; given by {given}"
