"""`neutralise`: targets that bring the market exposure of a scope to zero with the fewest reductions.

What is counted is the book as closes in progress leave it. A beta is the least-squares slope of the returns of a base
asset on those of the hub; within two standard errors of 0 it counts as 0. After rounding the variance of the book must
not be larger than before. Where that, a price, a size or a wallet is unknown, the declared fallback applies.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from msgspec.structs import replace

from killswitch.graph.actions.neutralise import Neutralise
from killswitch.graph.unwinding import UnwindingRule, unwinding_named
from killswitch.planning.actions.exposed_book import CountedBook, counted_book, is_kept
from killswitch.planning.actions.kind import ActionPlan, KnownBook, Most, MostContext, Planned
from killswitch.planning.actions.kind import Context as PlanContext
from killswitch.planning.orders.hedge_netting import cut_apart
from killswitch.planning.orders.net_hedge import NetHedge, NetToHedge, NotOpened, net_hedge
from killswitch.planning.spot_routes import base_of
from killswitch.planning.targets.exposure_risk import ExposureRisk, exposure_risk
from killswitch.planning.targets.neutral import (
    Cuts,
    ExposedLeg,
    WeightedBase,
    after_cuts,
    fewest_cuts,
    is_riskier,
    least_risk_cuts,
    nets,
    variance_of,
)
from killswitch.planning.targets.ranking import Ranked
from killswitch.planning.targets.selection import SelectedTarget, ranked_book
from killswitch.render.formats import count_of
from killswitch.valuation.position_measures import ZERO


def _plan(action: Neutralise, context: PlanContext) -> Planned:
    book = context.book
    rule = unwinding_named(action.unwinding, book.policies.unwindings)
    hedges = () if action.open is None else (action.open,)
    counted = counted_book(action.counts, hedges, book, rule)
    if isinstance(counted, str):
        return _otherwise(action, book, rule, counted)
    if not counted.positions:
        return Planned((), rule)
    risk = exposure_risk(action, counted.keys, nets(counted.legs), book.evaluator.history)
    if risk.unknown and action.if_unknown == "nothing":
        return _nothing(rule, "; ".join(risk.unknown.values()))
    closed = set(risk.unknown) if action.if_unknown == "close" else set()
    legs = [leg for leg in counted.legs if leg.base not in closed]
    if risk.covariance is None and action.if_unknown == "close":
        return _otherwise(replace(action, fallback="close"), book, rule, risk.why_no_covariance)
    cuts = _cuts(action, counted, legs, risk, book)
    why = _why_riskier(legs, cuts, counted, risk)
    if why is not None:
        return _otherwise(action, book, rule, why)
    targets = _targets(cuts, counted, closed)
    remarks = [*_notes(risk, action), *_result(cuts, legs, risk, action, book.view.currency)]
    opened = _opened(action, cuts, risk, book, rule)
    if opened is not None:
        remarks.append(f"what is left is hedged: {opened.text}" if isinstance(opened, NetHedge) else opened.why)
    remarks += cut_apart(targets, book.netted)
    opens = (opened,) if isinstance(opened, NetHedge) else ()
    return Planned(targets, rule, remarks=tuple(remarks), opens=opens)


def _opened(
    action: Neutralise, cuts: Cuts, risk: ExposureRisk, book: KnownBook, rule: UnwindingRule
) -> NetHedge | NotOpened | None:
    """What the declared hedge opens against the net that is left; why it opens nothing; None without one."""
    if action.open is None or not cuts.after:
        return None
    base = base_of(action.open.instrument)
    weight = risk.weights.get(base) if action.by == "beta" else Decimal(1)
    if action.by == "beta" and action.hub is not None and base == base_of(action.hub):
        weight = Decimal(1)
    return net_hedge(action.open, NetToHedge(cuts.after, weight), book.view, book.policies, rule)


def _nothing(rule: UnwindingRule, why: str) -> Planned:
    """Nothing is sent, and that is paged; the rest of the stage is carried out."""
    return Planned((), rule, remarks=(f"not neutralised: {why}",), should_select=True, held_back=why)


def _otherwise(action: Neutralise, book: KnownBook, rule: UnwindingRule, why: str) -> Planned:
    """The declared fallback: everything that is counted is closed, or nothing is sent."""
    if action.fallback == "nothing":
        return _nothing(rule, why)
    ranked, _ = ranked_book(book.graph, action.ranking, book.candidates, book.evaluator.history)
    targets = [
        SelectedTarget(each, ZERO)
        for each in ranked
        if action.counts(*each.candidate.key[:2]) and not is_kept(each.candidate, rule)
    ]
    return Planned(targets, rule, remarks=(f"not neutralised: {why}; everything is closed",), should_select=True)


def _cuts(
    action: Neutralise, counted: CountedBook, legs: Sequence[ExposedLeg], risk: ExposureRisk, book: KnownBook
) -> Cuts:
    """The reductions by the declared measure; by notional where its covariance is unknown."""
    net = nets(legs)
    bases, order = counted.weighted(risk.weights, net), counted.orders(book)
    if action.by == "component-risk" and action.keep is not None and risk.covariance is not None:
        held = [leg for leg in legs if leg.base in risk.names]
        return least_risk_cuts(held, bases, action.keep, risk.covariance, risk.names, order)
    return fewest_cuts(legs, bases, order)


def _why_riskier(legs: Sequence[ExposedLeg], cuts: Cuts, counted: CountedBook, risk: ExposureRisk) -> str | None:
    """Why the cuts must not be sent; None if the variance does not grow, or is unknown."""
    if risk.covariance is None or not cuts.contracts:
        return None
    bases = {base: WeightedBase(price) for base, price in counted.prices.items()}
    before = variance_of(nets(legs), bases, risk.covariance, risk.names)
    after = variance_of(after_cuts(legs, cuts.contracts), bases, risk.covariance, risk.names)
    if not is_riskier(before, after):
        return None
    factor = f"{after / before:.2f} times" if before > 0.0 else "more than"
    return f"after it the variance of the book would be {factor} what it is"


def _targets(cuts: Cuts, counted: CountedBook, closed: set[str]) -> list[SelectedTarget]:
    """Positions of an unknown beta that are closed, then the reductions in their order."""
    targets: list[SelectedTarget] = []
    for key, each in counted.positions.items():
        if base_of(key[1]) in closed and key not in counted.outside:
            targets.append(SelectedTarget(Ranked(each, len(targets) + 1, 0.0), ZERO))
    for key, sold in cuts.contracts.items():
        each = counted.positions[key]
        left = each.position.contracts - sold
        targets.append(SelectedTarget(Ranked(each, len(targets) + 1, float(sold)), left))
    return targets


def _notes(risk: ExposureRisk, action: Neutralise) -> list[str]:
    """What is not neutralised, and what applied where something was unknown."""
    what = {"notional": "it counts by notional", "close": "it is closed"}.get(action.if_unknown, "")
    found = [f"{why}: {what}" for why in risk.unknown.values()]
    if risk.covariance is None:
        found.append(f"{risk.why_no_covariance}: sent without the guard of the variance")
    return [*found, *risk.uncounted]


def _result(
    cuts: Cuts, legs: Sequence[ExposedLeg], risk: ExposureRisk, action: Neutralise, currency: str | None
) -> list[str]:
    """The exposure before and after, and whether it is a close."""
    unit = f" {currency}" if currency else ""
    weights = ", ".join(f"{base} {weight}" for base, weight in sorted(risk.weights.items()))
    what = {"beta": f"beta ({weights})", "notional": "notional", "component-risk": "component risk"}[action.by]
    found = [
        f"net by {what} from {cuts.before:.2f}{unit} to {cuts.after:.2f}{unit} "
        f"with {count_of(len(cuts.contracts), 'order')}"
    ]
    held = [leg for leg in legs if leg.key is not None]
    if action.by != "component-risk" and held and len({leg.unit > ZERO for leg in held}) == 1 and cuts.contracts:
        found.append("every position is on one side, so that this is a close")
    return found


def _most(action: Neutralise, context: MostContext) -> Most:
    """Worst case: everything that is counted, by its fallback."""
    name = context.account.account
    rows = [each for each in context.account.positions or () if action.counts(name, each.symbol)]
    orders = {each.key: (each.symbol, context.orders(each, ZERO)) for each in rows}
    closes = len(rows) == len(context.account.positions or ())
    return Most(orders=orders, closes_everything=closes, rule=unwinding_named(action.unwinding, context.unwindings))


KIND = ActionPlan(key="neutralise", plan=_plan, most=_most)
