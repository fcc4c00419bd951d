"""The age of each account's last observation, over restarts too."""

from __future__ import annotations

import math

from msgspec import Struct, field

from killswitch.model.instant import SECOND, to_micros
from killswitch.valuation.scope_view import ScopeView

_ANY_AGE = (-math.inf, math.inf)


class LastObserved(Struct):
    """The last observation of each account. Times in microseconds.

    `at`: account → time of its last observation. `awaited`: account → since when it is watched without an observation.
    """

    at: dict[str, int] = field(default_factory=dict)
    awaited: dict[str, int] = field(default_factory=dict)

    def observe(self, view: ScopeView) -> None:
        """Record one snapshot of the scope. An account without `observed_at` that is not `ok` was not observed."""
        for account in view.accounts:
            if account.observed_at is not None:
                self.at[account.account] = to_micros(account.observed_at)
                self.awaited.pop(account.account, None)
            elif account.account not in self.at:
                self.awaited.setdefault(account.account, view.as_of)

    def age(self, view: ScopeView) -> tuple[float, float]:
        """The age of the scope's oldest observation in seconds, as an interval.

        The age of an account that was never observed is at least the time since it is watched, without an upper bound.
        Unknown if an available account does not report when it was observed.
        """
        if not view.accounts:
            return _ANY_AGE
        lowest = highest = 0.0
        for account in view.accounts:
            name = account.account
            if account.observed_at is None and account.quality == "ok":
                return _ANY_AGE
            seen = self.at.get(name)
            if seen is None and name not in self.awaited:
                return _ANY_AGE
            age = (view.as_of - (self.awaited[name] if seen is None else seen)) / SECOND
            lowest = max(lowest, age)
            highest = math.inf if seen is None else max(highest, age)
        return lowest, highest
