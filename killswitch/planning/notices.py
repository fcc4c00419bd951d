"""Notices of a tick, which are events that people must know and that are no decisions, and alerts of its policies."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal

from killswitch.engine.state import PendingClose, stage_in_force
from killswitch.engine.step import bits, overdue
from killswitch.graph.nodes import Trigger
from killswitch.graph.wording import signals_of, span
from killswitch.model.alert import NO_ALERTS, Alert, Alerts, NoticeGroup
from killswitch.model.decision import Decision, Notice, NoticeKind, Severity
from killswitch.model.instant import SECOND, from_micros
from killswitch.model.legible import STORE_OPTION
from killswitch.model.snapshot import AccountSnapshot, Event
from killswitch.model.words import close_text
from killswitch.planning.owners import NotClosed
from killswitch.planning.scopes.evaluator import LastPage, ScopeEvaluator
from killswitch.planning.scopes.trigger_status import present_threshold, why_unknown
from killswitch.planning.stage_decision import Blocked, Proposal
from killswitch.pnl_explain.explanation import ChangeEvent
from killswitch.pnl_explain.pending_changes import UnexplainedChange
from killswitch.render.formats import amount_text, count_of, instant
from killswitch.signals.catalogue import BY_NAME
from killswitch.valuation.position_measures import ZERO

UNCORROBORATED_FOR = 10 * SECOND
"""Time after which a stage whose prices are not corroborated pages (microseconds)."""
COUNTED_WITHIN = 600 * SECOND
GREATER = 2
"""Factor by which the falls since a page must exceed the paged amount to page again. Doubling bounds the pages of one
crash: ten from 0.1% of an account to all of it."""
MATERIAL = Decimal("0.01")
"""Fraction of equity up to which falls do not page again within ten minutes."""
RESET = "reset"
"""`subject` of notices about a reset that had no effect."""
RESET_OF_NOTHING = "a reset found no latched stage"


def _notice(
    evaluator: ScopeEvaluator,
    now: int,
    kind: NoticeKind,
    severity: Severity,
    text: str,
    subject: str | None = None,
    *,
    at_once: bool = False,
    title: str = "",
) -> Notice:
    return Notice(from_micros(now), evaluator.policy, evaluator.scope, kind, severity, text, subject, at_once, title)


def _group(evaluator: ScopeEvaluator, kind: NoticeKind, subject: str) -> NoticeGroup:
    return NoticeGroup(evaluator.policy, evaluator.scope, kind, subject)


def unknown(
    evaluator: ScopeEvaluator, now: int, young: Collection[int], accounts: Iterable[AccountSnapshot] = ()
) -> Alerts:
    """Triggers that have been unknown for their grace, and the keys of those that may be yet.

    A trigger with `on_unknown: warn` does not page. `young`: triggers that cannot be known yet. `accounts`: those of
    the scope; what is unknown while one cannot be read is a part of its outage.
    """
    found, early = [], []
    outages = tuple(f"outage/{each.account}" for each in accounts if each.quality != "ok")
    late = overdue(evaluator.machine, evaluator.state.triggers, now)
    for i in bits(evaluator.state.triggers.unknown):
        trigger = evaluator.compiled.graph.triggers[i]
        key = f"trigger/{evaluator.policy}/{evaluator.scope}/{trigger.name}"
        if i in young or i not in late:
            early.append(key)
            continue
        severity: Severity = "warning" if trigger.on_unknown == "warn" else "page"
        text = f"{trigger.name} is unknown ({trigger.on_unknown}): {why_unknown(evaluator, trigger)}"
        group = _group(evaluator, "unknown", trigger.name)
        since = evaluator.state.triggers.unknown_since[i]
        over = f"{trigger.name} is no longer unknown"
        found.append(Alert(key, severity, text, group, over, since, part_of=outages))
    return Alerts(tuple(found), tuple(early))


WARNED_BELOW = 0.9
"""The part of a warning's share below which the value must stay for the warning to be over."""
WARNED_FOR = 300 * SECOND
"""How long it must stay there (microseconds)."""


