"""Random trees with random messages, against a naive model: nothing urgent is lost or late, and nothing vanishes.

The model knows only the definition of matching and a list of what was announced; it has no groups, holds or timers.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from killswitch.graph.routing import Escalation, Inhibition, MessageSilence, Receiver, Route, RouteTarget
from killswitch.model.instant import HOUR, MINUTE, SECOND
from killswitch.planning.routing.holding import Times
from killswitch.planning.routing.state import (
    Acknowledgement,
    Announcement,
    Routed,
    RoutingState,
    encode_routing,
    read_routing,
)
from killswitch.planning.routing.step import route
from killswitch.planning.routing.tree import RouteNode, RoutingTree
from tests.unit.planning.routing.routing_world import ANY, NIGHT, START, firing, node, notice, over, reset, tree
from tests.unit.planning.routing.routing_world import rule as matching

_RULES = st.sampled_from([
    ANY, matching(severities=("page",)), matching(severities=("warning",)), matching(scopes=("a",)),
    matching(scopes=("b", "c")), matching(events=("fired",)),
])  # fmt: skip
_RECEIVERS = ("desk", "phone", "third")
_TIMES = st.sampled_from([0, 30 * SECOND, 5 * MINUTE])


@st.composite
def trees(draw: st.DrawFn) -> RoutingTree:
    """A valid tree with every kind of thing that holds messages."""
    routes: list[Route] = []
    for number in range(draw(st.integers(0, 4))):
        interval = draw(_TIMES)
        routes.append(
            node(
                f"r{number}", draw(_RULES), draw(st.sampled_from([*_RECEIVERS, None])), continues=draw(st.booleans()),
                group_by=draw(st.sampled_from([None, (), ("scope",)])), group_wait=draw(_TIMES),
                group_interval=interval, repeat_interval=draw(st.sampled_from([None, max(interval, HOUR)])),
                mute=draw(st.sampled_from([(), ("night",)])), remind=draw(st.sampled_from([None, HOUR])),
            )
        )  # fmt: skip
    everyone = tuple(Receiver(name, (RouteTarget("file", f"/{name}"),), HOUR) for name in _RECEIVERS)
    inhibitions = tuple(
        Inhibition(draw(_RULES), draw(_RULES), draw(st.sampled_from([(), ("scope",), ("absent",)])))
        for _ in range(draw(st.integers(0, 2)))
    )
    silences = tuple(
        MessageSilence(f"s{number}", draw(_RULES), "ada", "why", START + draw(st.integers(1, 10)) * HOUR)
        for number in range(draw(st.integers(0, 2)))
    )
    escalate = draw(st.sampled_from([(), (Escalation(5 * MINUTE, "third"),)]))
    return tree(
        *routes, receivers=everyone, inhibitions=inhibitions, mute_times=(NIGHT,), silences=silences,
        escalate=escalate, group_wait=draw(_TIMES),
    )  # fmt: skip


def receivers_by_definition(at: RouteNode, item: Announcement) -> set[str]:
    """Alertmanager's matching, as its source has it."""
    if at.rule is not None and not at.rule.matches(item.attributes):
        return set()
    found: set[str] = set()
    for child in at.children:
        below = receivers_by_definition(child, item)
        found |= below
        if below and not child.continues:
            break
    return found or {at.receiver}


