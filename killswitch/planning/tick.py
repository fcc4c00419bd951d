"""`tick`: a snapshot in, decisions out. What run, plan, replay and every other interpreter call.

Pure in the sense that matters: what it returns follows from the snapshots (and stored memory) that it was
given, and it reaches nothing else. It is two steps because a stage may ask to see the world once more:
`evaluate` says what may fire and which accounts should be read again; `decide` takes that second reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from killswitch.engine.step import latch, reset
from killswitch.graph.nodes import PolicySet, RankingRule, Stage
from killswitch.model.decision import Decision, Notice
from killswitch.model.instant import from_micros, to_micros
from killswitch.model.snapshot import Event, Instrument, Snapshot
from killswitch.model.store import HistoryRow, MachineState
from killswitch.planning import notices as tell
from killswitch.planning.corroboration import corroborate
from killswitch.planning.decide import Proposal, propose
from killswitch.planning.hands import RefusedHandError, applies, close_by_hand, reset_record
from killswitch.planning.merge import Targets, merge, targets_of
from killswitch.planning.prepared import Prepared, prepare
from killswitch.planning.readings import MachineStatus, status
from killswitch.planning.scopes import Identity, identity, scopes_of, view_of
from killswitch.planning.watch import Watch
from killswitch.signals.position import ZERO
from killswitch.signals.view import ScopeView

RowsSince = Callable[[str, str, int], Sequence[HistoryRow]]
"""(policy, scope, microseconds) → stored history rows from then on, oldest first."""

WORKING = ("planned", "closing")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a tick says must happen, and what people must know."""

    decisions: tuple[Decision, ...] = ()
    notices: tuple[Notice, ...] = ()


NOTHING = Outcome()


@dataclass(frozen=True, slots=True)
class Pending:
    """A tick between its halves. `reread` names the accounts that a corroborating stage wants to see again."""

    snapshot: Snapshot
    now: int
    eligible: tuple[tuple[Watch, ScopeView, tuple[Stage, ...]], ...]
    decisions: tuple[Decision, ...]
    notices: tuple[Notice, ...]
    reread: tuple[str, ...]


