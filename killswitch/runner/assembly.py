"""Assembles a runner on a store: lease, locks, account executors, interpreter, observers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from msgspec import UNSET, Struct
from msgspec.structs import replace

from killswitch.accounts.arming import (
    ArmedAccount,
    Arming,
    left_to_do,
    observed_latches,
    scopes_over,
)
from killswitch.accounts.next_set import last_good, program_version
from killswitch.accounts.opening import LoadedPolicies
from killswitch.accounts.poll.account_poller import AccountPoller
from killswitch.accounts.poll.request_meter import RequestMeter, request_meters
from killswitch.accounts.poll.shared_adapter import SharedAdapter, share_adapter
from killswitch.accounts.poll.timer_budget import TimerBudget
from killswitch.deadline import DeadlineError, call_within
from killswitch.execution.account_executor import AccountExecutor
from killswitch.execution.effects.performing import EffectPerformers, Performer, PerformerContext
from killswitch.gate.changes import LONGEST_LIFE
from killswitch.gate.lock_folder import LockFolder
from killswitch.graph.actions.kind import of_node
from killswitch.graph.actions.top_up_margin import TopUpMargin
from killswitch.graph.nodes import PolicySet
from killswitch.incident.record.checklist import StartedAs
from killswitch.incident.record.source_places import store_places
from killswitch.journal.entries import NO_CLOSING_OBSERVER, ClosingObserver
from killswitch.model.alert import NO_ALERTS, Alerts, alert_if, together
from killswitch.model.applied_set import AppliedSet, PolicyOrigin
from killswitch.model.clock import Clock
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Closing
from killswitch.model.store import Store
from killswitch.model.tracing import NO_TRACER, Incidents, Tracer
from killswitch.model.venue import Transfers
from killswitch.model.words import Severity
from killswitch.planning.interpreter import Interpreter
from killswitch.runner.account_memory import AccountMemory, restore_adapters
from killswitch.runner.clock import Timeline, leap_message
from killswitch.runner.closing_worker import ClosingWorker
from killswitch.runner.closing_workers import ClosingWorkers
from killswitch.runner.dead_man.catastrophe_stops import CatastropheStops, StopsError, require_stops
from killswitch.runner.dead_man.timer_rules import require_timers
from killswitch.runner.dead_man.timers import DeadManTimers
from killswitch.runner.fault_isolation import FaultIsolation
from killswitch.runner.hot_reload import WITHOUT_FILES, HotReload, SetOfStart, TakenSet, is_same_set
from killswitch.runner.lease import LeaseHolder
from killswitch.runner.locks.broker_suspension import BrokerSuspension
from killswitch.runner.locks.lock_lifecycle import LockLifecycle
from killswitch.runner.locks.lock_writer import LockWriter
from killswitch.runner.loop import Runner, RunnerPace
from killswitch.runner.notify.notifier import Notifier
from killswitch.runner.observer_notification import Observers, SnapshotRecorder
from killswitch.runner.observers import Observer
from killswitch.runner.order_reconciliation import CombinedClosingObserver, OrderReconciliation
from killswitch.runner.performers import (
    CapabilityError,
    ClosingPerformer,
    Effects,
    OpenCloses,
    performers,
    require_capabilities,
)
from killswitch.runner.status_blob import RunnerView, StatusPublisher, full_path, last_clock_state, last_tick, last_view
from killswitch.runner.tick_inputs import OwnOrders


class LockPaths(Struct, frozen=True):
    """Where lock files are written: a folder with one file per scope, and optionally one file for all scopes."""

    folder: Path
    union: Path | None


FOLDER_TIMEOUT = 2.0
"""Seconds that a start waits for the file system of the lock folder."""


def lease_seconds(pace: RunnerPace) -> float:
    """Seconds for which the lease outlives a runner that crashed."""
    return max(30.0, 4 * (pace.interval + pace.read_timeout))


def alive_seconds(pace: RunnerPace) -> float:
    """Seconds for which a lock file counts as alive after its last renewal."""
    return min(max(15.0, 3 * (pace.interval + pace.read_timeout)), LONGEST_LIFE / 2)


RECENT = 1_000
"""Decisions of earlier runs by which incidents go on."""
JUDGED_LIVE = ("unrouted", "unwatched")
"""The beginnings of keys of alerts that only a live run can find."""


def assemble(
    policies: PolicySet,
    accounts: Mapping[str, ArmedAccount],
    store: Store,
    clock: Clock,
    pace: RunnerPace,
    *,
    live: bool,
    locks: LockPaths,
    paths: tuple[str, ...] = (),
    store_at: str = "",
    recorder: SnapshotRecorder | None = None,
    observers: tuple[Observer, ...] = (),
    tracer: Tracer = NO_TRACER,
    closing_observer: ClosingObserver = NO_CLOSING_OBSERVER,
    incidents: Incidents | None = None,
    timers: bool = False,
    is_run: bool = False,
    is_watcher: bool = False,
    startup_notices: tuple[tuple[Severity, str], ...] = (),
    on_wait: Callable[[str], None] = lambda _: None,
    on_acquired: Callable[[], None] = lambda: None,
    of_start: SetOfStart = WITHOUT_FILES,
    is_drill: bool = False,
) -> Runner:
    """A runner that holds the lease of `store`; LeaseRefusedError if another does. `is_drill` marks its messages.

    Without an armed account no lock file is written. `store_at`: the store as named, for commands in messages.
    `timers`: whether dead-man timers are refreshed; TimerError if they cannot be. `is_run`: an effect may end the run.
    `is_watcher`: closing yields to a runner with another store. `incidents`: those that spans name. `on_wait`: called
    with why it waits, `on_acquired` once the lease is held. `of_start`: the set with its files.
    """
    _require_possible(policies, accounts, pace if timers else None)
    (venues, accounts), lease = _shared(accounts), _held_lease(store, clock, pace, on_wait, on_acquired)
    timeline, arming = Timeline(clock, last_clock_state(last_view(store))), Arming(accounts, policies)
    restore_adapters(store, accounts)
    interpreter, unfinished = Interpreter(policies, arming.names), left_to_do(store)
    watched = accounts if live and not is_watcher else {}
    reloads = _reloads(interpreter, store, watched, of_start, timeline, _left_undone(store, unfinished, arming))
    view = _first_view(lease, timeline, pace, policies, paths, live, arming, _lock_places(store, locks, arming))
    within, meters = min(pace.read_timeout, pace.stop_timeout), request_meters(accounts, timeline, pace.interval)
    budget, dead_man = _dead_man(policies, accounts, meters, store, timeline, pace, within) if timers else (None, None)
    isolation, reconciliation, own_orders = FaultIsolation(), OrderReconciliation(store), OwnOrders(last_tick(store))
    observed = CombinedClosingObserver(closing_observer, reconciliation, own_orders)
    closings = _closings(venues, meters, arming, store, timeline, unfinished, observed, yields=is_watcher)
    lock_writer = _lock_writer(arming, store, lease, timeline, pace, locks, isolation)
    suspension = BrokerSuspension(accounts, meters, store, timeline, within)
    closing = ClosingPerformer(closings, suspension, lock_writer, isolation, arming.names, pace.read_timeout)
    publisher = StatusPublisher(store, interpreter, arming.names, timeline, view)
    runner = Runner(
        reloads, store, lease, timeline,
        AccountPoller(accounts, meters, timeline, pace.interval, pace.read_timeout, budget),
        closings, _effects(closing, interpreter, arming, store, timeline, _transfers(accounts), is_run=is_run),
        Observers((publisher, AccountMemory(store, accounts), *observers),
                  Notifier(policies, store, timeline, StartedAs(full_path(store_at), is_drill=is_drill), tracer),
                  isolation, reconciliation, own_orders, _traced(tracer, incidents, store), dead_man, recorder),
        pace, judges=JUDGED_LIVE if watched else (), startup_notices=startup_notices + _leap_notices(timeline),
    )  # fmt: skip
    reloads.follow.append(partial(_follow, runner, arming, publisher, watched))
    return _keeping_stops(runner, policies, accounts if timers and arming.names else {}, meters, store, observed)


def _traced(tracer: Tracer, incidents: Incidents | None, store: Store) -> tuple[Tracer, Incidents]:
    """The tracer, and the incidents with those that earlier runs have begun, where anything names them."""
    found = Incidents() if incidents is None else incidents
    if incidents is not None or tracer is not NO_TRACER:
        found.follow(each.decision for each in reversed(store.decisions(RECENT)))
    return tracer, found


def _shared(
    accounts: Mapping[str, ArmedAccount],
) -> tuple[dict[str, tuple[SharedAdapter, SharedAdapter]], dict[str, ArmedAccount]]:
    """Two views of each adapter, for the ticks and for the executor; and the accounts with the first one."""
    venues = {name: share_adapter(account.adapter) for name, account in accounts.items()}
    return venues, {name: replace(account, adapter=venues[name][0]) for name, account in accounts.items()}


def _require_possible(policies: PolicySet, accounts: Mapping[str, ArmedAccount], pace: RunnerPace | None) -> None:
    """CapabilityError, or TimerError where timers are refreshed at a `pace`, if the accounts cannot do it."""
    require_capabilities(policies, accounts)
    require_stops(policies, accounts)
    if pace is not None:
        require_timers(policies, accounts, pace.interval, pace.read_timeout)


def _follow(
    runner: Runner,
    arming: Arming,
    publisher: StatusPublisher,
    watched: Mapping[str, ArmedAccount],
    taken: TakenSet,
) -> None:
    """Pass a set that was taken to what holds one. `watched`: the accounts of a live run, else none."""
    arming.reload(taken.loaded.policies)
    if runner.effects.lock_writer is not None:
        runner.effects.lock_writer.reload(taken.change, arming.wider())
    runner.reloads.of_set = _uncovered(taken.loaded.policies, watched) if watched else NO_ALERTS
    publisher.show_strategies(arming.strategy_scopes)
    runner.observers.reload(taken)


def _reloads(
    interpreter: Interpreter,
    store: Store,
    accounts: Mapping[str, ArmedAccount],
    of_start: SetOfStart,
    timeline: Timeline,
    left: Alerts,
) -> HotReload:
    """The set of the start, to be recorded with the first tick unless the store has it; and what a set must offer.

    `accounts`: those of a live run, else none. `left`: what earlier runs have left undone.
    """
    store_places(store, interpreter.policies)

    def capable(loaded: LoadedPolicies) -> tuple[str, ...]:
        try:
            require_capabilities(loaded.policies, accounts)
            require_stops(loaded.policies, accounts)
        except (CapabilityError, StopsError) as error:
            return (str(error),)
        return ()

    of_set = _uncovered(interpreter.policies, accounts) if accounts else NO_ALERTS
    in_force = of_start.in_force
    before = None if in_force is None else last_good(store)
    is_new = in_force is not None and (before is None or not is_same_set(before, in_force))
    if in_force is None:
        origin = PolicyOrigin(source="")
        digest = interpreter.policies.digest
        in_force = AppliedSet(digest=digest, at=timeline.now(), program=program_version(), origin=origin)
    elif before is not None and not is_new:
        in_force = before
    reloads = HotReload(interpreter, store, in_force, (capable, *of_start.checks), is_new=is_new, of_set=of_set)
    reloads.of_start = left
    return reloads


def _dead_man(
    policies: PolicySet,
    accounts: Mapping[str, ArmedAccount],
    meters: Mapping[str, RequestMeter],
    store: Store,
    timeline: Timeline,
    pace: RunnerPace,
    within: float,
) -> tuple[TimerBudget, DeadManTimers]:
    """The venues' timers, and the requests that refreshing them takes. `within`: for one request (seconds)."""
    budget = TimerBudget(accounts, pace.interval, pace.interval + pace.read_timeout)
    return budget, DeadManTimers(policies, accounts, meters, store, timeline, within, budget)


