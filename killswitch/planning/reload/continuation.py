"""What of a policy set continues what of the set before it: policies, stages and triggers, by their names.

A name continues itself, or the name that it declares with `formerly`. Everything else is new, or gone. A trigger
continues as the same one only if it watches the same: signal, arguments and comparison, or the same expression (R5).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from msgspec import Struct

from killswitch.graph.nodes import Graph, PolicySet, SignalRead, SignalRef, Stage, Trigger
from killswitch.model.words import Place

_LEFT_OUT = frozenset(("digest", "formerly", "labels"))
"""Fields that change nothing of what a policy does."""


class TriggerLink(Struct, frozen=True):
    """A trigger that continues one of the set before, by its name there.

    `keeps_clock`: whether everything that the old text has counted as true implies the new condition (R4).
    """

    former: str
    keeps_clock: bool


class PolicyLink(Struct, frozen=True):
    """How a policy continues one of the set before: name → former name of stages, and of triggers that are the same.

    `is_same`: nothing that it does has changed, but for its name and where it is written.
    """

    before: Graph
    after: Graph
    is_same: bool
    stages: Mapping[str, str]
    triggers: Mapping[str, TriggerLink]
    new_stages: Mapping[str, str]
    """Former name of each stage that continues → its name."""
    new_triggers: Mapping[str, str]
    """Former name of each trigger that continues under the same or another text → its name."""
    measures_alike: bool
    """Whether what the signals of a scope measure is the same."""

    @property
    def former(self) -> str:
        return self.before.policy

    @property
    def is_renamed(self) -> bool:
        return self.before.policy != self.after.policy

    def stage_before(self, name: str) -> Stage | None:
        """The stage of the set before, by its name there."""
        return next((each for each in self.before.stages if each.name == name), None)

    def stage_after(self, former: str | None) -> Stage | None:
        """The stage that continues `former`; None if none does."""
        name = None if former is None else self.new_stages.get(former)
        return None if name is None else next(each for each in self.after.stages if each.name == name)


class SetContinuation(Struct, frozen=True):
    """How a policy set continues the one before: policies by their former names, and those that none continues."""

    before: PolicySet
    after: PolicySet
    links: Mapping[str, PolicyLink]
    gone: tuple[Graph, ...]
    added: tuple[Graph, ...]
    moved_content: Mapping[str, str] = {}
    """Former name of each policy that does now what another one did before → the former name of that one."""

    @property
    def renamed(self) -> dict[str, str]:
        """Former name → name, of policies that have another one."""
        return {former: link.after.policy for former, link in self.links.items() if link.is_renamed}

    def policy_after(self, former: str) -> str:
        """The name of the policy that continues `former`; its own if none does."""
        link = self.links.get(former)
        return former if link is None else link.after.policy

    def renamed_stages(self) -> dict[tuple[str, str], tuple[str, str]]:
        """Former policy and stage → policy and stage, where either has another name."""
        found = {}
        for former, link in self.links.items():
            for old, new in link.new_stages.items():
                if (former, old) != (link.after.policy, new):
                    found[former, old] = (link.after.policy, new)
        return found


def no_rest() -> None:
    """No pause."""


def continuation(before: PolicySet, after: PolicySet, rest: Callable[[], None] = no_rest) -> SetContinuation:
    """How `after` continues `before`. `rest` is called between two policies, for a caller that must not take long."""
    old = {graph.policy: graph for graph in before.graphs}
    new = {graph.policy: graph for graph in after.graphs}
    continued = _continued([(each.policy, each.formerly) for each in before.graphs],
                           [(each.policy, each.formerly) for each in after.graphs])  # fmt: skip
    links = {}
    for name, former in continued.items():
        rest()
        links[former] = _linked(old[former], new[name])
    return SetContinuation(
        before,
        after,
        links,
        gone=tuple(graph for graph in before.graphs if graph.policy not in links),
        added=tuple(graph for graph in after.graphs if graph.policy not in continued),
        moved_content=_moved_content(before, links, rest),
    )


def _moved_content(before: PolicySet, links: Mapping[str, PolicyLink], rest: Callable[[], None]) -> dict[str, str]:
    by_content: dict[object, str] = {}
    for graph in before.graphs:
        rest()
        by_content.setdefault(content(graph), graph.policy)
    found = {}
    for former, link in links.items():
        if not link.is_same:
            rest()
            found[former] = by_content.get(content(link.after))
    return {former: other for former, other in found.items() if other is not None and other != former}


_Declared = Sequence[tuple[str, str | None]]
"""Names with the former names that they declare."""


def _continued(before: _Declared, after: _Declared) -> dict[str, str]:
    """Name → the name of the set before that it continues: the declared former name if there is one, else its own.

    A declaration is spent once a set with it was in force: one that the set before has as well, under the same name,
    or whose former name that set does not have, says nothing any more.
    """
    old = dict(before)
    fresh = {name: former for name, former in after if former is not None and former in old and old.get(name) != former}
    left = {*fresh.values()}
    return fresh | {name: name for name, _ in after if name in old and name not in fresh and name not in left}


def _declared(parts: Iterable[Stage] | Iterable[Trigger]) -> _Declared:
    return [(each.name, each.formerly) for each in parts]


def _linked(before: Graph, after: Graph) -> PolicyLink:
    stages = _continued(_declared(before.stages), _declared(after.stages))
    old, new = ({trigger.name: trigger for trigger in each.triggers} for each in (before, after))
    named = _continued(_declared(before.triggers), _declared(after.triggers))
    measures_alike = _measures_alike(before, after)
    triggers = {
        name: TriggerLink(former, measures_alike and implies(old[former], before.signals, new[name], after.signals))
        for name, former in named.items()
        if is_same_trigger(old[former], before.signals, new[name], after.signals)
    }
    return PolicyLink(
        before,
        after,
        is_same=alike(before, after, besides=("policy",)),
        stages=stages,
        triggers=triggers,
        new_stages={former: name for name, former in stages.items()},
        new_triggers={former: name for name, former in named.items()},
        measures_alike=measures_alike,
    )


def _measures_alike(before: Graph, after: Graph) -> bool:
    """Whether what a scope's signals measure is the same: how equity is judged, and which accounts are in a scope."""
    narrows = before.scope.each in ("account", "symbol") and after.scope.each == before.scope.each
    return before.equity == after.equity and (narrows or alike(before.scope, after.scope))


