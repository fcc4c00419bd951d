"""Polls the accounts of a run: all of them at every tick, and between two ticks those with a push from their venue.

A burst of pushes becomes one poll: between two polls of an account, and between a tick and the next woken one, there is
at least `LEAST_DISTANCE`. A push so shortly before a scheduled tick is left to that tick. A poll for which the venue's
limits leave no room waits for room, at most until that tick, which also collects a woken poll that has not ended.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.poll.outages import Outages, unreported_seconds
from killswitch.accounts.poll.poll_budget import poll_budgets
from killswitch.accounts.poll.poller import FIRST_ANSWER_TIMEOUT, Polls
from killswitch.accounts.poll.push_listener import PushListener
from killswitch.accounts.poll.request_meter import RequestMeter
from killswitch.accounts.poll.timer_budget import TimerBudget
from killswitch.model.clock import Clock
from killswitch.model.snapshot import AccountSnapshot, Snapshot
from killswitch.model.tracing import Span
from killswitch.model.venue import Prices

LEAST_DISTANCE = 0.2
"""Seconds of the clock between two polls of an account, and between two ticks."""
LONGEST_AGE = 2.0
"""Seconds of the clock: an older snapshot is polled again for a called tick."""


class AccountPoller:
    """The polls, private streams and outages of one run's accounts."""

    def __init__(
        self,
        accounts: Mapping[str, ArmedAccount],
        meters: Mapping[str, RequestMeter],
        clock: Clock,
        interval: float,
        read_timeout: float,
        timer_budget: TimerBudget | None = None,
    ) -> None:
        """`interval` and `read_timeout` in seconds. `timer_budget`: that of the run's dead-man timers, if any."""
        self.accounts = accounts
        self._freshness, self._read_timeout = interval + read_timeout, read_timeout
        self._polls = Polls(accounts, read_timeout, meters, FIRST_ANSWER_TIMEOUT)
        armed = (name for name, account in accounts.items() if account.armed)
        self.outages = Outages(armed, self._polls, clock, unreported_seconds(interval, read_timeout))
        self.streams = PushListener(accounts, clock)
        self._meters = meters
        self._push_budgets = poll_budgets(accounts, interval, timer_budget)
        self._clock = clock
        self._woken: dict[str, asyncio.Task[AccountSnapshot]] = {}
        self._not_before: dict[str, float] = {}
        self._next_tick = -math.inf

    async def poll(self, span: Span) -> tuple[AccountSnapshot, ...]:
        """One snapshot per account, in the accounts' order, after at most the read timeout.

        It includes polls that are under way, and answers the pushes received before it.
        """
        for name in tuple(self.streams.pushed):
            if not self._polls[name].is_polling:
                del self.streams.pushed[name]
        self._woken.clear()
        self._not_before = dict.fromkeys(self._push_budgets, self._clock.monotonic() + LEAST_DISTANCE)
        return await self._polls.gather(span)

    @property
    def may_be_called(self) -> bool:
        """Whether a called tick may begin: no account would be shown as it was longer than `LONGEST_AGE` ago.

        An operator's close must not be decided on positions that are as old as the interval. A venue that owes an
        answer holds nothing up: its account is shown as down.
        """
        now = self._clock.monotonic()
        return all(
            poll.is_polling or self._has_room(name, now) or now - poll.dated <= LONGEST_AGE
            for name, poll in ((name, self._polls[name]) for name in self.accounts)
        )

    async def poll_called(self) -> tuple[tuple[AccountSnapshot, ...], Collection[str]]:
        """All accounts, polled now where the venue's limits have room and it is not late; and the names polled.

        The others are shown as polled last, and so are those whose venue does not answer within the read timeout.
        """
        now = self._clock.monotonic()
        for name in self.accounts:
            if not self._polls[name].is_polling and self._has_room(name, now):
                self._begin(name, now)
        waited = [read for name, read in self._woken.items() if not self._polls[name].is_late]
        if waited:
            await asyncio.wait(waited, timeout=self._read_timeout)
        return self.woken()

    def ticked(self) -> None:
        """Record the end of a tick, scheduled or woken."""
        self._next_tick = self._clock.monotonic() + LEAST_DISTANCE

    def begin_woken(self, due: float) -> None:
        """Begin the polls that pushes call for and limits allow. `due`: when the next scheduled tick begins."""
        self.streams.bell.clear()
        now = self._clock.monotonic()
        for name in tuple(self.streams.pushed):
            if due - now < LEAST_DISTANCE:
                return
            if name in self._woken or now < self._not_before.get(name, -math.inf):
                continue
            if self._polls[name].is_polling:
                del self.streams.pushed[name]  # the next poll answers it
                continue
            if not self._has_room(name, now):
                self._not_before[name] = now + LEAST_DISTANCE  # most limits have room again long before the next poll
                continue
            self._begin(name, now)

    def _has_room(self, name: str, now: float) -> bool:
        """Whether the limits leave room for a poll now and for the scheduled ones after it."""
        return self._meters[name].has_room and self._push_budgets[name].admits(now)

    def _begin(self, name: str, now: float) -> None:
        """Begin a poll between two ticks, which answers the pushes received before it."""
        self.streams.pushed.pop(name, None)
        self._push_budgets[name].record(now)
        self._not_before[name] = now + LEAST_DISTANCE
        self._woken[name] = self._polls[name].begin()

    @property
    def awaited(self) -> frozenset[str]:
        """The accounts whose venue has not answered yet and is not overdue."""
        return self._polls.awaited

    @property
    def is_ready(self) -> bool:
        """Whether a woken tick may begin."""
        answered = any(read.done() for read in self._woken.values())
        return answered and self._clock.monotonic() >= self._next_tick

    def wait(self, due: float) -> float:
        """Seconds of the clock until there is something to do that no future signals; infinite if there is nothing."""
        now = self._clock.monotonic()
        times = []
        if any(read.done() for read in self._woken.values()):
            times.append(self._next_tick)
        if due - now >= LEAST_DISTANCE:
            times += [self._not_before.get(name, now) for name in self.streams.pushed if name not in self._woken]
        return max(min(times, default=math.inf) - now, 0.0)

    def futures(self) -> set[asyncio.Future[Any]]:
        """The woken polls that are under way."""
        return {read for read in self._woken.values() if not read.done()}

    def woken(self) -> tuple[tuple[AccountSnapshot, ...], Collection[str]]:
        """All accounts, those that a push called for as just polled, the others as polled last; and the names polled.

        A poll may take its whole timeout, so no snapshot of the last poll is too old before the next one is over.
        """
        answered = [name for name, read in self._woken.items() if read.done()]
        for name in answered:
            del self._woken[name]
        read = {name: self._polls[name].collect() for name in answered}
        return self._polls.complete(read, self._freshness), read.keys()

    async def reread(
        self, snapshot: Snapshot, names: Collection[str], within: float, span: Span
    ) -> tuple[Mapping[str, Mapping[str, Prices]], Mapping[str, AccountSnapshot]]:
        """Poll the named accounts again, for at most `within` seconds; prices only if the adapter can read them alone.

        Returns, by account, the prices, and the snapshots of the accounts without prices.
        """
        priced = self._polls.priced(snapshot, names)
        prices = await self._polls.prices(priced, within, span) if priced else {}
        others = tuple(name for name in names if name not in priced)
        return prices, await self._polls.gather_again(others, within, span) if others else {}

    def observe(self, fresh: Iterable[AccountSnapshot], as_of: datetime) -> None:
        """Track outages; an account that can be polled again has its stream reopened at once."""
        for name in self.outages.update(fresh, as_of):
            self.streams.reopen(name)

    def dated(self, name: str) -> float:
        """Time of the account's last snapshot, in seconds of its monotonic clock."""
        return self._polls[name].dated

    async def close(self) -> None:
        """Cancel polls in flight, and close the connections."""
        await self._polls.abandon()
        # An adapter that fails to close its connections does not matter any more.
        await asyncio.gather(*(account.adapter.close() for account in self.accounts.values()), return_exceptions=True)
