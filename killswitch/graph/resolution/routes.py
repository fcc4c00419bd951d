"""Notification routes of a policy set, and checks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from msgspec.structs import replace

from killswitch.graph.freezing import freeze
from killswitch.graph.problems import FaultyDocuments, Findings
from killswitch.graph.resolution.references import Documents, diagnostics_of, findings, of_kind
from killswitch.graph.routing import MessageAttributes, Route, RouteRule, RouteTarget
from killswitch.model.words import SHADOW, NotificationEvent, Place, Severity
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.loader import Document
from killswitch.policy.schema.notification.route import RouteDocument, Target
from killswitch.policy.schema.notification.tree import NotificationTreeDocument
from killswitch.policy.schema.policy import PolicyDocument, Stage
from killswitch.policy.yaml.source_map import Path

RUNNER = "runner"
"""Policy and scope of messages of the program itself."""
OPERATOR = "operator"
"""Policy name of manual closes."""


def routes(documents: Sequence[Document]) -> tuple[Route, ...]:
    """All routes, by name."""
    found = (_route(*each) for each in of_kind(documents, RouteDocument))
    return tuple(sorted(found, key=lambda route: route.name))


def check_routes(everything: Documents, others: FaultyDocuments) -> list[Diagnostic]:
    """Warn of routes and names that match nothing; nothing is reported without routes.

    Nothing is reported either if a route's match or a policy's stages are unreadable.
    """
    by_name = {
        each.name: freeze(each.model.spec.match, RouteRule)
        for each in everything
        if isinstance(each.model, RouteDocument)
    }
    policies = [policy for policy, _ in of_kind(everything, PolicyDocument)]
    if (
        not by_name
        or others.has_unknown_kinds
        or any(_is_unreadable(findings(each), each.model) for each in everything)
    ):
        return []
    has_root = any(isinstance(each.model, NotificationTreeDocument) for each in everything)
    possible = list(_possible(policies))
    of_runner = [each for each in possible if (each.policy, each.severity) == (RUNNER, "page")]
    diagnostics: list[Diagnostic] = []
    for document in everything:
        found = findings(document)
        if isinstance(document.model, RouteDocument):
            if not _is_matched(possible, [by_name[document.name]]):
                message = "no message of this policy set can match this route"
                found.warning("KS5021", ("spec", "match"), message, "loosen `match`, or remove the route", key=True)
            is_first = document.name == min(name or "" for name in by_name)
            if is_first and not has_root and not _is_matched(of_runner, by_name.values()):
                message = "no route accepts pages about the program itself, such as a lock that cannot be written"
                fix = "add a route with `match: {events: notice, severity: page}`, or loosen the `match` of one"
                found.warning("KS5022", ("metadata", "name"), message, fix)
        elif isinstance(document.model, PolicyDocument) and not has_root:  # a root takes what no route takes
            _check_names(document.model, list(by_name.values()), found)
        diagnostics += found.diagnostics
    return diagnostics


def unrouted_names(everything: Sequence[Document]) -> list[Diagnostic]:
    """Warn of names that stages notify in a set without any route; otherwise `check_routes` reports them.

    Each name is reported once for each policy. A set without names needs no routes.
    """
    if any(isinstance(each.model, RouteDocument | NotificationTreeDocument) for each in everything):
        return []
    policies = of_kind(everything, PolicyDocument)
    for policy, found in policies:
        known: set[str] = set()
        for number, stage in enumerate(policy.spec.stages):
            for place, name in enumerate(stage.notify):
                if name not in known:
                    message = f"messages for `{name}` go nowhere: there is no NotificationRoute"
                    fix = f"add one with `match: {{notify: {name}}}`, or take the name out"
                    found.warning("KS5020", ("spec", "stages", number, "notify", place), message, fix)
                known.add(name)
    return diagnostics_of(policies)


def _is_unreadable(found: Findings, model: object) -> bool:
    if isinstance(model, RouteDocument):
        return found.gaps.has_flaw(("spec", "match")) or found.gaps.has_flaw(("metadata", "name"))
    stages = [("spec", "stages"), ("metadata",)]
    return isinstance(model, PolicyDocument) and any(found.gaps.is_hole(path) or _holes(found, path) for path in stages)


def _holes(found: Findings, path: Path) -> bool:
    """Whether a part that routes match on is unreadable: a stage's level or names, or the labels."""
    matched_keys = {"level", "notify", "labels", "name"}
    inside = [hole for hole in found.gaps.holes if hole[: len(path)] == path]
    return not found.gaps.is_sound or any(len(hole) <= len(path) + 1 or matched_keys & set(hole) for hole in inside)


