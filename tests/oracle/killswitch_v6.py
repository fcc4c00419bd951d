"""When killswitch version 6 fires which stage, naively, by the rules of its source and its README.

Imports nothing of the product. The fall is from the highest equity within a window, both ends included; a window with
fewer than 80% of its polls has no fall. Of several windows the one with the largest fall ÷ threshold is confirmed, at N
polls in a row. A higher stage always fires, the same one after its cooldown, a lower one never. Nothing resets a stage.
Times are minutes, and each is a poll.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from msgspec import Struct


class V6Stage(Struct, frozen=True):
    """A stage: window in minutes → threshold; polls in a row; cooldown in minutes."""

    level: int
    thresholds: Mapping[int, Fraction]
    confirm: int
    cooldown: int


class StageFiring(Struct, frozen=True):
    """A stage fired at a minute."""

    minute: int
    level: int


def firings(equity: Sequence[Fraction], stages: Sequence[V6Stage]) -> list[StageFiring]:
    """Every firing over an equity a minute; each action succeeds."""
    found: list[StageFiring] = []
    for minute in range(len(equity)):
        for stage in sorted(stages, key=lambda each: -each.level):
            if _fires(equity[: minute + 1], stage) and _may(stage, minute, found, stages):
                found.append(StageFiring(minute, stage.level))
                break
    return found


def _fall(equity: Sequence[Fraction], window: int) -> Fraction:
    """The fall of the last equity from the highest of its window."""
    inside = equity[-(window + 1) :]
    highest = max(inside)
    return (highest - equity[-1]) / highest if highest > 0 else Fraction(0)


def _fires(equity: Sequence[Fraction], stage: V6Stage) -> bool:
    falls = {
        window: _fall(equity, window) if len(equity[-(window + 1) :]) >= max(2, int(0.8 * window)) else Fraction(0)
        for window in stage.thresholds
    }
    broken = [window for window, fall in falls.items() if fall >= stage.thresholds[window]]
    if not broken:
        return False
    worst = max(broken, key=lambda window: falls[window] / stage.thresholds[window])
    if len(equity) < stage.confirm:
        return False
    polls = [equity[: len(equity) - ago] for ago in range(stage.confirm)]
    return all(_fall(each, worst) >= stage.thresholds[worst] for each in polls)


def _may(stage: V6Stage, minute: int, before: Sequence[StageFiring], stages: Sequence[V6Stage]) -> bool:
    if not before or stage.level > before[-1].level:
        return True
    cooldown = {each.level: each.cooldown for each in stages}[before[-1].level]
    return stage.level == before[-1].level and minute >= before[-1].minute + cooldown