def _keeping_stops(
    runner: Runner,
    policies: PolicySet,
    accounts: Mapping[str, ArmedAccount],
    meters: Mapping[str, RequestMeter],
    store: Store,
    observed: ClosingObserver,
) -> Runner:
    """The runner, which keeps the catastrophe stops of `accounts`: a reload may add their documents."""
    if accounts:
        dated, closings = runner.poller.dated, runner.workers
        stops = CatastropheStops(policies, accounts, meters, store, runner.clock, closings, dated, observed.wrote)
        runner.observers.add(stops)
    return runner


def _leap_notices(timeline: Timeline) -> tuple[tuple[Severity, str], ...]:
    """A page if the clock has leapt since the last run."""
    leap = leap_message(timeline.leap)
    return () if leap is None else (("page", leap),)


def _uncovered(policies: PolicySet, accounts: Mapping[str, ArmedAccount]) -> Alerts:
    """What a set leaves unnotified or unwatched in a live run, for as long as it is in force."""
    return _unrouted(policies) + _unwatched(policies, accounts)


def _effects(
    closing: ClosingPerformer,
    interpreter: Interpreter,
    arming: Arming,
    store: Store,
    clock: Clock,
    transfers: Mapping[str, Transfers],
    *,
    is_run: bool,
) -> Effects:
    open_closes = OpenCloses(closing.closings, closing.suspension, interpreter, arming)
    context = PerformerContext(store, clock, arming.acts_on, open_closes, is_run=is_run, transfers=transfers)
    performing = EffectPerformers(performers(closing.lock_writer or Performer(), closing, context))
    return Effects(performing, arming, closing.lock_writer, closing.suspension)


