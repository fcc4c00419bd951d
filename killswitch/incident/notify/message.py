"""Messages about decisions, ended closes and notices, each with a title and a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from killswitch.engine.notice_titles import notice_title
from killswitch.graph.routing import MessageAttributes
from killswitch.incident.notify.grouping import RepeatedNotice
from killswitch.incident.notify.page_threads import PageThread, digest, is_end, notice_thread
from killswitch.incident.notify.scope_members import ScopeMembers, SeenScope, seen_scope
from killswitch.incident.record.checklist import UNKNOWN_START, StartedAs, file_name, incidents_folder
from killswitch.incident.record.close_causes import DRILL, command_text, order_texts
from killswitch.incident.record.firing import exposure_lines
from killswitch.incident.record.first_minute import contacts_text, net_text, resting_text, worst_text
from killswitch.incident.record.loss import attribution_text, loss_of, loss_text
from killswitch.incident.record.source_places import reason_once
from killswitch.model.decision import Decision, Notice
from killswitch.model.effects import Cancels, Effect, Lock, Orders, in_record_order, kind_of, locked_place, of_kind
from killswitch.model.instant import to_micros
from killswitch.model.legible import CUT, legible, one_line, shortened, with_store
from killswitch.model.snapshot import Closing, Instant, Snapshot
from killswitch.model.words import NotificationEvent, Severity
from killswitch.render.document import Facts, Items, Page, Section, section, text
from killswitch.render.formats import count_of, instant, listed, money, order_numbers

if TYPE_CHECKING:
    from killswitch.graph.nodes import PolicySet
    from killswitch.incident.record.document import Person
    from killswitch.incident.record.results import RecordedDecision, Result
    from killswitch.incident.record.source_places import TriggerText
    from killswitch.model.decision import TriggerReading

MESSAGE_FORMAT: Final = "killswitch.notification/v1"

ACKNOWLEDGES: Final = "ack "
"""How the line with the link to the page that acknowledges begins."""
LONGEST_LINE = 300
MOST_IN_A_LINE = 3
"""The most positions left that one line names."""
MOST_LINES = 15
"""The most lines for orders, and for positions left: a phone shows no more, and a command shows all of them."""


class Message(Struct, frozen=True, omit_defaults=True, tag_field="format", tag=MESSAGE_FORMAT):
    """One message to one target; `id` is a digest of its subject and the target, the same at every attempt.

    A sent message begins with its `format`. Messages that an older version stored without one are still decoded.
    """

    id: str
    at: Instant
    event: NotificationEvent
    severity: Severity
    policy: str
    scope: str
    title: str
    body: str
    level: int | None = None
    decision: str | None = None
    """The decision of a stage, a close or a reset: the argument of `ksctl explain`."""
    labels: dict[str, str] = {}
    count: int = 1
    """The number of notices that the message represents."""
    thread: str = ""
    """The same for all messages of one incident, and for a problem and its all-clear: services that group messages by a
    key use it. Empty in what an older version stored."""
    members: tuple[str, ...] = ()
    """The ids of the messages that this one joins; absent of a single one."""
    purpose: str = ""
    """Why a message is sent again: `repeat`, `reminder` or `escalation`; absent of a first one."""
    ended_at: Instant | None = None
    """When what it is about ended, where that was before it was sent."""
    key: str = ""
    """What a pager deduplicates by: the same for a page and the updates of it, another one for what must ring by
    itself. Empty of an end, and of what is sent again."""
    resolves: tuple[str, ...] = ()
    """The keys of the pages that it ends."""


encode_message = msgspec.json.Encoder(decimal_format="string").encode
decode_message = msgspec.json.Decoder(Message).decode


def safe_line(text: str) -> str:
    """Return one line in which characters that move the cursor, reverse the text or are invisible are escaped."""
    return shortened(one_line(legible(text)), LONGEST_LINE)


def fit_message(message: Message, most: int, measure: Callable[[str], int] = len) -> str:
    """Return the text with its id in at most `most` characters, counted by `measure`, in whole lines.

    The last line of a shortened text counts the omitted lines and names the command that shows them. The link that
    acknowledges is never among them: nobody who has only the message can make it.
    """
    end = f"\n\nnotification {message.id}"
    full_text = f"{message.body}{end}"
    if measure(full_text) <= most:
        return full_text
    lines = message.body.split("\n")
    further = "ksctl status" if message.decision is None else f"ksctl report {message.decision}"
    for kept in range(len(lines) - 1, 0, -1):
        links = [line for line in lines[kept:] if line.startswith(ACKNOWLEDGES)]
        left = len(lines) - kept - len(links)
        ending = f"\n{CUT} {left} line{'' if left == 1 else 's'} more: {further}{end}"
        text = "\n".join((*lines[:kept], *links)) + ending
        if measure(text) <= most:
            return text
    short = f"{further}{end}" if measure(f"{further}{end}") <= most else further
    return shortened(short, max(1, most))


class MessageContext(Struct, frozen=True):
    """What a text needs besides its subject: how the run was started, and what the tick has seen.

    `texts` has the triggers as the policies write them, `currency` is that of the decision's book, and `incident` the
    id of the incident of the decision. Each is empty where it is unknown.
    """

    started: StartedAs = UNKNOWN_START
    texts: TriggerTexts = {}
    snapshot: Snapshot | None = None
    currency: str | None = None
    incident: str | None = None
    members: ScopeMembers | None = None
    """The accounts of a strategy, a symbol or a label; None where the scope names them itself."""

    then: tuple[str, ...] = ()
    """How the scope returns to normal."""
    ahead: str | None = None
    """The next stage and how far it is; None of what has no next stage."""
    contacts: tuple[Person, ...] | None = None
    """Whom the runbooks of the stage name; None where this is not known."""
    blocked: tuple[str, ...] = ()
    """Why positions of the scope cannot be reduced now, as the notices of the tick have it."""

    def scope(self, decision: Decision) -> SeenScope:
        """The decision's scope in the snapshot."""
        return seen_scope(decision.scope, self.members, self.snapshot)


