"""Entries of a tick: its policy set, commands, decisions, notices and notifications, in the order in which they act.

What an operator loosens is an entry of its own kind, so that attempts can be counted: by class, not by name. How long
an account was watched is in spans of usable snapshots; what a crash loses of a span is not claimed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from killswitch.model.applied_set import AppliedSet
from killswitch.model.decision import Decision, Notice, encode_decision
from killswitch.model.instant import from_micros, rfc3339
from killswitch.model.record_entry import RecordEntry, private, with_known
from killswitch.model.snapshot import AccountSnapshot, Event
from killswitch.model.store import Outgoing, TickRecord

LOOSENING: Final = frozenset({"unlock", "reset", "pause", "flag", "restate", "give_up"})
"""Commands that loosen what is in force, by their effect (ADR 0182): each is an attempt."""
_LOOSENED_SETS: Final = frozenset({"LOOSENING", "NEITHER", "UNDECIDED"})
"""Classes of a change of policies that need what a loosening needs."""


class StoredCommand(Struct, frozen=True):
    """An operator command with its bytes in the store. `event`: None where this version cannot read it."""

    id: str
    body: bytes
    event: Event | None


def entries_around(
    record: TickRecord, commands: Sequence[StoredCommand]
) -> tuple[list[RecordEntry], list[RecordEntry]]:
    """The entries of a tick that precede those of its journal, and those that follow them.

    `commands`: the operator commands that it consumes.
    """
    before = list(record.entries)
    if record.applied is not None:
        before += _of_set(record.applied, record.as_of)
    for each in commands:
        before += of_command(each, record.as_of, is_refused=each.id in record.refused_events)
    before += [of_decision(decision, record.incidents.get(decision.id)) for decision in record.decisions]
    after = [of_notice(notice) for notice in record.notices]
    return before, after + [of_message(message, record.as_of) for message in record.messages]


def _of_set(applied: AppliedSet, at: datetime) -> Iterable[RecordEntry]:
    origin = applied.origin
    fields = with_known({
        "policy_set": applied.digest,
        "commit": origin.commit,
        "content": origin.folder_digest or None,
        "program": applied.program,
        "class": origin.verdict,
        "approvals": len(origin.approvals),
    })  # fmt: skip
    details = with_known({
        "source": origin.source or None,
        "ref": origin.ref,
        "signers": private(", ".join(origin.signers) or None),
        "approvers": private(", ".join(each.principal for each in origin.approvals) or None),
        "operator": private(origin.operator),
        "reason": private(origin.reason),
    })  # fmt: skip
    yield RecordEntry("policy_set", at, fields, details)
    if origin.verdict in _LOOSENED_SETS:
        yield loosening("policy set", at, "granted", policy_set=applied.digest)


def of_command(stored: StoredCommand, at: datetime, *, is_refused: bool) -> Iterable[RecordEntry]:
    """The command as it is carried out or refused, and the attempt to loosen that it is."""
    event = stored.event
    if event is None:
        yield RecordEntry("command", at, {"command": stored.id, "refused": True}, {}, stored.body, "events")
        return
    fields = with_known({
        "command": event.id,
        "verb": event.kind,
        "scope": event.scope,
        "actor": private(event.author),
        "sent_at": rfc3339(event.at),
        "decision": event.decision,
        "cause": event.cause,
        "refused": is_refused or None,
    })  # fmt: skip
    yield RecordEntry("command", at, fields, with_known({"reason": private(event.reason)}), stored.body, "events")
    if event.kind in LOOSENING:
        yield loosening(event.kind, at, "refused" if is_refused else "granted", command=event.id)


def loosening(what: str, at: datetime, result: str, **about: str) -> RecordEntry:
    """An attempt to loosen: `what` it is by its class, and `result`: granted or refused."""
    return RecordEntry("loosening", at, {"class": what, "result": result, **about})


def of_decision(decision: Decision, incident: str | None) -> RecordEntry:
    """The decision by the digest of its record, which the store keeps. `incident`: None where it is not known."""
    fields = with_known({
        "decision": decision.id,
        "incident": incident,
        "policy": decision.policy,
        "policy_set": decision.policy_set,
        "commit": decision.commit,
        "scope": decision.scope,
        "mode": decision.mode,
        "stage": decision.stage,
        "level": decision.level,
        "decided": decision.kind or "stage",
        "actor": private(decision.author),
    })  # fmt: skip
    return RecordEntry("decision", decision.as_of, fields, {}, encode_decision(decision), "decisions")


def of_notice(notice: Notice) -> RecordEntry:
    """The notice with its text, which a person may have written a part of."""
    fields = with_known({
        "policy": notice.policy,
        "scope": notice.scope,
        "about": notice.kind,
        "severity": notice.severity,
        "subject": notice.subject,
    })  # fmt: skip
    return RecordEntry("notice", notice.as_of, fields, with_known({"text": private(notice.text)}))


def of_message(message: Outgoing, at: datetime) -> RecordEntry:
    """The notification of one target: it announces the delivery. Where it goes is erasable."""
    fields = with_known({"message": message.id, "route": message.route, "target": private(message.target)})
    return RecordEntry("notification", at, fields, body=message.body, announces=f"message/{message.id}")


def of_deliveries(messages: Collection[str], at: int, state: str, error: str | None = None) -> list[RecordEntry]:
    """What became of notifications at `at` (microseconds): each answers its announcement."""
    details = with_known({"error": private(error)})
    return [
        RecordEntry("delivery", from_micros(at), {"message": id_, "state": state}, details, answers=f"message/{id_}")
        for id_ in messages
    ]


def of_lease(kind: str, owner: str, generation: int, at: int) -> RecordEntry:
    """A run takes the lease (`started`), or ends in order (`ended`), at `at` (microseconds)."""
    fields = with_known({"generation": generation, "owner": private(owner)})
    return RecordEntry("started" if kind == "started" else "ended", from_micros(at), fields)


WRITTEN_EVERY: Final = timedelta(minutes=15)
"""The longest span: 96 entries a day for an account that is watched without a gap."""


class _Span(Struct):
    """The span of an account under way: when it began, and its newest usable snapshot."""

    began: datetime
    newest: datetime


class WatchedTime:
    """Folds the snapshots of a run to spans; times are those of the run's clock."""

    def __init__(self, max_gap: timedelta) -> None:
        """`max_gap`: the longest time between two snapshots of one span."""
        self._max_gap = max_gap
        self._spans: dict[str, _Span] = {}

    def observe(self, accounts: Iterable[AccountSnapshot], as_of: datetime) -> tuple[RecordEntry, ...]:
        """Take the accounts that were polled for a tick; returns the entries of spans that end or are long enough."""
        entries = []
        for account in accounts:
            if account.quality != "ok":
                continue
            span = self._spans.get(account.account)
            if span is None or as_of - span.newest > self._max_gap:
                entries += self._end(account.account, as_of)
                self._spans[account.account] = _Span(as_of, as_of)
                continue
            span.newest = as_of
            if as_of - span.began >= WRITTEN_EVERY:
                entries += self._end(account.account, as_of)
                self._spans[account.account] = _Span(as_of, as_of)
        return tuple(entries)

    def finish(self, as_of: datetime) -> tuple[RecordEntry, ...]:
        """The entries of all spans at the end of a run."""
        return tuple(entry for name in sorted(self._spans) for entry in self._end(name, as_of))

    def _end(self, account: str, as_of: datetime) -> list[RecordEntry]:
        """The entry of the span of an account; none for one of a single snapshot, which covers no time."""
        span = self._spans.pop(account, None)
        if span is None or span.newest <= span.began:
            return []
        fields: dict[str, str | int | bool] = {
            "account": account,
            "from": rfc3339(span.began),
            "to": rfc3339(span.newest),
            "max_gap": str(self._max_gap.total_seconds()),
        }
        return [RecordEntry("watched", as_of, {**fields})]