class Interpreter:
    """All policies over all scopes: the fold that every verb runs."""

    def __init__(self, policies: PolicySet) -> None:
        self._policies = policies
        self._prepared = [prepare(graph) for graph in policies.graphs]
        self._watches: dict[tuple[str, str], Watch] = {}
        self._members: dict[tuple[str, str], tuple[str, ...]] = {}
        self._present: list[Identity] = []
        self._instruments: dict[tuple[str, str], Instrument] = {}
        self._stored: dict[tuple[str, str], bytes] = {}
        self._rows_since: RowsSince = lambda _policy, _scope, _since: ()
        self._active: dict[str, Targets] = {}
        self._heard: dict[str, int] = {}
        self._now = 0

    def restore(self, states: Iterable[MachineState], rows: RowsSince) -> None:
        """Take up stored memory: a scope's is used when the scope is first seen."""
        self._stored = {(state.policy, state.scope): state.blob for state in states}
        self._rows_since = rows

    def tick(self, snapshot: Snapshot) -> Outcome:
        """Evaluate and decide at once, without a second reading (as a replay must)."""
        pending = self.evaluate(snapshot)
        return self.decide(pending) if pending is not None else NOTHING

    # First half

    def evaluate(self, snapshot: Snapshot) -> Pending | None:
        """Take the snapshot into every history, and move every machine. None: nothing to decide or to tell."""
        now = self._now = to_micros(snapshot.as_of)
        self._take_instruments(snapshot)
        self._take_closings(snapshot)
        events = self._new_events(snapshot) if snapshot.events else ()
        eligible: list[tuple[Watch, ScopeView, tuple[Stage, ...]]] = []
        decisions: list[Decision] = []
        told: list[Notice] = []
        for watch, names in self._watching(snapshot):
            stale_after = watch.prepared.graph.equity.stale_after
            view = view_of(snapshot, now, names, self._instruments, stale_after)
            change = watch.observe(view, snapshot.closings)
            if change is not None:
                told.append(tell.unexplained(watch, now, change))
            for event in events:
                if event.kind == "reset" and applies(event, watch.scope):
                    decisions += self._reset(watch, now, event, told)
            moved = watch.step(view)
            if moved.unknown:
                told += tell.unknown(watch, now, moved.unknown)
            if moved.reset:
                decisions += self._reset(watch, now, None, told)
            elif moved.eligible:
                eligible.append((watch, view, moved.eligible))
            elif watch.state.barren is not None and not watch.state.triggers.confirmed:
                watch.forget_barren()
        for event in events:
            if event.kind == "close":
                decisions += self._close(event, snapshot, now, told)
        if not (eligible or decisions or told):
            return None
        return Pending(snapshot, now, tuple(eligible), tuple(decisions), tuple(told), _reread(eligible))

    def _take_instruments(self, snapshot: Snapshot) -> None:
        """A symbol's rules hold until they are given again."""
        for account in snapshot.accounts:
            if account.instruments:
                for instrument in account.instruments:
                    self._instruments[account.account, instrument.symbol] = instrument

    def _take_closings(self, snapshot: Snapshot) -> None:
        """Targets stay active while the snapshot says that they are being worked on."""
        if self._active:
            working = {closing.decision for closing in snapshot.closings if closing.status in WORKING}
            self._active = {id_: targets for id_, targets in self._active.items() if id_ in working}

    def _new_events(self, snapshot: Snapshot) -> tuple[Event, ...]:
        """Events not heard before; an id is forgotten a day after it was last seen."""
        fresh = tuple(event for event in snapshot.events if event.id not in self._heard)
        self._heard = {id_: at for id_, at in self._heard.items() if at > self._now - 86_400_000_000}
        self._heard.update((event.id, self._now) for event in snapshot.events)
        return fresh

    def _watching(self, snapshot: Snapshot) -> list[tuple[Watch, tuple[str, ...]]]:
        """Every watch with the accounts of its scope; new scopes begin to be watched."""
        present = [identity(account) for account in snapshot.accounts]
        if present != self._present:
            self._present = present
            for prepared in self._prepared:
                self._meet(prepared, present)
        return [(watch, self._members[key]) for key, watch in self._watches.items()]

    def _meet(self, prepared: Prepared, present: list[Identity]) -> None:
        policy = prepared.graph.policy
        for scope, names in scopes_of(prepared.graph.scope, present).items():
            key = (policy, scope)
            known = self._members.get(key, ())
            self._members[key] = known + tuple(name for name in names if name not in known)
            if key not in self._watches:
                self._watches[key] = self._watch(prepared, scope)

    def _watch(self, prepared: Prepared, scope: str) -> Watch:
        watch = Watch(prepared, scope)
        memory = self._stored.pop((watch.policy, scope), None)
        if memory is not None:
            rows = self._rows_since(watch.policy, scope, self._now - prepared.keep)
            watch.restore(memory, [row.blob for row in rows])
        return watch

    def _reset(self, watch: Watch, now: int, event: Event | None, told: list[Notice]) -> list[Decision]:
        if watch.state.level == 0:
            told.append(tell.not_latched(watch, now))
            return []
        record = reset_record(watch, now, self._policies.digest, self._policies.commit, event)
        watch.state = reset()
        watch.history.rebase(accept=event is not None)
        return [record]

    def _close(self, event: Event, snapshot: Snapshot, now: int, told: list[Notice]) -> list[Decision]:
        try:
            return [
                close_by_hand(
                    event, snapshot, now, self._instruments, self._default_ranking(),
                    self._policies.digest, self._policies.commit,
                )
            ]  # fmt: skip
        except RefusedHandError as refused:
            told.append(
                Notice(from_micros(now), "operator", event.scope or "portfolio", "nothing_selected", "page",
                       f"the close by hand was not carried out: {refused}", event.id)
            )  # fmt: skip
            return []

    def _default_ranking(self) -> RankingRule:
        for graph in self._policies.graphs:
            for rule in graph.rankings:
                if rule.name == "default":
                    return rule
        return RankingRule("default", "normalised", (("loss", 1.0),), 0)

    # Second half

    def decide(self, pending: Pending, reread: Snapshot | None = None) -> Outcome:
        """Fire what holds. `reread` is the second reading; without one only recorded prices corroborate."""
        told = list(pending.notices)
        fired = [
            decision
            for watch, view, stages in pending.eligible
            for decision in self._fire(watch, view, stages, reread, told)
        ]
        active: Targets = {}
        for targets in self._active.values():
            for key, left in targets.items():
                active[key] = min(left, active.get(key, left))
        decisions = merge([*pending.decisions, *fired], active)
        for decision in decisions:
            if decision.intents and decision.mode == "enforce":
                self._active[decision.id] = targets_of([decision])
        return Outcome(decisions, tuple(told))

    def _fire(
        self,
        watch: Watch,
        view: ScopeView,
        stages: tuple[Stage, ...],
        reread: Snapshot | None,
        told: list[Notice],
    ) -> list[Decision]:
        """Fire the highest stage that holds and selects something; what does not is told once."""
        for stage in stages:
            doubt = self._doubt(watch, view, stage, reread) if stage.corroborate else None
            if doubt is not None:
                if watch.remember_barren(stage.name):
                    told.append(tell.uncorroborated(watch, view.as_of, stage.name, doubt))
                continue
            proposal = propose(
                watch, stage, view, self._policies.digest, self._policies.commit,
                book_unknown=view.unknown is not None,
            )  # fmt: skip
            if proposal.empty_handed:
                return self._empty_handed(watch, view, proposal, told)
            told += [tell.blocked(watch, view.as_of, why) for why in proposal.blocked]
            watch.state = latch(watch.state, stage, view.as_of, watch.unit_value())
            watch.decision, watch.cost = proposal.decision.id, ZERO
            return [proposal.decision]
        return []

    def _empty_handed(self, watch: Watch, view: ScopeView, proposal: Proposal, told: list[Notice]) -> list[Decision]:
        """Neither latch nor cool down. Where the book is unknown the lock is written all the same."""
        if not watch.remember_barren(proposal.stage.name):
            return []
        told.append(tell.nothing_selected(watch, view.as_of, proposal))
        return [proposal.decision] if view.unknown is not None and proposal.decision.lock else []

    def _doubt(self, watch: Watch, view: ScopeView, stage: Stage, reread: Snapshot | None) -> str | None:
        """Why the stage's triggers do not hold on better prices or on the second reading; None if they do."""
        seen = corroborate(view)
        if seen.failing and seen.equity is not None and not self._still(watch, view, stage, seen.equity):
            return "; ".join(seen.failing)
        again = None if reread is None else self._second_equity(watch, reread)
        if again is not None and not self._still(watch, view, stage, again):
            return f"read again, equity is {again} and no trigger of the stage is true"
        return None

    def _second_equity(self, watch: Watch, reread: Snapshot) -> Decimal | None:
        """Equity of the scope in the second reading; None where that could not be had, so the first stands."""
        names = self._members[watch.policy, watch.scope]
        view = view_of(reread, to_micros(reread.as_of), names, self._instruments, None)
        return view.equity if view.unknown is None else None

    def _still(self, watch: Watch, view: ScopeView, stage: Stage, equity: Decimal) -> bool:
        true = watch.supposed(view, equity)
        any_of = not stage.any_of or any(true >> i & 1 for i in stage.any_of)
        return any_of and all(true >> i & 1 for i in stage.all_of)

    # What is kept, and shown

    def states(self) -> tuple[MachineState, ...]:
        """The memory of every watch, to be stored with the tick's decisions."""
        return tuple(MachineState(w.policy, w.scope, w.memory()) for w in self._watches.values())

    def rows(self) -> tuple[HistoryRow, ...]:
        """The history rows that the last tick appended."""
        found = []
        for watch in self._watches.values():
            blob = watch.newest_row(self._now)
            if blob is not None:
                found.append(HistoryRow(watch.policy, watch.scope, self._now, blob))
        return tuple(found)

    def keep_since(self, now: int) -> int:
        """History rows from before this are never needed again (microseconds)."""
        return now - max((prepared.keep for prepared in self._prepared), default=0)

    def status(self) -> tuple[MachineStatus, ...]:
        """Every watch as the last tick left it."""
        return tuple(status(watch) for watch in self._watches.values())


def _reread(eligible: Iterable[tuple[Watch, ScopeView, tuple[Stage, ...]]]) -> tuple[str, ...]:
    names = [
        account.account
        for _, view, stages in eligible
        if any(stage.corroborate for stage in stages)
        for account in view.accounts
    ]
    return tuple(dict.fromkeys(names))