NO_CONTEXT: Final = MessageContext()


def decision_message(
    decision: Decision,
    subject: MessageAttributes,
    context: MessageContext = NO_CONTEXT,
    *,
    is_enforced: bool,
    corrects: Instant | None = None,
) -> Message:
    """Return the message about a stage that fires, a manual close, or a reset.

    `is_enforced` says whether orders, cancels and locks are made. `corrects` is since when the stage was reported as
    not fired.
    """
    is_over = decision.kind == "reset" or decision.is_withdrawal or decision.is_hold
    is_live = is_enforced or decision.kind == "reset"
    acts = () if is_over else ("live",) if is_live else ("observed only: nothing was done",)
    facts = () if is_over else tuple(_first_facts(decision, context, is_enforced=is_enforced))
    page = Page(
        title=_title(decision, context, *acts),
        facts=Facts((_when(decision.as_of), *facts, ("next", context.started.command("status")))),
        warning=""
        if corrects is None
        else f"this corrects the messages since {instant(corrects)}: the stage has fired now",
        sections=(
            *section("Why", Items(tuple(_reasons(decision, context.texts)))),
            *section("Then", Items(context.then if is_enforced else ())),
            *section("Decided", Items(tuple(_effect_texts(decision, is_enforced=is_enforced)))),
            Section("", (f"see: {context.started.command('explain', decision.id)}",)),
        ),
    )
    return _message(digest(subject.event, decision.id), subject, page, at=decision.as_of, decision=decision.id)


def _when(at: Instant) -> tuple[str, str]:
    """The time of which the page is, so that nobody takes it for the state at which it is read."""
    return "when", f"{instant(at)} (UTC); nothing here is newer"


def _title(decision: Decision, context: MessageContext, *acts: str) -> str:
    """Return the headline, with the venues of its scope where they are known."""
    places = (*context.scope(decision).places, *acts)
    return f"{_headline(decision)} ({', '.join(places)})" if places else _headline(decision)


