"""A backtest that fast-forwards over quiet bars gives the result of one that ticks every bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.graph.nodes import PolicySet
from killswitch.lab.backtest import Rule
from killswitch.lab.bars import BarTable
from killswitch.lab.book import BacktestBook
from killswitch.lab.outcome import Run, RunCurve
from killswitch.lab.price_matrix import PriceMatrix
from killswitch.signals.catalogue import CATALOGUE
from killswitch.signals.declaration import NO_LOOK_AHEAD, ScopeSignal, SignalSpec, Unit
from tests.backtests import book, run, series, shipped, written

FROM_PEAK = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: from-peak}
spec:
  mode: enforce
  scope: {each: account, match: {currency: USDT}}
  max_gap: 10m
  triggers:
    fallen: {signal: equity.drawdown_from_peak, at_least: 3%, confirm: 2m, on_unknown: hold}
    wiped:  {signal: equity.value, at_most: 40000 USDT, on_unknown: hold}
  stages:
    - name: halve
      level: 1
      any: [fallen]
      cooldown: 10m
      reset: {auto: {when: 'equity.drawdown_from_peak < 0.01', for: 20m}}
      attribution: {source_at_least: 65%, if_mixed: worst_ranked, if_unknown: both}
      actions: [{close: {side: losing, fraction: 50%}}]
    - name: all
      level: 2
      any: [wiped]
      cooldown: 1h
      reset: manual
      actions: [{close: {side: both, fraction: 100%}}]
"""
OF_MANY_SIGNALS = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: of-many-signals}
spec:
  mode: enforce
  scope: {each: account, match: {currency: USDT}}
  max_gap: 10m
  triggers:
    share:    {when: 'attribution.long_share("20m") > 0.999', confirm: 6m, on_unknown: hold, grace: 3m}
    day:      {when: 'equity.loss_since("utc_day") > 0.02', on_unknown: hold, grace: 4m}
    volatile: {when: 'market.volatility("A", "20m", "1m") > 2.5', confirm: 3m, on_unknown: trip, grace: 30m}
    jump:     {when: 'market.jump("B", "30m", "1m") > 8.0', on_unknown: warn, grace: 5m}
    moved:    {when: 'market.move("C", "15m") < -0.06 && exposure.net > 0.0', on_unknown: hold, grace: 25m}
    together: {when: 'market.correlation("30m", "2m", "mean") > 0.6', confirm: 4m, on_unknown: hold, grace: 5m}
    expected: {when: 'equity.expected_move("1h", "20m", "1m") > 0.02', confirm: 5m, on_unknown: hold, grace: 30m}
    bleeding: {when: 'positions.worst_bleed > 9000.0', on_unknown: hold, grace: 5h}
    worst:    {when: 'positions.worst_loss("entry") > 0.05', on_unknown: hold}
    lost:     {when: 'equity.given_back > 0.9 && pnl.unrealised_share < -0.02', on_unknown: hold}
    leverage: {when: 'exposure.leverage > 2.2 || exposure.largest_share > 0.95', confirm: 20m, on_unknown: hold}
  stages:
    - name: halve
      level: 1
      any: [share, day, volatile, jump, moved, together, expected, bleeding]
      cooldown: 10m
      reset: {auto: {when: 'equity.drawdown("15m") < 0.01', for: 10m}}
      actions: [{close: {side: both, fraction: 50%}}]
    - name: all
      level: 2
      any: [worst, lost, leverage]
      cooldown: 20m
      reset: {auto: {when: 'market.volatility("A", "10m", "1m") < 1.0', for: 5m}}
      actions: [{close: {side: both, fraction: 100%}}]
