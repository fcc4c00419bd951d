"""Routes the messages of a tick to their targets by the routes of a policy set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

from msgspec.structs import replace

from killswitch.graph.nodes import Graph, PolicySet, Stage
from killswitch.graph.routing import MessageAttributes
from killswitch.incident.notify.grouping import RepeatedNotice
from killswitch.incident.notify.message import (
    Message,
    MessageContext,
    closing_message,
    decision_message,
    digest,
    drill_message,
    encode_message,
    notice_message,
    repeats_message,
    trigger_texts,
)
from killswitch.incident.notify.scope_members import ScopeMembers, members_of, seen_scope
from killswitch.incident.record.checklist import UNKNOWN_START, StartedAs
from killswitch.incident.record.document import Person
from killswitch.incident.record.firing import common_currency
from killswitch.incident.record.first_minute import next_stage_text
from killswitch.incident.record.incident_decisions import Runbooks
from killswitch.incident.record.results import RecordedDecision
from killswitch.incident.record.source_places import ladder_of
from killswitch.model.decision import Decision, Notice
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import IN_PROGRESS, AccountSnapshot, Closing, Instant, Snapshot
from killswitch.model.store import Outgoing
from killswitch.model.words import NotificationEvent, Severity
from killswitch.planning.scopes.trigger_status import MachineStatus
from killswitch.render.formats import duration_text


class NotificationRouter:
    """Addresses messages under one policy set."""

    def __init__(self, policies: PolicySet, started: StartedAs = UNKNOWN_START) -> None:
        """`started` is how the run was started, so that the commands of messages are complete."""
        self._started = started
        self._routes = policies.routes
        self._texts = trigger_texts(policies)
        self._graphs = {graph.policy: graph for graph in policies.graphs}
        self._strategies = policies.strategies
        self.runbooks: Runbooks | None = None
        """The runbooks of the policy set; None where the store does not have them."""

    @property
    def has_routes(self) -> bool:
        """Whether the policy set has a route."""
        return bool(self._routes)

    def route_decision(
        self,
        decision: Decision,
        snapshot: Snapshot | None = None,
        *,
        is_enforced: bool,
        corrects: Instant | None = None,
        is_paged: bool = False,
        incident: str | None = None,
        thread: str = "",
        machines: Sequence[MachineStatus] = (),
    ) -> Iterator[Outgoing]:
        """Yield the messages about a stage that fires, a manual close, a reset or a suspicion.

        `snapshot`, of this tick, has the currencies. `corrects` is since when the stage was reported as not fired.
        `is_paged` says that a page about the same unexplained fall was just sent, so that a suspicion is a warning.
        `incident` is the id of the decision's incident, where it is known; `thread` that of the messages about it;
        `machines` are the scopes after the tick.
        """
        if decision.is_hold:
            subject = self._subject("notice", "warning", decision, None, lambda stage: True)
        elif decision.is_suspicion:
            subject = self._suspicion_subject(decision, is_paged=is_paged)
        else:
            subject = self._decision_subject("reset" if decision.kind == "reset" else "fired", decision)
        context = MessageContext(
            self._started, self._texts, snapshot, self._book_currency(decision, snapshot), incident,
            self._members(decision, snapshot),
            tuple(outlook(decision, self._graphs.get(decision.policy), self._started)),
            self._ahead(decision, snapshot, machines), self._contacts(decision),
        )  # fmt: skip
        message = decision_message(decision, subject, context, is_enforced=is_enforced, corrects=corrects)
        yield from self._route(replace(message, thread=thread or decision.id), subject)

    def _ahead(self, decision: Decision, snapshot: Snapshot | None, machines: Sequence[MachineStatus]) -> str | None:
        """The stage above the one that fired, with its distance; None of what no stage of a policy decided."""
        graph = self._graphs.get(decision.policy)
        if graph is None or decision.kind is not None:
            return None
        texts = {name: text for (policy, name), text in self._texts.items() if policy == decision.policy}
        mine = (each.triggers for each in machines if (each.policy, each.scope) == (decision.policy, decision.scope))
        equity, currency = seen_scope(decision.scope, self._members(decision, snapshot), snapshot).equity
        return next_stage_text(decision.level, ladder_of(graph), texts, next(mine, ()), equity, currency)

    def _contacts(self, decision: Decision) -> tuple[Person, ...] | None:
        """The contacts of the stage's runbook; of a close by hand, those of every runbook. None: not known."""
        if self.runbooks is None or decision.is_suspicion:
            return None
        if decision.kind == "manual":
            facts = [each for stages in self.runbooks.values() for each in stages.values()]
        else:
            stage = self.runbooks.get(decision.policy, {}).get(decision.stage or "")
            facts = [] if stage is None else [stage]
        return tuple(dict.fromkeys(person for each in facts for person in each.contacts))

    def route_closing(
        self,
        closing: Closing,
        decision: Decision,
        at: Instant,
        snapshot: Snapshot | None = None,
        recorded: RecordedDecision | None = None,
        thread: str = "",
    ) -> Iterator[Outgoing]:
        """Yield the messages about a close that has ended; none about one under way.

        `snapshot` has the currencies and positions, `recorded` the results, `thread` is that of the incident.
        """
        if closing.status not in IN_PROGRESS:
            subject = self._decision_subject("closed" if closing.status == "flat" else "residual", decision)
            currency = None if snapshot is None else common_currency(_accounts_at_work(decision, snapshot))
            context = MessageContext(
                self._started, self._texts, snapshot, currency, members=self._members(decision, snapshot)
            )
            message = closing_message(closing, decision, subject, context, at=at, recorded=recorded)
            yield from self._route(replace(message, thread=thread or decision.id), subject)

    def route_notice(self, notice: Notice) -> Iterator[Outgoing]:
        """Yield the messages about a notice of severity warning or page."""
        if notice.severity != "info":
            subject = self._notice_subject(notice)
            yield from self._route(notice_message(notice, subject, self._started), subject)

    def route_repeats(self, repeats: RepeatedNotice) -> Iterator[Outgoing]:
        """Yield the messages about notices that have repeated since the last message."""
        subject = self._notice_subject(repeats.newest)
        yield from self._route(repeats_message(repeats, subject, self._started), subject)

    def _book_currency(self, decision: Decision, snapshot: Snapshot | None) -> str | None:
        """Return the currency of the decision's book: the policy's reference currency, or that of all its accounts."""
        graph = self._graphs.get(decision.policy)
        if graph is not None and graph.equity.reference is not None:
            return graph.equity.reference.currency
        seen = seen_scope(decision.scope, self._members(decision, snapshot), snapshot)
        return common_currency(seen.accounts or ())

    def _members(self, decision: Decision, snapshot: Snapshot | None) -> ScopeMembers | None:
        return members_of(decision, snapshot, self._graphs.values(), self._strategies)

    def _notice_subject(self, notice: Notice) -> MessageAttributes:
        return self._subject("notice", notice.severity, notice, None, lambda stage: True)

    def _suspicion_subject(self, decision: Decision, *, is_paged: bool) -> MessageAttributes:
        """Return the subject of a suspicion: the receivers of its stage, as a notice, because nothing has fired."""
        graph = self._graphs.get(decision.policy)
        level = next((each.level for each in graph.stages if each.name == decision.stage), None) if graph else None
        severity: Severity = "info" if decision.is_withdrawal else "warning" if is_paged else "page"
        return self._subject("notice", severity, decision, level, lambda stage: stage.name == decision.stage)

    def _decision_subject(self, event: NotificationEvent, decision: Decision) -> MessageAttributes:
        """Return the subject of a decision. A reset, and the end of a close, reach the receivers of the firing."""
        level = decision.previous_level if event == "reset" else decision.level
        of_level = event == "reset" or decision.stage is None
        return self._subject(
            event,
            "page" if event in ("fired", "residual") else "info",
            decision,
            None if decision.kind == "manual" else level,
            lambda stage: stage.level == level if of_level else stage.name == decision.stage,
        )

    def _subject(
        self,
        event: NotificationEvent,
        severity: Severity,
        about: Decision | Notice,
        level: int | None,
        chosen: Callable[[Stage], bool],
    ) -> MessageAttributes:
        """Return what routes match, with the receivers that the `chosen` stages name and the labels of the policy."""
        graph = self._graphs.get(about.policy)
        named = [name for each in graph.stages if chosen(each) for name in each.notify] if graph else []
        labels = graph.labels if graph else ()
        return MessageAttributes(event, severity, about.policy, about.scope, level, tuple(dict.fromkeys(named)), labels)

    def _route(self, message: Message, subject: MessageAttributes) -> Iterator[Outgoing]:
        """Yield the message once for each target, whatever number of routes lead there."""
        message = drill_message(message) if self._started.is_drill else message
        seen: set[str] = set()
        for route in self._routes:
            if not route.rule.matches(subject):
                continue
            for target in route.targets:
                if target.key not in seen:
                    seen.add(target.key)
                    own = replace(message, id=digest(message.id, target.key))
                    yield Outgoing(own.id, to_micros(own.at), route.name, target.key, encode_message(own))


def _accounts_at_work(decision: Decision, snapshot: Snapshot) -> list[AccountSnapshot]:
    return [each for each in snapshot.accounts if each.account in decision.accounts_at_work]


def outlook(decision: Decision, graph: Graph | None, started: StartedAs) -> Iterator[str]:
    """Yield how the scope returns to normal; nothing of a close by hand."""
    stages = () if graph is None or decision.kind is not None else graph.stages
    own = next((each for each in stages if each.name == decision.stage), None)
    if graph is None or own is None:
        return
    if own.reset is None:
        command = started.command("reset", decision.scope)
        yield f"it stays latched until a person resets it: {command} --reason …"
    else:
        held = duration_text(timedelta(microseconds=own.reset.hold))
        yield f"it resets by itself once its condition has held for {held}"
