"""Thresholds that are computed: by a quantile of the signal's own past, and as a multiple of another signal."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.graph.nodes import AdaptiveRule
from killswitch.model.instant import DAY, MINUTE
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.scopes.adaptive_thresholds import AdaptiveThreshold, StoredThreshold
from tests.backtests import written
from tests.worlds import account, after, position, snapshot

BLOCK = 15 * MINUTE
QUANTILE = AdaptiveRule(0.02, 0.20, 0.05, quantile=0.9, history=2 * DAY, block=BLOCK, identity="q")
MULTIPLE = AdaptiveRule(0.02, 0.20, 0.05, times=2.0, column=1, identity="m")


def fed(threshold: AdaptiveThreshold, values: list[float], start: int = 0, every: int = 5 * MINUTE) -> int:
    """Observe the values one after another; returns the time after the last."""
    for number, value in enumerate(values):
        threshold.observe(start + number * every, (value, value), None, acts=False, is_empty=False)
    return start + len(values) * every


def a_day(values: list[float]) -> list[float]:
    """A day of observations five minutes apart: each value is the maximum of a block of three."""
    blocks = [values[number % len(values)] for number in range(96)]
    return [part for value in blocks for part in (value / 2, value, value / 4)]


def test_the_initial_value_applies_until_there_are_enough_blocks() -> None:
    """0.9 needs 10 blocks; a quarter of two days of 15 minutes is 48, which is more."""
    threshold = AdaptiveThreshold(QUANTILE, 10 * MINUTE)
    assert threshold.wanted == 48
    fed(threshold, a_day([0.001])[: 47 * 3], start=DAY // 2)  # 47 blocks until the evening, then midnight with 47
    assert threshold.value == 0.05


@given(st.lists(st.floats(0.0005, 0.024), min_size=1, max_size=96))
def test_the_threshold_is_the_quantile_of_the_blocks_maxima_within_its_bounds(values: list[float]) -> None:
    """NumPy's linear quantile (type 7), at most a tenth of itself a day, and not below the floor."""
    threshold = AdaptiveThreshold(QUANTILE, 10 * MINUTE)
    after_a_day = fed(threshold, a_day(values))
    fed(threshold, [0.0005], start=after_a_day)
    blocks = [values[number % len(values)] for number in range(96)]
    wanted = float(np.quantile(blocks, 0.9))
    assert threshold.value == pytest.approx(max(min(max(wanted, 0.045), 0.055), 0.02))
    assert threshold.samples == 96


def test_it_moves_by_at_most_a_tenth_of_itself_a_day() -> None:
    """A calm week lowers 5% to no less than 5% times 0.9 for each day."""
    threshold = AdaptiveThreshold(QUANTILE, 10 * MINUTE)
    at, seen = 0, []
    for _ in range(5):
        at = fed(threshold, a_day([0.001]), start=at)
        threshold.observe(at, (0.0, 0.0), None, acts=False, is_empty=False)
        seen.append(threshold.value)
    assert seen == pytest.approx([0.045, 0.0405, 0.03645, 0.032805, 0.0295245])


@pytest.mark.parametrize(
    ("signal", "acts"),
    [((0.026, 0.026), False), ((0.0, 0.03), False), ((0.001, 0.001), True)],
    ids=["near", "may be near", "acts"],
)
def test_it_stands_still_while_the_signal_is_near_or_the_policy_acts(signal: tuple[float, float], acts: bool) -> None:
    """A threshold read in the middle of a fall does not rise with it: half of 5% is near."""
    threshold = AdaptiveThreshold(QUANTILE, 10 * MINUTE)
    at = fed(threshold, a_day([0.001]))
    threshold.observe(at, signal, None, acts=acts, is_empty=False)
    assert (threshold.value, threshold.frozen) == (0.05, True)
    threshold.observe(at + MINUTE, (0.001, 0.001), None, acts=False, is_empty=False)
    assert (threshold.value, threshold.frozen) == (pytest.approx(0.045), False)  # as soon as that is over


