"""Polls the accounts of a run: all of them at every tick, and between two ticks those whose venues push something.

Bursts of pushes become one read: between two reads of an account, and between a tick and the next woken one, there is
at least `LEAST_DISTANCE`. A push so shortly before a scheduled tick is left to that one. What the venue's limits leave
no room for waits until they do, at the longest for that tick, which also takes up a woken read that has not ended.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.poll.outages import Outages, patience
from killswitch.accounts.poll.poll_budget import poll_budgets
from killswitch.accounts.poll.poller import FIRST_PATIENCE, Polls
from killswitch.accounts.poll.push_listener import PushListener
from killswitch.accounts.poll.request_counters import RequestMeter
from killswitch.accounts.poll.timer_budget import TimerBudget
from killswitch.model.clock import Clock
from killswitch.model.decision import Notice
from killswitch.model.snapshot import AccountSnapshot, Snapshot
from killswitch.model.tracing import Span
from killswitch.model.venue import Prices

LEAST_DISTANCE = 0.2
"""Seconds of the clock."""


class AccountPoller:
    """The polls, private streams and outages of one run's accounts."""

    def __init__(
        self,
        accounts: Mapping[str, ArmedAccount],
        meters: Mapping[str, RequestMeter],
        clock: Clock,
        interval: float,
        read_timeout: float,
        refreshing: TimerBudget | None = None,
    ) -> None:
        """`interval` and `read_timeout` in seconds. `refreshing`: the dead-man timers that the run keeps, if any."""
        self._accounts = accounts
        self._freshness = interval + read_timeout
        self._readers = Polls(accounts, read_timeout, meters, FIRST_PATIENCE)
        armed = (name for name, account in accounts.items() if account.armed)
        self.outages = Outages(armed, self._readers, clock, patience(interval, read_timeout))
        self.streams = PushListener(accounts, clock)
        self._meters = meters
        self._spares = poll_budgets(accounts, interval, refreshing)
        self._clock = clock
        self._asked: dict[str, asyncio.Task[AccountSnapshot]] = {}
        self._not_before: dict[str, float] = {}
        self._next_tick = -math.inf

    async def poll(self, span: Span) -> tuple[AccountSnapshot, ...]:
        """One snapshot per account, in the accounts' order, after at most the read timeout.

        It takes up the reads under way, and answers what was pushed before it.
        """
        for name in tuple(self.streams.pushed):
            if not self._readers[name].is_polling:
                del self.streams.pushed[name]
        self._asked.clear()
        self._not_before = dict.fromkeys(self._spares, self._clock.monotonic() + LEAST_DISTANCE)
        return await self._readers.gather(span)

    def ticked(self) -> None:
        """A tick has ended, woken or not."""
        self._next_tick = self._clock.monotonic() + LEAST_DISTANCE

    def begin_woken(self, due: float) -> None:
        """Begin the polls that pushes call for and limits allow. `due`: when the next scheduled tick begins."""
        self.streams.bell.clear()
        now = self._clock.monotonic()
        for name in tuple(self.streams.pushed):
            if due - now < LEAST_DISTANCE:
                return
            if name in self._asked or now < self._not_before.get(name, -math.inf):
                continue
            if self._readers[name].is_polling:
                del self.streams.pushed[name]  # the next poll answers it
                continue
            if not self._meters[name].has_room or not self._spares[name].admits(now):
                self._not_before[name] = now + LEAST_DISTANCE  # most limits have room again long before the next poll
                continue
            del self.streams.pushed[name]
            self._spares[name].record(now)
            self._not_before[name] = now + LEAST_DISTANCE
            self._asked[name] = self._readers[name].begin()

    @property
    def is_ready(self) -> bool:
        """Whether a woken tick may begin."""
        answered = any(read.done() for read in self._asked.values())
        return answered and self._clock.monotonic() >= self._next_tick

    def wait(self, due: float) -> float:
        """Seconds of the clock until there is something to do that no future signals; infinite if there is nothing."""
        now = self._clock.monotonic()
        times = []
        if any(read.done() for read in self._asked.values()):
            times.append(self._next_tick)
        if due - now >= LEAST_DISTANCE:
            times += [self._not_before.get(name, now) for name in self.streams.pushed if name not in self._asked]
        return max(min(times, default=math.inf) - now, 0.0)

    def futures(self) -> set[asyncio.Future[Any]]:
        """The woken polls that are under way."""
        return {read for read in self._asked.values() if not read.done()}

    def woken(self) -> tuple[tuple[AccountSnapshot, ...], Collection[str]]:
        """All accounts, those that a push called for as just polled, the others as polled last; and the names polled.

        A poll may take its whole timeout, so no snapshot of the last poll is too old before the next one is over.
        """
        answered = [name for name, read in self._asked.items() if read.done()]
        for name in answered:
            del self._asked[name]
        read = {name: self._readers[name].collect() for name in answered}
        return self._readers.complete(read, self._freshness), read.keys()

    async def second_look(
        self, snapshot: Snapshot, names: Collection[str], within: float, span: Span
    ) -> tuple[Mapping[str, Mapping[str, Prices]], Mapping[str, AccountSnapshot]]:
        """The named accounts once more, for at most `within` seconds: prices alone where the adapter reads them alone.

        By account: the prices, and the snapshots of all others.
        """
        priced = self._readers.priced(snapshot, names)
        prices = await self._readers.prices(priced, within, span) if priced else {}
        others = tuple(name for name in names if name not in priced)
        return prices, await self._readers.gather_again(others, within, span) if others else {}

    def observe(self, fresh: Iterable[AccountSnapshot], as_of: datetime) -> None:
        """Follow outages; an account that is read again need not wait for its stream's next attempt."""
        for name in self.outages.update(fresh, as_of):
            self.streams.reopen(name)

    def dated(self, name: str) -> float:
        """Seconds of the account's clock to which its last snapshot refers."""
        return self._readers[name].dated

    def notices(self, as_of: datetime) -> tuple[Notice, ...]:
        """Outages and stream problems that are over, each once."""
        return self.outages.notices(as_of) + self.streams.notices(as_of)

    async def close(self) -> None:
        """Call off reads in flight, and give the connections back."""
        await self._readers.abandon()
        # An adapter that fails to hang up has nothing to report that matters any more.
        await asyncio.gather(*(account.adapter.close() for account in self._accounts.values()), return_exceptions=True)
