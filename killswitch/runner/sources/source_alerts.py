"""What is shown and notified of a source during a run: one text, one state, in status, metric and page."""

from __future__ import annotations

from decimal import Decimal

from msgspec.structs import replace

from killswitch.model.alert import NO_ALERTS, Alert, Alerts
from killswitch.model.words import Severity
from killswitch.source.candidate import SourceProblem
from killswitch.source.sync_decision import culprit_key
from killswitch.source.sync_state import SourceCondition, SourceState
from killswitch.telemetry.metrics import SourceGauges


def described(found: SourceCondition) -> str:
    """Sync and health in a sentence, with what is waited for and the culprit."""
    parts: list[str] = [found.sync, found.health]
    if found.wait is not None:
        parts.append(f"waits: {found.wait.text}")
    if found.culprit is not None:
        parts.append(culprit_text(found.culprit))
    return "; ".join(parts)


def culprit_text(problem: SourceProblem) -> str:
    """A problem with its place, its commit and the person whose key signed it."""
    place = "" if problem.file is None else f"{problem.file}:{problem.line}: " if problem.line else f"{problem.file}: "
    commit = "" if problem.commit is None else f", commit {problem.commit[:12]}"
    person = "" if problem.principal is None else f", signed by {problem.principal}"
    return f"{place}{problem.code} {problem.text}{commit}{person}. {problem.fix}"


def source_alerts(name: str, state: SourceState, found: SourceCondition) -> Alerts:
    """The alerts of a source: its culprit, what fires on arrival, and that it is suspended."""
    alerts: list[Alert] = []
    if found.culprit is not None:
        text = f"the policy source {name} is {found.sync} and {found.health}: {culprit_text(found.culprit)}"
        severity: Severity = "page" if found.culprit.is_page else "warning"
        over = f"the policy source {name} is healthy again"
        alerts.append(Alert(f"source/culprit/{culprit_key(found.culprit)}", severity, text, over=over))
    if found.wait is not None and found.wait.what == "arrival" and state.head is not None:
        key = f"source/arrival/{state.head.folder_digest}"
        text = f"a change of the policies from {name} is held: {found.wait.text}"
        alerts.append(Alert(key, "page", text, over="the change is no longer held for what it would fire"))
    hold = found.hold
    if hold is not None:
        reminders = hold.lasted // hold.remind if hold.remind > 0 else 0
        text = f"the policy source {name} is suspended ({hold.kind} by {hold.author}: {hold.reason})"
        over = f"the policy source {name} is no longer suspended"
        alerts.append(
            Alert(f"source/suspended/{hold.kind}/{hold.at}", "warning", text, over=over, measure=(Decimal(reminders),))
        )
    return Alerts(tuple(alerts)) if alerts else NO_ALERTS


def source_gauges(found: SourceCondition) -> SourceGauges:
    """The numbers of a source for metrics, in seconds."""
    wait = found.wait
    is_pending = wait is not None and wait.what == "delay" and wait.left is not None
    return SourceGauges(
        sync=found.sync,
        health=found.health,
        suspended=None if found.hold is None else found.hold.kind,
        answer_age=None if found.answer_age is None else found.answer_age / 1_000_000,
        commit_age=None if found.commit_age is None else found.commit_age / 1_000_000,
        pending=wait.left / 1_000_000 if is_pending and wait is not None and wait.left is not None else None,
    )


def without_time(state: SourceState) -> SourceState:
    """The state without what only counts time, so that a second that has passed is no event."""
    head, hold = state.head, state.hold
    return replace(
        state,
        answer_age=0,
        answered_at=None,
        head=None if head is None else replace(head, reviewed_for=0, delayed=0, shadowed=None),
        hold=None if hold is None else replace(hold, left=0, lasted=0),
    )
