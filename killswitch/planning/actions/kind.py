"""What a kind of action is to planning: what it comes to at a moment, and the most that it may ever come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Generic, TypeVar

from msgspec import Struct

from killswitch.graph.nodes import Action, Graph, PolicySet, Stage
from killswitch.graph.unwinding import UnwindingRule
from killswitch.model.decision import Source
from killswitch.model.effects import Effect
from killswitch.model.snapshot import AccountSnapshot, Instrument, Position, Side
from killswitch.planning.rounding import reduction
from killswitch.planning.scopes.evaluator import Watch
from killswitch.planning.targets.ranking import Candidate
from killswitch.planning.targets.selection import AllIf, Target
from killswitch.signals.view import ScopeView


class NoBookError(Exception):
    """A kind that says that it does not need the book asks for it."""


class KnownBook(Struct, frozen=True):
    """What is known of a scope when a stage is planned: its trusted accounts, what they hold, and whose loss it is.

    `is_partial`: the scope has other accounts, of which nothing is known.
    """

    watch: Watch
    view: ScopeView
    candidates: Sequence[Candidate]
    source: Source
    policies: PolicySet
    is_partial: bool

    @property
    def graph(self) -> Graph:
        return self.watch.prepared.graph


class Context(Struct, frozen=True):
    """The stage that an action is planned for, on which scope, and when (microseconds).

    `position_condition` is that of the action, compiled.
    """

    scope: str
    stage: Stage
    now: int
    known: KnownBook | None = None
    position_condition: AllIf | None = None

    @property
    def book(self) -> KnownBook:
        """What is known of the scope; NoBookError for an action whose kind does not need the book."""
        if self.known is None:
            raise NoBookError(
                f"an action of stage {self.stage.name} asks for the book, and its kind says it needs none"
            )
        return self.known


class Planned(Struct, frozen=True):
    """What one action comes to.

    The targets of all actions of a stage are unwound together, by the most urgent `rule` of theirs; of several for one
    position the smallest holds. `effects` are all others. `should_select`: the book holds what it might have selected,
    so that a stage without any target has not done what it is for.
    """

    targets: Sequence[Target] = ()
    rule: UnwindingRule | None = None
    effects: tuple[Effect, ...] = ()
    remarks: tuple[str, ...] = ()
    should_select: bool = False


PositionName = tuple[str, Side]
"""Symbol and side."""


class Most(Struct, frozen=True):
    """The most that one action may have to do on an account.

    `orders`: position → its symbol and how many orders it takes. `first` and `last`: place among the account's orders →
    symbol, of each that is cancelled before closing and at its end. `whole`: whether every position may be closed
    wholly. `rule`: how orders are sent.
    """

    orders: Mapping[PositionName, tuple[str, int]] = {}
    first: Mapping[int, str] = {}
    last: Mapping[int, str] = {}
    whole: bool = False
    rule: UnwindingRule | None = None


class MostContext(Struct, frozen=True):
    """The account that the most is asked of, and by which rules its orders are cut."""

    account: AccountSnapshot
    unwindings: Sequence[UnwindingRule]
    instruments: Mapping[str, Instrument]
    reduce_only: bool

    def orders(self, position: Position, left: Decimal) -> int:
        """How many orders it takes to leave `left` of the position, a part of it."""
        wanted = position.contracts * left
        rules = self.instruments.get(position.symbol)
        return len(reduction(position, wanted, rules, reduce_only=self.reduce_only).parts)


A = TypeVar("A", bound=Action)


class ActionPlan(Struct, Generic[A], frozen=True):
    """One kind of action: `plan` says what one comes to now, `most` the worst case; one without orders has none."""

    key: str
    plan: Callable[[A, Context], Planned]
    most: Callable[[A, MostContext], Most] = lambda _action, _context: Most()


AnyActionPlan = ActionPlan[Any]
