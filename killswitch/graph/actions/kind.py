"""What a kind of action is to the graph: its node, how a written one is resolved, and what is asked of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from killswitch.graph.nodes import Action, ConditionNode, RankingRule, SignalRef
from killswitch.graph.problems import Findings, Others, unknown_name
from killswitch.graph.resolution.thresholds import Columns
from killswitch.policy.schema import policy
from killswitch.policy.yaml.source import Path


@dataclass(slots=True)
class Surroundings:
    """What the stages of one policy may refer to, and what their conditions add to the graph."""

    triggers: Mapping[str, int]
    """Name → number of every trigger that is written, also of those that have a mistake."""
    rankings: Mapping[str, RankingRule]
    unwindings: Collection[str]
    others: Others
    """What documents with mistakes in them may be called."""
    found: Findings
    columns: Columns = field(default_factory=Columns)
    position_columns: Columns = field(default_factory=Columns)
    resets: list[tuple[Path, ConditionNode]] = field(default_factory=list)
    all_ifs: list[tuple[Path, ConditionNode]] = field(default_factory=list)
    used_rankings: set[str] = field(default_factory=set)


W = TypeVar("W")
A = TypeVar("A", bound=Action)

Selection = Literal["none", "part", "whole"]
"""Whether an action closes positions of its choice, and whether it surely takes one where there is any."""


@dataclass(frozen=True, slots=True)
class ActionKind(Generic[W, A]):
    """One kind of action.

    `key`: its key in a stage's `actions`. `resolve` makes the node of what is written there, with its diagnostics; the
    path is that of the key. `text` is what diagrams and plans show, given the graph's position signals. `effects`: the
    keys of what a decision with it may do (`ksctl validate` starts without what describes them), `is_reversible`:
    whether all of that can be taken back, so that it may be done on suspicion, and `needs_the_book`: whether it depends
    on what accounts hold; one that does not is planned from the stage and the moment alone. `selection`: whether it
    closes positions of its choice. `rankings` are those that it goes by; `position_condition` is asked of each position
    when it is planned.
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
    position_condition: Callable[[A], ConditionNode | None] = lambda _: None


AnyActionKind = ActionKind[Any, Any]


def check_ranking(name: str, path: Path, around: Surroundings) -> None:
    """Note that the ranking is used; an error in `found` where there is none of this name."""
    known = name in around.rankings or around.others.may_have("Ranking", name)
    if not known and not around.found.gaps.unread((*path, "rank")):
        message, fix = unknown_name("ranking", name, around.rankings)
        around.found.error("KS3011", (*path, "rank"), message, fix)
    around.used_rankings.add(name)


def check_unwinding(name: str | None, path: Path, around: Surroundings) -> None:
    """An error in `found` where there is no unwinding of this name."""
    where = (*path, "unwinding")
    if name is None or name in around.unwindings or around.found.gaps.unread(where):
        return
    if not around.others.may_have("Unwinding", name):
        message, fix = unknown_name("unwinding", name, around.unwindings)
        around.found.error("KS3030", where, message, fix)
