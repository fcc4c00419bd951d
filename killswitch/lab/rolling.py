"""The highest value in a trailing window of time, over many instants at once."""

from __future__ import annotations

from collections import deque

import numpy as np

from killswitch.lab.panel import Floats, Instants


def even_step(at: Instants) -> int | None:
    """The distance of any two neighbours, if it is the same everywhere."""
    steps = np.diff(at)
    if len(steps) == 0:
        return None
    step = int(steps[0])
    return step if bool((steps == step).all()) else None


def highest_in(at: Instants, value: Floats, window: int, step: int | None) -> Floats:
    """For each instant the highest `value` of [at − window, at], both ends included (microseconds).

    The instants rise; `step` is what `even_step` says of them. Comparing is exact: every answer is one of the values.
    """
    if step is None:
        return _unevenly(at.tolist(), value.tolist(), window)
    return _evenly(value, window // step + 1)


def _evenly(value: Floats, width: int) -> Floats:
    """The highest of the last `width` values, by doubling: the maximum of two windows that meet or overlap."""
    highest, span = value.copy(), 1
    width = min(width, len(value))
    while span < width:
        shift = min(span, width - span)
        highest[shift:] = np.maximum(highest[shift:], highest[:-shift])
        span += shift
    return highest


def _unevenly(at: list[int], value: list[float], window: int) -> Floats:
    maxima: deque[tuple[int, float]] = deque()
    found = []
    for instant, level in zip(at, value, strict=True):
        while maxima and maxima[-1][1] <= level:
            maxima.pop()
        maxima.append((instant, level))
        while maxima[0][0] < instant - window:
            maxima.popleft()
        found.append(maxima[0][1])
    return np.asarray(found)
