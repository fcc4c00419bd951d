"""What of a run waits for approvals, and the text that an approver signs: for the board and the API.

An approver needs no access to the store: the text of the statement is all that a key signs, and the runner verifies it
however it arrives. So this gives the text, and the command of the tools that everybody has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from msgspec import UNSET, Struct
from msgspec.structs import replace

from killswitch.model.instant import to_micros
from killswitch.model.legible import one_line
from killswitch.model.store import Store
from killswitch.operations.policy_sources import source_state
from killswitch.planning.operator.reset_approvals import reset_subject
from killswitch.planning.recovery.recoveries import RecoveryView, approval_subject
from killswitch.planning.scopes.trigger_status import MachineStatus
from killswitch.render.formats import count_of, instant
from killswitch.runner.status_blob import RunnerView
from killswitch.signals.arguments import span
from killswitch.source.candidate import ArrivalFiring, Review
from killswitch.source.statements import NAMESPACE, Purpose, Statement, arrival_subject, encode_statement, given_by
from killswitch.source.sync_decision import counted, decide
from killswitch.source.sync_state import Head, SourceState, Wait

MOST_LINES: Final = 12
"""Lines of one preview: a change of hundreds of policies is read in `ksctl approve` or `ksctl impact`."""
LASTS: Final = timedelta(days=7)
"""How long a statement is valid whose text the server composes."""
UNSEEN: Final = "what it does to books that the token may not see is not shown: `ksctl approve` shows it"
SSH_KEY: Final = r"SHA256:[A-Za-z0-9+/]{43}"
OPENPGP_KEY: Final = r"[0-9A-F]{40}"


class WaitingApproval(Struct, frozen=True):
    """Something that waits for approvals. `confirm`: what whoever carries one types, to show that it was read.

    `statement`: what is signed, without key and times; null where nobody can sign one, and `problem` says why.
    """

    key: str
    purpose: Purpose
    scope: str
    title: str
    lines: tuple[str, ...]
    """What the approval changes, a sentence each."""
    missing: int
    given: tuple[str, ...]
    """Who has approved it so far."""
    not_counted: tuple[str, ...]
    """Why other statements about it do not count."""
    confirm: str
    statement: Statement | None
    problem: str | None = None


class SigningText(Struct, frozen=True):
    """What one key signs: the exact text, and the command that signs it and prints the signature."""

    text: str
    command: str


def waiting_approvals(
    store: Store, view: RunnerView | None, may_see: Callable[[str], bool] = lambda _: True
) -> tuple[WaitingApproval, ...]:
    """What the run on this store waits for, as `approvals_in` lists it. StoreError if the store cannot be read."""
    return approvals_in(source_state(store), view, may_see)


def approvals_in(
    state: SourceState | None, view: RunnerView | None, may_see: Callable[[str], bool] = lambda _: True
) -> tuple[WaitingApproval, ...]:
    """What a run waits for, the policies first. `view`: that of its last tick.

    `may_see`: whether the book of a scope may be shown; a change of policies waits for everybody, and names scopes.
    """
    ways_back = () if view is None else view.recoveries or ()
    machines = () if view is None else view.machines
    return (*_of_source(state, may_see), *_of_resets(machines, state), *_of_steps(ways_back, state))


def _of_source(state: SourceState | None, may_see: Callable[[str], bool]) -> Iterator[WaitingApproval]:
    """The approvals of a proposed set, and those of what it fires on arrival."""
    if state is None or state.rules is None or state.head is None or state.head.review is None:
        return
    step, head, review = decide(state, state.rules), state.head, state.head.review
    if not isinstance(step, Wait) or not head.is_protected:
        return
    if step.what == "approvals":
        given = counted(state, review.approvals)
        missing = max(review.approvals_needed, 1) - len(given)
        in_force = review.preview if may_see("portfolio") or not review.preview else (UNSEEN,)
        lines = (f"{review.verdict}: {step.text}", *review.why, *in_force)
        title = f"a change of the policies from {state.source}"
        yield _of_change(state, head, "change", title, lines, (missing, tuple(each.principal for each in given)))
    if review.arrival and step.what in ("approvals", "arrival") and not counted(state, review.arrival_approvals):
        lines = tuple(f"fires at its first tick: {_firing(each, may_see)}" for each in review.arrival)
        yield _of_change(state, head, "arrival", f"what the set from {state.source} fires on arrival", lines, (1, ()))


def _firing(it: ArrivalFiring, may_see: Callable[[str], bool]) -> str:
    return f"{it.stage} of {it.policy} on {it.scope}, {it.text if may_see(it.scope) else UNSEEN}"


def _of_change(
    state: SourceState, head: Head, purpose: Purpose, title: str, lines: tuple[str, ...],
    approvals: tuple[int, tuple[str, ...]],
) -> WaitingApproval:  # fmt: skip
    place = None if state.rules is None else state.rules.place
    review = head.review or Review()
    firings = [(each.policy, each.scope, each.stage) for each in review.arrival]
    digest = head.folder_digest.removeprefix("sha256:")[:12]
    shown = [one_line(each) for each in lines]
    if state.rules is not None and state.rules.loosening_after:
        shown.append(f"takes effect {span(state.rules.loosening_after)} after it is approved")
    shown.append(f"the set {digest}{'' if head.commit is None else f', commit {head.commit[:12]}'}, instead of the set "
                 f"{head.base.removeprefix('sha256:')[:12]}")  # fmt: skip
    return WaitingApproval(
        key=f"{purpose}/{digest}", purpose=purpose, scope="portfolio", title=title, lines=_shortened(shown),
        missing=approvals[0], given=approvals[1], not_counted=review.not_counted, confirm=digest,
        statement=None if place is None else Statement(
            purpose=purpose, source=state.source, key="-", given=0, expires=0, ref=place.ref, path=place.path,
            base=head.base, result=head.folder_digest, shown=review.verdict,
            subject=arrival_subject(firings) if purpose == "arrival" else None,
        ),
        problem=None if place is not None else "the runner has not stored where its source is: restart it once",
    )  # fmt: skip


def _shortened(lines: list[str]) -> tuple[str, ...]:
    if len(lines) <= MOST_LINES:
        return tuple(lines)
    left = count_of(len(lines) - MOST_LINES, "further line")
    return (*lines[: MOST_LINES - 1], f"{left}: `ksctl approve` shows all of them", lines[-1])


def _of_resets(machines: Iterable[MachineStatus], state: SourceState | None) -> Iterator[WaitingApproval]:
    """The approvals that resets of what is in force need."""
    for each in machines:
        needs = each.reset_approvals
        if needs is UNSET or each.decision is None or not needs.missing(None):
            continue
        lines = (
            "the approval lets another person reset the scope, which accepts the loss and lifts the lock of the stage",
            f"it is of this firing alone, {each.decision}" + (f" at {instant(each.fired_at)}" if each.fired_at else ""),
            "nothing that reduces risk waits for it",
        )
        yield _of_subject(
            "reset", each.scope, reset_subject(each.policy, each.scope, each.decision), state,
            title=f"a reset of {each.stage}, level {each.level} of {each.policy} on {each.scope}", lines=lines,
            missing=needs.missing(None), given=needs.approved,
        )  # fmt: skip


def _of_steps(ways_back: tuple[RecoveryView, ...], state: SourceState | None) -> Iterator[WaitingApproval]:
    """The approvals of the next steps of the ways back after resets."""
    for each in ways_back:
        if not each.approvals_missing or each.phase != "ramp" or each.step >= each.steps:
            continue
        yield _of_subject(
            "recovery", each.scope, approval_subject(each.policy, each.scope, each.step, each.since), state,
            title=f"step {each.step + 1} of {each.steps} of the way back of {each.policy} on {each.scope}",
            lines=_step_lines(each), missing=each.approvals_missing, given=each.approved,
        )  # fmt: skip


def _of_subject(
    purpose: Purpose, scope: str, subject: str, state: SourceState | None, *, title: str, lines: tuple[str, ...],
    missing: int, given: tuple[str, ...],
) -> WaitingApproval:  # fmt: skip
    """What waits for statements that name a subject, and no change of the policies."""
    place = None if state is None or state.rules is None else state.rules.place
    return WaitingApproval(
        key=f"{purpose}/{sha256(subject.encode()).hexdigest()[:12]}", purpose=purpose, scope=scope, title=title,
        lines=lines, missing=missing, given=given, not_counted=(), confirm=scope,
        statement=None if state is None or place is None else Statement(
            purpose=purpose, source=state.source, key="-", given=0, expires=0, ref=place.ref, path=place.path,
            subject=subject,
        ),
        problem=None if state is not None and place is not None else NO_SOURCE,
    )  # fmt: skip


NO_SOURCE: Final = (
    "the runner follows no source with a trust file, so that nobody's key counts: start it with `ksctl run --source`"
)


def _step_lines(step: RecoveryView) -> tuple[str, ...]:
    allowed = f"{float(step.share) * 100:.3g}% of the limits"
    return (
        f"now {allowed} may be opened; the approval lets the next step be taken, which allows more",
        f"so far: {step.progress}",
        "nothing that reduces risk waits for it, and a firing falls back and voids it",
    )


def signing_text(waiting: WaitingApproval, key: str, now: datetime) -> SigningText | None:
    """What the key of this fingerprint signs, valid from `now` on; None where nobody can sign, or where it is none."""
    is_ssh = re.fullmatch(SSH_KEY, key) is not None
    if waiting.statement is None or not (is_ssh or re.fullmatch(OPENPGP_KEY, key)):
        return None
    lasts = int(LASTS.total_seconds()) * 1_000_000
    text = encode_statement(given_by(waiting.statement, key, to_micros(now), lasts)).decode()
    signs = f"ssh-keygen -Y sign -n {NAMESPACE} -f ~/.ssh/id_ed25519 -" if is_ssh else (
        f"gpg --armor --detach-sign --local-user {key}"
    )  # fmt: skip
    return SigningText(text, f"{signs} <<'END'\n{text}END")


def matching(statement: Statement, waiting: tuple[WaitingApproval, ...]) -> WaitingApproval | None:
    """What the statement is about; None if nothing waits for it."""
    for each in waiting:
        if each.statement is not None:
            # the class as shown covers others, which the runner judges
            wanted = replace(each.statement, key=statement.key, given=statement.given, expires=statement.expires)
            if replace(wanted, shown=statement.shown) == statement:
                return each
    return None
