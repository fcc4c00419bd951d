"""The store over an SQLAlchemy engine: one transaction for a tick, one for each other write."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import asdict, replace
from sqlalchemy import Connection

from killswitch.journal.record_entries import journal_record
from killswitch.model.applied_set import AppliedSet, PolicyFile, SetChange, folder_digest
from killswitch.model.decision import Notice
from killswitch.model.instant import from_micros, to_micros
from killswitch.model.legible import legible, one_line
from killswitch.model.snapshot import Event
from killswitch.model.store import (
    MOST_POSTPONED,
    SAMPLES,
    Commands,
    Delivery,
    EquityCurvePoint,
    HistoryRow,
    JournalEntry,
    Lease,
    MachineState,
    Outgoing,
    PendingCount,
    RouteCount,
    StoreBusyError,
    StoredDecision,
    Suppression,
    TickRecord,
    UnreadableCommand,
    decoded,
)
from killswitch.record.tick_entries import StoredCommand, entries_around, of_deliveries, of_lease, of_message
from killswitch.store import rows
from killswitch.store import statements as sql
from killswitch.store.errors import DuplicateDecisionError
from killswitch.store.handle import retried
from killswitch.store.retained import RetainedStore

UNREADABLE: Final = "it cannot be read in the store"
"""Why a notification was given up that could not be decoded."""
LEASE_TERM: Final = "lease-term"
"""The live blob with the duration of the lease, for which its table has no column."""


class _Term(msgspec.Struct, frozen=True):
    generation: int
    ttl: int


_TERM = msgspec.json.Encoder()
_TERMS = msgspec.json.Decoder(_Term)


MOST_JOINED: Final = 500
"""The most notifications that wait for a target and become one message."""


class SqlStore(RetainedStore):
    """`killswitch.model.store.Store` for any database with the schema of `migrations`.

    Thread-safe: every call uses a connection of its own from the engine's pool.
    """

    def states(self) -> Sequence[MachineState]:
        """The newest state of every state machine."""
        return self._decoded("the state of a machine", rows.state, self._read(sql.STATES))

    def rows(self, policy: str, scope: str, since: int) -> Sequence[HistoryRow]:
        """History at or after `since` (microseconds), oldest first."""
        found = self._read(sql.ROWS, policy=policy, scope=scope, since=since)
        what = f"the history of {policy} on {scope}"
        return self._decoded(
            what, lambda row: HistoryRow(policy, scope, rows.integer(row.at), rows.bytes_of(row.body)), found
        )

    @retried
    def commit_tick(self, record: TickRecord) -> None:
        """Write all of `record`, or nothing of it.

        Raises DuplicateDecisionError if one of its decisions is recorded already, and FencedError.
        """
        self._return_to_disk()
        at = to_micros(record.as_of)
        with self._writing_fenced() as connection:
            before, after = entries_around(record, self._consumed(connection, record.consumed_events))
            if record.applied is not None:
                _put_set(connection, record.applied, record.renamed)
            for decision in record.decisions:
                if connection.execute(sql.DECISION_EXISTS, {"id": decision.id}).first() is not None:
                    raise DuplicateDecisionError(f"decision {decision.id} is already recorded")
            many = (
                (sql.PUT_STATE, [rows.state_row(state) for state in record.states]),
                (sql.PUT_ROW, [rows.history_row(row) for row in record.rows]),
                (sql.PUT_DECISION, [rows.decision_row(each, record.snapshot) for each in record.decisions]),
                (sql.PUT_NOTICE, [rows.notice_row(notice) for notice in record.notices]),
                (sql.PUT_MESSAGE, [rows.message_row(message) for message in record.messages]),
                (sql.PUT_SUPPRESSION, [rows.suppression_row(each) for each in record.suppressed]),
                (sql.PUT_LIVE, [{"name": name, "body": body} for name, body in record.live.items()]),
                (sql.CONSUME_EVENT, [{"id": event, "at": at} for event in record.consumed_events]),
            )
            for statement, parameters in many:
                if parameters:
                    connection.execute(statement, parameters)
            _put_journal(connection, record.journal)
            connection.execute(sql.PRUNE_ROWS, {"before": record.prune_before})
            if record.trim is not None:
                values = {**asdict(record.trim), "length": len(SAMPLES), "samples": SAMPLES}
                connection.execute(sql.TRIM_ROWS, values)
            self._record(connection, (*before, *journal_record(record.journal), *after))
        self._is_under_way = self._log_entry is not None
        self._log_entries(record.journal)

    @retried
    def append(self, entry: JournalEntry) -> int:
        """Write one journal entry; return its sequence number once it is durable. Raises FencedError as
        `commit_tick`."""
        self._return_to_disk()
        with self._writing_fenced() as connection:
            written = connection.exec_driver_sql(sql.PUT_JOURNAL_RETURNING, rows.journal_row(entry))
            sequence = int(written.scalar_one())
            self._record(connection, journal_record((entry,)))
        self._log_entries((entry,))
        return sequence

    @retried
    def append_all(self, entries: Sequence[JournalEntry]) -> None:
        """Write several journal entries, in order, in one transaction. Raises FencedError as `commit_tick`."""
        if entries:
            self._return_to_disk()
            with self._writing_fenced() as connection:
                _put_journal(connection, entries)
                self._record(connection, journal_record(entries))
            self._log_entries(entries)

    @staticmethod
    def _consumed(connection: Connection, ids: Iterable[str]) -> list[StoredCommand]:
        """The operator commands that a tick consumes, as far as they can be read."""
        found = [connection.execute(sql.PENDING_EVENT, {"id": id_}).first() for id_ in ids]
        return [rows.stored_command(row) for row in found if row]

    def journal(self, decision: str | None = None) -> Sequence[JournalEntry]:
        """The journal of one decision, or all of it, in the order of writing."""
        if decision is None:
            return self.journal_from(0)
        return self._entries(self._read(sql.JOURNAL_OF, decision=decision))

    def journal_from(self, sequence: int) -> Sequence[JournalEntry]:
        """Every entry from that sequence number on, in the order of writing."""
        return self._entries(self._read(sql.JOURNAL_FROM, sequence=sequence))

    def _entries(self, found: Iterable[Any]) -> list[JournalEntry]:
        return self._decoded("an entry of the journal", rows.entry, found)

    def _decisions(self, found: Iterable[Any]) -> list[StoredDecision]:
        return self._decoded("a decision", rows.stored, found)

    def unfinished(self) -> Sequence[StoredDecision]:
        """Decisions with an account that has a `planned` but no `finished` entry, oldest first."""
        return self._decisions(self._read(sql.UNFINISHED))

    def decisions(self, limit: int) -> Sequence[StoredDecision]:
        """The newest `limit` decisions, newest first, without their snapshots."""
        return self._decisions(self._read(sql.DECISIONS, limit=limit))

    def decision(self, id_prefix: str) -> StoredDecision | None:
        """The one decision whose id has this prefix. Raises LookupError if several do."""
        found = self._read(sql.DECISIONS_BY_PREFIX, prefix=id_prefix, length=len(id_prefix))
        if len(found) > 1:
            raise LookupError(f"several decisions start with {id_prefix!r}: give more of the id")
        return next(iter(self._decisions(found)), None)

    def notices(self, limit: int) -> Sequence[Notice]:
        """The newest `limit` notices, newest first."""
        return self._decoded("a notice", rows.notice, self._read(sql.NOTICES, limit=limit))

    @retried
    def claim(self, target: str, now: int, besides: Collection[str] = (), *, together: bool = False) -> Delivery | None:
        """The notification for `target` that is next, None if none is pending; if it is due, with the attempt counted.

        One that is not due has its `due_at`, and no attempt is counted. `besides`: ids to skip. `together`: as
        `Outbox.claim`. Raises FencedError as `commit_tick`.
        """
        what, wanted = f"a notification to {target}", {"target": target, "besides": list(besides), "now": now}
        while found := self._read(sql.NEXT_MESSAGE, **wanted):  # none that is due must not cost a write
            waiting = self._decoded_one(what, rows.delivery, found)
            if waiting is not None and now < waiting.due_at <= now + MOST_POSTPONED:
                return waiting
            with self._writing_fenced(background=True) as connection:
                if waiting is None:  # an unreadable one would block all others
                    connection.execute(sql.UNREADABLE_MESSAGE, {"id": found[0].id, "at": now})
                    self._record(connection, of_deliveries([str(found[0].id)], now, "given_up", UNREADABLE))
                elif claimed := self._decoded_one(
                    what, rows.delivery, connection.execute(sql.CLAIM_MESSAGE, {"id": found[0].id}).all()
                ):
                    return _with_others(connection, claimed, besides, together=together)
        return None

    @retried
    def settle(
        self, message: str, at: int, error: str | None, *, due_at: int = 0, is_refused: bool = False,
        is_rejected: bool = False,
    ) -> None:  # fmt: skip
        """Record the result of an attempt: delivered, or still pending because of `error`, and when it is due next.

        Raises FencedError as `claim`.
        """
        with self._writing_fenced(background=True) as connection:
            if error is None:
                found = connection.execute(sql.MESSAGE_DELIVERED, {"id": message, "at": at}).all()
                if found:
                    self._record(connection, of_deliveries([row.id for row in found], at, "delivered"))
            else:
                values = {"id": message, "error": error, "due_at": due_at, "is_refused": int(is_refused)}
                connection.execute(sql.MESSAGE_FAILED, values)
                if is_rejected:
                    connection.execute(sql.MESSAGE_REJECTED, {"id": message, "at": at})

    def overdue(self, now: int) -> Sequence[Outgoing]:
        """Pending notifications whose next hop is due."""
        return self._decoded("a notification", rows.outgoing, self._read(sql.OVERDUE, now=now))

    @retried
    def fall_back(self, message: str, rows_of_hop: Sequence[Outgoing]) -> None:
        """Add the notifications of the next hop, and take the hops from the one before. Raises FencedError as
        `claim`."""
        with self._writing_fenced(background=True) as connection:
            if rows_of_hop:
                connection.execute(sql.PUT_MESSAGE, [rows.message_row(each) for each in rows_of_hop])
                self._record(connection, [of_message(each, from_micros(each.at)) for each in rows_of_hop])
            connection.execute(sql.HOPPED, {"id": message})

    def unreached(self, now: int) -> int:
        """The number of pending notifications whose last hop was due before `now`."""
        return int(self._read(sql.UNREACHED, now=now)[0].unreached)

    def suppressions(self, limit: int) -> Sequence[Suppression]:
        """The newest `limit` suppressed messages, newest first."""
        return self._decoded("a suppressed message", rows.suppression, self._read(sql.SUPPRESSIONS, limit=limit))

    @retried
    def give_up(self, target: str, before: int, at: int, reason: str) -> int:
        """Give up notifications for `target` from before `before`; return how many.

        The error of the last attempt is kept; `reason` is recorded where there was none. Raises FencedError as `claim`.
        """
        if not self._read(sql.MESSAGE_WAITS, target=target, before=before):
            return 0  # called before every attempt: it must not cost a write
        with self._writing_fenced(background=True) as connection:
            values = {"target": target, "before": before, "at": at, "reason": reason}
            given_up = [str(row.id) for row in connection.execute(sql.GIVE_UP_MESSAGES, values)]
            self._record(connection, of_deliveries(given_up, at, "given_up", reason))
            return len(given_up)

    def waiting(self, target: str) -> PendingCount:
        """The notifications that are pending for `target`."""
        row = self._read(sql.WAITING, target=target)[0]
        return PendingCount(int(row.pending), int(row.refused), row.why)

    def outbox(self) -> Sequence[RouteCount]:
        """Number of notifications by state, route and target."""
        return self._decoded("the outbox", rows.route_count, self._read(sql.OUTBOX))

    def deliveries(self, limit: int) -> Sequence[Delivery]:
        """The newest `limit` notifications, newest first."""
        return self._decoded("a notification", rows.delivery, self._read(sql.DELIVERIES, limit=limit))

    @retried
    def forget(self, before: int) -> None:
        """Delete what was delivered or given up before `before` (microseconds). Raises FencedError as `claim`."""
        with self._writing_fenced(background=True) as connection:
            connection.execute(sql.FORGET_MESSAGES, {"before": before})
            connection.execute(sql.FORGET_SUPPRESSIONS, {"before": before})

    @retried
    def prepare_policy_set(self, digest: str, program: str, files: tuple[PolicyFile, ...]) -> None:
        """Write the files of a set that may come into force, so that the tick that takes it writes little."""
        keys = {"digest": digest, "content": folder_digest(files), "program": program}
        with self._writing_fenced(background=True) as connection:
            connection.execute(sql.PUT_POLICY_SET, {**keys, "files": rows.packed_files(files)})

    def set_changes(self, limit: int) -> Sequence[SetChange]:
        """The newest `limit` sets that came into force, newest first."""
        return self._decoded("a change of the policy set", rows.set_change, self._read(sql.SET_CHANGES, limit=limit))

    def policy_files(self, digest: str, content: str | None = None) -> tuple[PolicyFile, ...] | None:
        """The files of a set that was ever in force here; of several with the same policies, the newest."""
        found = self._read(sql.POLICY_FILES, digest=digest, content=content)
        return self._decoded_one(f"the files of {digest}", rows.policy_files, found)

    @retried
    def put_event(self, event: Event) -> None:
        """Record an operator command for the next tick; a repeated id counts once."""
        with self._writing() as connection:
            connection.execute(sql.PUT_EVENT, {"id": event.id, "body": rows.ENCODER.encode(event)})

    def pending_events(self) -> Sequence[Event]:
        """Operator commands that no tick has consumed, in order of arrival; `commands` lists unreadable rows too."""
        return list(self.commands().events)

    def commands(self) -> Commands:
        """What waits for a tick: operator commands in order of arrival, and rows that this version cannot read."""
        self._import_from_disk()
        events: list[Event] = []
        unreadable: list[UnreadableCommand] = []
        for row in self._read(sql.PENDING_EVENTS):
            try:
                events.append(rows.event(row))
            except (msgspec.DecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
                id_ = row.id if isinstance(row.id, str) else f"number {row.sequence}"
                unreadable.append(UnreadableCommand(id_, one_line(legible(str(error)))))
        return Commands(tuple(events), tuple(unreadable))

    def _import_from_disk(self) -> None:
        """Copy operator commands of other processes from the disk while the store is in memory."""
        if self._fallback is not None and self._fallback.copy is not None:
            for id_, body in self._fallback.events_on_disk():
                with self._writing() as connection:
                    connection.execute(sql.PUT_EVENT, {"id": id_, "body": body})

    @retried
    def put_live(self, name: str, blob: bytes) -> None:
        """Replace a small named blob that `status` reads. Raises FencedError as `commit_tick`."""
        with self._writing_fenced() as connection:
            connection.execute(sql.PUT_LIVE, {"name": name, "body": blob})

    def live(self, name: str) -> bytes | None:
        """The named blob, or None if there is none yet."""
        found = self._read(sql.LIVE, name=name)
        return self._decoded_one(f"the live blob {name}", lambda row: rows.bytes_of(row.body), found)

    def live_under(self, prefix: str) -> Mapping[str, bytes]:
        """The blobs whose names begin with `prefix`, without it.

        While the store is in memory, other processes write to the disk, so that what is there counts.
        """
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        found = self._decoded(
            f"the live blobs {prefix}",
            lambda row: (str(row.name).removeprefix(prefix), rows.bytes_of(row.body)),
            self._read(sql.LIVE_UNDER, first=prefix, end=end),
        )
        on_disk: list[tuple[str, bytes]] = []
        if self._fallback is not None and self._fallback.copy is not None:
            on_disk = self._fallback.live_on_disk(prefix, end)
        return {**dict(found), **{name.removeprefix(prefix): body for name, body in on_disk}}

    @retried
    def keep_incident(self, incident: str, note: bytes, points: Sequence[EquityCurvePoint]) -> None:
        """Record an incident's context, unless it is recorded, and add to its equity curve. Raises FencedError as
        `commit_tick`."""
        rows = [{"incident": incident, "at": point.at, "value": point.value} for point in points]
        with self._writing_fenced(background=True) as connection:
            connection.execute(sql.PUT_INCIDENT, {"id": incident, "note": note})
            if rows:
                connection.execute(sql.PUT_COURSE, rows)

    def incident_note(self, incident: str) -> bytes | None:
        """The recorded context of an incident, or None."""
        found = self._read(sql.INCIDENT_NOTE, id=incident)
        return self._decoded_one(f"the context of {incident}", lambda row: rows.bytes_of(row.note), found)

    def equity_curve(self, incident: str) -> Sequence[EquityCurvePoint]:
        """The equity curve of an incident, oldest point first."""
        return self._decoded(f"the equity curve of {incident}", rows.point, self._read(sql.COURSE, incident=incident))

    @retried
    def acquire(self, owner: str, now: int, ttl: int) -> Lease:
        """Acquire or renew the lease until `now + ttl` (microseconds); a new holder gets a new generation.

        Raises StoreBusyError while another owner's lease has not expired.
        """
        with self._writing() as connection:
            row = self._lease_row(connection.execute(sql.LEASE).all())
            if row is not None and row.owner not in (None, owner) and row.expires_at > now:
                until = from_micros(row.expires_at)
                raise StoreBusyError(f"{row.owner} holds the lease until {until:%Y-%m-%d %H:%M:%S} UTC")
            generation = 1 if row is None else row.generation + (row.owner != owner)
            lease = Lease(owner=owner, generation=generation, expires_at=now + ttl, ttl=ttl)
            connection.execute(sql.PUT_LEASE, asdict(lease))
            if row is None or row.owner != owner:
                self._record(connection, (of_lease("started", owner, generation, now),))
            term = _TERM.encode(_Term(generation, ttl))
            known = connection.execute(sql.LIVE, {"name": LEASE_TERM}).first()
            if known is None or bytes(known.body) != term:
                connection.execute(sql.PUT_LIVE, {"name": LEASE_TERM, "body": term})
        self._lease = lease
        return lease

    def fence(self, generation: int) -> None:
        """Write under the lease of `generation` from now on, and no longer once there is a later one."""
        self._fence = generation

    @retried
    def release(self, owner: str, at: int | None = None) -> None:
        """Release the lease; does nothing if `owner` does not hold it. `at`: when its holder ends in order."""
        self._return_to_disk(last=True)
        with self._writing() as connection:
            row = self._lease_row(connection.execute(sql.LEASE).all())
            if row is not None and row.owner == owner and at is not None:
                self._record(connection, (of_lease("ended", owner, row.generation, at),))
            connection.execute(sql.RELEASE_LEASE, {"owner": owner})

    def lease(self) -> Lease | None:
        """The current lease, expired or not; None if it was never acquired or was released."""
        row = self._lease_row(self._read(sql.LEASE))
        if row is None or row.owner is None:
            return None
        return Lease(row.owner, row.generation, row.expires_at, self._ttl_of(row.generation))

    def _ttl_of(self, generation: int) -> int | None:
        term = decoded(_TERMS.decode, self.live(LEASE_TERM))
        return term.ttl if term is not None and term.generation == generation else None

    @retried
    def release_unrenewed(self, lease: Lease) -> None:
        """Release the lease of a dead holder; does nothing if the lease has changed."""
        with self._writing() as connection:
            values = {"owner": lease.owner, "generation": lease.generation, "expires_at": lease.expires_at}
            connection.execute(sql.RELEASE_UNRENEWED, values)


def _with_others(connection: Connection, claimed: Delivery, besides: Collection[str], *, together: bool) -> Delivery:
    """The claimed notification with its batch, and with when its alert ended, if that waits too."""
    message, batch = claimed.message, claimed.batch
    if batch is None and together and claimed.attempts == 1:  # one that was tried may have arrived by its own id
        joined = f"{message.id}-and-others"
        values = {"target": message.target, "id": message.id, "batch": joined, "most": MOST_JOINED}
        if connection.execute(sql.JOIN_MESSAGES, {**values, "besides": [*besides, ""]}).rowcount > 1:
            batch = joined
    if batch is None:
        found = connection.execute(sql.ALERT_END, {"target": message.target, "alert": message.alert}).all()
        is_about = bool(message.alert) and not message.is_end
        return replace(claimed, ended_before=found[0].at if is_about else None)
    connection.execute(sql.TRIED_BATCH, {"batch": batch, "id": message.id})
    members = [
        rows.outgoing(row) for row in connection.execute(sql.OF_BATCH, {"target": message.target, "batch": batch})
    ]
    first, *others = members
    return replace(claimed, message=first, batch=batch, others=tuple(others))


def _put_journal(connection: Connection, entries: Sequence[JournalEntry]) -> None:
    if entries:
        connection.exec_driver_sql(sql.PUT_JOURNAL, [rows.journal_row(entry) for entry in entries])


def _put_set(connection: Connection, applied: AppliedSet, renamed: Mapping[str, str]) -> None:
    """Record a set that comes into force, and move what policies with another name have stored, at once."""
    content = folder_digest(applied.files)
    change = SetChange(
        digest=applied.digest, content=content, at=applied.at, program=applied.program, origin=applied.origin,
        renamed=dict(renamed),
    )  # fmt: skip
    keys = {"digest": applied.digest, "content": content}
    files = rows.packed_files(applied.files)
    connection.execute(sql.PUT_POLICY_SET, {**keys, "program": applied.program, "files": files})
    body = rows.ENCODER.encode(change)
    connection.execute(sql.PUT_SET_CHANGE, {**keys, "at": to_micros(applied.at), "body": body})
    aside = [(former, f"{sql.MOVED}{former}") for former in renamed]
    for former, name in (*aside, *((f"{sql.MOVED}{former}", name) for former, name in renamed.items())):
        for drop, move in sql.MOVE_ROWS:  # what an earlier policy of that name has left is at rest
            connection.execute(drop, {"to": name})
            connection.execute(move, {"of": former, "to": name})
