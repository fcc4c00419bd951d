"""The store protocols: journal, state, history, operator commands, notifications and incidents."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Literal, Protocol, TypeVar

from msgspec import DecodeError, Struct

from killswitch.model.applied_set import AppliedSet, PolicyFile, SetChange
from killswitch.model.decision import Decision, Notice
from killswitch.model.instant import MINUTE
from killswitch.model.record_entry import RecordEntry
from killswitch.model.snapshot import Event, Instant

T = TypeVar("T")
JournalKind = Literal[
    "planned",  # the targets of a decision, written with the decision itself
    "sending",  # an attempt: client order id, symbol, side, amount; written before the request is sent
    "acknowledged",  # the venue's answer to an attempt
    "unknown",  # no conclusive answer to an attempt
    "rejected",  # the venue rejected the attempt
    "absent",  # the venue was queried and has no such order
    "filled",  # an attempt is final: filled amount, average price, fee
    "set_aside",  # an order of unknown status that its position no longer waits for; it is still queried
    "abandoned",  # querying an order of unknown status ended without an answer; its worst case counts from then on
    "swept",  # one request closes every position of the account; written before it is sent
    "cancelled",  # a resting order is gone
    "unprotected",  # a protective order that blocks a close is about to be cancelled; with a full copy of it
    "protected",  # protection is to be restored: client order id, amount, trigger; written before it is sent
    "guarded",  # the venue's answer to restored protection, or that none is needed any more
    "verified",  # the venue's own account of the position, after the attempts
    "restored",  # the store was restored from a backup: attempts up to this number may have been used meanwhile
    "given_up",  # an operator ends the decision's work on the account: who, why; written with the command's tick
    "locked",  # a lock was written
    "charged",  # the fees of an order, if only its fills report them; queried when closing is over
    "finished",  # the decision's work has ended: flat, residual, blocked or abandoned
]


class JournalEntry(Struct, frozen=True, omit_defaults=True):
    """One row of the journal as stored; `killswitch.journal` decodes it.

    `kind` is a `JournalKind`, or one that a later version has written. `sequence` is 0 until the store assigns one.
    `unreadable`: the stored text, if it is not a mapping of text to text.
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
    """The serialised state of one policy on one scope: stage machine, triggers, units, accumulators."""

    policy: str
    scope: str
    blob: bytes


class HistoryRow(Struct, frozen=True):
    """One row of signal history of one policy on one scope; `blob` is opaque to the store."""

    policy: str
    scope: str
    at: int
    blob: bytes


SAMPLES = "#prices"
"""The end of the `scope` of history rows that are samples of prices. They are kept for longer than other rows."""


class HistoryTrim(Struct, frozen=True):
    """Rows from `since` on and before `before` (microseconds) that may be deleted unless they are samples of
    prices."""

    since: int
    before: int


ALERTS = "alerts"
"""The live blob with the state of the alerts (`killswitch.engine.alerts`)."""
LOCKED_BOOKS = "locked_books"
"""The live blob with the books of locked accounts (`killswitch.planning.lock_breach`)."""
FLAGS = "flags"
"""The live blob with the flags that operators have set (`killswitch.model.flags`)."""
HEARTBEAT = "heartbeat/"
"""How the names of the live blobs begin that other processes write: one for each heartbeat (`runner.tick_inputs`)."""
OWN_QUANTITIES = "own_quantities"
"""The live blob with what each strategy holds of shared positions (`killswitch.valuation.own_quantities`)."""
HEARTBEAT_DATES = "dated_heartbeats"
"""The live blob with the ticks that date heartbeats of clocks that were ahead (`runner.tick_inputs`)."""
REALISED = "realised"
"""The live blob with what the fills of each account made (`killswitch.planning.realised_gains`)."""
ROUTING = "routing"
"""The live blob with what receivers were sent, groups, and open pages (`killswitch.planning.routing.state`)."""
BREACH_ANSWERS = "breach_answers"
"""The live blob with the answers to breaches of locks (`killswitch.planning.breach_answers`)."""

