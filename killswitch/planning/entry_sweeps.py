"""The cancel of entries, repeated after a lock until nothing that was allowed before it can arrive any more.

An entry that a gate allowed before a lock, or that a bot had sent, may reach the venue after the first cancel: in the
model of the gate in 20 to 23% of all runs. So the cancel is repeated on each account under the lock, up to the first
read of its orders that began after the lock was written and the longest time that an order can be on its way: how long
a verdict is valid, and the time-out of the bot's requests, as the account's `Limits` declare them. No time alone ends
it: an account that cannot be read meanwhile is waited for.

A lock whose decision cancels entries (a halt, a close by hand, a stage with `cancel_orders`, a suspicion that has
cancelled some) goes on doing so. After another one only what arrives after the lock is cancelled, and only in accounts
with `Limits`: there a gate promised that nothing opens, and what rested before was left by the author of the lock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.graph.actions.cancel_orders import CancelOrders
from killswitch.graph.actions.kind import of_node
from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision, with_effects
from killswitch.model.effects import Cancel, Cancels, Lock, of_kind
from killswitch.model.instant import from_micros
from killswitch.model.snapshot import AccountSnapshot, Order, Snapshot, WrittenLock
from killswitch.model.store import decoded
from killswitch.planning.actions.cancel_orders import cancelled_orders
from killswitch.planning.operator.closes import OPERATOR, part_of_command
from killswitch.planning.reducing import enlarged_by
from killswitch.planning.resting_orders import entry_indexes
from killswitch.planning.stage_decision import new_decision
from killswitch.render.formats import count_of
from killswitch.valuation.snapshot_facts import SnapshotFacts

UNDECLARED: Final = timedelta(seconds=32)
"""How long an order can be on its way where no `Limits` declare it: the defaults of that document, 2 s and 30 s."""
CLOCKS_DIFFER: Final = timedelta(seconds=5)
"""By how much a venue's clock, which dates reads, may be ahead of the runner's, which dates locks."""
ORDERS_AGE: Final = timedelta(seconds=20)
"""The greatest age of a list of orders whose time is not stated."""
AGAIN_AFTER: Final = timedelta(seconds=10)
"""How long an order that a cancel was decided for may still be listed before it is cancelled again."""
_ENDED: Final = msgjson.Decoder(list[tuple[str, str]])


class EntrySweeps:
    """The locks whose accounts are still swept, and the orders that were cancelled already."""

    def __init__(self, policies: PolicySet) -> None:
        self._cancelling: dict[str, bool] = {}
        """Decision of a lock → whether it cancels entries."""
        self._authors: dict[str, str | None] = {}
        """Decision of a lock by hand → who ordered it."""
        self._ended: set[tuple[str, str]] = set()
        """Decision of a lock, and account: nothing from before can arrive there any more."""
        self._stored: set[tuple[str, str]] = set()
        self._cancelled: dict[tuple[str, str], datetime] = {}
        """Account and order → when its cancel was decided last."""
        self._before: dict[str, frozenset[str]] = {}
        """Account with `Limits` → the orders that rested in the last snapshot."""
        self._rested: dict[tuple[str, str], frozenset[str]] = {}
        """Decision of a lock, and account → the orders that rested when it was written."""
        self.reload(policies)

    def reload(self, policies: PolicySet) -> None:
        """Go on by the `Limits` and stages of the next set."""
        self._policies = policies
        self._on_the_way = {
            name: timedelta(microseconds=rule.valid_for + rule.request_timeout)
            for rule in policies.limits
            for name in rule.accounts
        }
        self._cancel_entries = frozenset(
            (graph.policy, stage.name)
            for graph in policies.graphs
            for stage in graph.stages
            if any(True for _ in of_node(stage.actions, CancelOrders))
        )

    def restore(self, past: Iterable[Decision], blob: bytes | None = None) -> None:
        """Remember the locks of an earlier run, and of which of them nothing can arrive any more.

        One whose end is not known is swept until a read proves it again.
        """
        self.acted(past)
        self._ended = set(decoded(_ENDED.decode, blob) or ())
        self._stored = set(self._ended)

    def changed(self) -> bytes | None:
        """What has ended, to be stored with the tick; None if it is as at the last call."""
        if self._ended == self._stored:
            return None
        self._stored = set(self._ended)
        return msgjson.encode(sorted(self._ended))

    def acted(self, decisions: Iterable[Decision]) -> None:
        """Remember which locks cancel entries, and which orders are being cancelled."""
        for decision in decisions:
            if of_kind(decision.effects, Lock) is not None:
                self._cancelling[decision.id] = self._cancels_entries(decision)
                self._authors[decision.id] = decision.author
            if decision.mode == "enforce":
                self._cancelled |= dict.fromkeys(cancelled_orders(decision.effects), decision.as_of)

    def _cancels_entries(self, decision: Decision) -> bool:
        if decision.kind == "manual":
            return decision.command == "halt" or decision.cause is not None
        if decision.kind == "suspicion":  # it cancels what its stage would only after a loss by marks alone
            return any(True for _ in cancelled_orders(decision.effects))
        return (decision.policy, decision.stage or "") in self._cancel_entries

    def plan(self, snapshot: Snapshot, facts: SnapshotFacts) -> tuple[Decision, ...]:
        """The cancels of this tick, one decision for each lock. `facts`: those of the snapshot."""
        if not snapshot.locks and not self._on_the_way:
            return ()
        found: list[Decision] = []
        accounts = {each.account: each for each in snapshot.accounts}
        own = {(each.account, each.client_order_id) for each in snapshot.own_orders or ()}
        for lock in snapshot.locks:
            cancels: list[Cancel] = []
            for name in lock.accounts:
                account = accounts.get(name)
                if account is None or (lock.decision, name) in self._ended:
                    continue
                cancels += self._sweep(lock, account, own, facts)
            if cancels:
                found.append(self._decision(lock, cancels, facts.as_of))
        self._forget(snapshot)
        return tuple(found)

    def _sweep(
        self, lock: WrittenLock, account: AccountSnapshot, own: Collection[tuple[str, str]], facts: SnapshotFacts
    ) -> tuple[Cancel, ...]:
        """The entries of the account to cancel now; marks what a read has proved to be over."""
        key, now = (lock.decision, account.account), from_micros(facts.as_of)
        is_late_only = not self._cancelling.get(lock.decision, False)
        rested = self._rested_at_lock(key, account)
        if is_late_only and account.account not in self._on_the_way:
            self._ended.add(key)
            return ()
        longest = self._on_the_way.get(account.account, UNDECLARED) + CLOCKS_DIFFER
        read_at = orders_read_at(account, now)
        if read_at is not None and read_at > lock.since + longest:
            self._ended.add(key)
        return tuple(
            Cancel(account.account, order.symbol, order.id, "entry")
            for order in _entries_under(lock, account, facts, self._policies)
            if (not is_late_only or (rested is not None and order.id not in rested))
            and (account.account, order.client_order_id) not in own
            and self._is_due(account.account, order, now)
        )

    def _rested_at_lock(self, key: tuple[str, str], account: AccountSnapshot) -> frozenset[str] | None:
        """The orders that rested when the lock was written, by the last list before it; None while none is known."""
        if key not in self._rested:
            known = self._before.get(account.account, _ids(account))
            if known is None:
                return None
            self._rested[key] = known
        return self._rested[key]

    def _is_due(self, account: str, order: Order, now: datetime) -> bool:
        before = self._cancelled.get((account, order.id))
        return before is None or now - before >= AGAIN_AFTER

    def _decision(self, lock: WrittenLock, cancels: Sequence[Cancel], now: int) -> Decision:
        record = new_decision(self._policies, lock.policy, lock.scope, f"entries/{lock.decision}", now)
        what = count_of(len(cancels), "order")
        reason = f"{what} that can add risk arrived under the lock of {lock.decision}, and is cancelled"
        if lock.policy == OPERATOR:
            author = self._authors.get(lock.decision)
            record = replace(record, kind="manual", command="cancel", author=author, reason=reason)
        else:
            record = replace(record, kind="breach", stage=lock.stage, reason=reason)
        return with_effects(record, (Cancels(tuple(cancels)),))

    def _forget(self, snapshot: Snapshot) -> None:
        """Keep only what is about locks in force and orders that were listed lately."""
        locks, now = {each.decision for each in snapshot.locks}, snapshot.as_of
        self._ended = {key for key in self._ended if key[0] in locks}
        self._rested = {key: ids for key, ids in self._rested.items() if key[0] in locks}
        self._cancelled = {key: at for key, at in self._cancelled.items() if now - at < 2 * AGAIN_AFTER}
        for each in snapshot.accounts:
            known = _ids(each) if each.account in self._on_the_way else None
            if known is not None:
                self._before[each.account] = known


def orders_read_at(account: AccountSnapshot, now: datetime) -> datetime | None:
    """The earliest time at which the read of its orders may have begun; None if they are not known.

    Orders and positions are dated by one clock, so that their distance is known whatever that clock says.
    """
    if account.quality != "ok" or account.orders is None:
        return None
    age = ORDERS_AGE
    if account.orders_as_of is not None and account.positions_as_of is not None:
        age = max(timedelta(0), account.positions_as_of - account.orders_as_of)
    seen = now if account.observed_at is None else min(now, account.observed_at)
    return seen - age


def _entries_under(
    lock: WrittenLock, account: AccountSnapshot, facts: SnapshotFacts, policies: PolicySet
) -> Iterable[Order]:
    """The resting orders that can open or enlarge what the lock locks."""
    whole, part = facts.of(account), part_of_command(lock.scope, policies)
    seen = whole.sound if whole.positions_unusable is None else replace(whole.sound, positions=None)
    entries = entry_indexes(seen)
    if not entries:
        return ()
    of_part = None if part is None else {each.id for each in facts.part_of(account, part)[0].orders or ()}
    return [order for index, order in enumerate(seen.orders or ())
            if index in entries and (of_part is None or order.id in of_part) and _is_under(lock, order)]  # fmt: skip


def _is_under(lock: WrittenLock, order: Order) -> bool:
    opened = enlarged_by(order.symbol, order.side, order.position_side)
    return opened is None or lock.reaches(opened[1], opened[0])


def _ids(account: AccountSnapshot) -> frozenset[str] | None:
    return None if account.orders is None else frozenset(order.id for order in account.orders)