def _first_facts(decision: Decision, context: MessageContext, *, is_enforced: bool) -> Iterator[tuple[str, str]]:
    """Yield what the first lines answer: how much, what is being done, what is left, and where to read on."""
    texts = {name: text for (policy, name), text in context.texts.items() if policy == decision.policy}
    scope = context.scope(decision)
    (equity, currency), why = scope.equity, scope.no_equity
    yield "loss", loss_text(loss_of(decision, texts, equity, why), equity, currency, why)
    yield "doing", _work_text(decision, is_enforced=is_enforced)
    yield "left", _exposure_text(decision, context, is_enforced=is_enforced)
    yield "worst", worst_text(decision.scope, scope.accounts)
    yield "orders", resting_text(decision, scope.accounts)
    if context.ahead is not None:
        yield "ahead", context.ahead
    if context.contacts is not None:
        yield "call", contacts_text(context.contacts)
    if decision.is_suspicion:
        return
    folder = incidents_folder(context.started.store)
    if context.incident is None or not context.started.store:
        yield "report", context.started.command("report", decision.id)
    else:
        runbook = f"{file_name(f'runbook-{decision.stage}')}.md, " if decision.level and decision.stage else ""
        yield "read", f"{runbook}report.md (or .html) in {folder / file_name(context.incident)}"


def _work_text(decision: Decision, *, is_enforced: bool) -> str:
    """Return what is being done, and how far it is: a message is written before the first order is sent."""
    parts = []
    for effect in in_record_order(decision.effects):
        match effect:
            case Orders(intents):
                positions = {(each.account, each.symbol, each.position_side) for each in intents}
                sent = ", none is sent yet" if is_enforced else ""
                parts.append(f"{count_of(len(intents), 'order')} for {count_of(len(positions), 'position')}{sent}")
            case Lock(order):
                until = "until it is lifted" if order.until is None else f"until {instant(order.until)}"
                parts.append(f"lock {locked_place(order)} {order.mode} {until}")
            case Cancels(cancels):
                parts.append(f"cancel {count_of(len(cancels), 'resting order')}")
            case _:
                parts.append(kind_of(effect).text(effect))
    what = "; ".join(parts) or "nothing is closed, cancelled or locked"
    return what if is_enforced else f"nothing, this run only observes; the policy would do: {what}"


def lock_outlook(decision: Decision, started: StartedAs) -> Iterator[str]:
    """Yield how the lock of the decision ends, where no time ends it."""
    lock = of_kind(decision.effects, Lock)
    if lock is not None and lock.order.until is None:
        command = started.lifting("unlock", lock.order.scope)
        yield f"the lock stays until a person lifts it, once the cause is known; a blank reason is refused: {command}"


def _exposure_text(decision: Decision, context: MessageContext, *, is_enforced: bool) -> str:
    """Return the exposure after the decision and before it, and what of it cannot be closed now."""
    currency = context.currency
    if decision.book is None:
        return "net exposure unknown: the decision was made without a book"
    before, after = decision.book.before, decision.book.after
    now = f"net {net_text(before.net)}, gross {money(before.gross, currency)}"
    if not is_enforced:
        return f"{now}: unchanged"
    if of_kind(decision.effects, Orders) is None:
        return f"{now}: this closes nothing"
    but = f", but not now: {listed(context.blocked)}" if context.blocked else ""
    return f"net {net_text(after.net)}, gross {money(after.gross, currency)} once every order is filled{but}; now {now}"


def trial_message(severity: Severity, at: Instant) -> Message:
    """Return the message of `ksctl notify test`."""
    return Message(
        digest("trial", str(to_micros(at))), at, "notice", severity, "operator", "notify test",
        f"[{severity}] a test of the notification routes",
        "This is a test of whether this target receives messages. Nothing has happened, and there is nothing to do.",
    )  # fmt: skip


