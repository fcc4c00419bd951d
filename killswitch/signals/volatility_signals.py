"""Volatility signals: how markets and the book move, from sampled prices.

Prices are sampled as `killswitch/signals/history/samples.py` describes. A symbol in several accounts of the scope is
one market at each venue; of several venues the one that moves most counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from killswitch.model.instant import HOUR, SECOND
from killswitch.signals.arguments import EVERY, SYMBOL, WINDOW, Argument, Relation
from killswitch.signals.declaration import (
    NOT_NEGATIVE,
    Axioms,
    SignalSpec,
    condition,
)
from killswitch.signals.equity_levels import of_equity
from killswitch.signals.history.prices import EACH_OBSERVATION, PriceSamples
from killswitch.signals.history.samples import SampleSeries, are_enough, common_returns, expected_returns
from killswitch.signals.history.windows import UNKNOWN, known, largest
from killswitch.signals.market_paths import (
    correlation_ahead,
    expected_ahead,
    jump_ahead,
    move_ahead,
    ratio_ahead,
    volatility_ahead,
)

if TYPE_CHECKING:
    from killswitch.signals.declaration import Bounds, EquityPath
    from killswitch.signals.history.sample_table import Floats
    from killswitch.signals.history.scope import History
    from killswitch.signals.history.windows import Interval
    from killswitch.valuation.account_facts import AccountFacts
    from killswitch.valuation.position_columns import PositionColumns
    from killswitch.valuation.scope_view import ScopeView

YEAR = 365 * 24 * HOUR
SESSIONS_YEAR = 252 * 23_400 * SECOND
"""A year of the sessions of US exchanges, which are 6½ hours long (microseconds)."""

Market = tuple[str, str]
"""(venue, symbol): accounts at one venue share its prices."""


# One symbol


def _by_venue(
    history: History, view: ScopeView, symbol: str, every: int, of: Callable[[AccountFacts, SampleSeries], float]
) -> dict[str, list[float]]:
    """Venue → the values of its accounts that have samples of the symbol; NaN is unknown."""
    prices = history.collectors.of(PriceSamples)
    found: dict[str, list[float]] = {}
    for facts in view.facts:
        series = prices.series((facts.name, symbol), every)
        if series is None:
            continue
        value = of(facts, series)
        if not math.isnan(value):
            found.setdefault(facts.account.venue, []).append(value)
        elif facts.account.quality != "ok" or facts.lists(symbol):  # else it has left the book and the watch list
            found.setdefault(facts.account.venue, [])
    return found


def _is_priced(view: ScopeView, facts: AccountFacts, symbol: str) -> bool:
    """Whether the symbol has a price in this snapshot."""
    return facts.is_priced(view.as_of, view.stale_after) and facts.lists(symbol)


def _volatility(history: History, view: ScopeView, symbol: str, window: int, every: int) -> Interval:
    def of(facts: AccountFacts, series: SampleSeries) -> float:
        year = SESSIONS_YEAR if facts.account.market == "equity" else YEAR
        return series.deviation(view.as_of, window) * math.sqrt(year / every)

    return largest(_by_venue(history, view, symbol, every, of), math.inf)


def _volatility_ahead(path: EquityPath, symbol: str, window: int, every: int) -> Bounds:
    is_of_shares = path.view is not None and any(facts.account.market == "equity" for facts in path.view.facts)
    return volatility_ahead(path, symbol, window, every, SESSIONS_YEAR if is_of_shares else YEAR)


def _volatility_ratio(history: History, view: ScopeView, symbol: str, short: int, long: int, every: int) -> Interval:
    def of(_: AccountFacts, series: SampleSeries) -> float:
        usual = series.deviation(view.as_of, long)
        return series.deviation(view.as_of, short) / usual if usual else math.nan

    return largest(_by_venue(history, view, symbol, every, of), math.inf)


def _jump(history: History, view: ScopeView, symbol: str, window: int, every: int) -> Interval:
    def of(facts: AccountFacts, series: SampleSeries) -> float:
        last = series.last_return(view.as_of)
        if last is None or not _is_priced(view, facts, symbol):
            return math.nan
        usual = series.deviation(last[1], window, before_last=True)
        return abs(last[0]) / usual if usual else math.nan

    return largest(_by_venue(history, view, symbol, every, of), math.inf)


def _move(history: History, view: ScopeView, symbol: str, window: int) -> Interval:
    prices, edge = history.collectors.of(PriceSamples), view.as_of - window

    def of(facts: AccountFacts, series: SampleSeries) -> float:
        before, now = series.at_or_before(edge), series.at_or_before(view.as_of)
        if before is None or now is None or edge - before[0] > prices.max_gap or not _is_priced(view, facts, symbol):
            return math.nan
        split = prices.split_at((facts.name, symbol))
        return math.nan if split is not None and split > before[0] else now[1] / before[1] - 1.0

    venues = _by_venue(history, view, symbol, EACH_OBSERVATION, of)
    if not venues or not all(venues.values()):
        return UNKNOWN
    found = [value for values in venues.values() for value in values]
    return min(found), max(found)


# The book


class _HashedOnce:
    """Markets as a key: the hash of a long tuple takes longer than a look-up."""

    __slots__ = ("_hash", "_markets")

    def __init__(self, markets: tuple[Market, ...]) -> None:
        self._markets = markets
        self._hash = hash(markets)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _HashedOnce) and self._markets == other._markets)


class _Book:
    """The markets of the open positions: the same for as long as nothing is traded."""

    def __init__(self, view: ScopeView, columns: PositionColumns) -> None:
        import numpy as np

        self.sizes = [facts.held.sizes for facts in view.facts]
        venues = {facts.name: facts.account.venue for facts in view.facts}
        pairs = zip(columns.accounts, columns.symbols, strict=True)
        of_positions = [(venues[account], symbol) for account, symbol in pairs]
        self.markets = tuple(dict.fromkeys(of_positions))
        self.key = _HashedOnce(self.markets)
        places = {market: place for place, market in enumerate(self.markets)}
        self._places = np.array([places[market] for market in of_positions], dtype=np.int64)
        self._series: dict[int, list[SampleSeries]] = {}

    def is_of(self, view: ScopeView) -> bool:
        """Whether the view has these positions."""
        return len(self.sizes) == len(view.facts) and all(
            one is facts.held.sizes for one, facts in zip(self.sizes, view.facts, strict=True)
        )

    def exposures(self, columns: PositionColumns) -> Floats:
        """Long minus short notional of each market; NaN if one is unknown."""
        import numpy as np

        signed = columns.sign * columns.notional
        if len(self.markets) == len(signed):
            return signed
        net: Floats = np.bincount(self._places, weights=signed, minlength=len(self.markets)).astype(np.float64)
        return net

    def series(self, history: History, view: ScopeView, window: int, every: int) -> list[SampleSeries] | None:
        """The samples of each market, of the account at its venue that has enough of them; None if one has none."""
        found = self._series.get(every)
        return found if found is not None else self._find(history, view, window, every)

    def _find(self, history: History, view: ScopeView, window: int, every: int) -> list[SampleSeries] | None:
        prices = history.collectors.of(PriceSamples)
        accounts: dict[str, list[str]] = {}
        for facts in view.facts:
            accounts.setdefault(facts.account.venue, []).append(facts.name)
        found, is_only = [], True
        for venue, symbol in self.markets:
            series = [it for name in accounts[venue] if (it := prices.series((name, symbol), every)) is not None]
            if not series:
                return None
            is_only = is_only and len(accounts[venue]) == 1
            enough = (it for it in series if not math.isnan(it.deviation(view.as_of, window)))
            found.append(series[0] if len(series) == 1 else next(enough, series[0]))
        if is_only:  # else another account may have more samples later
            self._series[every] = found
        return found


def _book(history: History, view: ScopeView, columns: PositionColumns) -> _Book:
    """The markets of the view's positions, found once for all signals."""
    prices = history.collectors.of(PriceSamples)
    if not isinstance(prices.book, _Book) or not prices.book.is_of(view):
        prices.book = _Book(view, columns)
    return prices.book


