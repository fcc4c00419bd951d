"""The naive truth of one scope: its unit value at every instant, from profit and loss alone.

A fund's arithmetic, as a head of risk would do it on paper: the book's profit or loss moves the value of a unit;
deposits, withdrawals and transfers issue or redeem units at the value just before them and move nothing. The world
reports each event with its nature, so there is nothing to classify."""

from __future__ import annotations

from bisect import bisect_right


class Truth:
    """Unit value over time, from 1 at the start, and the drawdown from its peak.

    Worlds are shorter than any window that they are judged by, so this peak is the window's."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        self.times: list[float] = []
        self.values: list[float] = []
        self.falls: list[float] = []
        self._equity: float | None = None
        self._value = 1.0
        self._peak = 1.0

    def earn(self, t: float, equity: float) -> None:
        """Any change since the last call was profit or loss."""
        if self._equity is not None:
            self._value = self._value * equity / self._equity if self._equity > 0 and equity > 0 else 0.0
        self._equity = equity
        self._note(t)

    def issue(self, t: float, equity: float) -> None:
        """Any change since the last call was a flow."""
        self._equity = equity
        self._note(t)

    def _note(self, t: float) -> None:
        self._peak = max(self._peak, self._value)
        self.times.append(t)
        self.values.append(self._value)
        self.falls.append(1.0 - self._value / self._peak)

    def value(self, t: float) -> float:
        """The unit value at `t`."""
        return self.values[max(bisect_right(self.times, t) - 1, 0)]

    def fall(self, t: float) -> float:
        """The drawdown at `t`, as a fraction."""
        return self.falls[max(bisect_right(self.times, t) - 1, 0)]

    def worst(self, until: float) -> float:
        """The deepest drawdown up to and with `until`."""
        return max(self.falls[: bisect_right(self.times, until)], default=0.0)

    def crossed(self, threshold: float, holding: float = 0.0) -> float | None:
        """When the drawdown first reached `threshold` and did not leave it for `holding` seconds; None if never."""
        since: float | None = None
        for t, fall in zip(self.times, self.falls, strict=True):
            if fall < threshold:
                since = None
            elif since is None:
                since = t
            if since is not None and t - since >= holding:
                return since
        return None
