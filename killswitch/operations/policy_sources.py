"""The source of the policies as `status` and `ksctl source` show it, and the delivery of commands to it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import uuid4

import msgspec
from msgspec import Struct

from killswitch.model.instant import from_micros, to_micros
from killswitch.model.store import Store, decoded
from killswitch.render.document import Facts, Items, Page, Section, Table, section
from killswitch.render.formats import instant, rounded_duration
from killswitch.runner.sources.source_alerts import culprit_text
from killswitch.source.candidate import SourceProblem
from killswitch.source.sync_decision import condition
from killswitch.source.sync_state import (
    SOURCE_COMMANDS,
    SOURCE_STATE,
    BadSet,
    CommandResult,
    CommandVerb,
    Health,
    HoldKind,
    RefusedAttempt,
    SourceCommand,
    SourceState,
    Sync,
    Wait,
    WaitFor,
    decode_source,
)

SOURCE_FORMAT = "killswitch.source/v1"
MOST_SHOWN = 10


class SuspensionView(Struct, frozen=True):
    """By whom, why and until when the source is suspended; `until` moves on while no runner counts."""

    kind: HoldKind
    author: str
    reason: str
    at: datetime
    until: datetime


class PendingSet(Struct, frozen=True):
    """The head that waits. `effective_at`: when a loosening that is approved takes effect, if nothing changes."""

    folder_digest: str
    commit: str | None
    generation: str | None
    signers: tuple[str, ...]
    verdict: str | None
    why: tuple[str, ...]
    waits_for: WaitFor | None
    text: str | None
    effective_at: datetime | None
    not_counted: tuple[str, ...] = ()
    """Why other statements about it do not count."""


class SourceStatus(Struct, frozen=True):
    """A source of policies as its runner has left it. Ages are seconds."""

    source: str
    sync: Sync
    health: Health
    culprit: SourceProblem | None
    is_protected: bool
    """Whether a loosening needs approvals; without signatures nobody could give them."""
    in_force: str
    commit: str | None
    approved_by: tuple[str, ...]
    """The approvers of the change that put the set in force; empty if it needed none."""
    answer_age: float | None
    commit_age: float | None
    pending: PendingSet | None
    suspended: SuspensionView | None
    needs_start: tuple[str, ...]
    bad: tuple[BadSet, ...]
    refused: tuple[RefusedAttempt, ...]
    format: str = SOURCE_FORMAT


def source_state(store: Store) -> SourceState | None:
    """The state that a runner has left in the store; None if it never had a source, or another version wrote it."""
    return decoded(decode_source, store.live(SOURCE_STATE))


def source_status(store: Store, now: datetime) -> SourceStatus | None:
    """How the source is; None in a store whose runner never had one."""
    state = source_state(store)
    if state is None or state.rules is None:
        return None
    found = condition(state, state.rules, to_micros(now))
    hold = found.hold
    newest = next(iter(store.set_changes(1)), None)
    # another digest is a set of the state that the runner has not committed yet: its approvers are not those
    approvals = newest.origin.approvals if newest is not None and newest.digest == state.policy_digest else ()
    return SourceStatus(
        source=state.source,
        sync=found.sync,
        health=found.health,
        culprit=found.culprit,
        is_protected=found.is_protected,
        in_force=state.policy_digest,
        commit=state.commit,
        approved_by=tuple(each.principal for each in approvals),
        answer_age=None if found.answer_age is None else found.answer_age / 1_000_000,
        commit_age=None if found.commit_age is None else found.commit_age / 1_000_000,
        pending=_pending(state, found.wait, now) if found.sync == "out of sync" else None,
        suspended=None
        if hold is None
        else SuspensionView(
            hold.kind, hold.author, hold.reason, from_micros(hold.at), now + timedelta(microseconds=hold.left)
        ),
        needs_start=state.needs_start,
        bad=state.bad,
        refused=state.refused[-MOST_SHOWN:],
    )


def _pending(state: SourceState, wait: Wait | None, now: datetime) -> PendingSet | None:
    head = state.head
    if head is None or head.folder_digest == state.in_force:
        return None
    is_delay = wait is not None and wait.what == "delay" and wait.left is not None
    at = now + timedelta(microseconds=wait.left) if is_delay and wait is not None and wait.left is not None else None
    return PendingSet(
        head.folder_digest,
        head.commit,
        head.generation,
        head.signers,
        None if head.review is None else head.review.verdict,
        () if head.review is None else head.review.why[:MOST_SHOWN],
        None if wait is None else wait.what,
        None if wait is None else wait.text,
        at,
        () if head.review is None else head.review.not_counted[:MOST_SHOWN],
    )


def source_facts(status: SourceStatus) -> Iterator[tuple[str, ...]]:
    """The source in the facts of a run: what it is, whose fault it is, and what waits until when."""
    protected = "" if status.is_protected else "; UNPROTECTED: nothing is signed, so that anybody who writes may loosen"
    yield "Source", f"{status.source}: {status.sync}, {status.health}{protected}"
    if status.approved_by:
        yield "", f"the set in force is approved by {', '.join(status.approved_by)}"
    if status.suspended is not None:
        it = status.suspended
        yield "", f"SUSPENDED ({it.kind}) by {it.author} until {instant(it.until)}: {it.reason}"
    if status.culprit is not None:
        yield "", culprit_text(status.culprit)
    if status.pending is not None and status.pending.text is not None:
        at = "" if status.pending.effective_at is None else f" (at {instant(status.pending.effective_at)})"
        yield "", f"waits for {status.pending.waits_for}: {status.pending.text}{at}"


def source_page(status: SourceStatus | None) -> Page:
    """The page of `ksctl source status`."""
    if status is None:
        return Page("Source", summary=("no runner on this store has followed a source of policies",))
    facts = [
        *source_facts(status),
        ("In force", f"{status.in_force[:19]}{'' if status.commit is None else f', commit {status.commit}'}"),
        ("Answered", _age(status.answer_age)),
    ]
    if status.commit is not None or status.commit_age is not None:
        facts.append(("Newest", _age(status.commit_age)))
    return Page(f"Source {status.source}", sections=tuple(_sections(status, tuple(facts))))


def _sections(status: SourceStatus, facts: tuple[tuple[str, ...], ...]) -> Iterator[Section]:
    yield from section("", Facts(facts))
    pending = status.pending
    if pending is not None:
        which = pending.commit or pending.generation or pending.folder_digest
        lines = (f"{which}: {pending.verdict or 'not reviewed yet'}", *pending.why)
        yield from section("Proposed", Items(lines))
        yield from section("Approvals that do not count", Items(pending.not_counted))
    yield from section("Waits for a start", Items(status.needs_start))
    bad = tuple(
        (each.commit or each.folder_digest, each.author, each.reason, instant(from_micros(each.at)))
        for each in status.bad
    )
    yield from section("Rolled back, and not taken again", Table(("set", "by", "reason", "at"), bad))
    refused = tuple(
        (instant(from_micros(each.at)), each.commit or each.folder_digest or "-", each.principal or "-",
         f"{each.code or 'waits'}: {each.text}")
        for each in reversed(status.refused)
    )  # fmt: skip
    yield from section("Refused attempts", Table(("at", "set", "signed by", "why"), refused))


def _age(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{rounded_duration(timedelta(seconds=seconds))} ago"


class UnknownSetError(Exception):
    """No set that was in force is named so, or several are; the message lists the newest ones."""


def set_named(store: Store, named: str) -> str:
    """The policy digest of the set that was in force and whose digest or commit begins so. UnknownSetError."""
    changes = store.set_changes(200)
    found = {
        each.digest
        for each in changes
        if each.digest.startswith((named, f"sha256:{named}")) or (each.origin.commit or "").startswith(named)
    }
    if len(found) == 1:
        return found.pop()
    newest = ", ".join(dict.fromkeys(each.digest[:19] for each in changes)) or "none"
    what = "several sets begin with it" if found else "no set with it was in force"
    raise UnknownSetError(f"{named}: {what}; in force were, newest first: {newest}")


def source_command(
    verb: CommandVerb, author: str, reason: str, now: datetime, *, lasts: float = 0.0, remind: float = 0.0,
    digest: str | None = None, forget: str | None = None,
) -> SourceCommand:  # fmt: skip
    """A command to the source. Seconds."""
    return SourceCommand(
        id=f"{verb}-{uuid4().hex[:12]}", verb=verb, author=author, reason=reason, at=to_micros(now),
        lasts=int(lasts * 1_000_000), remind=int(remind * 1_000_000), digest=digest, forget=forget,
    )  # fmt: skip


def delivered(command: SourceCommand) -> tuple[str, bytes]:
    """The live blob by which a runner gets the command; a later one of the same verb replaces one that it has not
    read."""
    return f"{SOURCE_COMMANDS}{command.verb}", msgspec.json.encode(command)


def send_command(
    store: Store, verb: CommandVerb, author: str, reason: str, now: datetime, *, lasts: float = 0.0,
    remind: float = 0.0, digest: str | None = None, forget: str | None = None,
) -> SourceCommand:  # fmt: skip
    """Leave a command for the runner. Seconds."""
    command = source_command(verb, author, reason, now, lasts=lasts, remind=remind, digest=digest, forget=forget)
    store.put_live(*delivered(command))
    return command


def result_of(store: Store, command: SourceCommand) -> CommandResult | None:
    """What became of a command; None while no runner has read it."""
    state = source_state(store)
    return None if state is None else next((each for each in state.results if each.id == command.id), None)
