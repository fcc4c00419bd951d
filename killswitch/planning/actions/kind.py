"""Action kinds in planning: the plan of an action at an instant, and its worst case."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Generic, TypeVar

from msgspec import Struct

from killswitch.graph.nodes import Action, Graph, PolicySet, Stage
from killswitch.graph.unwinding import UnwindingRule
from killswitch.model.decision import Source
from killswitch.model.effects import Effect
from killswitch.model.snapshot import AccountSnapshot, Instrument, LockPart, Position
from killswitch.planning.orders.closing_order import BY_RANK, ClosingOrder
from killswitch.planning.orders.hedge_netting import NettedBook, netted
from killswitch.planning.orders.net_hedge import NetHedge
from killswitch.planning.orders.slices import Blocked
from killswitch.planning.reducing import PositionName
from killswitch.planning.rounding import reduction
from killswitch.planning.scopes.evaluator import ScopeEvaluator
from killswitch.planning.targets.ranking import RankingCandidate
from killswitch.planning.targets.selection import PositionConditions, SelectedTarget
from killswitch.valuation.scope_view import PnlKey, ScopeView


class NoBookError(Exception):
    """An action kind without `needs_the_book` accesses the book."""


class KnownBook(Struct, frozen=True):
    """The known part of a scope's book: its trusted accounts, their positions, and the attribution of the loss.

    `is_partial`: the scope has further accounts, which are unknown. `unseen`: accounts whose positions are the last
    known ones. They are closed, but no order can be judged by them.
    """

    evaluator: ScopeEvaluator
    view: ScopeView
    candidates: Sequence[RankingCandidate]
    source: Source
    policies: PolicySet
    is_partial: bool
    unseen: frozenset[str] = frozenset()

    @property
    def graph(self) -> Graph:
        return self.evaluator.compiled.graph

    @property
    def netted(self) -> NettedBook:
        """The candidates with each declared hedge as one position."""
        return netted(self.candidates, self.view, self.graph.hedges, self.unseen)


class Context(Struct, frozen=True):
    """Context of planning an action: scope, stage and instant (microseconds).

    `position_conditions`: the compiled conditions of the action on positions, by key.
    """

    scope: str
    stage: Stage
    now: int
    known: KnownBook | None = None
    position_conditions: PositionConditions = {}

    @property
    def book(self) -> KnownBook:
        """The known book of the scope; NoBookError for an action whose kind does not need the book."""
        if self.known is None:
            name = self.stage.name
            raise NoBookError(f"an action of stage {name} accesses the book, and its kind has no needs_the_book")
        return self.known


class Planned(Struct, frozen=True):
    """The plan of an action, or of all actions of a stage.

    The targets of a stage's actions are unwound together, by the most urgent `rule`; of several targets for one
    position the smallest applies. `effects` are all other effects. `should_select`: the book has positions that the
    action might have selected, so that a stage without any target has not done its work. `held_back`: why it selects
    none of them now, so that everything else is carried out, and it is planned again at each tick. `counted`: positions
    that count for a daily cap. `locks_selected`: parts of the lock in `effects` that reach only the selected positions,
    once these are known. `reduces`: it sells for a `reduce`, which a bound of a day may count. `order`: how the orders
    follow each other. `naked`: what a complete close leaves of hedges that it cannot close. `opens`: what a declared
    hedge opens against what its reductions leave.
    """

    targets: Sequence[SelectedTarget] = ()
    rule: UnwindingRule | None = None
    effects: tuple[Effect, ...] = ()
    remarks: tuple[str, ...] = ()
    should_select: bool = False
    held_back: str | None = None
    counted: frozenset[PnlKey] = frozenset()
    locks_selected: tuple[LockPart, ...] = ()
    reduces: bool = False
    order: ClosingOrder = BY_RANK
    naked: tuple[Blocked, ...] = ()
    opens: tuple[NetHedge, ...] = ()


class Most(Struct, frozen=True):
    """Worst-case work of one action on an account.

    `orders`: position → its symbol and number of orders. `first` and `last`: index among the account's orders → symbol,
    for orders canceled before closing and at its end. `closes_everything`: whether every position may
    be closed completely.
    `rule`: how orders are sent.
    """

    orders: Mapping[PositionName, tuple[str, int]] = {}
    first: Mapping[int, str] = {}
    last: Mapping[int, str] = {}
    closes_everything: bool = False
    rule: UnwindingRule | None = None


class MostContext(Struct, frozen=True):
    """Context of the worst case: the account, and the rules by which its orders are split."""

    account: AccountSnapshot
    unwindings: Sequence[UnwindingRule]
    instruments: Mapping[str, Instrument]
    reduce_only: bool

    def orders(self, position: Position, left: Decimal) -> int:
        """Number of orders that reduce the position to the fraction `left`."""
        wanted = position.contracts * left
        rules = self.instruments.get(position.symbol)
        return len(reduction(position, wanted, rules, reduce_only=self.reduce_only).parts)


A = TypeVar("A", bound=Action)


class ActionPlan(Struct, Generic[A], frozen=True):
    """One kind of action: `plan` plans it, `most` computes its worst case; kinds without orders have no worst case."""

    key: str
    plan: Callable[[A, Context], Planned]
    most: Callable[[A, MostContext], Most] = lambda _action, _context: Most()


AnyActionPlan = ActionPlan[Any]
