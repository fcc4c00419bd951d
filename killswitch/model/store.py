"""What a store must do: journal, state, history, operator commands, and what it remembers of incidents."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from killswitch.model.decision import Decision, Notice
from killswitch.model.snapshot import Event, Instant

JournalKind = Literal[
    "planned",  # the targets of a decision, written with the decision itself
    "sending",  # an attempt: client order id, symbol, side, amount; written before the request leaves
    "acknowledged",  # the venue's answer to an attempt
    "unknown",  # no answer that says what happened
    "rejected",  # the venue said no
    "absent",  # the venue was asked, and has no such order
    "filled",  # an attempt is final: filled amount, average price, fee
    "set_aside",  # an order of unknown fate that its position no longer waits for; it is asked about all the same
    "abandoned",  # asking about an order of unknown fate has an end without an answer; its worst case counts for ever
    "swept",  # every position of the account is asked to be closed in one request; written before it leaves
    "cancelled",  # a resting order is gone
    "unprotected",  # a protective order is about to be cancelled because it blocks a close: what it was, to the letter
    "protected",  # protection is to be put back: client order id, amount, trigger; written before it leaves
    "guarded",  # what the venue said to that, or that none is needed any more
    "verified",  # the venue's own account of the position, after the attempts
    "given_up",  # a person ends the decision's work on the account: who, and why; written with the tick that took it
    "locked",  # a lock was written
    "charged",  # what an order has cost in fees, where only its fills tell: asked for when closing is over
    "finished",  # the decision's work has an honest end: flat, residual, blocked or abandoned
]


class JournalEntry(Struct, frozen=True, omit_defaults=True):
    """One row of the journal as it is stored; `killswitch.journal` decodes it.

    `kind` is a `JournalKind`, or one that a later version has written. `sequence` is 0 until the store has given one.
    `unreadable`: what stands in place of `data`, where that is no mapping of text to text.
    """

    decision: str
    kind: str
    at: Instant
    account: str | None = None
    symbol: str | None = None
    position_side: str | None = None
    client_order_id: str | None = None
    attempt: int | None = None
    data: dict[str, str | None] = {}
    sequence: int = 0
    unreadable: str | None = None


class MachineState(Struct, frozen=True):
    """The serialised memory of one policy on one scope: stage machine, triggers, units, accumulators."""

    policy: str
    scope: str
    blob: bytes


class HistoryRow(Struct, frozen=True):
    """One row of signal history of one policy on one scope; `blob` is the room's own affair."""

    policy: str
    scope: str
    at: int
    blob: bytes


class TickRecord(Struct, frozen=True):
    """What one tick changes, written in one transaction or not at all."""

    as_of: Instant
    policy_set: str
    states: tuple[MachineState, ...]
    rows: tuple[HistoryRow, ...]
    decisions: tuple[Decision, ...]
    notices: tuple[Notice, ...]
    journal: tuple[JournalEntry, ...]
    snapshot: bytes | None
    """The encoded snapshot, kept when there is a decision, so that `explain` can show it."""
    consumed_events: tuple[str, ...]
    prune_before: int
    """History rows older than this (microseconds) may go."""
    messages: tuple[Outgoing, ...] = ()
    """Notifications of this tick; one whose id is in the outbox already counts once."""


class Outgoing(Struct, frozen=True):
    """A notification on its way to one target. `id` is a digest of what it is about and the target."""

    id: str
    at: int
    """When what it tells was decided (microseconds)."""
    route: str
    target: str
    """Kind and place as the route writes them; never a secret."""
    body: bytes


DeliveryState = Literal["pending", "delivered", "given_up"]


class Delivery(Struct, frozen=True):
    """A notification and what has come of it. `attempts` counts those begun, the one under way included."""

    message: Outgoing
    state: DeliveryState = "pending"
    attempts: int = 0
    error: str | None = None
    """Why the last attempt failed, or why it was given up; secrets hidden."""
    ended_at: int | None = None
    """When it was delivered or given up (microseconds)."""


class RouteCount(Struct, frozen=True):
    """How many notifications of one route to one target stand how; `error` is that of the oldest pending one."""

    route: str
    target: str
    pending: int
    delivered: int
    given_up: int
    oldest: int | None
    """When what the oldest pending one tells was decided (microseconds)."""
    error: str | None


class StoredDecision(Struct, frozen=True):
    """A decision with the snapshot that it was made on, where that was kept."""

    decision: Decision
    snapshot: bytes | None


class UnreadableCommand(Struct, frozen=True):
    """A command in a store of which this version can make nothing: its id there, and why."""

    id: str
    why: str


class Commands(Struct, frozen=True):
    """What waits for a tick, in the order in which it came."""

    events: tuple[Event, ...]
    unreadable: tuple[UnreadableCommand, ...] = ()


