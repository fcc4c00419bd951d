"""The store over an SQLAlchemy engine: one transaction for a tick, one for each other write."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Engine, TextClause
from sqlalchemy.exc import DBAPIError

from killswitch.model.course import CoursePoint
from killswitch.model.decision import Decision, Notice, decode_decision, encode_decision, encode_notice
from killswitch.model.instant import from_micros, to_micros
from killswitch.model.snapshot import Event
from killswitch.model.store import (
    Delivery,
    HistoryRow,
    JournalEntry,
    Lease,
    MachineState,
    Outgoing,
    RouteCount,
    StoreBusyError,
    StoredDecision,
    TickRecord,
)
from killswitch.store import statements as sql
from killswitch.store.errors import DuplicateDecisionError, FencedError, StoreError
from killswitch.store.turns import Turns

WRITE: Final = "killswitch_write"
"""Execution option of a connection that will write: an engine may begin it with the write lock taken."""

_LATER_THAN_ALL: Final = 2**62

_NOTICES = msgspec.json.Decoder(Notice)
_EVENTS = msgspec.json.Decoder(Event)
_ENCODER = msgspec.json.Encoder(decimal_format="string")
_DATA = msgspec.json.Decoder(dict[str, str | None])

Row = dict[str, Any]

LEASE_TERM: Final = "lease-term"
"""The live blob that says how far ahead a lease is dated: the table of the lease has no place for it."""


class _Term(msgspec.Struct, frozen=True):
    generation: int
    ttl: int


_TERM = msgspec.json.Encoder()
_TERMS = msgspec.json.Decoder(_Term)


class SqlStore:
    """`killswitch.model.store.Store` for any database whose schema `migrations` has made.

    Safe to share between threads: every call takes a connection of its own from the engine's pool.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(**{WRITE: True})
        self._fence: int | None = None
        self._turns = Turns()

    def states(self) -> Sequence[MachineState]:
        """The newest state of every machine."""
        return [MachineState(row.policy, row.scope, row.body) for row in self._read(sql.STATES)]

    def rows(self, policy: str, scope: str, since: int) -> Sequence[HistoryRow]:
        """History at or after `since` (microseconds), oldest first."""
        found = self._read(sql.ROWS, policy=policy, scope=scope, since=since)
        return [HistoryRow(policy, scope, row.at, row.body) for row in found]

    def commit_tick(self, record: TickRecord) -> None:
        """Write all of `record`, or nothing of it.

        Raises DuplicateDecisionError if one of its decisions is recorded already, and FencedError.
        """
        at = to_micros(record.as_of)
        with self._writing_fenced() as connection:
            for decision in record.decisions:
                if connection.execute(sql.DECISION_EXISTS, {"id": decision.id}).first() is not None:
                    raise DuplicateDecisionError(f"decision {decision.id} is already recorded")
            many = (
                (sql.PUT_STATE, [_state_row(state) for state in record.states]),
                (sql.PUT_ROW, [_history_row(row) for row in record.rows]),
                (sql.PUT_DECISION, [_decision_row(each, record.snapshot) for each in record.decisions]),
                (sql.PUT_NOTICE, [_notice_row(notice) for notice in record.notices]),
                (sql.PUT_JOURNAL, [_journal_row(entry) for entry in record.journal]),
                (sql.PUT_MESSAGE, [msgspec.structs.asdict(message) for message in record.messages]),
                (sql.CONSUME_EVENT, [{"id": event, "at": at} for event in record.consumed_events]),
            )
            for statement, parameters in many:
                if parameters:
                    connection.execute(statement, parameters)
            connection.execute(sql.PRUNE_ROWS, {"before": record.prune_before})

    def append(self, entry: JournalEntry) -> int:
        """Write one journal entry; its sequence number, once it is durable. FencedError as with `commit_tick`."""
        with self._writing_fenced() as connection:
            return int(connection.execute(sql.PUT_JOURNAL_RETURNING, _journal_row(entry)).scalar_one())

    def append_all(self, entries: Sequence[JournalEntry]) -> None:
        """Write several journal entries, in order, in one transaction. FencedError as with `commit_tick`."""
        if entries:
            with self._writing_fenced() as connection:
                connection.execute(sql.PUT_JOURNAL, [_journal_row(entry) for entry in entries])

    def journal(self, decision: str | None = None) -> Sequence[JournalEntry]:
        """The journal of one decision, or all of it, in the order in which it was written."""
        if decision is None:
            return [_entry(row) for row in self._read(sql.JOURNAL)]
        return [_entry(row) for row in self._read(sql.JOURNAL_OF, decision=decision)]

    def journal_from(self, sequence: int) -> Sequence[JournalEntry]:
        """Every entry from that sequence number on, in the order in which they were written."""
        return [_entry(row) for row in self._read(sql.JOURNAL_FROM, sequence=sequence)]

    def unfinished(self) -> Sequence[StoredDecision]:
        """Decisions with an account that has a `planned` but no `finished` entry, oldest first."""
        return [_stored(row.body, row.snapshot) for row in self._read(sql.UNFINISHED)]

    def decisions(self, limit: int) -> Sequence[StoredDecision]:
        """The newest `limit` decisions, newest first, without their snapshots."""
        return [_stored(row.body, None) for row in self._read(sql.DECISIONS, limit=limit)]

    def decision(self, id_prefix: str) -> StoredDecision | None:
        """The one decision whose id starts so; LookupError if several do."""
        found = self._read(sql.DECISIONS_BY_PREFIX, prefix=id_prefix, length=len(id_prefix))
        if len(found) > 1:
            raise LookupError(f"several decisions start with {id_prefix!r}: give more of the id")
        return _stored(found[0].body, found[0].snapshot) if found else None

    def notices(self, limit: int) -> Sequence[Notice]:
        """The newest `limit` notices, newest first."""
        return [_NOTICES.decode(row.body) for row in self._read(sql.NOTICES, limit=limit)]

    def claim(self, target: str, besides: Collection[str] = ()) -> Delivery | None:
        """The oldest pending notification for `target`, its attempt counted before it is made; None if none waits.

        `besides`: ids that are passed over. FencedError as with `commit_tick`.
        """
        if not self._read(sql.MESSAGE_WAITS, target=target, before=_LATER_THAN_ALL):
            return None  # a target that has nothing must not cost a write
        with self._writing_fenced(background=True) as connection:
            row = connection.execute(sql.CLAIM_MESSAGE, {"target": target, "besides": list(besides)}).first()
        return None if row is None else _delivery(row)

    def settle(self, message: str, at: int, error: str | None) -> None:
        """What came of an attempt: delivered, or still pending because of `error`. FencedError as with `claim`."""
        statement = sql.MESSAGE_DELIVERED if error is None else sql.MESSAGE_FAILED
        with self._writing_fenced(background=True) as connection:
            connection.execute(
                statement, {"id": message, "at": at} if error is None else {"id": message, "error": error}
            )

    def give_up(self, target: str, before: int, at: int, reason: str) -> int:
        """End what waits for `target` and was decided before `before`; how many that are.

        The error of its last attempt stays; `reason` stands where there was none. FencedError as with `claim`.
        """
        if not self._read(sql.MESSAGE_WAITS, target=target, before=before):
            return 0  # asked for before every attempt: it must not cost a write
        with self._writing_fenced(background=True) as connection:
            values = {"target": target, "before": before, "at": at, "reason": reason}
            return int(connection.execute(sql.GIVE_UP_MESSAGES, values).rowcount)

    def waiting(self, target: str) -> int:
        """How many notifications are pending for `target`."""
        return int(self._read(sql.WAITING, target=target)[0].count)

    def outbox(self) -> Sequence[RouteCount]:
        """How many notifications stand how, by route and target."""
        return [RouteCount(**row._mapping) for row in self._read(sql.OUTBOX)]

    def deliveries(self, limit: int) -> Sequence[Delivery]:
        """The newest `limit` notifications, newest first."""
        return [_delivery(row) for row in self._read(sql.DELIVERIES, limit=limit)]

    def forget(self, before: int) -> None:
        """Drop what was delivered or given up before `before` (microseconds). FencedError as with `claim`."""
        with self._writing_fenced(background=True) as connection:
            connection.execute(sql.FORGET_MESSAGES, {"before": before})

    def put_event(self, event: Event) -> None:
        """A hand for the next tick; one with an id that is known already counts once."""
        with self._writing() as connection:
            connection.execute(sql.PUT_EVENT, {"id": event.id, "body": _ENCODER.encode(event)})

    def pending_events(self) -> Sequence[Event]:
        """Hands that no tick has consumed, in the order in which they came."""
        return [_EVENTS.decode(row.body) for row in self._read(sql.PENDING_EVENTS)]

    def put_live(self, name: str, blob: bytes) -> None:
        """Replace a small named blob that `status` reads. FencedError as with `commit_tick`."""
        with self._writing_fenced() as connection:
            connection.execute(sql.PUT_LIVE, {"name": name, "body": blob})

    def live(self, name: str) -> bytes | None:
        """The named blob, or None if there is none yet."""
        found = self._read(sql.LIVE, name=name)
        return bytes(found[0].body) if found else None

    def keep_incident(self, incident: str, note: bytes, points: Sequence[CoursePoint]) -> None:
        """Write an incident's note, unless it has one, and add to its course. FencedError as with `commit_tick`."""
        rows = [{"incident": incident, "at": point.at, "value": point.value} for point in points]
        with self._writing_fenced(background=True) as connection:
            connection.execute(sql.PUT_INCIDENT, {"id": incident, "note": note})
            if rows:
                connection.execute(sql.PUT_COURSE, rows)

    def incident_note(self, incident: str) -> bytes | None:
        """The note of an incident, or None if it has none."""
        found = self._read(sql.INCIDENT_NOTE, id=incident)
        return bytes(found[0].note) if found else None

    def course(self, incident: str) -> Sequence[CoursePoint]:
        """The kept points of an incident, oldest first."""
        return [CoursePoint(row.at, row.value) for row in self._read(sql.COURSE, incident=incident)]

    def acquire(self, owner: str, now: int, ttl: int) -> Lease:
        """Take or renew the lease until `now + ttl` (microseconds); a new holder gets a new generation.

        Raises StoreBusyError if another owner's has not run out.
        """
        with self._writing() as connection:
            row = connection.execute(sql.LEASE).first()
            if row is not None and row.owner not in (None, owner) and row.expires_at > now:
                raise StoreBusyError(
                    f"{row.owner} holds the lease until {from_micros(row.expires_at):%Y-%m-%d %H:%M:%S} UTC"
                )
            generation = 1 if row is None else row.generation + (row.owner != owner)
            lease = Lease(owner=owner, generation=generation, expires_at=now + ttl, ttl=ttl)
            connection.execute(sql.PUT_LEASE, msgspec.structs.asdict(lease))
            term = _TERM.encode(_Term(generation, ttl))
            known = connection.execute(sql.LIVE, {"name": LEASE_TERM}).first()
            if known is None or bytes(known.body) != term:
                connection.execute(sql.PUT_LIVE, {"name": LEASE_TERM, "body": term})
            return lease

    def fence(self, generation: int) -> None:
        """From now on this handle writes under the lease of `generation`: no longer, once there is a later one."""
        self._fence = generation

    def release(self, owner: str) -> None:
        """Give the lease back; nothing happens if `owner` does not hold it."""
        with self._writing() as connection:
            connection.execute(sql.RELEASE_LEASE, {"owner": owner})

    def lease(self) -> Lease | None:
        """The lease as it stands, run out or not; None if it was never taken or was given back."""
        found = self._read(sql.LEASE)
        if not found or found[0].owner is None:
            return None
        return Lease(found[0].owner, found[0].generation, found[0].expires_at, self._ttl_of(found[0].generation))

    def _ttl_of(self, generation: int) -> int | None:
        blob = self.live(LEASE_TERM)
        try:
            term = None if blob is None else _TERMS.decode(blob)
        except msgspec.DecodeError:
            return None
        return term.ttl if term is not None and term.generation == generation else None

    def release_unrenewed(self, lease: Lease) -> None:
        """Take back a lease whose holder is dead; nothing happens if it is not as it was."""
        with self._writing() as connection:
            connection.execute(
                sql.RELEASE_UNRENEWED,
                {"owner": lease.owner, "generation": lease.generation, "expires_at": lease.expires_at},
            )

    def close(self) -> None:
        """Give back every connection."""
        self._engine.dispose()

    def _read(self, statement: TextClause, **parameters: object) -> Sequence[Any]:
        with _explained(), self._engine.connect() as connection:
            return connection.execute(statement, parameters).all()

    @contextmanager
    def _writing(self, *, background: bool = False) -> Iterator[Connection]:
        with self._turns.turn(background=background), _explained(), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def _writing_fenced(self, *, background: bool = False) -> Iterator[Connection]:
        """A write that no later holder of the lease can have overtaken: looked up in its own transaction.

        `background`: it lets every other write of this process go first.
        """
        with self._writing(background=background) as connection:
            if self._fence is not None:
                row = connection.execute(sql.LEASE).first()
                if row is not None and row.generation > self._fence:
                    raise FencedError(
                        f"the lease of generation {self._fence} has passed to generation {row.generation} "
                        f"({row.owner or 'given back since'}): this process stops, because its memory is older "
                        "than the store"
                    )
            yield connection


