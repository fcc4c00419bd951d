"""The exposure of a scope to the market that is not hedged, and the orders that would take it out. Nothing sends them.

The exposure is Σ beta × notional to a declared hub, as closes in progress leave the book, and again as the orders of a
decision leave it. Two kinds of orders are judged: the fewest that reduce (those of `neutralise`), and one that opens a
declared instrument (that of its `open`, with the same checks). Neither is suggested where the variance of the book
would be larger after it, or where that is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Context, Decimal
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.nodes import NetExposureRule, OpenedHedge, PolicySet
from killswitch.graph.unwinding import UnwindingRule, unwinding_named
from killswitch.model.decision import BaseExposure, HedgeOption, HedgeOrder, Intent, NetExposure
from killswitch.planning.actions.exposed_book import CountedBook, counted_book, without_price
from killswitch.planning.actions.kind import KnownBook
from killswitch.planning.orders.expected_cost import ExpectedOrder, expected_opening, expected_orders
from killswitch.planning.orders.net_hedge import NetHedge, NetToHedge, NotOpened, net_hedge
from killswitch.planning.scopes.evaluator import ScopeEvaluator
from killswitch.planning.spot_routes import base_of
from killswitch.planning.targets.exposure_risk import ExposureRisk, exposure_risk
from killswitch.planning.targets.neutral import (
    ExposedLeg,
    WeightedBase,
    after_cuts,
    exposure,
    fewest_cuts,
    is_riskier,
    nets,
    variance_of,
)
from killswitch.planning.targets.ranking import candidates
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import PnlKey, ScopeView

_CENTS = Decimal("0.01")
_EXACT = Context(prec=100)
"""Enough digits for any product of numbers that sums use: an amount that nobody has must not stop a decision."""
_ONE = Decimal(1)


class ScopeExposure(Struct, frozen=True):
    """The exposure of one scope of a policy."""

    policy: str
    scope: str
    exposure: NetExposure


class _Exposed(Struct, frozen=True):
    """What options are judged on: the book that is left, its weighted net, and betas and covariance of its bases."""

    rule: NetExposureRule
    book: KnownBook
    unwinding: UnwindingRule
    counted: CountedBook
    risk: ExposureRisk
    net: Decimal


def present_exposure(evaluator: ScopeEvaluator, policies: PolicySet) -> NetExposure | None:
    """The exposure of a scope at its last view; None if its policy declares none, or nothing was observed."""
    rule, view = evaluator.compiled.graph.net_exposure, evaluator.history.view
    if rule is None or view is None:
        return None
    trusted = view.trusted()
    book = KnownBook(evaluator, trusted, candidates(trusted, None), "UNKNOWN", policies, is_partial=False)
    return net_exposure(rule, book, view)


def net_exposure(
    rule: NetExposureRule,
    book: KnownBook,
    whole: ScopeView,
    intents: Sequence[Intent] = (),
    opens: Iterable[NetHedge] = (),
) -> NetExposure:
    """The exposure that the orders of a decision leave, and what would take it out; `whole`: the scope with accounts
    that cannot be read. `opens`: the hedges that are opened with it."""
    is_partial = not whole.accounts or len(book.view.accounts) < len(whole.accounts)
    unwinding = unwinding_named(None, book.policies.unwindings)
    counted = counted_book(rule.counts, rule.instruments, replace(book, is_partial=is_partial), unwinding)
    if isinstance(counted, str):
        return NetExposure(rule.hub, book.view.currency, unknown=counted)
    left = _with_hedges(_reduced(counted, intents, book), opens)
    risk, net, unknown = _weighed(rule, left, book)
    bases = tuple(_bases(left, risk, rule, book))
    _, before, _ = _weighed(rule, counted, book) if left is not counted else (risk, net, unknown)
    found = NetExposure(
        rule.hub, book.view.currency, _cents(net), bases, unknown=unknown,
        before=_cents(before) if intents or left is not counted else None,
    )  # fmt: skip
    if net is None or not net:
        return found
    exposed = _Exposed(rule, book, unwinding, left, risk, net)
    return replace(found, options=(_reducing(exposed), *(_opening(each, exposed) for each in rule.instruments)))


# The book that is left


def _reduced(counted: CountedBook, intents: Sequence[Intent], book: KnownBook) -> CountedBook:
    """The book after orders that reduce; a holding may be sold on another market than the one it is listed on.

    Of what they leave and what closes in progress leave of a position the smaller counts, as for targets.
    """
    sold: dict[PnlKey, Decimal] = {}
    for intent in intents:
        if intent.purpose == "hedge" or intent.after is not None:
            continue
        key: PnlKey = (intent.account, intent.symbol, intent.position_side)
        if key not in counted.positions:
            base = base_of(intent.symbol)
            of_base = (it for it in counted.positions if it[0] == intent.account and base_of(it[1]) == base)
            key = next((it for it in of_base if it[2] == intent.position_side), key)
        sold[key] = sold.get(key, ZERO) + intent.contracts
    if not sold:
        return counted
    held = {each.key: each.position.contracts for each in book.candidates}
    left = {key: max(ZERO, held[key] - each) for key, each in sold.items() if key in held}
    legs = tuple(
        leg if leg.key is None else replace(leg, contracts=min(leg.contracts, left.get(leg.key, leg.contracts)))
        for leg in counted.legs
    )
    positions = {
        leg.key: replace(each, position=replace(each.position, contracts=leg.contracts))
        for leg in legs
        if leg.key is not None and leg.contracts and (each := counted.positions[leg.key])
    }
    return replace(counted, legs=tuple(leg for leg in legs if leg.contracts), positions=positions)


def _with_hedges(counted: CountedBook, opens: Iterable[NetHedge]) -> CountedBook:
    """The book with hedges that are opened with a decision."""
    for each in opens:
        intent, base = each.orders[0], base_of(each.orders[0].symbol)
        leg = ExposedLeg(base, _ONE if each.units > ZERO else -_ONE, abs(each.units), is_cuttable=False)
        key = (intent.account, intent.symbol)
        counted = replace(
            counted, legs=(*counted.legs, leg), prices={base: each.value / abs(each.units), **counted.prices},
            keys={**counted.keys, base: (*counted.keys.get(base, ()), key)},
        )  # fmt: skip
    return counted


def _weighed(
    rule: NetExposureRule, counted: CountedBook, book: KnownBook
) -> tuple[ExposureRisk, Decimal | None, str | None]:
    """Betas and covariance, the exposure, and why it is unknown."""
    net = nets(counted.legs)
    risk = exposure_risk(rule, counted.keys, net, book.evaluator.history)
    if (unpriced := without_price(net, counted.prices)) is not None:
        return risk, None, unpriced
    if risk.unknown and rule.if_unknown == "nothing":
        return risk, None, "; ".join(risk.unknown.values())
    return risk, exposure(net, counted.weighted(risk.weights, net)), None


def _bases(counted: CountedBook, risk: ExposureRisk, rule: NetExposureRule, book: KnownBook) -> Iterator[BaseExposure]:
    """What there is of each base asset, with the source and the age of its beta."""
    history = book.evaluator.history
    for base, units in sorted(nets(counted.legs).items()):
        if not units or base not in counted.prices:
            continue
        price, why = counted.prices[base], risk.unknown.get(base)
        weight = _ONE if why is not None and rule.if_unknown == "notional" else risk.weights.get(base)
        key, count = risk.sources.get(base, (None, 0))
        series = None if key is None or history.prices is None else history.prices.series(key, rule.sample)
        seen = None if series is None else series.last_at
        notes = [] if why is None else [f"{why}: it counts by notional" if weight is not None else why]
        notes += [each for each in risk.uncounted if each.startswith(f"{base} ")]
        yield BaseExposure(
            base, units, price, weight, None if weight is None else _cents(weight * units * price), count,
            None if key is None else f"{key[1]} on {key[0]}",
            None if seen is None else max(0, book.view.as_of - seen) / 1e6, "; ".join(notes) or None,
        )  # fmt: skip


# The options


def _reducing(of: _Exposed) -> HedgeOption:
    """The fewest orders that reduce."""
    legs, net = of.counted.legs, nets(of.counted.legs)
    cuts = fewest_cuts(legs, of.counted.weighted(of.risk.weights, net), of.counted.orders(of.book))
    if not cuts.contracts:
        why = "no position that adds to it takes an order of a size that its venue accepts"
        return HedgeOption("reduce", "no", why=(why,))
    ratio, cannot = _judged(of, after_cuts(legs, cuts.contracts), of.risk, {})
    if cannot is not None:
        return HedgeOption("reduce", cannot.feasible, why=(cannot.why,))
    intents = [_intent(key, sold) for key, sold in cuts.contracts.items()]
    expected = expected_orders(of.book.view, intents)
    return HedgeOption(
        "reduce", "yes", tuple(map(_order, expected)), _cents(cuts.after), ratio, *_cost(expected),
    )  # fmt: skip


def _opening(opened: OpenedHedge, of: _Exposed) -> HedgeOption:
    """One order that opens the instrument against all of the net, as far as bounds and free margin allow."""
    base, own = base_of(opened.instrument), (opened.account, opened.instrument)
    keys = {**of.counted.keys, base: (*of.counted.keys.get(base, ()), own)}
    risk = exposure_risk(of.rule, keys, nets(of.counted.legs), of.book.evaluator.history, base)
    weight = _ONE if base == base_of(of.rule.hub) else risk.weights.get(base)
    found = net_hedge(opened, NetToHedge(of.net, weight), of.book.view, of.book.policies, of.unwinding)
    if isinstance(found, NotOpened):
        return HedgeOption("open", "unknown" if found.is_unknown else "no", why=(found.why,))
    after = nets(of.counted.legs)
    after[base] = after.get(base, ZERO) + found.units
    ratio, cannot = _judged(of, after, risk, {base: found.value / abs(found.units)})
    if cannot is not None:
        return HedgeOption("open", cannot.feasible, why=(cannot.why,))
    account = of.book.view.at_venue(opened.account)
    expected = () if account is None else (expected_opening(of.book.view, account, found.orders),)
    value = found.value if found.units > ZERO else -found.value
    contracts = sum((each.contracts for each in found.orders), ZERO)
    order = HedgeOrder(
        opened.account, opened.instrument, found.orders[0].side, contracts, found.mark, _cents(found.value)
    )  # fmt: skip
    leaves = _cents(of.net + (weight or ZERO) * value)
    return HedgeOption("open", "yes", (order,), leaves, ratio, *_cost(expected), tuple(_remarks(opened, found, of)))


def _remarks(opened: OpenedHedge, found: NetHedge, of: _Exposed) -> Iterator[str]:
    if found.by != "the net":
        yield f"bounded by {found.by}"
    for limits in of.book.policies.limits:
        if opened.account in limits.accounts:
            yield f"the Limits {limits.name} of {opened.account} apply to whoever sends it through the gate"


class _Refused(Struct, frozen=True):
    """Why a set of orders is not suggested."""

    feasible: Literal["no", "unknown"]
    why: str


def _judged(
    of: _Exposed, after: Mapping[str, Decimal], risk: ExposureRisk, more: Mapping[str, Decimal]
) -> tuple[Decimal | None, _Refused | None]:
    """The variance after the orders ÷ before, and why they are not suggested. `more`: prices of bases not held."""
    if risk.covariance is None:
        return None, _Refused("unknown", f"whether the variance grows is unknown: {risk.why_no_covariance}")
    bases = {base: WeightedBase(price) for base, price in {**more, **of.counted.prices}.items()}
    before = variance_of(nets(of.counted.legs), bases, risk.covariance, risk.names)
    left = variance_of(after, bases, risk.covariance, risk.names)
    if is_riskier(before, left):
        factor = f"{left / before:.2f} times" if before > 0.0 else "more than"
        return None, _Refused("no", f"after it the variance of the book would be {factor} what it is")
    return (Decimal(f"{left / before:.4f}") if before > 0.0 else None), None


def _intent(key: PnlKey, sold: Decimal) -> Intent:
    account, symbol, side = key
    return Intent(
        account=account, symbol=symbol, position_side="long" if side == "long" else "short",
        side="sell" if side == "long" else "buy", contracts=sold, target=ZERO, reduce_only=True, rank=1,
    )  # fmt: skip


def _order(each: ExpectedOrder) -> HedgeOrder:
    return HedgeOrder(each.account, each.symbol, each.side, each.contracts, each.mark, _cents(each.value))


def _cost(expected: Sequence[ExpectedOrder]) -> tuple[Decimal | None, tuple[str, ...]]:
    """The cost of the orders against the mark, and what it lacks; None if that of one is unknown."""
    costs = [each.cost for each in expected]
    lacks = tuple(dict.fromkeys(what for each in expected for what in each.lacks))
    known = [each for each in costs if each is not None]
    return (_cents(sum(known, ZERO)) if known and len(known) == len(costs) else None), lacks


def _cents(value: Decimal | None) -> Decimal | None:
    return None if value is None else value.quantize(_CENTS, context=_EXACT)
