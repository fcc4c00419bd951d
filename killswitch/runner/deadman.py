"""Keeps the venues' dead-man timers running for as long as the runner is healthy, and stops them at a clean stop.

A tick that has ended and was committed is the only sign of health: nothing here refreshes by itself. After a crash
nobody refreshes, the timers go off, and the venues cancel what rests: that is the point.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta

from killswitch.graph.nodes import PolicySet
from killswitch.model.clock import Clock
from killswitch.model.decision import Notice
from killswitch.model.inspection import InspectedVenue
from killswitch.model.instant import rfc3339
from killswitch.model.legible import legible
from killswitch.model.snapshot import AccountSnapshot, Instant, Snapshot
from killswitch.model.store import Store
from killswitch.model.venue import DeadManVenue, RateLimitedError, VenueDownError, traits_of
from killswitch.model.words import Severity
from killswitch.runner.accounts import ArmedAccount
from killswitch.runner.deadman_memory import (
    LIVE_NAME,
    Happening,
    Memory,
    Running,
    TimerView,
    decode_memory,
    encode_memory,
)
from killswitch.runner.deadman_timer import LOOK_EVERY, Doing, Timer, Work
from killswitch.runner.metering import Meter

FIRST_RETRY = 1.0
"""Seconds after a request that failed, doubled by each further one in a row up to the time between refreshes."""
LAST_TRIES = 2
"""How often a clean stop tries to stop a timer."""


class Timers:
    """The timers of all armed accounts that a switch covers. Raises StoreError only."""

    def __init__(
        self,
        policies: PolicySet,
        accounts: Mapping[str, ArmedAccount],
        meters: Mapping[str, Meter],
        store: Store,
        clock: Clock,
        patience: float,
    ) -> None:
        """`patience`: real seconds that one request may take. The rules are held to the venues already."""
        self._store = store
        self._clock = clock
        self._memory = Memory()
        self._saved = b""
        self._timers: dict[str, Timer] = {}
        for rule in policies.timers:
            for name in rule.accounts:
                account = accounts.get(name)
                venue = None if account is None else traits_of(account.adapter).dead_man
                if account is None or not account.armed or venue is None:
                    continue
                if isinstance(account.adapter, DeadManVenue):
                    self._timers[name] = Timer(name, rule, venue, account.adapter, meters[name], patience)

    def start(self) -> None:
        """Take up what an earlier run left: a timer that may still run, or one that has gone off meanwhile."""
        self._memory = decode_memory(self._store.live(LIVE_NAME))
        now, mono = self._clock.now(), self._clock.monotonic()
        for name, running in tuple(self._memory.running.items()):
            timer, left = self._timers.get(name), (running.until - now).total_seconds()
            if left <= 0:
                self._went_off(name, running.until, "no runner refreshed it")
            elif timer is None:
                self._happened(name, f"may go off at {rfc3339(running.until)}: this run does not refresh it", "page")
            else:
                timer.state, timer.until, timer.until_at = "unknown", mono + left, running.until
                timer.symbols = tuple(running.symbols)
        self._save()

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps a timer from running or from being refreshed, in words that stay the same while it does."""
        found = []
        for timer in self._timers.values():
            if timer.failure is not None:
                end = "it does not run"
                if timer.state != "off" and timer.until_at is not None:
                    end = f"it goes off at {rfc3339(timer.until_at)} unless that ends"
                found.append(f"the dead-man timer of account {timer.account}: {timer.failure}; {end}")
            elif timer.pages:
                found.append(f"the dead-man timer of account {timer.account} does not run: {timer.why}")
        return tuple(found)

    @property
    def views(self) -> tuple[TimerView, ...]:
        return tuple(each.view for each in self._timers.values())

    def notices(self, as_of: Instant) -> tuple[Notice, ...]:
        """What has happened to timers and no tick has told yet, for the tick at `as_of`."""
        return self._memory.notices(as_of)

    def healthy(self, snapshot: Snapshot) -> None:
        """A tick has ended and is committed: refresh what is due, stop what must not run. Nothing is waited for."""
        accounts = {account.account: account for account in snapshot.accounts}
        for name, timer in self._timers.items():
            timer.look(accounts[name])
            self._collect(timer)
            self._run_out(timer)
            if timer.work is None:
                self._consider(timer, accounts[name])
        self._save()

    async def rest(self) -> tuple[str, ...]:
        """A clean stop: every timer is stopped, and tried again if that fails; what is left running, in words."""
        await asyncio.gather(*(self._stop(timer) for timer in self._timers.values()))
        self._save()
        return tuple(
            f"the dead-man timer of account {each.account} could not be stopped ({each.failure}): it goes off at "
            f"{'a time not known' if each.until_at is None else rfc3339(each.until_at)} and cancels what rests there"
            for each in self._timers.values()
            if each.state != "off"
        )

    async def abandon(self) -> None:
        """The run has ended, somehow: call off what is under way, and leave every timer as it is."""
        tasks = [timer.work.task for timer in self._timers.values() if timer.work is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _consider(self, timer: Timer, account: AccountSnapshot) -> None:
        now = self._clock.monotonic()
        obstacle = timer.obstacle(account, self._memory.in_a_day(timer.account, self._clock.now()))
        timer.why, timer.pages = obstacle or (None, False)
        if obstacle is not None and timer.state == "off":
            timer.failure = None  # nothing is tried any more
        if now < timer.not_before:
            return
        if obstacle is not None:
            if timer.state != "off":
                self._send(timer, "disarm", timer.symbols)
            elif timer.wants_look(now):
                self._send(timer, "look", ())
            return
        wanted = timer.wanted(account)
        dropped = tuple(sorted(set(timer.symbols) - set(wanted)))
        if timer.state != "off" and dropped:
            self._send(timer, "disarm", dropped)
        elif timer.state != "armed" or now - timer.refreshed >= timer.refresh or set(wanted) - set(timer.symbols):
            self._send(timer, "arm", wanted)

    def _send(self, timer: Timer, doing: Doing, symbols: tuple[str, ...]) -> None:
        """Begin a request. What may run from now on is remembered before it leaves."""
        now = self._clock.monotonic()
        if doing == "arm":
            until = self._clock.now() + timedelta(seconds=timer.timeout)
            self._memory.running[timer.account] = Running(until, sorted({*timer.symbols, *symbols}))
            self._save()
        timer.work = Work(doing, symbols, now, asyncio.create_task(self._ask(timer, doing, symbols)))

    async def _ask(self, timer: Timer, doing: Doing, symbols: tuple[str, ...]) -> str | None:
        """One request, counted as reading is, so that it never takes what is kept for closing."""
        budget, told = timer.meter.budget, timer.maintenance
        if doing != "disarm" and timer.venue.quiet_for_maintenance:
            told = await self._announced(timer)
            if told is not None or doing == "look":
                return told
        now = timer.meter.monotonic()
        if budget.wait(now, "dead_man", symbols, "reading") > 0.0:
            raise VenueDownError("the request budget beside closing is spent")
        ticket = budget.take(now, "dead_man", symbols, "reading")
        try:
            async with asyncio.timeout(timer.patience):
                if doing == "arm":
                    await timer.adapter.arm_dead_man(timer.timeout, symbols)
                else:
                    await timer.adapter.disarm_dead_man(symbols)
        except RateLimitedError as error:
            timer.meter.refused(error.retry_after)
            raise
        finally:
            budget.answered(timer.meter.monotonic(), ticket)
        return told

    async def _announced(self, timer: Timer) -> str | None:
        """The venue's word on its state where it is not well; asked now and then, if there is room for it."""
        now = timer.meter.monotonic()
        due = timer.looked_at is None or now - timer.looked_at >= LOOK_EVERY
        if not due or not isinstance(timer.adapter, InspectedVenue) or not timer.meter.free:
            return timer.maintenance
        timer.looked_at = now
        ticket = timer.meter.budget.take(now, "snapshot", purpose="reading")
        try:
            async with asyncio.timeout(timer.patience):
                status = (await timer.adapter.inspect()).status
        except Exception:  # noqa: BLE001 - who cannot be asked has announced nothing: the book and its states decide
            return timer.maintenance
        finally:
            timer.meter.budget.answered(timer.meter.monotonic(), ticket)
        return None if status in (None, "ok") else legible(str(status))

    def _collect(self, timer: Timer) -> None:
        """Take in a request that has ended."""
        work = timer.work
        if work is None or not work.task.done():
            return
        timer.work = None
        error = asyncio.CancelledError("it was called off") if work.task.cancelled() else work.task.exception()
        if error is not None:
            self._failed(timer, work, error)
            return
        timer.failures, timer.failure, timer.not_before = 0, None, 0.0
        timer.maintenance = work.task.result()
        if work.doing == "disarm":
            timer.symbols = tuple(symbol for symbol in timer.symbols if symbol not in work.symbols)
            if not timer.symbols:
                self._is_off(timer, timer.why or "it has nothing to cancel")
        elif work.doing == "arm" and timer.maintenance is None:
            self._is_on(timer, work)
        elif work.doing == "arm" and timer.state == "off":
            self._memory.running.pop(timer.account, None)  # the venue's word came first, and nothing was started

    def _is_on(self, timer: Timer, work: Work) -> None:
        if timer.state != "armed":
            every = f"{timer.timeout:g} s, refreshed every {timer.refresh:g} s, by the switch {timer.rule.name}"
            self._happened(timer.account, f"runs from now on ({every})", "info")
        timer.state, timer.refreshed, timer.symbols = "armed", work.sent, work.symbols
        self._set_until(timer, work.sent + timer.timeout)

    def _is_off(self, timer: Timer, why: str) -> None:
        self._memory.running.pop(timer.account, None)
        if timer.state != "off":
            self._happened(timer.account, f"was stopped: {why}", "page" if timer.pages else "info")
        timer.state, timer.until_at, timer.symbols = "off", None, ()

    def _failed(self, timer: Timer, work: Work, error: BaseException) -> None:
        timer.failures += 1
        pause = min(timer.refresh, FIRST_RETRY * 2.0 ** min(timer.failures - 1, 30))
        timer.not_before = self._clock.monotonic() + pause
        what = "refreshed" if work.doing == "arm" and timer.state == "armed" else "started"
        what = "stopped" if work.doing == "disarm" else what
        if timer.failure is None or f"be {what}:" not in timer.failure:  # the first reason stays while it lasts
            timer.failure = f"it could not be {what}: {legible(str(error) or type(error).__name__)}"
        nothing_done = isinstance(error, VenueDownError | RateLimitedError)
        if work.doing == "arm" and timer.state == "off" and not nothing_done:
            timer.state, timer.symbols = "unknown", work.symbols
            self._set_until(timer, work.sent + timer.timeout)
        elif timer.state == "off":
            self._memory.running.pop(timer.account, None)

    def _run_out(self, timer: Timer) -> None:
        """Whether its time is over without a word that reached the venue."""
        if timer.state == "off" or timer.until_at is None or self._clock.monotonic() < timer.until:
            return
        if timer.work is not None and timer.work.doing == "arm":
            return  # a refresh that left in time is under way: its answer says
        self._went_off(timer.account, timer.until_at, timer.failure or "no refresh reached the venue in time")
        timer.state, timer.until_at, timer.symbols = "off", None, ()

    def _went_off(self, account: str, at: Instant, why: str) -> None:
        self._memory.running.pop(account, None)
        self._memory.gone_off(account, at)
        self._happened(account, f"has gone off at {rfc3339(at)}, and the venue cancels what rests there: {why}", "page")

    async def _stop(self, timer: Timer) -> None:
        """Let a request under way end, then stop the timer."""
        for _ in range(LAST_TRIES + 1):
            if timer.work is not None:
                await asyncio.wait((timer.work.task,))  # bounded by its own patience
                self._collect(timer)
            if timer.state == "off":
                return
            timer.why, timer.pages = "the runner was stopped", False
            wait = timer.meter.budget.wait(timer.meter.monotonic(), "dead_man", timer.symbols, "reading")
            await asyncio.sleep(min(wait, timer.patience))
            self._send(timer, "disarm", timer.symbols)
        if timer.work is not None:
            await asyncio.wait((timer.work.task,))
            self._collect(timer)

    def _set_until(self, timer: Timer, until: float) -> None:
        left = until - self._clock.monotonic()
        timer.until, timer.until_at = until, self._clock.now() + timedelta(seconds=left)

    def _happened(self, account: str, what: str, severity: Severity) -> None:
        text = f"the dead-man timer of account {account} {what}"
        self._memory.add(Happening(self._clock.now(), account, text, severity))

    def _save(self) -> None:
        blob = encode_memory(self._memory)
        if blob != self._saved:
            self._store.put_live(LIVE_NAME, blob)
            self._saved = blob
