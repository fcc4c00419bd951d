"""The tree of routes with every name resolved and every inherited key filled in, and which of its nodes take a message.

Matching is that of Alertmanager: depth first, the first child that matches, the next one only after `continue`; a node
none of whose children match takes the message itself. One receiver gets a message once. Receiver, grouping, reminders
and escalation are inherited; waiting and mute times are not
(https://prometheus.io/docs/alerting/latest/configuration/#route).

Routes that a tree does not name are next to it: what they match, they take too. Without a tree they are children with
`continue` of a root whose receiver has the targets of all of them, so that a set without a tree notifies whom it always
did. That root takes only what is urgent: what none of them accepts was sent to nobody before there was a tree, and a
filter such as `severity: page` must not end with an upgrade.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.routing import (
    OWN,
    Escalation,
    Inhibition,
    MessageAttributes,
    MessageSilence,
    MuteTime,
    NotificationRoot,
    Receiver,
    Route,
    RouteRule,
    RouteTarget,
    receivers_of,
)

if TYPE_CHECKING:
    from killswitch.graph.nodes import PolicySet

ROOT: Final = "root"
"""The name of the node at the top; paths of nodes begin with it."""
ALL_TARGETS: Final = f"{OWN}*"
"""The receiver of the root of a set without a tree: every target of every route."""
LONGEST_CHAIN: Final = 32
"""More fallbacks than this are a circle, which the compiler refuses."""


class RouteNode(Struct, frozen=True):
    """One node of the tree. `rule` None: it takes everything (the root). Times are microseconds, and 0 is at once.

    `group_by` None: all that a node with waiting times takes is one group; without them, each alert is one.
    `repeat_interval` and `remind` None: never. `only_urgent`: it takes nothing else itself.
    """

    path: str
    rule: RouteRule | None
    receiver: str
    children: tuple[RouteNode, ...] = ()
    continues: bool = False
    group_by: tuple[str, ...] | None = None
    group_wait: int = 0
    group_interval: int = 0
    repeat_interval: int | None = None
    remind: int | None = None
    mute: tuple[str, ...] = ()
    active: tuple[str, ...] = ()
    escalate: tuple[Escalation, ...] = ()
    only_urgent: bool = False
    is_aside: bool = False
    """Whether it is next to a tree that does not name it: it takes what it matches, and takes it from nobody."""


class RoutingTree(Struct, frozen=True):
    """The root, and what nodes name."""

    root: RouteNode
    receivers: Mapping[str, Receiver]
    mute_times: Mapping[str, MuteTime] = {}
    inhibitions: tuple[Inhibition, ...] = ()
    silences: tuple[MessageSilence, ...] = ()

    def targets(self, receiver: str) -> tuple[RouteTarget, ...]:
        """The targets of a receiver; of one that is gone, those of the root's."""
        return self.existing(receiver).targets

    def existing(self, receiver: str) -> Receiver:
        """The receiver of that name, or the root's if it is gone."""
        return self.receivers.get(receiver) or self.receivers[self.root.receiver]

    def hops(self, receiver: str) -> tuple[tuple[RouteTarget, ...], ...]:
        """The targets that a message is sent to, one group after the other, while those before do not accept it.

        The fallbacks of the receiver in their order, then the root's receiver; each target once.
        """
        found: list[tuple[RouteTarget, ...]] = []
        used = set(self.targets(receiver))
        for each in (*self._fallbacks(receiver), self.receivers[self.root.receiver]):
            further = tuple(target for target in each.targets if target not in used)
            used.update(further)
            found += [further] if further else []
        return tuple(found)

    def _fallbacks(self, receiver: str) -> Iterator[Receiver]:
        each = self.existing(receiver)
        for _ in range(LONGEST_CHAIN):
            if each.fallback is None or each.fallback not in self.receivers:
                return
            each = self.receivers[each.fallback]
            yield each


def nodes_of(node: RouteNode) -> Iterator[RouteNode]:
    """The node and all below it, depth first."""
    yield node
    for child in node.children:
        yield from nodes_of(child)


class MatchedNode(Struct, frozen=True):
    """A node that was compared with a message: its depth, whether it matched, and whether it takes the message."""

    node: RouteNode
    depth: int
    is_match: bool
    takes: bool