class Lease(Struct, frozen=True):
    """Who may act on this store, until when (microseconds), in which generation.

    `ttl`: how far ahead its holder dates it at most, in microseconds; None where an older version wrote it.
    """

    owner: str
    generation: int
    expires_at: int
    ttl: int | None = None


class StoreBusyError(Exception):
    """Another live owner holds the lease; the message names it and until when."""


class StoreTroubleError(Exception):
    """A store could not do what was asked; nothing of the call was written."""


class DamagedMemoryError(StoreTroubleError):
    """What a store kept of a policy on a scope is nothing that a watch can begin with; the message says of which."""


class OvertakenError(StoreTroubleError):
    """Another holds the lease by now: what is known here is older than the store."""


class Journal(Protocol):
    """What closing writes down and takes up again: the part of a store that it needs."""

    def append(self, entry: JournalEntry) -> int: ...

    def append_all(self, entries: Sequence[JournalEntry]) -> None:
        """Write all of them, in order, in one transaction or not at all."""
        ...

    def journal(self, decision: str | None = None) -> Sequence[JournalEntry]: ...

    def journal_from(self, sequence: int) -> Sequence[JournalEntry]:
        """Every entry from that sequence number on, of whichever decision."""
        ...

    def decision(self, id_prefix: str) -> StoredDecision | None:
        """The one decision whose id starts so; LookupError if several do."""
        ...

    def unfinished(self) -> Sequence[StoredDecision]:
        """Decisions with a `planned` but no `finished` journal entry, oldest first."""
        ...

    def decisions(self, limit: int) -> Sequence[StoredDecision]:
        """The newest `limit` decisions, newest first, without their snapshots."""
        ...


class Outbox(Protocol):
    """What sending takes from and gives back to: the part of a store that it needs. Writes are fenced as ticks are."""

    def claim(self, target: str, besides: Collection[str] = ()) -> Delivery | None:
        """The oldest pending notification for `target`, its attempt counted before it is made; None if none waits.

        `besides`: ids that are passed over.
        """
        ...

    def settle(self, message: str, at: int, error: str | None) -> None:
        """What came of an attempt: delivered, or still pending because of `error`."""
        ...

    def give_up(self, target: str, before: int, at: int, reason: str) -> int:
        """End what waits for `target` and was decided before `before`; how many that are. `reason` where none is."""
        ...

    def waiting(self, target: str) -> int:
        """How many are pending for `target`."""
        ...

    def outbox(self) -> Sequence[RouteCount]:
        """How many stand how, by route and target."""
        ...

    def deliveries(self, limit: int) -> Sequence[Delivery]:
        """The newest `limit` notifications, newest first."""
        ...

    def forget(self, before: int) -> None:
        """Drop what was delivered or given up before `before` (microseconds)."""
        ...


class Store(Journal, Outbox, Protocol):
    """Journal, state, history, hands, outbox and lease. Every write is durable when the call returns."""

    def states(self) -> Sequence[MachineState]: ...

    def rows(self, policy: str, scope: str, since: int) -> Sequence[HistoryRow]: ...

    def commit_tick(self, record: TickRecord) -> None: ...

    def notices(self, limit: int) -> Sequence[Notice]: ...

    def put_event(self, event: Event) -> None:
        """A hand for the next tick."""
        ...

    def pending_events(self) -> Sequence[Event]: ...

    def commands(self) -> Commands:
        """The pending events, and what waits beside them that cannot be read."""
        ...

    def put_live(self, name: str, blob: bytes) -> None:
        """Replace a small named blob that `status` reads (last tick, health)."""
        ...

    def live(self, name: str) -> bytes | None: ...

    def acquire(self, owner: str, now: int, ttl: int) -> Lease:
        """Take or renew the lease; StoreBusyError if another owner's has not run out."""
        ...

    def fence(self, generation: int) -> None:
        """Write under the lease of `generation` from now on: once there is a later one, ticks, journal entries and
        live blobs are refused, in the transaction that would write them."""
        ...

    def release(self, owner: str) -> None: ...

    def release_unrenewed(self, lease: Lease) -> None:
        """Take back a lease whose holder is dead; nothing happens if it is not as it was."""
        ...

    def lease(self) -> Lease | None: ...

    def close(self) -> None: ...


class CoursePoint(Struct, frozen=True, gc=False):
    """The value of a unit at an instant (microseconds)."""

    at: int
    value: float


class IncidentStore(Store, Protocol):
    """A store that remembers incidents too. Every write is durable when the call returns."""

    def keep_incident(self, incident: str, note: bytes, points: Sequence[CoursePoint]) -> None:
        """Write the note of an incident, unless it has one, and add to its course; points that are there stay."""
        ...

    def incident_note(self, incident: str) -> bytes | None: ...

    def course(self, incident: str) -> Sequence[CoursePoint]:
        """The kept points of an incident, oldest first."""
        ...
