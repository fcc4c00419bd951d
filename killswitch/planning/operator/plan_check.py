"""Plan check: whether the orders of a saved plan follow from its own basis.

A digest is no signature. A plan that was written by hand could do more than close what its basis shows: open, add, sell
a holding twice, or cancel unknown orders. All of that is refused here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from msgspec import Struct

from killswitch.model.decision import Intent, Unwinding
from killswitch.model.effects import Cancels, Effect, Orders, in_record_order, of_kind
from killswitch.model.magnitude import sane, sound_instrument
from killswitch.model.snapshot import Market
from killswitch.planning.operator.plan_file import AccountBasis, SavedPlan
from killswitch.planning.orders.slices import DERIVATIVES
from killswitch.planning.spot_routes import base_of, quote_of
from killswitch.valuation.position_measures import ZERO

Markets = Mapping[str, Market]
"""Account → its market."""


def plan_faults(plan: SavedPlan, markets: Markets) -> Iterator[str]:
    """Everything in the plan that does not follow from its basis, one sentence each.

    The numbers of the plan must be sound. The market of an account that is not in `markets` is unknown.
    """
    if not plan.decisions:
        yield "it holds no decision"
    basis = _Basis.of(plan.basis, markets)
    for decision in plan.decisions:
        if decision.mode != "enforce" or decision.kind in ("reset", "hedge", "suspicion"):
            yield f"decision {decision.id} cannot be applied"
        for effect in in_record_order(decision.effects):
            if (check := _CHECKS.get(type(effect))) is not None:
                yield from check(effect, basis)
        if decision.unwinding is not None and not _possible(decision.unwinding):
            yield f"its unwinding {decision.unwinding.name} has an invalid pace or ladder"


def unsound_numbers(plan: SavedPlan) -> Iterator[str]:
    """Numbers in the plan that are not sound, one sentence each."""
    for decision in plan.decisions:
        orders = of_kind(decision.effects, Orders)
        for each in () if orders is None else orders.intents:
            if not all(sane(number) for number in (each.contracts, each.target, each.band or ZERO)):
                yield f"it orders {each.contracts} contracts of {_where(each)}, leaving {each.target}"
    for basis in plan.basis:
        for row in basis.positions or ():
            if not sane(row.contracts):
                yield f"it saw {row.contracts} contracts of {row.symbol} {row.side} on {basis.account}"
        for order in basis.orders or ():
            if not sane(order.amount):
                yield f"it saw order {order.id} of {order.amount} {order.symbol} on {basis.account}"
        for rules in basis.instruments:
            if sound_instrument(rules) != rules:
                yield f"it saw rules of {rules.symbol} on {basis.account} that no market has"
    # Numbers that are only shown must be finite too: they are stored.
    if not all(number.is_finite() for number in _decimals(plan.decisions)):
        yield "one of its decisions holds a number that is not finite"


def _decimals(value: object) -> Iterator[Decimal]:
    """Every Decimal in a nested structure."""
    if isinstance(value, Decimal):
        yield value
    elif isinstance(value, Struct):
        for name in value.__struct_fields__:
            yield from _decimals(getattr(value, name))
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _decimals(each)
    elif isinstance(value, dict):
        yield from _decimals(tuple(value.values()))


class _Basis(Struct, frozen=True):
    """Basis of a plan: contracts by position, orders by account, and the market of each account."""

    markets: Markets
    held: dict[tuple[str, str, str], Decimal] = {}
    orders: frozenset[tuple[str, str, str]] = frozenset()

    @classmethod
    def of(cls, basis: Sequence[AccountBasis], markets: Markets) -> _Basis:
        held: dict[tuple[str, str, str], Decimal] = {
            (account.account, each.symbol, each.side): each.contracts
            for account in basis
            for each in account.positions or ()
        }
        orders = frozenset((a.account, each.symbol, each.id) for a in basis for each in a.orders or ())
        return cls(markets, held, orders)

    def of_asset(self, account: str, asset: str) -> Decimal:
        """Holding of the asset on the account, over all symbols."""
        rows = (size for (name, symbol, _), size in self.held.items() if name == account and base_of(symbol) == asset)
        return sum(rows, ZERO)


def _order(intents: Sequence[Intent], index: int, basis: _Basis, where: str) -> Iterator[str]:
    """Faults of a single order."""
    intent = intents[index]
    market = basis.markets.get(intent.account)
    estimate = intent.after is not None and not intent.contracts  # proceeds of unknown size
    if (intent.contracts <= ZERO and not estimate) or intent.target < ZERO or (intent.band or ZERO) < ZERO:
        yield f"it orders {intent.contracts:f} contracts of {where}, leaving {intent.target:f}"
    elif intent.purpose == "hedge":
        yield f"it opens {where}: a plan carries out no hedge"
    elif intent.side != ("sell" if intent.position_side == "long" else "buy"):
        yield f"it orders to {intent.side} {where}, which adds to it"
    elif market is not None and intent.reduce_only != (market in DERIVATIVES):
        only = "reduce-only" if intent.reduce_only else "not reduce-only"
        yield f"its order for {where} is {only}, and the account trades {market}"
    elif market is not None and intent.purpose == "hop" and (market != "spot" or intent.position_side != "long"):
        yield f"it sells {where} over another market, and the account trades {market}"
    elif intent.after is not None:
        yield from _second_hop(intents, index, basis, where)


def _second_hop(intents: Sequence[Intent], index: int, basis: _Basis, where: str) -> Iterator[str]:
    """Faults of a second hop, which sells the proceeds of a preceding first hop once, and no previous holding."""
    hop = intents[index]
    after = hop.after
    if after is None or not 0 <= after < index or hop.purpose != "hop":
        yield f"it orders {where} after order {after}, which is not an earlier sale"
        return
    first = intents[after]
    if first.account != hop.account or first.after is not None or quote_of(first.symbol) != base_of(hop.symbol):
        yield f"it orders {where} after {_where(first)}, which does not buy its asset"
    others = (each.after for each in intents[:index] if each.after is not None and 0 <= each.after < index)
    if any(_position_of(intents[other]) == _position_of(first) for other in others):
        yield f"it sells the proceeds of {_where(first)} twice"
    was = basis.held.get(_position_of(hop), ZERO)
    if hop.target != was:
        yield f"it leaves {hop.target:f} of {where}, and saw {was:f}"


def _sums(intents: Sequence[Intent], basis: _Basis) -> Iterator[str]:
    """Faults of sums: slices that do not add up to a target, and assets sold beyond the holding."""
    slices: dict[tuple[str, str, str], list[Intent]] = {}
    sold: dict[tuple[str, str], Decimal] = {}
    for intent in intents:
        if intent.after is None and intent.purpose != "hedge":
            slices.setdefault(_position_of(intent), []).append(intent)
            if intent.purpose == "hop":
                sold.setdefault((intent.account, base_of(intent.symbol)), ZERO)
    for position, parts in slices.items():
        ordered, target = sum((part.contracts for part in parts), ZERO), parts[0].target
        asset = (position[0], base_of(position[1]))
        if asset in sold:
            sold[asset] += ordered
        if any((part.target, part.purpose) != (target, parts[0].purpose) for part in parts):
            yield f"its slices of {_where(parts[0])} leave different amounts of it"
        elif parts[0].purpose == "reduce":
            was = basis.held.get(position)
            if was is None or ordered != was - target:
                seen = "none" if was is None else f"{was:f}"
                yield f"it orders {ordered:f} contracts of {_where(parts[0])}, leaving {target:f}, and saw {seen}"
    for (account, name), amount in sold.items():
        was = basis.of_asset(account, name)
        if amount > was:
            yield f"it sells {amount:f} {name} on {account}, and saw {was:f}"


def _orders(orders: Orders, basis: _Basis) -> Iterator[str]:
    for index, intent in enumerate(orders.intents):
        yield from _order(orders.intents, index, basis, _where(intent))
    yield from _sums(orders.intents, basis)


def _cancels(cancels: Cancels, basis: _Basis) -> Iterator[str]:
    for each in cancels.cancels:
        if (each.account, each.symbol, each.order) not in basis.orders:
            yield f"it cancels order {each.order} of {each.symbol} on {each.account}, which it did not see"


_CHECKS: Final[Mapping[type[Any], Callable[[Any, _Basis], Iterator[str]]]] = {Orders: _orders, Cancels: _cancels}
"""Effect class → check against the basis. Every other effect must be one that the stage itself writes."""


def has_basis(effect: Effect) -> bool:
    """Whether the effect is checked against the basis of its plan instead of its stage."""
    return type(effect) in _CHECKS


def _possible(unwinding: Unwinding) -> bool:
    """Whether its numbers are a valid pace and ladder."""
    rate, pause = unwinding.max_orders_per_minute, unwinding.pause
    return (
        (rate is None or rate > 0)
        and (pause is None or 0 <= pause < float("inf"))
        and all(step.tries > 0 and sane(step.widen) and step.widen > ZERO for step in unwinding.ladder)
    )


def _position_of(intent: Intent) -> tuple[str, str, str]:
    return intent.account, intent.symbol, intent.position_side


def _where(intent: Intent) -> str:
    return f"{intent.symbol} {intent.position_side} on {intent.account}"
