"""Compares the decisions, notices and states of a step with what a scenario expects of it, both ways."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from killswitch.engine.notice_titles import OVER
from killswitch.engine.state import partial_in_force, stage_in_force
from killswitch.graph.nodes import PolicySet, Stage
from killswitch.incident.notify.message import decode_message
from killswitch.incident.notify.routing import NotificationRouter
from killswitch.incident.record.firing import exposure_lines
from killswitch.model.decision import Decision, Notice
from killswitch.model.lock_parts import strictest_mode
from killswitch.model.snapshot import Snapshot
from killswitch.model.store import Outgoing
from killswitch.model.words import LockMode, Place, Severity, place_text
from killswitch.planning.catastrophe_stops import stops_now
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.replayed_ticks import ReplayedTick
from killswitch.planning.scopes.evaluator import ScopeEvaluator
from killswitch.planning.scopes.trigger_status import status_of_trigger
from killswitch.scenario.cases import DECIDED, Expectation, Scenario, Subject, stops_text
from killswitch.scenario.heard import HeardSwitch
from killswitch.scenario.values import ClauseValue, reset_values, stage_values, trigger_values

EVERYTHING = ""
"""The name of the route that a comparison adds to read every message."""


PORTFOLIO = "portfolio"
NOTHING_MORE = "nothing more at this step"


class Failure(Struct, frozen=True):
    """One thing that is not as expected, at a time after the start.

    `wanted` and `seen` are each in a few words; `values` is what the parts of the expression were. `place` is that of
    the expectation, or of the scenario if nothing expects what `is_unexpected`.
    """

    at: timedelta
    place: Place
    wanted: str
    seen: str
    values: tuple[ClauseValue, ...] = ()
    is_unexpected: bool = False


class Seen(Struct, frozen=True):
    """A decision or a notice of a run, with the message that a person reads, and the routes that it reaches."""

    at: timedelta
    subject: Subject
    policy: str
    scope: str
    name: str
    lock: str
    lock_of: tuple[str, ...]
    """The parts of the scope that the lock is of; empty: the whole scope, or there is no lock."""
    orders: tuple[str, ...]
    cancels: tuple[str, ...]
    source: str | None
    notifies: tuple[str, ...]
    reason: str
    message: str
    severity: Severity | None = None
    """That of a notice."""
    is_over: bool = False
    """Whether it is a notice that something is over."""
    is_by_hand: bool = False
    """Whether it is the decision of a person."""

    @property
    def words(self) -> str:
        """What happened, in one line: `fires warn (circuit-breaker on account/main)`."""
        return f"{self.subject} {self.name} ({self.policy} on {self.scope})"


class _Lock(Struct, frozen=True):
    policy: str
    scope: str
    mode: LockMode
    until: datetime | None
    is_on_suspicion: bool


class LocksInForce:
    """The locks that the decisions of one run have written.

    A lock of a scope is the strictest of those of the whole scope that no reset of its policy has lifted and that have
    not ended; a lock of a side or of symbols leaves the rest of it free. A lock
    on the portfolio or a venue reaches its accounts; any other counts for the scope that the decision names.
    """

    def __init__(self) -> None:
        self._locks: list[_Lock] = []

    def apply(self, decisions: Iterable[Decision], now: datetime) -> None:
        """Add the locks of the decisions, and remove those that they lift or that have ended."""
        for decision in decisions:
            if decision.kind == "reset":
                self._locks = [
                    each for each in self._locks
                    if each.scope != decision.scope or (each.policy != decision.policy and not decision.is_unlock)
                ]  # fmt: skip
            elif decision.is_withdrawal:
                same = (decision.policy, decision.scope)
                self._locks = [it for it in self._locks if not it.is_on_suspicion or (it.policy, it.scope) != same]
            elif decision.lock is not None and decision.mode == "enforce":
                order = decision.lock
                whole = [part for part in order.parts if part.is_everything]
                self._locks += [
                    _Lock(decision.policy, order.scope, part.mode, part.until, decision.is_suspicion) for part in whole
                ]
        self._locks = [each for each in self._locks if each.until is None or each.until > now]

    def mode(self, scope: str, snapshot: Snapshot) -> str:
        """The mode of the strictest lock that reaches the scope: `reduce_only`, `all` or `none`."""
        reached = {scope}
        kind, _, name = scope.partition("/")
        if kind == "account":
            reached |= {PORTFOLIO} | {f"venue/{each.venue}" for each in snapshot.accounts if each.account == name}
        modes: list[LockMode] = [
            each.mode
            for each in self._locks
            if each.scope in reached and (each.until is None or each.until > snapshot.as_of)
        ]
        return strictest_mode(modes) if modes else "none"


class StepComparison:
    """Compares the steps of one run."""

    def __init__(self, policies: PolicySet, router: NotificationRouter, scenario: Scenario) -> None:
        """`router`: of the policy set with a further route `EVERYTHING`."""
        self._place = scenario.place
        self._notices = scenario.notices
        self._switches = {rule.name: HeardSwitch(rule, scenario.heard.get(rule.name, ())) for rule in policies.silences}
        self._graphs = {graph.policy: graph for graph in policies.graphs}
        self._router = router
        self._locks = LocksInForce()
        self._stop_rules = policies.stops

    def seen(self, at: timedelta, snapshot: Snapshot, tick: ReplayedTick) -> list[Seen]:
        """What a step has decided and notified."""
        found = [self._decided(at, snapshot, each) for each in tick.decisions]
        found += [self._notified(at, each) for each in tick.notices]
        self._locks.apply(tick.decisions, snapshot.as_of)
        return found

    def _decided(self, at: timedelta, snapshot: Snapshot, decision: Decision) -> Seen:
        subject, name = self._subject(decision)
        sent = self._router.route_decision(decision, snapshot, is_enforced=decision.mode == "enforce")
        message, routes = _message(sent)
        orders = tuple(sorted(f"{it.side} {it.contracts.normalize():f} {it.symbol}" for it in decision.intents))
        return Seen(
            at, subject, decision.policy, decision.scope, name,
            "none" if decision.lock is None else decision.lock.mode,
            () if decision.lock is None else tuple(place_text(it.side, it.symbols) for it in decision.lock.only),
            orders,
            tuple(sorted(it.order for it in decision.cancels)),
            None if decision.attribution is None else decision.attribution.source, routes,
            "; ".join((*((decision.reason,) if decision.reason else ()), *exposure_lines(decision.net_exposure))),
            message, is_by_hand=decision.author is not None,
        )  # fmt: skip

    def _subject(self, decision: Decision) -> tuple[Subject, str]:
        """What an expectation of the decision is about, and its name there."""
        if decision.is_unlock:
            return "decides", "unlock"
        if decision.kind == "reset":
            graph = self._graphs.get(decision.policy)
            stages: Sequence[Stage] = () if graph is None else graph.stages
            named = [each.name for each in stages if decision.stage == each.name]
            of_level = [each.name for each in stages if each.level == decision.previous_level]
            return "resets", next(iter((*named, *of_level)), decision.stage or "")
        if decision.kind is not None:
            return "decides", decision.kind
        return "fires", decision.stage or ""

    def _notified(self, at: timedelta, notice: Notice) -> Seen:
        message, routes = _message(self._router.route_notice(notice))
        return Seen(
            at, "notice", notice.policy, notice.scope, notice.kind, "none", (), (), (), None, routes, "",
            message or notice.text, notice.severity, notice.title.startswith(OVER),
        )  # fmt: skip

    def failures(
        self, expected: Iterable[Expectation], found: Sequence[Seen], interpreter: Interpreter, snapshot: Snapshot,
        at: timedelta,
    ) -> list[Failure]:  # fmt: skip
        """Every difference between what is expected of a step and what was seen, both ways."""
        failures: list[Failure] = []
        left = list(found)
        for each in expected:
            if each.subject not in (*DECIDED, "notice"):
                failure = self._state_failure(each, interpreter, snapshot)
                failures += [] if failure is None else [failure]
                continue
            matching = [it for it in left if _is_meant(each, it)]
            best = min(matching, key=lambda it: len(_differences(each, it)), default=None)
            if best is None:
                failures.append(self._missing(each, found, interpreter))
                continue
            # Several triggers become unknown in one step: a notice is expected of all of them at once.
            left = [it for it in left if it is not best and (each.subject != "notice" or it not in matching)]
            failures += [
                Failure(each.at, each.place, f"{each.words}: {wanted}", seen)
                for wanted, seen in _differences(each, best)
            ]
        fired = {(it.policy, it.scope) for it in found if it.subject == "fires"}
        for it in left:
            if it.subject != "notice":
                values = self._values(it.policy, it.scope, it.subject, it.name, interpreter)
                failures.append(Failure(at, self._place, NOTHING_MORE, it.words, values, is_unexpected=True))
            elif self._is_compared(it) and (it.policy, it.scope) not in fired:
                seen = f"{it.words}\n{it.message}"
                failures.append(Failure(at, self._place, NOTHING_MORE, seen, is_unexpected=True))
        return failures

    def _is_compared(self, notice: Seen) -> bool:
        """Whether the notice fails the scenario if nothing expects it; one of severity `info` is sent nowhere."""
        if self._notices == "all":
            return notice.severity != "info"
        return self._notices == "pages" and notice.severity == "page" and not notice.is_over

    def _missing(self, each: Expectation, found: Sequence[Seen], interpreter: Interpreter) -> Failure:
        others = "; ".join(it.words for it in found if it.subject == each.subject)
        values = self._values(each.policy, each.scope, each.subject, each.name, interpreter)
        return Failure(each.at, each.place, each.words, others or "nothing like it", values)

    def _values(
        self, policy: str, scope: str, subject: Subject, name: str, interpreter: Interpreter
    ) -> tuple[ClauseValue, ...]:
        evaluator = interpreter.evaluator(policy, scope)
        if evaluator is None:
            return ()
        stage = next((it for it in evaluator.compiled.graph.stages if it.name == name), None)
        if stage is None:
            return ()
        return reset_values(evaluator, stage) if subject == "resets" else stage_values(evaluator, stage)

    def _state_failure(self, each: Expectation, interpreter: Interpreter, snapshot: Snapshot) -> Failure | None:
        """The failure of an expectation about what is in force after the step; None if it is met."""
        if each.subject == "switch":
            phase = self._switches[each.name].phase(each.at // timedelta(microseconds=1))
            return None if phase == each.truth else Failure(each.at, each.place, each.words, f"{each.name} is {phase}")
        of_scope = self._of_scope(each, interpreter, snapshot)
        if of_scope is not None:
            what, seen = of_scope
            return None if seen == each.name else Failure(each.at, each.place, each.words, f"{what} {seen}")
        evaluator = interpreter.evaluator(each.policy, each.scope)
        if evaluator is None:
            return Failure(each.at, each.place, each.words, f"no snapshot has had {each.scope} yet")
        if each.subject == "in_force":
            return _stage_failure(each, evaluator)
        index = next(i for i, it in enumerate(evaluator.compiled.graph.triggers) if it.name == each.name)
        status = status_of_trigger(evaluator, index)
        truth = "unknown" if status.truth is None else str(status.truth).lower()
        is_met = {"held": status.held, "confirmed": status.confirmed}.get(each.truth or "", truth == each.truth)
        if is_met:
            return None
        state = "confirmed" if status.confirmed else "held" if status.held else "not held"
        return Failure(each.at, each.place, each.words, f"{truth}, {state}", trigger_values(evaluator, index))

    def _of_scope(self, each: Expectation, interpreter: Interpreter, snapshot: Snapshot) -> tuple[str, str] | None:
        """What is in force on a scope, whatever the policy, with its name; None if the expectation is of no such."""
        account = each.scope.removeprefix("account/")
        match each.subject:
            case "lock_in_force":
                return "lock", self._locks.mode(each.scope, snapshot)
            case "stops":
                return "stops", stops_text(self._stops(account, snapshot))
            case "may_open":
                return "may_open", _may_open(interpreter, account, snapshot)
        return None

    def _stops(self, account: str, snapshot: Snapshot) -> Iterator[str]:
        """What a run would do about the catastrophe stops of an account, as an expectation says it."""
        for found in stops_now(self._stop_rules, snapshot.accounts):
            if found.account != account:
                continue
            if found.unknown is not None:
                yield "unknown"
            yield from (f"cancel {order.id}" for order in found.leftovers)
            for line in found.lines:
                yield from (f"cancel {order.id}" for order in line.to_cancel)
                for each in line.to_place:
                    trigger = each.trigger_price.normalize()
                    yield f"{each.side} {each.amount.normalize():f} {each.symbol} at {trigger:f}"
                if line.problem is not None:
                    yield f"none for {line.key[0]}: {line.problem.why}"


def _may_open(interpreter: Interpreter, account: str, snapshot: Snapshot) -> str:
    """The share of its limits that an account may open, as an expectation says it."""
    cap = interpreter.recoveries.caps(snapshot.accounts).get(account)
    if cap is None or cap.share == 1:
        return "everything"
    return f"{float(cap.share) * 100:.3g}%" if cap.share else "nothing"


def _stage_failure(each: Expectation, evaluator: ScopeEvaluator) -> Failure | None:
    now = stage_in_force(evaluator.state) or "none"
    if now == each.name:
        return None
    stages = {it.name: it for it in evaluator.compiled.graph.stages}
    explained = stages.get(each.name) or stages.get(now)
    values = () if explained is None else stage_values(evaluator, explained)
    if each.name == "none" and explained is not None:
        values = (*values, *reset_values(evaluator, explained))
    unlatched = " without a latch: what it closes is not wholly known, or its `where` is true for no position"
    seen = f"{now} is in force" + ("" if partial_in_force(evaluator.state) is None else unlatched)
    return Failure(each.at, each.place, each.words, seen, values)


def _is_meant(expected: Expectation, seen: Seen) -> bool:
    """Whether the expectation is about this decision or notice, apart from its contents."""
    return (
        seen.subject == expected.subject
        and seen.name == expected.name
        and expected.policy in ("", seen.policy)
        and expected.scope in ("", seen.scope)
        and (expected.subject != "notice" or all(part in seen.message for part in expected.text))
    )


def _differences(expected: Expectation, seen: Seen) -> list[tuple[str, str]]:
    """(wanted, seen) of every part that differs."""
    found: list[tuple[str, str]] = []
    if expected.lock not in (None, seen.lock):
        found.append((f"lock {expected.lock}", f"lock {seen.lock}"))
    wanted_parts = () if expected.lock_of is None and expected.lock is not None else expected.lock_of
    if wanted_parts is not None and sorted(wanted_parts) != sorted(seen.lock_of):
        found.append((f"lock of {_reach(wanted_parts)}", f"lock of {_reach(seen.lock_of)}"))
    if expected.source not in (None, seen.source):
        found.append((f"source {expected.source}", f"source {seen.source or 'none'}"))
    for key, wanted, now in (("orders", expected.orders, seen.orders), ("cancels", expected.cancels, seen.cancels)):
        if wanted is not None and sorted(wanted) != sorted(now):
            found.append((f"{key} {_listed(sorted(wanted))}", f"{key} {_listed(now)}"))
    lacking = [route for route in expected.notifies if route not in seen.notifies]
    if lacking:
        found.append((f"routes {_listed(lacking)}", f"routes {_listed(seen.notifies)}"))
    if expected.reason is not None and expected.reason not in seen.reason:
        found.append((f"a reason with {json.dumps(expected.reason)}", seen.reason or "no reason"))
    found += [(f"a text with {json.dumps(part)}", seen.message) for part in expected.text if part not in seen.message]
    return found


def _reach(parts: Iterable[str]) -> str:
    return "the whole scope" if not tuple(parts) else _listed(sorted(parts))


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words) or "none"


def _message(sent: Iterable[Outgoing]) -> tuple[str, tuple[str, ...]]:
    """The text of a message, and the routes that it reaches."""
    text, routes = "", []
    for each in sent:
        message = decode_message(each.body)
        text = f"{message.title}\n{message.body}"
        if each.route != EVERYTHING:
            routes.append(each.route)
    return text, tuple(dict.fromkeys(routes))
