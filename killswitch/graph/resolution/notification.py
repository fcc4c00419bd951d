"""The root of the notification routes and the silences of a policy set, and the checks of what they name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from killswitch.graph.freezing import freeze
from killswitch.graph.problems import FaultyDocuments, Findings, unknown_name
from killswitch.graph.resolution.references import Documents, diagnostics_of, of_kind
from killswitch.graph.resolution.routes import route_targets
from killswitch.graph.routing import (
    Inhibition,
    MessageSilence,
    MuteTime,
    NotificationRoot,
    Receiver,
    RouteRule,
)
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.loader import Document
from killswitch.policy.schema.account import AccountDocument
from killswitch.policy.schema.notification.route import EscalateStep, RouteDocument, RouteSpec, Target
from killswitch.policy.schema.notification.tree import NotificationTreeDocument, ReceiverSpec, SilenceDocument, TreeSpec
from killswitch.policy.yaml.source_map import Path

Routes = Mapping[str, tuple[RouteDocument, Findings]]


def notification_root(documents: Sequence[Document]) -> NotificationRoot | None:
    """The root of the routes; None where the set has none, so that its routes are next to each other."""
    for document, found in of_kind(documents, NotificationTreeDocument):
        spec = document.spec
        return freeze(
            spec, NotificationRoot, name=document.metadata.name, place=found.place(("metadata", "name")),
            receivers=tuple(_receivers(spec, found)),
            mute_times=tuple(freeze(each, MuteTime, name=name) for name, each in sorted(spec.mute_times.items())),
            inhibitions=tuple(freeze(each, Inhibition) for each in spec.inhibit),
        )  # fmt: skip
    return None


def _receivers(spec: TreeSpec, found: Findings) -> Iterator[Receiver]:
    for name, receiver in sorted(spec.receivers.items()):
        targets = route_targets(receiver.targets, found, ("spec", "receivers", name, "targets"))
        yield freeze(receiver, Receiver, name=name, targets=tuple(targets), target_places=tuple(targets.values()))


def message_silences(documents: Sequence[Document]) -> tuple[MessageSilence, ...]:
    """All silences, by name."""
    found = (
        freeze(each.spec, MessageSilence, name=each.metadata.name) for each, _ in of_kind(documents, SilenceDocument)
    )
    return tuple(sorted(found, key=lambda silence: silence.name))


def check_notification(everything: Documents, others: FaultyDocuments) -> list[Diagnostic]:
    """Check the names that the tree and its routes use, circles, and routes that are never reached."""
    trees = of_kind(everything, NotificationTreeDocument)
    routes: dict[str, tuple[RouteDocument, Findings]] = {}
    for document, found in of_kind(everything, RouteDocument):
        routes.setdefault(document.metadata.name, (document, found))
    if not trees:
        if not others.can_have("NotificationTree"):
            for document, found in routes.values():
                _check_without_tree(document.spec, found)
        return diagnostics_of(routes.values())
    for _, found in trees[1:]:
        message = "there is another NotificationTree, and messages have one root"
        found.error("KS3093", ("metadata", "name"), message, "merge the two documents")
    tree, found = trees[0]
    _check_tree(tree.spec, routes, others, found)
    for document, of_route in routes.values():
        _check_route(document.spec, tree.spec, routes, others, of_route)
    _check_shape(tree, found, routes)
    return diagnostics_of([*trees, *routes.values()])


def _check_without_tree(spec: RouteSpec, found: Findings) -> None:
    """A set without a tree has no receivers by name, and no mute times; each route has its targets."""
    if not spec.targets and not found.gaps.has_flaw(("spec", "targets")):
        message = "nobody gets the messages of this route: there is no NotificationTree that has its receiver"
        found.error("KS3094", ("metadata", "name"), message, "add `targets`, or a NotificationTree with a receiver")
    for key, names in (("mute", spec.mute), ("active", spec.active)):
        for number, name in enumerate(names):
            message, fix = f"there is no mute time `{name}`", "add a NotificationTree with `mute_times`"
            found.error("KS3095", ("spec", key, number), message, fix)
    _check_children(spec, {}, found)
    _check_receivers(spec.escalate or (), {}, found)


def _check_tree(spec: TreeSpec, routes: Routes, others: FaultyDocuments, found: Findings) -> None:
    if not found.gaps.has_flaw(("spec", "receivers")):
        if spec.receiver not in spec.receivers:
            found.error("KS3095", ("spec", "receiver"), *unknown_name("receiver", spec.receiver, spec.receivers))
        for name, receiver in spec.receivers.items():
            at: Path = ("spec", "receivers", name, "fallback")
            if receiver.fallback is not None and receiver.fallback not in spec.receivers:
                found.error("KS3095", at, *unknown_name("receiver", receiver.fallback, spec.receivers))
            elif (why := _useless_fallback(name, spec.receivers)) is not None:
                found.error("KS3091", at, why, "name a receiver with a target that is not among these")
        _check_receivers(spec.escalate, spec.receivers, found)
    _check_routes_exist(spec.routes, routes, others, found)


def _check_route(spec: RouteSpec, tree: TreeSpec, routes: Routes, others: FaultyDocuments, found: Findings) -> None:
    if spec.receiver is not None and spec.receiver not in tree.receivers:
        found.error("KS3095", ("spec", "receiver"), *unknown_name("receiver", spec.receiver, tree.receivers))
    for key, names in (("mute", spec.mute), ("active", spec.active)):
        for number, name in enumerate(names):
            if name not in tree.mute_times:
                found.error("KS3095", ("spec", key, number), *unknown_name("mute time", name, tree.mute_times))
    _check_receivers(spec.escalate or (), tree.receivers, found)
    _check_routes_exist(spec.routes, routes, others, found)


def _check_receivers(steps: Iterable[EscalateStep], receivers: Mapping[str, ReceiverSpec], found: Findings) -> None:
    for number, step in enumerate(steps):
        if step.to not in receivers:
            found.error("KS3095", ("spec", "escalate", number, "to"), *unknown_name("receiver", step.to, receivers))


def _check_routes_exist(names: Iterable[str], routes: Routes, others: FaultyDocuments, found: Findings) -> None:
    for number, name in enumerate(names):
        if name not in routes and not others.can_have("NotificationRoute", name):
            found.error("KS3095", ("spec", "routes", number), *unknown_name("NotificationRoute", name, routes))


def _useless_fallback(name: str, receivers: Mapping[str, ReceiverSpec]) -> str | None:
    """Why the fallback of a receiver reaches nobody else; None if it does, or is unknown."""
    chain, each = [name], receivers[name]
    while each.fallback is not None and each.fallback in receivers:
        if each.fallback in chain:
            return f"the fallbacks are a circle: {' → '.join((*chain, each.fallback))}" if chain[0] == name else None
        chain.append(each.fallback)
        each = receivers[each.fallback]
    fallback = receivers[name].fallback
    if fallback is None or fallback not in receivers:
        return None
    own = set(map(str, receivers[name].targets))
    if own.issuperset(map(str, receivers[fallback].targets)):
        return f"the fallback `{fallback}` has no target that `{name}` has not"
    return None


def _check_shape(tree: NotificationTreeDocument, found: Findings, routes: Routes) -> None:
    """Each route is below one other, no route is below itself, and each can be reached."""
    parents: dict[str, str] = {}
    above: list[tuple[str, tuple[str, ...], Findings]] = [("", tree.spec.routes, found)]
    above += [(name, document.spec.routes, of_route) for name, (document, of_route) in sorted(routes.items())]
    for parent, children, of_parent in above:
        for number, child in enumerate(children):
            if child in parents:
                message = f"the route `{child}` is below another already"
                of_parent.error("KS3093", ("spec", "routes", number), message, "name it once")
            elif child == parent or parent in _below(child, routes):
                message = f"the route `{child}` would be below itself"
                of_parent.error("KS3093", ("spec", "routes", number), message, "take it out of one of the two")
            parents.setdefault(child, parent)
        _check_children_reached(children, routes, of_parent)


def _check_children(spec: RouteSpec, routes: Routes, found: Findings) -> None:
    for number in range(len(spec.routes)):
        message = "routes are below others only in a NotificationTree"
        found.error("KS3095", ("spec", "routes", number), message, "add a NotificationTree that names this route")


def _below(name: str, routes: Routes) -> set[str]:
    """The routes below a route, at any depth."""
    found: set[str] = set()
    open_ = [name]
    while open_:
        here = open_.pop()
        for child in routes[here][0].spec.routes if here in routes else ():
            if child not in found:
                found.add(child)
                open_.append(child)
    return found


def _check_children_reached(children: Sequence[str], routes: Routes, found: Findings) -> None:
    """A route after one that takes everything it matches, and does not continue, is never reached."""
    before: list[tuple[str, RouteRule]] = []
    for number, name in enumerate(children):
        if name not in routes:
            continue
        document, of_route = routes[name]
        if of_route.gaps.has_flaw(("spec", "match")):
            continue
        rule = freeze(document.spec.match, RouteRule)
        earlier = next((each for each, wider in before if _covers(wider, rule)), None)
        if earlier is not None:
            message = f"the route `{name}` is never reached: `{earlier}` takes everything that it matches"
            fix = f"write it before `{earlier}`, or `continue: true` there"
            found.error("KS3092", ("spec", "routes", number), message, fix)
        if not document.spec.continue_:
            before.append((name, rule))


def _covers(wider: RouteRule, narrower: RouteRule) -> bool:
    """Whether everything that the narrower rule matches, the wider one matches too."""
    pairs = (
        (wider.notify, narrower.notify), (wider.severities, narrower.severities), (wider.events, narrower.events),
        (wider.scopes, narrower.scopes), (wider.policies, narrower.policies),
    )  # fmt: skip
    levels = wider.least_level is None or (narrower.least_level or 0) >= wider.least_level
    return (
        levels
        and set(wider.labels) <= set(narrower.labels)
        and all(one is None or (other is not None and set(other) <= set(one)) for one, other in pairs)
    )


LEAST_SERVICES = 2
"""Services that an urgent message should be able to reach: one of them may be down."""


def check_services(everything: Documents, others: FaultyDocuments) -> list[Diagnostic]:
    """Warn of routes on which urgent messages reach one service only, with fallbacks and escalation counted.

    A log and a file count as nobody. Nothing is reported of a set without a live account, whose messages wake nobody.
    """
    accounts = of_kind(everything, AccountDocument)
    if others.has_unknown_kinds or not any(account.spec.execution == "live" for account, _ in accounts):
        return []
    trees = of_kind(everything, NotificationTreeDocument)
    routes = {document.metadata.name: (document, found) for document, found in of_kind(everything, RouteDocument)}
    if not trees:
        everyone = set().union(*(_services(document.spec.targets) for document, _ in routes.values()))
        if routes and len(everyone) < LEAST_SERVICES:
            _warn(everyone, routes[min(routes)][1], ("metadata", "name"))
        return diagnostics_of(routes.values())
    tree, found = trees[0]
    spec = tree.spec
    reached = _reached(spec.receiver, spec.escalate, spec)
    if len(reached) < LEAST_SERVICES:
        _warn(reached, found, ("spec", "receiver"))
    below = [(name, spec.receiver, spec.escalate) for name in spec.routes]
    seen: set[str] = set()
    while below:
        name, above, escalate = below.pop()
        if name not in routes or name in seen:
            continue
        seen.add(name)
        route, of_route = routes[name]
        receiver, steps = route.spec.receiver or above, escalate if route.spec.escalate is None else route.spec.escalate
        reached = _services(route.spec.targets) | _reached(None if route.spec.targets else receiver, steps, spec)
        if _may_be_urgent(route.spec) and len(reached) < LEAST_SERVICES:
            _warn(reached, of_route, ("metadata", "name"))
        below += [(child, receiver, steps) for child in route.spec.routes]
    return diagnostics_of([*trees, *routes.values()])


def _services(targets: Iterable[Target]) -> set[str]:
    """The services among the targets, by the reference to their address."""
    found = {f"apprise {each.apprise.url}" for each in targets if each.apprise is not None}
    return found | {f"custom {each.custom.name}" for each in targets if each.custom is not None}


def _reached(receiver: str | None, steps: Iterable[EscalateStep], tree: TreeSpec) -> set[str]:
    """The services of a receiver, its fallbacks, the root's and those that it escalates to."""
    found: set[str] = set()
    open_ = [receiver, tree.receiver, *(step.to for step in steps)]
    known: set[str] = set()
    while open_:
        name = open_.pop()
        if name is not None and name in tree.receivers and name not in known:
            known.add(name)
            found |= _services(tree.receivers[name].targets)
            open_.append(tree.receivers[name].fallback)
    return found


def _may_be_urgent(spec: RouteSpec) -> bool:
    """Whether a firing or a remainder may be among the messages of the route."""
    pages = spec.match.severity is None or "page" in spec.match.severity
    return pages and (spec.match.events is None or bool({"fired", "residual", "notice"} & set(spec.match.events)))


def _warn(reached: set[str], found: Findings, at: Path) -> None:
    what = "one service only" if reached else "no service: a log and a file wake nobody"
    fix = "add a target, a `fallback` or an `escalate` with another service"
    found.warning("KS5023", at, f"urgent messages of this route reach {what}", fix)
