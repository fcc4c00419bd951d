"""The share of request limits that refreshes of dead-man timers use besides polls, and the fastest refresh."""

from __future__ import annotations

import math
from collections.abc import Mapping

from killswitch.accounts.arming import ArmedAccount
from killswitch.graph.nodes import TimerRule
from killswitch.model.instant import SECOND
from killswitch.model.venue import RateLimit
from killswitch.ratelimit.poll_cost import refresh_units
from killswitch.ratelimit.shared_limits import units_by_call

SLACK = 1.25
"""The factor by which a round of refreshes takes longer than the limits require: requests wait for their turns."""


def sharers(accounts: Mapping[str, ArmedAccount], name: str, limit: RateLimit) -> tuple[str, ...]:
    """The accounts whose requests count against the same limit as the named one's, itself included."""
    if limit.by != "address":
        return (name,)
    return tuple(other for other, account in accounts.items() if account.venue == accounts[name].venue)


class TimerBudget:
    """The request budget of one runner's dead-man timers."""

    def __init__(self, accounts: Mapping[str, ArmedAccount], interval: float, slowest: float) -> None:
        """`interval`: seconds between polls; `slowest`: most seconds between two ticks."""
        self._accounts = accounts
        self._rules: dict[str, TimerRule] = {}
        self._interval = interval
        self.slowest = slowest
        self.symbols: dict[str, int] = {}
        """The number of symbols for which each timer runs; 1 where it is for the whole account."""

    def add(self, name: str, rule: TimerRule) -> None:
        """Add the timer of an account."""
        self._rules[name] = rule
        self.symbols[name] = 1

    def reserved(self, names: tuple[str, ...], limit: RateLimit) -> int:
        """Units that refreshes of the named accounts may take in any `per` seconds of the limit."""
        return sum(
            (math.ceil(limit.per / self.refresh_interval(name)) + 1) * self._units(name, limit)
            for name in names
            if name in self._rules
        )

    def refresh_interval(self, name: str) -> float:
        """Seconds between two refreshes: as in the rule, or longer where polls leave less of the limits."""
        refresh = self._rules[name].refresh / SECOND
        return max(refresh, min(self.shortest_interval(name), self._rules[name].timeout / SECOND))

    def shortest_interval(self, name: str) -> float:
        """The shortest time in seconds in which every symbol can be refreshed once; infinite if polls leave nothing."""
        account = self._accounts[name]
        longest = 0.0
        for limit in account.adapter.traits.limits:
            units = self._units(name, limit)
            if not units:
                continue
            left = limit.allowed - int(limit.allowed * account.closing_share) - self._elsewhere(name, limit)
            longest = max(longest, SLACK * units * limit.per / left if left > 0 else math.inf)
        return longest

    def fits(self, name: str) -> bool:
        """Whether the timer can be refreshed before it fires, however late a tick is."""
        latest = max(self.refresh_interval(name), self.shortest_interval(name)) + self.slowest
        return latest < self._rules[name].timeout / SECOND

    def _elsewhere(self, name: str, limit: RateLimit) -> float:
        """Units in `per` seconds that polls, and the timers of other accounts behind the same limit, take."""
        units = 0.0
        for other in sharers(self._accounts, name, limit):
            traits = self._accounts[other].adapter.traits
            units += units_by_call(traits).get(("snapshot", limit.name), (0, 0))[0] * limit.per / self._interval
            if other != name and other in self._rules:
                units += self._units(other, limit) * limit.per * SECOND / self._rules[other].refresh
        return units

    def _units(self, name: str, limit: RateLimit) -> int:
        """Units of one refresh; 0 for a limit per symbol, which polls do not count against."""
        adapter = self._accounts[name].adapter
        if limit.by == "symbol" or adapter.dead_man is None:
            return 0
        return refresh_units(adapter.traits, adapter.dead_man.rule, limit.name, self.symbols[name])