RUNNER_VIEW = "runner"
"""The live blob with what `ksctl status` shows of the last tick (`killswitch.runner.status_blob`)."""
LIVE_DRILLS = "live_drills"
"""The live blob with the live drills on record, and the approvals that they have spent (`operations.drills`)."""
RETAINED = "retained"
"""The live blob with the time of the last retention (`killswitch.audit.retention_clock`)."""
EPOCH = "epoch"
"""The live blob with the id of the chain that a restore has begun: a part of client order ids (`killswitch.audit`)."""
RECOVERY = "recovery"
"""The live blob with the ways back after resets (`killswitch.planning.recovery`)."""
HAND_CLOSES = "hand_closes"
"""The live blob with the accounts that active closes by hand are no longer about (`killswitch.planning.operator`)."""
ENTRY_SWEEPS = "entry_sweeps"
"""The live blob with the locks from before which nothing can arrive any more (`killswitch.planning.entry_sweeps`)."""


class TickRecord(Struct, frozen=True):
    """The changes of one tick, written in one transaction or not at all."""

    as_of: Instant
    policy_set: str
    states: tuple[MachineState, ...]
    rows: tuple[HistoryRow, ...]
    decisions: tuple[Decision, ...]
    notices: tuple[Notice, ...]
    journal: tuple[JournalEntry, ...]
    snapshot: bytes | None
    """The encoded snapshot, stored with a decision for `explain`."""
    consumed_events: tuple[str, ...]
    prune_before: int
    """History rows older than this (microseconds) may be deleted."""
    messages: tuple[Outgoing, ...] = ()
    """Notifications of this tick; a duplicate id is stored once."""
    suppressed: tuple[Suppression, ...] = ()
    """Messages that a receiver is not sent, each with its reason."""
    live: Mapping[str, bytes] = {}
    """The live blobs that change with the tick: `ALERTS`, `LOCKED_BOOKS`, `FLAGS`, `OWN_QUANTITIES`, `REALISED`,
    `BREACH_ANSWERS`, `RECOVERY`, `HAND_CLOSES`, `ENTRY_SWEEPS`, `HEARTBEAT_DATES`."""
    trim: HistoryTrim | None = None
    """None where no sample is kept for longer than other rows."""
    applied: AppliedSet | None = None
    """The set that came into force with this tick; None: that of the tick before."""
    renamed: Mapping[str, str] = {}
    """Former name → name of each policy that has another one from this tick on: states and rows move at once."""
    entries: tuple[RecordEntry, ...] = ()
    """Entries of the record besides those of what this record holds."""
    refused_events: frozenset[str] = frozenset()
    """The ids of consumed events whose commands were refused."""
    incidents: Mapping[str, str] = {}
    """Decision → its incident, where that is known."""


class Outgoing(Struct, frozen=True):
    """A notification for one target. `id` is a digest of its subject and the target."""

    id: str
    at: int
    """When its subject was decided (microseconds)."""
    route: str
    target: str
    """Kind and address of the target as written in the route; never a secret."""
    body: bytes
    alert: str = ""
    """What it is about, where that may end before it is sent."""
    is_end: bool = False
    """Whether it says that its alert is over."""
    hops: tuple[tuple[str, ...], ...] = ()
    """The targets that get it too, one group after the other, while this one and those before do not accept it."""
    hop_at: int = 0
    """When the next of them is due (microseconds); 0 without any."""


class Suppression(Struct, frozen=True, omit_defaults=True):
    """A message that a receiver was not sent, and why: by whose silence, which time or which alert."""

    at: int
    alert: str
    message: str
    node: str
    receiver: str
    why: str
    by: str = ""


DeliveryState = Literal["pending", "delivered", "given_up"]


class Delivery(Struct, frozen=True):
    """A notification and its delivery state. `attempts` includes one in progress."""

    message: Outgoing
    state: DeliveryState = "pending"
    attempts: int = 0
    error: str | None = None
    """Why the last attempt failed, or why delivery was given up; secrets are redacted."""
    ended_at: int | None = None
    """When it was delivered or given up (microseconds)."""
    due_at: int = 0
    """When it is to be tried next (microseconds); 0 for immediately."""
    is_refused: bool = False
    """Whether its target refused it and accepted others: those pass it until it is due."""
    batch: str | None = None
    """The id of the one message that it is sent in with others that waited; None: it is sent alone."""
    others: tuple[Outgoing, ...] = ()
    """The others of its batch, in their order."""
    ended_before: int | None = None
    """When its alert ended, where that is still to be sent to the same target (microseconds)."""


