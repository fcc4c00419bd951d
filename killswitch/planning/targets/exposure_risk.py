"""Betas and the covariance of the base assets of a book, from the returns of one symbol for each asset."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from msgspec import Struct

from killswitch.graph.actions.neutralise import Neutralise
from killswitch.graph.nodes import NetExposureRule
from killswitch.planning.spot_routes import base_of
from killswitch.render.formats import count_of
from killswitch.risk.covariance import Beta, Matrix, least_squares_beta, shrunk_covariance
from killswitch.signals.arguments import span
from killswitch.signals.history.prices import PriceSamples
from killswitch.signals.history.samples import PriceKey
from killswitch.signals.history.scope import History

SURE = 2.0
"""Distance of a beta from zero, in standard errors, from which it counts."""

ONE = Decimal(1)
Keys = Mapping[str, tuple[PriceKey, ...]]
"""Base asset → account and symbol of each position in it."""


class ExposureRisk(Struct, frozen=True):
    """Weights and covariance of the bases that are exposed. `names`: the bases of the rows of the covariance.

    `unknown`: base → why its returns, or its beta, are unknown. `uncounted`: what counts as 0, and why. `covariance` is
    None while it is unknown, with the reason.
    """

    weights: Mapping[str, Decimal]
    names: tuple[str, ...]
    covariance: Matrix | None
    why_no_covariance: str = ""
    unknown: Mapping[str, str] = {}
    uncounted: tuple[str, ...] = ()
    sources: Mapping[str, tuple[PriceKey, int]] = {}
    """Base → the account and symbol of its returns, and their number."""


class _Returns(Struct, frozen=True):
    """What reads the returns of a decision: those of (account, symbol) on the grid of the action."""

    prices: PriceSamples
    at: int
    action: Neutralise | NetExposureRule

    def together(self, keys: tuple[PriceKey, ...]) -> list[list[float]]:
        """The returns of each key between the same instants."""
        return self.prices.returns(keys, self.at, self.action.window, self.action.sample)

    def count(self, *keys: PriceKey) -> int:
        found = self.together(keys)
        return len(found[0]) if found else 0


def exposure_risk(
    action: Neutralise | NetExposureRule, keys: Keys, net: Mapping[str, Decimal], history: History, also: str = ""
) -> ExposureRisk:
    """Betas, if they are the measure, and the covariance of the bases whose net is not 0. `also`: one more base."""
    exposed = sorted({base for base, units in net.items() if units} | ({also} if also else set()))
    if history.prices is None or history.last_at is None:
        why = "no returns were recorded"
        return ExposureRisk({}, (), None, why, {base: f"{base}: {why}" for base in exposed})
    read = _Returns(history.prices, history.last_at, action)
    chosen = {base: _series_of(base, keys.get(base, ()), read) for base in exposed}
    unknown: dict[str, str] = {}
    weights: dict[str, Decimal] = {}
    uncounted: list[str] = []
    sources = {base: (key, read.count(key)) for base, key in chosen.items() if key is not None}
    for base, key in chosen.items():
        count = 0 if key is None else sources[base][1]
        if key is None or count < action.least:
            unknown[base] = f"{base} has only {count_of(count, 'return')} of the {action.least} that are needed"
        elif action.by == "beta":
            found = _beta(base, key, read)
            if isinstance(found, str):
                unknown[base] = found
            elif found.slope and not found.is_sure(SURE):
                weights[base] = Decimal(0)
                uncounted.append(_not_neutralised(base, found))
            else:
                weights[base] = Decimal(f"{found.slope:.4f}")
    known = {base: key for base, key in chosen.items() if base not in unknown and key is not None}
    covariance = _covariance(known, read)
    if unknown and action.if_unknown == "notional":
        covariance = f"the covariance of {', '.join(sorted(unknown))} is unknown"
    if isinstance(covariance, str):
        return ExposureRisk(weights, tuple(known), None, covariance, unknown, tuple(uncounted), sources)
    return ExposureRisk(weights, tuple(known), covariance, "", unknown, tuple(uncounted), sources)


def _series_of(base: str, keys: tuple[PriceKey, ...], read: _Returns) -> PriceKey | None:
    """The symbol of the base with the most returns; of equals the first by account and symbol.

    A hedge on an account outside of the scope has no returns there: those of its symbol on another account count.
    """
    own = sorted(keys)
    others = sorted((name, symbol) for _, symbol in own for name in read.prices.accounts_of(symbol))
    return max((*own, *others), key=read.count, default=None)


def _beta(base: str, key: PriceKey, read: _Returns) -> Beta | str:
    """The beta of the base on the hub; that of the hub's own base is 1."""
    hub = read.action.hub or ""
    if base == base_of(hub):
        return Beta(1.0, 0.0)
    accounts = dict.fromkeys((key[0], *sorted(read.prices.accounts_of(hub))))
    series = max((read.together((key, (name, hub))) for name in accounts), key=lambda each: len(each[0]))
    window, count = span(read.action.window), len(series[0])
    if count < read.action.least:
        needed = f"of the {read.action.least} that are needed"
        return f"{base} and {hub} have only {count_of(count, 'return')} in common {needed}"
    found = least_squares_beta(*series)
    return f"the beta of {base} is unknown: {hub} has not moved in {window}" if found is None else found


def _not_neutralised(base: str, beta: Beta) -> str:
    error = "unknown" if beta.error is None else f"{beta.error:.4f}"
    return f"{base} is not neutralised: its beta of {beta.slope:.4f} is within {SURE:g} standard errors ({error}) of 0"


def _covariance(chosen: Mapping[str, PriceKey], read: _Returns) -> Matrix | str:
    """The shrunk covariance of the bases, or why it is unknown."""
    if not chosen:
        return "no base asset has enough returns"
    series = read.together(tuple(chosen.values()))
    count = len(series[0])
    if count < max(read.action.least, 2):
        return f"the base assets together have only {count_of(count, 'return')} of the {read.action.least} needed"
    return shrunk_covariance(series)