def warnings(evaluator: ScopeEvaluator, now: int) -> Alerts:
    """The shares of thresholds (`warn_at`) that are reached, each a warning of its own.

    A share counts as reached from the lower end of the value, and is over once the upper end has been below 90% of it
    for five minutes. What trips at the same evaluation, or has, sends no new warning.
    """
    graph, columns = evaluator.compiled.graph, evaluator.columns
    found: list[Alert] = []
    shares = {f"{it.name}/{each:g}" for it in graph.triggers for each in _warning_shares(evaluator, it)}
    evaluator.warned = {key: at for key, at in evaluator.warned.items() if key in shares}
    may_begin = evaluator.state.level == 0 and not evaluator.eligible
    for i, trigger in enumerate(graph.triggers if columns is not None else ()):
        limit = evaluator.limit_of(i)
        for share in _warning_shares(evaluator, trigger):
            if trigger.threshold is None or columns is None or limit is None:
                continue
            level, index = share * limit, trigger.threshold.index
            key = f"{trigger.name}/{share:g}"
            is_warned = key in evaluator.warned
            begins = may_begin and columns.lo[index] >= level
            if begins or (is_warned and columns.hi[index] >= WARNED_BELOW * level):
                evaluator.warned[key] = now
            elif not is_warned:
                continue
            elif now - evaluator.warned[key] >= WARNED_FOR:
                del evaluator.warned[key]
                continue
            text = f"{trigger.name} has reached {share:.0%} of its threshold ({present_threshold(evaluator, i)})"
            over = f"{trigger.name} is below {WARNED_BELOW * share:.0%} of its threshold again"
            alert_key = f"near/{evaluator.policy}/{evaluator.scope}/{key}"
            found.append(Alert(alert_key, "warning", text, _group(evaluator, "warning", trigger.name), over))
    return Alerts(tuple(found))


def _warning_shares(evaluator: ScopeEvaluator, trigger: Trigger) -> tuple[float, ...]:
    """The shares of its threshold at which a trigger warns, earlier during closer attention."""
    factor = evaluator.warn_share
    if factor is None:
        return trigger.warn_at
    is_ceiling = trigger.threshold is not None and trigger.threshold.op in (">", ">=")
    return tuple(factor * share for share in trigger.warn_at) or ((factor,) if is_ceiling else ())


def recoveries_used_up(evaluator: ScopeEvaluator) -> Alerts:
    """A stage that is not reset automatically any more, because it was as often as it may be within 24 hours."""
    state = evaluator.state
    if not state.by_hand:
        return NO_ALERTS
    times = count_of(len(state.recovered), "automatic reset")
    text = f"{state.stage} has fired after {times} within 24 hours: it stays until it is reset by hand"
    key = f"recoveries/{evaluator.policy}/{evaluator.scope}"
    return Alerts((Alert(key, "page", text, _group(evaluator, "warning", state.stage or "")),))


def unexplained(evaluator: ScopeEvaluator, now: int, change: ChangeEvent) -> Notice:
    """Notice of an unexplained change of equity: it appeared, was explained, or counts as a loss.

    The amount is in the scope's currency. The first fall pages. Falls within ten minutes of a page are counted until
    their sum is materially greater than the paged amount; then they page again.
    """
    amount = _money(evaluator, change.amount)
    if change.kind == "anew":
        text = f"{amount} was paid into a wiped-out account: a new equity series begins"
        return _notice(evaluator, now, "unexplained", "warning", text)
    if change.kind == "explained":
        text = f"a change of {amount} is explained by the ledger now"
        return _notice(evaluator, now, "unexplained", "info", text, title="a change of equity is explained")
    named = "" if change.change is None else f" ({change.change})"  # the id, for `ksctl restate`
    if change.kind == "appeared" and change.pending:
        text = f"equity changed by {amount}{named}, {_waits(evaluator, change)}"
        return _notice(evaluator, now, "unexplained", "warning", text)
    if change.kind == "lost":
        fallen, what = change.amount, "loss" if change.amount > 0 else "gain"
        amount = _money(evaluator, -change.amount)
        text = f"a change of equity by {amount}{named} counts as {what}: the ledger has no row for it"
    else:
        fallen = -change.amount
        text = (
            f"equity changed by {amount}{named}, and no price, trade or row of the ledger explains it: it is treated "
            f"as money that moved, and {_closes(evaluator)}"
        )
    if fallen > 0:
        return _fall(evaluator, now, text, fallen)
    return _notice(evaluator, now, "unexplained", "warning", text)