MOST_POSTPONED: Final = MINUTE
"""One that is due later than in this time is due now: the clock was set back since."""


class PendingCount(Struct, frozen=True):
    """The pending notifications of one target, and how many of them it refuses; `why` it refuses one of those."""

    pending: int
    refused: int
    why: str | None


class RouteCount(Struct, frozen=True):
    """Delivery counts of one route and target; `error` is that of the oldest pending notification."""

    route: str
    target: str
    pending: int
    delivered: int
    given_up: int
    oldest: int | None
    """When the subject of the oldest pending notification was decided (microseconds)."""
    error: str | None


class StoredDecision(Struct, frozen=True):
    """A decision with its snapshot, if that was stored."""

    decision: Decision
    snapshot: bytes | None


class UnreadableCommand(Struct, frozen=True):
    """A stored command that this version cannot decode: its id, and why."""

    id: str
    why: str


class Commands(Struct, frozen=True):
    """The pending operator commands, in the order of arrival."""

    events: tuple[Event, ...]
    unreadable: tuple[UnreadableCommand, ...] = ()


class Lease(Struct, frozen=True):
    """The lease of a store: its owner, expiry (microseconds) and generation.

    `ttl`: the maximum time to its expiry, in microseconds; None if an older version wrote it.
    """

    owner: str
    generation: int
    expires_at: int
    ttl: int | None = None


class StoreBusyError(Exception):
    """Another live owner holds the lease; the message names the owner and the expiry."""


class StoreTroubleError(Exception):
    """A store operation failed; it wrote nothing."""


class DamagedStateError(StoreTroubleError):
    """The stored state of a policy on a scope cannot be restored; the message names both."""


class OvertakenError(StoreTroubleError):
    """Another owner holds the lease by now; the state of this process is outdated."""


class Journal(Protocol):
    """The part of a store that closing needs: the journal and stored decisions."""

    def append(self, entry: JournalEntry) -> int: ...

    def append_all(self, entries: Sequence[JournalEntry]) -> None:
        """Write all of them, in order, in one transaction or not at all."""

    def journal(self, decision: str | None = None) -> Sequence[JournalEntry]: ...

    def journal_from(self, sequence: int) -> Sequence[JournalEntry]:
        """All entries from that sequence number, of every decision."""

    def decision(self, id_prefix: str) -> StoredDecision | None:
        """The decision whose id begins with the prefix; LookupError if there are several."""

    def unfinished(self) -> Sequence[StoredDecision]:
        """Decisions with a `planned` but no `finished` journal entry, oldest first."""

    def decisions(self, limit: int) -> Sequence[StoredDecision]:
        """The newest `limit` decisions, newest first, without their snapshots."""


class EffectStore(Journal, Protocol):
    """The part of a store that the performers of effects need."""

    @property
    def in_memory_because(self) -> str | None:
        """Why records are in memory only, so that a restart would lose them; None while they are durable."""

    def put_live(self, name: str, blob: bytes) -> None:
        """Replace a small named blob that `status` reads (last tick, health)."""

    def live(self, name: str) -> bytes | None: ...


class Outbox(Protocol):
    """The part of a store that the delivery of notifications needs. Writes are fenced like ticks."""

    def claim(self, target: str, now: int, besides: Collection[str] = (), *, together: bool = False) -> Delivery | None:
        """The pending notification for `target` that is next, or None. `besides`: ids to skip.

        The attempt is counted before it is made. One that is not due has its `due_at`, and counts no attempt.
        `together`: it becomes one message with all others that wait, and stays so: a batch is sent again as it was.
        """

    def settle(
        self, message: str, at: int, error: str | None, *, due_at: int = 0, is_refused: bool = False,
        is_rejected: bool = False,
    ) -> None:  # fmt: skip
        """Record the result of an attempt: delivered, or still pending because of `error`, and when it is due next.

        `message` may be the id of a batch. `is_rejected`: the target has refused it for certain, so that its next hop
        is due, and a batch is taken apart.
        """

    def overdue(self, now: int) -> Sequence[Outgoing]:
        """Pending notifications whose next hop is due."""

    def fall_back(self, message: str, rows: Sequence[Outgoing]) -> None:
        """Add notifications for the next hop of one, which has no further hops of its own then."""

    def unreached(self, now: int) -> int:
        """The number of pending notifications whose last hop was due before `now`, and has not accepted them."""

    def suppressions(self, limit: int) -> Sequence[Suppression]:
        """The newest `limit` suppressed messages, newest first."""

    def give_up(self, target: str, before: int, at: int, reason: str) -> int:
        """Give up notifications for `target` that were decided before `before`; returns their number.

        `reason` is recorded for those without an error."""

    def waiting(self, target: str) -> PendingCount: ...

    def outbox(self) -> Sequence[RouteCount]:
        """Delivery counts by route and target."""

    def deliveries(self, limit: int) -> Sequence[Delivery]:
        """The newest `limit` notifications, newest first."""

    def forget(self, before: int) -> None:
        """Delete notifications that were delivered or given up before `before` (microseconds)."""


