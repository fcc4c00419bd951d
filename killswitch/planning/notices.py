"""What a person must know of a tick that is not a decision."""

from __future__ import annotations

from killswitch.model.decision import Notice, NoticeKind, Severity
from killswitch.model.instant import SECOND, from_micros
from killswitch.model.snapshot import Event
from killswitch.planning.decide import Blocked, Proposal
from killswitch.planning.readings import why_unknown
from killswitch.planning.watch import Watch
from killswitch.signals.history import News

RESET = "reset"
"""`subject` of notices that answer a reset which found nothing to do."""


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


def unexplained(watch: Watch, now: int, change: News) -> Notice:
    """A change of equity that nothing explains: that it appeared, was explained, or counts as loss."""
    currency = watch.history.view.currency if watch.history.view is not None else None
    amount = f"{change.amount.normalize():f} {currency or ''}".strip()
    if change.kind == "lost":
        text = f"a fall of {amount} that nothing explained in time counts as loss"
        return _notice(watch, now, "unexplained", "page", text)
    if change.kind == "explained":
        return _notice(watch, now, "unexplained", "info", f"a change of {amount} is explained by the ledger now")
    if change.kind == "anew":
        return _notice(watch, now, "unexplained", "warning", f"{amount} came into a wiped-out account: a new series")
    grace = watch.prepared.terms.flow_grace / SECOND
    then = f"a fall counts as loss after {grace:g} s" if change.amount < 0 else "drawdown is an interval until then"
    text = f"equity changed by {amount} and no flow, fill or price explains it; waiting for the ledger, {then}"
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


def blocked(watch: Watch, now: int, found: Blocked) -> Notice:
    """A selected position that the venue's rules do not let us reduce now; dust is no news to be woken for."""
    return _notice(watch, now, "blocked", "warning" if found.dust else "page", found.why, found.symbol)


def not_latched(watch: Watch, now: int) -> Notice:
    """A reset that found nothing to reset."""
    return _notice(watch, now, "warning", "info", "a reset came, but no stage is latched", RESET)


def hand_not_followed(event: Event, now: int, text: str) -> Notice:
    """A close by hand that was not carried out, or not wholly."""
    scope = event.scope or "portfolio"
    return Notice(from_micros(now), "operator", scope, "nothing_selected", "page", text, event.id)


def hand_followed_blind(event: Event, now: int, text: str) -> Notice:
    """A close by force of what could not be read."""
    return Notice(from_micros(now), "operator", event.scope or "portfolio", "warning", "warning", text, event.id)


def reset_of_nothing(now: int, scope: str) -> Notice:
    """A reset whose scope nothing watches and nothing is latched on."""
    text = f"a reset came for {scope}, but no policy watches it and nothing is latched there"
    return Notice(from_micros(now), "operator", scope, "warning", "warning", text, RESET)
