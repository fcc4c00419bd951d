"""Volatility signals: how markets and the book move, from sampled prices.

Prices are sampled as `killswitch/signals/history/samples.py` describes. A symbol in several accounts of the scope is
one market at each venue; of several venues the one that moves most counts. They have no look-ahead: a policy that reads
one is ticked at every bar.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from killswitch.model.instant import HOUR, SECOND
from killswitch.signals.arguments import EVERY, SYMBOL, WINDOW, Argument
from killswitch.signals.declaration import (
    NO_AXIOMS,
    NO_LOOK_AHEAD,
    NOT_NEGATIVE,
    Axioms,
    ScopeSignal,
    SignalSpec,
)
from killswitch.signals.history.prices import EACH_OBSERVATION, PriceSamples
from killswitch.signals.history.samples import are_enough, common_returns
from killswitch.signals.history.windows import UNKNOWN, known, largest

if TYPE_CHECKING:
    from killswitch.signals.history.samples import Floats, Returns, SampleSeries
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
        elif facts.account.quality != "ok" or facts.priced(symbol):  # else it has left the book and the watch list
            found.setdefault(facts.account.venue, [])
    return found


def _is_priced(view: ScopeView, facts: AccountFacts, symbol: str) -> bool:
    """Whether the symbol has a price in this snapshot."""
    from killswitch.valuation.market_prices import is_usable

    return is_usable(facts, view.as_of, view.stale_after) and bool(facts.priced(symbol))


def _volatility(history: History, view: ScopeView, symbol: str, window: int, every: int) -> Interval:
    def of(facts: AccountFacts, series: SampleSeries) -> float:
        year = SESSIONS_YEAR if facts.account.market == "equity" else YEAR
        return series.deviation(view.as_of, window) * math.sqrt(year / every)

    return largest(_by_venue(history, view, symbol, every, of), math.inf)


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


def _exposures(view: ScopeView, columns: PositionColumns) -> dict[Market, float]:
    """Market → long minus short notional; NaN if one is unknown."""
    venues = {facts.name: facts.account.venue for facts in view.facts}
    found: dict[Market, float] = {}
    signed = (columns.sign * columns.notional).tolist()
    for account, symbol, notional in zip(columns.accounts, columns.symbols, signed, strict=True):
        market = venues[account], symbol
        found[market] = found.get(market, 0.0) + notional
    return found


def _series_of(
    history: History, view: ScopeView, markets: Sequence[Market], window: int, every: int
) -> list[SampleSeries] | None:
    """The samples of each market, of the account at its venue that has enough of them; None if one has none."""
    prices = history.collectors.of(PriceSamples)
    accounts: dict[str, list[str]] = {}
    for facts in view.facts:
        accounts.setdefault(facts.account.venue, []).append(facts.name)
    found = []
    for venue, symbol in markets:
        series = [it for name in accounts[venue] if (it := prices.series((name, symbol), every)) is not None]
        if not series:
            return None
        enough = (it for it in series if not math.isnan(it.deviation(view.as_of, window)))
        found.append(series[0] if len(series) == 1 else next(enough, series[0]))
    return found


def _covariance(returns: Sequence[Returns], now: int, window: int, every: int) -> Floats | None:
    """The covariance of the markets' returns; None if they have too few in common."""
    from killswitch.risk.covariance import shrunk_covariance_array

    common = common_returns(returns)
    return shrunk_covariance_array(common) if are_enough(common.shape[1], now, window, every) else None


def _expected_move(history: History, view: ScopeView, horizon: int, window: int, every: int) -> Interval:
    import numpy as np

    columns = view.columns
    if columns is None or view.equity is None:
        return UNKNOWN
    exposures = {market: x for market, x in _exposures(view, columns).items() if x}
    markets, signed = tuple(exposures), np.array(list(exposures.values()))
    if not markets:
        return 0.0, 0.0
    series = _series_of(history, view, markets, window, every)
    if series is None or bool(np.isnan(signed).any()):
        return UNKNOWN
    now, prices = view.as_of, history.collectors.of(PriceSamples)
    covariance = prices.once(
        ("covariance", markets, window, every), series, now, window, lambda it: _covariance(it, now, window, every)
    )
    scale, equity = math.sqrt(horizon / every), float(view.equity)
    if covariance is not None:
        move = math.sqrt(max(0.0, float(signed @ covariance @ signed))) * scale
        return known(_of_equity(move, equity))
    # their common returns are too few, and each moves as far as it does by itself at most
    most = sum(abs(x) * each.deviation(now, window) for x, each in zip(signed.tolist(), series, strict=True)) * scale
    return UNKNOWN if math.isnan(most) else (0.0, _of_equity(most, equity))


def _of_equity(money: float, equity: float) -> float:
    """money ÷ equity; +∞ if equity is not positive and the money is."""
    return money / equity if equity > 0.0 else math.inf if money > 0.0 else 0.0


def _correlation(history: History, view: ScopeView, window: int, every: int, measure: str) -> Interval:
    columns = view.columns
    if columns is None:
        return UNKNOWN
    markets = tuple(sorted(_exposures(view, columns)))
    series = _series_of(history, view, markets, window, every) if len(markets) > 1 else None
    if series is None:
        return UNKNOWN
    now = view.as_of
    return known(
        history.collectors.of(PriceSamples).once(
            ("correlation", markets, window, every, measure), series, now, window,
            lambda it: _correlated(common_returns(it), now, window, every, measure),
        )
    )  # fmt: skip


def _correlated(returns: Floats, now: int, window: int, every: int, measure: str) -> float:
    """Mean or largest eigenvalue ÷ n of the correlations; NaN for too few returns, and if one is constant."""
    import numpy as np

    count, times = returns.shape
    if count >= times or not are_enough(times, now, window, every) or not np.ptp(returns, axis=1).all():
        return math.nan
    matrix = np.corrcoef(returns)
    if measure == "mean":
        return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))
    return float(np.linalg.eigvalsh(matrix)[-1] / count)


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
)
LONG = replace(SHORT, key="long", meaning="The longer of two windows, [t − long, t].", example="30d")
MEASURE = Argument(
    key="measure",
    kind="word",
    words=("mean", "largest_eigenvalue"),
    meaning="The mean of all pairs, or the largest eigenvalue of the matrix ÷ the number of markets.",
    example="mean",
)

_TOO_FEW = "fewer than two returns, or than 80% of those that are expected of the window"

_condition = partial(
    ScopeSignal,
    measures="condition",
    look_ahead=NO_LOOK_AHEAD,
    is_loss_size=False,
    counts_unexplained=False,
    keeps_highest=False,
    reads_pnl=False,
    needs_equity=False,
    collects=(PriceSamples,),
    axioms=NO_AXIOMS,
)
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
    ),
    _condition(
        name="equity.expected_move",
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
    ),
)
