"""The risk of a book by position, from the returns that its history has recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from killswitch.graph.nodes import RankingRule
from killswitch.planning.ranking import Candidate
from killswitch.risk.contributions import variance_shares
from killswitch.risk.shrinkage import Matrix, shrunk_covariance
from killswitch.signals.history import History
from killswitch.signals.marks import MarkKey
from killswitch.signals.view import PnlKey


@dataclass(frozen=True, slots=True)
class BookRisk:
    """Positions in the order of the book: signed notionals, the covariance of their returns, shares of the variance."""

    keys: tuple[PnlKey, ...]
    exposures: tuple[float, ...]
    covariance: Matrix
    shares: tuple[float, ...]


def book_risk(rule: RankingRule, book: Sequence[Candidate], history: History) -> BookRisk | str:
    """The risk of the book over the ranking's window; or why it is unknown. Nothing stands in for what is missing."""
    if history.marks is None or rule.sample is None or history.last_at is None:
        return "no returns were recorded"
    if len({candidate.account.currency for candidate in book}) > 1:
        return "nothing converts between the currencies of the accounts"
    exposures = []
    for candidate in book:
        if candidate.worth is None:
            return f"the worth of {candidate.position.symbol} is unknown"
        exposures.append(float(candidate.worth) * (1.0 if candidate.position.side == "long" else -1.0))
    keys: list[MarkKey] = [(c.account.account, c.position.symbol) for c in book]
    assets = list(dict.fromkeys(keys))
    series = history.marks.returns(assets, history.last_at, rule.window, rule.sample)
    count = len(series[0]) if series else 0
    if count < max(rule.least, 2):
        return f"only {count} returns of all its symbols together were recorded, and the ranking asks for {rule.least}"
    of_assets = shrunk_covariance(series)
    place = [assets.index(key) for key in keys]
    covariance = [[of_assets[i][j] for j in place] for i in place]
    shares = variance_shares(exposures, covariance)
    if shares is None:
        return "its symbols did not move"
    return BookRisk(tuple(c.key for c in book), tuple(exposures), covariance, tuple(shares))
