"""What the runner adds to a snapshot beyond its accounts: fates of our own orders, heartbeats, operator commands.

The fate of an order (`Snapshot.own_orders`) comes from the journal. It is reported from when it becomes known until a
scheduled tick has contained it: a pass woken by a push skips the scopes whose accounts it did not poll.

Heartbeats are sent often, so that they take a light path: no event that waits for a tick, and no row for each beat, but
a small row in the store for each name. They are stored, and outlive a restart of the runner.

An operator command is a row in the store, too. It must not wait for an interval: a thread looks for new ones, and calls
a tick. A server, which never writes to the store, leaves its commands in a folder, from which they are stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING, Final

from msgspec import MsgspecError, Struct
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.deadline import NoThreadError
from killswitch.journal.codec import decode_all
from killswitch.journal.entries import Entry, Finished, Rejected
from killswitch.journal.orders import JournaledOrder, JournaledOrders, Status
from killswitch.limits.view import InFlight
from killswitch.model.alert import Alert, Alerts, alert_if, together
from killswitch.model.clock import Clock
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Instant, OrderFate, OrderSide, OwnOrder, Side
from killswitch.model.store import HEARTBEAT, HEARTBEAT_DATES, DamagedStateError, Store, decoded
from killswitch.model.venue import RejectReason
from killswitch.runner.clock import ClockState, now_after
from killswitch.runner.status_blob import LIVE_NAME, decode_last_tick, last_tick
from killswitch.store.received import NOTHING_RECEIVED, ReceivedState
from killswitch.worker import Worker

if TYPE_CHECKING:
    from killswitch.runner.observers import TickReport
    from killswitch.store.command_spool import CommandSpool
    from killswitch.store.sqlite import CommandCounter

ALREADY_FLAT: Final[RejectReason] = "already_flat"
"""The refusal that is a success: nothing is left to close."""
MOST_NAMED: Final = 3
"""Damaged files that a page names."""
MOST_PAGES: Final = 100
"""The newest pages of the server that are held against those which were notified."""
COMMANDS_EVERY: Final = 0.05
"""Seconds between two looks for a new operator command; one takes about ten microseconds."""
FORGET_EVERY: Final = 3600.0
"""Seconds between two removals of the files of old commands."""
ENDED_LATELY: Final = 20
"""Number of the newest decisions whose orders may have ended since the last tick."""

_FATES: Final[Mapping[Status, OrderFate]] = {
    "sent": "pending",
    "acknowledged": "accepted",
    "unknown": "unconfirmed",
    "set aside": "unconfirmed",
    "abandoned": "unconfirmed",
    "filled": "done",
    "rejected": "rejected",
    "absent": "done",
}


class OwnOrders:
    """A ClosingObserver that receives every durable entry. After a restart it continues from the journal."""

    def __init__(self, since: datetime | None = None) -> None:
        """`since`: the last tick of the run before, which has reported what was known then."""
        self._since = since
        self._orders: dict[tuple[str, str], JournaledOrders] = {}
        """Decision and account → its orders, until the work has ended."""
        self._open: dict[tuple[str, str], OwnOrder] = {}
        """Account and client order id → the order, while it has not ended."""
        self._ended: list[OwnOrder] = []
        """Those that have ended, until a scheduled tick has contained them."""

    def begun(self, decision: Decision, account: str, journal: Sequence[Entry]) -> None:
        """Restore what an earlier run has journaled: an order that it sent without an answer is not confirmed."""
        entries = [entry for entry in journal if entry.account == account]
        orders = self._orders[decision.id, account] = JournaledOrders(entries)
        for order in orders.newest.values():
            row = own_order(order)
            if row is None:
                continue
            if row.fate == "pending":
                row = replace(row, fate="unconfirmed")
            if row.fate in ("rejected", "done"):
                if self._since is None or row.at > self._since:
                    self._ended.append(row)
            else:
                self._open[account, row.client_order_id] = row

    def wrote(self, entry: Entry) -> None:
        """Apply a new entry of a close."""
        account = entry.account
        if account is None:
            return
        key = (entry.decision, account)
        orders = self._orders.setdefault(key, JournaledOrders())
        if isinstance(entry, Finished):
            for name in orders.newest:
                self._open.pop((account, name), None)  # an abandoned one, for which nobody waits any longer
            del self._orders[key]
            return
        order = orders.apply(entry)
        row = None if order is None else own_order(order)
        if row is None:
            return
        if row.fate in ("rejected", "done"):
            self._open.pop((account, row.client_order_id), None)
            self._ended.append(row)
        else:
            self._open[account, row.client_order_id] = row

    def in_flight(self, account: str) -> tuple[InFlight, ...]:
        """Our orders in the account that may still fill, each at worst."""
        return tuple(
            order_in_flight(order)
            for (_, name), orders in self._orders.items()
            if name == account
            for order in orders.newest.values()
            if not order.is_final and order.first.symbol is not None
        )

    def rows(self, as_of: datetime, *, scheduled: bool) -> tuple[OwnOrder, ...]:
        """The rows of the snapshot of `as_of`: fates that became known, then unfinished orders."""
        ended = self._ended
        if scheduled:
            self._ended = []
        waiting = (replace(row, at=as_of) if row.fate != "accepted" else row for row in self._open.values())
        return (*ended, *waiting)


def order_in_flight(order: JournaledOrder) -> InFlight:
    """An unfinished order of ours. One that reduces its position carries what bounds it, where the venue has that."""
    side: OrderSide = "buy" if order.side == "buy" else "sell"
    position: Side = "short" if order.first.position_side == "short" else "long"
    reduces = (side == "sell") == (position == "long")
    contracts = order.largest_sent if order.is_measured and order.side is not None else None
    return InFlight(order.name, order.first.symbol or "", side, contracts, reduces, position)


def own_orders_in(store: Store, as_of: datetime, *, is_alive: bool) -> tuple[OwnOrder, ...]:
    """The rows of a snapshot of `as_of` by the journal alone: those that the next tick on the store would have.

    `is_alive`: whether a runner ticks on the store; without one, nobody waits for an answer, and an order that has none
    is not confirmed. Fates of before the last tick are in the stored history; one of its very moment follows it.
    """
    since = last_tick(store)
    newest = [*store.unfinished(), *store.decisions(ENDED_LATELY)]
    found = OwnOrders()
    for decision in dict.fromkeys(stored.decision.id for stored in newest):
        for entry in decode_all(store.journal(decision)):
            found.wrote(entry)
    rows = found.rows(as_of, scheduled=True)
    kept = (row for row in rows if row.fate not in ("rejected", "done") or since is None or row.at >= since)
    return tuple(replace(row, fate="unconfirmed") if row.fate == "pending" and not is_alive else row for row in kept)


def own_order(order: JournaledOrder) -> OwnOrder | None:
    """The row of an order; None for one of a row without account, symbol or client order id."""
    first, answer = order.first, order.answer
    if first.account is None or first.symbol is None or not order.name:
        return None
    fate, reason = _FATES[order.status], None
    if isinstance(answer, Rejected):
        reason = answer.text or answer.reason
        if answer.reason == ALREADY_FLAT:
            fate = "done"
    return OwnOrder(order.name, first.account, first.symbol, fate, order.sent_at, order.at, reason)


class Heartbeat(Struct, frozen=True, omit_defaults=True):
    """The last heartbeat of a name. `moved_at`: the last one that counts.

    A heartbeat that declares its `progress`, a counter of the bot's loops, counts only if that differs from the one
    before: a thread may go on beating next to a loop that hangs.
    """

    at: Instant
    moved_at: Instant
    progress: int | None = None


_ENCODER = msgjson.Encoder()
_DECODER = msgjson.Decoder(Heartbeat)


def beat(store: Store, name: str, at: datetime, progress: int | None) -> Heartbeat:
    """Store a heartbeat that was sent at `at`, as ticks are dated; returns it as it counts."""
    before = decoded(_DECODER.decode, store.live(HEARTBEAT + name))
    is_stuck = before is not None and progress is not None and before.progress == progress
    found = Heartbeat(at, before.moved_at if before is not None and is_stuck else at, progress)
    store.put_live(HEARTBEAT + name, _ENCODER.encode(found))
    return found


def tick_time_of(store: Store, clock: Clock) -> datetime:
    """Now, as the next tick on the store would be dated, from the least of the last tick that says it."""
    last = decoded(decode_last_tick, store.live(LIVE_NAME))
    return now_after(None if last is None else last.clock or ClockState(last.as_of), clock)


class FirstSeen(Struct, frozen=True):
    """A heartbeat that states a later time than the first tick that has it. `stated`: that time; `at`: the tick's."""

    stated: Instant
    at: Instant