def closing_message(
    closing: Closing,
    decision: Decision,
    subject: MessageAttributes,
    context: MessageContext = NO_CONTEXT,
    *,
    at: Instant,
    recorded: RecordedDecision | None = None,
) -> Message:
    """Return the message about the end of a close: flat, at target, or with what it has left.

    `recorded` is the decision with its journal, where the store has it.
    """
    result = None if recorded is None else recorded.result
    left = [f"{each.contracts.normalize():f} {each.symbol} {each.position_side} on {each.account}" for each in
            closing.residual]  # fmt: skip
    held = _positions_held(decision, context, result)
    is_at_target = closing.status == "flat"
    following = ("report", decision.id) if is_at_target else ("status",)
    before = None if recorded is None else recorded.snapshot
    scope, before_scope = context.scope(decision), seen_scope(decision.scope, context.members, before)
    page = Page(
        title=f"{_end_title(closing, left, held)}: {_title(decision, context)}",
        facts=Facts((
            _when(at),
            ("end", _end_text(closing, decision, result)),
            ("result", _money_text(closing, result, context.currency)),
            *(() if scope.is_part else (("equity", _equity_text(scope, before_scope)),)),
            ("left", _left_text(closing, left, _held_text(scope, held))),
            ("next", context.started.command(*following)),
        )),
        sections=(
            *section("Left", Items(tuple(_bounded(left)) if left[MOST_IN_A_LINE:] else ())),
            Section("", (f"see: {context.started.command('explain', decision.id)}",)),
        ),
    )  # fmt: skip
    return _message(digest("closing", decision.id, closing.status), subject, page, at=at, decision=decision.id)


def _positions_held(decision: Decision, context: MessageContext, result: Result | None) -> int | None:
    """Return how many positions the scope holds; None where one of its accounts has not shown them.

    Of a scope that owns a part of accounts only the end of the close is known: none where all of it was closed.
    """
    scope = context.scope(decision)
    if scope.is_part:
        is_whole = decision.book is not None and decision.book.after.gross == 0
        return 0 if is_whole and result is not None and result.standing == "flat" else None
    return _count_held(scope)


def _count_held(scope: SeenScope) -> int | None:
    if not scope.accounts or any(each.positions is None for each in scope.accounts):
        return None
    return sum(bool(position.contracts) for each in scope.accounts for position in each.positions or ())


def _held_text(scope: SeenScope, held: int | None) -> str:
    """Return what the scope holds, with its exposure where every notional is known."""
    if scope.is_part:
        return "all that it held is closed" if held == 0 else "what else it holds: `ksctl status -o wide`"
    if held is None:
        return "positions of the scope unknown"
    shown = f"the scope holds {count_of(held, 'position')}"
    rows = [row for each in scope.accounts or () for row in each.positions or () if row.contracts]
    _, currency = scope.equity
    values = [(row.side, abs(row.notional)) for row in rows if row.notional is not None]
    if not rows or currency is None or len(values) != len(rows):
        return shown
    net = sum((value if side == "long" else -value for side, value in values), Decimal(0))
    gross = sum((value for _, value in values), Decimal(0))
    return f"{shown}, net {net_text(net)}, gross {money(gross, currency)}"


def _end_title(closing: Closing, left: Sequence[str], held: int | None) -> str:
    if closing.status == "flat":
        return "FLAT" if held == 0 else "AT TARGET"
    what = left[0] if len(left) == 1 else f"{len(left)} positions" if left else "unknown"
    return f"LEFT {what} ({closing.status})"


def _end_text(closing: Closing, decision: Decision, result: Result | None) -> str:
    outcome = "at its target" if closing.status == "flat" else closing.status
    if result is None:
        return f"{outcome}; decided {instant(decision.as_of)}"
    totals = result.totals
    took = "" if totals.took is None else f" in {totals.took:.1f} s"
    orders = f"{count_of(totals.orders, 'order')}, {totals.filled} filled{took}"
    return f"{outcome}: {orders}; decided {instant(decision.as_of)}"


def _money_text(closing: Closing, result: Result | None, currency: str | None) -> str:
    """Return what the close realised and cost; an unknown sum with its reason."""
    if result is None:
        return f"realised unknown: its journal was not read; cost {money(closing.cost, currency)}"
    why = {each.what: each.why or f"not known of {order_numbers(each.orders)}" if each.orders else
           each.why or "the venue closed the whole book at once" for each in result.missing}  # fmt: skip
    realised = money(result.realised, currency) if result.realised is not None else f"unknown ({why.get('realised')})"
    if closing.cost is not None:
        return f"this close realised {realised} before fees, cost {money(closing.cost, currency)} (fees and slippage)"
    reason = why.get("fees") or why.get("slippage") or "a fill has no known fee or mark"
    return f"this close realised {realised} before fees, cost unknown ({reason})"


