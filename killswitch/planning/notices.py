"""What a person must know of a tick that is not a decision."""

from __future__ import annotations

from killswitch.model.decision import Notice, NoticeKind, Severity
from killswitch.model.instant import from_micros
from killswitch.planning.decide import Proposal
from killswitch.planning.readings import why_unknown
from killswitch.planning.watch import Watch
from killswitch.signals.history import Unexplained


def _notice(
    watch: Watch, now: int, kind: NoticeKind, severity: Severity, text: str, subject: str | None = None
) -> Notice:
    return Notice(from_micros(now), watch.policy, watch.scope, kind, severity, text, subject)


def unknown(watch: Watch, now: int, triggers: tuple[int, ...]) -> list[Notice]:
    """Triggers that stayed unknown past their grace. One that only warns on unknown does not page."""
    found = []
    for i in triggers:
        trigger = watch.prepared.graph.triggers[i]
        severity: Severity = "warning" if trigger.on_unknown == "warn" else "page"
        text = f"{trigger.name} is unknown ({trigger.on_unknown}): {why_unknown(watch, trigger)}"
        found.append(_notice(watch, now, "unknown", severity, text, trigger.name))
    return found


def unexplained(watch: Watch, now: int, change: Unexplained) -> Notice:
    """A change of equity that nothing explains: that it appeared, was explained, or counts as loss."""
    if change.kind == "lost":
        text = f"a fall of {change.amount} that nothing explained in time counts as loss"
        return _notice(watch, now, "unexplained", "page", text)
    if change.kind == "explained":
        return _notice(watch, now, "unexplained", "info", f"a change of {change.amount} is explained now")
    text = f"equity changed by {change.amount} and nothing explains it: deposit or gain, withdrawal or loss?"
    return _notice(watch, now, "unexplained", "warning", text)


def nothing_selected(watch: Watch, now: int, proposal: Proposal) -> Notice:
    """A stage would have fired, and would have closed nothing of a book that is not empty."""
    attribution = proposal.decision.attribution
    source = attribution.source if attribution else "UNKNOWN"
    why = watch.history.unknown or f"with the loss {source}, its close selects no position"
    text = f"{proposal.stage.name} should fire, but {why}; it is not latched"
    return _notice(watch, now, "nothing_selected", "page", text, proposal.stage.name)


def uncorroborated(watch: Watch, now: int, stage: str, why: str) -> Notice:
    """A stage's prints did not hold."""
    return _notice(watch, now, "uncorroborated", "page", f"{stage} did not fire: {why}", stage)


def blocked(watch: Watch, now: int, why: str) -> Notice:
    """A selected position that the venue's rules do not let us reduce."""
    return _notice(watch, now, "blocked", "warning", why)


def not_latched(watch: Watch, now: int) -> Notice:
    """A reset that found nothing to reset."""
    return _notice(watch, now, "warning", "info", "a reset came, but no stage is latched")
