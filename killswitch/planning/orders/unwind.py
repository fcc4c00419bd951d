"""Unwinding: turns targets into orders, with slices, price bounds, routes and the order of hedge legs.

A decision has one unwinding, which defines its ladder and pace. If the close actions of a stage name different ones,
the most urgent applies: the one with the fewest bounds, then with more orders a minute, then with the shorter pause,
then the one written first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from msgspec import Struct, convert
from msgspec.structs import replace

from killswitch.graph.unwinding import PLAIN, UnwindingRule
from killswitch.model.decision import Intent, Unwinding
from killswitch.model.instant import MINUTE, SECOND
from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot, Position
from killswitch.planning.orders.closing_order import BY_RANK, ClosingOrder, in_order, peak_of
from killswitch.planning.orders.hedge_legs import in_leg_order
from killswitch.planning.orders.slices import DERIVATIVES as DERIVATIVES
from killswitch.planning.orders.slices import Blocked as Blocked
from killswitch.planning.orders.slices import Cut, TradedMarkets, cut_of
from killswitch.planning.orders.spot_hops import hop_of, kept_proceeds, own_close, own_closes
from killswitch.planning.spot_routes import is_never_sold
from killswitch.planning.targets.selection import SelectedTarget
from killswitch.valuation.account_facts import AccountFacts
from killswitch.valuation.scope_view import PnlKey, ScopeView
from killswitch.valuation.snapshot_facts import SnapshotFacts

FRESH_MARK = MINUTE
"""The age in microseconds up to which a mark bounds the orders of a close by hand."""


class Unwound(Struct, frozen=True):
    """Exact intents in the order of closing, blocked positions, and the contracts left of each position.

    `remarks`: deviations from the unwinding, and the holdings that it keeps. `peak`: the largest variance of the scope
    after an order ÷ that at the start; None if it is unknown.
    """

    intents: tuple[Intent, ...]
    blocked: tuple[Blocked, ...]
    left: dict[PnlKey, Decimal]
    remarks: tuple[str, ...]
    peak: float | None = None


def unwind(
    view: ScopeView,
    targets: Sequence[SelectedTarget],
    rule: UnwindingRule = PLAIN,
    *,
    keeps: bool = True,
    order: ClosingOrder = BY_RANK,
) -> Unwound:
    """Compute the orders that reach `targets`, in the order of these, or as `order` and the slices of `rule` say.

    Holdings that `rule` keeps are excluded, except with `PLAIN`, which no document declares, and with `keeps` false:
    the selection has then already excluded what the unwinding of each action keeps.
    """
    kept = [each for each in targets if _kept(each, rule)] if keeps and rule is not PLAIN else []
    sold = [each for each in targets if not _kept(each, rule)] if kept else targets
    market = TradedMarkets.of(view, rule)
    cuts = [cut_of(place, each, market) for place, each in enumerate(sold, start=1)]
    sequence, unknown_nets = in_leg_order(view, cuts, in_order(cuts, rule, order))
    intents, blocked = _intents(sequence, cuts, market)
    names = ", ".join(each.ranked.candidate.position.symbol for each in kept)
    remarks = [f"kept, as declared: {names}"] if kept else []
    remarks += [*_unsliced(cuts), *kept_proceeds(cuts)]
    remarks += [f"the net exposure of {base} is unknown: its legs are closed by rank" for base in unknown_nets]
    left = {each.ranked.candidate.key: each.ranked.candidate.position.contracts for each in kept}
    left |= {cut.candidate.key: cut.result.target for cut in cuts}
    return Unwound(intents, blocked, left, tuple(remarks), peak_of(cuts, sequence, order))


def declared_unwinding(rule: UnwindingRule) -> Unwinding | None:
    """Execution style for the decision record; None for market orders as fast as the venue allows."""
    if rule == PLAIN:
        return None
    declared = convert(rule, Unwinding, from_attributes=True)
    return replace(declared, pause=rule.pause / SECOND or None, is_sliced=rule.impact is not None)


def without_pace(rule: UnwindingRule) -> UnwindingRule:
    """The rule without pace, slices and price bounds; kept holdings and spot routes remain."""
    return replace(rule, max_orders_per_minute=None, pause=0, impact=None, slippage=(), ladder=())


def without_fresh_marks(
    intents: Sequence[Intent], accounts: Iterable[AccountSnapshot], facts: SnapshotFacts
) -> tuple[Intent, ...]:
    """The intents, those at market from the first whose position has no mark of the last `FRESH_MARK` microseconds.

    A venue that states no time of a mark has the time at which the account was observed.
    """
    fresh = {
        (account.account, row.symbol, row.side)
        for account in accounts
        for row in account.positions or ()
        if has_fresh_mark(row, facts.of(account), facts.as_of)
    }
    return tuple(
        each
        if (each.account, each.symbol, each.position_side) in fresh or each.purpose != "reduce"
        else replace(each, at_market=True)
        for each in intents
    )


def has_fresh_mark(row: Position, account: AccountFacts, as_of: int) -> bool:
    """Whether the mark of a position is known, above zero, and at most `FRESH_MARK` microseconds old."""
    mark, at = row.mark_price, account.printed_at(row)
    at = account.observed if at is None else at
    return mark is not None and sane(mark) and mark > 0 and at is not None and as_of - at <= FRESH_MARK


def most_urgent(rules: Iterable[UnwindingRule]) -> UnwindingRule:
    """The most urgent of several rules; `PLAIN` without any."""
    return min(rules, key=_urgency_key, default=PLAIN)


def _urgency_key(rule: UnwindingRule) -> tuple[int, float, int]:
    """Sort key, smaller is more urgent: number of bounds, seconds between orders, pause."""
    bounds = (rule.ladder, rule.max_orders_per_minute, rule.pause, rule.impact)
    gap = 0.0 if rule.max_orders_per_minute is None else 60.0 / rule.max_orders_per_minute
    return sum(map(bool, bounds)), gap, rule.pause


def _kept(target: SelectedTarget, rule: UnwindingRule) -> bool:
    candidate = target.ranked.candidate
    return is_never_sold(candidate.account.market, candidate.position.symbol, rule.spot)


def _intents(
    order: Sequence[int], cuts: Sequence[Cut], market: TradedMarkets
) -> tuple[tuple[Intent, ...], tuple[Blocked, ...]]:
    """One intent for each slice in `order` (indexes of `cuts`); the second hop follows the last slice of the first."""
    ranks = _ranks(order, cuts)
    slices = [iter(cut.result.parts) for cut in cuts]
    left = [len(cut.result.parts) for cut in cuts]
    own = own_closes(cuts)
    intents: list[Intent] = []
    blocked = [found for cut in cuts if (found := cut.blocked) is not None]
    for i in order:
        intents.append(_intent(cuts[i], next(slices[i]), ranks[i], market))
        left[i] -= 1
        if not left[i] and cuts[i].route.second is not None and own_close(cuts[i], own) is None:
            hop = hop_of(cuts[i], intents[-1], len(intents) - 1, market)
            if isinstance(hop, Blocked):
                blocked.append(hop)
            else:
                intents.append(hop)
    return tuple(intents), tuple(blocked)


def _ranks(order: Sequence[int], cuts: Sequence[Cut]) -> dict[int, int]:
    """Cut → rank: the places of the cuts with slices, reassigned by the order of their first slices."""
    first = list(dict.fromkeys(order))
    return dict(zip(first, sorted(cuts[i].place for i in first), strict=True))


def _intent(cut: Cut, contracts: Decimal, rank: int, market: TradedMarkets) -> Intent:
    position, symbol = cut.candidate.position, cut.route.first
    return Intent(
        account=cut.candidate.account.account,
        symbol=symbol,
        position_side=position.side,
        side=cut.side,
        contracts=contracts,
        target=cut.result.target,
        reduce_only=cut.candidate.account.market in DERIVATIVES,
        rank=rank,
        score=f"{cut.target.ranked.score:.4g}",
        exact=cut.result.exact,
        band=market.band(symbol),
        # on another market no position shows the rest: progress is measured by fills
        purpose="reduce" if symbol == position.symbol else "hop",
    )


def _unsliced(cuts: Sequence[Cut]) -> list[str]:
    """Remarks on slices that deviate from the declaration."""
    by_missing_data: dict[str, list[str]] = {}
    for cut in cuts:
        if cut.slice.unknown is not None and cut.result.parts:
            by_missing_data.setdefault(cut.slice.unknown, []).append(cut.route.first)
    remarks = [
        f"the {what} of {', '.join(symbols)} is unknown: not sliced by it" for what, symbols in by_missing_data.items()
    ]
    grown = [cut.route.first for cut in cuts if cut.is_outgrown]
    return remarks + ([f"the slices of {', '.join(grown)} are larger than declared"] if grown else [])