class Store(EffectStore, Outbox, Protocol):
    """A store: journal, state, history, operator commands, outbox and lease. Writes are durable when a call returns."""

    def states(self) -> Sequence[MachineState]: ...

    def rows(self, policy: str, scope: str, since: int) -> Sequence[HistoryRow]: ...

    def commit_tick(self, record: TickRecord) -> None: ...

    def record_trouble(self) -> str | None:
        """Why the last line of the record is not the one that was written last; None if it is."""
        ...

    def add_to_record(self, entries: Sequence[RecordEntry]) -> None:
        """Write entries of the record that belong to no other write."""

    def notices(self, limit: int) -> Sequence[Notice]: ...

    def prepare_policy_set(self, digest: str, program: str, files: tuple[PolicyFile, ...]) -> None:
        """Write the files of a set that may come into force, so that the tick that takes it writes little."""

    def set_changes(self, limit: int) -> Sequence[SetChange]:
        """The newest `limit` sets that came into force, newest first."""

    def policy_files(self, digest: str, content: str | None = None) -> tuple[PolicyFile, ...] | None:
        """The files of a policy set that was ever in force here; None if it never was. `content`: see `SetChange`."""

    def put_event(self, event: Event) -> None:
        """Store an operator command for the next tick."""

    def pending_events(self) -> Sequence[Event]: ...

    def commands(self) -> Commands:
        """The pending operator commands, and those that cannot be decoded."""

    def live_under(self, prefix: str) -> Mapping[str, bytes]:
        """The live blobs whose names begin with `prefix`, without it; with what other processes have written."""

    def leave_sign_of_life(self, blob: bytes) -> None:
        """Answer probes of this process with `blob`, without the store; does nothing where nobody can reach it."""

    def acquire(self, owner: str, now: int, ttl: int) -> Lease:
        """Acquire or renew the lease; StoreBusyError if another owner's lease has not expired."""

    def fence(self, generation: int) -> None:
        """Fence all later writes by the lease of `generation`.

        Once there is a newer lease, writes of ticks, journal entries and live blobs fail in their transaction.
        """

    def release(self, owner: str, at: int | None = None) -> None:
        """Release the lease. `at`: when its holder ends in order (microseconds); None for one that is dead."""

    def release_unrenewed(self, lease: Lease) -> None:
        """Release the lease of a dead holder, unless it has been renewed."""

    def lease(self) -> Lease | None: ...

    def close(self) -> None: ...


class EquityCurvePoint(Struct, frozen=True, gc=False):
    """A point of the equity curve: the unit value at an instant (microseconds)."""

    at: int
    value: float


class IncidentStore(Store, Protocol):
    """A store that also keeps incidents. Writes are durable when a call returns."""

    def keep_incident(self, incident: str, note: bytes, points: Sequence[EquityCurvePoint]) -> None:
        """Store the note of an incident, unless it has one, and extend its equity curve; existing points are kept."""

    def incident_note(self, incident: str) -> bytes | None: ...

    def equity_curve(self, incident: str) -> Sequence[EquityCurvePoint]:
        """The equity curve of an incident, oldest point first."""


def decoded(decode: Callable[[bytes], T], blob: bytes | None) -> T | None:
    """The record in a stored blob; None where there is none that this version can read."""
    try:
        return None if blob is None else decode(blob)
    except (DecodeError, UnicodeDecodeError):  # msgspec reports invalid UTF-8 inside a text by the latter
        return None
