"""The naive truth of one scope: its unit value at every instant, from profit and loss alone.

A fund's arithmetic, as a head of risk would do it on paper: the book's profit or loss moves the value of a unit;
deposits, withdrawals and transfers issue or redeem units at the value just before them and move nothing. The world
reports each event with its nature, so there is nothing to classify."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from math import inf
from typing import Literal

EMPTY = 0.001
"""A scope of which less than this part is left by what leaves it is empty: what is left is dust."""


class Truth:
    """Unit value over time, from 1 at the start, and the fall from its peak or from its start.

    Worlds are shorter than any window that they are judged by, so this peak is the window's. While a scope is empty,
    its unit value is what it was when the last money left: dust gains and loses nothing, and what comes back buys
    units at that value. Whoever falls to zero or below by a loss is not empty: nothing of a unit is left."""

    def __init__(self, scope: str, measure: Literal["peak", "start"] = "peak") -> None:
        self.scope, self.measure = scope, measure
        self.times: list[float] = []
        self.values: list[float] = []
        self.falls: list[float] = []
        self._equity: float | None = None
        self._value = 1.0
        self._start = 1.0
        self._peak = 1.0
        self._dust: float | None = None
        """Where the scope is empty: up to which equity it is."""

    def earn(self, t: float, equity: float) -> None:
        """Any change since the last call was profit or loss."""
        if self._equity is not None and self._dust is None:
            self._value = self._value * equity / self._equity if self._equity > 0 and equity > 0 else 0.0
        self._equity = equity
        self._note(t)

    def issue(self, t: float, equity: float) -> None:
        """Any change since the last call was a flow."""
        if self._dust is not None:
            self._dust = self._dust if equity <= self._dust else None
        elif self._equity is not None and 0 <= equity <= EMPTY * self._equity:
            self._dust = EMPTY * self._equity
        self._equity = equity
        self._note(t)

    def reset(self, t: float) -> None:
        """An operator accepts the loss: start and peak are the present value."""
        self._start = self._peak = self._value
        self._note(t)

    def _note(self, t: float) -> None:
        self._peak = max(self._peak, self._value)
        base = self._start if self.measure == "start" else self._peak
        self.times.append(t)
        self.values.append(self._value)
        self.falls.append(1.0 - self._value / base if base > 0 else 1.0)

    def value(self, t: float) -> float:
        """The unit value at `t`."""
        return self.values[max(bisect_right(self.times, t) - 1, 0)]

    def fall(self, t: float) -> float:
        """The fall at `t`, as a fraction."""
        return self.falls[max(bisect_right(self.times, t) - 1, 0)]

    def worst(self, until: float, since: float = 0.0) -> float:
        """The deepest fall from `since` up to and with `until`."""
        return max(self.falls[bisect_left(self.times, since) : bisect_right(self.times, until)], default=0.0)

    def crossed(
        self, threshold: float, holding: float = 0.0, *, since: float = 0.0, before: float = inf
    ) -> float | None:
        """When the fall first reached `threshold` and did not leave it for `holding` seconds; None if never.

        Only instants from `since` on and before `before` count."""
        began: float | None = None
        for t, fall in zip(self.times, self.falls, strict=True):
            if not since <= t < before:
                continue
            if fall < threshold:
                began = None
            elif began is None:
                began = t
            if began is not None and t - began >= holding:
                return began
        return None