"""
OF_OTHER_ACTIONS = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: geared}
spec:
  mode: enforce
  scope: {each: account, match: {currency: USDT}}
  max_gap: 10m
  triggers: {high: {signal: exposure.leverage, at_least: 2.2, on_unknown: hold}}
  stages:
    - name: cut
      level: 1
      any: [high]
      cooldown: 10m
      reset: {auto: {when: 'exposure.leverage < 1.5', for: 5m}}
      actions:
        - lock_trading: {mode: all, for: 30m}
        - reduce: {to: 1.5, of: gross, order: proportion, flows: page, adverse_move: 5%}
---
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: neutral}
spec:
  mode: enforce
  scope: {each: account, match: {currency: USDT}}
  max_gap: 10m
  triggers: {fallen: {signal: equity.drawdown_from_peak, at_least: 2%, on_unknown: hold}}
  stages:
    - name: neutralise
      level: 1
      any: [fallen]
      cooldown: 20m
      reset: {auto: {when: 'equity.drawdown_from_peak < 0.01', for: 10m}}
      actions:
        - neutralise:
            by: notional
            window: 1h
            sample: 1m
            least: 20
            if_unknown: notional
            fallback: nothing
            open: {account: main, instrument: A, at_most: 5000 USDT}
"""
OF_ONE_SIGNAL = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: of-one-signal}}
spec:
  mode: enforce
  scope: {{each: account, match: {{currency: USDT}}}}
  max_gap: 10m
  triggers: {{it: {{signal: {signal}, {threshold}, confirm: 2m, on_unknown: hold}}}}
  stages:
    - name: cut
      level: 1
      any: [it]
      cooldown: 10m
      reset: manual
      actions: [{{close: {{side: both, fraction: 10%}}}}]
---
apiVersion: killswitch.dev/v1
kind: CorrelationGroup
metadata: {{name: majors}}
spec: {{symbols: [A], order: 1}}
"""
THRESHOLDS: dict[Unit, str] = {
    "money": "at_most: 97000 USDT", "fraction": "at_least: 3%", "ratio": "at_least: 1.5", "count": "at_least: 1",
    "money per hour": "at_least: 500",
    "seconds": "at_least: 1s", "milliseconds": "at_least: 1ms", "score": "at_least: 0.5",
}  # fmt: skip
OF_NAME = {"market.correlation": "at_least: 0.1"}
"""Of a signal that does not reach the threshold of its unit."""

FOLDERS = (
    "futures-drawdown",
    "futures-component-risk",
    "futures-concentrated",
    "circuit-breaker",
    "from-peak",
    "look-ahead",
    "of-many-signals",
    "of-other-actions",
)
WRITTEN = {"from-peak": FROM_PEAK, "of-many-signals": OF_MANY_SIGNALS, "of-other-actions": OF_OTHER_ACTIONS}
BARS = 260
MOVES = st.sampled_from([(5, -0.04), (5, -0.02), (5, 0.03), (40, -0.004), (40, 0.003)])
"""Minutes, and the move in each."""
NOTIONALS = st.integers(-150_000, 150_000).filter(lambda notional: abs(notional) > 1000)


@st.composite
def price_matrices(draw: st.DrawFn) -> PriceMatrix:
    """Three symbols on random walks, with falls, wicks, missing minutes and perhaps one long outage."""
    outage = draw(st.integers(0, 40))
    found = []
    for symbol in "ABC":
        falls = draw(st.lists(st.tuples(st.integers(5, BARS - 45), MOVES), max_size=4))
        seed = draw(st.integers(0, 2**32 - 1))
        closes = walk(seed, falls)
        missing = draw(st.sets(st.integers(1, BARS - 2), max_size=12)) | set(range(100, 100 + outage))
        kept = [place for place in range(BARS) if place not in missing]
        prices = [closes[place] for place in kept]
        lows, highs = (bounds(prices, extreme) for extreme in (min, max))
        wick, at = draw(st.sampled_from([0.0, 0.3, 0.6])), draw(st.integers(1, len(prices) - 1))
        lows[at], highs[at] = round(lows[at] * (1 - wick), 3), round(highs[at] * (1 + wick), 3)
        found.append(series(symbol, prices, kept, low=lows, high=highs))
    return PriceMatrix(BarTable("drawn", found))


def bounds(prices: list[float], extreme: Callable[[float, float], float]) -> list[float]:
    """The lowest or highest price of each bar that opens at the previous close."""
    return [extreme(a, b) for a, b in zip([prices[0], *prices], prices, strict=False)]


def walk(seed: int, falls: Sequence[tuple[int, tuple[int, float]]]) -> list[float]:
    """Closes with three decimals: a walk by a small generator, shifted for some minutes at each fall."""
    price, state, found = 100.0, seed or 1, []
    drift = {place + i: move for place, (minutes, move) in falls for i in range(minutes)}
    for place in range(BARS):
        state = (1103515245 * state + 12345) % 2**31
        price *= 1 + (state / 2**31 - 0.5) * 0.001 + drift.get(place, 0.0)
        found.append(round(price, 3))
    return found


def policies_of(folder: str) -> PolicySet:
    return written(WRITTEN[folder]) if folder in WRITTEN else shipped(folder)


def without_curve(run: Run) -> Run:
    return replace(run, course=None)


@pytest.mark.parametrize("folder", FOLDERS)
@settings(max_examples=12)
@given(price_matrices(), st.tuples(NOTIONALS, NOTIONALS, NOTIONALS), st.sampled_from(get_args(Rule)))
def test_fast_forward_does_not_change_a_run(
    folder: str, matrix: PriceMatrix, notionals: tuple[int, int, int], rule: Rule
) -> None:
    """Every firing, fill, verification and sum is the same, to the last digit; a curve to a float's last bits."""
    held = book(dict(zip("ABC", notionals, strict=True)))
    policies = policies_of(folder)
    fast = run(policies, matrix, held, rule, with_curve=True)
    slow = run(policies, matrix, held, rule, with_curve=True, is_skipping=False)
    assert without_curve(fast) == without_curve(slow)
    assert fast.course is not None and slow.course is not None
    assert equal_but_for_rounding(fast.course, slow.course)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(spec, id=spec.name)
        for spec in CATALOGUE
        if isinstance(spec, ScopeSignal) and spec.look_ahead is not NO_LOOK_AHEAD
    ],
)
def test_a_signal_looked_ahead_equals_the_ticked_one(spec: SignalSpec) -> None:
    """Alone, so that no other signal has the bars ticked: a slow fall, a rise, a fast fall, and noise."""
    examples = (f"{each.key}: {'A' if each.key == 'symbol' else each.example}" for each in spec.arguments)
    signal = ", ".join([spec.name, *examples])
    policies = written(OF_ONE_SIGNAL.format(signal=signal, threshold=OF_NAME.get(spec.name, THRESHOLDS[spec.unit])))
    for seed in range(3):
        falls = [(40 + seed, (40, -0.002)), (110, (40, 0.003)), (190, (5, -0.02))]
        matrix = PriceMatrix(BarTable("falls", [series("A", walk(seed, falls)), series("B", walk(8, []))]))
        both_ways(policies, matrix, book({"A": 60_000, "B": -10_000}))


