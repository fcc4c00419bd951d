"""`reduce`: targets that bring the leverage of a scope, or of an account, to a declared one. They never add.

With notional A (gross, or the absolute net), equity E, target T and cost c per unit sold, selling Δ leaves A − Δ on
E − c·Δ, which is T times it at Δ = (A − T·E) ÷ (1 − T·c), within 0 … A. Closes in progress count as done: their targets
are what is left of a position, so that a tick which does not show their fills yet sells nothing twice. If E is only
known between bounds, what the upper one demands is sold, which is surely needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_DOWN, Context, Decimal

from msgspec import Struct

from killswitch.graph.actions.reduce import Reduce
from killswitch.graph.unwinding import UnwindingRule, unwinding_named
from killswitch.planning.actions.kind import ActionPlan, KnownBook, Most, MostContext, Planned
from killswitch.planning.actions.kind import Context as PlanContext
from killswitch.planning.orders.hedge_netting import cut_apart
from killswitch.planning.spot_routes import is_never_sold
from killswitch.planning.targets.ranking import Ranked, RankingCandidate, candidates
from killswitch.planning.targets.selection import SelectedTarget, ranked_book
from killswitch.render.formats import count_of
from killswitch.signals.history.transfers_of_day import TransfersOfDay
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import PnlKey

_DOWN = Context(prec=50, rounding=ROUND_DOWN)
"""Precision of shares of a position: an order is rounded up to the lot, and an exact lot must not become the next."""


class LeveragedPosition(Struct, frozen=True):
    """A position as closes in progress leave it: its contracts, and its signed notional in the scope's currency."""

    ranked: Ranked
    contracts: Decimal
    value: Decimal

    @property
    def key(self) -> PnlKey:
        return self.ranked.candidate.key


class LeveragedBook(Struct, frozen=True):
    """The positions, the worst first, and the greatest possible equity. `withdrawn`: what of it is not there any more.

    `is_exact`: equity is known, and is not only the upper bound.
    """

    positions: Sequence[LeveragedPosition]
    equity: Decimal
    currency: str | None
    withdrawn: Decimal = ZERO
    is_exact: bool = True
    remarks: tuple[str, ...] = ()

    def notional(self, of: str) -> Decimal:
        """The gross, or the absolute net, of the positions."""
        if of == "gross":
            return sum((abs(each.value) for each in self.positions), ZERO)
        return abs(sum((each.value for each in self.positions), ZERO))

    def heavier(self) -> list[LeveragedPosition]:
        """The positions of the heavier side, the worst first."""
        is_long = sum((each.value for each in self.positions), ZERO) >= ZERO
        return [each for each in self.positions if (each.value >= ZERO) is is_long]


def to_sell(notional: Decimal, equity: Decimal, target: Decimal, cost: Decimal = ZERO) -> Decimal:
    """The notional to sell so that what is left is at most `target` times the equity that is left, from 0 to all.

    `cost`: per unit sold, with target × cost below 1. With no equity it is all.
    """
    if equity <= ZERO:
        return notional
    return min(notional, max(ZERO, (notional - target * equity) / (1 - target * cost)))


def cuts(positions: Sequence[LeveragedPosition], amount: Decimal, order: str) -> dict[PnlKey, Decimal]:
    """The contracts to sell of each position so that their notional is `amount`, at most all of it.

    In proportion to the notionals, or in the order given (`rank`), each closed before the next.
    """
    gross = sum((abs(each.value) for each in positions), ZERO)
    found: dict[PnlKey, Decimal] = {}
    for each in positions:
        value = abs(each.value)
        if order == "proportion":
            part = min(amount, gross) * value / gross if gross else ZERO
        else:
            part = min(value, amount)
            amount -= part
        if part:
            sold = _DOWN.divide(_DOWN.multiply(each.contracts, part), value)
            found[each.key] = each.contracts if part == value else min(each.contracts, sold)
    return found


def _plan(action: Reduce, context: PlanContext) -> Planned:
    book = context.book
    rule = unwinding_named(action.unwinding, book.policies.unwindings)
    found = _leveraged(action, context)
    if isinstance(found, str):
        return _nothing(rule, f"the leverage is unknown ({found})")
    is_lost = found.equity + found.withdrawn <= ZERO  # of any book nothing may be left then
    of = "gross" if is_lost else action.of
    side = found.heavier() if of == "net" else found.positions
    sold = [it for it in side if not is_never_sold(it.ranked.candidate.account.market, it.key[1], rule.spot)]
    notional = found.notional(of)
    amount = to_sell(notional, found.equity + found.withdrawn, action.to, action.cost)
    remarks = [*found.remarks, _text(of, action.to, found, notional, amount)]
    wanted = to_sell(notional, found.equity, action.to, action.cost)
    if wanted > amount:
        for_flows = f"{_money(wanted - amount, found)} more would be sold for what was withdrawn (flows: page)"
        if not amount:
            return _nothing(rule, for_flows, *remarks)
        remarks.append(for_flows)
    if not amount:
        return Planned((), rule, remarks=tuple(remarks))
    cap = action.at_most_per_day
    if cap is not None and not book.evaluator.reductions_left(cap, context.now):
        return _nothing(rule, f"it has sold {count_of(cap, 'time')} within 24 hours, which is its bound", *remarks)
    parts = cuts(sold, amount, action.order)
    targets = [SelectedTarget(each.ranked, each.contracts - parts[each.key]) for each in sold if each.key in parts]
    remarks += cut_apart(targets, book.netted) if action.account is None else ()
    return Planned(targets, rule, remarks=tuple(remarks), should_select=bool(notional), reduces=bool(targets))


