"""The lifecycle of each decision's lock: ordered, written, superseded, lifted, expired.

A scope may be locked by several policies at once. A reset ends the locks of its own policy only, once their closes have
ended; the scope's file is opened when no lock on it is left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from msgspec.structs import replace

from killswitch.accounts.arming import REMEMBERED, Arming, left_to_do
from killswitch.gate.changes import LockChanges, LockOutcome, LockProblem, LockRequest
from killswitch.journal.codec import decode_all, encode
from killswitch.journal.entries import Entry, Finished, Locked, OrderedLock, PlannedWork, is_plan
from killswitch.model.applied_set import name_now
from killswitch.model.decision import Decision, LockOrder
from killswitch.model.instant import rfc3339
from killswitch.model.lock_parts import cover, in_accounts, in_force
from killswitch.model.snapshot import Event, LockPart, WrittenLock
from killswitch.model.store import JournalEntry, Store
from killswitch.planning.operator.closes import OPERATOR
from killswitch.runner.clock import Leap, confirmed_end

RAN_OUT = "the lock ran out before it was written"
LIFTED = "lifted"
"""The journal's status of a lifted lock, so that no restart writes it again."""
SUPERSEDED = "superseded by another lock"
"""The journal's status of a lock on suspicion where another lock is in force, or was written in its place."""


class WantedLock(LockRequest, frozen=True, kw_only=True):
    """One decision's lock: what it ordered, when, and for which policy."""

    policy: str
    ordered_at: datetime
    command: str | None = None
    author: str | None = None

    @property
    def scope(self) -> str:
        return self.order.scope

    def in_force(self, now: datetime) -> bool:
        return self.order.until is None or self.order.until > now

    def is_as_wide_as(self, other: WantedLock, now: datetime) -> bool:
        """Whether it reaches at `now` every part of the scope that `other` locks, however strictly and long."""
        ours, theirs = in_force(self.order.parts, now), other.order.parts
        widest = (LockPart("all", None, part.side, part.symbols) for part in ours)
        return cover(widest, theirs)

    def parts_in(self, now: datetime) -> tuple[LockPart, ...]:
        """The parts of its accounts that it locks at `now`; none if it locks all of them."""
        parts = in_accounts(self.scope, in_force(self.order.parts, now))
        return () if any(part.is_everything for part in parts) else parts

    def is_of_everything(self, now: datetime) -> bool:
        """Whether it forbids every order on its accounts at `now`."""
        return any(part.is_everything and part.mode == "all" for part in in_force(self.order.parts, now))


