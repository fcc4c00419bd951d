"""The request budget for polls that a push calls for: they never displace scheduled polls.

Nor do they displace refreshes of dead-man timers, or use the share that is reserved for closing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.poll.timer_budget import TimerBudget, sharers
from killswitch.model.venue import RateLimit, VenueTraits, traits_of
from killswitch.ratelimit.shared_limits import units_by_call


@dataclass(slots=True)
class LimitRoom:
    """What one limit leaves in any `per` seconds, in its units; `taken` are those of woken readings, by time."""

    room: int
    per: float
    used: deque[tuple[float, int]] = field(default_factory=deque)
    reserved: Callable[[], int] = int
    """What of the room the venue's timers need now."""

    def left(self, now: float) -> int:
        """Units for woken readings that begin now."""
        while self.used and self.used[0][0] <= now - self.per:
            self.used.popleft()
        return self.room - self.reserved() - sum(units for _, units in self.used)


class PollBudget:
    """What one account may spend on readings that are no polls."""

    def __init__(self, lanes: tuple[tuple[LimitRoom, int], ...] = ()) -> None:
        """`lanes`: each with the units that one reading takes of it."""
        self._lanes = lanes

    def admits(self, now: float) -> bool:
        """Whether one more reading leaves the polls of the time to come their room. `now` in monotonic seconds."""
        return all(lane.left(now) >= units for lane, units in self._lanes)

    def record(self, now: float) -> None:
        """Count a reading that begins now."""
        for lane, units in self._lanes:
            lane.used.append((now, units))


def poll_budgets(
    accounts: Mapping[str, ArmedAccount], interval: float, refreshing: TimerBudget | None = None
) -> dict[str, PollBudget]:
    """For each account; what a venue counts for an address, its accounts share. `interval`: seconds between polls.

    `refreshing`: the timers at the venues that the run keeps, None for none.
    """
    costs = {name: _costs(traits_of(account.adapter)) for name, account in accounts.items()}
    shared: dict[tuple[str, str], LimitRoom] = {}
    found = {}
    for name, account in accounts.items():
        lanes = []
        for limit, units in costs[name]:
            fellows = sharers(accounts, name, limit)
            key = (account.venue, limit.name) if limit.by == "address" else (name, limit.name)
            polls = math.ceil(limit.per / interval) + 1  # one more: a poll is held until its answer, and beyond
            polled = polls * sum(cost for each in fellows for one, cost in costs[each] if one.name == limit.name)
            kept = max(int(limit.allowed * accounts[each].closing_share) for each in fellows)
            lane = shared.setdefault(key, LimitRoom(limit.allowed - kept - polled, limit.per))
            if refreshing is not None:
                lane.reserved = partial(refreshing.reserved, fellows, limit)
            lane.room = min(lane.room, limit.allowed - kept - polled)
            lanes.append((lane, units))
        found[name] = PollBudget(tuple(lanes))
    return found


def _costs(traits: VenueTraits) -> list[tuple[RateLimit, int]]:
    """The limits that a reading takes of, with how much."""
    costs = units_by_call(traits)
    return [(limit, units) for limit in traits.limits if (units := costs.get(("snapshot", limit.name), (0, 0))[0])]