_DATES = msgjson.Decoder(dict[str, FirstSeen])


class HeartbeatDates:
    """Dates heartbeats by the first tick that has them, where they state a later time.

    A heartbeat that was sent by a clock which was ahead would otherwise be of no age until that time is reached, and a
    bot that died meanwhile would look alive: also after a restart, so that the dates are stored with the tick.
    """

    def __init__(self, dated: Mapping[str, FirstSeen] | None = None) -> None:
        self._dated = dict(dated or {})
        self._stored: dict[str, FirstSeen] = {}

    def dated(self, heartbeats: Mapping[str, Heartbeat], as_of: datetime) -> dict[str, datetime]:
        """Name → when its last heartbeat that counts was sent, at the latest `as_of`."""
        before, self._dated = self._dated, {}
        found = {}
        for name, each in heartbeats.items():
            known = before.get(name)
            if known is None or known.stated != each.moved_at:
                known = FirstSeen(each.moved_at, as_of) if each.moved_at > as_of else None
            if known is not None:
                self._dated[name] = known
            found[name] = each.moved_at if known is None else known.at
        return found

    def changed(self) -> dict[str, bytes]:
        """The live blob with the dates; empty if they are as at the last call."""
        if self._dated == self._stored:
            return {}
        self._stored = self._dated
        return {HEARTBEAT_DATES: _ENCODER.encode(self._dated)}

    def restore(self, blob: bytes | None) -> None:
        """Restore the dates of an earlier run; DamagedStateError if they are damaged."""
        if not blob:
            return
        try:
            self._dated = self._stored = _DATES.decode(blob)
        except (MsgspecError, ValueError) as error:
            raise DamagedStateError(f"the stored dates of heartbeats cannot be read ({error})") from error