def _transfers(accounts: Mapping[str, ArmedAccount]) -> dict[str, Transfers]:
    """The armed accounts that can move money to others."""
    offered = ((name, it.adapter.transfers) for name, it in accounts.items() if it.armed)
    return {name: transfers for name, transfers in offered if transfers is not None}


def _held_lease(
    store: Store, clock: Clock, pace: RunnerPace, on_wait: Callable[[str], None], on_acquired: Callable[[], None]
) -> LeaseHolder:
    lease = LeaseHolder(store, clock, lease_seconds(pace), on_wait=on_wait)
    lease.acquire()
    on_acquired()
    return lease


def _first_view(
    lease: LeaseHolder,
    timeline: Timeline,
    pace: RunnerPace,
    policies: PolicySet,
    paths: tuple[str, ...],
    live: bool,
    arming: Arming,
    places: tuple[str | None, str | None],
) -> RunnerView:
    """The status of the run itself; the publisher adds the results of each tick."""
    now = timeline.now()
    return RunnerView(
        owner=lease.owner, started_at=now, as_of=now, ticks=0, duration_ms=0.0, interval=pace.interval, live=live,
        policies=paths, policy_set=policies.digest, lock_folder=places[0], union=places[1], accounts=(), machines=(),
        closings=(), problems=(), strategies=tuple(sorted(arming.strategy_scopes)) or UNSET,
        limits=policies.limits or UNSET,
    )  # fmt: skip