@pytest.mark.parametrize("flaw", ["unknown", "empty", "acts", "gap", "late", "early"])
def test_a_block_that_is_not_wholly_known_is_no_sample(flaw: str) -> None:
    """Partly known, an empty book, a stage in force, a gap over max_gap at its beginning, inside, or at its end."""
    threshold = AdaptiveThreshold(QUANTILE, 4 * MINUTE)
    minutes = {"gap": [0, 2, 8, 10, 13], "late": [6, 8, 11, 14], "early": [0, 3, 6, 9]}.get(flaw, [0, 3, 6, 9, 12])
    for minute in minutes:
        interval = (0.01, 1.0) if flaw == "unknown" and minute == 6 else (0.01, 0.01)
        is_odd = minute == 6
        threshold.observe(
            minute * MINUTE, interval, None, acts=flaw == "acts" and is_odd, is_empty=flaw == "empty" and is_odd
        )
    threshold.observe(BLOCK, (0.01, 0.01), None, acts=False, is_empty=False)
    assert threshold.samples == 0
    for minute in (18, 21, 24, 27, 30):
        threshold.observe(minute * MINUTE, (0.02, 0.02), None, acts=False, is_empty=False)
    assert threshold.samples == 1


def test_a_multiple_follows_the_other_signal_every_quarter_of_an_hour() -> None:
    """Twice 4% is 8%; unknown keeps it; the cap is 20%."""
    threshold = AdaptiveThreshold(MULTIPLE, 10 * MINUTE)
    others = [(0, (0.04, 0.04)), (14, (0.04, 0.04)), (15, (0.04, 0.04)), (30, (0.01, 0.9)), (45, (0.5, 0.5))]
    seen = []
    for minute, other in others:
        threshold.observe(minute * MINUTE, (0.0, 0.0), other, acts=False, is_empty=False)
        seen.append(threshold.value)
    assert seen == [0.05, 0.05, 0.08, 0.08, 0.20]


@pytest.mark.parametrize("flaw", [(-math.inf, math.inf), (math.inf, math.inf)], ids=["unknown", "infinite"])
def test_a_restart_in_a_block_without_a_finite_value_restores_the_state(flaw: tuple[float, float]) -> None:
    """JSON has no infinity: neither a block in progress nor a finished one stores it, and neither is a sample."""
    threshold = AdaptiveThreshold(QUANTILE, 10 * MINUTE)
    for minute in range(0, 35, 5):
        threshold.observe(minute * MINUTE, flaw, None, acts=False, is_empty=False)
        stored = msgjson.decode(msgjson.encode(threshold.state()), type=StoredThreshold)
        threshold = AdaptiveThreshold(QUANTILE, 10 * MINUTE)
        threshold.restore(stored)
    assert (threshold.value, threshold.samples) == (0.05, 0)


def test_what_an_earlier_version_stored_of_an_infinite_block_is_read() -> None:
    """It stored null, which it could not read itself."""
    block = {"number": 3, "highest": None, "seen": 1, "counts": False}
    blob = msgjson.encode(
        {"rule": "q", "value": 0.04, "computed_at": 1, "maxima": [[1, 0.01], [2, None]], "block": block}
    )
    threshold = AdaptiveThreshold(QUANTILE, 10 * MINUTE)
    threshold.restore(msgjson.decode(blob, type=StoredThreshold))
    assert (threshold.value, threshold.samples) == (0.04, 1)


@pytest.mark.parametrize("gap", ["frozen", "outage"])
def test_days_without_a_computation_do_not_add_up(gap: str) -> None:
    """After a day of a stage in force, or of an outage, it moves by a tenth and not by 19%."""
    threshold = AdaptiveThreshold(QUANTILE, 10 * MINUTE)
    at = fed(threshold, a_day([0.001]))
    if gap == "frozen":
        for minute in range(0, 24 * 60, 5):
            threshold.observe(at + minute * MINUTE, (0.001, 0.001), None, acts=True, is_empty=False)
    threshold.observe(at + DAY, (0.001, 0.001), None, acts=False, is_empty=False)
    assert threshold.samples >= threshold.wanted
    assert threshold.value == pytest.approx(0.045)


