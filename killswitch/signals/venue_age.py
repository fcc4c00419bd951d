"""`venue.age`: how long ago each account of a scope was observed last, which goes on growing while none answers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from killswitch.model.instant import SECOND, to_micros
from killswitch.signals.view import ScopeView

_ANY_AGE = (-math.inf, math.inf)


@dataclass(slots=True)
class LastObserved:
    """The last observation of each account. Times in microseconds.

    `at`: account → when it was observed last. `awaited`: account → since when it is watched and was never observed.
    """

    at: dict[str, int] = field(default_factory=dict)
    awaited: dict[str, int] = field(default_factory=dict)

    def observe(self, view: ScopeView) -> None:
        """Take one snapshot of the scope. An account without `observed_at` that is not `ok` was not observed."""
        for account in view.accounts:
            if account.observed_at is not None:
                self.at[account.account] = to_micros(account.observed_at)
                self.awaited.pop(account.account, None)
            elif account.account not in self.at:
                self.awaited.setdefault(account.account, view.as_of)

    def age(self, view: ScopeView) -> tuple[float, float]:
        """Seconds since the scope's oldest account was observed.

        An account that was never observed is at least as old as the watch on it: a bound below, and none above. Unknown
        where an account that can be read does not say when it was observed.
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