def _lock_places(store: Store, locks: LockPaths, arming: Arming) -> tuple[str | None, str | None]:
    """The lock folder and the union file; an unarmed run writes none and shows those of the last armed run."""
    last = None if arming.names else last_view(store)
    if last is not None and last.lock_folder is not None:
        return last.lock_folder, last.union
    if not arming.names and not _is_there(locks.folder):
        return None, None
    return str(locks.folder.absolute()), None if locks.union is None else str(locks.union.absolute())


def _lock_writer(
    arming: Arming,
    store: Store,
    lease: LeaseHolder,
    timeline: Timeline,
    pace: RunnerPace,
    locks: LockPaths,
    isolation: FaultIsolation,
) -> LockWriter | None:
    if not arming.names:
        return None
    folder = LockFolder(
        locks.folder, locks.union,
        generation=lease.generation, alive_for=alive_seconds(pace), wider=arming.wider(), wall=timeline.wall,
    )  # fmt: skip
    lifecycle = LockLifecycle(store, arming, timeline.leaps)
    return LockWriter(lifecycle, folder, locks.folder, timeline, pace.lock_timeout, isolation)


def _closings(
    venues: Mapping[str, tuple[SharedAdapter, SharedAdapter]],
    meters: Mapping[str, RequestMeter],
    arming: Arming,
    store: Store,
    clock: Clock,
    unfinished: Mapping[str, tuple[Decision, ...]],
    closing_observer: ClosingObserver,
    *,
    yields: bool,
) -> ClosingWorkers:
    workers = {}
    for name in sorted(arming.names):
        closes = [decision for decision in unfinished.get(name, ()) if not decision.is_suspicion]
        leftover = tuple(Closing(decision.id, "closing", scope=decision.scope) for decision in closes)
        meter = meters[name]
        executor = AccountExecutor(
            name, venues[name][1], store, clock,
            observer=closing_observer, budget=meter.budget, breaker=meter.breaker, yields=yields,
        )  # fmt: skip
        workers[name] = ClosingWorker(name, executor, leftover, clock.monotonic)
    return ClosingWorkers(workers)