def dated_heartbeats(store: Store, as_of: datetime, received: ReceivedState = NOTHING_RECEIVED) -> dict[str, datetime]:
    """Name → from when the age of its last heartbeat counts, as the next tick on the store would have it."""
    dates = HeartbeatDates(decoded(_DATES.decode, store.live(HEARTBEAT_DATES)))
    return dates.dated(last_heartbeats(store, received), as_of)


def last_heartbeats(store: Store, received: ReceivedState = NOTHING_RECEIVED) -> dict[str, Heartbeat]:
    """Name → its last heartbeat; one that another version wrote and this one cannot read is left out.

    `received`: what a server has; of one name the later counts.
    """
    found = ((name, decoded(_DECODER.decode, blob)) for name, blob in store.live_under(HEARTBEAT).items())
    last = {name: heartbeat for name, heartbeat in sorted(found) if heartbeat is not None}
    for name, beat in sorted(received.heartbeats.items()):
        if name not in last or last[name].at < beat.at:
            last[name] = Heartbeat(beat.at, beat.moved_at, beat.progress)
    return last


class CommandWatch:
    """Calls a tick as soon as an operator command arrives, on a thread of its own.

    Without it, or while the store cannot be read, a command waits for the next scheduled tick.
    """

    def __init__(self, counter: CommandCounter, call_tick: Callable[[], None]) -> None:
        """`call_tick` is called on the thread."""
        self._counter = counter
        self._call_tick = call_tick
        self._last: int | None = None
        self._worker = Worker("operator commands", self.look)

    def start(self) -> None:
        """Begin to look; a system that refuses the thread leaves commands to the scheduled ticks."""
        with suppress(NoThreadError):
            self._worker.wake()

    def stop(self) -> None:
        """End the thread, without waiting for it."""
        self._worker.begin_stop()

    def look(self) -> float | None:
        """Call a tick if a command has arrived since the last look; returns the seconds until the next one.

        What the store had at the first look is left to the first tick.
        """
        if self._worker.is_stopping:
            self._counter.close()
            return None
        found = self._counter.newest()
        if found is not None and self._last is not None and found != self._last:
            self._call_tick()
        self._last = self._last if found is None else found
        return COMMANDS_EVERY


