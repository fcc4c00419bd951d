"""The request budget for woken polls, which a push triggers: they never displace scheduled polls.

Nor do they displace refreshes of dead-man timers, or use the share that is reserved for closing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial

from msgspec import Struct, field

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.poll.timer_budget import TimerBudget, sharers
from killswitch.model.venue import RateLimit, VenueTraits
from killswitch.ratelimit.shared_limits import units_by_call


class LimitRoom(Struct):
    """Units that a limit leaves for woken polls in any `per` seconds; `used`: units of woken polls, by time."""

    room: int
    per: float
    used: deque[tuple[float, int]] = field(default_factory=deque)
    reserved: Callable[[], int] = int
    """The units that refreshes of dead-man timers need now."""

    def left(self, now: float) -> int:
        """Units for woken polls that begin now."""
        while self.used and self.used[0][0] <= now - self.per:
            self.used.popleft()
        return self.room - self.reserved() - sum(units for _, units in self.used)


class PollBudget:
    """The request budget of one account for woken polls."""

    def __init__(self, rooms: tuple[tuple[LimitRoom, int], ...] = ()) -> None:
        """`rooms`: each limit's room, with the units that one poll takes of it."""
        self._rooms = rooms

    def admits(self, now: float) -> bool:
        """Whether one more woken poll leaves enough room for the scheduled polls. `now` in monotonic seconds."""
        return all(room.left(now) >= units for room, units in self._rooms)

    def record(self, now: float) -> None:
        """Count a woken poll that begins now."""
        for room, units in self._rooms:
            room.used.append((now, units))


def poll_budgets(
    accounts: Mapping[str, ArmedAccount], interval: float, timer_budget: TimerBudget | None = None
) -> dict[str, PollBudget]:
    """The budget of each account; accounts share a limit that a venue counts per address.

    `interval`: seconds between polls. `timer_budget`: the requests of the run's dead-man timers; None without timers.
    """
    costs = {name: _costs(account.adapter.traits) for name, account in accounts.items()}
    shared: dict[tuple[str, str], LimitRoom] = {}
    budgets = {}
    for name, account in accounts.items():
        rooms = []
        for limit, units in costs[name]:
            fellows = sharers(accounts, name, limit)
            key = (account.venue, limit.name) if limit.by == "address" else (name, limit.name)
            polls = math.ceil(limit.per / interval) + 1  # one more: a poll is held until its answer, and beyond
            polled = polls * sum(cost for each in fellows for one, cost in costs[each] if one.name == limit.name)
            for_closing = max(int(limit.allowed * accounts[each].closing_share) for each in fellows)
            limit_room = shared.setdefault(key, LimitRoom(limit.allowed - for_closing - polled, limit.per))
            if timer_budget is not None:
                limit_room.reserved = partial(timer_budget.reserved, fellows, limit)
            limit_room.room = min(limit_room.room, limit.allowed - for_closing - polled)
            rooms.append((limit_room, units))
        budgets[name] = PollBudget(tuple(rooms))
    return budgets


def _costs(traits: VenueTraits) -> list[tuple[RateLimit, int]]:
    """The limits that a poll counts against, with its units."""
    costs = units_by_call(traits)
    return [(limit, units) for limit in traits.limits if (units := costs.get(("snapshot", limit.name), (0, 0))[0])]