class _Moments:
    """The covariance of the markets' common returns (markets × returns), and their correlation."""

    def __init__(self, returns: Floats, is_known: bool) -> None:
        from killswitch.risk.covariance import shrunk_covariance_array

        self._returns = returns
        self.covariance = shrunk_covariance_array(returns) if is_known else None
        self._correlated: dict[str, float] = {}

    def correlated(self, measure: str) -> float:
        """Mean or largest eigenvalue ÷ n of the correlations; NaN for too few returns, and if a market is constant."""
        found = self._correlated.get(measure)
        if found is None:
            found = self._correlated[measure] = self._correlation(measure)
        return found

    def _correlation(self, measure: str) -> float:
        import numpy as np

        count, times = self._returns.shape
        if self.covariance is None or count >= times or not np.ptp(self._returns, axis=1).all():
            return math.nan
        sample = self.covariance.sample
        scale = 1.0 / np.sqrt(np.diag(sample))
        matrix = sample * scale * scale[:, np.newaxis]
        if measure == "mean":
            return max(-1.0, min(1.0, float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))))
        return min(1.0, float(np.linalg.eigvalsh(matrix)[-1] / count))


def _moments(
    prices: PriceSamples, view: ScopeView, markets: _HashedOnce, series: Sequence[SampleSeries], window: int
) -> _Moments:
    """The moments of the markets, computed once for all signals, and for all scopes that have the same samples."""
    now, every = view.as_of, series[0].every

    def compute() -> tuple[_Moments, float]:
        together = SampleSeries.together(series, now, window)
        if together is None:
            until = min((each.expires(now, window) for each in series), default=math.inf)
            return moments(common_returns(series, now, window)), until
        found = view.once((together, expected_returns(now, window, every)), lambda: moments(together.returns()))
        return found, together.begins + window  # an older sample of one price is in no return of all

    def moments(returns: Floats) -> _Moments:
        return _Moments(returns, are_enough(returns.shape[1], now, window, every))

    return prices.once((markets, window, every), series, now, compute)


