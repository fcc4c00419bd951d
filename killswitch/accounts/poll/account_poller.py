"""Polls the accounts of a run: all of them at every tick, and between two ticks those whose venues push something."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.poll.outages import Unread, patience
from killswitch.accounts.poll.poll_budget import spares
from killswitch.accounts.poll.poller import FIRST_PATIENCE, Readers
from killswitch.accounts.poll.push_listener import Listening, StreamView
from killswitch.accounts.poll.request_counters import Meter
from killswitch.accounts.poll.timer_budget import Refreshing
from killswitch.accounts.poll.wake_up import Waking
from killswitch.model.clock import Clock
from killswitch.model.decision import Notice
from killswitch.model.snapshot import AccountSnapshot, Snapshot
from killswitch.model.tracing import Span
from killswitch.model.venue import Prices


class AccountPoller:
    """The polls, private streams and outages of one run's accounts."""

    def __init__(
        self,
        accounts: Mapping[str, ArmedAccount],
        meters: Mapping[str, Meter],
        clock: Clock,
        interval: float,
        read_timeout: float,
        refreshing: Refreshing | None = None,
    ) -> None:
        """`interval` and `read_timeout` in seconds. `refreshing`: the dead-man timers that the run keeps, if any."""
        self._accounts = accounts
        self._freshness = interval + read_timeout
        self._readers = Readers(accounts, read_timeout, meters, FIRST_PATIENCE)
        armed = (name for name, account in accounts.items() if account.armed)
        self._outages = Unread(armed, self._readers, clock, patience(interval, read_timeout))
        self._streams = Listening(accounts, clock)
        self.wake_up = Waking(self._streams, self._readers, meters, spares(accounts, interval, refreshing), clock)

    def listen(self) -> None:
        """Open the private streams. Nothing is waited for."""
        self._streams.start()

    async def poll(self, span: Span) -> tuple[AccountSnapshot, ...]:
        """One snapshot per account, in the accounts' order, after at most the read timeout."""
        self.wake_up.polled()
        return await self._readers.gather(span)

    def woken(self) -> tuple[tuple[AccountSnapshot, ...], Collection[str]]:
        """Every account, those that a push has called for as just read, the others as read last; and which were read.

        A poll may take its whole timeout, so no snapshot of the last poll is too old before the next one is over.
        """
        read = self.wake_up.take()
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
        for name in self._outages.look(fresh, as_of):
            self._streams.begin_anew(name)

    def dated(self, name: str) -> float:
        """Seconds of the account's clock of which its last snapshot tells."""
        return self._readers.dated(name)

    @property
    def outages(self) -> tuple[str, ...]:
        """The armed accounts that cannot be read, in words."""
        return self._outages.problems

    @property
    def stream_problems(self) -> tuple[str, ...]:
        """What is wrong with private streams, in words."""
        return self._streams.problems

    @property
    def streams(self) -> tuple[StreamView, ...]:
        """What `status` shows of the private streams."""
        return self._streams.views

    def notices(self, as_of: datetime) -> tuple[Notice, ...]:
        """Outages and stream problems that are over, each once."""
        return self._outages.notices(as_of) + self._streams.notices(as_of)

    async def stop(self, patience: float) -> None:
        """Close the private streams, in at most `patience` seconds."""
        await self._streams.stop(patience)

    async def close(self) -> None:
        """Call off reads in flight, and give the connections back."""
        await self._readers.abandon()
        # An adapter that fails to hang up has nothing to report that matters any more.
        await asyncio.gather(*(account.adapter.close() for account in self._accounts.values()), return_exceptions=True)