def _waits(evaluator: ScopeEvaluator, change: ChangeEvent) -> str:
    """Why a change of equity is pending, and until when."""
    if change.amount < 0 and evaluator.compiled.graph.equity.closes_unexplained:
        return (
            "and no ledger row explains it yet: it counts as a loss once the ledger has been read past it without one "
            "(on_unexplained: close)"
        )
    return "and trades or late answers may account for it; waiting for the ledger"


def _closes(evaluator: ScopeEvaluator) -> str:
    """Consequence of money that moved: none, except for triggers on unexplained changes."""
    graph = evaluator.compiled.graph
    unexplained_signals = {i for i, signal in enumerate(graph.signals) if BY_NAME[signal.name].counts_unexplained}
    trigger_names = [it.name for it in graph.triggers if not unexplained_signals.isdisjoint(signals_of(it.condition))]
    if not trigger_names:
        return "closes nothing"
    return f"is no loss, though the policy's {' and '.join(trigger_names)} may fire on it"


def _money(evaluator: ScopeEvaluator, amount: Decimal) -> str:
    return amount_text(amount, evaluator.currency)


def _fall(evaluator: ScopeEvaluator, now: int, text: str, fallen: Decimal) -> Notice:
    """Notice of an unexplained fall: a page, or a counted warning."""
    last = evaluator.paged
    if last is None or now - last.at >= COUNTED_WITHIN:
        evaluator.paged = LastPage(now, 1, fallen)
        return _notice(evaluator, now, "unexplained", "page", text, at_once=True)
    count, together = last.count + 1, last.fallen + fallen
    if _is_greater(evaluator, together, last.amount):
        evaluator.paged = LastPage(now, 1, together)
        text = f"{text} ({count - 1} since the last page, together {_money(evaluator, -together)})"
        return _notice(evaluator, now, "unexplained", "page", text, at_once=True)
    evaluator.paged = LastPage(last.at, count, last.amount, together)
    return _notice(evaluator, now, "unexplained", "warning", f"{text} (number {count} within ten minutes)")


def _is_greater(evaluator: ScopeEvaluator, together: Decimal, paged: Decimal) -> bool:
    """Whether falls are materially greater than the paged amount."""
    view = evaluator.history.view
    if together <= GREATER * paged:
        return False
    return view is None or view.equity is None or together > MATERIAL * (view.equity + together)


def restated(evaluator: ScopeEvaluator, now: int, event: Event, change: UnexplainedChange, before: str) -> Notice:
    """Notice that an operator has restated an unexplained change; `before` is what it counted as until now."""
    was = "was pending" if before == "pending" else f"counted as {before}"
    now_it = (
        "counts as money that moved: latches and locks stay"
        if event.restated_as == "flow"
        else "counts as " + ("loss" if change.amount < 0 else "gain")
    )
    text = (
        f"the change of equity by {_money(evaluator, change.converted_amount)} on {change.account} at "
        f"{instant(from_micros(change.at))} ({change.id}), which {was}, {now_it}; restated as {event.restated_as} by "
        f"{event.author or 'unknown'} ({event.reason or 'no reason given'})"
    )
    title = "a change of equity is restated"
    return _notice(evaluator, now, "unexplained", "warning", text, event.id, title=title)


