"""A generated crash: plausible bars where real ones may not be shipped. Every number in it is invented."""

from __future__ import annotations

from array import array
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import fields

from killswitch.lab.bars import BarTable, Series
from killswitch.model.instant import MINUTE, to_micros

Floats = npt.NDArray[np.float64]

START = datetime(2024, 1, 1, tzinfo=UTC)
_ALPHA, _PERSISTENCE = 0.12, 0.85


class Coin(Struct, frozen=True):
    """One symbol: first price and its decimals, market beta, own volatility (multiples of the market's), and the
    turnover of a calm minute (quote units)."""

    symbol: str
    price: float
    decimals: int
    beta: float
    own: float
    turnover: float


COINS: tuple[Coin, ...] = (
    Coin("BTC_USDT", 40000.0, 1, 0.80, 0.3, 8e6),
    Coin("ETH_USDT", 2500.0, 2, 1.20, 0.5, 5e6),
    Coin("ADA_USDT", 1.5, 4, 1.35, 0.7, 1e6),
    Coin("DOT_USDT", 25.0, 3, 1.40, 0.7, 6e5),
    Coin("DOGE_USDT", 0.25, 5, 1.50, 0.9, 1e6),
    Coin("LINK_USDT", 20.0, 3, 1.40, 0.7, 5e5),
    Coin("BCH_USDT", 500.0, 2, 0.90, 0.6, 4e5),
    Coin("XRP_USDT", 0.8, 4, 0.90, 0.6, 1.5e6),
)


class CrashModel(Struct, frozen=True):
    """What the crash is like; lengths in minutes.

    - **Correlation**: a one-factor market (Sharpe, "A simplified model for portfolio analysis", Management Science 9,
      1963). The log return of coin i is beta_i × the market's + its own, which is independent of the others. In the
      crash the market's part grows more than the coins' own, so correlations rise, as they do.
    - **Volatility cluster**: the market's variance follows a GARCH(1,1) (Bollerslev, Journal of Econometrics 31,
      1986) with α = 0.12 and β = 0.85 by the minute, times a level for each phase.
    - **Jumps**: downward jumps in the crash at Poisson times with exponential sizes (Merton, "Option pricing when
      underlying stock returns are discontinuous", Journal of Financial Economics 3, 1976; the exponential sizes are
      Kou's, Management Science 48, 2002). Together they are at most half of the fall. None comes in the first third:
      jumps are what a fall sets off (Aït-Sahalia, Cacho-Diaz, Laeven, "Modeling financial contagion using mutually
      exciting jump processes", Journal of Financial Economics 117, 2015).
    - **Depth**: in the crash and in the rebound the noise of the market is a bridge (it ends where it began), so each
      seed is another crash of the same depth: the market falls by `fall` and takes back `taken_back` of it in logs.
      Fall and rebound begin and end gently (a cubic smooth step), like those of 2010-05-06 and 2021-05-19.
    - **Volume** rises with the size of the minute's move.
    """

    calm: int = 240
    crash: int = 60
    rebound: int = 30
    after: int = 150
    fall: float = 0.35
    taken_back: float = 0.65
    volatility: float = 0.0006
    """Standard deviation of the market's log return in a calm minute: 43% a year."""
    crash_volatility: float = 5.0
    after_volatility: float = 2.5
    """Multiples of the calm volatility of the market; a coin's own rises by the square root of these."""
    jumps: float = 6.0
    """Expected number in the crash."""
    jump_size: float = 0.015
    """Mean log size."""
    steps: int = 12
    """Prices in a minute, from which its open, high, low and close are derived."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise ValueError(f"{field.name} must not be below zero")
        if self.fall >= 1 or self.steps < 1 or self.minutes < 2:
            raise ValueError("fall must be below 1, with at least one step and two minutes")

    @property
    def minutes(self) -> int:
        return self.calm + self.crash + self.rebound + self.after


def crash_bars(seed: int, model: CrashModel | None = None, start: datetime = START) -> BarTable:
    """Return the bars of `COINS` by the minute from `start` on; equal seeds and models make equal bars."""
    shape = model or CrashModel()
    generator = np.random.default_rng(seed)
    level = _by_phase(shape, 1.0, shape.crash_volatility, (shape.crash_volatility + shape.after_volatility) / 2,
                      shape.after_volatility)  # fmt: skip
    market = _market(shape, level, generator)
    opened = array("q", [to_micros(start) + minute * MINUTE for minute in range(shape.minutes)])
    series = [_series(coin, shape, level, market, opened, generator) for coin in COINS]
    return BarTable(f"crash-{seed}", series)


def _by_phase(shape: CrashModel, calm: float, crash: float, rebound: float, after: float) -> Floats:
    """Return a value for each minute."""
    return np.repeat([calm, crash, rebound, after], [shape.calm, shape.crash, shape.rebound, shape.after])


def _market(shape: CrashModel, level: Floats, generator: np.random.Generator) -> Floats:
    """Return the market's log returns, (minutes, steps)."""
    shocks = generator.standard_normal((shape.minutes, shape.steps))
    scale = _clustered(shocks.sum(axis=1) / np.sqrt(shape.steps)) * level * shape.volatility
    returns: Floats = shocks * (scale / np.sqrt(shape.steps))[:, None]
    depth = -np.log1p(-shape.fall)
    crash = slice(shape.calm, shape.calm + shape.crash)
    jumps = _jumps(shape, depth, generator)
    returns[crash] = _bridge(returns[crash]) + jumps + _move(shape.crash, shape.steps, -depth - jumps.sum())
    rebound = slice(crash.stop, crash.stop + shape.rebound)
    returns[rebound] = _bridge(returns[rebound]) + _move(shape.rebound, shape.steps, depth * shape.taken_back)
    return returns


