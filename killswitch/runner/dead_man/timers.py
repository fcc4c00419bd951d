"""Refreshes the venues' dead-man timers while the runner is healthy, and stops them at a clean stop.

A committed tick is the only sign of health: nothing here refreshes on its own. After a crash nothing refreshes, the
timers fire, and the venues cancel the resting orders, as intended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.poll.request_counters import NoPollRoomError, RequestMeter
from killswitch.accounts.poll.timer_budget import TimerBudget
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
from killswitch.runner.dead_man.memory import (
    LIVE_NAME,
    Running,
    TimerEvent,
    TimerMemory,
    TimerView,
    decode_memory,
    encode_memory,
)
from killswitch.runner.dead_man.timer import (
    CHUNK,
    LOOK_EVERY,
    WHOLE,
    DeadManTimer,
    Doing,
    SymbolRefusal,
    TimerRequest,
    error_text,
)


async def run_requests(timer: DeadManTimer, work: TimerRequest, clock: Clock) -> str | None:
    """Run one round of requests; the maintenance that the venue announces, where it was queried.

    A refusal of one symbol is recorded in the round, and the others continue; an error that concerns all is raised. A
    round that takes longer than the time between refreshes ends; the next healthy tick begins another.
    """
    told = timer.maintenance
    if work.doing != "disarm" and timer.venue.quiet_for_maintenance:
        told = await _announced_maintenance(timer)
        if told is not None:
            return told
    if work.doing == "look":
        return told
    for chunk in work.chunks:
        if work.done and not work.last and clock.monotonic() - work.sent >= timer.refresh:
            break
        await _request(timer, work, chunk, clock)
    return told


async def _request(timer: DeadManTimer, work: TimerRequest, chunk: tuple[str, ...], clock: Clock) -> None:
    ticket = await timer.meter.admit_timer(chunk, timer.patience, last=work.last)
    left = clock.monotonic()
    try:
        async with asyncio.timeout(timer.patience):
            if work.doing == "arm":
                await timer.adapter.arm_dead_man(timer.timeout, chunk)
            else:
                await timer.adapter.disarm_dead_man(chunk)
    except RateLimitedError as error:
        timer.meter.record_refusal(error.retry_after)
        raise
    except (VenueDownError, NoPollRoomError):
        raise
    except Exception as error:
        if not chunk:
            raise
        if len(chunk) == 1:
            work.failed.append((chunk[0], left, error))
        apart = chunk if len(chunk) > 1 else ()
    else:
        work.done += [(symbol, left) for symbol in chunk or work.symbols]
        apart = ()
    finally:
        timer.meter.line.answered(timer.meter.monotonic(), ticket)
    for symbol in apart:
        await _request(timer, work, (symbol,), clock)


async def _announced_maintenance(timer: DeadManTimer) -> str | None:
    """The status of the venue unless it is ok; queried every `LOOK_EVERY`, if the limits leave room."""
    now = timer.meter.monotonic()
    due = timer.looked_at is None or now - timer.looked_at >= LOOK_EVERY
    if not due or not isinstance(timer.adapter, InspectedVenue) or not timer.meter.has_room:
        return timer.maintenance
    timer.looked_at = now
    ticket = timer.meter.budget.reserve(now, "snapshot", purpose="reading")
    try:
        async with asyncio.timeout(timer.patience):
            status = (await timer.adapter.inspect()).status
    except Exception:  # noqa: BLE001 - without an answer nothing is announced: the book and its states decide
        return timer.maintenance
    finally:
        timer.meter.budget.answered(timer.meter.monotonic(), ticket)
    return None if status in (None, "ok") else legible(str(status))


LAST_TRIES = 2
"""How often a clean stop tries to stop a timer."""


class DeadManTimers:
    """The timers of all armed accounts that a switch covers. Raises StoreError only."""

    def __init__(
        self,
        policies: PolicySet,
        accounts: Mapping[str, ArmedAccount],
        meters: Mapping[str, RequestMeter],
        store: Store,
        clock: Clock,
        patience: float,
        budget: TimerBudget,
    ) -> None:
        """`patience`: real seconds that one request may take. The rules are held to the venues already.

        `budget`: what they take of the venues' limits; every timer that is kept is added to it.
        """
        self._store = store
        self._clock = clock
        self._memory = TimerMemory()
        self._saved = b""
        self._timers: dict[str, DeadManTimer] = {}
        for rule in policies.timers:
            for name in rule.accounts:
                account = accounts.get(name)
                venue = None if account is None else traits_of(account.adapter).dead_man
                if account is None or not account.armed or venue is None:
                    continue
                if isinstance(account.adapter, DeadManVenue):
                    budget.add(name, rule)
                    timer = DeadManTimer(name, rule, venue, account.adapter, meters[name], patience, budget)
                    self._timers[name] = timer

    def start(self) -> None:
        """Take up what an earlier run left: a timer that may still run, or one that has gone off meanwhile."""
        self._memory = decode_memory(self._store.live(LIVE_NAME))
        now, mono = self._clock.now(), self._clock.monotonic()
        for name, running in tuple(self._memory.running.items()):
            timer, left = self._timers.get(name), (running.until - now).total_seconds()
            if left <= 0:
                self._memory.running.pop(name)
                self._went_off(name, running.until, "no runner refreshed it")
                if timer is not None:
                    timer.paged = True
            elif timer is None:
                self._record(name, f"may fire at {rfc3339(running.until)}: this run does not refresh it", "page")
            else:
                timer.state, timer.until, timer.until_at = "unknown", mono + left, running.until
                timer.runs = dict.fromkeys(running.symbols or (WHOLE,), mono + left - timer.timeout)
        self._save()

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps a timer from running or from being refreshed, in words that stay the same while it does."""
        return tuple(problem for timer in self._timers.values() for problem in timer.problems)

    @property
    def views(self) -> tuple[TimerView, ...]:
        return tuple(each.view for each in self._timers.values())

    def notices(self) -> tuple[Notice, ...]:
        """The unreported events of timers, each with its time."""
        return self._memory.notices()

    def refresh(self, snapshot: Snapshot) -> None:
        """After a committed tick, refresh timers that are due and stop those that must not run, without waiting."""
        accounts = {account.account: account for account in snapshot.accounts}
        for name, timer in self._timers.items():
            timer.look(accounts[name])
            wanted = timer.wanted(accounts[name])
            self._collect(timer, wanted)
            self._run_out(timer, wanted)
            if timer.work is None:
                self._consider(timer, accounts[name])
        self._save()

    async def rest(self) -> tuple[str, ...]:
        """Stop every timer, with retries; a message for each that is left running."""
        await asyncio.gather(*(self._stop(timer) for timer in self._timers.values()))
        self._save()
        return tuple(each.left_behind for each in self._timers.values() if each.state != "off")

    async def abandon(self) -> None:
        """Cancel requests under way, and leave every timer as it is."""
        works = [timer.work for timer in self._timers.values() if timer.work is not None]
        tasks = [work.task for work in works if work.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _consider(self, timer: DeadManTimer, account: AccountSnapshot) -> None:
        now = self._clock.monotonic()
        obstacle = timer.obstacle(account, self._memory.in_a_day(timer.account, self._clock.now()))
        timer.why, timer.pages = obstacle or (None, False)
        timer.paged |= timer.pages
        if obstacle is not None and timer.state == "off":
            timer.failure = None  # nothing is tried any more
        if now < timer.not_before:
            return
        if obstacle is not None:
            stopping = timer.free(now, timer.runs)
            if timer.state != "off" and stopping:
                self._send(timer, "disarm", stopping)
            elif timer.wants_look(now):
                self._send(timer, "look", ())
            return
        wanted = timer.wanted(account)
        # What must not go off comes first: a symbol that the venue refuses to stop holds up no other.
        if due := timer.due(now, wanted):
            self._send(timer, "arm", due)
        elif dropped := timer.free(now, sorted(timer.runs.keys() - set(wanted))):
            self._send(timer, "disarm", dropped)

    def _send(self, timer: DeadManTimer, doing: Doing, symbols: tuple[str, ...], *, last: bool = False) -> None:
        """Begin a round. What may run from now on is remembered before its first request leaves."""
        now = self._clock.monotonic()
        if doing == "arm":
            # The last request of a long round leaves later, but no later than a round may take.
            late = timer.refresh + timer.patience if len(symbols) > CHUNK else 0.0
            until = self._clock.now() + timedelta(seconds=timer.timeout + late)
            self._memory.running[timer.account] = Running(until, sorted({*timer.symbols, *symbols} - {WHOLE}))
            self._save()
        work = timer.work = TimerRequest(doing, symbols, now, last=last)
        work.task = asyncio.create_task(run_requests(timer, work, self._clock))

    def _collect(self, timer: DeadManTimer, wanted: tuple[str, ...]) -> None:
        """Take in what a round has come to so far, and its end. `wanted`: the symbols for which it is to run."""
        work = timer.work
        if work is None or work.task is None:
            return
        ended, was = work.task.done(), timer.state
        self._apply_confirmed(timer, work)
        if not ended:
            return
        timer.work = None
        for symbol, left, failure in work.failed:
            self._refused(timer, work, symbol, left, failure)
        error = asyncio.CancelledError("it was called off") if work.task.cancelled() else work.task.exception()
        if error is not None:
            self._failed(timer, work, error)
        else:
            if timer.failure is not None and work.doing == "arm" and was == "armed" and timer.runs:
                self._record_running(timer, "is refreshed again")
            timer.failures, timer.failure, timer.not_before = 0, None, 0.0
            timer.maintenance = work.task.result()
        if timer.runs:
            left = max(timer.runs.values()) + timer.timeout - self._clock.monotonic()
            until = self._clock.now() + timedelta(seconds=left)
            self._memory.running[timer.account] = Running(until, list(timer.symbols))
        elif timer.state == "off":
            self._memory.running.pop(timer.account, None)  # nothing was started
        timer.refused = {each: why for each, why in timer.refused.items() if each in timer.runs or each in wanted}

    def _apply_confirmed(self, timer: DeadManTimer, work: TimerRequest) -> None:
        """Record what the venue has confirmed."""
        done, work.done = work.done, []
        for symbol, left in done:
            if timer.refused.pop(symbol, None) is not None:
                was = "runs" if work.doing == "arm" else "is stopped"
                self._record(timer.account, f"{was} for {symbol} now", "page")
            if work.doing == "arm":
                timer.runs[symbol] = left
            else:
                timer.runs.pop(symbol, None)
        if not done:
            return
        if work.doing == "arm":
            if timer.state != "armed":
                every = f"{timer.timeout:g} s, refreshed every {timer.refresh:g} s, by the switch {timer.rule.name}"
                self._record_running(timer, f"is running ({every})")
            timer.state = "armed"
            self._set_until(timer)
        elif not timer.runs:
            self._is_off(timer, timer.why or "it has nothing to cancel")
        else:
            self._set_until(timer)

    def _record_running(self, timer: DeadManTimer, what: str) -> None:
        """Report that the timer runs; as a page where a problem was paged before."""
        self._record(timer.account, what, "page" if timer.paged else "info")
        timer.paged = False

    def _is_off(self, timer: DeadManTimer, why: str) -> None:
        self._memory.running.pop(timer.account, None)
        if timer.state != "off":
            self._record(timer.account, f"was stopped: {why}", "page" if timer.pages else "info")
        timer.state, timer.until_at = "off", None
        timer.runs.clear()
        timer.refused.clear()

    def _refused(self, timer: DeadManTimer, work: TimerRequest, symbol: str, left: float, error: Exception) -> None:
        """Record a refusal of one symbol; the others continue without it."""
        before = timer.refused.get(symbol)
        times = 1 if before is None else before.times + 1
        effect = timer.could_not(work.doing)
        what = f"{effect} for {symbol}: {error_text(error)}"
        if before is not None and effect in before.what:
            what = before.what
        timer.refused[symbol] = SymbolRefusal(times, self._clock.monotonic() + timer.pause(times), what)
        if work.doing == "arm" and symbol not in timer.runs:
            self._may_run(timer, (symbol,), left)

    def _failed(self, timer: DeadManTimer, work: TimerRequest, error: BaseException) -> None:
        timer.failures += 1
        timer.paged = True
        now = self._clock.monotonic()
        # Who waits for room has a turn, and asks again at the next tick so as to keep it.
        timer.not_before = now if isinstance(error, NoPollRoomError) else now + timer.pause(timer.failures)
        if timer.failure is None or timer.could_not(work.doing) + ":" not in timer.failure:  # the first reason stays
            timer.failure = f"it {timer.could_not(work.doing)}: {error_text(error)}"
        nothing_done = isinstance(error, VenueDownError | RateLimitedError | NoPollRoomError)
        if work.doing == "arm" and not timer.runs and not nothing_done:
            self._may_run(timer, work.symbols, work.sent)

    def _may_run(self, timer: DeadManTimer, symbols: tuple[str, ...], left: float) -> None:
        timer.runs.update(dict.fromkeys(symbols, left))
        if timer.state == "off":
            timer.state = "unknown"
        self._set_until(timer)

    def _run_out(self, timer: DeadManTimer, wanted: tuple[str, ...]) -> None:
        """Detect a timer whose time is over without a refresh. Where no order rests, nothing was cancelled."""
        now, work = self._clock.monotonic(), timer.work
        over = {each: at + timer.timeout for each, at in timer.runs.items() if now >= at + timer.timeout}
        if work is not None and work.doing == "arm":
            over = {each: at for each, at in over.items() if each not in work.symbols}  # its answer says
        if not over:
            return
        lost = sorted(over.keys() & set(wanted))
        if lost:
            at = self._clock.now() + timedelta(seconds=min(over[each] for each in lost) - now)
            at = timer.until_at if lost == sorted(timer.runs) and timer.until_at is not None else at
            why = timer.failure or next((timer.refused[each].what for each in lost if each in timer.refused), None)
            self._went_off(timer.account, at, why or "no refresh reached the venue in time", tuple(lost))
            timer.paged = True
        for each in over:
            del timer.runs[each]
            timer.refused.pop(each, None)
        if timer.runs:
            self._set_until(timer)
            return
        if not lost:
            self._is_off(timer, "no order rested any more where it ran")
        self._memory.running.pop(timer.account, None)
        timer.state, timer.until_at = "off", None

    def _went_off(self, account: str, at: Instant, why: str, symbols: tuple[str, ...] = ()) -> None:
        self._memory.gone_off(account, at)
        where = "".join(f" for {', '.join(symbols)}" for _ in (1,) if symbols not in ((), (WHOLE,)))
        text = f"has fired{where} at {rfc3339(at)}, and the venue cancels the orders there: {why}"
        self._record(account, text, "page")

    async def _stop(self, timer: DeadManTimer) -> None:
        """Wait for the round under way, then stop the timer. The last request may use what is reserved for closing."""
        for tries in range(LAST_TRIES + 2):
            if timer.work is not None and timer.work.task is not None:
                await asyncio.wait((timer.work.task,))  # bounded by its own patience
                self._collect(timer, ())
            if timer.state == "off" or tries > LAST_TRIES:
                return
            timer.why, timer.pages = "the runner was stopped", False
            self._send(timer, "disarm", tuple(timer.runs), last=True)

    def _set_until(self, timer: DeadManTimer) -> None:
        until = min(timer.runs.values()) + timer.timeout
        if until != timer.until or timer.until_at is None:
            timer.until = until
            timer.until_at = self._clock.now() + timedelta(seconds=until - self._clock.monotonic())

    def _record(self, account: str, what: str, severity: Severity) -> None:
        text = f"the dead-man timer of account {account} {what}"
        self._memory.add(TimerEvent(self._clock.now(), account, text, severity))

    def _save(self) -> None:
        blob = encode_memory(self._memory)
        if blob != self._saved:
            self._store.put_live(LIVE_NAME, blob)
            self._saved = blob
