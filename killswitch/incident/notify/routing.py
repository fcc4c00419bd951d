"""Routes the messages of a tick to their targets by the routes of a policy set."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import structs

from killswitch.graph.nodes import PolicySet, Stage
from killswitch.graph.routing import Subject
from killswitch.incident.notify.grouping import Repeats
from killswitch.incident.notify.message import (
    Message,
    as_written,
    digest,
    encode_message,
    of_closing,
    of_decision,
    of_notice,
    of_repeats,
)
from killswitch.model.decision import Decision, Notice
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import Closing, Instant
from killswitch.model.store import Outgoing
from killswitch.model.words import NotificationEvent, Severity


class Addressing:
    """Addresses messages under one policy set."""

    def __init__(self, policies: PolicySet) -> None:
        self._routes = policies.routes
        self._written = as_written(policies)
        self._graphs = {graph.policy: graph for graph in policies.graphs}

    @property
    def has_routes(self) -> bool:
        """Whether the policy set has a route."""
        return bool(self._routes)

    def of_decision(
        self, decision: Decision, *, acted: bool, corrects: Instant | None = None, paged: bool = False
    ) -> Iterator[Outgoing]:
        """Yield the messages about a stage that fires, a close by hand, a reset or a suspicion.

        `corrects` is since when the stage was reported as not fired. `paged` says that a page about the same
        unexplained fall was just sent, so that a suspicion is a warning only.
        """
        if decision.is_suspicion:
            subject = self._suspected(decision, paged=paged)
        else:
            subject = self._decided("reset" if decision.kind == "reset" else "fired", decision)
        message = of_decision(decision, subject, acted=acted, corrects=corrects, written=self._written)
        yield from self._addressed(message, subject)

    def of_closing(self, closing: Closing, decision: Decision, at: Instant) -> Iterator[Outgoing]:
        """Yield the messages about a close that has ended; none about one under way."""
        if closing.status in ("flat", "residual", "blocked", "abandoned"):
            subject = self._decided("closed" if closing.status == "flat" else "residual", decision)
            yield from self._addressed(of_closing(closing, decision, subject, at=at), subject)

    def of_notice(self, notice: Notice) -> Iterator[Outgoing]:
        """Yield the messages about a notice of severity warning or page."""
        if notice.severity != "info":
            subject = self._noticed(notice)
            yield from self._addressed(of_notice(notice, subject), subject)

    def of_repeats(self, repeats: Repeats) -> Iterator[Outgoing]:
        """Yield the messages about notices that have repeated since the last message."""
        subject = self._noticed(repeats.newest)
        yield from self._addressed(of_repeats(repeats, subject), subject)

    def _noticed(self, notice: Notice) -> Subject:
        return self._subject("notice", notice.severity, notice, None, lambda stage: True)

    def _suspected(self, decision: Decision, *, paged: bool) -> Subject:
        """Return the subject of a suspicion: the receivers of its stage, as a notice, because nothing has fired."""
        graph = self._graphs.get(decision.policy)
        level = next((each.level for each in graph.stages if each.name == decision.stage), None) if graph else None
        severity: Severity = "info" if decision.is_withdrawal else "warning" if paged else "page"
        return self._subject("notice", severity, decision, level, lambda stage: stage.name == decision.stage)

    def _decided(self, event: NotificationEvent, decision: Decision) -> Subject:
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
    ) -> Subject:
        """Return what routes match, with the receivers that the `chosen` stages name and the labels of the policy."""
        graph = self._graphs.get(about.policy)
        named = [name for each in graph.stages if chosen(each) for name in each.notify] if graph else []
        labels = graph.labels if graph else ()
        return Subject(event, severity, about.policy, about.scope, level, tuple(dict.fromkeys(named)), labels)

    def _addressed(self, message: Message, subject: Subject) -> Iterator[Outgoing]:
        """Yield the message once for each target, whatever number of routes lead there."""
        seen: set[str] = set()
        for route in self._routes:
            if not route.rule.takes(subject):
                continue
            for target in route.targets:
                if target.key not in seen:
                    seen.add(target.key)
                    own = structs.replace(message, id=digest(message.id, target.key))
                    yield Outgoing(own.id, to_micros(own.at), route.name, target.key, encode_message(own))
