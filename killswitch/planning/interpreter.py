"""Interpreter: turns snapshots into decisions. `run`, `plan`, `replay` and backtests call it.

It is pure: its results depend only on the snapshots and the stored state that it was given. A tick has two phases,
because a stage may require a second snapshot: `evaluate` returns what may fire and which accounts to poll again;
`decide` uses the second snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from killswitch.engine.state import PendingClose, level_in_force
from killswitch.engine.step import StepResult, bits, reset
from killswitch.graph.nodes import Graph, PolicySet, Stages
from killswitch.model.alert import NO_ALERTS, Alerts, together
from killswitch.model.decision import Decision, Notice
from killswitch.model.flags import Flag
from killswitch.model.instant import to_micros
from killswitch.model.magnitude import sound_instrument
from killswitch.model.snapshot import IN_PROGRESS, Event, Instrument, Snapshot
from killswitch.model.store import (
    BREACH_ANSWERS,
    ENTRY_SWEEPS,
    FLAGS,
    HAND_CLOSES,
    LOCKED_BOOKS,
    OWN_QUANTITIES,
    REALISED,
    RECOVERY,
    HistoryRow,
    HistoryTrim,
    MachineState,
)
from killswitch.model.words import ReferenceCurrency, Severity
from killswitch.planning import notices
from killswitch.planning.actions.net_exposure import ScopeExposure, present_exposure
from killswitch.planning.breach_answers import BreachAnswers
from killswitch.planning.entry_sweeps import EntrySweeps
from killswitch.planning.exposures import BookExposures, Exposures, PositionExposure, position_exposures
from killswitch.planning.firing import LevelPreview, RereadData, fire, is_still_held_back, preview_levels
from killswitch.planning.hedge.hedge_opening import HedgePlanner
from killswitch.planning.hedge.uncloseable import busy_accounts
from killswitch.planning.lock_breach import LockBreaches
from killswitch.planning.operator.closes import Orphan, applies, is_unnamed, orphans_in, reset_orphan, reset_record
from killswitch.planning.operator.commands import Hindrances, OperatorCommands, refusals
from killswitch.planning.operator.flags import OperatorFlags
from killswitch.planning.operator.pauses import begun, held_back
from killswitch.planning.operator.reset_approvals import approve_reset, is_of_step
from killswitch.planning.operator.restatement import KeptChange, kept_changes, refusal, restate
from killswitch.planning.operator.unfinished_closes import CommandInput, UnfinishedClose
from killswitch.planning.orders.hedge_nets import HedgeNet, hedge_nets
from killswitch.planning.owners import Owners
from killswitch.planning.realised_gains import RealisedGains
from killswitch.planning.recovery.recoveries import Recoveries
from killswitch.planning.reload.continuation import SetContinuation, no_rest
from killswitch.planning.reload_preview import ReloadPreview, reload_preview
from killswitch.planning.scopes.compiled_policy import ReaderOf, part_of, reader_of, view_of
from killswitch.planning.scopes.corroboration import PricesOf
from killswitch.planning.scopes.evaluator import Quiescence, RowsSince, ScopeEvaluator, notified_earlier
from killswitch.planning.scopes.evaluators import ScopeEvaluators
from killswitch.planning.scopes.money_headroom import MoneyHeadroom, money_headrooms
from killswitch.planning.scopes.prepared_reload import PreparedReload, prepared
from killswitch.planning.scopes.trigger_status import MachineStatus, has_only_young_windows, status
from killswitch.planning.suspicion import end_by_reset, suspicion, withdrawal
from killswitch.planning.targets.known_positions import KnownPositions
from killswitch.planning.targets.merge import (
    Targets,
    contracts_left,
    have_common_position,
    least,
    merge,
    ordered_on,
    targets_of,
)
from killswitch.planning.unreachable import stages_due
from killswitch.signals.signal_values import SignalColumns
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import PnlKey, ScopeView
from killswitch.valuation.snapshot_facts import BookPart, SnapshotFacts

BLOCK = 32
"""Scopes of a policy whose columns are read together: so many keep what a tick has read of them in the caches."""
ViewKey = tuple[tuple[int, ...] | None, int | None, ReferenceCurrency | None, BookPart | None]
"""What a view of a snapshot depends on: the indexes of its accounts, their maximum age, the currency, and the part of
their books."""


class Outcome(Struct, frozen=True):
    """Result of a tick: decisions, notices of what has happened, and what is wrong now.

    `paged`: the ids of the suspicions whose falls a page was about.
    """

    decisions: tuple[Decision, ...] = ()
    notices: tuple[Notice, ...] = ()
    alerts: Alerts = NO_ALERTS
    paged: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    """Ids of the operator commands that must not be carried out, whatever they would do."""


NO_OUTCOME = Outcome()

Observer = Callable[[ScopeEvaluator, StepResult], None]
"""Called after each step of a scope evaluator, with the result; it changes neither."""


class Pending(Struct, frozen=True):
    """A tick between its two phases. `reread`: accounts that a corroborating stage requires a second snapshot of."""

    snapshot: Snapshot
    now: int
    eligible: tuple[tuple[ScopeEvaluator, ScopeView, Stages], ...]
    decisions: tuple[Decision, ...]
    notices: tuple[Notice, ...]
    reread: tuple[str, ...]
    refused: frozenset[str] = frozenset()


class _Observed(Struct, frozen=True):
    """A scope that has observed a snapshot, which may be a repetition of the last one, before its machine is stepped.

    `decisions` and `notices` are those of its history and of the events.
    """

    evaluator: ScopeEvaluator
    view: ScopeView
    is_repetition: bool
    decisions: list[Decision]
    notices: list[Notice]


class Interpreter:
    """Interpreter of all policies over all scopes."""

    def __init__(
        self, policies: PolicySet, armed: Collection[str] | None = None, observer: Observer | None = None,
        reader: ReaderOf = reader_of,
    ) -> None:  # fmt: skip
        """`armed`: accounts on which orders may be sent; None is all. `observer` traces the steps of triggers.

        `reader`: what reads the signals; a scenario may give values of its own.
        """
        self._observer = observer
        self._policies = policies
        self._reader = reader
        self._armed = armed
        self._evaluators = ScopeEvaluators(policies.graphs, reader)
        self._instruments: dict[tuple[str, str], Instrument] = {}
        self._facts = SnapshotFacts(0, (), self._instruments)
        self._ended: list[MachineState] = []
        self._active: dict[str, Targets] = {}
        self._seen_events: dict[str, int] = {}
        self._commands = OperatorCommands(policies)
        self._known = KnownPositions()
        self._flags = OperatorFlags(policies)
        self._hedging = HedgePlanner(policies, armed)
        self._answers = BreachAnswers(policies)
        self._sweeps = EntrySweeps(policies)
        self._owners = Owners(policies.strategies)
        self._breaches = LockBreaches(self._answers.breach_answer)
        self._realised = RealisedGains()
        self.recoveries = Recoveries(policies)
        """The ways back after resets."""
        self._exposures = BookExposures(policies.graphs, policies.strategies)
        self._now = 0

    def restore(
        self,
        states: Iterable[MachineState],
        rows: RowsSince,
        active: Iterable[Decision] = (),
        past: Iterable[Decision] = (),
        outage: tuple[int, int] | None = None,
        live: Callable[[str], bytes | None] = lambda _: None,
    ) -> None:
        """Restore stored state; the state of a scope is used when the scope is first seen.

        `active`: decisions whose closing is unfinished; their targets count while snapshots show that they are worked
        on. `past`: the newest decisions, so that nothing is hedged and no plan applied twice. `outage`: start and end,
        in microseconds, of the time without measurements. `live`: the stored blob of a name of `live()`.
        """
        self._evaluators.restore(states, rows, outage)
        unfinished = tuple(active)
        self._active = {decision.id: targets_of([decision]) for decision in unfinished if ordered_on(decision)}
        past = tuple(past)
        self._hedging.restore((*past, *unfinished))
        self._commands.restore(past, outage, live(HAND_CLOSES))
        self._flags.restore(live(FLAGS), outage)
        self.recoveries.restore(live(RECOVERY))
        self._breaches.restore(live(LOCKED_BOOKS), (*past, *unfinished))
        self._owners.restore(live(OWN_QUANTITIES), (*past, *unfinished))
        self._realised.restore(live(REALISED))
        self._answers.restore(live(BREACH_ANSWERS))
        self._sweeps.restore(past, live(ENTRY_SWEEPS))

    @property
    def policies(self) -> PolicySet:
        """The set in force."""
        return self._policies

    def prepare(
        self, after: PolicySet, stored: Iterable[MachineState], rows: RowsSince, rest: Callable[[], None] = no_rest
    ) -> PreparedReload:
        """Prepare a reload, on another thread than that of the ticks. `stored`, `rows`: of the store, read there.

        `rest`: called between two steps of a few milliseconds, so that a tick need not share the interpreter.
        """
        return prepared(self._policies, after, self._evaluators, stored, rows, self._reader, rest)

    def preview_reload(self, change: SetContinuation, rest: Callable[[], None] = no_rest) -> ReloadPreview:
        """What a reload would do now to what is in force, and why it would be refused or has to wait."""
        present, symbols = self._evaluators.present
        return reload_preview(change, self._evaluators.scope_states(), present, symbols, self._now, rest)

    def reload_obstacles(self, change: SetContinuation) -> ReloadPreview:
        """The same of what is in force only: why a reload would be refused or has to wait, in the time of a tick."""
        present, symbols = self._evaluators.present
        active = [each for each in self._evaluators.scope_states(only_active=True) if not each.is_at_rest]
        return reload_preview(change, active, present, symbols, self._now)

    def reload(self, ready: PreparedReload) -> None:
        """Continue with the next set, between two ticks. What has fired, and what is under way, goes on (R1)."""
        if ready.continuation.before is not self._policies:
            raise ValueError("the reload was prepared for another set than the one in force")
        policies = self._policies = ready.policies
        self._ended += self._evaluators.reload(ready)
        self._commands.reload(policies)
        self._flags.reload(policies, ready.continuation.renamed)
        self._hedging.reload(policies)
        self._answers.reload(policies, ready.continuation.renamed_stages())
        self._sweeps.reload(policies)
        self._owners.reload(policies.strategies)
        self.recoveries.reload(policies, ready.continuation.renamed)
        self._exposures = BookExposures(policies.graphs, policies.strategies)

    def tick(self, snapshot: Snapshot) -> Outcome:
        """Evaluate and decide without a second snapshot, as in a replay."""
        pending = self.evaluate(snapshot)
        return self.decide(pending) if pending is not None else NO_OUTCOME

    # First phase

    def evaluate(self, snapshot: Snapshot) -> Pending | None:
        """Add the snapshot to every history and step every machine. None: nothing to decide or to notify."""
        now = self._now = to_micros(snapshot.as_of)
        self._remember_instruments(snapshot)
        closed = self._keep_active_targets(snapshot)
        events = self._new_events(snapshot) if snapshot.events else ()
        present = self._evaluators.in_snapshot(snapshot, now)
        hindrances = Hindrances(snapshot.sentinel, snapshot.unwritten)
        approved = [*self._approved_resets(events, now)] if events else []
        refused = refusals(events, self._evaluators, self.orphans(), now, hindrances) if events else {}
        events = tuple(event for event in events if event.id not in refused)
        issued = [*self._flags.observe(events, now), *approved, *refused.values()]
        facts = self._facts = self._facts.next(now, snapshot, self._flags.flags)
        facts.ownership = self._owners.observe(snapshot, now, events, self._instruments)
        self._realised.observe(snapshot, now, events)
        self._known.observe(facts, closed)
        self.recoveries.attend(self._evaluators)
        eligible: list[tuple[ScopeEvaluator, ScopeView, Stages]] = []
        decisions: list[Decision] = []
        pauses = self._flags.flags.pauses
        views: dict[ViewKey, ScopeView] = {}
        for block in _blocks(present):
            for evaluator, _ in block:
                evaluator.pause = pauses.get(evaluator.policy)
            seen = [(evaluator, _shared_view(views, evaluator, snapshot, facts, places)) for evaluator, places in block]
            if len(seen) == 1:  # with one scope of a policy nothing is gained by blocks
                stages = self._observe_and_move(*seen[0], snapshot, events, decisions, issued)
                eligible += [(*seen[0], stages)] if stages else []
                continue
            observed = self._observe_each(seen, snapshot, events)
            eligible += self._move_each(observed, decisions, issued)
        for event in events:
            if event.kind == "reset":
                of_orphans, more = self._reset_orphans(event, now)
                decisions += of_orphans
                issued += more
        if events:
            answered = {notice.subject for notice in issued}
            unanswered = (each for each in events if each.kind == "restate" and each.id not in answered)
            issued += [refusal(each, self._evaluators, now) for each in unanswered]
        issued += [self.recoveries.approve(each, now) for each in events if is_of_step(each)]
        issued += self.recoveries.observe(self._evaluators, now)
        issued += [notices.part_not_closed(now, each) for each in self._owners.not_closed(facts.ownership)]
        decisions += self._sweeps.plan(snapshot, facts)
        if events or self._commands.unfinished or snapshot.sentinel is not None:
            tick = CommandInput(snapshot, facts, self._owners, self._known, self._worked_on(), self._armed)
            self._commands.apply(events, tick).add_to(decisions, issued)
        may_hedge = self._hedging.observe(snapshot, now, self._known.last, self._instruments)
        self._answers.observe(snapshot.locks)
        is_breached = self._breaches.observe(snapshot, self._instruments, facts.ownership)
        is_breached |= self._answers.is_fighting(now)
        if not (eligible or decisions or issued or may_hedge or is_breached or self._alerts() != NO_ALERTS):
            return None
        return Pending(
            snapshot, now, tuple(eligible), tuple(decisions), tuple(issued), _reread(eligible), frozenset(refused)
        )

    def _approved_resets(self, events: Iterable[Event], now: int) -> Iterator[Notice]:
        """Count the approvals of resets before the commands that wait for them are judged."""
        for event in events:
            if event.kind == "approve" and not is_of_step(event):
                yield approve_reset(event, self._evaluators, now)

    def _observe_and_move(
        self, evaluator: ScopeEvaluator, view: ScopeView, snapshot: Snapshot, events: Iterable[Event],
        decisions: list[Decision], issued: list[Notice],
    ) -> Stages:  # fmt: skip
        """Both steps of one scope; the stages that may fire. Adds decisions and notices."""
        is_repetition = view.is_repetition_of(evaluator.history.view)
        if not is_repetition:
            changes = evaluator.observe(view, snapshot.closings)
            issued += [notices.unexplained(evaluator, self._now, change) for change in changes]
        applied, more = self._apply_events(evaluator, self._now, events)
        decisions += applied
        issued += more
        if is_repetition:
            return ()
        columns = evaluator.compiled.reader.read(evaluator.history, view)
        stages, moved, more = self._move(evaluator, view, columns)
        decisions += moved
        issued += more
        return stages

    def _observe_each(
        self, seen: Sequence[tuple[ScopeEvaluator, ScopeView]], snapshot: Snapshot, events: Iterable[Event]
    ) -> list[_Observed]:
        """Add the views to the histories of a block of scopes, and apply the events."""
        are_new = [not view.is_repetition_of(evaluator.history.view) for evaluator, view in seen]
        new = [each for each, is_new in zip(seen, are_new, strict=True) if is_new]
        changes = iter(ScopeEvaluator.observe_each(new, snapshot.closings))
        found = []
        for (evaluator, view), is_new in zip(seen, are_new, strict=True):
            issued: list[Notice] = []
            if is_new:
                issued = [notices.unexplained(evaluator, self._now, change) for change in next(changes)]
            decisions, more = self._apply_events(evaluator, self._now, events)
            found.append(_Observed(evaluator, view, not is_new, decisions, [*issued, *more]))
        return found

    def _move_each(
        self, observed: Sequence[_Observed], decisions: list[Decision], issued: list[Notice]
    ) -> Iterator[tuple[ScopeEvaluator, ScopeView, Stages]]:
        """Step the machines of a block of scopes; yield those with stages that may fire. Adds decisions and notices."""
        # a tick for another account must not complete anything here on an old snapshot
        moving = [each for each in observed if not each.is_repetition]
        reader = observed[0].evaluator.compiled.reader
        columns = iter(reader.read_each([(each.evaluator.history, each.view) for each in moving]))
        for each in observed:
            decisions += each.decisions
            issued += each.notices
            if each.is_repetition:
                continue
            stages, moved, more = self._move(each.evaluator, each.view, next(columns))
            decisions += moved
            issued += more
            if stages:
                yield each.evaluator, each.view, stages

    def _apply_events(
        self, evaluator: ScopeEvaluator, now: int, events: Iterable[Event]
    ) -> tuple[list[Decision], list[Notice]]:
        """Apply the resets and restatements of this scope; returns the records of the resets, and notices."""
        decisions: list[Decision] = []
        issued: list[Notice] = []
        for event in events:
            if event.kind == "reset" and applies(event, evaluator.scope):
                if is_unnamed(event, evaluator):
                    issued.append(notices.newer_firing(evaluator, event, now))
                    continue
                resets, of_reset = self._reset(evaluator, now, event)
                decisions += resets
                issued += of_reset
            elif event.kind == "restate":
                restated = restate(evaluator, event, now)
                issued += [] if restated is None else [restated]
        return decisions, issued

    def _move(
        self, evaluator: ScopeEvaluator, view: ScopeView, columns: SignalColumns
    ) -> tuple[Stages, list[Decision], list[Notice]]:
        """Step one machine; return the stages that may fire, decisions made without firing, and notices."""
        moved = evaluator.step(view, columns)
        if self._observer is not None:
            self._observer(evaluator, moved)
        young = _too_young(evaluator) if evaluator.state.triggers.unknown else ()
        if young:
            evaluator.restart_grace(young)
        is_unknown = bool(evaluator.state.triggers.unknown)
        evaluator.unknown = notices.unknown(evaluator, view.as_of, young, view.accounts) if is_unknown else NO_ALERTS
        issued: list[Notice] = []
        if moved.reset:
            decisions, of_reset = self._reset(evaluator, view.as_of, None)
            return (), decisions, issued + of_reset
        stages, no_longer = self._due(evaluator, view, moved.eligible)
        issued += no_longer
        evaluator.drop_not_fired([stage.name for stage in stages])
        if stages:
            known = self._known
            stages = tuple(
                s for s in stages if not is_still_held_back(evaluator, s, view, self._policies, known, self._owners)
            )
        if stages or evaluator.unfired:
            evaluator.unfired = {stage.name: evaluator.unfired.get(stage.name, ()) for stage in stages}
        if stages or not (evaluator.history.changes.all or evaluator.suspected):
            return stages, [], issued
        found: tuple[Decision | Notice | None, ...] = (withdrawal(evaluator, view, self._policies),)
        if evaluator.fires(view.as_of):
            found += (suspicion(evaluator, view, self._policies),)
        issued += [each for each in found if isinstance(each, Notice)]
        return (), [each for each in found if isinstance(each, Decision)], issued

    def _due(self, evaluator: ScopeEvaluator, view: ScopeView, eligible: Stages) -> tuple[Stages, list[Notice]]:
        """The stages to fire, with the notice of a pending close that is dropped; and what is near to firing.

        A policy that is disabled or paused goes on with what it has begun.
        """
        is_disabled = evaluator.compiled.is_disabled(view.as_of)
        evaluator.near = notices.recoveries_used_up(evaluator)
        if (evaluator.compiled.warns or evaluator.warn_share is not None) and not is_disabled:
            evaluator.near += notices.warnings(evaluator, view.as_of)
        if evaluator.fires(view.as_of):
            return stages_due(evaluator, view, eligible, eligible)
        going_on = begun(evaluator, eligible)
        evaluator.eligible = frozenset(stage.name for stage in going_on)
        due, no_longer = stages_due(evaluator, view, going_on, eligible)
        if not is_disabled:
            going = {stage.name for stage in due}
            evaluator.near += held_back(evaluator, (stage.name for stage in eligible if stage.name not in going))
        return due, no_longer

    def _remember_instruments(self, snapshot: Snapshot) -> None:
        """Remember instrument rules; a symbol's rules hold until a snapshot contains new ones."""
        for account in snapshot.accounts:
            for instrument in account.instruments or ():
                self._instruments[account.account, instrument.symbol] = sound_instrument(instrument)

    def _keep_active_targets(self, snapshot: Snapshot) -> frozenset[PnlKey]:
        """Keep the targets of decisions that the snapshot shows as being worked on.

        Returns the positions that were closed to nothing until now: a part that stays is no reason for it to be gone.
        """
        closed = frozenset(key for targets in self._active.values() for key, aim in targets.items() if not aim.target)
        if self._active:
            working = {closing.decision for closing in snapshot.closings if closing.status in IN_PROGRESS}
            self._active = {id_: targets for id_, targets in self._active.items() if id_ in working}
        return closed

    def _worked_on(self) -> frozenset[PnlKey]:
        """The positions that active closes work on."""
        return frozenset(key for targets in self._active.values() for key in targets)

    def _new_events(self, snapshot: Snapshot) -> tuple[Event, ...]:
        """Events with new ids; an id is dropped a day after it was last seen."""
        fresh = tuple(event for event in snapshot.events if event.id not in self._seen_events)
        self._seen_events = {id_: at for id_, at in self._seen_events.items() if at > self._now - 86_400_000_000}
        self._seen_events.update((event.id, self._now) for event in snapshot.events)
        return fresh

    def _reset(self, evaluator: ScopeEvaluator, now: int, event: Event | None) -> tuple[list[Decision], list[Notice]]:
        """The records of a reset by an operator, or by the stage's own condition, and its notices."""
        ended = end_by_reset(evaluator, now, self._policies, event)  # a reset also lifts a lock on suspicion
        if event is not None:  # a manual reset accepts the present accounts as the scope
            self._evaluators.accept_members(evaluator)
            evaluator.paged = None
        # The operator has not seen the changes of this very snapshot.
        accepted = event is not None and evaluator.history.accept_until(to_micros(event.at), now)
        waiting = evaluator.state.waiting
        issued = [] if waiting is None else [notices.wait_ended(evaluator, now, waiting)]
        decisions = [] if ended is None else [ended]
        if level_in_force(evaluator.state) == 0:  # the peak must stay for a fall that is about to fire
            if waiting is None:
                issued.append(notices.not_latched(evaluator, now, event, ended, accepted=accepted))
            evaluator.state = replace(evaluator.state, waiting=None)
            return decisions, issued
        decisions.append(reset_record(evaluator, now, self._policies, event))
        accepts = event is not None or evaluator.resets_accepting()
        evaluator.state = reset(evaluator.state, now, automatic=event is None)
        evaluator.ended_by_reset = ()
        evaluator.history.rebase(accept=accepts)
        return decisions, issued

    def _reset_orphans(self, event: Event, now: int) -> tuple[list[Decision], list[Notice]]:
        """Reset latches on the event's scope that no scope evaluator is responsible for; a notice if there is none."""
        found = [orphan for orphan in self.orphans() if applies(event, orphan.scope)]
        if not found and not any(applies(event, evaluator.scope) for evaluator in self._evaluators):
            return [], [notices.reset_of_nothing(now, event.scope or "portfolio")]
        decisions = []
        for orphan in found:
            stored = self._evaluators.unseen.pop((orphan.policy, orphan.scope))
            record, left = reset_orphan(orphan, stored, now, self._policies.digest, event)
            self._ended.append(left)
            decisions.append(record)
        return decisions, []

    # Second phase

    def decide(self, pending: Pending, reread: Snapshot | None = None, prices: PricesOf | None = None) -> Outcome:
        """Fire the stages that hold.

        `prices`: freshly fetched prices. `reread`: second snapshot of accounts whose prices cannot be fetched
        separately. Without either only recorded prices corroborate: missing data never vetoes a stage.
        """
        issued = list(pending.notices)
        fired: list[Decision] = []
        for evaluator, view, stages in pending.eligible:
            second = RereadData(prices or {}, None if reread is None else self._second_view(evaluator, reread))
            evaluator.is_acting = self._is_acting(evaluator, view)
            planned = (targets_of([each]) for each in fired if each.mode == "enforce")
            evaluator.under_way = contracts_left(least([*self._active.values(), *planned]))
            made, why = fire(evaluator, view, stages, second, self._policies, self._known, self._owners)
            fired += made
            for each in made:
                self._owners.plan(each)
            issued += why
        issued += self.recoveries.note_trips((evaluator for evaluator, *_ in pending.eligible), pending.now)
        answers, of_answers = self._answers.plan(self._breaches.found, pending.snapshot, self._facts, self._owners)
        self._owners.forget_planned()
        merged = merge([*pending.decisions, *fired, *answers], least(self._active.values()))
        decisions = tuple(each for each in merged if each.kind != "breach" or each.effects)
        self._share_costs(pending, fired, decisions)
        if reread is not None:  # its ledger rows are added, because an adapter may return rows only once
            for evaluator in self._evaluators:
                evaluator.history.ledger.collect(self._second_view(evaluator, reread), evaluator.history.view)
        # last, because nothing may be opened on accounts on which a close is in progress or starts with this tick
        starts = {name for decision in decisions if decision.mode == "enforce" for name in decision.accounts}
        hedges, of_hedges, alerts = self._hedging.plan(busy_accounts(pending.snapshot.closings, self._active) | starts)
        decisions, issued = (*decisions, *hedges), [*issued, *of_hedges]
        for decision in decisions:
            if ordered_on(decision) and decision.mode == "enforce":
                self._active[decision.id] = targets_of([decision])
                self._hedging.remember(decision)
                self._owners.remember(decision)
        self._breaches.acted(decisions)
        self._answers.acted(decisions)
        self._sweeps.acted(decisions)
        alerts = alerts + self._breaches.alerts(self._answers.in_fights(pending.now)) + of_answers + self._alerts()
        return Outcome(decisions, tuple(issued), alerts, self._paged(decisions), pending.refused)

    def _paged(self, decisions: Iterable[Decision]) -> frozenset[str]:
        falls = {(each.policy, each.scope): (each.id, each.fell_at) for each in decisions if each.fell_at is not None}
        scopes = (
            (evaluator, falls.get((evaluator.policy, evaluator.scope))) for evaluator in self._evaluators if falls
        )
        return frozenset(fall[0] for evaluator, fall in scopes if fall and evaluator.has_paged(to_micros(fall[1])))

    def _is_acting(self, evaluator: ScopeEvaluator, view: ScopeView) -> bool:
        """Whether the policy is enforced on an account that is armed."""
        armed = self._armed
        is_armed = armed is None or any(account.account in armed for account in view.accounts)
        return evaluator.compiled.graph.mode == "enforce" and is_armed

    def _alerts(self) -> Alerts:
        """What is wrong with the triggers and stages of every scope, which policies are paused, and which firings are
        in force without a place."""
        of_scopes = self._evaluators.orphan_alerts + together(
            evaluator.alerts
            for evaluator in self._evaluators
            if evaluator.unknown is not NO_ALERTS
            or (evaluator.near is not NO_ALERTS and evaluator.near != NO_ALERTS)
            or evaluator.unfired
            or evaluator.state.waiting
        )
        of_pauses = self._flags.alerts(self._now)
        return of_scopes if of_pauses is NO_ALERTS else of_scopes + of_pauses

    @property
    def notified_earlier(self) -> dict[str, Severity]:
        """Keys of alerts that an earlier version has notified by the restored state, with their severity."""
        states = (MachineState(policy, scope, blob) for (policy, scope), blob in self._evaluators.unseen.items())
        return {key: severity for state in states for key, severity in notified_earlier(state).items()}

    @property
    def judges(self) -> tuple[str, ...]:
        """How the keys of alerts begin that planning judges in this run."""
        return self._hedging.judges

    def restrict_orders_to(self, accounts: Collection[str]) -> None:
        """Restrict orders to these accounts from now on."""
        self._hedging.armed = self._armed = accounts

    def replace_targets(self, decision: Decision) -> None:
        """Replace the active targets of a decision that was changed after the tick; later decisions merge with them."""
        if decision.id in self._active:
            self._active[decision.id] = targets_of([decision])

    def _share_costs(self, pending: Pending, fired: list[Decision], merged: Sequence[Decision]) -> None:
        """Share the cost of a close with each scope evaluator whose orders were merged into it."""
        wanted = {decision.id: targets_of([decision]) for decision in fired}
        for evaluator, _, _ in pending.eligible:
            mine = wanted.get(evaluator.decision or "")
            for decision in merged if mine else ():
                if mine and have_common_position(mine, targets_of([decision])):
                    evaluator.share_cost(decision.id, ZERO)
            for closing in pending.snapshot.closings if mine else ():
                if mine and have_common_position(mine, self._active.get(closing.decision, {})):
                    evaluator.share_cost(closing.decision, closing.cost or ZERO)

    def _second_view(self, evaluator: ScopeEvaluator, reread: Snapshot) -> ScopeView:
        """The scope in the second snapshot."""
        facts = SnapshotFacts(
            to_micros(reread.as_of), reread.accounts, self._instruments, tick=reread, flags=self._flags.flags
        )
        graph = evaluator.compiled.graph
        part = part_of(graph.scope, evaluator.scope)
        if part is not None:  # its fills are not folded, so that what they change is unknown
            facts.ownership = self._owners.preview(reread.accounts)
        return view_of(reread, facts, self._evaluators.places(evaluator), None, graph.equity.reference, part)

    # State and status

    def states(self) -> tuple[MachineState, ...]:
        """Serialised state of every scope evaluator, to be stored with the tick's decisions."""
        ended, self._ended = self._ended, []
        return (*(MachineState(it.policy, it.scope, it.serialised()) for it in self._evaluators), *ended)

    def live(self) -> dict[str, bytes]:
        """The blobs that have changed since the last call, by name, to be stored with the tick's decisions."""
        blobs = {
            LOCKED_BOOKS: self._breaches.changed(),
            BREACH_ANSWERS: self._answers.changed(),
            FLAGS: self._flags.changed(),
            OWN_QUANTITIES: self._owners.changed(),
            REALISED: self._realised.changed(),
            RECOVERY: self.recoveries.changed(),
            HAND_CLOSES: self._commands.changed(),
            ENTRY_SWEEPS: self._sweeps.changed(),
        }
        return {name: blob for name, blob in blobs.items() if blob is not None}

    def flags(self) -> tuple[Flag, ...]:
        """The flags of operators that are in force, and the pauses of policies."""
        return self._flags.flags.in_force

    def trim(self) -> HistoryTrim | None:
        """The history rows that only samples of prices are kept of."""
        return self._evaluators.trim(self._now)

    def rows(self) -> tuple[HistoryRow, ...]:
        """History rows appended by the last tick."""
        return self._evaluators.rows(self._now)

    def keep_since(self, now: int) -> int:
        """Start of the history that is still needed (microseconds)."""
        return self._evaluators.keep_since(now)

    def orphans(self) -> tuple[Orphan, ...]:
        """Latches in stored state without a scope evaluator in this policy set."""
        return orphans_in(self._evaluators.unseen)

    def kept_changes(self) -> tuple[KeptChange, ...]:
        """The changes of equity that an operator may restate, of every scope."""
        return tuple(change for evaluator in self._evaluators for change in kept_changes(evaluator))

    def unfinished_closes(self) -> Mapping[str, UnfinishedClose]:
        """Event id → manual close that still waits for accounts; its event must not be consumed."""
        return self._commands.unfinished

    def pending_closes(self) -> tuple[tuple[Graph, str, PendingClose], ...]:
        """Policy, scope and pending close of each stage that fired while accounts could not be read."""
        return tuple(
            (evaluator.compiled.graph, evaluator.scope, waiting)
            for evaluator in self._evaluators
            if (waiting := evaluator.state.waiting) is not None
        )

    def quiescences(self) -> tuple[Quiescence, ...] | None:
        """The quiescence of every scope evaluator since the last tick; None if one of them or a close is active."""
        if self._active or self._commands.unfinished or self.recoveries.is_active:
            return None
        return self._evaluators.quiescences(self._now)

    def evaluator(self, policy: str, scope: str) -> ScopeEvaluator | None:
        """The evaluator of a policy on a scope, to be read; None before a snapshot has the scope."""
        found = (each for each in self._evaluators if (each.policy, each.scope) == (policy, scope))
        return next(found, None)

    def exposures(self) -> Exposures:
        """Exposure and P&L by account, strategy and asset, after the last tick or a little before it."""
        return self._exposures.of(self._facts, self._evaluators, self._realised)

    def levels(self) -> tuple[LevelPreview, ...]:
        """What each stage of every scope would decide if it fired on the last snapshot; changes nothing."""
        active, known = least(self._active.values()), self._known
        return tuple(
            level
            for evaluator in self._evaluators
            for level in preview_levels(evaluator, self._policies, known, self._owners, active)
        )

    def hedges(self) -> tuple[HedgeNet, ...]:
        """The net of every declared hedge in the last snapshot, and the order that would take it out."""
        facts = self._facts
        declared = {hedge.name: hedge for graph in self._policies.graphs for hedge in graph.hedges}
        reference = next((it.equity.reference for it in self._policies.graphs if it.equity.reference is not None), None)
        view = ScopeView(facts.as_of, True, facts.accounts, facts.rules, None, None, reference, around=facts)
        return hedge_nets(declared.values(), view)

    def net_exposures(self) -> tuple[ScopeExposure, ...]:
        """The exposure of each scope to the market after the last tick, where its policy declares one."""
        left = contracts_left(least(self._active.values()))
        found = []
        for evaluator in self._evaluators:
            evaluator.under_way = left
            shown = present_exposure(evaluator, self._policies)
            found += [] if shown is None else [ScopeExposure(evaluator.policy, evaluator.scope, shown)]
        return tuple(found)

    def positions(self) -> tuple[PositionExposure, ...]:
        """Every open position of the last snapshot, the largest loss first."""
        return position_exposures(self._facts)

    def headrooms(self) -> tuple[MoneyHeadroom, ...]:
        """The headroom in money of every trigger after the last tick."""
        return tuple(each for evaluator in self._evaluators for each in money_headrooms(evaluator))

    def status(self) -> tuple[MachineStatus, ...]:
        """Status of every scope evaluator after the last tick."""
        return tuple(status(evaluator) for evaluator in self._evaluators)


