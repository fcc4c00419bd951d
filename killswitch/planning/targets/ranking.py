"""Ranking: the order in which positions are closed.

`normalised`: each term is scaled to 0…1 over the book and only harm scores; a position that gained in the
window never outranks one that lost. `killswitch-v6`: 0.40·|P&L delta| + 0.25·|current loss| +
0.20·liquidation proximity + 0.10·notional share + 0.05·margin loss in raw units, as the predecessor had it: its
proximity is clamp(0.1 ÷ liquidation distance, 0, 1), that of `normalised` 1 − distance. `component-risk` and
`genesis` also read recorded returns; `spread` computes the risk of a book.
A term that is unknown for a position counts as the worst in the book.

`genesis` is the product of three factors:

- exposure: its notional ÷ the gross of all positions whose notional is known, all in the scope's currency;
- volatility: the sample standard deviation of the returns of its marks over the ranking's window, ÷ the book's largest;
- loss: how far its P&L fell over the window of the decision, ÷ the book's largest fall; 0 where it rose.

An unknown factor counts as the worst in the book, and a position that gained never outranks one that lost. Equal
products (nobody lost, or nothing moved) go by the sum of the factors, then by (account, symbol, side).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from statistics import stdev
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.nodes import CorrelationGroupRule, RankingRule, RankingTerm
from killswitch.model.snapshot import AccountSnapshot, Position
from killswitch.signals.history.group_estimates import parts_of
from killswitch.signals.history.scope import History
from killswitch.valuation.position_measures import liquidation_distance, margin_loss, notional, unrealized
from killswitch.valuation.scope_view import PnlKey, ScopeView

V6_NEAR = 0.1
"""Liquidation distance, as a fraction of the mark, below which `killswitch-v6` scores 1."""


class RankingCandidate(Struct, frozen=True):
    """A position with its ranking data: floats in the scope's currency or fractions; None is unknown."""

    account: AccountSnapshot
    position: Position
    value: Decimal | None
    """Absolute notional in the account's currency."""
    pnl_delta: float | None
    """The change of its P&L over the window of the decision."""
    pnl: float | None
    liquidation_distance: float | None
    notional_share: float | None
    margin_loss: float | None
    measured: Decimal | None = None
    """Absolute notional in the scope's currency, comparable between accounts."""
    bleed_rate: float | None = None
    """Loss per hour in the scope's currency; None also where no signal or ranking in use reads it."""
    changes: Mapping[int, float | None] = {}
    """The change of its P&L over each window (microseconds) that a position signal in use reads."""
    is_flat: bool = False
    """Whether it is a hedge whose legs cancel each other, which is on neither side."""
    symbols: tuple[str, ...] = ()
    """The symbols of the legs, of a hedge that is shown as one position; else empty."""

    def pnl_change(self, window: int) -> float | None:
        """The change over the window; None if it is unknown. KeyError for a window that no signal in use reads."""
        return self.changes[window]

    @property
    def key(self) -> PnlKey:
        return (self.account.account, self.position.symbol, self.position.side)


class Ranked(Struct, frozen=True):
    """A ranked position. `rank` counts from 1, the worst; a larger `score` is worse."""

    candidate: RankingCandidate
    rank: int
    score: float


RankedBook = tuple[list[Ranked], tuple[str, ...]]
"""A book, the worst first, and remarks on missing data."""

Term = Callable[[RankingCandidate], float | None]

NO_RATES: Mapping[PnlKey, float | None] = {}
NO_CHANGES: Mapping[int, Mapping[PnlKey, Decimal] | None] = {}