class SpoolIntake:
    """An observer of a run: it reports what of the folder cannot be taken."""

    def __init__(self, spool: CommandSpool, store: Store, now: Callable[[], datetime]) -> None:
        """`now`: the time as ticks are dated."""
        self._spool = spool
        self._store = store
        self._now = now
        self.call_tick: Callable[[], None] = lambda: None
        """Begins a tick at once."""
        self._unreadable: str | None = None
        self._damaged: list[str] = []
        self._expired: list[str] = []
        self._pages: list[Alert] = []
        """What is paged once: an alert that does not last is notified once for its key."""

    def take(self) -> None:
        """Store the commands that wait, and call a tick for them. Raises StoreError.

        Called once before the start of a run, so that a lock which was given while no runner lived precedes everything.
        """
        self._unreadable = None
        try:
            if not self._spool.is_waiting:
                return
            found = self._spool.take(self._store, self._now())
        except OSError as error:
            self._unreadable = f"commands of the server cannot be taken from {self._spool.folder}: {error.strerror}"
            return
        self._damaged += found.damaged
        self._pages += (Alert(each.key, "page", each.text, lasts=False) for each in found.pages)
        self._expired += (f"{each.kind} on {each.scope or 'portfolio'} by {each.author}" for each in found.expired)
        if found.failed is not None:
            self._unreadable = f"a command of the server cannot be taken from {self._spool.folder}: {found.failed}"
        if found.stored:
            self.call_tick()

    async def run(self) -> None:
        """Look until cancelled. Raises StoreError."""
        forgets_at = 0.0
        with suppress(asyncio.CancelledError):
            while True:
                self.take()
                if monotonic() >= forgets_at:
                    forgets_at = monotonic() + FORGET_EVERY
                    with suppress(OSError):
                        await asyncio.to_thread(self._spool.forget)
                await asyncio.sleep(COMMANDS_EVERY if self._unreadable is None else 1.0)

    def ticked(self, _report: TickReport) -> None:
        """Commands do not wait for the end of a tick."""

    @property
    def judges(self) -> tuple[str, ...]:
        return ("spool", "token")

    @property
    def alerts(self) -> Alerts:
        """A page for a folder that cannot be read, and for files that hold no command."""
        damaged, expired = (", ".join(each[:MOST_NAMED]) for each in (self._damaged, self._expired))
        found = {
            "unreadable": self._unreadable,
            "damaged": f"files from a server hold no command, and nothing is done about them: {damaged}",
            "expired": f"commands waited too long for a runner, and are not carried out: {expired}; give them again",
        }
        shown = {"unreadable": True, "damaged": bool(damaged), "expired": bool(expired)}
        lasting = together(alert_if(f"spool/{key}", text if shown[key] else None) for key, text in found.items())
        return Alerts((*lasting.found, *self._pages[-MOST_PAGES:]), lasting.unknown)
