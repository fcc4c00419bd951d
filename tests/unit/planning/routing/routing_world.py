"""Trees of routes and announcements for tests of routing."""

from __future__ import annotations

from msgspec.structs import replace

from killswitch.graph.routing import (
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
)
from killswitch.model.instant import HOUR, MINUTE, SECOND
from killswitch.model.words import NotificationEvent, Severity
from killswitch.planning.routing.holding import Times
from killswitch.planning.routing.state import Announcement, Dispatch, Routed, RoutingState
from killswitch.planning.routing.step import route
from killswitch.planning.routing.tree import RoutingTree, build
from tests import graphs

ANY = RouteRule(None, None, None, None, None, None, ())
START = 1_700_000_000 * SECOND


def rule(**keys: object) -> RouteRule:
    return replace(ANY, **keys)


def receiver(name: str, fallback: str | None = None, *targets: str) -> Receiver:
    found = tuple(RouteTarget("file", f"/{each}") for each in targets or (name,))
    return Receiver(name, found, HOUR, fallback)


def node(name: str, match: RouteRule = ANY, to: str | None = None, **keys: object) -> Route:
    return replace(Route(name, match, (), HOUR, graphs.HERE, receiver=to), **keys)


def tree(
    *routes: Route,
    receivers: tuple[Receiver, ...] = (receiver("desk"), receiver("phone")),
    children: tuple[str, ...] | None = None,
    silences: tuple[MessageSilence, ...] = (),
    **keys: object,
) -> RoutingTree:
    """A tree whose root delivers to `desk`; its children are the routes, unless they are named."""
    names = tuple(each.name for each in routes) if children is None else children
    root = replace(NotificationRoot("tree", "desk", receivers, graphs.HERE, names), **keys)
    found = build(routes, root, silences)
    assert found is not None
    return found


def about(
    scope: str = "account/a", severity: Severity = "warning", event: NotificationEvent = "notice", **keys: object
) -> MessageAttributes:
    return replace(MessageAttributes(event, severity, "p", scope), **keys)


def firing(name: str, scope: str = "account/a", **keys: object) -> Announcement:
    made = Announcement(name, START, about(scope, "page", "fired", level=2), f"firing/p/{scope}", b"{}", True, True)
    return replace(made, escalates=True, decision=name, **keys)


def reset(name: str, scope: str = "account/a") -> Announcement:
    return Announcement(name, START, about(scope, "info", "reset"), f"firing/p/{scope}", b"{}", ends=True)


def notice(alert: str, scope: str = "account/a", severity: Severity = "warning", **keys: object) -> Announcement:
    made = Announcement(f"{alert}-begins", START, about(scope, severity), alert, b"{}", lasts=True)
    return replace(made, **keys)


def over(begun: Announcement) -> Announcement:
    return replace(begun, id=f"{begun.alert}-ends", lasts=False, ends=True)


class Routing:
    """Steps on one tree, and everything that they have sent: (receiver, ids, purpose)."""

    def __init__(self, of: RoutingTree, at: int = 0) -> None:
        self.tree = of
        self.state = RoutingState()
        self.at = at
        self.sent: list[tuple[str, tuple[str, ...], str]] = []
        self.suppressed: list[tuple[str, str, str]] = []
        self.last: Routed | None = None

    def step(self, *items: Announcement, after: int = 0, **more: object) -> list[tuple[str, tuple[str, ...], str]]:
        """Route `items` after a while; what the step sent."""
        self.at += after
        times = Times(self.at, START + self.at)
        self.last = route(self.tree, self.state, items, times, **more)  # type: ignore[arg-type] # keys by name
        self.state = self.last.state
        found = [_shown(each) for each in self.last.dispatches]
        self.sent += found
        self.suppressed += [(each.receiver, each.message, each.why) for each in self.last.suppressed]
        return found


def _shown(dispatch: Dispatch) -> tuple[str, tuple[str, ...], str]:
    return dispatch.receiver, tuple(item.id for item in dispatch.announcements), dispatch.purpose


NIGHT = MuteTime("night", "UTC", ("mon", "tue", "wed", "thu", "fri", "sat", "sun"), 0, 23 * HOUR)
"""All of a day but its last hour."""
ESCALATES = (Escalation(5 * MINUTE, "phone"),)
PAGE_INHIBITS = Inhibition(rule(severities=("page",)), rule(severities=("warning",)), ("scope",))
