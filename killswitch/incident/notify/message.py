"""Messages about decisions, ended closes and notices, each with a title and a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.routing import MessageAttributes
from killswitch.incident.notify.grouping import RepeatedNotice
from killswitch.incident.record.close_causes import command_text, order_texts
from killswitch.incident.record.filters import percent
from killswitch.model.decision import Decision, Notice
from killswitch.model.effects import Effect, Lock, Orders, in_record_order, kind_of
from killswitch.model.instant import to_micros
from killswitch.model.legible import CUT, legible, one_line, shortened
from killswitch.model.snapshot import Closing, Instant
from killswitch.model.words import NotificationEvent, Severity
from killswitch.render.formats import instant, money

if TYPE_CHECKING:
    from killswitch.graph.nodes import PolicySet
    from killswitch.incident.record.source_places import TriggerText
    from killswitch.model.decision import TriggerReading

MESSAGE_FORMAT: Final = "killswitch.notification/v1"

LONGEST_LINE = 300
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


encode_message = msgspec.json.Encoder(decimal_format="string").encode
decode_message = msgspec.json.Decoder(Message).decode


def digest(*parts: str) -> str:
    """Return an id that depends on the parts alone."""
    return blake2b("\x00".join(parts).encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()


def safe_line(text: str) -> str:
    """Return one line in which characters that move the cursor, reverse the text or are invisible are escaped."""
    return shortened(one_line(legible(text)), LONGEST_LINE)


def fit_message(message: Message, most: int, measure: Callable[[str], int] = len) -> str:
    """Return the text with its id in at most `most` characters, counted by `measure`, in whole lines.

    The last line of a shortened text counts the omitted lines and names the command that shows them.
    """
    end = f"\n\nnotification {message.id}"
    full_text = f"{message.body}{end}"
    if measure(full_text) <= most:
        return full_text
    lines = message.body.split("\n")
    further = "ksctl status" if message.decision is None else f"ksctl report {message.decision}"
    for kept in range(len(lines) - 1, 0, -1):
        left = len(lines) - kept
        ending = f"\n{CUT} {left} line{'' if left == 1 else 's'} more: {further}{end}"
        text = "\n".join(lines[:kept]) + ending
        if measure(text) <= most:
            return text
    short = f"{further}{end}" if measure(f"{further}{end}") <= most else further
    return shortened(short, max(1, most))


def decision_message(
    decision: Decision,
    subject: MessageAttributes,
    *,
    is_enforced: bool,
    corrects: Instant | None = None,
    texts: TriggerTexts | None = None,
    currency: str | None = None,
) -> Message:
    """Return the message about a stage that fires, a manual close, or a reset.

    `is_enforced` says whether orders, cancels and locks are made. `corrects` is since when the stage was reported as
    not fired. `texts` has the triggers as the policies write them. `currency` is that of the book, where it is known.
    """
    return _message(
        digest(subject.event, decision.id), subject, at=decision.as_of, decision=decision.id,
        title=_headline(decision)
        + ("" if is_enforced or decision.kind == "reset" else " (observed only: nothing was done)"),
        lines=(*_reasons(decision, texts or {}, corrects), *_effect_texts(decision, currency, is_enforced=is_enforced),
               f"see: ksctl explain {decision.id}"),
    )  # fmt: skip


def trial_message(severity: Severity, at: Instant) -> Message:
    """Return the message of `ksctl notify test`."""
    return Message(
        digest("trial", str(to_micros(at))), at, "notice", severity, "operator", "notify test",
        f"[{severity}] a test of the notification routes",
        "This is a test of whether this target receives messages. Nothing has happened, and there is nothing to do.",
    )  # fmt: skip


def closing_message(
    closing: Closing, decision: Decision, subject: MessageAttributes, *, at: Instant, currency: str | None = None
) -> Message:
    """Return the message about the end of a close: at target, or with what it has left.

    `currency` is that of its cost, where it is known.
    """
    outcome = "is at its target" if closing.status == "flat" else f"ended {closing.status}"
    left = [f"left: {each.contracts.normalize():f} {each.symbol} {each.position_side} on {each.account}" for each in
            closing.residual]  # fmt: skip
    if closing.status != "flat" and not left:
        left = ["left: unknown; check the positions at the venue"]
    cost = [] if closing.cost is None else [f"fees and slippage so far: {money(closing.cost, currency)}"]
    return _message(
        digest("closing", decision.id, closing.status), subject, at=at, decision=decision.id,
        title=f"the close {outcome}: {_headline(decision)}",
        lines=(f"decided {instant(decision.as_of)}", *_bounded(left), *cost, f"see: ksctl explain {decision.id}"),
    )  # fmt: skip


def notice_message(notice: Notice, subject: MessageAttributes) -> Message:
    """Return the message about a notice that a person must read."""
    about = digest("notice", str(to_micros(notice.as_of)), notice.policy, notice.scope, notice.kind, notice.text)
    return _message(
        about, subject, at=notice.as_of, decision=None, title=f"notice: {_notice_place(notice)}",
        lines=(notice.text, "see: ksctl status"),
    )  # fmt: skip


def repeats_message(repeats: RepeatedNotice, subject: MessageAttributes) -> Message:
    """Return the message about a repeated notice: the count since the last message, and the newest notice."""
    notice = repeats.newest
    group = (notice.policy, notice.scope, notice.kind, notice.subject or "")
    # By count and not by time, so that a run that continues after a crash does not send it again.
    about = digest("repeats", *group, str(to_micros(repeats.since)), str(repeats.total))
    made = _message(
        about, subject, at=notice.as_of, decision=None, title=f"notice: {_notice_place(notice)}: {repeats.count} more",
        lines=(
            f"{repeats.count} more since the last message, {repeats.total} since {instant(repeats.since)}; the newest:",
            notice.text,
            "see: ksctl status",
        ),
    )  # fmt: skip
    return replace(made, count=repeats.count)


def _notice_place(notice: Notice) -> str:
    return "the program itself" if notice.policy == "runner" else f"{notice.policy} on {notice.scope}"


def _message(
    about: str, subject: MessageAttributes, *, at: Instant, decision: str | None, title: str, lines: Sequence[str]
) -> Message:
    return Message(
        id=about, at=at, event=subject.event, severity=subject.severity, policy=subject.policy, scope=subject.scope,
        title=safe_line(f"[{subject.severity}] {title}"), body="\n".join(safe_line(line) for line in lines),
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


def _reasons(decision: Decision, texts: TriggerTexts, corrects: Instant | None) -> Iterator[str]:
    """Yield the triggers with their values and thresholds, the side that lost, and the reason."""
    if corrects is not None:
        yield f"this corrects the messages since {instant(corrects)}: the stage has fired now"
    for trigger in decision.triggers:
        since = "" if trigger.true_since is None else f", true since {instant(trigger.true_since)}"
        why = "" if trigger.reason is None else f" ({trigger.reason})"
        yield f"{trigger.name}: {render_trigger(decision, trigger, texts)}{since}{why}"
    found = decision.attribution
    if found is not None and found.window:
        shares = f"long {percent(found.long_share)}, short {percent(found.short_share)}"
        yield f"the loss is {found.source} ({shares}, over {found.window})"
    if decision.reason:
        yield f"reason: {decision.reason}"


def _effect_texts(decision: Decision, currency: str | None, *, is_enforced: bool) -> Iterator[str]:
    """Yield what is closed, cancelled and locked, or would be."""
    if decision.kind == "reset" or decision.is_withdrawal:
        return
    if not is_enforced:
        yield "this run only observes and made no order, cancel or lock; the policy would do this:"
    for effect in in_record_order(decision.effects):
        yield from _lines_of(effect)
    if not decision.effects:
        yield "nothing is closed, cancelled or locked"
    if decision.book is not None:
        before, after = decision.book.before, decision.book.after
        gross = f"{money(before.gross)} → {money(after.gross, currency)}"
        yield f"gross {gross}, net {money(before.net)} → {money(after.net, currency)}"


def _lines_of(effect: Effect) -> Iterator[str]:
    """Yield a line for each order, and for a lock with its end; one line for an effect of any other kind."""
    match effect:
        case Orders(intents):
            yield from _bounded(order_texts(intents))
        case Lock(order):
            until = "it is lifted" if order.until is None else instant(order.until)
            yield f"lock {order.scope} for {order.mode}, until {until}"
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
    """Render a trigger: `20.00% against >= 10%`; `true` for an expression."""
    from killswitch.incident.record.source_places import trigger_fact

    fact = trigger_fact(trigger, texts.get((decision.policy, trigger.name)))
    return "true" if fact.value == "true" else f"{fact.value} against {fact.threshold}"
