"""`close`: targets of the selected positions. Each action keeps the holdings that its own unwinding keeps."""

from __future__ import annotations

from collections.abc import Sequence

from killswitch.graph.actions.close import Close
from killswitch.graph.unwinding import PLAIN, UnwindingRule, unwinding_named
from killswitch.planning.actions.kind import ActionPlan, Context, Most, MostContext, Planned
from killswitch.planning.orders.closing_order import ClosingOrder
from killswitch.planning.orders.hedge_netting import cut_hedges
from killswitch.planning.spot_routes import is_never_sold
from killswitch.planning.targets.ranking import RankingCandidate
from killswitch.planning.targets.selection import is_allowed, known_risk, select
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import PnlKey

NOWHERE_TRUE = "where is true for no position"
"""Why a close selects none of the positions that it could select."""


def _plan(action: Close, context: Context) -> Planned:
    book = context.book
    rule = unwinding_named(action.unwinding, book.policies.unwindings)
    net = book.netted
    kept = _kept(action, rule, net.candidates)
    selection = select(
        book.graph, action, net.candidates, book.source, context.stage.attribution, context.position_conditions,
        book.evaluator.history, kept, _left_today(action, context),
    )  # fmt: skip
    cut = cut_hedges(selection.targets, net)
    has_schedule = action.order == "risk_first" or rule.slices is not None or book.graph.has_correlations
    risk = known_risk(book.graph, action.ranking, book.candidates, book.evaluator.history) if has_schedule else None
    is_counted = action.daily_cap is not None or action.cap_group is not None
    should_select = len(kept) < len(net.candidates)
    return Planned(
        cut.targets, rule, remarks=(*selection.remarks, *cut.remarks), should_select=should_select,
        held_back=NOWHERE_TRUE if selection.is_held_back else None,
        counted=frozenset(each.ranked.candidate.key for each in selection.targets) if is_counted else frozenset(),
        order=ClosingOrder(action.order == "risk_first", risk), naked=cut.naked,
    )  # fmt: skip


def _left_today(action: Close, context: Context) -> int | None:
    """How many positions the close may still select today; None: any number."""
    if action.daily_cap is None:
        return None
    return context.book.evaluator.left_today(action.daily_cap, context.now, action.cap_group)


def _kept(action: Close, rule: UnwindingRule, book: Sequence[RankingCandidate]) -> frozenset[PnlKey]:
    """Holdings that the action must not sell. Symbols that it names are sold unless a document keeps them."""
    if rule is PLAIN and action.symbols is not None:
        return frozenset()
    return frozenset(c.key for c in book if is_never_sold(c.account.market, c.position.symbol, rule.spot))


def _most(action: Close, context: MostContext) -> Most:
    """Worst case of a close.

    Both sides count if the side is unknown, `all_if` is true, and the top positions are those with the most orders.
    """
    positions = context.account.positions or ()
    sides = (action.side,) if action.side in ("long", "short") else ("long", "short")
    chosen = [each for each in positions if each.side in sides and is_allowed(action, each.symbol)]
    all_of_it = action.all_if is not None or action.fraction == 1
    left = ZERO if all_of_it else 1 - action.fraction
    cut = {each.key: (each.symbol, context.orders(each, left)) for each in chosen}
    most = sorted(cut, key=lambda key: -cut[key][1])
    if action.top is not None and action.all_if is None:
        most = most[: action.top]
    return Most(
        orders={key: cut[key] for key in most},
        closes_everything=all_of_it and len(most) == len(positions),
        rule=unwinding_named(action.unwinding, context.unwindings),
    )


KIND = ActionPlan(key="close", plan=_plan, most=_most)
