"""Which nodes of the tree take a message, and which targets are tried one after the other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.graph.routing import MessageAttributes, Receiver, Route, RouteTarget
from killswitch.model.instant import HOUR
from killswitch.planning.routing.tree import ALL_TARGETS, RouteNode, build, leaves, nodes_of
from tests import graphs
from tests.unit.planning.routing.routing_world import ANY, about, node, receiver, rule, tree

PAGES, WARNINGS = rule(severities=("page",)), rule(severities=("warning",))


def taken(of: object, subject: MessageAttributes, *, is_urgent: bool = False) -> list[str]:
    return [each.path for each in leaves(of, subject, is_urgent=is_urgent)]  # type: ignore[arg-type] # keys by name


def test_the_first_child_that_matches_takes_a_message_and_the_next_one_only_after_continue() -> None:
    of = tree(node("one", WARNINGS, "phone"), node("two", WARNINGS))
    assert taken(of, about()) == ["root/one"]
    going_on = tree(node("one", WARNINGS, "phone", continues=True), node("two", WARNINGS))
    assert taken(going_on, about()) == ["root/one", "root/two"]


def test_a_node_none_of_whose_children_match_takes_the_message_itself() -> None:
    of = tree(
        node("one", WARNINGS, "phone", children=("below",)), node("below", rule(scopes=("b",))), children=("one",)
    )
    assert taken(of, about()) == ["root/one"]
    assert taken(of, about("b")) == ["root/one/below"]
    assert taken(of, about(severity="page")) == ["root"]


def test_one_receiver_gets_a_message_once() -> None:
    of = tree(node("one", WARNINGS, "phone", continues=True), node("two", WARNINGS, "phone"))
    assert taken(of, about()) == ["root/one"]


def test_receiver_grouping_and_escalation_are_inherited_and_mute_times_are_not() -> None:
    of = tree(
        node("one", ANY, "phone", mute=("night",), group_by=("scope",), children=("below",)), node("below"),
        children=("one",), remind=HOUR,
    )  # fmt: skip
    below = next(each for each in nodes_of(of.root) if each.path == "root/one/below")
    assert (below.receiver, below.group_by, below.mute, below.remind) == ("phone", ("scope",), (), HOUR)


def _flat(name: str, match: object, target: str) -> Route:
    return replace(Route(name, ANY, (RouteTarget("file", f"/{target}"),), HOUR, graphs.HERE), rule=match)


def test_routes_without_a_tree_all_get_what_they_accept_and_an_urgent_message_that_none_accepts_reaches_all() -> None:
    of = build([_flat("desk", WARNINGS, "d"), _flat("other", WARNINGS, "o"), _flat("pager", PAGES, "p")], None)
    assert taken(of, about()) == ["root/desk", "root/other"]
    info = about(severity="info")
    assert taken(of, info) == []
    assert taken(of, info, is_urgent=True) == ["root"]
    assert of is not None
    assert [each.to for each in of.targets(ALL_TARGETS)] == ["/d", "/o", "/p"]


def test_the_hops_of_a_message_are_its_fallbacks_and_the_root_and_no_target_twice() -> None:
    chain = (
        receiver("desk"),
        receiver("phone", "second"),
        receiver("second", "third"),
        receiver("third", None, "desk"),
    )
    of = tree(receivers=chain)
    assert [[each.to for each in hop] for hop in of.hops("phone")] == [["/second"], ["/desk"]]
    assert of.hops("desk") == ()


def test_a_receiver_that_is_gone_is_the_root_s() -> None:
    assert [each.to for each in tree().targets("left")] == ["/desk"]


_RULES = st.sampled_from([ANY, PAGES, WARNINGS, rule(scopes=("a",)), rule(scopes=("b",)), rule(least_level=2)])
_SUBJECTS = st.builds(
    about, st.sampled_from(["a", "b"]), st.sampled_from(["page", "warning"]), level=st.sampled_from([None, 1, 2, 3])
)


@st.composite
def _trees(draw: st.DrawFn, depth: int = 3) -> RouteNode:
    number = iter(range(1000))

    def below(depth: int) -> tuple[RouteNode, ...]:
        count = draw(st.integers(0, 3)) if depth else 0
        return tuple(
            RouteNode(
                f"n{next(number)}", draw(_RULES), draw(st.sampled_from("abc")), below(depth - 1),
                continues=draw(st.booleans()),
            )
            for _ in range(count)
        )  # fmt: skip

    return RouteNode("root", None, "a", below(depth))


def _by_definition(node: RouteNode, subject: MessageAttributes) -> list[RouteNode]:
    """Alertmanager's `Route.Match`, as its source has it."""
    if node.rule is not None and not node.rule.matches(subject):
        return []
    found: list[RouteNode] = []
    for child in node.children:
        matches = _by_definition(child, subject)
        found += matches
        if matches and not child.continues:
            break
    return found or [node]


@given(_trees(), _SUBJECTS)
def test_matching_is_that_of_alertmanager_and_somebody_always_takes_a_message(
    root: RouteNode, subject: MessageAttributes
) -> None:
    everyone = {name: Receiver(name, (RouteTarget("file", name),), HOUR) for name in "abc"}
    of = replace(tree(), root=root, receivers=everyone)
    expected = {each.receiver: each.path for each in reversed(_by_definition(root, subject))}
    found = leaves(of, subject, is_urgent=True)
    assert {each.receiver: each.path for each in found} == expected
    assert found


def test_a_route_next_to_a_tree_takes_what_it_matches_and_takes_it_from_nobody() -> None:
    """A log of everything must not keep a page from the root."""
    log = replace(Route("log", ANY, (RouteTarget("file", "/log"),), HOUR, graphs.HERE))
    of = tree(log, node("warnings", WARNINGS, "phone"), children=("warnings",))
    assert taken(of, about(severity="page")) == ["root", "root/log"]
    assert taken(of, about()) == ["root/log", "root/warnings"]