def _equity_text(now: SeenScope, before: SeenScope) -> str:
    """Return the equity now and at the decision, unknown ones with their reason."""
    parts = []
    for seen, when in ((now, "now"), (before, "when it was decided")):
        equity, currency = seen.equity
        parts.append(f"{money(equity, currency)} {when}" + (f" ({seen.no_equity})" if equity is None else ""))
    return ", ".join(parts)


def _left_text(closing: Closing, left: Sequence[str], others: str) -> str:
    if closing.status == "flat":
        return f"nothing that was to be closed; {others}"
    if not left:
        return f"unknown: check the positions at the venue; {others}"
    more = f" and {len(left) - MOST_IN_A_LINE} more" if left[MOST_IN_A_LINE:] else ""
    return f"{', '.join(left[:MOST_IN_A_LINE])}{more}; {others}"


def notice_message(
    notice: Notice, subject: MessageAttributes, started: StartedAs = UNKNOWN_START, facts: Sequence[str] = (),
    place: PageThread | None = None,
) -> Message:  # fmt: skip
    """Return the message about a notice that a person must read; `facts`: lines that follow its text.

    `place`: its incident and its key; None: a notice of its own.
    """
    about = digest("notice", str(to_micros(notice.as_of)), notice.policy, notice.scope, notice.kind, notice.text)
    title = notice_title(notice)
    page = Page(
        f"update: {title}" if place is not None and place.is_update else title,
        sections=(
            Section("", (_text_of(notice, started), _when_line(notice), *facts, f"next: {started.command('status')}")),
        ),
    )
    message = _message(about, subject, page, at=notice.as_of)
    place = place or PageThread(notice_thread(notice))
    key = "" if is_end(notice) else place.key or message.id
    return replace(message, thread=place.thread, key=key, resolves=place.resolves)


def closing_facts(account: str, snapshot: Snapshot | None, contacts: Sequence[Person] | None) -> tuple[str, ...]:
    """Return what the first reader of a notice about a close needs: what the account holds now, and whom to call."""
    scope = seen_scope(f"account/{account}", None, snapshot)
    call = () if contacts is None else (f"call: {contacts_text(contacts)}",)
    return (f"left: {_held_text(scope, _count_held(scope))}", *call)


def drill_message(message: Message) -> Message:
    """Return the message marked as of a drill: nothing is wrong, and there is nothing to do."""
    text = f"{DRILL}this is a rehearsal on the paper venue. Nothing is wrong, and there is nothing to do.\n\n"
    return replace(message, title=safe_line(f"{DRILL}{message.title}"), body=f"{text}{message.body}")


def _when_line(notice: Notice) -> str:
    return ": ".join(_when(notice.as_of))


def _text_of(notice: Notice, started: StartedAs) -> str:
    """Return the text with the store of the run in its commands."""
    return with_store(notice.text, started.store)


def repeats_message(repeats: RepeatedNotice, subject: MessageAttributes, started: StartedAs = UNKNOWN_START) -> Message:
    """Return the message about a repeated notice: the count since the last message, and the newest notice."""
    notice = repeats.newest
    group = (notice.policy, notice.scope, notice.kind, notice.subject or "")
    # By count and not by time, so that a run that continues after a crash does not send it again.
    about = digest("repeats", *group, str(to_micros(repeats.since)), str(repeats.total))
    counts = f"{repeats.count} more since the last message, {repeats.total} since {instant(repeats.since)}; the newest:"
    page = Page(
        f"{repeats.count} more: {notice_title(notice)}",
        sections=(
            Section("", (counts, _text_of(notice, started), _when_line(notice), f"next: {started.command('status')}")),
        ),
    )
    return replace(_message(about, subject, page, at=notice.as_of), count=repeats.count, thread=notice_thread(notice))


def _message(
    about: str, subject: MessageAttributes, page: Page, *, at: Instant, decision: str | None = None
) -> Message:
    return Message(
        id=about, at=at, event=subject.event, severity=subject.severity, policy=subject.policy, scope=subject.scope,
        title=safe_line(f"[{subject.severity}] {page.title}"),
        body="\n".join(shortened(legible(line), LONGEST_LINE) for line in text(page).split("\n")),
        level=subject.level, decision=decision, labels=dict(subject.labels),
    )  # fmt: skip