def candidates(
    view: ScopeView,
    delta: dict[PnlKey, Decimal] | None,
    bleed: Mapping[PnlKey, float | None] = NO_RATES,
    changes: Mapping[int, Mapping[PnlKey, Decimal] | None] = NO_CHANGES,
) -> list[RankingCandidate]:
    """Candidates for every open position of the scope.

    `delta`: P&L by position over the window, None if unknown; `bleed`: loss per hour by position;
    `changes`: as `delta`, for each window that a position signal reads.
    """
    rows = view.positions()
    notionals = [notional(p, a, view.instrument(a.account, p.symbol)) for a, p in rows]
    measured = [
        None if value is None else view.converted_or_unknown(value, account)
        for (account, _), value in zip(rows, notionals, strict=True)
    ]
    known = [value for value in measured if value is not None]
    gross = sum(known, Decimal(0)) if len(known) == len(rows) else None
    found = []
    for (account, position), value, share in zip(rows, notionals, measured, strict=True):
        instrument = view.instrument(account.account, position.symbol)
        pnl = unrealized(position, account, instrument)
        key = (account.account, position.symbol, position.side)
        found.append(
            RankingCandidate(
                account=account,
                position=position,
                value=value,
                pnl_delta=None if delta is None else _float(delta.get(key)),
                pnl=_float(None if pnl is None else view.converted_or_unknown(pnl, account)),
                liquidation_distance=_float(liquidation_distance(position)),
                notional_share=_float(share / gross if gross and share is not None else None),
                margin_loss=_float(margin_loss(position, account, instrument)),
                measured=share,
                bleed_rate=bleed.get(key),
                changes={
                    window: None if change is None else _float(change.get(key)) for window, change in changes.items()
                },
            )
        )
    return found


def _float(value: Decimal | None) -> float | None:
    return None if value is None or not value.is_finite() else float(value)


def _nearness(to: Callable[[float], float]) -> Term:
    """Term of the nearness to liquidation, from its distance as a fraction of the price; 0 for spot."""

    def near(candidate: RankingCandidate) -> float | None:
        if candidate.account.market in ("spot", "equity"):
            return 0.0
        distance = candidate.liquidation_distance
        return None if distance is None else to(distance)

    return near


def fall(candidate: RankingCandidate) -> float | None:
    """Fall of the P&L over the window in the scope's currency; 0 if it rose."""
    return None if candidate.pnl_delta is None else max(0.0, -candidate.pnl_delta)


_HARM: dict[RankingTerm, Term] = {
    "pnl_delta": fall,
    "loss": lambda c: None if c.pnl is None else max(0.0, -c.pnl),
    "liquidation_proximity": _nearness(lambda distance: 1.0 - min(1.0, distance)),
    "notional_share": lambda c: c.notional_share,
    "margin_loss": lambda c: c.margin_loss,
    "bleed_rate": lambda c: None if c.bleed_rate is None else max(0.0, c.bleed_rate),
}
_RAW: dict[RankingTerm, Term] = {
    **_HARM,
    "pnl_delta": lambda c: None if c.pnl_delta is None else abs(c.pnl_delta),
    "loss": lambda c: None if c.pnl is None else abs(min(0.0, c.pnl)),
    "liquidation_proximity": _nearness(lambda distance: 1.0 if distance <= V6_NEAR else V6_NEAR / distance),
}
_ALREADY_SCALED: frozenset[RankingTerm] = frozenset({"liquidation_proximity", "notional_share"})


def _column(term: RankingTerm, compute: Term, book: Sequence[RankingCandidate], *, scaled: bool) -> list[float]:
    """The term for every candidate, `scaled` to 0…1 by the largest; unknown counts as the largest."""
    values = [compute(candidate) for candidate in book]
    largest = max((value for value in values if value is not None), default=1.0)
    filled = [largest if value is None else value for value in values]
    if not scaled or term in _ALREADY_SCALED:
        return filled
    return [value / largest if largest > 0 else 0.0 for value in filled]


def gained(candidate: RankingCandidate) -> int:
    """0: lost or unknown, 1: neither, 2: gained; over the window if known, else since entry."""
    change = candidate.pnl if candidate.pnl_delta is None else candidate.pnl_delta
    if change is None or change < 0:
        return 0
    return 2 if change > 0 else 1


def by_component(book: Sequence[RankingCandidate], shares: Sequence[float]) -> list[Ranked]:
    """The book by share of the variance, the largest first; hedging positions come last."""
    return _in_order(book, shares, lambda i: (-shares[i], book[i].key))


def _in_order(book: Sequence[RankingCandidate], scores: Sequence[float], key: Callable[[int], Any]) -> list[Ranked]:
    """The book sorted by the `key` of each index, the worst first."""
    order = sorted(range(len(book)), key=key)
    return [Ranked(book[i], place, scores[i]) for place, i in enumerate(order, start=1)]


