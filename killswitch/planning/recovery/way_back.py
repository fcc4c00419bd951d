"""The way back of one policy on one scope: trip, health, then steps. Pure: time is an argument, in microseconds.

| phase     | until                                            | what may be opened                        |
|-----------|--------------------------------------------------|-------------------------------------------|
| `tripped` | the stage in force is reset                      | nothing                                   |
| `health`  | the health condition has been true for its `for` | nothing                                   |
| `ramp`    | the last step, and the end of the monitoring     | the step's share of the accounts' limits  |

Clean time is the time between two evaluations in a row that both know everything and find neither warning nor trip, at
most `max_gap` apart. So a gap, a restart and an unknown add nothing to it and take nothing from it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.recovery import ONE, RecoveryRule
from killswitch.model.applied_set import same_person
from killswitch.model.instant import SECOND
from killswitch.model.snapshot import Instant
from killswitch.model.words import Severity
from killswitch.render.formats import count_of
from killswitch.signals.arguments import span

Phase = Literal["tripped", "health", "ramp"]


class WayBack(Struct, frozen=True, omit_defaults=True):
    """How far the way back of a policy on a scope has come, as it is stored."""

    policy: str
    scope: str
    accounts: tuple[str, ...]
    phase: Phase
    since: int
    """When the phase or the step began."""
    step: int = 0
    clean: int = 0
    """Clean time of the step."""
    attended: int = 0
    """Watched time since the first step, which the monitoring counts."""
    watched_at: int | None = None
    """The last evaluation, if it knew everything; None also after a restart."""
    healthy_since: int | None = None
    warned: str | None = None
    """The warning in force."""
    approved: tuple[str, ...] = ()
    """The people who have approved the next step."""
    awaits: bool = False
    """Whether the next step waits for approvals, which was notified."""
    reported_at: int | None = None


class EvaluatedScope(Struct, frozen=True):
    """What one evaluation of the scope has found. `unwatched`: what was not known; None: everything was known."""

    accounts: tuple[str, ...]
    max_gap: int
    tripped: str | None = None
    """The stage in force at or above the plan's level."""
    warning: str | None = None
    unwatched: str | None = None
    is_healthy: bool = False


class Happened(Struct, frozen=True):
    """What people are notified of."""

    title: str
    text: str
    severity: Severity = "info"


class ReachedStep(Struct, frozen=True, omit_defaults=True):
    """How far one way back is. `share`: of every limit that it reduces; 0 while nothing may be opened."""

    plan: str
    policy: str
    scope: str
    phase: Phase
    since: Instant
    step: int
    steps: int
    share: Decimal


class RecoveryCap(ReachedStep, frozen=True, omit_defaults=True):
    """What the ways back allow an account now: the smallest step of them.

    `why`: the reason of a share of 0. `hedges`: symbols of the account that count as one position; `begun`: those of
    hedges that are open on another account, so that the last leg is never refused.
    """

    why: str
    positions: int | None = None
    hedges: tuple[tuple[str, ...], ...] = ()
    begun: tuple[str, ...] = ()


Moved = tuple[WayBack | None, tuple[Happened, ...]]
"""The way back after an evaluation, None where it is over or has not begun, and what has happened."""

_TITLE: Final = "the way back after a reset"


def advance(
    rule: RecoveryRule, before: WayBack | None, seen: EvaluatedScope, policy: str, scope: str, now: int
) -> Moved:
    """The way back after one evaluation at `now`."""
    if seen.tripped is not None:
        return _tripped(rule, before, seen, policy, scope, now)
    if before is None:
        return None, ()
    before = replace(before, accounts=seen.accounts)
    if before.phase == "tripped":
        text = f"{before.policy} is reset: nothing is opened until it is healthy, then {_size(rule, before)}"
        return replace(before, phase="health", since=now), (Happened(_TITLE, text),)
    if before.phase == "health":
        return _healthy(rule, before, seen, now)
    return _on_ramp(rule, before, seen, now)


def approved_by(rule: RecoveryRule, before: WayBack, person: str) -> tuple[WayBack, str | None]:
    """The way back after a person has approved its next step, and why the approval does not count, if it does not."""
    if not rule.ramp.approvals:
        return before, "no step needs an approval"
    if same_person(person) in map(same_person, before.approved):
        return before, f"{person} has approved this step already, and one person counts once"
    return replace(before, approved=(*before.approved, person)), None


def missing_approvals(rule: RecoveryRule, way_back: WayBack) -> int:
    """How many more people must approve the next step."""
    if way_back.phase != "ramp" or way_back.step >= rule.ramp.last:
        return 0
    return max(0, rule.ramp.approvals - len(way_back.approved))


def most_positions(rule: RecoveryRule, way_back: WayBack) -> int | None:
    """The smallest number of positions that the step allows an account; None: no limit."""
    counts = (rule.most_positions(account, way_back.step) for account in way_back.accounts)
    return min((each for each in counts if each is not None), default=None)


def is_monitored(rule: RecoveryRule, way_back: WayBack) -> bool:
    """Whether closer attention is due: from the trip until its watched time after the first step is over."""
    return rule.monitoring is not None and way_back.attended < rule.monitoring.lasts


def loss_share(rule: RecoveryRule, way_back: WayBack) -> Decimal:
    """The share by which thresholds of losses shrink; 1 where they are as written."""
    if way_back.phase != "ramp" or rule.ramp.thresholds == "fixed":
        return ONE
    return rule.ramp.smallest(way_back.accounts, way_back.step)