def is_same_trigger(
    old: Trigger, old_signals: Sequence[SignalRef], new: Trigger, new_signals: Sequence[SignalRef]
) -> bool:
    """Whether it is the same trigger (R5): signal, arguments and comparison are the same, or the whole expression."""
    return _watched(old, old_signals) == _watched(new, new_signals)


def _watched(trigger: Trigger, signals: Sequence[SignalRef]) -> object:
    threshold = trigger.threshold
    if threshold is None:
        return resolved(trigger.condition, signals)
    adaptive = threshold.adaptive
    return signals[threshold.index], threshold.op, None if adaptive is None else adaptive.identity


def implies(old: Trigger, old_signals: Sequence[SignalRef], new: Trigger, new_signals: Sequence[SignalRef]) -> bool:
    """Whether whatever the old trigger has counted as true implies the condition of the new one (R4).

    Exactly: the conditions are the same; or both compare the same signal with a fixed number in the same way, and
    the new number is reached no later. A trigger that counted unknown data as true implies nothing for one that does
    not.
    """
    if old.on_unknown == "trip" and new.on_unknown != "trip":
        return False
    if _watched(old, old_signals) != _watched(new, new_signals):
        return False
    one, other = old.threshold, new.threshold
    if one is None or other is None or one.adaptive is not None:
        return True
    if one.op in (">", ">="):
        return other.value <= one.value
    if one.op in ("<", "<="):
        return other.value >= one.value
    return other.value == one.value


def resolved(node: object, signals: Sequence[SignalRef]) -> object:
    """A condition with its signals in place of the numbers of their columns, to be compared between graphs."""
    if isinstance(node, SignalRead):
        return signals[node.index]
    if isinstance(node, tuple):
        return tuple(resolved(each, signals) for each in node)
    if isinstance(node, Struct) and not isinstance(node, SignalRef):
        fields = node.__struct_fields__
        values = ((name, getattr(node, name)) for name in fields)
        return (
            type(node).__name__,
            *(signals[value] if name == "index" else resolved(value, signals) for name, value in values),
        )
    return node


def content(node: object) -> object:
    """What a node does, to be compared and hashed: as `alike`, without the name of the policy."""
    if isinstance(node, Place):
        return None
    if isinstance(node, tuple | list):
        return tuple([content(each) for each in node])
    if isinstance(node, Mapping):
        return tuple(sorted((key, content(value)) for key, value in node.items()))
    if isinstance(node, Struct):
        fields = (name for name in node.__struct_fields__ if name not in _LEFT_OUT and name != "policy")
        return (type(node).__name__, *[content(getattr(node, name)) for name in fields])
    return node


def alike(one: object, other: object, *, besides: Collection[str] = ()) -> bool:
    """Whether two nodes are equal apart from places, digests, labels, former names, and the fields `besides`."""
    if isinstance(one, Place):
        return isinstance(other, Place)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(alike(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, Struct):
        return type(one) is type(other) and all(
            alike(getattr(one, name), getattr(other, name))
            for name in one.__struct_fields__
            if name not in _LEFT_OUT and name not in besides
        )
    return bool(one == other)