def trace(tree: RoutingTree, subject: MessageAttributes, *, is_urgent: bool) -> tuple[MatchedNode, ...]:
    """Every node that is compared with the message, in the order of comparison."""
    return tuple(_trace(tree.root, subject, 0, is_urgent))


def _trace(node: RouteNode, subject: MessageAttributes, depth: int, is_urgent: bool) -> Iterator[MatchedNode]:
    if node.rule is not None and not node.rule.matches(subject):
        yield MatchedNode(node, depth, False, False)
        return
    below: list[MatchedNode] = []
    for child in node.children:
        found = list(_trace(child, subject, depth + 1, is_urgent))
        below += found
        if found[0].is_match and not child.continues:
            break
    is_leaf = not any(each.is_match and each.depth == depth + 1 and not each.node.is_aside for each in below)
    yield MatchedNode(node, depth, True, is_leaf and (is_urgent or not node.only_urgent))
    yield from below


def leaves(tree: RoutingTree, subject: MessageAttributes, *, is_urgent: bool) -> tuple[RouteNode, ...]:
    """The nodes that take the message, each receiver once: the first node of several with one receiver."""
    found: dict[str, RouteNode] = {}
    for each in trace(tree, subject, is_urgent=is_urgent):
        if each.takes:
            found.setdefault(each.node.receiver, each.node)
    return tuple(found.values())


def tree_of(policies: PolicySet) -> RoutingTree | None:
    """The tree of a policy set; None if it has no route and no tree: then nobody is notified."""
    return build(policies.routes, policies.notification, policies.message_silences)


def build(
    routes: Sequence[Route], root: NotificationRoot | None, silences: tuple[MessageSilence, ...] = ()
) -> RoutingTree | None:
    """The tree of these routes. The compiler has refused what has no meaning (`graph/resolution/notification.py`)."""
    if root is None and not routes:
        return None
    receivers = {receiver.name: receiver for _, receiver in receivers_of(routes, root)}
    by_name = {route.name: route for route in routes}
    if root is None:
        every = dict.fromkeys(target for receiver in receivers.values() for target in receiver.targets)
        longest = max(receiver.give_up_after for receiver in receivers.values())
        receivers[ALL_TARGETS] = Receiver(ALL_TARGETS, tuple(every), longest)
        top = RouteNode(ROOT, None, ALL_TARGETS, only_urgent=True)
    else:
        top = RouteNode(
            ROOT, None, root.receiver, (), False, root.group_by, root.group_wait or 0, root.group_interval or 0,
            root.repeat_interval, root.remind, (), (), root.escalate,
        )  # fmt: skip
    named = {child for route in routes for child in route.children} | set(() if root is None else root.children)
    flat = (_node(route, top, by_name, is_flat=True) for route in routes if route.name not in named)
    flat = (replace(each, is_aside=root is not None) for each in flat)
    below = (_node(by_name[name], top, by_name) for name in (() if root is None else root.children) if name in by_name)
    mute_times = {} if root is None else {each.name: each for each in root.mute_times}
    return RoutingTree(
        _with_children(top, (*flat, *below)), receivers, mute_times, () if root is None else root.inhibitions, silences
    )


def _with_children(node: RouteNode, children: Iterable[RouteNode]) -> RouteNode:
    return RouteNode(
        node.path, node.rule, node.receiver, tuple(children), node.continues, node.group_by, node.group_wait,
        node.group_interval, node.repeat_interval, node.remind, node.mute, node.active, node.escalate,
        node.only_urgent, node.is_aside,
    )  # fmt: skip


def _node(route: Route, parent: RouteNode, by_name: Mapping[str, Route], *, is_flat: bool = False) -> RouteNode:
    receiver = OWN + route.name if route.targets else route.receiver or parent.receiver
    node = RouteNode(
        f"{parent.path}/{route.name}", route.rule, receiver, (), is_flat or route.continues,
        parent.group_by if route.group_by is None else route.group_by, route.group_wait or 0,
        route.group_interval or 0, route.repeat_interval, parent.remind if route.remind is None else route.remind,
        route.mute, route.active, parent.escalate if route.escalate is None else route.escalate,
    )  # fmt: skip
    return _with_children(node, (_node(by_name[name], node, by_name) for name in route.children if name in by_name))
