"""From targets to the orders that reach them, as an unwinding asks: slices, price bounds, routes, order of legs.

A decision has one unwinding, which its ladder and pace come from. Where several close actions of one stage ask for
different ones, the most urgent of them holds: the one with the fewest bounds, of equals the one that sends more orders
a minute, then the one with the shorter pause, then the one written first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal

from msgspec import Struct

from killswitch.graph.unwinding import OF_CAUSE, PLAIN, UnwindingRule
from killswitch.model.decision import Intent, Rung, Unwinding
from killswitch.model.instant import SECOND
from killswitch.planning.orders.hedge_legs import in_leg_order
from killswitch.planning.orders.slices import DERIVATIVES as DERIVATIVES
from killswitch.planning.orders.slices import Blocked as Blocked
from killswitch.planning.orders.slices import Cut, Market, cut_of
from killswitch.planning.orders.spot_hops import hop_of, own_close, own_closes, stays
from killswitch.planning.spot_routes import never_sold
from killswitch.planning.targets.selection import Target
from killswitch.signals.view import PnlKey, ScopeView


class Unwound(Struct, frozen=True):
    """Exact intents in the order of closing, what is blocked and why, and what would be left of each position.

    `remarks`: what could not be done as the unwinding declares, and what it keeps.
    """

    intents: tuple[Intent, ...]
    blocked: tuple[Blocked, ...]
    left: dict[PnlKey, Decimal]
    remarks: tuple[str, ...]


def unwind(view: ScopeView, targets: Sequence[Target], rule: UnwindingRule = PLAIN, *, keeps: bool = True) -> Unwound:
    """The orders that bring each position of `targets` to what should be left of it.

    Holdings that `rule` keeps are not among them, but under `PLAIN`, which no document has declared, and where `keeps`
    is false: there it is the selection that leaves them out, of each action what its own unwinding keeps.
    """
    kept = [each for each in targets if _kept(each, rule)] if keeps and rule is not PLAIN else []
    sold = [each for each in targets if not _kept(each, rule)] if kept else targets
    market = Market.of(view, rule)
    cuts = [cut_of(place, each, market) for place, each in enumerate(sold, start=1)]
    order, unknown_nets = in_leg_order(view, cuts)
    intents, blocked = _intents(order, cuts, market)
    remarks = (
        [f"kept, as declared: {', '.join(each.ranked.candidate.position.symbol for each in kept)}"] if kept else []
    )
    remarks += [*_unsliced(cuts), *stays(cuts)]
    remarks += [f"the net exposure of {base} is unknown: its legs are closed by rank" for base in unknown_nets]
    left = {each.ranked.candidate.key: each.ranked.candidate.position.contracts for each in kept}
    left |= {cut.candidate.key: cut.result.target for cut in cuts}
    return Unwound(intents, blocked, left, tuple(remarks))


def manner(rule: UnwindingRule) -> Unwinding | None:
    """How the orders are sent; None for what needs no word: market orders as fast as the venue allows."""
    if rule == PLAIN or rule == OF_CAUSE["operator"]:
        return None
    return Unwinding(
        name=rule.name,
        ladder=tuple(Rung(each.order, each.widen, each.tries) for each in rule.ladder),
        max_orders_per_minute=rule.max_orders_per_minute,
        pause=rule.pause / SECOND if rule.pause else None,
    )


def at_once(rule: UnwindingRule) -> UnwindingRule:
    """The same without anything that takes time or bounds a price: what it keeps and the routes of spot stay."""
    return replace(rule, max_orders_per_minute=None, pause=0, impact=None, slippage=(), ladder=())


def most_urgent(rules: Iterable[UnwindingRule]) -> UnwindingRule:
    """The one of several that holds for a decision that they all ask to carry out; `PLAIN` of none."""
    return min(rules, key=_patience, default=PLAIN)


def _patience(rule: UnwindingRule) -> tuple[int, float, int]:
    """Smaller is more urgent: how many bounds there are, seconds from one order to the next, pause."""
    bounds = (rule.ladder, rule.max_orders_per_minute, rule.pause, rule.impact)
    gap = 0.0 if rule.max_orders_per_minute is None else 60.0 / rule.max_orders_per_minute
    return sum(map(bool, bounds)), gap, rule.pause


def _kept(target: Target, rule: UnwindingRule) -> bool:
    candidate = target.ranked.candidate
    return never_sold(candidate.account.market, candidate.position.symbol, rule.spot)


def _intents(
    order: Sequence[int], cuts: Sequence[Cut], market: Market
) -> tuple[tuple[Intent, ...], tuple[Blocked, ...]]:
    """One intent for each slice in `order` (indexes of `cuts`); behind the last slice of a first hop its second."""
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
    """Cut → its rank: places that are given anew, among those that have slices, by when the first one goes."""
    first = list(dict.fromkeys(order))
    places = sorted(cuts[i].place for i in first)
    return dict(zip(first, places, strict=True))


def _intent(cut: Cut, contracts: Decimal, rank: int, market: Market) -> Intent:
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
        # on another market than its own no position shows what is left: it is counted by its fills
        purpose="reduce" if symbol == position.symbol else "hop",
    )


def _unsliced(cuts: Sequence[Cut]) -> list[str]:
    """What people must know of slices that could not be cut as declared."""
    whole: dict[str, list[str]] = {}
    for cut in cuts:
        if cut.slice.unknown is not None and cut.result.parts:
            whole.setdefault(cut.slice.unknown, []).append(cut.route.first)
    remarks = [f"the {what} of {', '.join(symbols)} is unknown: not sliced by it" for what, symbols in whole.items()]
    grown = [cut.route.first for cut in cuts if cut.outgrown]
    return remarks + ([f"the slices of {', '.join(grown)} are larger than declared"] if grown else [])