def rank(rule: RankingRule, book: Sequence[RankingCandidate]) -> list[Ranked]:
    """The book in order of closing, the worst first; ties by (account, symbol, side).

    For a `component-risk` rule it is the order that applies while the component risk is unknown.
    """
    if rule.if_unknown is not None:
        rule = replace(rule, formula=rule.if_unknown)
    normalised = rule.formula == "normalised"
    terms = _HARM if normalised else _RAW
    scores = [0.0] * len(book)
    for term, weight in rule.weights:
        for i, value in enumerate(_column(term, terms[term], book, scaled=normalised)):
            scores[i] += weight * value
    return _in_order(book, scores, lambda i: (gained(book[i]) if normalised else 0, -scores[i], book[i].key))


def in_group_order(
    ranked: Sequence[Ranked], groups: Sequence[CorrelationGroupRule], history: History | None = None
) -> list[Ranked]:
    """Sort by the declared order of correlation groups, then by rank.

    Of a group whose symbols form several, the one with the worst ranked position is first. Symbols without a group
    follow the groups individually.
    """
    place = group_places([each.candidate.position.symbol for each in ranked], groups, history)
    return sorted(ranked, key=lambda each: (place.get(each.candidate.position.symbol, (math.inf, 0)), each.rank))


def group_places(
    symbols: Sequence[str], groups: Sequence[CorrelationGroupRule], history: History | None
) -> dict[str, tuple[float, int]]:
    """Symbol → the order of its correlation group, and the place of the first symbol in `symbols` of its part of it."""
    place: dict[str, tuple[float, int]] = {}
    for rule in groups:
        open_symbols = [symbol for symbol in symbols if symbol not in place]
        estimates = None if history is None else history.groups
        for part in parts_of(rule.group, open_symbols, estimates, together=True):
            first = min(symbols.index(symbol) for symbol in part)
            place |= dict.fromkeys(part, (rule.order, 0 if rule.group.is_whole else first))
    return place


def by_genesis(rule: RankingRule, book: Sequence[RankingCandidate], history: History | None) -> RankedBook:
    """The book by `genesis`, the worst first, and remarks on unknown volatilities."""
    volatilities = [_volatility(rule, candidate, history) for candidate in book]
    gross = sum(float(candidate.measured) for candidate in book if candidate.measured is not None)
    shares = [None if each.measured is None else float(each.measured) / gross if gross else 0.0 for each in book]
    worst_share = max((share for share in shares if share is not None), default=1.0)
    exposure = [worst_share if share is None else share for share in shares]
    volatility = _over_the_largest(volatilities)
    loss = _over_the_largest([fall(candidate) for candidate in book])
    factors = list(zip(exposure, volatility, loss, strict=True))
    scores = [share * moved * fell for share, moved, fell in factors]
    ranked = _in_order(book, scores, lambda i: (gained(book[i]), -scores[i], -sum(factors[i]), book[i].key))
    return ranked, _remarks(rule, book, volatilities)


def _volatility(rule: RankingRule, candidate: RankingCandidate, history: History | None) -> float | None:
    """Standard deviation of the returns of the position's marks over `sample`; None with too few returns."""
    if history is None or history.prices is None or rule.sample is None or history.last_at is None:
        return None
    key = (candidate.account.account, candidate.position.symbol)
    (series,) = history.prices.returns([key], history.last_at, rule.window, rule.sample)
    return stdev(series) if len(series) >= max(rule.least, 2) else None


def _over_the_largest(values: Sequence[float | None]) -> list[float]:
    """Each value divided by the largest; unknown values are 1, even if all known values are 0."""
    largest = max((value for value in values if value is not None), default=0.0)
    return [1.0 if value is None else value / largest if largest > 0.0 else 0.0 for value in values]


def _remarks(
    rule: RankingRule, book: Sequence[RankingCandidate], volatilities: Sequence[float | None]
) -> tuple[str, ...]:
    unknown = dict.fromkeys(c.position.symbol for c, value in zip(book, volatilities, strict=True) if value is None)
    if not unknown:
        return ()
    return (
        f"the volatility of {', '.join(unknown)} is unknown (fewer than {rule.least} returns were recorded): "
        "it counts as the book's largest",
    )
