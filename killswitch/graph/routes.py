"""Routes of a policy set, and what can be told of them before anything happens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from killswitch.graph.findings import Findings
from killswitch.graph.nodes import Graph, Stage
from killswitch.graph.routing import Route, RouteRule, RouteTarget, Subject
from killswitch.model.words import NotificationEvent, Severity
from killswitch.policy.diagnostics import Diagnostic
from killswitch.policy.documents import PolicyDocument
from killswitch.policy.loader import Document
from killswitch.policy.route_document import RouteDocument, RouteMatch, Target

RUNNER = "runner"
"""Policy and scope of what the program itself has to say."""
OPERATOR = "operator"
"""Policy of a close by hand."""


def routes(documents: Sequence[Document]) -> tuple[Route, ...]:
    """Every route, by name."""
    found = (_route(each.model, Findings(each.source)) for each in documents if isinstance(each.model, RouteDocument))
    return tuple(sorted(found, key=lambda route: route.name))


def check_routes(documents: Sequence[Document], graphs: Sequence[Graph]) -> list[Diagnostic]:
    """Warn of what is most likely not meant; nothing to say where there is no route."""
    by_name = {route.name: route for route in routes(documents)}
    told: list[Diagnostic] = []
    if not by_name:
        return told
    possible = list(_possible(graphs))
    of_runner = [each for each in possible if (each.policy, each.severity) == (RUNNER, "page")]
    for document in documents:
        found = Findings(document.source)
        if isinstance(document.model, RouteDocument):
            _matches(by_name[document.name].rule, possible, found)
            if document.name == min(by_name) and not _taken(of_runner, by_name.values()):
                message = "no route takes a page about the program itself, such as a lock that cannot be written"
                fix = "add a route with `match: {events: notice, severity: page}`, or ask for less in one"
                found.warning("KS5022", ("metadata", "name"), message, fix)
        elif isinstance(document.model, PolicyDocument):
            _names_lead_somewhere(document.model, graphs, list(by_name.values()), found)
        told += found.diagnostics
    return told


def _taken(subjects: Sequence[Subject], among: Iterable[Route]) -> bool:
    return any(_takes(route.rule, subject) for route in among for subject in subjects)


def _matches(rule: RouteRule, possible: Sequence[Subject], found: Findings) -> None:
    if not any(_takes(rule, subject) for subject in possible):
        message = "no message of this policy set can have all that this route asks for"
        found.warning("KS5021", ("spec", "match"), message, "ask for less, or take the route out", key=True)


def _names_lead_somewhere(
    document: PolicyDocument, graphs: Sequence[Graph], among: Sequence[Route], found: Findings
) -> None:
    (graph,) = [each for each in graphs if each.policy == document.metadata.name]
    stages = {stage.name: stage for stage in graph.stages}
    for number, written in enumerate(document.spec.stages):
        for place, name in enumerate(written.notify):
            subjects = list(_of_stage(graph, stages[written.name], (name,)))
            if not _taken(subjects, among):
                message = f"no route takes what is meant for `{name}`"
                fix = f"correct the name, or add a NotificationRoute with `match: {{notify: {name}}}`"
                found.warning("KS5020", ("spec", "stages", number, "notify", place), message, fix)


def _takes(rule: RouteRule, subject: Subject) -> bool:
    """Whether it may be taken. Which scopes there will be is not known before the accounts are read."""
    scope = subject.scope if rule.scopes is None or subject.policy == RUNNER else rule.scopes[0]
    return rule.takes(
        Subject(subject.event, subject.severity, subject.policy, scope, subject.level, subject.notify, subject.labels)
    )


def _possible(graphs: Sequence[Graph]) -> Iterator[Subject]:
    """Everything that a message of these policies can be asked for, whatever happens."""
    for severity in _TOLD:
        yield Subject("notice", severity, RUNNER, RUNNER)
        for graph in graphs:
            named = tuple({name: None for stage in graph.stages for name in stage.notify})
            yield Subject("notice", severity, graph.policy, "", None, named, graph.labels)
    yield from (Subject(event, severity, OPERATOR, "") for event, severity in _ENDS)
    for graph in graphs:
        for stage in graph.stages:
            yield from _of_stage(graph, stage, stage.notify)


_TOLD: tuple[Severity, ...] = ("warning", "page")
_ENDS: tuple[tuple[NotificationEvent, Severity], ...] = (
    ("fired", "page"), ("closed", "info"), ("residual", "page"), ("reset", "info"),
)  # fmt: skip


def _of_stage(graph: Graph, stage: Stage, notify: tuple[str, ...]) -> Iterator[Subject]:
    for event, severity in _ENDS:
        yield Subject(event, severity, graph.policy, "", stage.level, notify, graph.labels)


def _route(document: RouteDocument, found: Findings) -> Route:
    spec = document.spec
    targets = tuple(dict.fromkeys(_target(each) for each in spec.targets))
    return Route(
        document.metadata.name, _rule(spec.match), targets, spec.give_up_after, found.place(("metadata", "name"))
    )


def _rule(match: RouteMatch) -> RouteRule:
    return RouteRule(
        notify=match.notify,
        least_level=None if match.level is None else match.level.at_least,
        severities=match.severity,
        events=match.events,
        policies=match.policy,
        scopes=match.scope,
        labels=tuple(sorted(match.labels.items())),
    )


def _target(written: Target) -> RouteTarget:
    if written.log is not None:
        return RouteTarget("log", written.log.level)
    if written.file is not None:
        return RouteTarget("file", written.file.path)
    if written.apprise is None:
        raise AssertionError("the schema lets no target through without one of its keys")
    return RouteTarget("apprise", written.apprise.url)