def not_restated(event: Event, now: int, text: str) -> Notice:
    """Notice of a restatement that changed nothing."""
    return _operator_notice(event, now, "nothing_selected", "warning", text, "no change of equity is restated")


def suspected(
    evaluator: ScopeEvaluator, now: int, stage: str, falls: list[UnexplainedChange], *, at_once: bool
) -> Notice:
    """Notice of falls that may be a loss on which `stage` would fire, and for which nothing is locked.

    It is a warning if the policy does not lock on suspicion and the falls themselves have already paged.
    """
    locks = evaluator.compiled.graph.equity.locks_on_suspicion
    paged = all(evaluator.has_paged(change.at) for change in falls)
    fallen = sum((change.converted_amount for change in falls), ZERO)
    why = "trading was locked on suspicion as often as it may be in ten minutes" if locks else "on_suspicion: page"
    text = (
        f"suspicion: equity changed by {_money(evaluator, fallen)}, which may be a loss: no row of the ledger explains "
        f"it yet; if it is one, {stage} fires. Nothing is locked meanwhile: {why}"
    )
    severity: Severity = "page" if locks or not paged else "warning"
    title = "a fall of equity is suspected to be a loss"
    return _notice(evaluator, now, "unexplained", severity, text, stage, at_once=at_once, title=title)


def nothing_selected(
    evaluator: ScopeEvaluator, proposal: Proposal, readable: str, acted: Collection[str] = ()
) -> Alert:
    """A stage that should fire but selects nothing of a non-empty book, or only a part of it.

    `readable`: the accounts that can be read. `acted`: those on which it closes or cancels something nevertheless.
    """
    attribution = proposal.decision.attribution
    source = attribution.source if attribution else "UNKNOWN"
    missing = None if evaluator.history.view is None else evaluator.history.view.positions_unknown
    why = evaluator.history.why_unknown or missing or f"with the loss {source}, its close selects no position"
    if proposal.held_back is not None and not proposal.is_partial:
        why = proposal.held_back
    elif proposal.is_without_selection and proposal.decision.reason is not None:
        why += f" ({proposal.decision.reason})"
    text = f"{proposal.stage.name} {_fired(proposal, acted)}, but {why}; it is not latched"
    waiting = evaluator.pending_close_of(proposal.stage)
    if waiting is not None:
        within = span(proposal.stage.close_within)
        text += f"; its close waits for {waited_for(waiting)}, until its triggers have not held for {within}"
    name = proposal.stage.name
    firing = "" if waiting is None else f"/{waiting.since}"  # after a reset it fires again
    return Alert(
        f"unfired/{evaluator.policy}/{evaluator.scope}/{name}{firing}/{readable}", "page", text,
        _group(evaluator, "nothing_selected", name), f"{name} has latched, or its triggers no longer hold",
        resolves=waiting is None,  # the end of a wait has a notice of its own
    )  # fmt: skip


def _fired(proposal: Proposal, acted: Collection[str]) -> str:
    """Result of a stage that does not latch. With a partly unknown book it has fired, and its lock holds."""
    if acted:
        return f"fired on {' and '.join(sorted(acted))}"
    return "fired, and could close and cancel nothing" if proposal.is_partial else "should fire"


def uncorroborated(evaluator: ScopeEvaluator, now: int, stage: str, why: str, before: tuple[Alert, ...]) -> Alert:
    """A stage whose prices are not corroborated: a warning at first, a page if that lasts. `before`: what it had."""
    key = f"uncorroborated/{evaluator.policy}/{evaluator.scope}/{stage}"
    since = next((each.since for each in before if each.key == key), None) or now
    text = f"{stage} did not fire: {why}"
    severity: Severity = "warning"
    if now - since >= UNCORROBORATED_FOR:
        text, severity = f"{text}, for {UNCORROBORATED_FOR / SECOND:g} s now", "page"
    else:
        text = f"{text}; prices are fetched again at each tick"
    group = _group(evaluator, "uncorroborated", stage)
    return Alert(key, severity, text, group, f"uncorroborated prices no longer keep {stage} from firing", since)