class LockLifecycle:
    """Tracks the locks that decisions order.

    `change` records the decisions, `due` returns the changes to the files, and `done` records their outcome; the files
    themselves may be written on another thread, between the two. A folder that cannot be written, or a file that a
    newer runner has written, is a problem, and due again at the next call: it must not keep positions from being
    closed. Whether this runner may act depends on the lease, which is in the store.
    """

    def __init__(self, store: Store, arming: Arming, leaps: tuple[Leap, ...] = ()) -> None:
        """`leaps`: the times that only a wall clock has measured; they shorten no lock that was in force then."""
        self._leaps = leaps
        self._store = store
        self._arming = arming
        self._armed = arming.names
        self._wanted: dict[str, WantedLock] = {}
        self._unwritten: dict[str, WantedLock] = {}
        self._known: set[str] = set()
        self._known_at_last: frozenset[str] = frozenset()
        """Every decision that ever ordered a lock here: a file with none of them is not ours to open."""
        self._since: dict[str, datetime] = {}
        """Decision → when its lock was written first."""
        self._superseded_in: dict[str, frozenset[str]] = {}
        """Decision on suspicion → the narrower scopes where another lock has superseded it for good."""
        self._reset: dict[tuple[str, str], tuple[str, ...]] = {}
        """(scope, policy) of resets → the decisions whose locks end as soon as no close of theirs is open."""
        self._to_lift: set[str] = set()
        self._by_operator: set[str] = set()
        """Scopes that an operator has reset, whatever their files contain."""
        self._open_until: Mapping[str, datetime] | None = None
        """Scope → when its file, as the last turn left it, reads as locked; None before the first turn."""
        self._to_watch = frozenset(f"account/{name}" for name in arming.names) | arming.strategy_scopes
        self._symbols: set[str] = set()
        """The scopes of symbols that a decision ever locked here: their files do not outlive their locks."""

    def reload(self, renamed: Mapping[tuple[str, str], tuple[str, str]], policies: Mapping[str, str]) -> None:
        """Continue under the next set, as `arming` draws it: a lock stays as it was ordered, whatever its policy says.

        `renamed`: former policy and stage → policy and stage; `policies`: former name of a policy → its name.
        """
        self._to_watch = frozenset(f"account/{name}" for name in self._armed) | self._arming.strategy_scopes

        def moved(wanted: WantedLock) -> WantedLock:
            former = (wanted.policy, wanted.stage or "")
            policy, stage = renamed.get(former, (policies.get(wanted.policy, wanted.policy), wanted.stage))
            return wanted if (policy, stage) == former else replace(wanted, policy=policy, stage=stage)

        self._wanted = {id_: moved(each) for id_, each in self._wanted.items()}
        self._unwritten = {id_: self._wanted.get(id_, each) for id_, each in self._unwritten.items()}
        self._reset = {(scope, policies.get(policy, policy)): ids for (scope, policy), ids in self._reset.items()}

    def planned(self, decision: Decision) -> tuple[JournalEntry, ...]:
        """The journal entry of the lock in the decision's transaction, so that a crash before writing loses nothing."""
        order = decision.lock
        if order is None or decision.is_withdrawal:
            return ()
        lock = OrderedLock(order.mode, order.scope, order.until)
        return (encode(PlannedWork(decision.id, decision.as_of, lock=lock)),)

    def remember(self, now: datetime) -> None:
        """Before the first tick, restore the locks in force, and the resets since."""
        unfinished = {stored.decision.id for stored in self._store.unfinished()}
        changes = [each for each in self._store.set_changes(REMEMBERED) if each.renamed]
        for stored in reversed(self._store.decisions(REMEMBERED)):
            decision = stored.decision
            if changes:  # a reset under its present name lifts what a policy has locked under a former one
                name = name_now(decision.policy, decision.as_of, changes)
                decision = replace(decision, policy=name)
            if decision.kind == "reset":
                self._mark_reset(decision.scope, decision.policy, decision.lifts)
            elif decision.is_withdrawal:
                self._withdraw(decision, now)
            elif decision.lock is not None and self._was_ordered(decision.id):
                wanted = self._want(decision, decision.lock)
                if (at := self._written_at(wanted)) is not None:
                    self._since[decision.id] = at  # its file is left, however long the folder takes to answer now
                if decision.id in unfinished and not wanted.in_force(now):
                    self._finish(wanted, now, RAN_OUT)
        for suspected in [each for each in self._wanted.values() if each.on_suspicion and each.in_force(now)]:
            self._supersede(suspected, suspected.ordered_at, now)  # also by a lock that has expired since

    def change(self, decisions: Iterable[Decision], now: datetime, commands: Iterable[Event] = ()) -> None:
        """Record the locks of decisions to act on, and what resets lift.

        `commands`: the operator commands of this tick. A reset by an operator lifts its scope's lock, whichever program
        wrote it, even if no policy is latched.
        """
        for event in commands:
            if event.kind == "reset" and event.scope is not None:
                self._reset_manually(event.scope, event.ids)
        for decision in decisions:
            if decision.kind == "reset":
                self._mark_reset(decision.scope, decision.policy, decision.lifts)
            elif decision.is_withdrawal:
                self._withdraw(decision, now)
            elif decision.lock is not None:
                self._want(decision, decision.lock)

    def due(self, now: datetime) -> LockChanges:
        """Every lock that must be in force at `now`, and the scopes to open.

        The files are read each time: one that another program deleted or weakened is written again before the union is
        computed.
        """
        self._end_reset(now)
        for suspected in [each for each in self._wanted.values() if each.on_suspicion]:
            self._supersede(suspected, now, now)
        self._forget_expired(now)
        if len(self._known) != len(self._known_at_last):
            self._known_at_last = frozenset(self._known)
        return LockChanges(
            requests=tuple(
                replace(each, is_new=each.decision in self._unwritten, reach=self._reach(each))
                for each in self._wanted.values()
            ),
            lift=frozenset(self._by_operator),
            lift_known=frozenset(self._to_lift),
            watch=self._to_watch,
            ordered=frozenset(self._symbols),
            known=self._known_at_last,
        )  # fmt: skip

    def _reach(self, wanted: WantedLock) -> frozenset[str] | None:
        """The narrower scopes that the lock reaches, as its policy draws them, except those where it is superseded.

        None, which means all below the scope, if the policy no longer draws the scope.
        """
        reached = self._arming.narrower(wanted.policy, wanted.scope)
        if wanted.scope.startswith(("account/", "strategy/", "symbol/")):
            return reached
        return reached - self._superseded_in.get(wanted.decision, frozenset()) if reached else None

    def done(self, outcome: LockOutcome, now: datetime) -> tuple[LockProblem, ...]:
        """Record the outcome of a turn; return its problems. Changes that are not in `outcome` stay due."""
        for decision in outcome.superseded & self._wanted.keys():
            self._drop(self._wanted[decision], now, SUPERSEDED)
        for decision in outcome.in_file & self._unwritten.keys():
            self._written(self._unwritten.pop(decision), now)
        self._to_lift -= outcome.lifted
        self._by_operator -= outcome.lifted
        self._open_until = self._open_until if outcome.open_until is None else outcome.open_until
        failed = any(not each.is_warning for each in outcome.problems)
        return outcome.problems + self.missing(now) if failed else outcome.problems

    def written(self, now: datetime) -> tuple[WrittenLock, ...]:
        """The locks in force at `now` that are in their files."""
        return tuple(
            WrittenLock(
                each.decision, each.policy, each.scope, self._since[each.decision], self._compared(each),
                None if each.on_suspicion else each.stage, each.parts_in(now), each.command, each.author,
                each.reason if each.policy == OPERATOR else None,
            )
            for each in self._wanted.values()
            if each.decision in self._since and each.in_force(now)
        )  # fmt: skip

    def _compared(self, wanted: WantedLock) -> tuple[str, ...]:
        """The accounts whose positions, or parts of them, the lock reaches."""
        is_of_part = wanted.scope.startswith(("strategy/", "symbol/"))
        names = self._arming.reached_by if is_of_part else self._arming.locked_by
        return tuple(sorted(names(wanted.policy, wanted.scope)))

    def missing(self, now: datetime) -> tuple[LockProblem, ...]:
        """A problem for each lock that is ordered and not written yet."""
        scopes = sorted({each.scope for each in self._unwritten.values()})
        texts = {scope: f"the lock of {scope} is not written yet{self._read_as(scope, now)}" for scope in scopes}
        return tuple(LockProblem(f"missing: {scope}", text) for scope, text in texts.items())

    def _read_as(self, scope: str, now: datetime) -> str:
        """What bots read meanwhile in the files that a lock of `scope` reaches: a stale file reads as locked."""
        if self._open_until is None:
            return ": bots may still trade there"
        reached = {scope, *(each for each, wider in self._arming.wider().items() if scope in wider)}
        last = max((end for each, end in self._open_until.items() if each in reached), default=now)
        if last <= now:
            return ", and its files are stale or locked already: bots that read them are locked out"
        return f": bots may still trade there until {last:%H:%M:%S}, when their files are stale, which reads as locked"

    def fully_locked(self, now: datetime) -> frozenset[str]:
        """Armed accounts under an ordered lock of mode `all`; a lock on suspicion, or of a part, suspends no broker."""
        locks = [
            each
            for each in self._wanted.values()
            if not each.on_suspicion and each.is_of_everything(now) and each.in_force(now)
        ]
        return frozenset(name for each in locks for name in self._arming.locked_by(each.policy, each.scope))

    def _want(self, decision: Decision, order: LockOrder) -> WantedLock:
        order = order.with_ends(lambda until: confirmed_end(until, decision.as_of, self._leaps))
        wanted = _wanted(decision, order)
        self._by_operator.discard(order.scope)
        if order.scope.startswith("symbol/"):
            self._symbols.add(order.scope)
        self._known.add(decision.id)
        self._wanted[decision.id] = self._unwritten[decision.id] = wanted
        return wanted

    def _reset_manually(self, scope: str, ids: Collection[str] | None) -> None:
        """Mark the scope's locks for lifting; with `ids` those that are named, and what no command can name.

        Of a policy the newest lock is named, and all its earlier ones end with it. The file is opened whatever it holds
        unless a lock is left that was not named.
        """
        there = [each for each in self._wanted.values() if each.scope == scope]
        if ids is None:
            for policy in {each.policy for each in there}:
                self._mark_reset(scope, policy)
            self._by_operator.add(scope)
            return
        newest = {each.policy: each.decision for each in there if not each.on_suspicion}
        named = {policy for policy, decision in newest.items() if decision in ids and policy != OPERATOR}
        for policy in named:
            self._mark_reset(scope, policy)
        self._mark_reset(scope, OPERATOR, ids)
        left = [
            each for each in there
            if not each.on_suspicion and each.policy not in named and each.decision not in ids
        ]  # fmt: skip
        if not left:
            self._by_operator.add(scope)

    def _mark_reset(self, scope: str, policy: str, ids: Collection[str] | None = None) -> None:
        """Mark the policy's locks so far for lifting, or those in `ids`; a lock ordered after the reset stays."""
        ordered = (
            each
            for each in self._wanted.values()
            if (each.scope, each.policy) == (scope, policy) and (ids is None or each.decision in ids)
        )
        earlier = self._reset.get((scope, policy), ())
        self._reset[scope, policy] = tuple(dict.fromkeys((*earlier, *(each.decision for each in ordered))))

    def _withdraw(self, decision: Decision, now: datetime) -> None:
        """Lift the locks on suspicion of the decision's policy on its scope."""
        for wanted in tuple(self._wanted.values()):
            if wanted.on_suspicion and (wanted.scope, wanted.policy) == (decision.scope, decision.policy):
                self._drop(wanted, now, LIFTED)
                self._to_lift.add(wanted.scope)

    def _supersede(self, suspected: WantedLock, since: datetime, now: datetime) -> None:
        """End the lock on suspicion, which never extends another one, where such a lock was in force at `since`.

        Two policies may draw one scope differently: the other lock replaces this one only where it reaches too.
        """
        ordered = (
            each
            for each in self._wanted.values()
            if each.scope == suspected.scope and not each.on_suspicion and each.is_as_wide_as(suspected, since)
        )
        others = [self._reach(each) for each in ordered if each.in_force(since)]
        if not others:
            return
        left = self._reach(suspected)
        if None not in others and (left is None or not left <= _union(others)):
            before = self._superseded_in.get(suspected.decision, frozenset())
            self._superseded_in[suspected.decision] = before | _union(others)
            return
        self._drop(suspected, now, SUPERSEDED)

    def _drop(self, wanted: WantedLock, now: datetime, status: str) -> None:
        self._wanted.pop(wanted.decision, None)
        self._unwritten.pop(wanted.decision, None)
        self._superseded_in.pop(wanted.decision, None)
        self._finish(wanted, now, status)

    def _end_reset(self, now: datetime) -> None:
        """Lift reset locks once no close of their policy on the scope is open any more."""
        if not self._reset:
            return
        closing = closing_for(self._store, self._armed)
        for (scope, policy), decisions in tuple(self._reset.items()):
            if (scope, policy) in closing:
                continue
            for decision in decisions:
                self._unwritten.pop(decision, None)
                wanted = self._wanted.pop(decision, None)
                if wanted is not None:
                    self._finish(wanted, now, LIFTED)
            self._to_lift.add(scope)
            del self._reset[scope, policy]

    def _written(self, wanted: WantedLock, now: datetime) -> None:
        earlier = self._written_at(wanted)
        self._since[wanted.decision] = earlier or now
        if earlier is not None:
            return
        decision, scope = wanted.decision, wanted.order.scope
        locked = Locked(decision, now, scope=scope, status=wanted.order.mode)
        finished = Finished(decision, now, scope=scope, status="locked")
        self._store.append_all((encode(locked), encode(finished)))  # one transaction: the first order waits for it

    def _written_at(self, wanted: WantedLock) -> datetime | None:
        """When the lock was written first; None if it was not."""
        journal = decode_all(self._store.journal(wanted.decision))
        return next((entry.at for entry in journal if isinstance(entry, Locked)), None)

    def _finish(self, wanted: WantedLock, now: datetime, status: str) -> None:
        self._store.append(encode(Finished(wanted.decision, now, scope=wanted.order.scope, status=status)))

    def _was_ordered(self, decision: str) -> bool:
        """Whether the decision planned a lock that was not lifted; a decision that was only observed planned none."""
        journal = decode_all(self._store.journal(decision))
        over = any(isinstance(entry, Finished) and entry.status in (LIFTED, SUPERSEDED) for entry in journal)
        return not over and any(_may_order_a_lock(entry) for entry in journal)

    def _forget_expired(self, now: datetime) -> None:
        """Drop expired locks, which the folder opens by itself, and finish those that were never written."""
        for wanted in self._unwritten.values():
            if not wanted.in_force(now) and self._written_at(wanted) is None:
                self._finish(wanted, now, RAN_OUT)
        self._wanted = {key: wanted for key, wanted in self._wanted.items() if wanted.in_force(now)}
        self._unwritten = {key: wanted for key, wanted in self._unwritten.items() if wanted.in_force(now)}
        self._superseded_in = {key: scopes for key, scopes in self._superseded_in.items() if key in self._wanted}
        self._since = {key: since for key, since in self._since.items() if key in self._wanted}


