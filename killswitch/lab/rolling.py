"""The highest value in a trailing window of time, over many instants at once."""

from __future__ import annotations

from collections import deque

import numpy as np

from killswitch.lab.panel import Floats, Instants


def highest_in(at: Instants, value: Floats, window: int) -> Floats:
    """For each instant the highest `value` of [at − window, at], both ends included (microseconds).

    The instants rise. Comparing is exact, so that every answer is one of the values, bit for bit.
    """
    steps = np.diff(at)
    if len(steps) == 0:
        return value.copy()
    step = int(steps[0])
    if (steps == step).all():
        return _evenly(value, window // step + 1)
    return _unevenly(at.tolist(), value.tolist(), window)


def _evenly(value: Floats, width: int) -> Floats:
    """The highest of the last `width` values.

    Van Herk ("A fast algorithm for local minimum and maximum filters on rectangular and octagonal kernels", 1992):
    a window of `width` lies over at most two blocks of that length, so it is the end of one and the start of the next.
    """
    count = len(value)
    if width >= count:
        highest: Floats = np.maximum.accumulate(value)
        return highest
    blocks = -(-count // width) + 1
    padded = np.full(blocks * width, -np.inf)
    padded[width : width + count] = value  # one empty block before, for the first windows
    grid = padded[: blocks * width].reshape(blocks, width)
    starts = np.maximum.accumulate(grid, axis=1).ravel()
    ends = np.maximum.accumulate(grid[:, ::-1], axis=1)[:, ::-1].ravel()
    upto = np.arange(width, width + count)
    answer: Floats = np.maximum(ends[upto - width + 1], starts[upto])
    return answer


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
