"""The ranking `genesis`: a position's score is exposure × volatility × loss, each in 0…1 over the book.

- exposure: its notional ÷ the gross of all positions whose notional is known, all in the scope's currency;
- volatility: the sample standard deviation of the returns of its marks over the ranking's window, ÷ the book's largest;
- loss: how far its P&L fell over the window of the decision, ÷ the book's largest fall; 0 where it rose.

An unknown factor counts as the worst in the book, and a position that gained never outranks one that lost. Equal
products (nobody lost, or nothing moved) go by the sum of the factors, then by (account, symbol, side).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import stdev

from killswitch.graph.nodes import RankingRule
from killswitch.planning.ranking import Candidate, Ranked, fall, gained
from killswitch.signals.history import History


def by_genesis(
    rule: RankingRule, book: Sequence[Candidate], history: History | None
) -> tuple[list[Ranked], tuple[str, ...]]:
    """The book in order of closing, the worst first, and which volatilities are unknown, in words."""
    volatilities = [_volatility(rule, candidate, history) for candidate in book]
    gross = sum(float(candidate.measured) for candidate in book if candidate.measured is not None)
    shares = [None if each.measured is None else float(each.measured) / gross if gross else 0.0 for each in book]
    worst_share = max((share for share in shares if share is not None), default=1.0)
    exposure = [worst_share if share is None else share for share in shares]
    volatility = _over_the_largest(volatilities)
    loss = _over_the_largest([fall(candidate) for candidate in book])
    factors = list(zip(exposure, volatility, loss, strict=True))
    scores = [share * moved * lost for share, moved, lost in factors]
    order = sorted(range(len(book)), key=lambda i: (gained(book[i]), -scores[i], -sum(factors[i]), book[i].key))
    ranked = [Ranked(book[i], place + 1, scores[i]) for place, i in enumerate(order)]
    return ranked, _remarks(rule, book, volatilities)


def _volatility(rule: RankingRule, candidate: Candidate, history: History | None) -> float | None:
    """The standard deviation of the returns of the position's marks, each over `sample`; None with too few of them."""
    if history is None or history.marks is None or rule.sample is None or history.last_at is None:
        return None
    key = (candidate.account.account, candidate.position.symbol)
    (series,) = history.marks.returns([key], history.last_at, rule.window, rule.sample)
    return stdev(series) if len(series) >= max(rule.least, 2) else None


def _over_the_largest(values: Sequence[float | None]) -> list[float]:
    """Each value ÷ the largest; an unknown one is 1, also where all that are known are 0."""
    largest = max((value for value in values if value is not None), default=0.0)
    return [1.0 if value is None else value / largest if largest > 0.0 else 0.0 for value in values]


def _remarks(rule: RankingRule, book: Sequence[Candidate], volatilities: Sequence[float | None]) -> tuple[str, ...]:
    unknown = dict.fromkeys(
        candidate.position.symbol for candidate, value in zip(book, volatilities, strict=True) if value is None
    )
    if not unknown:
        return ()
    return (
        f"the volatility of {', '.join(unknown)} is unknown (fewer than {rule.least} returns were recorded): "
        "it counts as the book's largest",
    )