def _union(reaches: Iterable[frozenset[str] | None]) -> frozenset[str]:
    return frozenset(scope for reach in reaches for scope in reach or ())


def closing_for(store: Store, accounts: Collection[str]) -> frozenset[tuple[str, str]]:
    """(scope, policy) of the decisions whose closing on one of `accounts` has not ended."""
    left = left_to_do(store)
    return frozenset((each.scope, each.policy) for name in accounts for each in left.get(name, ()))


def _wanted(decision: Decision, order: LockOrder) -> WantedLock:
    triggers = ", ".join(trigger.name for trigger in decision.triggers)
    by_policy = f"{decision.policy}: {triggers}" if triggers else decision.policy
    reason = decision.reason or by_policy
    if decision.kind is None and decision.reason:
        reason = f"{by_policy}; {decision.reason}"
    if decision.is_suspicion and order.until is not None:
        reason = f"{reason}; locked until {rfc3339(order.until)} unless the cause is known before"
    return WantedLock(
        order, decision.stage, reason, decision.id, decision.is_suspicion,
        policy=decision.policy, ordered_at=decision.as_of, command=decision.command, author=decision.author,
    )  # fmt: skip


def _may_order_a_lock(entry: Entry) -> bool:
    """Whether the entry plans a lock; an undecodable plan without an account counts as one."""
    if isinstance(entry, PlannedWork):
        return entry.lock is not None
    return is_plan(entry) and entry.account is None