def equal_but_for_rounding(one: RunCurve, other: RunCurve) -> bool:
    """Equal except for rounding in float sums of another order."""
    same = one.at == other.at and one.held.keys() == other.held.keys()
    pairs = [
        *zip(one.equity, other.equity, strict=True),
        *zip(one.long_pnl, other.long_pnl, strict=True),
        *zip(one.short_pnl, other.short_pnl, strict=True),
        *(pair for symbol in one.held for pair in zip(one.held[symbol], other.held[symbol], strict=True)),
    ]
    return same and all(abs(a - b) <= 1e-6 for a, b in pairs)


def calm(count: int, price: float = 100.0) -> list[float]:
    return [price + (place % 2) / 100 for place in range(count)]


def both_ways(policies: PolicySet, matrix: PriceMatrix, held: BacktestBook, rule: Rule = "staged") -> Run:
    """The run, which is the same with and without fast forward."""
    fast, slow = (run(policies, matrix, held, rule, is_skipping=passing) for passing in (True, False))
    assert fast == slow
    return fast


def test_a_bar_with_a_liquidation_is_not_skipped() -> None:
    """The close is unchanged, but the low is not: a long and a short, each liquidated by a wick of its own."""
    prices = calm(200)
    low, high = bounds(prices, min), bounds(prices, max)
    low[90], high[150] = 30.0, 170.0
    matrix = PriceMatrix(BarTable("wick", [series("A", prices, low=low), series("B", prices, high=high)]))
    found = both_ways(shipped("circuit-breaker"), matrix, book({"A": 150_000, "B": -150_000}, leverage=5), "none")
    assert {each.symbol for each in found.liquidations} == {"A", "B"}


