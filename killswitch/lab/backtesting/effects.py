"""What a backtest does besides orders: transfers of margin, and the locks that keep hedges from being opened.

The performer of a live run sends transfers, once whatever the venue answers, and the paper market moves the money. It
leaves one account of the book and arrives in another, so that it is neither a profit nor a loss of the book.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from killswitch.execution.effects.performing import PerformerContext
from killswitch.execution.effects.transfer import TransferPerformer
from killswitch.graph.nodes import PolicySet
from killswitch.journal.codec import decode_all
from killswitch.journal.entries import Finished
from killswitch.lab.outcome import FiredTransfer, TransferStatus
from killswitch.model.alert import NO_ALERTS, Alerts
from killswitch.model.clock import Clock
from killswitch.model.decision import Decision
from killswitch.model.effects import Lock, Transfer, of_kind, tag_of
from killswitch.model.snapshot import Snapshot, WrittenLock
from killswitch.model.store import EffectStore, Journal, JournalEntry
from killswitch.model.venue import VenueAdapter
from killswitch.planning.scopes.compiled_policy import members_of

TAG: Final = tag_of(Transfer)
TURNS: Final = 8
"""Turns of the event loop in which a venue of this process answers a request."""


class BacktestTransfers:
    """Performs the transfers of one backtest. Accounts whose adapter moves no money refuse them, with the reason."""

    def __init__(self, venues: Mapping[str, VenueAdapter], journal: EffectStore, clock: Clock) -> None:
        """`venues`: the adapter of each account of the book."""
        offered = {name: each.transfers for name, each in venues.items() if each.transfers is not None}
        context = PerformerContext(journal, clock, _is_enforced, tuple, transfers=offered)
        self._performer = TransferPerformer(context)
        self._clock = clock
        self.is_active = False
        """Whether money has moved since the last snapshot, or may still move: then no bar may be skipped."""

    def planned(self, decision: Decision, snapshot: Snapshot) -> tuple[JournalEntry, ...]:
        """The entry about the transfer of a decision that is carried out."""
        return self._performer.planned(decision, snapshot) if _is_enforced(decision) else ()

    async def perform(self, decisions: Sequence[Decision], snapshot: Snapshot) -> Alerts:
        """Send what the decisions move, and continue with requests that have no answer yet, at the clock's time.

        Returns what has become of requests that were not made, or may not have been.
        """
        moving = [each for each in decisions if _is_enforced(each) and of_kind(each.effects, Transfer) is not None]
        self.is_active = bool(moving or self._performer.pending)
        if not self.is_active:
            return NO_ALERTS
        alerts = await self._performer.perform(moving, snapshot)
        for _ in range(TURNS):
            if not self._performer.pending:
                break
            await self._clock.sleep(0)
            alerts += await self._performer.perform((), snapshot)
        return alerts

    async def abandon(self) -> None:
        """Cancel requests without an answer at the end of the backtest."""
        await self._performer.abandon()


def fired_transfer(decision: Decision, journal: Journal) -> FiredTransfer | None:
    """The transfer of a decision that is carried out, and what has become of it; None if it moves nothing."""
    effect = of_kind(decision.effects, Transfer)
    if effect is None:
        return None
    ends = (it for it in decode_all(journal.journal(decision.id)) if isinstance(it, Finished) and it.effect == TAG)
    status: TransferStatus = "planned"
    for end in ends:
        status = _STATUSES.get(end.status or "", "unknown")
    return FiredTransfer(effect.source, effect.account, effect.currency, effect.amount, status)


_STATUSES: Final[Mapping[str, TransferStatus]] = {
    "sent": "unknown", "unknown": "unknown", "moved": "moved", "refused": "refused", "unverified": "refused",
    "expired": "refused",
}  # fmt: skip
"""Status in the journal → that of a firing: what was sent and never answered is unknown."""


class BacktestLocks:
    """The locks in force that forbid every order, as snapshots of a run have them.

    A milder lock stops bots, which a book does not have, and none of our own orders.
    """

    def __init__(self, policies: PolicySet) -> None:
        self._rules = {graph.policy: graph.scope for graph in policies.graphs}
        self._locks: dict[str, WrittenLock] = {}
        self._ends: dict[str, datetime | None] = {}
        """Decision → when its lock ends; None: when it is lifted."""

    def change(self, decisions: Iterable[Decision], snapshot: Snapshot) -> None:
        """Write the locks of decisions on this snapshot, and lift those of stages that are reset."""
        for decision in decisions:
            lock = of_kind(decision.effects, Lock)
            if decision.kind == "reset" or decision.is_withdrawal:
                self._locks = {id_: each for id_, each in self._locks.items() if not _is_ended(each, decision)}
            elif lock is not None and lock.order.mode == "all" and _is_enforced(decision):
                self._locks[decision.id] = WrittenLock(
                    decision.id, decision.policy, decision.scope, decision.as_of, self._accounts(decision, snapshot),
                    None if decision.is_suspicion else decision.stage, lock.order.only,
                )  # fmt: skip
                self._ends[decision.id] = lock.order.until

    def in_force(self, now: datetime) -> tuple[WrittenLock, ...]:
        """The locks that have not ended at `now`."""
        ends = {id_: self._ends[id_] for id_ in self._locks}
        self._locks = {id_: each for id_, each in self._locks.items() if (end := ends[id_]) is None or end > now}
        self._ends = ends
        return tuple(self._locks.values())

    def _accounts(self, decision: Decision, snapshot: Snapshot) -> tuple[str, ...]:
        rule = self._rules.get(decision.policy)
        names = ((it.account, it.venue, it.market, it.currency) for it in snapshot.accounts)
        return () if rule is None else tuple(sorted(members_of(rule, decision.scope, names)))


def _is_ended(lock: WrittenLock, by: Decision) -> bool:
    """Whether a reset of its policy ends the lock, or the withdrawal of a suspicion, whose lock has no stage."""
    is_reached = by.kind == "reset" or lock.stage is None
    return is_reached and (lock.policy, lock.scope) == (by.policy, by.scope)


def _is_enforced(decision: Decision) -> bool:
    return decision.mode == "enforce"
