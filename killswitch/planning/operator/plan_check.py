"""Plan check: the orders of a saved plan are planned again from its own basis, and must be the same.

A digest is no signature. A plan that was written by hand could do more than close what its basis shows: open, add, sell
a holding twice, or cancel unknown orders. What a position keeps is the plan's own choice; how it gets there is not: the
orders are those that planning makes of the basis, at the marks of the basis. `rank` and `score` only order and show.
The parts of strategies are checked against what their owners hold when the plan is applied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from msgspec import Struct

from killswitch.graph.nodes import PolicySet
from killswitch.graph.unwinding import PLAIN, UnwindingRule, skips_bounds_without_mark, unwinding_for
from killswitch.model.decision import Decision, Intent, Unwinding
from killswitch.model.effects import Cancels, Effect, Orders
from killswitch.model.instant import to_micros
from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot, Balance
from killswitch.model.words import Cause
from killswitch.planning.operator.plan_file import SavedPlan
from killswitch.planning.orders.slices import TradedMarkets, cut_of
from killswitch.planning.orders.unwind import declared_unwinding, unwind
from killswitch.planning.targets.ranking import Ranked, candidates
from killswitch.planning.targets.selection import SelectedTarget
from killswitch.render.formats import count_of
from killswitch.valuation.ownership import BookKey
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import ScopeView
from killswitch.valuation.snapshot_facts import SnapshotFacts

WITH_BASIS: Final = (Orders, Cancels)
"""Effects that are checked against the basis. Every other effect must be one that the stage itself writes."""


def has_basis(effect: Effect) -> bool:
    """Whether the effect is checked against the basis of its plan instead of its stage."""
    return isinstance(effect, WITH_BASIS)


def plan_faults(plan: SavedPlan, policies: PolicySet) -> Iterator[str]:
    """Everything in the plan that planning does not make of its basis, one sentence each. Its numbers must be sound."""
    if not plan.decisions:
        yield "it holds no decision"
    view = _view_of(plan)
    seen = {(basis.account, each.symbol, each.id) for basis in plan.basis for each in basis.orders or ()}
    ordered: set[_Place] = set()
    for decision in plan.decisions:
        if decision.mode != "enforce" or decision.kind in ("reset", "hedge", "suspicion"):
            yield f"decision {decision.id} cannot be applied"
        places = {_place(intent) for intent in decision.intents}
        yield from (f"two of its decisions order {_where(place)}" for place in sorted(ordered & places))
        ordered |= places
        yield from _order_faults(decision, view, policies)
        for cancel in decision.cancels:
            if (cancel.account, cancel.symbol, cancel.order) not in seen:
                yield f"it cancels order {cancel.order} of {cancel.symbol} on {cancel.account}, which it did not see"


def part_faults(plan: SavedPlan, facts: SnapshotFacts, policies: PolicySet) -> Iterator[str]:
    """What the orders for a strategy take of others, or of what it no longer has, one sentence each.

    The parts of a position may have changed while the position is what it was. `facts`: those of the snapshot.
    """
    shared = {f"strategy/{rule.name}": rule.name for rule in policies.strategies if not rule.whole}
    held = {
        (basis.account, *each.key): each.contracts for basis in plan.basis for each in basis.positions or ()
    }  # fmt: skip
    for decision in plan.decisions:
        own = shared.get(decision.scope)
        for intent in (each for each in decision.intents if each.purpose == "reduce"):
            where, owned = _where(_place(intent)), facts.owned(intent.account)
            if [each.strategy for each in intent.parts[:1]] != ([] if own is None else [own]):
                yield f"its order for {where} is not of the part of {own or 'nobody'}, whom it closes for"
                continue
            key: BookKey = (intent.symbol, intent.position_side)
            taken = held.get((intent.account, *key), ZERO) - intent.target
            if intent.parts and sum((each.contracts for each in intent.parts), ZERO) != taken:
                yield f"its order for {where} takes {taken:f} contracts, and its parts are others"
            for part in intent.parts:
                now = owned.held_by(part.strategy, key)
                if now is None:
                    yield f"whose {where} is: {owned.unknown[key]}"
                elif now < part.contracts:
                    yield f"{part.strategy} has {now:f} of {where}, and the plan closes {part.contracts:f} of its part"


def unsound(plan: SavedPlan) -> Iterator[str]:
    """What no plan can be compared or computed with, one sentence each: repeated rows, and impossible numbers."""
    rows: list[tuple[str, ...]] = [(each.account,) for each in plan.basis]
    rows += [(basis.account, *each.key) for basis in plan.basis for each in basis.positions or ()]
    yield from (f"its basis lists {' '.join(row)} twice" for row, count in Counter(rows).items() if count > 1)
    used = (plan.basis, tuple(decision.intents for decision in plan.decisions))
    yield from (f"it holds {number}, which no venue reports" for number in _decimals(used) if not sane(number))
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


# Planning again

_Place = tuple[str, str, str, bool]
"""Account, symbol, side of the position, and whether the order is the second hop of a sale."""


def _place(intent: Intent) -> _Place:
    return intent.account, intent.symbol, intent.position_side, intent.after is not None


def _where(place: _Place) -> str:
    return f"{place[1]} {place[2]} on {place[0]}"


def _view_of(plan: SavedPlan) -> ScopeView:
    """The accounts of the basis that could be read, as a snapshot shows them."""
    rules = {(basis.account, each.symbol): each for basis in plan.basis for each in basis.instruments}
    accounts = tuple(
        AccountSnapshot(
            basis.account, "", basis.market, basis.currency, "ok", positions=basis.positions,
            balances=tuple(Balance(asset, ZERO, price) for asset, price in basis.prices.items()),
            instruments=basis.instruments, liquidity=basis.liquidity,
        )
        for basis in plan.basis if basis.market is not None and basis.currency is not None
    )  # fmt: skip
    return ScopeView(to_micros(plan.as_of), True, accounts, rules, None)


def _order_faults(decision: Decision, view: ScopeView, policies: PolicySet) -> Iterator[str]:
    """The orders that planning does not make of the basis, by any unwinding that the decision may have had."""
    if not decision.intents:
        return
    rules = [rule for rule, declared in _unwindings(decision, policies) if declared == decision.unwinding]
    if not rules:
        name = "none" if decision.unwinding is None else decision.unwinding.name
        yield f"its unwinding {name} is not one of the policy set"
        return
    found = [[*_differences(decision, view, rule)] for rule in rules]
    yield from min(found, key=len)


_EARLIER: Final[Mapping[Cause, tuple[UnwindingRule, Unwinding | None]]] = {
    "operator": (UnwindingRule("operator"), None),
    "system-failure": (UnwindingRule("system-failure"), Unwinding("system-failure", is_sliced=False)),
}
"""Reason → how it was carried out, and declared in plans, before it had a bound (ADR 0178)."""


def _unwindings(decision: Decision, policies: PolicySet) -> Iterator[tuple[UnwindingRule, Unwinding | None]]:
    """The unwindings by which the decision may have been planned, as it declares them. No close by force is saved."""
    if decision.kind != "manual":
        yield from ((rule, declared_unwinding(rule)) for rule in (PLAIN, *policies.unwindings))
        return
    rule = unwinding_for(decision.cause, policies.unwindings)
    yield rule, declared_unwinding(rule)
    if skips_bounds_without_mark(rule) and rule.name in _EARLIER:
        yield _EARLIER[rule.reasons[0]]


def _differences(decision: Decision, view: ScopeView, rule: UnwindingRule) -> Iterator[str]:
    targets = _targets(decision.intents, view, rule)
    # whether a mark was fresh is no part of the basis
    may_skip = decision.kind == "manual" and skips_bounds_without_mark(rule)
    again = _by_place(unwind(view, targets, rule, keeps=decision.kind == "manual").intents)
    for place, orders in _by_place(decision.intents).items():
        expected = again.get(place, [])
        if len(orders) != len(expected):
            yield f"its basis gives {count_of(len(expected), 'order')} for {_where(place)}, and it has {len(orders)}"
        for number, (order, other) in enumerate(zip(orders, expected, strict=False), start=1):
            for name, value in order.items():
                if value != other[name] and not (name == "at_market" and may_skip):
                    yield (
                        f"{name} of its order {number} for {_where(place)} is {_text(value)}, and its basis gives "
                        f"{_text(other[name])}"
                    )


def _targets(intents: Sequence[Intent], view: ScopeView, rule: UnwindingRule) -> list[SelectedTarget]:
    """What the orders leave of each position, by the market on which `rule` sells it."""
    left = {_place(each): each.target for each in reversed(intents) if each.after is None}
    market = TradedMarkets.of(view, rule)
    found = []
    for rank, candidate in enumerate(candidates(view, None), start=1):
        ranked = Ranked(candidate, rank, 0.0)
        account, _, side = candidate.key
        target = left.get((account, cut_of(rank, SelectedTarget(ranked, ZERO), market).route.first, side, False))
        if target is not None:
            found.append(SelectedTarget(ranked, target))
    return found


_ONLY_SHOWN: Final = ("rank", "score", "after", "parts")


def _by_place(intents: Sequence[Intent]) -> dict[_Place, list[dict[str, Any]]]:
    """What each order does, by place and in order; `follows` names the order whose proceeds it sells."""
    found: dict[_Place, list[dict[str, Any]]] = {}
    names: list[str] = []
    for intent in intents:
        orders = found.setdefault(_place(intent), [])
        names.append(f"order {len(orders) + 1} for {_where(_place(intent))}")
        known = intent.after is None or 0 <= intent.after < len(names) - 1
        does = {name: getattr(intent, name) for name in Intent.__struct_fields__ if name not in _ONLY_SHOWN}
        follows = None if intent.after is None else names[intent.after] if known else f"order {intent.after}"
        orders.append(does | {"follows": follows})
    return found


def _text(value: object) -> str:
    return "none" if value is None else f"{value:f}" if isinstance(value, Decimal) else str(value)
