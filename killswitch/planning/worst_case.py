"""Worst-case work of a stage in a given book: the maximum of orders and cancels. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from killswitch.graph.nodes import PolicySet, Stage
from killswitch.graph.unwinding import PLAIN, UnwindingRule
from killswitch.model.instant import SECOND
from killswitch.model.snapshot import AccountSnapshot
from killswitch.planning.actions.cancel_orders import most_cancels
from killswitch.planning.actions.kind import Most, MostContext, PositionName
from killswitch.planning.actions.registry import most
from killswitch.signals.position_measures import ZERO


class StageWork(Struct, frozen=True):
    """Work on one account. `orders`: symbol and number of orders for each position that may be selected.

    `first` and `last`: symbols of the orders canceled before closing and at its end. `whole`: whether every position
    may be closed completely. `every`: seconds between two orders by the declared pace, 0 without one. `pause`: seconds
    between two orders of one position.
    """

    orders: tuple[tuple[str, int], ...]
    first: tuple[str, ...]
    last: tuple[str, ...]
    whole: bool
    every: float = 0.0
    pause: float = 0.0

    @property
    def is_empty(self) -> bool:
        return not (self.orders or self.first or self.last)


def whole_account_work(account: AccountSnapshot, *, reduce_only: bool) -> StageWork:
    """Work of closing every position and canceling every order as fast as the venue allows."""
    rules = {each.symbol: each for each in account.instruments or ()}
    context = MostContext(account, (), rules, reduce_only)
    orders = {position.key: (position.symbol, context.orders(position, ZERO)) for position in account.positions or ()}
    return _work([Most(orders=orders, whole=True), most_cancels(account, "all")])


def stage_work(policies: PolicySet, stage: Stage, account: AccountSnapshot, *, reduce_only: bool) -> StageWork:
    """Worst-case work of the stage on this account, without slices that limit market impact."""
    rules = {each.symbol: each for each in account.instruments or ()}
    context = MostContext(account, policies.unwindings, rules, reduce_only)
    return _work([most(action, context) for action in stage.actions])


def _work(found: Sequence[Most]) -> StageWork:
    """Combined work of several actions: the most orders for each position, at the slowest pace."""
    orders: dict[PositionName, tuple[str, int]] = {}
    first: dict[int, str] = {}
    last: dict[int, str] = {}
    for each in found:
        for key, cut in each.orders.items():
            orders[key] = max(orders.get(key, cut), cut, key=lambda one: one[1])
        first |= each.first
        last |= each.last
    rule = _slowest([each.rule for each in found if each.rule is not None])
    every = 0.0 if not rule.max_orders_per_minute else 60.0 / rule.max_orders_per_minute
    whole = any(each.whole for each in found) and not (rule.ladder or rule.slippage)
    some = tuple(each for each in orders.values() if each[1])
    return StageWork(some, tuple(first.values()), tuple(last.values()), whole, every, rule.pause / SECOND)


def _slowest(rules: Sequence[UnwindingRule]) -> UnwindingRule:
    return min(rules, key=lambda rule: rule.max_orders_per_minute or float("inf"), default=PLAIN)
