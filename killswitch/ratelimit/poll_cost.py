"""What polls use of the venues' limits at an interval, and the shortest interval that closing allows. Pure.

A dead-man timer at the venue is refreshed from the same share, so that it leaves polls less.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

from msgspec import Struct

from killswitch.model.venue import DeadManRule, RateLimit, VenueTraits
from killswitch.ratelimit.shared_limits import units_by_call


class TimerRefresh(Struct, frozen=True):
    """A dead-man timer that is refreshed every `every` seconds; `symbols`: for how many, if it is per symbol."""

    timer: DeadManRule
    every: float
    symbols: int = 1


class PolledAccount(Struct, frozen=True):
    """An account that is polled. `share`: the part of every limit that polls leave free. `refresh`: of its timer."""

    account: str
    venue: str
    traits: VenueTraits
    share: Decimal
    refresh: TimerRefresh | None = None


class PollCost(Struct, frozen=True):
    """What polls use of one limit, in units in `per` seconds, for all the accounts that share it.

    `takes`: at the interval; `allowed`: by the venue; `for_reading`: of that, what closing does not reserve. `least`:
    the shortest interval in seconds at which every poll fits. `accounts`: number of accounts that share the limit.
    `refreshes`: the part of `takes` that refreshes dead-man timers.
    """

    limit: str
    by: Literal["account", "symbol", "address"]
    per: float
    allowed: int
    for_reading: int
    a_reading: int
    takes: float
    least: float
    accounts: int
    refreshes: float = 0.0

    @property
    def too_fast(self) -> bool:
        """Whether polls at the interval, with timer refreshes, do not all fit."""
        alone = 0 if self.refreshes else self.a_reading
        return self.takes > self.for_reading * (1 + 1e-9) and self.takes > alone


def poll_costs(polled: Sequence[PolledAccount], interval: float) -> dict[str, tuple[PollCost, ...]]:
    """By account, what polls use of each limit that they, or the account's timer, count against.

    `interval` in seconds, above 0. ValueError if traits contradict themselves.
    """
    costs = {account.account: units_by_call(account.traits) for account in polled}
    found = {}
    for account in polled:
        rows = []
        for limit in account.traits.limits:
            sharers = [each for each in polled if each.venue == account.venue] if limit.by == "address" else [account]
            snapshot_units = [costs[each.account].get(("snapshot", limit.name), (0, 0))[0] for each in sharers]
            own = costs[account.account].get(("snapshot", limit.name), (0, 0))[0]
            if not own and not _refreshes(account, limit):
                continue
            shared = [units for units in snapshot_units if units]
            for_reading = limit.allowed - int(limit.allowed * account.share)
            refreshes = sum((_refreshes(each, limit) for each in sharers), 0.0)
            rows.append(
                PollCost(
                    limit=limit.name,
                    by=limit.by,
                    per=limit.per,
                    allowed=limit.allowed,
                    for_reading=for_reading,
                    a_reading=own,
                    takes=sum(shared) * limit.per / interval + refreshes,
                    least=_shortest_interval(shared, int(for_reading - refreshes), limit.per),
                    accounts=len(shared),
                    refreshes=refreshes,
                )
            )
        found[account.account] = tuple(rows)
    return found


def refresh_units(traits: VenueTraits, timer: DeadManRule, limit: str, symbols: int) -> int:
    """Units of the limit that a timer refresh costs: once, or once for each symbol."""
    units, each = units_by_call(traits).get(("dead_man", limit), (0, 0))
    return (units + each) * symbols if timer.reach == "symbol" else units


def _refreshes(account: PolledAccount, limit: RateLimit) -> float:
    """Units in `per` seconds. Polls do not draw on limits for each symbol."""
    refresh = account.refresh
    if refresh is None or limit.by == "symbol":
        return 0.0
    return refresh_units(account.traits, refresh.timer, limit.name, refresh.symbols) * limit.per / refresh.every


def _shortest_interval(shared: Sequence[int], for_reading: int, per: float) -> float:
    """Seconds. One account's polls fit a whole number of times into `per`; one that never fits is sent alone."""
    if not shared:
        return 0.0
    if len(shared) == 1:
        return per / max(1, for_reading // shared[0])
    return max(sum(shared) * per / max(for_reading, 1), *(per / max(1, for_reading // each) for each in shared))
