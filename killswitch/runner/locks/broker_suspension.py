"""Suspends trading at the broker while a lock of mode `all` is in force and nothing is left to close on an account.

A suspended account refuses every new order, including those of this program: a close lifts the suspension first. The
program lifts only its own suspensions, which the store keeps over restarts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Iterable, Mapping

from killswitch.accounts.arming import ArmedAccount, left_to_do
from killswitch.accounts.poll.request_meter import RequestMeter
from killswitch.model.alert import Alerts, alert_if, together
from killswitch.model.backoff import Backoff
from killswitch.model.clock import Clock
from killswitch.model.legible import legible
from killswitch.model.store import Store
from killswitch.model.venue import RateLimitedError, SuspendTrading

LIVE_NAME = "suspended"
RETRIES = Backoff(first=1.0, longest=60.0)
"""Seconds after requests that failed in a row."""


class Broker:
    """One account's suspension at its broker."""

    def __init__(self, account: str, request: SuspendTrading, meter: RequestMeter, timeout: float) -> None:
        self.account = account
        self._suspend = request
        self._meter = meter
        self._timeout = timeout
        self.suspended: bool | None = False
        """The state that the broker confirmed last; None while it is unknown."""
        self._failures = 0
        self._not_before = 0.0
        self.task: asyncio.Task[None] | None = None
        self.problem: str | None = None

    def begin(self, *, suspended: bool, now: float, at_once: bool = False) -> None:
        """Send the request, unless the state is confirmed, a request is under way, or a retry is not due yet."""
        if not self.is_busy and self.suspended is not suspended and (at_once or now >= self._not_before):
            self.task = asyncio.create_task(self._request(suspended=suspended, now=now))

    async def settled(self) -> None:
        """Wait for the request under way, which has its own timeout."""
        if self.task is not None:
            await asyncio.wait((self.task,))

    async def lift(self, now: Callable[[], float]) -> None:
        """Lift the suspension after any request under way; returns when the broker has answered or failed to."""
        await self.settled()
        self.begin(suspended=False, now=now(), at_once=True)
        await self.settled()

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way."""
        return self.task is not None and not self.task.done()

    async def _request(self, *, suspended: bool, now: float) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._suspend(suspended)
        except Exception as error:  # noqa: BLE001 - reported and retried: an adapter's defect must not end the run
            self._failures += 1
            self._not_before = now + RETRIES.after(self._failures)
            self.suspended = None
            if isinstance(error, RateLimitedError):
                self._meter.record_refusal(error.retry_after)
            if self.problem is None:  # the first reason stays while it lasts
                what = "suspended at" if suspended else "allowed again by"
                why = legible(str(error) or type(error).__name__)
                self.problem = f"trading of account {self.account} could not be {what} its broker: {why}; it is retried"
        else:
            self.suspended, self.problem = suspended, None
            self._failures, self._not_before = 0, 0.0


class BrokerSuspension:
    """The suspensions of all armed accounts whose documents set `suspend_trade`. Raises StoreError only."""

    def __init__(
        self,
        accounts: Mapping[str, ArmedAccount],
        meters: Mapping[str, RequestMeter],
        store: Store,
        clock: Clock,
        timeout: float,
    ) -> None:
        """`timeout`: real seconds that one request may take."""
        self._brokers = {
            name: Broker(name, suspend, meters[name], timeout)
            for name, account in accounts.items()
            if account.armed and account.suspends and (suspend := account.adapter.suspend_trading) is not None
        }
        self._store = store
        self._clock = clock
        self._ours: set[str] = set()
        self._lifting: set[asyncio.Task[None]] = set()
        self._unmanaged: dict[str, str] = {}

    def start(self) -> dict[str, asyncio.Task[None]]:
        """Restore the suspensions of an earlier run, whose state is unknown.

        Returns the tasks that lift them for unfinished closes.
        """
        self._ours = set(json.loads(self._store.live(LIVE_NAME) or b"[]"))
        for name in self._ours & self._brokers.keys():
            self._brokers[name].suspended = None
        self._unmanaged = {
            name: f"account {name} was suspended at its broker by an earlier run, and this run does not manage that: "
            "start with --live and `options: {suspend_trade: true}`, or allow trading there manually"
            for name in sorted(self._ours - self._brokers.keys())
        }
        return self.lift(left_to_do(self._store))

    @property
    def judges(self) -> tuple[str, ...]:
        return tuple(f"broker/{name}" for name in self._brokers)

    @property
    def alerts(self) -> Alerts:
        """A page for each broker request that fails, and for each suspension that this run does not manage."""
        unmanaged = (alert_if(f"broker/{name}/unmanaged", text) for name, text in self._unmanaged.items())
        failing = (alert_if(f"broker/{name}/request", broker.problem) for name, broker in self._brokers.items())
        unknown = tuple(f"broker/{name}/request" for name, it in self._brokers.items() if it.suspended is None)
        return together((*unmanaged, *failing, Alerts(unknown=unknown)))

    @property
    def suspended(self) -> tuple[str, ...]:
        """Accounts whose broker has confirmed that it refuses every new order."""
        return tuple(name for name, broker in self._brokers.items() if broker.suspended)

    @property
    def busy(self) -> tuple[str, ...]:
        """Accounts with a request to their broker under way."""
        return tuple(name for name, broker in self._brokers.items() if broker.is_busy)

    def lift(self, accounts: Iterable[str]) -> dict[str, asyncio.Task[None]]:
        """Begin to lift the suspensions of `accounts`; return the tasks that their closes wait for.

        Each close waits for its own account only.
        """
        tasks = {
            name: asyncio.create_task(self._brokers[name].lift(self._clock.monotonic))
            for name in sorted(self._ours & self._brokers.keys() & set(accounts))
        }
        for task in tasks.values():
            self._lifting.add(task)
            task.add_done_callback(self._lifting.discard)
        return tasks

    def settle(self, locked: Collection[str], busy: Collection[str]) -> None:
        """Suspend or allow trading as locks require. `locked`: accounts under a lock of mode `all`; `busy`: closing."""
        now = self._clock.monotonic()
        for name, broker in self._brokers.items():
            wanted = name in locked and name not in busy
            if wanted and name not in self._ours:
                self._ours.add(name)  # before the request: after a crash the next run must know of it
                self._save()
            if name in self._ours:
                broker.begin(suspended=wanted, now=now)
            if not wanted and name in self._ours and broker.suspended is False and not broker.is_busy:
                self._ours.discard(name)
                self._save()

    async def abandon(self) -> None:
        """Cancel requests under way; the store records what to restore."""
        tasks = [*self._lifting, *(broker.task for broker in self._brokers.values() if broker.task is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _save(self) -> None:
        self._store.put_live(LIVE_NAME, json.dumps(sorted(self._ours)).encode())
