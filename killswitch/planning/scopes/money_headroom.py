"""Headroom in money: how much equity a scope would lose until a trigger reaches its threshold.

Positions keep their size, and their notional and margins stay as they are: it is a loss of equity alone, as prices make
it when they move against the book by little. A signal without a formula for it has none, with the reason.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from msgspec import Struct

from killswitch.graph.nodes import Trigger
from killswitch.planning.scopes.evaluator import ScopeEvaluator
from killswitch.planning.scopes.trigger_status import has_only_young_windows, status_of_trigger, why_unknown
from killswitch.signals.catalogue import BY_NAME

_STEP = Decimal("0.00000001")
"""A satoshi: amounts are rounded away from zero, so that the change is never too small to reach the threshold."""
_MOST = 1e18
"""Amounts beyond it are no money: a limit that only rounding has made."""


class MoneyHeadroom(Struct, frozen=True, omit_defaults=True):
    """The change of equity that takes a trigger to its threshold.

    `change` is in the scope's `currency`: below zero a loss, above zero a gain. Of a trigger that `is_true`, it is the
    change that takes the value back to the threshold. None: `because` states why. `is_bound`: its window is longer than
    the history, and what was not seen may have been higher: the loss is at most that, the way back at least.
    """

    policy: str
    scope: str
    trigger: str
    change: Decimal | None = None
    currency: str | None = None
    is_true: bool | None = None
    because: str | None = None
    is_bound: bool = False


def money_headrooms(evaluator: ScopeEvaluator) -> tuple[MoneyHeadroom, ...]:
    """The headroom in money of every trigger of a scope after the last tick."""
    return tuple(_of_trigger(evaluator, i) for i in range(len(evaluator.compiled.graph.triggers)))


def _of_trigger(evaluator: ScopeEvaluator, index: int) -> MoneyHeadroom:
    found = _no_formula(evaluator, index) or _change(evaluator, index)
    trigger, known = evaluator.compiled.graph.triggers[index], status_of_trigger(evaluator, index).truth
    if isinstance(found, str):
        return MoneyHeadroom(evaluator.policy, evaluator.scope, trigger.name, is_true=known, because=found)
    is_bound = _is_only_young(evaluator, trigger)
    return MoneyHeadroom(
        evaluator.policy, evaluator.scope, trigger.name, found, evaluator.currency, known, is_bound=is_bound
    )


def _is_only_young(evaluator: ScopeEvaluator, trigger: Trigger) -> bool:
    """Whether the loss that a trigger compares is known to be at least what the short history shows, and no less."""
    threshold, columns = trigger.threshold, evaluator.columns
    if threshold is None or columns is None or threshold.op not in (">", ">="):
        return False
    spec = BY_NAME[evaluator.compiled.graph.signals[threshold.index].name]
    is_partly_known = columns.lo[threshold.index] != columns.hi[threshold.index]
    return is_partly_known and spec.is_loss_size and has_only_young_windows(evaluator, trigger)


def _no_formula(evaluator: ScopeEvaluator, index: int) -> str | None:
    """Why no formula gives the change, whatever is observed; None if one does."""
    graph = evaluator.compiled.graph
    threshold = graph.triggers[index].threshold
    if threshold is None:
        return "an expression has no single threshold"
    level = BY_NAME[graph.signals[threshold.index].name].equity_at
    if isinstance(level, str):
        return level
    adaptive = evaluator.adaptive.get(index)
    moves = adaptive is not None and adaptive.rule.column is not None
    return "its threshold moves with another signal" if moves else None


def _change(evaluator: ScopeEvaluator, index: int) -> Decimal | str:
    """The change of equity, or why it is unknown."""
    trigger, limit = evaluator.compiled.graph.triggers[index], evaluator.limit_of(index)
    view, columns, threshold = evaluator.history.view, evaluator.columns, trigger.threshold
    if view is None or columns is None or threshold is None or limit is None:
        return "nothing was observed yet"
    is_known = columns.lo[threshold.index] == columns.hi[threshold.index] or _is_only_young(evaluator, trigger)
    if not is_known or view.equity is None:
        return why_unknown(evaluator, trigger)
    reference = evaluator.compiled.graph.signals[threshold.index]
    level = BY_NAME[reference.name].equity_at
    equity = None if isinstance(level, str) else level(evaluator.history, view, limit, *reference.arguments)
    if equity is None or not abs(equity) < _MOST:
        return "no loss of equity alone reaches it"
    change = Decimal(repr(float(equity))) - view.equity
    return change.quantize(_STEP, ROUND_FLOOR if change < 0 else ROUND_CEILING)
