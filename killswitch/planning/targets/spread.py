"""Cuts that differ between positions: by risk, by rank, or by a share of the book.

With most rankings the worst position is closed completely, then the next, until the cut is reached. With component risk
the ranking changes with every step, because closing a risky position turns its hedge into risk; the cut is therefore
the one that leaves the book with the least variance (`risk.covariance`).

If a part of the gross is unknown, the known sum is used: the gross is at least that, so the cap is at most the declared
one. Nothing is converted between account currencies, so the part in another currency is unknown. A position of unknown
value is closed completely, because no remainder is surely under the cap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from msgspec import Struct

from killswitch.graph.nodes import RankingRule
from killswitch.planning.targets.ranking import Ranked, RankingCandidate
from killswitch.render.formats import count_of
from killswitch.risk.covariance import Matrix, least_variance, shrunk_covariance, variance_shares
from killswitch.signals.history.samples import PriceKey
from killswitch.signals.history.scope import History
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import PnlKey

DIGITS = 9
"""Decimal digits of a kept fraction: float errors below must not close a lot."""

Kept = dict[PnlKey, Decimal]
"""Position → contracts that are, or may be, left."""


def unspreadable(chosen: Sequence[Ranked]) -> str | None:
    """Why the selected gross cannot be cut by a fraction, or None."""
    gross = Gross.of([each.candidate for each in chosen])
    if not gross.is_complete:
        return "the selected gross is not wholly known"
    return None if any(gross.known.values()) else "the selected positions are worth nothing"


def worst_first(fraction: Decimal, chosen: Sequence[Ranked], most: Kept) -> Kept:
    """Cut `fraction` of the gross of `chosen` from the worst ranked positions first.

    `most` is the upper bound of what is left of each position; the cut by these bounds counts towards the fraction.
    Every value must be known.
    """
    left = dict(most)
    to_cut = fraction * sum((_value(each) for each in chosen), ZERO) - _cut_by_bounds(chosen, most)
    for each in chosen:
        held, key = each.candidate.position.contracts, each.candidate.key
        value = _value(each) * most[key] / held
        if to_cut <= ZERO:
            break
        if value > ZERO:
            left[key] = ZERO if value <= to_cut else most[key] * (1 - to_cut / value)
            to_cut -= min(value, to_cut)
    return left


def least_risk(fraction: Decimal, chosen: Sequence[Ranked], most: Kept, risk: BookRisk) -> Kept:
    """Cut `fraction` of the gross of `chosen` so that the variance of the whole book is minimal."""
    limits = {each.candidate.key: _value(each) * most[each.candidate.key] / each.candidate.position.contracts
              for each in chosen}  # fmt: skip
    gross = sum((_value(each) for each in chosen), ZERO)
    kept = min((1 - fraction) * gross, sum(limits.values(), ZERO))
    bounds = [None if key not in limits else float(limits[key]) for key in risk.keys]
    values = dict(zip(risk.keys, least_variance(risk.exposures, risk.covariance, bounds, float(kept)), strict=True))
    flat = {each.candidate.key for each in chosen if each.candidate.is_flat}  # without risk, and not without money
    left = {}
    for key, limit in limits.items():
        part = round(values[key] / float(limit), DIGITS) if limit > ZERO else float(key in flat)
        left[key] = most[key] * Decimal(repr(min(1.0, max(0.0, part))))
    return left


def _value(ranked: Ranked) -> Decimal:
    if ranked.candidate.value is None:
        raise AssertionError("the gross is cut only if the value of every position is known")
    return ranked.candidate.value


def _cut_by_bounds(chosen: Sequence[Ranked], most: Kept) -> Decimal:
    """Gross that the bounds alone cut."""
    parts = (1 - most[each.candidate.key] / each.candidate.position.contracts for each in chosen)
    return sum((_value(each) * part for each, part in zip(chosen, parts, strict=True)), ZERO)


class BookRisk(Struct, frozen=True):
    """Risk of a book, in its order: signed notionals, covariance of returns, and shares of the variance."""

    keys: tuple[PnlKey, ...]
    exposures: tuple[float, ...]
    covariance: Matrix
    shares: tuple[float, ...]


def book_risk(rule: RankingRule, book: Sequence[RankingCandidate], history: History) -> BookRisk | str:
    """The risk of the book over the ranking's window, or why it is unknown. Missing data is never substituted."""
    if history.prices is None or rule.sample is None or history.last_at is None:
        return "no returns were recorded"
    if len({candidate.account.currency for candidate in book}) > 1:
        return "nothing converts between the currencies of the accounts"
    exposures = []
    for candidate in book:
        if candidate.value is None:
            return f"the value of {candidate.position.symbol} is unknown"
        exposures.append(float(candidate.value) * (1.0 if candidate.position.side == "long" else -1.0))
    keys: list[PriceKey] = [(c.account.account, c.position.symbol) for c in book]
    assets = list(dict.fromkeys(keys))
    series = history.prices.returns(assets, history.last_at, rule.window, rule.sample)
    count = len(series[0]) if series else 0
    if count < max(rule.least, 2):
        return f"all its symbols together have only {count_of(count, 'return')}, and the ranking asks for {rule.least}"
    of_assets = shrunk_covariance(series)
    place = [assets.index(key) for key in keys]
    covariance = [[of_assets[i][j] for j in place] for i in place]
    shares = variance_shares(exposures, covariance)
    if shares is None:
        return "its symbols did not move"
    return BookRisk(tuple(c.key for c in book), tuple(exposures), covariance, tuple(shares))


class Gross(Struct, frozen=True):
    """Known notionals by account currency; `is_complete`: nothing is unknown or in another currency."""

    known: Mapping[str, Decimal]
    is_complete: bool

    @classmethod
    def of(cls, book: Sequence[RankingCandidate]) -> Gross:
        """The gross of these positions."""
        known: dict[str, Decimal] = {}
        for candidate in book:
            currency = candidate.account.currency
            known[currency] = known.get(currency, ZERO) + (candidate.value or ZERO)
        return cls(known, len(known) < 2 and all(candidate.value is not None for candidate in book))


def capped(share_cap: Decimal, candidate: RankingCandidate, gross: Gross) -> Decimal:
    """Contracts that may be left of a position: share cap × gross ÷ value per contract, at most all."""
    held = candidate.position.contracts
    if candidate.value is None:
        return ZERO
    allowed = share_cap * gross.known[candidate.account.currency]
    return held if candidate.value <= allowed else held * allowed / candidate.value


def remarks(chosen: Sequence[Ranked], gross: Gross) -> tuple[str, ...]:
    """Remarks on a share cap that deviates from the declaration."""
    unknown = [each.candidate.position.symbol for each in chosen if each.candidate.value is None]
    found = (
        [f"the value of {', '.join(unknown)} is unknown: closed completely because of the share cap"] if unknown else []
    )
    if not gross.is_complete:
        found.append("the gross is not wholly known: the share cap applies to the part that is")
    return tuple(found)
