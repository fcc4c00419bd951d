"""What signals give at future bars, for all of them at once, is what a tick at each bar gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.engine.state import Triggers
from killswitch.lab.bars import BarTable
from killswitch.lab.feed import record
from killswitch.lab.path import Path
from killswitch.lab.price_matrix import PriceMatrix
from killswitch.lab.screen import SignalRange
from killswitch.lab.static_book import StaticBook
from killswitch.lab.unknown_runs import UnknownRuns, first_overdue, set_unknown
from killswitch.model.instant import MINUTE
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.scopes.evaluator import Quiescence
from tests.backtests import book, series, written

BARS = 420
POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: ahead}}
spec:
  mode: enforce
  scope: {{each: account, match: {{}}}}
  max_gap: 10m
  triggers:
{triggers}
  stages:
    - {{name: note, level: 1, any: [{names}], cooldown: 6h, reset: manual, actions: []}}
---
apiVersion: killswitch.dev/v1
kind: CorrelationGroup
metadata: {{name: two}}
spec: {{symbols: [A, C], order: 1}}
"""
SIGNALS = (
    'equity.drawdown("30m")', "equity.drawdown_from_peak", "equity.given_back", 'equity.loss_since("utc_day")',
    "pnl.unrealised", "pnl.unrealised_share", 'positions.worst_loss("entry")', 'positions.worst_loss("equity")',
    "positions.worst_bleed", "exposure.gross", "exposure.net", "exposure.leverage", "exposure.largest_share",
    "exposure.imbalance", "exposure.herfindahl", 'exposure.group_share("two")', 'exposure.group_net("two")',
    'attribution.long_share("30m")', 'attribution.short_share("30m")', 'market.volatility("A", "30m", "1m")',
    'market.volatility("A", "30m", "3m")', 'market.volatility_ratio("B", "10m", "40m", "1m")',
    'market.move("A", "20m")', 'market.jump("B", "30m", "1m")', 'market.correlation("30m", "1m", "mean")',
    'market.correlation("30m", "2m", "largest_eigenvalue")', 'equity.expected_move("1h", "30m", "1m")',
)  # fmt: skip
GRACE = 3 * MINUTE
LATE = {"positions.worst_bleed": 241}
"""The bars before which a signal is only known to ticks; 45 of the others."""


def _policy() -> str:
    triggers = "\n".join(
        f"    t{i}: {{when: '{text} > 1e15', on_unknown: hold, grace: 240h}}" for i, text in enumerate(SIGNALS)
    )
    return POLICY.format(triggers=triggers, names=", ".join(f"t{i}" for i in range(len(SIGNALS))))


def _closes(seed: int, fall: float) -> list[float]:
    """A walk with three decimals and a fall of twenty minutes in it."""
    random = np.random.default_rng(seed)
    moves = random.normal(0, 0.0006, BARS)
    moves[200:220] += fall / 20
    return [round(float(price), 3) for price in 100 * np.exp(np.cumsum(moves))]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([-0.05, 0.0, 0.04]), st.sampled_from([46, 250, 300]))
def test_signals_looked_ahead_are_those_of_ticks(seed: int, fall: float, begin: int) -> None:
    """To 1e-9, at every bar; a bar of which only a tick can tell says so, and is not the rule."""
    opened = list(range(BARS))
    table = BarTable("walk", [series(each, _closes(seed + i, fall), opened) for i, each in enumerate("ABC")])
    matrix, held = PriceMatrix(table), book({"A": 40_000, "B": -30_000, "C": 10_000})
    interpreter, columns, stepped, path = Interpreter(written(_policy())), [], [], None
    for number, snapshot in enumerate(record(table, held)):
        interpreter.tick(snapshot)
        evaluator = interpreter.evaluator("ahead", interpreter.status()[0].scope)
        assert evaluator is not None and evaluator.columns is not None
        if number > begin:
            columns.append((evaluator.columns.lo, evaluator.columns.hi))
            stepped.append(evaluator.state.triggers)
        elif number == begin:
            quiescence = Quiescence(evaluator, (0,), 2**62, 0, 0)
            static_book = StaticBook(matrix, snapshot, number)
            path = Path(quiescence, matrix, BARS, BARS - number - 1, static_book)
            refs, state, machine = evaluator.compiled.graph.signals, evaluator.state, evaluator.machine
            spans = [path.span(place, reference) for place, reference in enumerate(refs)]
    assert path is not None and len(columns) == BARS - begin - 1
    for place, (reference, span) in enumerate(zip(refs, spans, strict=True)):
        assert span is not None
        text, unsure = f"{reference.name}{reference.arguments}", 0
        for number, (low, high) in enumerate(columns):
            if math.isnan(span.low[number]):
                unsure += 1
                continue
            bounds = (float(span.low[number]), float(span.high[number]))
            assert bounds == pytest.approx((low[place], high[place]), rel=1e-9, abs=1e-9), (text, number)
        is_early = begin < LATE.get(reference.name, 45)
        assert is_early or unsure <= len(columns) / 20, (text, unsure)

    _check_unknown(path, spans, stepped, SimpleNamespace(state=state, machine=replace(machine, grace=(GRACE,) * 99)))


def _check_unknown(path: Path, spans: Sequence[SignalRange | None], stepped: Sequence[Triggers], now: Any) -> None:
    """Which triggers are unknown after bars that are skipped, since when, and when the first is so for its grace."""
    flags = {i: np.isinf(span.low) for i, span in enumerate(spans) if span is not None and not np.isnan(span.low).any()}
    known = {i: each for i, each in flags.items() if not now.state.triggers.unknown >> i & 1}
    runs = UnknownRuns(path.at, sum(1 << i for i in known), known)
    late = [
        any(i in known and at - since >= GRACE for i, since in triggers.unknown_since.items())
        for at, triggers in zip(path.at.tolist(), stepped, strict=True)
    ]
    assert first_overdue(now, [runs]) == next((place for place, is_late in enumerate(late) if is_late), len(late))
    for place in (0, 1, 7, len(stepped) // 2, len(stepped) - 1):
        skipped = SimpleNamespace(state=now.state, machine=now.machine)
        set_unknown(skipped, [runs], int(path.at[place]))  # type: ignore[arg-type]  # a stand-in with a state
        for i in known:
            found, ticked = skipped.state.triggers, stepped[place]
            assert (found.unknown >> i & 1, found.unknown_since.get(i)) == (
                ticked.unknown >> i & 1, ticked.unknown_since.get(i)
            )  # fmt: skip
