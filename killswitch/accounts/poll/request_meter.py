"""Counts the requests of an account against its venue's limits, and admits polls in turn."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

from killswitch.accounts.arming import ArmedAccount
from killswitch.model.clock import Clock
from killswitch.model.venue import Call, VenueAdapter
from killswitch.planning.hedge.uncloseable import OUT_OF_BUDGET
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.budget import RequestBudget, RequestBudgets, Reservation

_TurnPurpose = Literal["turn", "poll"]
TURNS_KEPT = 3
"""Ticks, each with its whole timeout, for which a poll that found no room keeps its turn."""
RECHECK_AFTER = 0.1
"""Real seconds after which a poll that waits for room checks again whether there is any."""


class NoPollRoomError(Exception):
    """The request limits leave no room for a poll in time; the message has the cause, without numbers."""


class RequestMeter:
    """One account's part of its venue's limits, and the breaker of that venue.

    `monotonic`: the clock on which the account's executor counts requests, too. `interval`: seconds between two polls.
    `timer_turns`: the same limits, with a turn of their own for dead-man timers.
    """

    def __init__(
        self,
        budget: RequestBudget | None = None,
        breaker: Breaker | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        interval: float = 1.0,
        timer_turns: RequestBudget | None = None,
    ) -> None:
        self.budget = budget or RequestBudget.unlimited()
        self.breaker = breaker or Breaker()
        self.monotonic = monotonic
        self.interval = interval
        self.timer_turns = timer_turns or RequestBudget.unlimited()

    async def admit(self, within: float, *, poll: bool = True) -> Reservation:
        """Reserve the units of a poll. NoPollRoomError if the limits leave no room `within` so many real seconds.

        Its turn is kept for the next polls: after an interval without room, orders leave it its units.
        `poll`: whether it is a scheduled one, which keeps a pace where a limit covers a long time.
        """
        return await self._in_turn(self.budget, "snapshot", (), within, "poll" if poll else "turn")

    async def admit_timer(self, symbols: Sequence[str], within: float, *, last: bool = False) -> Reservation:
        """Reserve the units of a request to the venue's dead-man timer, which has its own turn among the polls.

        `last`: no request follows it, so that it may use what is reserved for closing.
        """
        if not last:
            return await self._in_turn(self.timer_turns, "dead_man", symbols, within, "turn")
        now = self.monotonic()
        if (wait := self.budget.wait(now, "dead_man", symbols)) > 0.0:
            await asyncio.sleep(min(wait, within))
            now = self.monotonic()
            if (wait := self.budget.wait(now, "dead_man", symbols)) > 0.0:
                raise NoPollRoomError(self._why(now, wait))
        return self.budget.reserve(now, "dead_man", symbols)

    async def _in_turn(
        self, budget: RequestBudget, call: Call, symbols: Sequence[str], within: float, purpose: _TurnPurpose
    ) -> Reservation:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        while True:
            now = self.monotonic()
            wait = budget.wait(now, call, symbols, purpose)
            if wait <= 0.0:
                return budget.reserve(now, call, symbols, purpose)
            lasts = TURNS_KEPT * (self.interval + within)
            budget.claim(now, call, symbols, purpose, overdue=now + self.interval, until=now + lasts)
            if loop.time() + wait >= deadline:
                raise NoPollRoomError(self._why(now, wait))
            await asyncio.sleep(min(wait, RECHECK_AFTER))  # whose turn it is may change meanwhile

    @property
    def has_room(self) -> bool:
        """Whether a poll may be sent at once, without a turn."""
        return self.budget.wait(self.monotonic(), "snapshot", purpose="reading") <= 0.0

    def record_refusal(self, retry_after: float | None) -> None:
        """Record a rate-limit refusal, for `retry_after` seconds or an unknown time."""
        self.budget.refused(self.monotonic(), retry_after)

    def record_answer(self) -> None:
        """Record an answered poll, which closes the circuit breaker.

        An unanswered poll does not trip the breaker: a venue that returns no positions may accept orders.
        """
        self.breaker.succeeded(self.monotonic())

    def finish(self, reservation: Reservation, adapter: VenueAdapter) -> None:
        """Record the end of a poll: its units are released in time, and the venue's own count is applied."""
        now = self.monotonic()
        self.budget.answered(now, reservation)
        self.budget.observe_venue(now, adapter)

    def _why(self, now: float, wait: float) -> str:
        if wait == math.inf:
            return "one request is more than the venue's request limit allows"
        if self.budget.paused_until > now:
            return "the venue has asked for a pause"
        return OUT_OF_BUDGET


def request_meters(
    accounts: Mapping[str, ArmedAccount], clock: Clock, interval: float = 1.0
) -> dict[str, RequestMeter]:
    """A meter for each account; accounts at one venue share its breaker, and its limits per address.

    `interval`: seconds between two polls. ValueError if an adapter declares inconsistent request limits.
    """
    budgets, breakers = RequestBudgets(interval), dict[str, Breaker]()

    def meter(name: str, account: ArmedAccount) -> RequestMeter:
        budget = partial(budgets.of, name, account.venue, account.adapter.traits, account.closing_share)
        breaker = breakers.setdefault(account.venue, Breaker())
        return RequestMeter(budget(), breaker, clock.monotonic, interval, timer_turns=budget())

    return {name: meter(name, account) for name, account in accounts.items()}