def _expected_move(history: History, view: ScopeView, horizon: int, window: int, every: int) -> Interval:
    import numpy as np

    columns = view.columns
    if columns is None or view.equity is None:
        return UNKNOWN
    book = _book(history, view, columns)
    exposures, key = book.exposures(columns), book.key
    series = book.series(history, view, window, every)
    if not len(exposures) or not np.minimum.reduce(np.abs(exposures)) > 0.0:  # it is empty, or one is 0 or unknown
        is_open = exposures != 0.0
        if not is_open.any():
            return 0.0, 0.0
        if series is not None:  # a market without exposure moves nothing, whatever is known of it
            series = [each for each, is_member in zip(series, is_open.tolist(), strict=True) if is_member]
        if np.isnan(exposures).any():
            return UNKNOWN
        key = _HashedOnce(tuple(it for it, is_member in zip(book.markets, is_open.tolist(), strict=True) if is_member))
        exposures = exposures[is_open]
    if series is None:
        return UNKNOWN
    now, prices = view.as_of, history.collectors.of(PriceSamples)
    covariance = _moments(prices, view, key, series, window).covariance
    scale, equity = math.sqrt(horizon / every), float(view.equity)
    if covariance is not None:
        move = math.sqrt(max(0.0, covariance.variance(exposures))) * scale
        return known(_of_equity(move, equity))
    # their common returns are too few, and each moves as far as it does by itself at most
    sigmas = [each.deviation(now, window) for each in series]
    most = sum(abs(x) * sigma for x, sigma in zip(exposures.tolist(), sigmas, strict=True)) * scale
    return UNKNOWN if math.isnan(most) else (0.0, _of_equity(most, equity))


def _of_equity(money: float, equity: float) -> float:
    """money ÷ equity; +∞ if equity is not positive and the money is."""
    return money / equity if equity > 0.0 else math.inf if money > 0.0 else 0.0


def _correlation(history: History, view: ScopeView, window: int, every: int, measure: str) -> Interval:
    columns = view.columns
    if columns is None:
        return UNKNOWN
    book = _book(history, view, columns)
    series = book.series(history, view, window, every) if len(book.markets) > 1 else None
    if series is None:
        return UNKNOWN
    return known(_moments(history.collectors.of(PriceSamples), view, book.key, series, window).correlated(measure))


HORIZON = Argument(
    key="horizon",
    kind="duration",
    meaning="The time ahead for which it is expected.",
    example="1h",
    range=(SECOND, math.inf),
)
SHORT = Argument(
    key="short",
    kind="duration",
    meaning="The shorter of two windows, [t − short, t].",
    example="1h",
    range=(SECOND, math.inf),
    relations=(Relation("below", "long"),),
)
LONG = replace(SHORT, key="long", meaning="The longer of two windows, [t − long, t].", example="30d", relations=())
MEASURE = Argument(
    key="measure",
    kind="word",
    words=("mean", "largest_eigenvalue"),
    meaning="The mean of all pairs, or the largest eigenvalue of the matrix ÷ the number of markets.",
    example="mean",
)