def _clustered(shocks: Floats) -> Floats:
    """GARCH(1,1) standard deviations with a long-run variance of 1, one for each minute's shock."""
    variance, deviations = 1.0, np.empty(len(shocks))
    for minute, shock in enumerate(shocks):
        deviations[minute] = np.sqrt(variance)
        variance = 1 - _ALPHA - _PERSISTENCE + variance * (_ALPHA * shock * shock + _PERSISTENCE)
    return deviations


def _bridge(returns: Floats) -> Floats:
    """Return the returns without their drift: their sum is zero."""
    return returns - returns.mean() if returns.size else returns


def _jumps(shape: CrashModel, depth: float, generator: np.random.Generator) -> Floats:
    """Log returns of the jumps in the crash, (minutes, steps), none above zero."""
    jumps = np.zeros(shape.crash * shape.steps)
    if jumps.size:
        count = generator.poisson(shape.jumps)
        sizes = generator.exponential(shape.jump_size, count) if count else np.zeros(0)
        if sizes.sum() > depth / 2:
            sizes *= depth / 2 / sizes.sum()
        np.subtract.at(jumps, generator.integers(jumps.size // 3, jumps.size, count), sizes)
    return jumps.reshape(shape.crash, shape.steps)


def _move(minutes: int, steps: int, total: float) -> Floats:
    """Log returns that sum to `total` along a cubic smooth step, (minutes, steps)."""
    if not minutes:
        return np.zeros((0, steps))
    along = np.linspace(0.0, 1.0, minutes * steps + 1)
    moved: Floats = total * np.diff(along * along * (3 - 2 * along))
    return moved.reshape(minutes, steps)


def _series(
    coin: Coin, shape: CrashModel, level: Floats, market: Floats, opened: array[int], generator: np.random.Generator
) -> Series:
    own = generator.standard_normal(market.shape)
    own *= (coin.own * shape.volatility * np.sqrt(level / shape.steps))[:, None]
    prices = coin.price * np.exp(np.cumsum(coin.beta * market + own).reshape(market.shape))
    close = np.maximum(np.round(prices[:, -1], coin.decimals), 10.0**-coin.decimals)
    first = np.concatenate(([coin.price], close[:-1]))
    inside = np.maximum(np.round(prices, coin.decimals), 10.0**-coin.decimals)
    high = np.maximum(inside.max(axis=1), np.maximum(first, close))
    low = np.minimum(inside.min(axis=1), np.minimum(first, close))
    moved = np.abs(np.log(close / first)) / shape.volatility
    volume = coin.turnover / close * np.exp(generator.normal(0.0, 0.4, len(close))) * (0.5 + moved)
    return Series(coin.symbol, opened, *map(_floats, (first, high, low, close, np.round(volume, 3))))


def _floats(values: Floats) -> array[float]:
    """Return a compact sequence of Python floats, which print as they were rounded."""
    return array("d", values.tobytes())
