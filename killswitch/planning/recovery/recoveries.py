"""The ways back of all scopes over the ticks: what they are stored as, what they allow, and what is notified."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from msgspec import MsgspecError
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.engine.state import level_in_force, stage_in_force
from killswitch.graph.nodes import PolicySet
from killswitch.graph.recovery import ONE, RecoveryRule
from killswitch.model.decision import Notice
from killswitch.model.instant import from_micros, rfc3339
from killswitch.model.snapshot import AccountSnapshot, Event
from killswitch.model.store import DamagedStateError
from killswitch.planning.recovery.way_back import (
    EvaluatedScope,
    Happened,
    ReachedStep,
    RecoveryCap,
    WayBack,
    advance,
    approved_by,
    is_monitored,
    loss_share,
    missing_approvals,
    most_positions,
    progress_text,
)
from killswitch.planning.scopes.evaluator import ScopeEvaluator


class RecoveryView(ReachedStep, frozen=True, omit_defaults=True):
    """One way back, as people see it. `progress`: where it is, in one sentence."""

    progress: str
    clean_seconds: float
    needs_seconds: float
    warning: str | None = None
    approved: tuple[str, ...] = ()
    approvals_missing: int = 0
    is_monitored: bool = False
    positions: int | None = None
    """The smallest number of positions that the step allows its accounts; None: no limit, or nothing may be opened."""


_ENCODER = msgjson.Encoder()
_DECODER = msgjson.Decoder(list[WayBack])


OF_WAY_BACK: Final = "recovery"
"""The subject of every notice about a way back that answers no command."""


def approval_subject(policy: str, scope: str, step: int, since: datetime) -> str:
    """What an approval of the next step names. `since`: when the present one began, so that it counts only here."""
    return f"recovery/{policy}/{scope}/step/{step + 1}/since/{rfc3339(since)}"


class Recoveries:
    """The ways back that have begun, by policy and scope."""

    def __init__(self, policies: PolicySet) -> None:
        self._rules = _rules(policies)
        self._begun: dict[tuple[str, str], WayBack] = {}
        self._stored: tuple[WayBack, ...] = ()
        self._attends = False
        """Whether any evaluator has been evaluated otherwise than written."""

    def restore(self, blob: bytes | None) -> None:
        """Go on with what is stored; the time until the first evaluation is not watched. DamagedStateError."""
        try:
            stored = _DECODER.decode(blob) if blob else []
        except (MsgspecError, ValueError) as error:
            raise DamagedStateError(f"the stored ways back cannot be read ({error})") from error
        self._begun = {(each.policy, each.scope): replace(each, watched_at=None) for each in stored}
        self._stored = tuple(stored)

    def reload(self, policies: PolicySet, renamed: Mapping[str, str]) -> None:
        """Go on by the plans of the next set. `renamed`: former name → name of each policy that was renamed."""
        self._rules = _rules(policies)
        moved = (replace(each, policy=renamed.get(each.policy, each.policy)) for each in self._begun.values())
        self._begun = {(each.policy, each.scope): each for each in moved}

    def changed(self) -> bytes | None:
        """The ways back, to be stored with the tick; None if they are as at the last call."""
        now = tuple(self._begun.values())
        if now == self._stored:
            return None
        self._stored = now
        return _ENCODER.encode(now)

    @property
    def is_active(self) -> bool:
        """Whether any way back has begun and is not over."""
        return bool(self._begun)

    @property
    def interval(self) -> int | None:
        """The shortest interval that closer attention asks for now (microseconds); None: that of the run."""
        watches = (rule.monitoring for each in self._begun.values() if (rule := self._watching(each)) is not None)
        return min((it.interval for it in watches if it is not None and it.interval is not None), default=None)

    def attend(self, evaluators: Iterable[ScopeEvaluator]) -> None:
        """Let the scopes be evaluated as their ways back declare: by smaller thresholds, with earlier warnings."""
        if not self._begun and not self._attends:
            return
        self._attends = bool(self._begun)
        for evaluator in evaluators:
            rule = self._rules.get(evaluator.policy)
            if rule is None:
                evaluator.attend(1.0, None)
                continue
            found = self._begun.get((evaluator.policy, evaluator.scope))
            watch = None if found is None or not is_monitored(rule, found) else rule.monitoring
            share = ONE if found is None else loss_share(rule, found)
            evaluator.attend(float(share), None if watch is None else watch.warnings)

    def observe(self, evaluators: Iterable[ScopeEvaluator], now: int) -> list[Notice]:
        """Move the ways back by the evaluations of a tick at `now`; the notices of what has happened."""
        if not self._rules and not self._begun:
            return []
        issued = [self._without_plan(key, now) for key in tuple(self._begun) if key[0] not in self._rules]
        for evaluator in evaluators:
            rule = self._rules.get(evaluator.policy)
            if rule is None or evaluator.now != now or evaluator.compiled.graph.mode != "enforce":
                continue  # a tick for another account must not count for this scope
            issued += self._move(rule, evaluator, _seen(rule, evaluator, self._begun), now)
        return issued

    def note_trips(self, evaluators: Iterable[ScopeEvaluator], now: int) -> list[Notice]:
        """Begin the way back of each scope that has fired with this tick; the notices."""
        issued: list[Notice] = []
        for evaluator in evaluators:
            rule = self._rules.get(evaluator.policy)
            if rule is not None and evaluator.compiled.graph.mode == "enforce":
                stage = _stage_at(evaluator, rule.level)
                seen = EvaluatedScope(_accounts(evaluator), evaluator.compiled.graph.equity.max_gap, tripped=stage)
                issued += [] if stage is None else self._move(rule, evaluator, seen, now)
        return issued

    def approve(self, event: Event, now: int) -> Notice:
        """Count the approval of a step by the author of the event, who is verified already."""
        person, title = event.author or "nobody", "an approval does not count"
        found = next((it for it in self._begun.values() if _approvable(it) == event.approves), None)
        rule = None if found is None else self._rules.get(found.policy)
        if found is None or rule is None or event.author is None:
            text = f"{person} approves {event.approves or 'nothing'}, and no way back waits for this step"
            return _notice(event, now, "operator", "portfolio", Happened(title, text, "warning"))
        key = (found.policy, found.scope)
        self._begun[key], why = approved_by(rule, found, person)
        if why is not None:
            return _notice(event, now, *key, Happened(title, why, "warning"))
        text = f"step {found.step + 1} is approved by {person}"
        return _notice(event, now, *key, Happened("a step of the way back is approved", text))

    def caps(self, accounts: Iterable[AccountSnapshot]) -> dict[str, RecoveryCap]:
        """Account → what it may open now, for each account of a way back. `accounts`: of the snapshot."""
        accounts, found = tuple(accounts) if self._begun else (), dict[str, RecoveryCap]()
        for each in self._begun.values():
            rule = self._rules.get(each.policy)
            for name in each.accounts if rule is not None else ():
                assert rule is not None
                cap, before = _cap(rule, each, name, accounts), found.get(name)
                found[name] = cap if before is None else stricter(before, cap)
        return found

    def views(self) -> tuple[RecoveryView, ...]:
        """Every way back, for people."""
        return tuple(_view(self._rules[it.policy], it) for it in self._begun.values() if it.policy in self._rules)

    def _watching(self, way_back: WayBack) -> RecoveryRule | None:
        rule = self._rules.get(way_back.policy)
        return rule if rule is not None and is_monitored(rule, way_back) else None

    def _move(self, rule: RecoveryRule, evaluator: ScopeEvaluator, seen: EvaluatedScope, now: int) -> list[Notice]:
        key = (evaluator.policy, evaluator.scope)
        after, happened = advance(rule, self._begun.get(key), seen, *key, now)
        if after is not None:
            self._begun[key] = after
        else:
            self._begun.pop(key, None)
        return [_notice(None, now, *key, each) for each in happened]

    def _without_plan(self, key: tuple[str, str], now: int) -> Notice:
        del self._begun[key]
        text = f"{key[0]} has no recovery plan in force any more: its limits are whole again"
        return _notice(None, now, *key, Happened("a way back is over without its plan", text, "warning"))


def _rules(policies: PolicySet) -> dict[str, RecoveryRule]:
    """Policy → its plan. A policy that only observes has none in force: what it fires locks nothing."""
    return {it.policy: it.recovery for it in policies.graphs if it.recovery is not None and it.mode == "enforce"}


def _notice(event: Event | None, now: int, policy: str, scope: str, what: Happened) -> Notice:
    subject = OF_WAY_BACK if event is None else event.id
    return Notice(from_micros(now), policy, scope, "warning", what.severity, what.text, subject, title=what.title)


def _approvable(way_back: WayBack) -> str | None:
    """What an approval of its next step names; None while the ramp has not begun."""
    if way_back.phase != "ramp":
        return None
    return approval_subject(way_back.policy, way_back.scope, way_back.step, from_micros(way_back.since))


def _accounts(evaluator: ScopeEvaluator) -> tuple[str, ...]:
    view = evaluator.history.view
    return () if view is None else tuple(account.account for account in view.accounts)


def _stage_at(evaluator: ScopeEvaluator, level: int) -> str | None:
    """The stage in force, if it is at or above the level."""
    return stage_in_force(evaluator.state) if level_in_force(evaluator.state) >= level else None


def _seen(rule: RecoveryRule, evaluator: ScopeEvaluator, begun: Mapping[tuple[str, str], WayBack]) -> EvaluatedScope:
    """What the evaluation of this tick has found."""
    before = begun.get((evaluator.policy, evaluator.scope))
    is_asked = before is not None and before.phase == "health"
    return EvaluatedScope(
        accounts=_accounts(evaluator) or (() if before is None else before.accounts),
        max_gap=evaluator.compiled.graph.equity.max_gap,
        tripped=_stage_at(evaluator, rule.level),
        warning=None if before is None else _warning(evaluator),
        unwatched=None if before is None else _unwatched(evaluator),
        is_healthy=is_asked and evaluator.is_true(rule.health.condition),
    )


def _warning(evaluator: ScopeEvaluator) -> str | None:
    """Why the evaluation is not clean: a stage in force, a trigger that is true, or a share of a threshold."""
    triggers = evaluator.compiled.graph.triggers
    if level_in_force(evaluator.state):
        return f"{stage_in_force(evaluator.state)} is in force"
    held = [each.name for i, each in enumerate(triggers) if evaluator.state.triggers.held >> i & 1]
    if held:
        return f"{' and '.join(held)} is true"
    near = sorted({key.rpartition("/")[0] for key in evaluator.warned})
    return f"{' and '.join(near)} is near its threshold" if near else None


def _unwatched(evaluator: ScopeEvaluator) -> str | None:
    """Why the evaluation has not seen everything; None if it has."""
    if not evaluator.fires(evaluator.now):
        return f"{evaluator.policy} is paused or disabled"
    if evaluator.history.unknown is not None:
        return "the equity of the scope is unknown"
    if evaluator.eligible:
        return f"{' and '.join(sorted(evaluator.eligible))} may fire"
    triggers = evaluator.compiled.graph.triggers
    unknown = [each.name for i, each in enumerate(triggers) if evaluator.state.triggers.unknown >> i & 1]
    return f"{' and '.join(unknown)} is unknown" if unknown else None


def _cap(rule: RecoveryRule, way_back: WayBack, account: str, accounts: Sequence[AccountSnapshot]) -> RecoveryCap:
    is_open = way_back.phase == "ramp"
    hedges, begun = _hedges(rule, account, accounts) if rule.positions is not None else ((), ())
    return RecoveryCap(
        plan=rule.name, policy=way_back.policy, scope=way_back.scope, phase=way_back.phase,
        since=from_micros(way_back.since), step=way_back.step, steps=rule.ramp.last,
        share=rule.ramp.share(account, way_back.step) if is_open else Decimal(0), why=progress_text(rule, way_back),
        positions=rule.most_positions(account, way_back.step) if is_open else rule.positions,
        hedges=hedges, begun=begun,
    )  # fmt: skip


def _hedges(
    rule: RecoveryRule, account: str, accounts: Sequence[AccountSnapshot]
) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """The symbols of an account that one hedge joins, and those of hedges with a leg that is held elsewhere."""
    held = {(each.account, row.symbol) for each in accounts for row in each.positions or () if row.contracts}
    hedges: list[tuple[str, ...]] = []
    begun: list[str] = []
    for hedge in rule.hedges:
        own = tuple(leg.symbol for leg in hedge.legs if leg.account == account)
        hedges += [own] if own else []
        if any((leg.account, leg.symbol) in held for leg in hedge.legs if leg.account != account):
            begun += own
    return tuple(hedges), tuple(begun)


def stricter(one: RecoveryCap, other: RecoveryCap) -> RecoveryCap:
    """The stricter of two, with the smaller number of positions of both, and the hedges of both."""
    first = min(one, other, key=lambda each: each.share)
    counts = [each.positions for each in (one, other) if each.positions is not None]
    hedges = tuple(dict.fromkeys((*one.hedges, *other.hedges)))
    begun = tuple(dict.fromkeys((*one.begun, *other.begun)))
    return replace(first, positions=min(counts, default=None), hedges=hedges, begun=begun)


def _view(rule: RecoveryRule, way_back: WayBack) -> RecoveryView:
    is_open = way_back.phase == "ramp"
    return RecoveryView(
        plan=rule.name, policy=way_back.policy, scope=way_back.scope, phase=way_back.phase,
        since=from_micros(way_back.since), step=way_back.step, steps=rule.ramp.last,
        share=rule.ramp.smallest(way_back.accounts, way_back.step) if is_open else Decimal(0),
        progress=progress_text(rule, way_back), clean_seconds=way_back.clean / 1e6,
        needs_seconds=rule.ramp.every / 1e6, warning=way_back.warned, approved=way_back.approved,
        approvals_missing=missing_approvals(rule, way_back), is_monitored=is_monitored(rule, way_back),
        positions=most_positions(rule, way_back) if is_open else None,
    )  # fmt: skip