_TOO_FEW = "fewer than two returns, or than 80% of those that are expected of the window"

_condition = partial(condition, collects=(PriceSamples,))
"""A condition of markets, from their sampled prices."""

_OTHER_VENUE = "a venue of the scope has too few returns: it is at least that of the others"

SIGNALS: tuple[SignalSpec, ...] = (
    _condition(
        name="market.volatility",
        arguments=(SYMBOL, WINDOW, EVERY),
        unit="ratio",
        meaning=(
            "Standard deviation (ddof 1) of the returns × √(year ÷ every), 0.65 is 65%. The year is 365 days, of "
            "shares 252 sessions of 6.5 h, with returns within a session only. Samples a minute apart read some 8% "
            "more than samples an hour apart, because bid and ask alternate."
        ),
        partly_known=_OTHER_VENUE,
        unknown=_TOO_FEW,
        range=NOT_NEGATIVE,
        reader=_volatility,
        look_ahead=_volatility_ahead,
    ),
    _condition(
        name="market.volatility_ratio",
        arguments=(SYMBOL, SHORT, LONG, EVERY),
        unit="ratio",
        meaning=(
            "Volatility of the short window ÷ that of the long one, which contains it. Of a calm month of BTC 2% of "
            "the minutes are at 2 or more (1h against 24h)."
        ),
        partly_known=_OTHER_VENUE,
        unknown=f"of either window: {_TOO_FEW}; or the long one has a volatility of 0",
        range=NOT_NEGATIVE,
        reader=_volatility_ratio,
        look_ahead=ratio_ahead,
    ),
    _condition(
        name="equity.expected_move",
        equity_at=of_equity(_expected_move),
        needs_equity=True,
        arguments=(HORIZON, WINDOW, EVERY),
        unit="fraction",
        meaning=(
            "√(x′Σx × horizon ÷ every) ÷ equity: one standard deviation of the book as it is, with x the net notional"
            " of each market and Σ the covariance of their returns (Ledoit and Wolf, 2004). 0 for an empty book; +∞ "
            "when equity is at or below zero."
        ),
        partly_known="the markets have too few returns in common: at most the sum of what each moves by itself",
        unknown=f"equity, positions or a price are unknown; of a market that is held: {_TOO_FEW}",
        range=NOT_NEGATIVE,
        axioms=Axioms(grows_with=("horizon",)),
        reader=_expected_move,
        look_ahead=expected_ahead,
    ),
    _condition(
        name="market.correlation",
        arguments=(WINDOW, EVERY, MEASURE),
        unit="ratio",
        meaning=(
            "Correlation of the returns of the markets that are held, whichever side and size: near 1 in every crash,"
            " and 0.8 on ordinary days of one kind of coin."
        ),
        partly_known="never",
        unknown=(
            "fewer than two markets are held, one did not move, or there are not more common returns than markets, or "
            "fewer than 80% of those that are expected"
        ),
        range=(-1.0, 1.0),
        reader=_correlation,
        look_ahead=correlation_ahead,
    ),
    _condition(
        name="market.move",
        arguments=(SYMBOL, WINDOW),
        unit="fraction",
        meaning="Mark ÷ the last mark at or before t − window, − 1: negative for a fall.",
        partly_known="venues differ: between the least and the greatest of them",
        unknown="no mark now, or none within max_gap before t − window; the symbol was split",
        range=(-1.0, math.inf),
        reader=_move,
        look_ahead=move_ahead,
    ),
    _condition(
        name="market.jump",
        arguments=(SYMBOL, WINDOW, EVERY),
        unit="score",
        meaning=(
            "Size of the last return ÷ the standard deviation of those in the window before it: 5 for −5% in a market"
            " that moves 1%. In a quiet night 0.05% is a jump: combine it with `market.move`."
        ),
        partly_known=_OTHER_VENUE,
        unknown=f"the last sample has no return, or the market did not move before it; {_TOO_FEW}",
        range=NOT_NEGATIVE,
        reader=_jump,
        look_ahead=jump_ahead,
    ),
)