@contextmanager
def _explained() -> Iterator[None]:
    """Turn the driver's complaints (locked, full, read-only, corrupt) into a StoreError that says so."""
    try:
        yield
    except DBAPIError as error:
        raise StoreError(f"the store did not take it: {error.orig}") from error


def _state_row(state: MachineState) -> Row:
    return {"policy": state.policy, "scope": state.scope, "body": state.blob}


def _history_row(row: HistoryRow) -> Row:
    return {"at": row.at, "policy": row.policy, "scope": row.scope, "body": row.blob}


def _decision_row(decision: Decision, snapshot: bytes | None) -> Row:
    return {
        "id": decision.id,
        "as_of": to_micros(decision.as_of),
        "policy": decision.policy,
        "scope": decision.scope,
        "body": encode_decision(decision),
        "snapshot": snapshot,
    }


def _notice_row(notice: Notice) -> Row:
    return {"as_of": to_micros(notice.as_of), "body": encode_notice(notice)}


def _journal_row(entry: JournalEntry) -> Row:
    row = msgspec.structs.asdict(entry)
    del row["sequence"]
    return {**row, "at": to_micros(entry.at), "data": _ENCODER.encode(entry.data).decode()}


def _delivery(row: Any) -> Delivery:
    message = Outgoing(row.id, row.at, row.route, row.target, bytes(row.body))
    return Delivery(message, row.state, row.attempts, row.error, row.ended_at)


def _entry(row: Any) -> JournalEntry:
    return JournalEntry(
        decision=row.decision,
        kind=row.kind,
        at=from_micros(row.at),
        account=row.account,
        symbol=row.symbol,
        position_side=row.position_side,
        client_order_id=row.client_order_id,
        attempt=row.attempt,
        data=_DATA.decode(row.data),
        sequence=row.sequence,
    )


def _stored(body: bytes, snapshot: bytes | None) -> StoredDecision:
    return StoredDecision(decode_decision(body), snapshot)
