"""Action kinds in the graph: node class, resolution of the written action, and properties."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar

from msgspec import Struct, field

from killswitch.graph.nodes import Action, ConditionNode, RankingRule, SignalRef
from killswitch.graph.problems import FaultyDocuments, Findings, unknown_name
from killswitch.graph.resolution.triggers import SignalIndex
from killswitch.policy.schema import policy
from killswitch.policy.yaml.source_map import Path


class Surroundings(Struct, frozen=True):
    """Names that the stages of one policy may refer to, and what their conditions add to the graph."""

    triggers: Mapping[str, int]
    """Name → number of every written trigger, including faulty ones."""
    rankings: Mapping[str, RankingRule]
    unwindings: Collection[str]
    others: FaultyDocuments
    """Possible names of faulty documents."""
    found: Findings
    columns: SignalIndex = field(default_factory=SignalIndex)
    position_columns: SignalIndex = field(default_factory=SignalIndex)
    resets: list[tuple[Path, ConditionNode]] = field(default_factory=list)
    position_conditions: list[tuple[Path, ConditionNode]] = field(default_factory=list)
    used_rankings: set[str] = field(default_factory=set)
    accounts: Collection[str] = ()
    """Names of the Account documents of the set."""


W = TypeVar("W")
A = TypeVar("A", bound=Action)

Selection = Literal["none", "part", "whole"]
"""Whether an action selects positions, and whether it surely selects one of a non-empty book."""


class ActionKind(Struct, Generic[W, A], frozen=True):
    """One kind of action.

    `key`: its key in a stage's `actions`. `resolve` creates the node of the written action and reports diagnostics; the
    path is that of the key. `text` is shown in diagrams and plans, given the graph's position signals. `effects`: keys
    of the effects that it may have. `is_reversible`: whether all of them are reversible, so that they are allowed on
    suspicion. `needs_the_book`: whether it depends on positions and orders; otherwise it is planned from the stage and
    the instant alone. `selection`: whether it selects positions. `rankings`: names of the rankings that it uses.
    `position_conditions`: key → the condition that it evaluates for each position, None without one. `is_absolute`:
    whether its targets depend only on the book, so that carrying it out again sells nothing more.
    `unwindings`: the names of those that carry it out, None for the plain one.
    """

    key: str
    node: type[A]
    effects: tuple[str, ...]
    is_reversible: bool
    needs_the_book: bool
    resolve: Callable[[W, policy.Stage, Path, Surroundings], A]
    text: Callable[[A, Sequence[SignalRef]], str]
    selection: Callable[[A], Selection] = lambda _: "none"
    rankings: Callable[[A], tuple[str, ...]] = lambda _: ()
    position_conditions: Callable[[A], Mapping[str, ConditionNode | None]] = lambda _: {}
    is_absolute: bool = False
    unwindings: Callable[[A], tuple[str | None, ...]] = lambda _: ()


AnyActionKind = ActionKind[Any, Any]


def of_node(actions: Iterable[Action], node: type[A]) -> list[A]:
    """The actions of this class among these, in order."""
    return [each for each in actions if isinstance(each, node)]


def check_ranking(name: str, path: Path, around: Surroundings) -> None:
    """Mark the ranking as used; report an unknown name in `found`."""
    known = name in around.rankings or around.others.can_have("Ranking", name)
    if not known and not around.found.gaps.is_hole((*path, "rank")):
        message, fix = unknown_name("ranking", name, around.rankings)
        around.found.error("KS3011", (*path, "rank"), message, fix)
    around.used_rankings.add(name)


def check_unwinding(name: str | None, path: Path, around: Surroundings) -> None:
    """Report an unknown unwinding in `found`."""
    where = (*path, "unwinding")
    if name is None or name in around.unwindings or around.found.gaps.is_hole(where):
        return
    if not around.others.can_have("Unwinding", name):
        message, fix = unknown_name("unwinding", name, around.unwindings)
        around.found.error("KS3030", where, message, fix)


def check_account(name: str, path: Path, around: Surroundings) -> None:
    """Report an unknown account in `found`; without Account documents the names are those of a recording."""
    if name in around.accounts or around.found.gaps.is_hole(path):
        return
    if around.accounts and not around.others.can_have("Account", name):
        message, fix = unknown_name("Account", name, around.accounts)
        around.found.error("KS3044", path, message, fix)