def test_an_outage_of_the_venue_is_a_gap_between_quiet_bars() -> None:
    """The side that caused a fall is unknown if its window contains the outage."""
    minutes = [*range(100), *range(130, 160)]
    prices = [*calm(100), *[100 - 0.5 * place for place in range(30)]]
    matrix = PriceMatrix(BarTable("outage", [series("A", prices, minutes), series("B", calm(130), minutes)]))
    found = both_ways(shipped("futures-drawdown"), matrix, book({"A": 150_000, "B": -150_000}))
    assert found.firings[0].source == "UNKNOWN"


def test_a_peak_between_ticks_counts() -> None:
    """Up by 4% and back within quiet bars, slowly: the fall from that peak fires where the windows show nothing."""
    up = [100 + place / 25 for place in range(100)]
    matrix = PriceMatrix(BarTable("peak", [series("A", [*up, *reversed(up)])]))
    found = both_ways(written(FROM_PEAK), matrix, book({"A": 100_000}))
    assert {each.stage for each in found.firings} == {"halve"}


def test_a_slow_fall_is_seen_over_its_whole_window() -> None:
    """7.2% over an hour, at 2.7% a quarter of an hour at the most: only the 1h window fires."""
    prices = [*calm(120), *[100 - 0.06 * place for place in range(1, 61)], *calm(30, 96.4)]
    matrix = PriceMatrix(BarTable("slow", [series("A", prices)]))
    found = both_ways(shipped("futures-drawdown"), matrix, book({"A": 200_000}))
    assert [reading.name for reading in found.firings[0].triggers] == ["fall-1h-1"]


def test_component_risk_is_known_from_returns_of_quiet_bars() -> None:
    """In quiet hours B swings thirty times as far as A; then both fall, A further. The cut by risk takes B."""
    steady = [round(100 + 0.05 * ((place * 5) % 11 - 5) / 5, 3) for place in range(600)]
    swing = [round(100 + 1.5 * ((place * 7) % 13 - 6) / 6, 3) for place in range(600)]
    falls = [[round(100 - step * place, 3) for place in range(1, 15)] for step in (0.85, 0.8)]
    matrix = PriceMatrix(BarTable("risk", [series("A", steady + falls[0]), series("B", swing + falls[1])]))
    found = both_ways(shipped("futures-component-risk"), matrix, book({"A": 30_000, "B": 30_000}))
    assert [(each.stage, [c.symbol for c in each.closed]) for each in found.firings] == [("cut-by-risk", ["B"])]


def test_equity_between_two_roundings_is_the_same_with_and_without_fast_forward() -> None:
    """Prices of seven decimals and whole units: a tenth of all equities lies half-way between two millionths."""
    for seed in range(1, 40):
        prices = ([round(price / 300, 7) for price in walk(seed + place, [])] for place in (0, 1000))
        matrix = PriceMatrix(BarTable("fine", [series(*each) for each in zip("AB", prices, strict=True)]))
        both_ways(shipped("circuit-breaker"), matrix, book({"A": 20_000 + 7 * seed, "B": -30_000}), "none")


def test_most_of_a_calm_market_is_skipped() -> None:
    """Otherwise the comparison above would test nothing."""
    ticked: list[int] = []
    matrix = PriceMatrix(BarTable("calm", [series("A", walk(7, [])), series("B", walk(8, []))]))
    run(shipped("futures-drawdown"), matrix, book({"A": 10_000, "B": -10_000}), on_bars=ticked.append)
    assert sum(ticked) == BARS
    assert len(ticked) < BARS / 3


def test_a_stopped_run_is_marked_incomplete() -> None:
    """What was run until then counts."""
    bars: list[int] = []
    matrix = PriceMatrix(BarTable("calm", [series("A", walk(7, [])), series("B", walk(8, []))]))
    policies, held = shipped("futures-drawdown"), book({"A": 10_000, "B": -10_000})
    partial = run(policies, matrix, held, stop=lambda: sum(bars) >= 100, on_bars=bars.append, is_skipping=False)
    whole = run(policies, matrix, held)
    assert (partial.complete, whole.complete) == (False, True)
    assert (partial.bars, whole.bars) == (101, BARS)