class RoutingMachine(RuleBasedStateMachine):
    """Random steps of one run, with restarts and reloads."""

    @initialize(of=trees())
    def begin(self, of: RoutingTree) -> None:
        self.tree = of
        self.state = RoutingState()
        self.now = 0
        self.count = 0
        self.open: dict[str, Announcement] = {}
        self.sent: dict[str, set[str]] = {name: set() for name in _RECEIVERS}
        """Receiver → ids that it was sent."""
        self.had: dict[str, set[str]] = {}
        """Active alert → receivers that were sent it."""
        self.missing: set[tuple[str, str]] = set()
        self.announced: list[Announcement] = []
        self.suppressed: set[str] = set()
        self.acknowledged = 0

    def _step(self, *items: Announcement, given: tuple[Acknowledgement, ...] = ()) -> Routed:
        self.announced += items
        expected = {(to, it.id) for it in items if it.is_urgent for to in receivers_by_definition(self.tree.root, it)}
        had = {item.alert: set(self.had.get(item.alert, ())) for item in items if item.ends}
        found = route(self.tree, self.state, items, Times(self.now, START + self.now), given)
        got = {(each.receiver, item.id) for each in found.dispatches for item in each.announcements}
        assert expected <= got, f"urgent messages are late or lost: {expected - got}"
        for item in items:
            if item.ends:
                assert {to for to, id_ in got if id_ == item.id} >= had[item.alert], "somebody got no all-clear"
        for each in found.dispatches:
            for item in each.announcements:
                is_again = item.id in self.sent[each.receiver]
                assert not is_again or each.purpose in ("repeat", "reminder", "escalation"), "sent twice"
                self.sent[each.receiver].add(item.id)
                if item.lasts and item.alert in self.open:
                    self.had.setdefault(item.alert, set()).add(each.receiver)
                assert not (item.alert not in self.open and each.purpose in ("repeat", "reminder"))
        self.suppressed |= {each.message for each in found.suppressed}
        self.state = found.state
        return found

    @rule(scope=st.sampled_from("abc"))
    def fire(self, scope: str) -> None:
        self.count += 1
        item = firing(f"f{self.count}", scope)
        self.open[item.alert] = item
        self._step(item)

    @rule(scope=st.sampled_from("abc"), severity=st.sampled_from(["warning", "page"]), count=st.integers(1, 3))
    def notify(self, scope: str, severity: str, count: int) -> None:
        items = []
        for _ in range(count):
            self.count += 1
            item = notice(f"n{self.count}", scope, severity)  # type: ignore[arg-type] # keys by name
            self.open[item.alert] = item
            items.append(item)
        self._step(*items)

    @rule(choice=st.integers(0, 20))
    def end(self, choice: int) -> None:
        if not self.open:
            return
        alert = sorted(self.open)[choice % len(self.open)]
        begun = self.open.pop(alert)
        self.count += 1
        item = reset(f"r{self.count}", begun.attributes.scope) if begun.is_urgent else over(begun)
        self._step(item)
        self.had.pop(alert, None)

    @rule(seconds=st.sampled_from([1, 30, 300, 3600, 8 * 3600]))
    def wait(self, seconds: int) -> None:
        self.now += seconds * SECOND
        self._step()

    @rule()
    def acknowledge(self) -> None:
        covered = self.state.number
        self._step(given=(Acknowledgement("bob", self.now, covered),))
        self.acknowledged = covered

    @rule()
    def restart(self) -> None:
        read = read_routing(encode_routing(self.state))
        assert read == self.state
        self.state = read

    @invariant()
    def nothing_vanishes(self) -> None:
        """Every message was sent, is recorded as suppressed, or waits in a group or a hold."""
        if not hasattr(self, "state"):
            return
        waits = {each.id for group in self.state.groups.values() for each in group.pending}
        waits |= {each.announcement.id for alerts in self.state.held.values() for each in alerts.values()}
        known = waits | self.suppressed | {id_ for ids in self.sent.values() for id_ in ids}
        assert {item.id for item in self.announced} <= known

    @invariant()
    def nothing_that_escalates_is_acknowledged(self) -> None:
        if hasattr(self, "state"):
            assert all(page.number > self.acknowledged for page in self.state.unacknowledged)


RoutingMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)
TestRouting = RoutingMachine.TestCase


@settings(max_examples=300, deadline=None)
@given(trees(), st.integers(0, 48), st.lists(st.sampled_from("abc"), min_size=1, max_size=6))
def test_none_of_the_valid_configurations_loses_or_delays_an_urgent_one(
    of: RoutingTree, hours: int, scopes: list[str]
) -> None:
    now, state = 0, RoutingState()
    for number, scope in enumerate(scopes):
        waiting = notice(f"n{number}", scope, "page")
        item = firing(f"f{number}", scope)
        found = route(of, state, [waiting, item], Times(now, START + now))
        got = {each.receiver for each in found.dispatches if item in each.announcements}
        assert got == receivers_by_definition(of.root, item)
        state, now = replace(found.state), now + hours * HOUR
