"""A ranking by `bleed_rate`, and the larger side as the answer to losses of both: what a close then selects."""

from __future__ import annotations

import pytest

from killswitch.graph.nodes import PolicySet
from killswitch.lab.recording import replay
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Snapshot
from tests.backtests import written
from tests.worlds import account, after, position, rules, snapshot


def policies(close: str, attribution: str = "") -> PolicySet:
    """A policy with this close at 5% below the highest of an hour."""
    return written(f"""
apiVersion: killswitch.dev/v1
kind: Ranking
metadata: {{name: fastest}}
spec: {{formula: normalised, window: 1h, weights: {{bleed_rate: 1}}}}
---
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: bleed}}
spec:
  mode: enforce
  scope: {{each: account, match: {{}}}}
  max_gap: 6h
  triggers: {{fall: {{signal: equity.drawdown, window: 6h, at_least: 5%, on_unknown: hold}}}}
  stages:
    - name: cut
      level: 1
      any: [fall]
      cooldown: 1h
      reset: manual
      {attribution}
      actions: [close: {close}]
""")


def at(minute: float, legs: dict[str, tuple[str, int, int]]) -> Snapshot:
    """100,000 and the profits of the legs: symbol → (side, profit, notional)."""
    held = [
        position(symbol, side, str(profit), contracts="10", notional=str(notional), mark_price=str(notional // 10))
        for symbol, (side, profit, notional) in legs.items()
    ]
    equity = 100_000 + sum(profit for _, profit, _ in legs.values())
    when = after(minutes=minute)
    return snapshot(when, account(str(equity), held, observed_at=when, instruments=[rules(each) for each in legs]))


def closed(found: PolicySet, recording: list[Snapshot]) -> list[str]:
    """The symbols of the orders of every decision."""
    made = [each for each in replay(found, recording) if isinstance(each, Decision)]
    return [intent.symbol for each in made for intent in each.intents]


def test_a_close_takes_the_three_fastest_bleeders_and_not_the_largest_losses() -> None:
    """AA lost 4,000 five hours ago and nothing since; of the others, the last 15 minutes cost 500, 400, 300, 200."""
    lost = {"D": 500, "C": 400, "B": 300, "A": 200}
    still = {"AA": ("long", -4000, 10_000), **dict.fromkeys(lost, ("long", 0, 10000))}
    moved = {"AA": ("long", -4000, 10_000), **{each: ("long", -loss, 10_000) for each, loss in lost.items()}}
    before = dict.fromkeys(still, ("long", 0, 10000))
    recording = [at(0, before), *(at(minute, still) for minute in range(15, 301, 15)), at(315, moved)]
    found = policies("{side: both, rank: fastest, top: 3, fraction: 100%}")
    assert closed(found, recording) == ["D", "C", "B"]


def test_a_ranking_without_the_term_does_not_change() -> None:
    """`default` still takes the largest loss of the window first."""
    before = {"AA": ("long", 0, 10_000), "Z": ("long", 0, 10_000)}
    slow = {"AA": ("long", -4000, 10_000), "Z": ("long", 0, 10_000)}
    moved = {"AA": ("long", -4000, 10_000), "Z": ("long", -1000, 10_000)}
    recording = [at(0, before), *(at(minute, slow) for minute in range(15, 301, 15)), at(315, moved)]
    assert closed(policies("{side: both, top: 1, fraction: 100%}"), recording) == ["AA"]
    assert closed(policies("{side: both, rank: fastest, top: 1, fraction: 100%}"), recording) == ["Z"]


@pytest.mark.parametrize(
    ("long", "short", "expected"),
    [(20_000, 10_000, ["L"]), (10_000, 20_000, ["S"]), (10_000, 10_000, ["L"])],
    ids=["long is larger", "short is larger", "equal: long"],
)
def test_losses_of_both_sides_close_the_larger_one(long: int, short: int, expected: list[str]) -> None:
    """3,000 each are shares of a half, below 55%."""
    rule = "attribution: {source_at_least: 55%, if_mixed: larger_side, if_unknown: none}"
    recording = [
        *(at(minute, {"L": ("long", 0, long), "S": ("short", 0, short)}) for minute in range(0, 361, 30)),
        at(370, {"L": ("long", -3000, long), "S": ("short", -3000, short)}),
    ]
    assert closed(policies("{side: losing, fraction: 100%}", rule), recording) == expected


def test_the_side_that_lost_most_is_closed_whatever_the_larger_is() -> None:
    """4,000 of 6,000 are 67%, above 55%: the short side, though the long one is twice as large."""
    rule = "attribution: {source_at_least: 55%, if_mixed: larger_side, if_unknown: none}"
    recording = [
        *(at(minute, {"L": ("long", 0, 20_000), "S": ("short", 0, 10_000)}) for minute in range(0, 361, 30)),
        at(370, {"L": ("long", -2000, 20_000), "S": ("short", -4000, 10_000)}),
    ]
    assert closed(policies("{side: losing, fraction: 100%}", rule), recording) == ["S"]
