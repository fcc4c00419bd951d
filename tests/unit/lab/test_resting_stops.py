"""Backtests keep catastrophe stops at the venue, which the bars trigger."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.backtests import book, market, run, written

QUIET = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: quiet}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    never: {signal: equity.drawdown_from_peak, at_least: 99%, on_unknown: hold}
  stages:
    - {name: all, level: 1, any: [never], cooldown: 1m, reset: manual, actions: [{close: {side: both, fraction: 100%}}]}
---
apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: main}
spec: {adapter: paper, market: swap, currency: USDT, execution: live}
"""
STOP = """
---
apiVersion: killswitch.dev/v1
kind: CatastropheStop
metadata: {name: far}
spec:
  {accounts: {market: [swap]}, distance: 20%, from: entry, trigger: mark, band: 10%, if_refused: none}
"""
FALL = [100.0] * 5 + [90.0] * 5 + [79.0] * 5 + [60.0] * 5


def test_a_stop_that_the_bars_reach_closes_the_position_without_a_decision() -> None:
    """1,000 contracts from 100: sold at 80, or worse by the bar that triggers it, and not carried down to 60."""
    panel, held = market(BTC_USDT=FALL), book({"BTC_USDT": 100_000})
    without, found = run(written(QUIET), panel, held), run(written(QUIET + STOP), panel, held)
    assert without.final_equity == Decimal(60_000)
    assert found.gross_end == 0
    assert not found.firings
    assert Decimal(78_000) < found.final_equity <= Decimal(80_000)


@pytest.mark.parametrize("notional", [100_000, -100_000])
def test_a_stop_that_no_bar_reaches_changes_nothing(notional: int) -> None:
    """The price moves by 19% against the position and comes back."""
    worst = 81.0 if notional > 0 else 119.0
    panel, held = market(BTC_USDT=[100.0] * 5 + [worst] * 5 + [100.0] * 5), book({"BTC_USDT": notional})
    found = run(written(QUIET + STOP), panel, held)
    assert (found.final_equity, found.gross_end) == (Decimal(100_000), Decimal(100_000))


def test_no_protection_at_all_has_no_stops() -> None:
    """The comparison with nothing is one with nothing at the venue, too."""
    found = run(written(QUIET + STOP), market(BTC_USDT=FALL), book({"BTC_USDT": 100_000}), rule="none")
    assert found.final_equity == Decimal(60_000)


def test_stops_follow_the_position_that_a_stage_has_cut() -> None:
    """At 10% a half is closed; the stop of the other half is 20% below the entry, for half of the contracts."""
    text = (QUIET + STOP).replace("at_least: 99%", "at_least: 9%").replace("fraction: 100%", "fraction: 50%")
    text = text.replace("cooldown: 1m", "cooldown: 6h")
    found = run(written(text), market(BTC_USDT=FALL), book({"BTC_USDT": 100_000}))
    assert len(found.firings) == 1
    assert found.gross_end == 0
    # Half at 90, half near 80, less what both cost.
    assert Decimal(83_500) < found.final_equity <= Decimal(85_000)
