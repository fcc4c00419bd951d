"""The close at the first fall without the product: by hand, against numpy's own maximum, and against the lab."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.lab.crash import crash_bars
from killswitch.lab.price_matrix import PriceMatrix
from tests.backtests import POLICIES, book, run, shipped, written
from tests.evidence.first_falls import (
    Scaled,
    Trigger,
    closed_at,
    confirmed,
    fall_within,
    first_firing,
    loss_of,
    moments_of,
    rules_of,
    scaled_thresholds,
)  # fmt: skip
from tests.evidence.markets import DAY, MINUTE
from tests.evidence.players import held_of

HOUR = 60 * MINUTE
EQUITY = st.lists(st.floats(1, 1000), min_size=1, max_size=40).map(np.array)


@given(EQUITY, st.integers(0, 50))
def test_a_fall_is_measured_from_the_highest_of_the_window_with_both_ends(equity: np.ndarray, width: int) -> None:
    """As a maximum of each slice says; at the beginning of what there is."""
    expected = [1 - equity[i] / equity[max(0, i - width) : i + 1].max() for i in range(len(equity))]
    assert fall_within(equity, width) == pytest.approx(expected)


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(0, 5))
def test_a_trigger_is_confirmed_when_it_was_true_all_along(flags: list[bool], width: int) -> None:
    """At the first close that ends a run of `width` + 1."""
    found = [i for i in range(width, len(flags)) if all(flags[i - width : i + 1])]
    assert confirmed(np.array(flags), width) == (found[0] if found else None)


def test_a_loss_since_midnight_begins_at_the_close_of_midnight_or_the_first_one() -> None:
    """From 22:00 by the hour: 100, 90 | 80 at 00:00, 60 | …; and from the start: 40% at 01:00."""
    at = np.array([DAY - 2 * HOUR + hour * HOUR for hour in range(4)])
    equity = np.array([100.0, 90.0, 80.0, 60.0])
    day = Trigger("equity.loss_since", 0, 0.25, 0)
    assert loss_of(day, equity, at) == pytest.approx([0, 0.1, 0, 0.25])
    assert first_firing(equity, at, [day]) == 3
    assert loss_of(Trigger("equity.loss_from_start", 0, 0.4, 0), equity, at) == pytest.approx([0, 0.1, 0.2, 0.4])


def test_the_rules_of_a_set_are_read_from_what_closes_in_it() -> None:
    """With a variant's thresholds in both policies; the portfolio's own scope; no stage that only warns."""
    tight = rules_of(POLICIES / "one-exchange-hedged" / "policy.yaml", "tight")
    assert [scope for scope, _ in tight.policies] == ["account", "account"]
    assert [(each.window // MINUTE, round(each.threshold, 6)) for each in tight.triggers] == [
        (15, 0.03), (60, 0.047), (15, 0.05), (60, 0.071), (15, 0.08), (60, 0.112), (48 * 60, 0.1),
    ]  # fmt: skip
    breaker = rules_of(POLICIES / "circuit-breaker" / "policy.yaml")
    assert [(each.measure, each.threshold) for each in breaker.triggers] == [("equity.loss_from_start", 0.05)]
    assert [scope for scope, _ in rules_of(POLICIES / "several-exchanges" / "policy.yaml").policies] == [
        "portfolio"
    ] * 2


def test_a_set_that_closes_on_anything_but_a_loss_is_refused(tmp_path: Path) -> None:
    """A leverage, for example."""
    path = tmp_path / "policy.yaml"
    path.write_text(
        "kind: Policy\nspec: {scope: {each: account}, triggers: {a: {signal: exposure.leverage, at_least: 3}},"
        " stages: [{any: [a], actions: [{close: {}}]}]}\n",
        encoding="utf-8",
    )
    with pytest.raises(ValueError, match="is no loss of equity"):
        rules_of(path)


@pytest.mark.parametrize("seed", [7, 8])
def test_it_falls_as_deep_as_the_set_in_the_lab(seed: int) -> None:
    """`futures-directional` closes everything at its first fall: the same within half a point of the start."""
    table, longs = crash_bars(seed), book({"BTC_USDT": 150_000, "ETH_USDT": 150_000})
    held = held_of(table, longs)
    equity = held.equity + (held.close - held.close[0]) @ held.units
    triggers = rules_of(POLICIES / "futures-directional" / "policy.yaml").triggers
    fired = first_firing(equity, np.asarray(table.opened), triggers)
    ours = run(shipped("futures-directional"), PriceMatrix(table), longs)
    assert fired is not None and ours.firings
    assert table.opened[fired] + MINUTE == ours.firings[0].at.timestamp() * 1_000_000
    drawdown, left = closed_at(held, fired)
    assert drawdown == pytest.approx(float(ours.worst_drawdown), abs=0.005)
    assert left == pytest.approx(float(ours.final_equity / ours.start_equity), abs=0.005)


FOLLOWING = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: following}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    fall:
      signal: equity.drawdown
      window: 1h
      at_least: {times: 3, of: {signal: equity.expected_move, horizon: 1h, window: 2h, every: 5m},
                 floor: 0.5%, initial: 7%, cap: 60%}
      confirm: 2m
      on_unknown: hold
      grace: 75m
  stages:
    - name: close-all
      level: 1
      any: [fall]
      cooldown: 12h
      reset: manual
      actions: [{lock_trading: {mode: reduce_only}}, {close: {side: both, fraction: 100%}}]
"""


@pytest.mark.parametrize("seed", [7, 8])
def test_a_threshold_that_follows_the_expected_move_fires_as_in_the_lab(seed: int) -> None:
    """Within two minutes of it: Σ is scikit-learn's, the grid and the freezing are written from the definition."""
    table = crash_bars(seed)
    held_book = book({"BTC_USDT": 150_000, "ETH_USDT": 100_000, "XRP_USDT": -50_000})
    held = held_of(table, held_book)
    equity = held.equity + (held.close - held.close[0]) @ held.units
    rule = Scaled(3.0, 0.005, 0.60, 0.07, HOUR, 2 * HOUR, 5 * MINUTE)
    fallen = fall_within(equity, 60)
    symbols = [each.symbol for each in held_book.accounts[0].positions]
    thresholds = scaled_thresholds(held, symbols, moments_of(table, rule), rule, fallen)
    fired = confirmed(fallen >= thresholds, 2)
    ours = run(written(FOLLOWING), PriceMatrix(table), held_book)
    assert fired is not None and ours.firings
    between = timedelta(microseconds=table.opened[fired] + MINUTE) - timedelta(seconds=ours.firings[0].at.timestamp())
    assert abs(between) <= timedelta(minutes=2)
