"""`top_up_margin`: one transfer to the account of a scope, within the bound of a day and what the source can give.

Whatever is not known moves nothing, and pages: the account's equity or maintenance margin, or what the source has free.
Nothing is moved to an account of which a close is decided, nor to isolated positions, which it would not reach.
"""

from __future__ import annotations

from decimal import Decimal

from killswitch.graph.actions.top_up_margin import TopUpMargin
from killswitch.model.effects import Transfer
from killswitch.planning.actions.kind import ActionPlan, Context, KnownBook, Planned
from killswitch.planning.margin_transfers import MarginNeed, arriving, leaving, used
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import ScopeView


def _plan(action: TopUpMargin, context: Context) -> Planned:
    book, name = context.book, context.scope.partition("/")[2]
    moved = book.evaluator.moved
    need = _need(action, name, arriving(moved, name, context.now), book)
    if isinstance(need, str):
        return _nothing(need)
    free = _free(action, book, context.now)
    if isinstance(free, str):
        return _nothing(free)
    coming, left = arriving(moved, name, context.now), action.at_most - used(moved, context.now)
    amount = need.amount(max(ZERO, min(left, free)))
    text = _text(action, name, need, coming)
    if amount is None:
        bounds = f"{_money(left, action)} is left of the bound, and {action.source} can give {_money(free, action)}"
        return _nothing(f"{_money(need.whole, action)} is needed, and {bounds}", text)
    if amount == ZERO:
        on_the_way = f"{_money(coming, action)} is on the way to {name}, and nothing more is moved"
        return _nothing(on_the_way, text) if coming else Planned(remarks=(f"{text}: nothing is moved",))
    is_whole = "" if amount == need.whole else f" of {_money(need.whole, action)}"
    remark = f"{text}: {_money(amount, action)}{is_whole} is moved from {action.source}"
    exact = Decimal(f"{amount.normalize():f}")  # without the zeros of its step
    return Planned(effects=(Transfer(action.source, name, action.currency, exact),), remarks=(remark,))


def _nothing(why: str, *remarks: str) -> Planned:
    """Nothing is moved, and that is paged; the rest of the stage is carried out."""
    return Planned(remarks=remarks, should_select=True, held_back=f"{why}: no margin is moved")


def _need(action: TopUpMargin, name: str, coming: Decimal, book: KnownBook) -> MarginNeed | str:
    """What the account needs, with what is on the way to it; why that is unknown, or cannot be moved there."""
    view = book.view.alone(name)
    why = _unusable(name, view, action)
    if view is None or why is not None or view.equity is None:
        return why or f"the equity of {name} is unknown"
    maintenance = view.maintenance()
    if maintenance is None:
        return f"the maintenance margin of {name} is unknown"
    if any(key[0] == name for key in book.evaluator.under_way):
        return f"a close of {name} is decided"
    if view.accounts[0].margin_mode == "isolated":
        return f"the margin of {name} is isolated, and a transfer does not reach its positions"
    return MarginNeed(maintenance, view.equity + coming, action.to_ratio, action.partial_to)


def _free(action: TopUpMargin, book: KnownBook, now: int) -> Decimal | str:
    """What the source can give: what it has free above its own limit, less what is on the way from it."""
    view = book.view.alone(action.source)
    why = _unusable(action.source, view, action)
    if view is None or why is not None or view.sound[0].free is None:
        return why or f"what {action.source} has free is unknown"
    going = leaving(book.evaluator.all_moved(), action.source, now)
    return max(ZERO, view.sound[0].free - action.keep - going)


def _unusable(name: str, view: ScopeView | None, action: TopUpMargin) -> str | None:
    """Why an account cannot be used for a transfer, or None."""
    if view is None:
        return f"{name} is not in the snapshot"
    if view.unknown is not None:
        return view.unknown
    held = view.accounts[0].currency
    return None if held == action.currency else f"{name} is in {held}, and not in {action.currency}"


def _text(action: TopUpMargin, name: str, need: MarginNeed, coming: Decimal) -> str:
    """The balance and the maintenance margin, and the ratio to reach."""
    known = f"{_money(need.balance - coming, action)}" + (f" and {_money(coming, action)} on the way" if coming else "")
    ratio = f"{(need.ratio * 100).normalize():f}%"
    return f"maintenance margin of {_money(need.maintenance, action)} on {known} in {name}, to reach {ratio}"


def _money(amount: Decimal, action: TopUpMargin) -> str:
    return f"{amount.quantize(Decimal('0.01')):f} {action.currency}"


KIND = ActionPlan(key="top_up_margin", plan=_plan)