def _shared_view(
    views: dict[ViewKey, ScopeView],
    evaluator: ScopeEvaluator,
    snapshot: Snapshot,
    facts: SnapshotFacts,
    places: tuple[int, ...] | None,
) -> ScopeView:
    """The view of the scope, the same for all policies that evaluate equity of the same accounts in the same way."""
    rule = evaluator.compiled.graph.equity
    part = part_of(evaluator.compiled.graph.scope, evaluator.scope)
    key = (places, rule.stale_after, rule.reference, part)
    view = views.get(key)
    if view is None:
        view = views[key] = view_of(snapshot, facts, places, rule.stale_after, rule.reference, part)
    return view


def _blocks(
    present: Sequence[tuple[ScopeEvaluator, tuple[int, ...] | None]],
) -> Iterator[Sequence[tuple[ScopeEvaluator, tuple[int, ...] | None]]]:
    """The scope evaluators in their order, in blocks of one policy whose columns are read together."""
    begin = 0
    for end, (evaluator, _) in enumerate(present, 1):
        is_last = end == len(present) or present[end][0].compiled is not evaluator.compiled
        if is_last or end - begin == BLOCK:
            yield present[begin:end]
            begin = end


def _too_young(evaluator: ScopeEvaluator) -> tuple[int, ...]:
    """Unknown triggers whose windows are longer than the history, which is no failure; not with `on_unknown: warn`."""
    triggers = evaluator.compiled.graph.triggers
    unknown = [i for i in bits(evaluator.state.triggers.unknown) if triggers[i].on_unknown != "warn"]
    return tuple(i for i in unknown if has_only_young_windows(evaluator, triggers[i]))


def _reread(eligible: Iterable[tuple[ScopeEvaluator, ScopeView, Stages]]) -> tuple[str, ...]:
    views = [view for _, view, stages in eligible if any(stage.corroborate for stage in stages)]
    return tuple(dict.fromkeys(account.account for view in views for account in view.accounts))