_ADDITIONAL = {"hedge": "temporary hedge", "breach": "answer to a lock breach"}


def _headline(decision: Decision) -> str:
    if decision.kind == "manual" or decision.is_unlock:
        return f"{command_text(decision)} by {decision.author or 'unknown'}: {decision.scope}"
    if decision.kind == "reset":
        by = decision.author or "its own condition"
        return f"reset to level {decision.level} by {by}: {decision.policy} on {decision.scope}"
    if decision.kind in _ADDITIONAL:
        return f"{_ADDITIONAL[decision.kind]}: {decision.policy} on {decision.scope}"
    if decision.is_withdrawal:
        return f"the suspicion has ended, its trading lock is lifted: {decision.policy} on {decision.scope}"
    if decision.is_suspicion:
        length = "" if decision.until is None else f" for {(decision.until - decision.as_of).total_seconds():g} s"
        return (
            f"suspicion: trading locked{length} while it is not known whether a fall of equity was a "
            f"loss: {decision.policy} on {decision.scope}"
        )
    return f"level {decision.level} {decision.stage}: {decision.policy} on {decision.scope}"


def _reasons(decision: Decision, texts: TriggerTexts) -> Iterator[str]:
    """Yield the triggers with their values and thresholds, the side that lost, and the reason."""
    for trigger in decision.triggers:
        yield f"{trigger.name}: {render_trigger(decision, trigger, texts)}"
    if decision.attribution is not None and decision.attribution.window:
        why = reason_once(decision.attribution.reason, (each.reason for each in decision.triggers))
        yield attribution_text(replace(decision.attribution, reason=why))
    if decision.reason:
        yield f"reason: {decision.reason}"
    yield from (f"left: {line}" for line in exposure_lines(decision.net_exposure, with_bases=False))


def _effect_texts(decision: Decision, *, is_enforced: bool) -> Iterator[str]:
    """Yield what is closed, cancelled and locked, or would be."""
    if decision.kind == "reset" or decision.is_withdrawal:
        return
    if not is_enforced:
        yield "this run only observes and made no order, cancel or lock; the policy would do this:"
    for effect in in_record_order(decision.effects):
        yield from _lines_of(effect)
    if not decision.effects:
        yield "nothing is closed, cancelled or locked"


def _lines_of(effect: Effect) -> Iterator[str]:
    """Yield a line for each order, and for a lock with its end; one line for an effect of any other kind."""
    match effect:
        case Orders(intents):
            yield from _bounded(order_texts(intents))
        case Lock(order):
            until = "it is lifted" if order.until is None else instant(order.until)
            yield f"lock {locked_place(order)} for {order.mode}, until {until}"
        case _:
            yield kind_of(effect).text(effect)


def _bounded(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:MOST_LINES]
    if len(lines) > MOST_LINES:
        yield f"and {len(lines) - MOST_LINES} more"


TriggerTexts = Mapping[tuple[str, str], "TriggerText"]
"""Policy and trigger → the trigger as the policy writes it."""


def trigger_texts(policies: PolicySet) -> TriggerTexts:
    """Return the triggers of the policies, by which a signal value is rendered in the unit of its threshold."""
    from killswitch.incident.record.source_places import trigger_text

    return {
        (graph.policy, trigger.name): trigger_text(graph, trigger)
        for graph in policies.graphs
        for trigger in graph.triggers
    }


def render_trigger(decision: Decision, trigger: TriggerReading, texts: TriggerTexts) -> str:
    """Render a trigger: `20.00% against >= 10%`, `at least 10.2% against >= 10%: REASON`; `true` for an expression."""
    from killswitch.incident.record.source_places import trigger_fact

    fact = trigger_fact(trigger, texts.get((decision.policy, trigger.name)))
    shown = "true" if fact.value == "true" else f"{fact.value} against {fact.threshold}"
    return shown if fact.reason is None else f"{shown}: {fact.reason}"
