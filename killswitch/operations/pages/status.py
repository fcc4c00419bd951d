"""The page of `ksctl status`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

from killswitch.accounts.next_set import NO_POLICY
from killswitch.execution.effects.performing import PendingEffect
from killswitch.model.decision import Decision
from killswitch.model.instant import from_micros
from killswitch.model.lock_parts import parts_text
from killswitch.model.snapshot import Event
from killswitch.operations.pages.status_sections import (
    account_limits,
    bot_heartbeats,
    catastrophe_stops,
    correlation_groups,
    dead_man_timers,
    exposure_table,
    manual_closes,
    manual_locks,
    operator_flags,
    paused_policies,
    push_streams,
    sets_in_shadow,
    suspended_accounts,
    switches_section,
    unexplained_changes,
    ways_back,
)
from killswitch.operations.pages.wording import (
    accounts_section,
    ago,
    command_line,
    dated_notice,
    headline,
    orphan_line,
    pending_lines,
    stage_label,
    trigger_table,
)
from killswitch.operations.policy_sources import source_facts
from killswitch.operations.status import ActiveAlert, LockView, OpenClosing, StoreStatus
from killswitch.operations.status_answer import answer
from killswitch.planning.scopes.trigger_status import MachineStatus
from killswitch.render.document import Facts, Items, Page, Section, Table, section
from killswitch.render.formats import count_of, duration_text, instant
from killswitch.runner.status_blob import RunnerView

MAX_NAMED = 4
"""Maximum remaining positions that are listed by name; the others are counted."""
LATE_FACTOR = 1.5
"""Ticks are late from this many intervals apart."""


def status_page(status: StoreStatus, store_at: str, *, is_brief: bool = False, is_wide: bool = False) -> Page:
    """The answer, what is wrong, and the closes in progress; then the rest. `is_brief`: the answer and the problems.

    `is_wide`: exposure and P&L by account, strategy and asset, too.
    """
    view, title = status.view, f"Status of {store_at}"
    drill = ("DRILL: nothing in this store is real.",) if status.is_drill else ()
    problems = tuple(section("Problems", Items((() if view is None else view.problems) + status.problems)))
    if is_brief:
        return Page(title, summary=(*drill, answer(status)), sections=problems)
    is_dated = view is not None and status.runner.liveness != "alive"
    dated = ("Accounts, stages and triggers are as of the last tick, not as of now.",) if is_dated else ()
    alerts = section("Active alerts", _items(map(_active_alert, status.active_alerts)))
    closings = _closings(status.closings, alive=status.runner.is_alive)
    facts = section("", Facts(tuple(_run_facts(status))))
    book = () if view is None or not is_wide else exposure_table(view.exposures or None)
    rest = (*_sections(status), *book, *facts)
    return Page(title, summary=(*drill, answer(status), *dated), sections=(*problems, *alerts, *closings, *rest))


def _run_facts(status: StoreStatus) -> Iterator[tuple[str, ...]]:
    runner, view = status.runner, status.view
    who = f"pid {runner.pid}, generation {runner.generation}" if runner.pid else f"{runner.owner}"
    state = {
        "alive": f"alive ({who}), lease until {instant(runner.lease_until)}",
        "unrecorded": f"alive ({who}), NOT RECORDED: {runner.why}",
        "silent": f"{'NOT TICKING' if runner.is_process_running else 'NOT RUNNING'}: {runner.why} "
        f"({who}, lease until {instant(runner.lease_until)})",
        "gone": f"not running: {runner.why}",
    }[runner.liveness]
    mode = (
        ()
        if view is None
        else (f"{'acts' if view.live else 'observes only'} (started with{'' if view.live else 'out'} --live)",)
    )
    yield "Runner", "; ".join((state, *mode))
    if view is not None:
        yield (
            "Tick",
            f"{ago(view.as_of, status.now)} ({instant(view.as_of)}), number {view.ticks} since "
            f"{instant(view.started_at)}, {view.duration_ms:.0f} ms, every {view.interval:g} s{_behind(view)}",
        )
        if view.lock_folder is not None and _are_open(status.locks):
            alive = min((each.alive_until for each in status.locks if each.alive_until is not None), default=None)
            yield "Locks", f"{len(status.locks)} open as read by bots, kept alive until {instant(alive)}"
        if view.run_end and not runner.is_alive:
            yield "Ended", f"exit code {view.run_end.exit_code}: {view.run_end.reason}"
        differing = {"changed": ": THE FILES DIFFER", "broken": ": THE FILES DO NOT COMPILE"}
        files = differing.get(status.policy_files or "", "")
        if view.policy_set == NO_POLICY:
            yield "Policy", "NO POLICY IN FORCE: latches, locks and open closes go on, and nothing new fires"
        else:
            given = "given in process" if status.source is None else f"from the source {status.source.source}"
            yield "Policy", f"{', '.join(view.policies) or given} ({view.policy_set[:19]}){files}"
        for each in view.needs_start or ():
            yield "Needs a start", each
    if status.source is not None:
        yield from source_facts(status.source)


def _sections(status: StoreStatus) -> Iterator[Section]:
    view = status.view
    if view is None:
        yield Section("", (f"Stages: unknown, {status.view_problem}",))
    else:
        yield from accounts_section(view.accounts)
        yield from _stages(view, status)
        yield from section("Latched stages without a policy", _items(map(orphan_line, view.orphans)))
        watching = [each for each in view.machines if each.triggers]
        of_one = f" of {watching[0].policy} on {watching[0].scope}" if len(watching) == 1 else ""
        yield from section(f"Triggers{of_one}", trigger_table(watching, view.accounts))
        yield from account_limits(view.limits or (), (each.account for each in view.accounts))
        yield from ways_back(view.recoveries or ())
        yield from correlation_groups(view.machines, status.now)
        yield from _locks(status.locks, view)
        yield from push_streams(view.streams, status.now)
        yield from dead_man_timers(view.timers, status.now)
        yield from suspended_accounts(view.suspended)
        yield from section("Pending effects", _items(_pending_effect(it, status) for it in view.pending_effects or ()))
    yield from catastrophe_stops(status.stops)
    yield from paused_policies(status.pauses, () if view is None else view.machines)
    yield from unexplained_changes(() if view is None else view.changes or ())
    yield from section("Suspicions", _items(map(_suspicion, status.suspicions)))
    yield from manual_locks(() if view is None else view.held or ())
    yield from manual_closes(status.by_hand)
    yield from operator_flags(status.flags)
    yield from sets_in_shadow(status.shadows)
    yield from switches_section(status.switches, status.now)
    yield from bot_heartbeats(status.heartbeats, status.now)
    yield from _notifications(status)
    yield from section("Silences", _items(each.line for each in status.silences))
    yield from section("Held messages", _items(each.line for each in status.held))
    pending = (command_line(event, status.now, _waits_for(status, event)) for event in status.pending)
    yield from section("Pending commands", _items(pending))
    shown = {each.text for each in status.active_alerts} | set(() if view is None else view.problems)
    others = (each for each in status.notices if each.text not in shown)
    yield from section("Newest notices", _items(map(dated_notice, others)))


def _active_alert(alert: ActiveAlert) -> str:
    return f"{instant(alert.since)}  {alert.severity}  {alert.text}"


def _items(lines: Iterable[str]) -> Items:
    return Items(tuple(lines))


def _behind(view: RunnerView) -> str:
    """The longest time between the last ticks, if it exceeds the interval."""
    if view.apart is None or view.apart <= LATE_FACTOR * view.interval:
        return ""
    return f"; BEHIND: up to {view.apart:.1f} s between ticks, because a tick waits for accounts that do not answer"


def _stages(view: RunnerView, status: StoreStatus) -> Iterator[Section]:
    """The stages that are not normal; JSON has all."""
    if not view.machines and status.switches:
        yield Section("", ("Stages: none, as this is the store of a watcher, which evaluates no policy",))
    elif not view.machines:
        yield Section("", ("Stages: no policy scope matches an account",))
    shown = [each for each in view.machines if each.level or each.stage or _cooldown(each, status) not in ("-", "over")]
    rows = tuple(
        (
            machine.scope, machine.policy, machine.mode, str(machine.level), stage_label(machine),
            instant(machine.fired_at), _cooldown(machine, status), machine.decision or "-",
        )
        for machine in shown
    )  # fmt: skip
    head = ("scope", "policy", "mode", "level", "stage (latched until reset)", "fired", "cooldown", "decision")
    pending = tuple(
        f"{machine.policy} on {machine.scope}: {line}"
        for machine in view.machines
        for line in pending_lines(machine, status.now)
    )
    others = len(view.machines) - len(shown)
    normal = (f"{count_of(others, 'other scope')}: normal",) if others and (shown or pending) else ()
    yield from section("Stages", Table(head, rows, expendable=(7, 2, 1, 6), ids=(7,)), Items((*normal, *pending)))


def _cooldown(machine: MachineStatus, status: StoreStatus) -> str:
    if machine.cooldown_until is None:
        return "-"
    left = machine.cooldown_until - status.now
    return f"{duration_text(left)} left" if left.total_seconds() > 0 else "over"


def _locks(locks: Sequence[LockView], view: RunnerView) -> Iterator[Section]:
    if view.lock_folder is None:
        yield Section("", ("Locks: none written, because no account is armed",))
        return
    if not locks:
        yield Section("", (f"Locks: no file in {view.lock_folder}; bots read a missing file as locked",))
    if _are_open(locks):
        return  # a line of the runner's facts
    rows = []
    for lock in locks:
        state = f"LOCKED {lock.mode}" if lock.locked else "open"
        alive = "unknown" if lock.alive_until is None else instant(lock.alive_until)
        alive += " (stale)" if lock.stale else ""
        reason = lock.reason
        if lock.only:
            only = "" if any(part.is_everything for part in lock.only) else "only "
            reason = f"{only}{parts_text(lock.only)}: {lock.reason}"
        rows.append((lock.scope or "unknown", state, _until(lock), alive, reason))
    head = ("scope", "state", "until", "kept alive until", "reason")
    yield from section(f"Locks as read by bots in {view.lock_folder}", Table(head, tuple(rows), expendable=(3,)))


def _are_open(locks: Sequence[LockView]) -> bool:
    return bool(locks) and not any(lock.locked or lock.stale for lock in locks)


def _until(lock: LockView) -> str:
    if not lock.locked:
        return "-"
    if lock.on_suspicion:
        return f"on suspicion until {instant(lock.until)}"
    if lock.until is not None:
        return instant(lock.until)
    return "it is lifted" if lock.ordered else "a runner is alive"


def _closings(closings: Sequence[OpenClosing], *, alive: bool) -> Iterator[Section]:
    rows = []
    for closing in closings:
        outcomes = Counter(order.outcome for order in closing.result.orders if order.account == closing.account)
        orders = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()) or "none sent yet"
        rows.append((closing.decision, closing.account, orders, _remaining(closing)))
    title = "Closes in progress" if alive else "Closes without a runner"
    head = ("decision", "account", "orders", "left to close")
    yield from section(title, Table(head, tuple(rows), expendable=(0,), ids=(0,)))


def _remaining(closing: OpenClosing) -> str:
    """How many positions are not at their target, the first of them by name, and how recent the data is."""
    if closing.left is not None:
        return _listed([(each.contracts, each.symbol, each.position_side) for each in closing.left])
    open_ = [
        (each, held - each.target)
        for each in closing.result.positions
        if each.account == closing.account and (held := each.start if each.left is None else each.left) > each.target
    ]
    not_verified = sum(each.left is None for each, _ in open_)
    all_as_before = "as it was" if not_verified == 1 else "as they were"
    since = all_as_before if not_verified == len(open_) else f"{not_verified} as it was"
    remark = f"; {since} at the time of the decision; nothing later is known" if not_verified else ""
    return _listed([(left, each.symbol, each.side) for each, left in open_]) + remark


def _listed(left: Sequence[tuple[Decimal, str, str | None]]) -> str:
    """Count of positions, with contracts, symbol and side of the first ones."""
    if not left:
        return "nothing known"
    named = [f"{contracts:f} {symbol} {side}" for contracts, symbol, side in left[:MAX_NAMED]]
    more = [f"{len(left) - MAX_NAMED} more"] if len(left) > MAX_NAMED else []
    return f"{count_of(len(left), 'position')}: {', '.join(named + more)}"


def _notifications(status: StoreStatus) -> Iterator[Section]:
    rows = tuple(
        (
            each.route, each.target, str(each.pending), str(each.delivered), str(each.given_up),
            "-" if each.oldest is None else ago(from_micros(each.oldest), status.now), each.error or "-",
        )
        for each in status.notifications
    )  # fmt: skip
    head = ("route", "target", "pending", "delivered", "given up", "oldest pending", "last error of it")
    yield from section("Notifications", Table(head, rows, expendable=(3, 5)))


def _waits_for(status: StoreStatus, event: Event) -> str:
    """What a manual close still waits for."""
    waiting = () if status.view is None else status.view.unfinished_closes
    found = next((each for each in waiting if each.event == event.id), None)
    if found is None:
        return ""
    if not found.accounts:
        return f"; {' and '.join(found.unseen or ()) or 'its scope'} is not seen closed yet"
    return f"; waits for {' and '.join(found.accounts)}, which cannot be read, until {instant(found.until)}"


def _suspicion(decision: Decision) -> str:
    observed = "" if decision.mode == "enforce" else " (observed only)"
    return f"{instant(decision.as_of)}  {headline(decision)}{observed}  [{decision.id}]"


def _pending_effect(pending: PendingEffect, status: StoreStatus) -> str:
    """An effect that is not performed yet; without a runner the next run goes on with it."""
    waits_for = pending.waits_for if status.runner.is_alive else "the next run"
    return (
        f"{pending.text}, by {pending.policy} on {pending.scope} (decision {pending.decision}): waits for {waits_for}"
    )
