"""Text of `ksctl status` and `ksctl history`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal

from killswitch.cli.live.status_sections import (
    changes_text,
    manual_closes_text,
    streams_text,
    suspended_text,
    timers_text,
)
from killswitch.cli.terminal import table
from killswitch.cli.wording import (
    Footnotes,
    ago,
    amount_in,
    command_line,
    headline,
    notice_line,
    orphan_line,
    pending_lines,
    stage_label,
    trigger_table,
)
from killswitch.execution.effects.performing import PendingEffect
from killswitch.incident.record.results import Result
from killswitch.model.decision import Decision, Notice
from killswitch.model.instant import from_micros
from killswitch.model.legible import one_line
from killswitch.model.snapshot import Event
from killswitch.operations.status import LockView, OpenClosing, StoreStatus
from killswitch.planning.scopes.trigger_status import MachineStatus
from killswitch.render.formats import count_of, duration_text, instant, money
from killswitch.runner.status_blob import AccountView, RunnerView

MAX_NAMED = 4
"""Maximum remaining positions that are listed by name; the others are counted."""
LATE_FACTOR = 1.5
"""Ticks are late from this many intervals apart."""
NOTICES_SEARCHED = 1_000
"""Number of the newest notices that are searched for those of changes of equity."""
SHORT_SECONDS = 60.0
"""Durations below this many seconds have a fraction."""


def status_text(status: StoreStatus, store_at: str) -> str:
    """Render the status, one block per subject."""
    return "\n\n".join(block for block in _blocks(status, store_at) if block)


def _blocks(status: StoreStatus, store_at: str) -> Iterator[str]:
    yield _runner(status, store_at)
    view = status.view
    if view is None:
        yield f"Stages: unknown, {status.view_problem}"
    else:
        yield _accounts(view)
        yield _stages(view, status)
        yield _list("Latched stages without a policy", [orphan_line(orphan) for orphan in view.orphans])
        yield from (_triggers(machine, view) for machine in view.machines)
        yield _locks(status.locks, view)
        yield streams_text(view.streams, status.now)
        yield timers_text(view.timers, status.now)
        yield suspended_text(view.suspended)
        yield _list("Pending effects", [_pending_effect(each, status) for each in view.pending_effects or ()])
    yield _list("Problems", ((() if view is None else view.problems) + status.problems))
    yield _closings(status.closings, alive=status.runner.liveness == "alive")
    yield changes_text(() if view is None else view.changes or ())
    yield _list("Suspicions", [_suspicion(each) for each in status.suspicions])
    yield manual_closes_text(status.by_hand)
    yield _notifications(status)
    pending = [command_line(event, status.now, _waits_for(status, event)) for event in status.pending]
    yield _list("Pending commands", pending)
    yield _list("Newest notices", [f"{instant(each.as_of)}  {notice_line(each)}" for each in status.notices])


def _runner(status: StoreStatus, store_at: str) -> str:
    runner, view = status.runner, status.view
    who = f"pid {runner.pid}, generation {runner.generation}" if runner.pid else f"{runner.owner}"
    state = {
        "alive": f"alive ({who}), lease until {instant(runner.lease_until)}",
        "silent": f"NOT RUNNING: {runner.why} ({who}, lease until {instant(runner.lease_until)})",
        "gone": f"not running: {runner.why}",
    }[runner.liveness]
    lines = [f"Store    {store_at}", f"Runner   {state}"]
    if view is not None:
        mode = "started with --live" if view.live else "observes only (started without --live)"
        lines += [
            f"         {mode}; policies {', '.join(view.policies) or 'given in process'}",
            f"         {view.policy_set}",
            f"Tick     {ago(view.as_of, status.now)} ({instant(view.as_of)}), number {view.ticks} since "
            f"{instant(view.started_at)}, took {view.duration_ms:g} ms, every {view.interval:g} s{_behind(view)}",
        ]
        if view.run_end and runner.liveness != "alive":
            lines.append(f"Ended    exit code {view.run_end.exit_code}: {one_line(view.run_end.reason)}")
        if runner.liveness != "alive":
            lines.append("         Accounts, stages and triggers below are as of that tick, not as of now.")
    return "\n".join(lines)


def _behind(view: RunnerView) -> str:
    """The longest time between the last ticks, if it exceeds the interval."""
    if view.apart is None or view.apart <= LATE_FACTOR * view.interval:
        return ""
    return f"; BEHIND: up to {view.apart:.1f} s between ticks, because a tick waits for accounts that do not answer"


def _accounts(view: RunnerView) -> str:
    footnotes = Footnotes()

    def quality(each: AccountView) -> str:
        return each.quality + ("" if each.reason is None else f" {footnotes.mark(f'{each.account}: {each.reason}')}")

    rows = [
        (
            each.account, each.venue, each.market, "live" if each.armed else "observe", quality(each),
            money(each.equity, each.currency), "unknown" if each.positions is None else str(each.positions),
            instant(each.observed_at),
        )
        for each in view.accounts
    ]  # fmt: skip
    head = ("account", "venue", "market", "acts", "quality", "equity", "positions", "observed")
    return "\n".join(("Accounts", table(head, rows), *footnotes.lines()))


def _stages(view: RunnerView, status: StoreStatus) -> str:
    if not view.machines:
        return "Stages: no policy scope matches an account"
    rows = [
        (
            machine.scope, machine.policy, machine.mode, str(machine.level), stage_label(machine),
            instant(machine.fired_at), _cooldown(machine, status), machine.decision or "-",
        )
        for machine in view.machines
    ]  # fmt: skip
    head = ("scope", "policy", "mode", "level", "stage (latched until reset)", "fired", "cooldown", "decision")
    pending = [
        f"  {machine.policy} on {machine.scope}: {line}"
        for machine in view.machines
        for line in pending_lines(machine, status.now)
    ]
    return "\n".join(("Stages", table(head, rows), *pending))


def _cooldown(machine: MachineStatus, status: StoreStatus) -> str:
    if machine.cooldown_until is None:
        return "-"
    left = machine.cooldown_until - status.now
    return f"{duration_text(left)} left" if left.total_seconds() > 0 else "over"


def _triggers(machine: MachineStatus, view: RunnerView) -> str:
    lines = trigger_table(machine.triggers, view.accounts)
    return "\n".join((f"Triggers of {machine.policy} on {machine.scope}", *lines))


def _locks(locks: Sequence[LockView], view: RunnerView) -> str:
    if view.lock_folder is None:
        return "Locks: none written, because no account is armed"
    if not locks:
        return f"Locks: no file in {view.lock_folder}; bots read a missing file as locked"
    rows = []
    for lock in locks:
        state = f"LOCKED {lock.mode}" if lock.locked else "open"
        alive = "unknown" if lock.alive_until is None else instant(lock.alive_until)
        alive += " (stale)" if lock.stale else ""
        rows.append((lock.scope or "unknown", state, _until(lock), alive, lock.reason))
    head = ("scope", "state", "until", "kept alive until", "reason")
    return f"Locks as read by bots in {view.lock_folder}\n" + table(head, rows)


def _until(lock: LockView) -> str:
    if not lock.locked:
        return "-"
    if lock.on_suspicion:
        return f"on suspicion until {instant(lock.until)}"
    if lock.until is not None:
        return instant(lock.until)
    return "it is lifted" if lock.ordered else "a runner is alive"


def _closings(closings: Sequence[OpenClosing], *, alive: bool) -> str:
    rows = []
    for closing in closings:
        outcomes = Counter(order.outcome for order in closing.result.orders if order.account == closing.account)
        orders = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()) or "none sent yet"
        rows.append((closing.decision, closing.account, orders, _remaining(closing)))
    title = "Closes in progress" if alive else "Closes without a runner"
    return f"{title}\n" + table(("decision", "account", "orders", "left to close"), rows) if rows else ""


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


def _notifications(status: StoreStatus) -> str:
    rows = [
        (
            each.route, each.target, str(each.pending), str(each.delivered), str(each.given_up),
            "-" if each.oldest is None else ago(from_micros(each.oldest), status.now), each.error or "-",
        )
        for each in status.notifications
    ]  # fmt: skip
    head = ("route", "target", "pending", "delivered", "given up", "oldest pending", "last error of it")
    return "Notifications\n" + table(head, rows) if rows else ""


def _waits_for(status: StoreStatus, event: Event) -> str:
    """Accounts that a manual close still waits for."""
    waiting = () if status.view is None else status.view.unfinished_closes
    found = next((each for each in waiting if each.event == event.id), None)
    if found is None:
        return ""
    return f"; waits for {' and '.join(found.accounts)}, which cannot be read, until {instant(found.until)}"


def _suspicion(decision: Decision) -> str:
    observed = "" if decision.mode == "enforce" else " (observed only)"
    return f"{instant(decision.as_of)}  {headline(decision)}{observed}  [{decision.id}]"


def _pending_effect(pending: PendingEffect, status: StoreStatus) -> str:
    """An effect that is not performed yet; without a runner the next run goes on with it."""
    waits_for = pending.waits_for if status.runner.liveness == "alive" else "the next run"
    return one_line(
        f"{pending.text}, by {pending.policy} on {pending.scope} (decision {pending.decision}): waits for {waits_for}"
    )


def _list(title: str, lines: Sequence[str]) -> str:
    return "\n".join((title, *(f"  {line}" for line in lines))) if lines else ""


def history_text(found: Sequence[tuple[Decision, Result]], changes: Sequence[Notice] = ()) -> str:
    """One line per decision, newest first; then one per notice of an unexplained change of equity."""
    notices = _list("Unexplained changes of equity", [f"{instant(it.as_of)}  {notice_line(it)}" for it in changes])
    return "\n\n".join(block for block in (_decisions(found), notices) if block)


def _decisions(found: Sequence[tuple[Decision, Result]]) -> str:
    if not found:
        return "No decision is recorded on this store."
    rows = [(instant(each.as_of), each.id, headline(each), *_result(each, result)) for each, result in found]
    sums = ("realised", "fees", "slippage", "delay cost")
    head = ("as of", "decision", "what", "result", "traded", *sums, "took", "remarks")
    return table(head, rows, indent="")


def _result(decision: Decision, result: Result) -> tuple[str, ...]:
    if decision.kind == "reset" or not result.orders:
        return ("reset" if decision.kind == "reset" else result.standing, *["-"] * 7)
    return (
        result.standing,
        count_of(result.closed, "position") if result.closed else "-",
        _sum(result, "realised", result.realised),
        _sum(result, "fees", result.fees),
        _sum(result, "slippage", result.slippage),
        _sum(result, "delay", result.delay),
        "-" if result.totals.took is None else _duration(result.totals.took),
        "; ".join(_remarks(result)) or "-",
    )


def _sum(result: Result, what: str, value: Decimal | None) -> str:
    """A sum; if it is only partly known, the sum of the known orders."""
    missing = next((each for each in result.missing if each.what == what), None)
    if value is not None or missing is None or missing.known is None:
        return amount_in(result.currencies, value)
    return f"unknown ({amount_in(result.currencies, missing.known)} without {count_of(len(missing.orders), 'order')})"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds < SHORT_SECONDS else duration_text(timedelta(seconds=seconds))


def _remarks(result: Result) -> Iterator[str]:
    """Short remarks on irregularities; `ksctl report` has the details."""
    totals, positions = result.totals, result.positions
    if result.unsent:
        yield f"nothing sent on {', '.join(result.unsent)}"
    for count, noun, before, after in (
        (totals.unknown - totals.abandoned, "order", "", " without a final status"),
        (totals.abandoned, "order", "", " never confirmed"),
        (totals.exceeded, "order", "", " beyond the slippage bound"),
        (sum(bool(each.dust) for each in positions), "position", "dust left in ", ""),
        (sum(bool(each.others) for each in positions), "position", "", " changed by others"),
        (sum(bool(each.other_decisions) for each in positions), "position", "", " closed by other decisions"),
    ):
        if count > 0:
            yield f"{before}{count_of(count, noun)}{after}"