def _nothing(rule: UnwindingRule, why: str, *remarks: str) -> Planned:
    """Nothing is sold, and that is paged; the rest of the stage is carried out."""
    return Planned((), rule, remarks=(*remarks, f"{why}: nothing is sold"), should_select=True, held_back=why)


def _leveraged(action: Reduce, context: PlanContext) -> LeveragedBook | str:
    """The book whose leverage is reduced; why it is unknown if a notional or the equity is."""
    book = context.book
    if action.account is not None:
        return _of_account(action, action.account, context)
    equity, is_exact = _equity(book)
    if equity is None:
        return book.evaluator.history.why_unknown or "the equity is unknown"
    withdrawn = ZERO
    if action.flows == "page":
        collector = book.evaluator.history.collectors.get(TransfersOfDay)
        withdrawn = ZERO if collector is None else collector.net_withdrawn(context.now)
    return _book(action, book, book.candidates, LeveragedBook((), equity, book.view.currency, withdrawn, is_exact))


def _of_account(action: Reduce, name: str, context: PlanContext) -> LeveragedBook | str:
    view = context.book.view.alone(name)
    if view is None:
        return f"{name} is not in the snapshot"
    unknown = view.unknown or view.positions_unknown
    if unknown is not None or view.equity is None:
        return f"{name}: {unknown or 'its equity is unknown'}"
    held = candidates(view, None)
    return _book(action, context.book, held, LeveragedBook((), view.equity, view.currency))


def _equity(book: KnownBook) -> tuple[Decimal | None, bool]:
    """The equity of the scope, or its upper bound while a part of it is unknown; whether it is exact."""
    if not book.is_partial and book.view.equity is not None:
        return book.view.equity, True
    bounds = book.evaluator.history.equity_range
    return (None if bounds is None or not bounds.high.is_finite() else bounds.high), False


def _book(action: Reduce, book: KnownBook, held: Sequence[RankingCandidate], of: LeveragedBook) -> LeveragedBook | str:
    """The positions as closes in progress leave them, by the ranking of the action."""
    ranked, remarks = ranked_book(book.graph, action.ranking, held, book.evaluator.history)
    found = []
    for each in ranked:
        value, position = each.candidate.measured, each.candidate.position
        if value is None:
            return f"the value of {position.symbol} on {each.candidate.key[0]} is unknown"
        left = _left(each.candidate, book.evaluator.under_way)
        signed = value if position.side == "long" else -value
        if left:
            found.append(LeveragedPosition(each, left, signed * left / position.contracts))
    used = remarks if action.order == "rank" else ()
    return LeveragedBook(found, of.equity, of.currency, of.withdrawn, of.is_exact, used)


def _left(candidate: RankingCandidate, under_way: Mapping[PnlKey, Decimal]) -> Decimal:
    """The contracts that closes in progress leave of a position."""
    held = candidate.position.contracts
    return min(held, max(ZERO, under_way.get(candidate.key, held)))


def _text(of: str, to: Decimal, book: LeveragedBook, notional: Decimal, amount: Decimal) -> str:
    """What the leverage is, and what is sold."""
    equity, target = _money(book.equity, book), f"{to.normalize():f}"
    known = f"an equity of {equity}" if book.is_exact else f"an equity of at most {equity}, which is all that is known"
    what = f"{of} of {_money(notional, book)} on {known}"
    if not amount:
        return f"{what}: not above {target} times it, so that nothing is sold"
    return f"{what}: {_money(amount, book)} is sold to reach {target} times it"


def _money(amount: Decimal, book: LeveragedBook) -> str:
    return f"{amount.quantize(Decimal('0.01')):f} {book.currency or ''}".rstrip()


def _most(action: Reduce, context: MostContext) -> Most:
    """Worst case: everything of the account, of which nothing is kept where the equity is gone."""
    if action.account not in (None, context.account.account):
        return Most()
    orders = {each.key: (each.symbol, context.orders(each, ZERO)) for each in context.account.positions or ()}
    return Most(orders=orders, closes_everything=True, rule=unwinding_named(action.unwinding, context.unwindings))


KIND = ActionPlan(key="reduce", plan=_plan, most=_most)
