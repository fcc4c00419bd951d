"""Counts the requests of an account against its venue's limits, and admits polls in turn."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from killswitch.accounts.arming import ArmedAccount
from killswitch.model.clock import Clock
from killswitch.model.venue import Call, traits_of
from killswitch.planning.hedge.uncloseable import OUT_OF_BUDGET
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.budget import RequestBudget, RequestBudgets, Ticket

_TurnPurpose = Literal["turn", "poll"]
TURNS_KEPT = 3
"""For so many ticks that were given all their patience a reading that found no room keeps its turn."""
LOOK_AGAIN = 0.1
"""Real seconds after which a reading that waits for room looks whether there is some."""


class NoPollRoomError(Exception):
    """The request limits leave no room for a poll in time; the message says why, without numbers."""


@dataclass(frozen=True, slots=True)
class RequestMeter:
    """One account's part of its venue's limits, and the breaker of that venue.

    `monotonic`: the seconds of the clock that the account's closer counts on, too. `interval`: seconds between two
    readings. `line`: the same limits, for what waits its turn beside the readings.
    """

    budget: RequestBudget = field(default_factory=RequestBudget.unlimited)
    breaker: Breaker = field(default_factory=Breaker)
    monotonic: Callable[[], float] = time.monotonic
    interval: float = 1.0
    line: RequestBudget = field(default_factory=RequestBudget.unlimited)

    async def admit(self, patience: float, *, poll: bool = True) -> Ticket:
        """Take a reading's units as soon as they are there. NoRoomError if that is after `patience` real seconds.

        Its turn is kept until the next ones ask: after an interval without room, orders leave it its units.
        `poll`: whether it is one of those that come at every interval, and keep a pace where a limit is for long.
        """
        return await self._in_turn(self.budget, "snapshot", (), patience, "poll" if poll else "turn")

    async def admit_timer(self, symbols: Sequence[str], patience: float, *, last: bool = False) -> Ticket:
        """The same for a word to the venue's dead-man timer, which has its own turn among the readings.

        `last`: none follows it, so that it may take what is kept for closing.
        """
        if not last:
            return await self._in_turn(self.line, "dead_man", symbols, patience, "turn")
        now = self.monotonic()
        if (wait := self.budget.wait(now, "dead_man", symbols)) > 0.0:
            await asyncio.sleep(min(wait, patience))
            now = self.monotonic()
            if (wait := self.budget.wait(now, "dead_man", symbols)) > 0.0:
                raise NoPollRoomError(self._why(now, wait))
        return self.budget.reserve(now, "dead_man", symbols)

    async def _in_turn(
        self, budget: RequestBudget, call: Call, symbols: Sequence[str], patience: float, purpose: _TurnPurpose
    ) -> Ticket:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while True:
            now = self.monotonic()
            wait = budget.wait(now, call, symbols, purpose)
            if wait <= 0.0:
                return budget.reserve(now, call, symbols, purpose)
            lasts = TURNS_KEPT * (self.interval + patience)
            budget.claim(now, call, symbols, purpose, overdue=now + self.interval, until=now + lasts)
            if loop.time() + wait >= deadline:
                raise NoPollRoomError(self._why(now, wait))
            await asyncio.sleep(min(wait, LOOK_AGAIN))  # whose turn it is may change meanwhile

    @property
    def has_room(self) -> bool:
        """Whether a poll may be sent at once, without a turn."""
        return self.budget.wait(self.monotonic(), "snapshot", purpose="reading") <= 0.0

    def record_refusal(self, retry_after: float | None) -> None:
        """Record a rate-limit refusal, for `retry_after` seconds or an unknown time."""
        self.budget.refused(self.monotonic(), retry_after)

    def record_answer(self) -> None:
        """Record an answered poll, which probes the circuit breaker without asking it.

        An unanswered poll does not trip the breaker: a venue that returns no positions may accept orders.
        """
        self.breaker.succeeded(self.monotonic())

    def finish(self, ticket: Ticket, adapter: object) -> None:
        """Record the end of a poll: its units are released in time, and the venue's own count is applied."""
        now = self.monotonic()
        self.budget.answered(now, ticket)
        self.budget.observe_venue(now, adapter)

    def _why(self, now: float, wait: float) -> str:
        if wait == math.inf:
            return "one request is more than the venue's request limit allows"
        if self.budget.quiet_until > now:
            return "the venue has asked for a pause"
        return OUT_OF_BUDGET


def request_meters(
    accounts: Mapping[str, ArmedAccount], clock: Clock, interval: float = 1.0
) -> dict[str, RequestMeter]:
    """A meter for each account; accounts at one venue share its breaker, and what it counts for an address.

    `interval`: seconds between two readings. ValueError if an adapter's word on its venue contradicts itself.
    """
    budgets, breakers = RequestBudgets(interval), dict[str, Breaker]()

    def budget(name: str) -> RequestBudget:
        account = accounts[name]
        return budgets.of(name, account.venue, traits_of(account.adapter), account.closing_share)

    return {
        name: RequestMeter(
            budget(name), breakers.setdefault(account.venue, Breaker()), clock.monotonic, interval, line=budget(name)
        )
        for name, account in accounts.items()
    }