def _is_there(folder: Path) -> bool:
    try:
        return call_within(FOLDER_TIMEOUT, str(folder), folder.is_dir)
    except DeadlineError:
        return False  # on a dead mount; nothing is armed, so nothing is written there


def _left_undone(store: Store, unfinished: Mapping[str, tuple[Decision, ...]], arming: Arming) -> Alerts:
    """What earlier runs have decided, and nobody carries out."""
    return _unarmed_unfinished(unfinished, arming) + _latched_unacted(store, arming)


def _unarmed_unfinished(unfinished: Mapping[str, tuple[Decision, ...]], arming: Arming) -> Alerts:
    """A page for each close that an earlier run left unfinished on an account that is not armed now."""
    return together(
        alert_if(
            f"unfinished/{decision.id}/{name}",
            f"decision {decision.id} of {decision.policy} is not finished on account {name}, which is not "
            "armed: start with --live (and execution: live) to continue it",
        )
        for name in sorted(unfinished.keys() - arming.names)
        for decision in unfinished[name]
    )


def _unrouted(policies: PolicySet) -> Alerts:
    """A page about the names that stages notify, if no route is configured."""
    names = dict.fromkeys(name for graph in policies.graphs for stage in graph.stages for name in stage.notify)
    if policies.has_routes or not names:
        return NO_ALERTS
    text = f"nobody is notified of what is addressed to {', '.join(names)}: the policies have no NotificationRoute"
    return alert_if("unrouted", text)


def _unwatched(policies: PolicySet, accounts: Mapping[str, ArmedAccount]) -> Alerts:
    """A page for each armed account that no enforcing policy covers: a misspelled scope looks like a calm market.

    One that margin is moved from needs no policy of its own.
    """
    watched = {
        name
        for graph in policies.graphs
        if graph.mode == "enforce"
        for names in scopes_over(graph.scope, accounts.values()).values()
        for name in names
    } | {
        action.source
        for graph in policies.graphs
        for stage in graph.stages
        for action in of_node(stage.actions, TopUpMargin)
    }
    return together(
        alert_if(
            f"unwatched/{it.name}",
            f"account {it.name} is armed, and no enforcing policy has it in its scope: only `ksctl close` ever closes "
            "its positions",
        )
        for it in accounts.values()
        if it.armed and it.name not in watched
    )


def _latched_unacted(store: Store, arming: Arming) -> Alerts:
    return together(
        alert_if(
            f"unacted/{decision.id}",
            f"{decision.stage} of {decision.policy} on {decision.scope} is latched by decision {decision.id}, which "
            "was only observed: nothing was sent for it, and nothing is sent until the stage fires again or is reset",
        )
        for decision in observed_latches(store, arming)
    )
