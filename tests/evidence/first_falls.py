"""Close everything at the first fall, without the product: thousands of books in the time of one backtest.

A trigger is a loss of at least a threshold at every close over its confirmation: a fall of equity below its highest
of a window, both ends included (before the window has passed: the fall that was seen), or below that of the first
close, or of 00:00 UTC. Everything is closed at market at the close that confirms it. Until then the book is
unprotected, so that all of it is known beforehand, and a threshold that follows the book's expected move is an array.

The expected move is √(x′Σx × horizon ÷ every) ÷ equity as the book is, Σ by Ledoit and Wolf (scikit-learn's) of the
simple returns on a grid of `every` in the window; it is taken each 15 minutes, and not while the fall is half of the
threshold or more: a threshold that grows with the fall would run away from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from ruamel.yaml import YAML
from sklearn.covariance import ledoit_wolf

from killswitch.lab.bars import BarTable
from killswitch.lab.price_matrix import Instants
from tests.evidence.markets import DAY, MINUTE
from tests.evidence.players import Floats, Held, closed_equity, first_true, worst_fall

UNITS = {"m": MINUTE, "h": 60 * MINUTE}
BLOCK = 15 * MINUTE
FROZEN_FROM = 0.5
"""Of the threshold: a fall from which it is no longer recomputed."""
LEAST_SHARE = 0.8
"""Of the returns of a window: with fewer the expected move is unknown."""


class Trigger(Struct, frozen=True):
    """A loss that closes: `measure`, window and confirmation in microseconds, the threshold as a fraction.

    `window` is 0 for the measures without one.
    """

    measure: str
    window: int
    threshold: float
    confirm: int


class FallRules(Struct, frozen=True):
    """The triggers of the stages of a set that close something, for each policy: whom it watches, and what closes."""

    policies: tuple[tuple[str, tuple[Trigger, ...]], ...]

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        return tuple(trigger for _, found in self.policies for trigger in found)


class Scaled(Struct, frozen=True):
    """A threshold that is `times` the expected move, between `floor` and `cap`; `initial` until it is known."""

    times: float
    floor: float
    cap: float
    initial: float
    horizon: int
    window: int
    every: int


MEASURES = ("equity.drawdown", "equity.loss_from_start", "equity.loss_since")


def rules_of(policy: Path, variant: str | None = None) -> FallRules:
    """The rules of a set, read from its YAML alone; ValueError for a set that closes on anything but a loss."""
    with policy.open(encoding="utf-8") as file:
        documents = [each for each in YAML(typ="safe").load_all(file) if each["kind"] == "Policy"]
    found = [_of_policy(each["spec"], variant) for each in documents]
    return FallRules(tuple(each for each in found if each[1]))


def _of_policy(spec: Mapping[str, Any], variant: str | None) -> tuple[str, tuple[Trigger, ...]]:
    changed = spec.get("variants", {}).get(variant, {}).get("triggers", {})
    closing = [stage for stage in spec["stages"] if any("close" in action for action in stage["actions"])]
    names = dict.fromkeys(name for stage in closing for name in stage["any"])
    return spec["scope"]["each"], tuple(_trigger(spec["triggers"][name] | changed.get(name, {})) for name in names)


def _trigger(written: Mapping[str, Any]) -> Trigger:
    if written["signal"] not in MEASURES or written.get("anchor", "utc_day") != "utc_day":
        raise ValueError(f"{written} is no loss of equity")
    window, confirm = (_micros(written[key]) if key in written else 0 for key in ("window", "confirm"))
    return Trigger(written["signal"], window, float(written["at_least"].strip("%")) / 100, confirm)


def _micros(text: str) -> int:
    return int(text[:-1]) * UNITS[text[-1]]


def loss_of(trigger: Trigger, equity: Floats, at: Instants) -> Floats:
    """The loss that the trigger asks, at each close: `at` in microseconds, an even distance apart."""
    if trigger.measure == "equity.drawdown":
        return fall_within(equity, trigger.window // int(at[1] - at[0]))
    if trigger.measure == "equity.loss_from_start":
        lost: Floats = 1 - equity / equity[0]
        return lost
    days = at // DAY
    before = np.maximum(np.searchsorted(at, days * DAY, side="right") - 1, 0)
    since: Floats = 1 - equity / equity[before]
    return since


def fall_within(equity: Floats, width: int) -> Floats:
    """The fall of each value below the highest of the last `width` + 1, as a fraction of it."""
    highest, span = equity.copy(), 1
    while span < width + 1:
        shift = min(span, width + 1 - span)
        highest[shift:] = np.maximum(highest[shift:], highest[:-shift])
        span += shift
    fallen: Floats = 1 - equity / highest
    return fallen


def first_firing(equity: Floats, at: Instants, triggers: Sequence[Trigger], factor: float = 1.0) -> int | None:
    """The first close at which one of the triggers, its threshold times `factor`, is confirmed; None for none."""
    losses = {(each.measure, each.window): loss_of(each, equity, at) for each in triggers}
    found = [
        confirmed(losses[each.measure, each.window] >= each.threshold * factor, each.confirm // int(at[1] - at[0]))
        for each in triggers
    ]
    return min((each for each in found if each is not None), default=None)


def confirmed(flags: np.ndarray, width: int) -> int | None:
    """The first place up to which `width` + 1 flags in a row are set."""
    run = flags.copy()
    for shift in range(1, width + 1):
        run[shift:] &= flags[:-shift]
    run[:width] = False
    return first_true(run)


def closed_at(held: Held, at: int | None) -> tuple[float, float]:
    """(worst drawdown, final equity ÷ equity at the start) where everything is closed from this close on."""
    equity = closed_equity(held, [at] * len(held.units))
    return worst_fall(equity), float(equity[-1] / held.equity)


# -- thresholds that follow the expected move --------------------------------------------------------------------


class Moments(Struct, frozen=True):
    """Of a market: the close from which each block on its covariance applies; None where returns are too few."""

    first: tuple[int, ...]
    covariance: tuple[Floats | None, ...]
    symbols: tuple[str, ...]


def moments_of(table: BarTable, rule: Scaled) -> Moments:
    """The covariance of the returns of all symbols in the window before each block."""
    at = np.asarray(table.opened) + round(table.interval.total_seconds() * 1_000_000)
    close = np.stack(
        [np.asarray(one.close)[np.searchsorted(np.asarray(one.opened), table.opened, side="right") - 1]
         for one in table.series], axis=1,
    )  # fmt: skip
    grid = np.flatnonzero(np.diff(at // rule.every, prepend=at[0] // rule.every))
    prices, times = close[grid], at[grid]
    returns = prices[1:] / prices[:-1] - 1
    blocks = np.flatnonzero(np.diff(at // BLOCK, prepend=at[0] // BLOCK))
    found: list[Floats | None] = []
    for now in at[blocks]:
        inside = (times[:-1] >= now - rule.window) & (times[1:] <= now)
        enough = inside.sum() >= LEAST_SHARE * (rule.window // rule.every)
        found.append(ledoit_wolf(returns[inside])[0] if enough else None)
    return Moments(tuple(blocks.tolist()), tuple(found), table.symbols)


def scaled_thresholds(held: Held, symbols: Sequence[str], moments: Moments, rule: Scaled, fallen: Floats) -> Floats:
    """The threshold at each close of the book; `fallen` is its fall over the trigger's window."""
    equity = held.equity + (held.close - held.close[0]) @ held.units
    columns = [moments.symbols.index(each) for each in symbols]
    thresholds = np.full(len(equity), rule.initial)
    present = rule.initial
    edges = [*moments.first, len(equity)]
    for number, covariance in enumerate(moments.covariance):
        first, last = edges[number], edges[number + 1]
        if covariance is not None and fallen[first] < FROZEN_FROM * present and equity[first] > 0:
            exposure = held.units * held.close[first]
            variance = float(exposure @ covariance[np.ix_(columns, columns)] @ exposure)
            move = (variance * rule.horizon / rule.every) ** 0.5 / float(equity[first])
            present = min(rule.cap, max(rule.floor, rule.times * move))
        thresholds[first:last] = present
    return thresholds
