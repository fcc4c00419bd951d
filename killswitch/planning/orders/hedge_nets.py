"""The net of each declared hedge, and the order that would take it out: what `plan` suggests, and nothing sends.

A naked net is taken out by reducing the heavier side where a venue accepts that, else by opening on a leg of the other
side; sizes are rounded down, so that the net never changes its side. What cannot be sent now is listed with its reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from msgspec import Struct

from killswitch.model.snapshot import Instrument
from killswitch.planning.orders.hedge_netting import HeldHedge, HeldLeg, held_hedge
from killswitch.planning.rounding import CLOSED_STATES, whole_steps
from killswitch.planning.targets.ranking import candidates
from killswitch.signals.arguments import HedgeLegs, LegOfHedge
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import ScopeView


class HedgeNet(Struct, frozen=True, omit_defaults=True):
    """The net of a declared hedge in base units, negative for a short, and of its larger side; None if unknown.

    `suggestion`: the order that takes the net out, or why none can be sent now; None without a net.
    """

    hedge: str
    net: Decimal | None = None
    larger: Decimal | None = None
    suggestion: str | None = None
    unknown: str | None = None


def hedge_nets(hedges: Iterable[HedgeLegs], view: ScopeView) -> tuple[HedgeNet, ...]:
    """The net of each hedge of which a leg is held; `view`: all accounts of the snapshot."""
    trusted = view.trusted()
    own = {each.key: each for each in candidates(trusted, None)}
    found = []
    for hedge in hedges:
        held = held_hedge(hedge, own, trusted, ())
        if held.unknown is not None:
            found.append(HedgeNet(hedge.name, unknown=held.unknown))
        elif held.legs:
            long = sum((leg.units for leg in held.legs if leg.units > ZERO), ZERO)
            short = sum((-leg.units for leg in held.legs if leg.units < ZERO), ZERO)
            found.append(HedgeNet(hedge.name, held.net, max(long, short), _suggestion(held, hedge, trusted)))
    return tuple(found)


def _suggestion(held: HeldHedge, hedge: HedgeLegs, view: ScopeView) -> str | None:
    """The first order that takes the net out: of the heavier side, the largest leg first, then on the other legs."""
    net = held.net
    if not net:
        return None
    cannot: list[str] = []
    heavier = sorted((leg for leg in held.legs if leg.units * net > ZERO), key=lambda leg: -abs(leg.units))
    for leg in heavier:
        order, why = _reducing(leg, net)
        if why is None:
            return order
        cannot.append(f"{order}: {why}")
    tried = {leg.candidate.key[:2] for leg in heavier}
    for declared in hedge.legs:
        if (declared.account, declared.symbol) not in tried:
            order, why = _opening(declared, net, view.instrument(declared.account, declared.symbol))
            if why is None:
                return "; ".join((order, *(f"not {each}" for each in cannot)))
            cannot.append(f"{order}: {why}")
    return f"not feasible now: {'; '.join(cannot)}"


def _reducing(leg: HeldLeg, net: Decimal) -> tuple[str, str | None]:
    """The order that reduces a leg by the net, and why it cannot be sent, or None."""
    account, symbol, side = leg.candidate.key
    held = leg.candidate.position.contracts
    amount = _in_steps(min(held, held * abs(net) / abs(leg.units)), leg.rules)
    order = f"{'sell' if side == 'long' else 'buy'} {amount:f} {symbol} on {account}, which reduces it"
    return order, _why_not(amount, leg.rules)


def _opening(leg: LegOfHedge, net: Decimal, rules: Instrument | None) -> tuple[str, str | None]:
    """The order that opens the net on the other side, and why it cannot be sent, or None."""
    order = "sell" if net > ZERO else "buy"
    if rules is None or rules.contract_size is None or rules.inverse:
        return f"{order} {leg.symbol} on {leg.account}", "the value of its contracts in base units is unknown"
    amount = _in_steps(abs(net) / leg.ratio / rules.contract_size, rules)
    why = "its venue accepts reducing orders only" if rules.state == "reduce_only" else _why_not(amount, rules)
    return f"{order} {amount:f} {leg.symbol} on {leg.account}, which opens a position", why


def _in_steps(amount: Decimal, rules: Instrument | None) -> Decimal:
    """Rounded down to the venue's steps."""
    found = amount if rules is None or not rules.amount_step else whole_steps(amount, rules.amount_step)
    return found.normalize()


def _why_not(amount: Decimal, rules: Instrument | None) -> str | None:
    """Why an order of this size cannot be sent, or None."""
    if rules is None:
        return "the venue's rules are unknown"
    if rules.state in CLOSED_STATES:
        return f"it is {rules.state} at the venue"
    least = rules.min_amount or rules.amount_step or ZERO
    return "it is less than the venue trades" if amount <= ZERO or amount < least else None