def _tripped(
    rule: RecoveryRule, before: WayBack | None, seen: EvaluatedScope, policy: str, scope: str, now: int
) -> Moved:
    if before is not None and before.phase == "tripped":
        return replace(before, accounts=seen.accounts), ()
    if before is None:
        text = f"{seen.tripped} has fired: from now on nothing is opened, until {policy} is reset and healthy"
        return WayBack(policy, scope, seen.accounts, "tripped", now), (Happened(_TITLE, text, "warning"),)
    back = rule.ramp.steps_back if before.phase == "ramp" else 0  # before the ramp it has fallen back already
    step = 0 if back is None else max(0, before.step - back)
    after = WayBack(policy, scope, seen.accounts, "tripped", now, step)
    where = "to the start" if step == 0 else f"from step {before.step} to step {step}"
    text = f"{seen.tripped} has fired on the way back, which falls back {where}: nothing is opened until it is reset"
    return after, (Happened("the way back falls back", text, "warning"),)


def _healthy(rule: RecoveryRule, before: WayBack, seen: EvaluatedScope, now: int) -> Moved:
    if seen.unwatched is not None or not seen.is_healthy:
        return replace(before, healthy_since=None, watched_at=None), ()
    since = before.healthy_since
    if since is None or before.watched_at is None or now - before.watched_at > seen.max_gap:
        since = now
    if now - since < rule.health.hold:
        return replace(before, healthy_since=since, watched_at=now), ()
    after = WayBack(
        before.policy, before.scope, before.accounts, "ramp", now, before.step, watched_at=now, reported_at=now
    )
    text = f"{before.policy} is healthy: {_step_text(rule, after)} begins, with {_size(rule, after)}"
    return after, (Happened("a step of the way back", text),)


def _on_ramp(rule: RecoveryRule, before: WayBack, seen: EvaluatedScope, now: int) -> Moved:
    if seen.unwatched is not None:
        return replace(before, watched_at=None), ()
    passed = 0 if before.watched_at is None else now - before.watched_at
    passed = passed if passed <= seen.max_gap else 0
    after = replace(before, watched_at=now, attended=before.attended + passed)
    happened: list[Happened] = []
    if seen.warning is not None and before.step < rule.ramp.last:
        if before.warned is None:
            text = f"{_step_text(rule, before)} starts its time again once this is over: {seen.warning}"
            happened.append(Happened("a warning on the way back", text, "warning"))
        after = replace(after, clean=0, warned=seen.warning, awaits=False)
    elif before.warned is not None:
        after = replace(after, clean=0, warned=None)
        happened.append(Happened("a warning on the way back is over", f"{_step_text(rule, after)} counts again"))
    else:
        after = replace(after, clean=before.clean + passed)
        after, more = _stepped(rule, after, now)
        happened += more
    return _ended(rule, before, after, happened, now)


def _stepped(rule: RecoveryRule, way_back: WayBack, now: int) -> tuple[WayBack, list[Happened]]:
    """The next step, if its time is over and enough people have approved it."""
    if way_back.step >= rule.ramp.last or way_back.clean < rule.ramp.every:
        return way_back, []
    missing = missing_approvals(rule, way_back)
    if missing:
        if way_back.awaits:
            return way_back, []
        text = f"step {way_back.step + 1} waits for {count_of(missing, 'approval')} by other people"
        return replace(way_back, awaits=True), [Happened("the way back waits for approvals", text, "warning")]
    by = f", approved by {' and '.join(way_back.approved)}" if way_back.approved else ""
    after = replace(way_back, step=way_back.step + 1, since=now, clean=0, approved=(), awaits=False)
    text = f"{_step_text(rule, after)} begins, with {_size(rule, after)}{by}"
    return after, [Happened("a step of the way back", text)]


def _ended(rule: RecoveryRule, before: WayBack, after: WayBack, happened: list[Happened], now: int) -> Moved:
    """The end of the monitoring and of the way back, and the report that is due."""
    watch = rule.monitoring
    if watch is not None and is_monitored(rule, before) and not is_monitored(rule, after):
        text = f"the closer attention of {span(watch.lasts)} is over"
        happened.append(Happened("closer attention is over", text))
    if after.step >= rule.ramp.last and not is_monitored(rule, after):
        return None, tuple(happened)
    every = None if watch is None or not is_monitored(rule, after) else watch.report_every
    if every is not None and now - (after.reported_at or after.since) >= every:
        after = replace(after, reported_at=now)
        happened.append(Happened("the way back so far", progress_text(rule, after)))
    return after, tuple(happened)


def progress_text(rule: RecoveryRule, way_back: WayBack) -> str:
    """Where the way back is, in one sentence."""
    match way_back.phase:
        case "tripped":
            return "waits for a reset; nothing is opened"
        case "health":
            return "waits for the health condition; nothing is opened"
    if way_back.step >= rule.ramp.last:
        return "the full size, with closer attention"
    if way_back.warned is not None:
        waits = f"pauses: {way_back.warned}"
    else:
        times = (span(each) for each in (min(way_back.clean, rule.ramp.every) // SECOND * SECOND, rule.ramp.every))
        waits = "{} of {} clean".format(*times)
    missing = missing_approvals(rule, way_back)
    approvals = f"; {count_of(missing, 'approval')} missing for the next step" if missing else ""
    return f"{_step_text(rule, way_back)}, {_size(rule, way_back)}: {waits}{approvals}"


def _step_text(rule: RecoveryRule, way_back: WayBack) -> str:
    return f"step {way_back.step} of {rule.ramp.last}"


def _size(rule: RecoveryRule, way_back: WayBack) -> str:
    """What the step allows."""
    shares = sorted({rule.ramp.share(account, way_back.step) for account in way_back.accounts} or {ONE})
    text = " to ".join(f"{float(share) * 100:.3g}%" for share in dict.fromkeys((shares[0], shares[-1])))
    most = most_positions(rule, way_back)
    return f"{text} of the limits" + ("" if most is None else f" and at most {count_of(most, 'position')}")