@pytest.mark.parametrize(("near", "value"), [(False, 0.05), (True, 0.045)], ids=["calm", "frozen"])
def test_initial_applies_again_once_an_outage_has_taken_the_samples(near: bool, value: float) -> None:
    """Of 96 blocks none is left after three days without a runner: a lost history leaves no lowered threshold.

    4.5% had been computed. While the signal is at half of it or above it stands still, also at the first evaluation.
    """
    threshold = AdaptiveThreshold(QUANTILE, 10 * MINUTE)
    at = fed(threshold, [*a_day([0.001]), 0.0])
    assert threshold.value == pytest.approx(0.045)
    stored = threshold.state()
    threshold = AdaptiveThreshold(QUANTILE, 10 * MINUTE)
    threshold.restore(stored)
    signal = 0.03 if near else 0.001
    for number in range(4):
        threshold.observe(at + 3 * DAY + number * 5 * MINUTE, (signal, signal), None, acts=False, is_empty=False)
    assert threshold.samples < threshold.wanted
    assert (threshold.value, threshold.frozen) == (pytest.approx(value), near)


def test_it_outlasts_a_restart_unless_its_rule_was_edited() -> None:
    """The value and the samples are stored; another floor begins again."""
    threshold = AdaptiveThreshold(QUANTILE, 10 * MINUTE)
    fed(threshold, [*a_day([0.001]), 0.0])
    same, edited = AdaptiveThreshold(QUANTILE, 10 * MINUTE), AdaptiveThreshold(MULTIPLE, 10 * MINUTE)
    same.restore(threshold.state())
    edited.restore(threshold.state())
    assert (same.value, same.samples) == (pytest.approx(0.045), 96)
    assert (edited.value, edited.samples) == (0.05, 0)


POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: unusual}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    unusual:
      signal: equity.drawdown
      window: 15m
      at_least: {quantile: 90%, history: 1d, floor: 1%, cap: 10%, initial: 5%}
      on_unknown: hold
  stages:
    - {name: lock, level: 1, any: [unusual], cooldown: 1h, reset: manual, actions: [lock_trading: {mode: all}]}
"""


def test_a_calm_past_lowers_the_threshold_at_which_a_stage_fires() -> None:
    """After a calm day 4.8% fires, which is above 4.5%; on the first day it did not, at 5%."""
    interpreter = Interpreter(written(POLICY))

    def fires(minutes: int, equity: str) -> bool:
        held = [position("A", "long", str(int(equity) - 100_000), notional="100000", mark_price="100")]
        at = after(minutes=minutes)
        return bool(interpreter.tick(snapshot(at, account(equity, held, observed_at=at))).decisions)

    assert not fires(0, "100000") and not fires(5, "95200")
    course = dict.fromkeys(range(10, 24 * 60 + 30, 5), "100000")
    assert not any(fires(minutes, equity) for minutes, equity in course.items())
    (trigger,) = interpreter.status()[0].triggers
    assert trigger.threshold == ">= 4.50%"
    assert trigger.adaptive is not None and trigger.adaptive.samples > trigger.adaptive.wanted > 0
    assert fires(24 * 60 + 30, "95200")


def test_a_run_that_ends_in_an_outage_can_be_started_again() -> None:
    """The state of a scope whose signal is unknown is read by the next run, and the stage fires as before."""
    calm = account("100000", [position("A", "long", "0", notional="100000", mark_price="100")])
    first, second = Interpreter(written(POLICY)), Interpreter(written(POLICY))
    for minute in range(0, 20, 5):
        first.tick(snapshot(after(minutes=minute), replace(calm, observed_at=after(minutes=minute))))
    first.tick(snapshot(after(minutes=30), account(None, None, quality="down", reason="no answer")))
    second.restore(first.states(), lambda _policy, _scope, _since: ())
    second.tick(snapshot(after(minutes=31), replace(calm, observed_at=after(minutes=31))))
    (shown,) = second.status()
    assert shown.scope == "account/main"
