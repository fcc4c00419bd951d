"""The most that a stage may have to do in a book as it is: orders and cancels, whatever fires it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from killswitch.graph.nodes import CancelOrders, Close, Graph, PolicySet, Stage
from killswitch.graph.unwinding import PLAIN, UnwindingRule, unwinding_named
from killswitch.model.instant import SECOND
from killswitch.model.snapshot import AccountSnapshot, Instrument, Position
from killswitch.planning.rounding import reduction
from killswitch.planning.spot_routes import base_of
from killswitch.planning.stage_decision import is_entry
from killswitch.signals.position import ZERO


@dataclass(frozen=True, slots=True)
class StageWork:
    """For one account. `orders`: symbol and how many orders it takes, for each position that may be selected.

    `first` and `last`: the symbol of each order cancelled before closing and at its end. `whole`: whether every
    position may be closed wholly. `every`: seconds between two departures by the declared pace, 0 for none; `pause`:
    between two orders of one position.
    """

    orders: tuple[tuple[str, int], ...]
    first: tuple[str, ...]
    last: tuple[str, ...]
    whole: bool
    every: float = 0.0
    pause: float = 0.0

    @property
    def nothing(self) -> bool:
        return not (self.orders or self.first or self.last)


def everything(
    account: AccountSnapshot, *, reduce_only: bool, instruments: Mapping[str, Instrument] | None = None
) -> StageWork:
    """Every position closed and every order cancelled, as fast as the venue allows."""
    rules = _rules(account, instruments)
    orders = {position.key: (position.symbol, _parts(position, rules, ZERO, reduce_only=reduce_only))
              for position in account.positions or ()}  # fmt: skip
    first, last = _cancels(account, {"entry", "all"})
    return StageWork(_some(orders.values()), first, last, whole=True)


def stage_work(
    policies: PolicySet,
    graph: Graph,
    stage: Stage,
    account: AccountSnapshot,
    *,
    reduce_only: bool,
    instruments: Mapping[str, Instrument] | None = None,
) -> StageWork:
    """The most that the stage may have to do in this account.

    Both sides are taken, conditions for closing all are taken to hold, and of a number of positions by rank those that
    take the most orders: which they will be, only the moment says. Slices for the market's sake are not counted.
    """
    rules = _rules(account, instruments)
    orders: dict[tuple[str, str], tuple[str, int]] = {}
    closes = [action for action in stage.actions if isinstance(action, Close)]
    whole = False
    for close in closes:
        chosen = [each for each in account.positions or () if _allowed(close, each)]
        all_of_it = close.all_if is not None or close.fraction == 1
        left = ZERO if all_of_it else 1 - close.fraction
        cut = {each.key: (each.symbol, _parts(each, rules, left, reduce_only=reduce_only)) for each in chosen}
        most = sorted(cut, key=lambda key: -cut[key][1])
        if close.top is not None and close.all_if is None:
            most = most[: close.top]
        whole = whole or (all_of_it and len(most) == len(account.positions or ()))
        for key in most:
            orders[key] = max(orders.get(key, cut[key]), cut[key], key=lambda each: each[1])
    kinds = {action.kind for action in stage.actions if isinstance(action, CancelOrders)}
    first, last = _cancels(account, kinds)
    rule = _slowest(policies, closes)
    every = 0.0 if not rule.max_orders_per_minute else 60.0 / rule.max_orders_per_minute
    plain = not (rule.ladder or rule.slippage)
    return StageWork(_some(orders.values()), first, last, whole and plain, every, rule.pause / SECOND)


def _slowest(policies: PolicySet, closes: Sequence[Close]) -> UnwindingRule:
    rules = [unwinding_named(close.unwinding, policies.unwindings) for close in closes]
    return min(rules, key=lambda rule: rule.max_orders_per_minute or float("inf"), default=PLAIN)


def _parts(position: Position, rules: Mapping[str, Instrument], left: Decimal, *, reduce_only: bool) -> int:
    wanted = position.contracts * left
    return len(reduction(position, wanted, rules.get(position.symbol), reduce_only=reduce_only).parts)


def _allowed(close: Close, position: Position) -> bool:
    base = base_of(position.symbol)
    if base in close.except_assets:
        return False
    if close.side in ("long", "short") and position.side != close.side:
        return False
    return close.symbols is None or position.symbol in close.symbols or base in close.symbols


def _cancels(account: AccountSnapshot, kinds: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Entries go first wherever anything is cancelled; the rest at the end, where a stage says all."""
    entries = [(order, is_entry(order, account)) for order in account.orders or ()]
    first = tuple(order.symbol for order, entry in entries if entry and kinds)
    return first, tuple(order.symbol for order, entry in entries if not entry and "all" in kinds)


def _rules(account: AccountSnapshot, instruments: Mapping[str, Instrument] | None) -> dict[str, Instrument]:
    return {**(instruments or {}), **{each.symbol: each for each in account.instruments or ()}}


def _some(orders: Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    return tuple(each for each in orders if each[1])