def no_longer_waits(evaluator: ScopeEvaluator, now: int, waiting: PendingClose) -> Notice:
    """Notice that a close no longer waits for an account."""
    text = (
        f"{waiting.stage} fired at {from_micros(waiting.since).isoformat()} and no longer waits for "
        f"{waited_for(waiting)}: nothing was closed there"
    )
    title = "a close no longer waits for an account"
    return _notice(evaluator, now, "nothing_selected", "page", text, waiting.stage, title=title)


def wait_ended(evaluator: ScopeEvaluator, now: int, waiting: PendingClose) -> Notice:
    """Notice that a reset ended the wait of a close."""
    text = f"a reset was received: {waiting.stage} no longer waits for {waited_for(waiting)}"
    return _notice(evaluator, now, "warning", "warning", text, RESET, title="a reset ended the wait of a close")


def waited_for(waiting: PendingClose) -> str:
    """The accounts that the close waits for, as text."""
    return " and ".join(waiting.accounts) or "the scope's account"


def blocked(evaluator: ScopeEvaluator, now: int, found: Blocked) -> Notice:
    """Notice of a selected position that the venue's rules do not allow to reduce now; dust does not page."""
    return _notice(evaluator, now, "blocked", _severity(found), found.why, found.symbol)


def blocking(evaluator: ScopeEvaluator, stage: str, found: Blocked) -> Alert:
    """A position because of which `stage` selects nothing."""
    key = f"blocked/{evaluator.policy}/{evaluator.scope}/{stage}/{found.account}/{found.symbol}"
    return Alert(key, _severity(found), found.why, _group(evaluator, "blocked", found.symbol))


def _severity(found: Blocked) -> Severity:
    return "warning" if found.dust else "page"


def not_latched(
    evaluator: ScopeEvaluator,
    now: int,
    event: Event | None = None,
    ended: Decision | None = None,
    *,
    accepted: bool = False,
) -> Notice:
    """Notice of a reset that found no latched stage.

    `ended`: the suspicion whose lock it lifts. `accepted`: whether it accepted unexplained changes.
    """
    by = "" if event is None else f" by {event.author or 'unknown'} ({event.reason or 'no reason given'})"
    text = f"a reset{by} was received, but no stage is latched"
    if ended is not None:
        text = f"a reset{by} was received: the lock on suspicion of {ended.stage} is lifted; no stage is latched"
    if accepted:
        text += "; what nothing explained until then counts as money that moved"
    return _notice(evaluator, now, "warning", "info", text, RESET, title=RESET_OF_NOTHING)


NOT_CARRIED_OUT = "a command of an operator is not carried out"
"""The title of the notice of a close, a lock or a plan that was refused."""


def command_not_carried_out(event: Event, now: int, text: str) -> Notice:
    """Notice of a close, a lock or a plan of an operator that was not carried out, or only partly."""
    return _operator_notice(event, now, "nothing_selected", "page", text, NOT_CARRIED_OUT)


GIVE_UP_HINT = f" (`ksctl close --give-up {{id}} --reason '' {STORE_OPTION}` ends that)"


def manual_close_waits(event: Event, now: int, why: str, until: int) -> Notice:
    """Notice of a manual close that waits for an account that cannot be read."""
    text = (
        f"the {close_text(event.cause)} waits: {why}; it goes on with the first snapshot that shows it, until "
        f"{instant(from_micros(until))}"
        f"{GIVE_UP_HINT.format(id=event.id)}"
    )
    return _operator_notice(event, now, "warning", "page", text, "a close by hand waits")