def _is_matched(subjects: Iterable[MessageAttributes], among: Collection[RouteRule]) -> bool:
    return any(_can_match(rule, subject) for subject in subjects for rule in among)


def _check_names(policy: PolicyDocument, among: Sequence[RouteRule], found: Findings) -> None:
    for number, stage in enumerate(policy.spec.stages):
        for place, name in enumerate(stage.notify):
            if not _is_matched(_of_stage(policy, stage, (name,)), among):
                message = f"no route accepts messages for `{name}`"
                fix = f"correct the name, or add a NotificationRoute with `match: {{notify: {name}}}`"
                found.warning("KS5020", ("spec", "stages", number, "notify", place), message, fix)


def _can_match(rule: RouteRule, subject: MessageAttributes) -> bool:
    """Whether the rule may match; the scopes are not known before the accounts are read."""
    scope = subject.scope if rule.scopes is None or subject.policy in (RUNNER, SHADOW) else rule.scopes[0]
    return rule.matches(replace(subject, scope=scope))


def _possible(policies: Sequence[PolicyDocument]) -> Iterator[MessageAttributes]:
    """All possible messages of these policies."""
    for severity in _NOTICE_SEVERITIES:
        yield MessageAttributes("notice", severity, RUNNER, RUNNER)
        yield MessageAttributes("notice", severity, SHADOW, SHADOW)
        for policy in policies:
            named = tuple({name: None for stage in policy.spec.stages for name in stage.notify})
            labels = tuple(policy.metadata.labels.items())
            yield MessageAttributes("notice", severity, policy.metadata.name, "", None, named, labels)
    yield from (MessageAttributes(event, severity, OPERATOR, "") for event, severity in _ENDS)
    for policy in policies:
        for stage in policy.spec.stages:
            yield from _of_stage(policy, stage, stage.notify)


_NOTICE_SEVERITIES: tuple[Severity, ...] = ("warning", "page")
_ENDS: tuple[tuple[NotificationEvent, Severity], ...] = (
    ("fired", "page"), ("closed", "info"), ("residual", "page"), ("reset", "info"),
)  # fmt: skip


def _of_stage(policy: PolicyDocument, stage: Stage, notify: tuple[str, ...]) -> Iterator[MessageAttributes]:
    labels = tuple(policy.metadata.labels.items())
    for event, severity in _ENDS:
        yield MessageAttributes(event, severity, policy.metadata.name, "", stage.level, notify, labels)


_PLACES = {"log": "level", "file": "path", "apprise": "url", "custom": "name"}


def _route(document: RouteDocument, found: Findings) -> Route:
    spec = document.spec
    targets = route_targets(spec.targets, found, ("spec", "targets"))
    return freeze(
        spec, Route, name=document.metadata.name, targets=tuple(targets), target_places=tuple(targets.values()),
        place=found.place(("metadata", "name")),
    )  # fmt: skip


def route_targets(written: Iterable[Target], found: Findings, at: Path) -> dict[RouteTarget, Place]:
    """Targets with their places, each once."""
    targets: dict[RouteTarget, Place] = {}
    for number, each in enumerate(written):
        target = _target(each)
        targets.setdefault(target, found.place((*at, number, target.kind, _PLACES[target.kind])))
    return targets


def _target(written: Target) -> RouteTarget:
    if written.log is not None:
        return RouteTarget("log", written.log.level)
    if written.file is not None:
        return RouteTarget("file", written.file.path)
    if written.custom is not None:
        return RouteTarget("custom", written.custom.name)
    if written.apprise is None:
        raise AssertionError("the schema accepts no target without one of its keys")
    return RouteTarget("apprise", written.apprise.url)
