"""Pauses of policies: commands that begin and end them, their end, and the alerts while they last.

A paused policy is evaluated and fires nothing new. What a firing has begun belongs to the firing and goes on: its
latch, its lock, its open closes, its pending close of accounts that cannot be read, and its reset.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from difflib import get_close_matches
from typing import Final

from killswitch.engine.state import partial_in_force
from killswitch.graph.nodes import Stages
from killswitch.model.alert import NO_ALERTS, Alert, Alerts, NoticeGroup
from killswitch.model.decision import Notice
from killswitch.model.flags import PORTFOLIO, Flag, Flags
from killswitch.model.instant import DAY, from_micros, to_micros
from killswitch.model.snapshot import Event
from killswitch.model.words import Severity
from killswitch.planning.scopes.evaluator import ScopeEvaluator
from killswitch.render.formats import instant

PAUSE_CHANGE: Final = "pause-"
"""How the subject of every notice about a pause begins: the id of its command, or of its end."""
LONGEST_PAUSE: Final = 30 * DAY
"""The longest pause (microseconds): what lasts longer belongs in the policy, as `disabled`."""
REMINDED_EVERY: Final = DAY
"""How often a pause is notified again while it lasts (microseconds)."""


def applied(event: Event, flags: Flags, policies: Collection[str], now: int) -> tuple[Flags, Notice]:
    """The flags after a `pause` or `resume` at `now` (microseconds), and the notice that answers it.

    A command that cannot be carried out changes nothing. `policies`: the names of those that run.
    """
    policy = Flag("", event.scope or PORTFOLIO, event.at).policy
    refused = _refusal(event, policy, flags, policies, now)
    if policy is None or refused is not None:
        return flags, _notice(now, policy or PORTFOLIO, refused or "", event.id, failed=True)
    by = f"by {event.author or 'unknown'} ({event.reason or 'no reason given'})"
    before, after = flags.pauses.get(policy), flags.after(event)
    if event.kind == "resume":
        return after, _notice(now, policy, f"{policy} is resumed {by}: it fires again from this tick on", event.id)
    earlier = "" if before is None else f", instead of until {instant(before.until)}"
    goes_on = "what it has begun goes on, with its locks and closes"
    text = f"{policy} is paused until {instant(event.until)}{earlier} {by}: it fires nothing new; {goes_on}"
    return after, _notice(now, policy, text, event.id)


def _refusal(event: Event, policy: str | None, flags: Flags, policies: Collection[str], now: int) -> str | None:
    """Why the command cannot be carried out; None if it can."""
    paused = flags.pauses
    if policy is None:
        return f"nothing is {event.kind}d: {event.scope or PORTFOLIO} is no policy, and only a policy is ever paused"
    if event.kind == "resume":
        known = ", ".join(sorted(paused)) or "none"
        return None if policy in paused else f"{policy} is not resumed: it is not paused. Paused now: {known}"
    if policy not in policies:
        return f"nothing is paused: {unknown_policy(policy, policies)}"
    why = _wrong_end(event, now)
    return None if why is None else f"{policy} is not paused: {why}"


def _wrong_end(event: Event, now: int) -> str | None:
    """Why a pause cannot have this end; None if it can."""
    if event.until is None:
        return "a pause needs an end"
    left = to_micros(event.until) - now
    if left <= 0:
        return f"the pause was to end at {instant(event.until)}, before this tick"
    too_long = f"a pause lasts at most {LONGEST_PAUSE // DAY} days; write `disabled` in the policy for longer"
    return too_long if left > LONGEST_PAUSE else None


def unknown_policy(name: str, known: Collection[str]) -> str:
    """That no policy has this name, with the one that was probably meant, or the names that there are."""
    near = get_close_matches(name, known, 1)
    hint = f", did you mean {near[0]}?" if near else f". Known: {', '.join(sorted(known)) or 'none'}"
    return f"no policy is called {name}{hint}"


def over(pause: Flag, now: int) -> Notice:
    """The notice that a pause has reached its end."""
    policy = pause.policy or ""
    text = (
        f"the pause of {policy} until {instant(pause.until)}, by {pause.author or 'unknown'}, is over: {policy} fires "
        "again from this tick on"
    )
    return _notice(now, policy, text, f"{PAUSE_CHANGE}over/{policy}", severity="warning")


def pause_alerts(pauses: Mapping[str, Flag], policies: Collection[str], now: int) -> Alerts:
    """Every pause in force: a warning, which becomes a page after a day and is repeated every day."""
    return Alerts(tuple(_alert(policy, pause, policies, now) for policy, pause in pauses.items()))


def _alert(policy: str, pause: Flag, policies: Collection[str], now: int) -> Alert:
    since = to_micros(pause.at)
    days = max(0, (now - since) // REMINDED_EVERY)
    severity: Severity = "page" if days else "warning"
    gone = "" if policy in policies else "; no policy of this name runs"
    lasting = f", for {days * 24} hours now" if days else ""
    text = (
        f"{policy} is paused until {instant(pause.until)}{lasting}, by {pause.author or 'unknown'} "
        f"({pause.reason or 'no reason given'}): it fires nothing new{gone}; `ksctl resume policy/{policy}` ends that"
    )
    group = NoticeGroup(policy, PORTFOLIO, "warning", "pause")
    return Alert(
        f"paused/{policy}/{since}", severity, text, group, since=since, measure=(Decimal(days),), resolves=False
    )


def held_back(evaluator: ScopeEvaluator, stages: Iterable[str]) -> Alerts:
    """A page for each of these stages that would fire now, if its policy was not paused.

    One with a pending close has fired already, and goes on.
    """
    pause, waiting = evaluator.pause, evaluator.state.waiting
    if pause is None:
        return NO_ALERTS
    return Alerts(
        tuple(
            Alert(
                f"paused-stage/{evaluator.policy}/{evaluator.scope}/{stage}", "page",
                f"{stage} would fire, and does not: {evaluator.policy} is paused until {instant(pause.until)} by "
                f"{pause.author or 'unknown'} ({pause.reason or 'no reason given'})",
                NoticeGroup(evaluator.policy, evaluator.scope, "nothing_selected", stage),
                f"the pause of {evaluator.policy} no longer keeps {stage} from firing",
            )
            for stage in stages
            if waiting is None or waiting.stage != stage
        )
    )  # fmt: skip


def begun(evaluator: ScopeEvaluator, eligible: Stages) -> Stages:
    """Those of the eligible stages that only go on with what they have begun, and that a pause does not hold back.

    It is the stage of a firing that could not latch, because accounts could not be read. One with a pending close is
    not among them: that goes on by itself, on the accounts that it waits for.
    """
    partial, waiting = partial_in_force(evaluator.state), evaluator.state.waiting
    if partial is None or partial.held_back or (waiting is not None and waiting.stage == partial.stage):
        return ()
    return tuple(stage for stage in eligible if stage.name == partial.stage)


def _notice(
    now: int, policy: str, text: str, subject: str, *, severity: Severity = "info", failed: bool = False
) -> Notice:
    if failed:
        title = "a policy is neither paused nor resumed"
        return Notice(from_micros(now), policy, PORTFOLIO, "nothing_selected", "warning", text, subject, title=title)
    return Notice(from_micros(now), policy, PORTFOLIO, "warning", severity, text, subject, title="a pause of a policy")