def manual_close_given_up(event: Event, now: int, accounts: Collection[str]) -> Notice:
    """Notice that an operator ended the wait of a manual close."""
    text = (
        f"the {close_text(event.cause)} {event.decision} no longer waits for {' and '.join(sorted(accounts))}: "
        f"given up by {event.author or 'unknown'} ({event.reason or 'no reason given'})"
    )
    return _operator_notice(event, now, "warning", "warning", text, "a close by hand is given up")


def manual_close_complete(event: Event, now: int, looks: int) -> Notice:
    """Notice that a manual close, which had to close further positions, is complete."""
    text = (
        f"the {close_text(event.cause)} is complete: {count_of(looks, 'further close')} closed what appeared after the "
        "first"
    )
    return _operator_notice(event, now, "warning", "info", text, "a close by hand is complete")


def manual_close_left(event: Event, now: int, left: str) -> Notice:
    """Notice that the time of a manual close is over, and what is open or unknown."""
    text = (
        f"the {close_text(event.cause)} {event.id} has ended, and not everything is seen closed: {left}. "
        "No order follows from it any more: see `ksctl status`, and give it again"
    )
    return _operator_notice(event, now, "warning", "page", text, "a close by hand has left something")


def part_not_closed(now: int, left: NotClosed) -> Notice:
    """Notice of a close for a strategy that has ended while a part that it was to close is still held."""
    account, symbol, side = left.position
    owners, amount = " and ".join(left.strategies), f"{left.contracts} of {symbol} {side} in {account}"
    text = (
        f"the close {left.decision} has ended, and {owners} still own {amount}: others have reduced the position "
        "meanwhile, or the venue closed less. No order closes it any more: close it with its bot, or at the venue"
    )
    return Notice(from_micros(now), left.policy, left.scope, "warning", "page", text, f"{symbol} {side}")


def forced_close(event: Event, now: int, text: str) -> Notice:
    """Notice of a forced close on last known positions."""
    return _operator_notice(event, now, "warning", "warning", text, "a close by hand on last known positions")


def newer_firing(evaluator: ScopeEvaluator, event: Event, now: int) -> Notice:
    """Notice that a reset leaves a stage in force, because it does not name its firing."""
    text = (
        f"{stage_in_force(evaluator.state) or 'a stage'} of {evaluator.policy} on {evaluator.scope} is not reset: the "
        f"command of {event.author or 'unknown'} does not name its firing {evaluator.decision_in_force}"
    )
    return command_not_carried_out(event, now, text)


def held_with_remark(event: Event, now: int, text: str) -> Notice:
    """Notice of what a halt or a cancel does not reach, or leaves without protection."""
    return _operator_notice(event, now, "warning", "warning", text, "a halt or a cancel leaves something")


def _operator_notice(
    event: Event, now: int, kind: NoticeKind, severity: Severity, text: str, title: str = ""
) -> Notice:
    scope = event.scope or "portfolio"
    return Notice(from_micros(now), "operator", scope, kind, severity, text, event.id, title=title)


def reset_of_nothing(now: int, scope: str) -> Notice:
    """Notice of a reset whose scope no policy watches and has nothing latched."""
    text = (
        f"a reset was received for {scope}, but no policy watches it and nothing is latched there; no lock by hand is "
        "left"
    )
    return Notice(from_micros(now), "operator", scope, "warning", "warning", text, RESET, title=RESET_OF_NOTHING)


def symbols_not_held(event: Event, now: int, missing: Sequence[str], held: Collection[str]) -> Notice:
    """Notice that a command names symbols that no account of its scope holds or has an order in."""
    known = ", ".join(sorted(held)) or "none"
    text = (
        f"no account of {event.scope or 'portfolio'} holds {' or '.join(missing)} or has an order in it: a name that "
        f"is not as the venue writes it reaches nothing. Held or ordered: {known}"
    )
    return _operator_notice(event, now, "warning", "warning", text, "a command names symbols that nobody holds")
