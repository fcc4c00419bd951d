"""Refreshes the venues' dead-man timers while the runner is healthy, and stops them at a clean stop.

A committed tick is the only sign of health: nothing here refreshes on its own. After a crash nothing refreshes, the
timers fire, and the venues cancel the resting orders, as intended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.poll.request_meter import NoPollRoomError, RequestMeter
from killswitch.accounts.poll.timer_budget import TimerBudget
from killswitch.graph.nodes import PolicySet
from killswitch.model.alert import Alerts, together
from killswitch.model.clock import Clock
from killswitch.model.decision import Notice
from killswitch.model.instant import rfc3339
from killswitch.model.legible import legible
from killswitch.model.snapshot import AccountSnapshot, Instant, Snapshot
from killswitch.model.store import Store
from killswitch.model.venue import RateLimitedError, VenueDownError
from killswitch.model.words import Severity
from killswitch.runner.dead_man.timer import (
    CHUNK,
    STATUS_QUERY_EVERY,
    WHOLE_ACCOUNT,
    DeadManTimer,
    SymbolRefusal,
    TimerAction,
    TimerRequest,
    error_text,
)
from killswitch.runner.dead_man.timer_record import (
    LIVE_NAME,
    Running,
    TimerEvent,
    TimerRecord,
    TimerView,
    decode_record,
    encode_record,
)


async def run_requests(timer: DeadManTimer, request: TimerRequest, clock: Clock) -> str | None:
    """Run one round of requests; the maintenance that the venue announces, where it was queried.

    A refusal of one symbol is recorded in the round, and the others continue; an error that concerns all is raised. A
    round that takes longer than the time between refreshes ends; the next healthy tick begins another.
    """
    status = timer.maintenance
    if request.action != "disarm" and timer.venue.quiet_for_maintenance:
        status = await _announced_maintenance(timer)
        if status is not None:
            return status
    if request.action == "query":
        return status
    for chunk in request.chunks:
        if request.done and not request.last and clock.monotonic() - request.sent >= timer.refresh:
            break
        await _request(timer, request, chunk, clock)
    return status


async def _request(timer: DeadManTimer, request: TimerRequest, chunk: tuple[str, ...], clock: Clock) -> None:
    reservation = await timer.meter.admit_timer(chunk, timer.request_timeout, last=request.last)
    sent = clock.monotonic()
    try:
        async with asyncio.timeout(timer.request_timeout):
            if request.action == "arm":
                await timer.requests.arm(timer.timeout, chunk)
            else:
                await timer.requests.disarm(chunk)
    except RateLimitedError as error:
        timer.meter.record_refusal(error.retry_after)
        raise
    except (VenueDownError, NoPollRoomError):
        raise
    except Exception as error:
        if not chunk:
            raise
        if len(chunk) == 1:
            request.failed.append((chunk[0], sent, error))
        retried = chunk if len(chunk) > 1 else ()
    else:
        request.done += [(symbol, sent) for symbol in chunk or request.symbols]
        retried = ()
    finally:
        timer.meter.timer_turns.answered(timer.meter.monotonic(), reservation)
    for symbol in retried:
        await _request(timer, request, (symbol,), clock)


async def _announced_maintenance(timer: DeadManTimer) -> str | None:
    """The status of the venue unless it is ok; queried every `STATUS_QUERY_EVERY`, if the limits leave room."""
    now = timer.meter.monotonic()
    due = timer.status_queried_at is None or now - timer.status_queried_at >= STATUS_QUERY_EVERY
    if not due or timer.inspect is None or not timer.meter.has_room:
        return timer.maintenance
    timer.status_queried_at = now
    reservation = timer.meter.budget.reserve(now, "snapshot", purpose="reading")
    try:
        async with asyncio.timeout(timer.request_timeout):
            status = (await timer.inspect()).status
    except Exception:  # noqa: BLE001 - without an answer the last announcement and the instruments' states decide
        return timer.maintenance
    finally:
        timer.meter.budget.answered(timer.meter.monotonic(), reservation)
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
        request_timeout: float,
        budget: TimerBudget,
    ) -> None:
        """`request_timeout`: real seconds that one request may take. The rules have been checked by `require_timers`.

        `budget`: the request budget of the timers, to which every timer is added.
        """
        self._store = store
        self._clock = clock
        self._stored = TimerRecord()
        self._saved = b""
        self._timers: dict[str, DeadManTimer] = {}
        for rule in policies.timers:
            for name in rule.accounts:
                account = accounts.get(name)
                if account is None or not account.armed or (offered := account.adapter.dead_man) is None:
                    continue
                budget.add(name, rule)
                self._timers[name] = DeadManTimer(
                    name, rule, offered, account.adapter.inspect, meters[name], request_timeout, budget
                )

    def start(self) -> None:
        """Restore the timers of an earlier run: those that may still run, and those that have fired meanwhile."""
        self._stored = decode_record(self._store.live(LIVE_NAME))
        now, mono = self._clock.now(), self._clock.monotonic()
        for name, running in tuple(self._stored.running.items()):
            timer, left = self._timers.get(name), (running.until - now).total_seconds()
            if left <= 0:
                self._stored.running.pop(name)
                self._fired(name, running.until, "no runner refreshed it")
                if timer is not None:
                    timer.paged = True
            elif timer is None:
                self._record(name, f"may fire at {rfc3339(running.until)}: this run does not refresh it", "page")
            else:
                timer.state, timer.until, timer.until_at = "unknown", mono + left, running.until
                timer.runs = dict.fromkeys(running.symbols or (WHOLE_ACCOUNT,), mono + left - timer.timeout)
        self._save()

    @property
    def judges(self) -> tuple[str, ...]:
        return tuple(f"dead-man/{name}" for name in self._timers)

    @property
    def alerts(self) -> Alerts:
        """A page for each reason why a timer does not run or is not refreshed."""
        return together(timer.alerts for timer in self._timers.values())

    @property
    def views(self) -> tuple[TimerView, ...]:
        return tuple(each.view for each in self._timers.values())

    def notices(self) -> tuple[Notice, ...]:
        """The unreported events of timers, each with its time."""
        return self._stored.notices()

    def refresh(self, snapshot: Snapshot) -> None:
        """After a committed tick, refresh timers that are due and stop those that must not run, without waiting."""
        accounts = {account.account: account for account in snapshot.accounts}
        for name, timer in self._timers.items():
            timer.observe(accounts[name])
            wanted = timer.wanted(accounts[name])
            self._collect(timer, wanted)
            self._run_out(timer, wanted)
            if timer.request is None:
                self._consider(timer, accounts[name])
        self._save()

    async def stop(self) -> tuple[str, ...]:
        """Stop every timer, with retries; a message for each that is left running."""
        await asyncio.gather(*(self._stop(timer) for timer in self._timers.values()))
        self._save()
        return tuple(each.not_stopped for each in self._timers.values() if each.state != "off")

    async def abandon(self) -> None:
        """Cancel requests under way, and leave every timer as it is."""
        requests = [timer.request for timer in self._timers.values() if timer.request is not None]
        tasks = [request.task for request in requests if request.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _consider(self, timer: DeadManTimer, account: AccountSnapshot) -> None:
        now = self._clock.monotonic()
        obstacle = timer.obstacle(account, self._stored.in_a_day(timer.account, self._clock.now()))
        timer.why, timer.page = (None, None) if obstacle is None else (obstacle.why, obstacle.page)
        timer.paged |= timer.page is not None
        if obstacle is not None and timer.state == "off":
            timer.failure = None  # no request is retried any more
        if now < timer.not_before:
            return
        if obstacle is not None:
            stopping = timer.free(now, timer.runs)
            if timer.state != "off" and stopping:
                self._send(timer, "disarm", stopping)
            elif timer.is_status_query_due(now):
                self._send(timer, "query", ())
            return
        wanted = timer.wanted(account)
        # Refreshes come first: a symbol that the venue refuses to stop delays no other.
        if due := timer.due(now, wanted):
            self._send(timer, "arm", due)
        elif dropped := timer.free(now, sorted(timer.runs.keys() - set(wanted))):
            self._send(timer, "disarm", dropped)

    def _send(self, timer: DeadManTimer, action: TimerAction, symbols: tuple[str, ...], *, last: bool = False) -> None:
        """Begin a round. The timers that may run from now on are stored before its first request is sent."""
        now = self._clock.monotonic()
        if action == "arm":
            # The last request of a long round is sent later, but within the time that a round may take.
            late = timer.refresh + timer.request_timeout if len(symbols) > CHUNK else 0.0
            until = self._clock.now() + timedelta(seconds=timer.timeout + late)
            self._stored.running[timer.account] = Running(until, sorted({*timer.symbols, *symbols} - {WHOLE_ACCOUNT}))
            self._save()
        request = timer.request = TimerRequest(action, symbols, now, last=last)
        request.task = asyncio.create_task(run_requests(timer, request, self._clock))

    def _collect(self, timer: DeadManTimer, wanted: tuple[str, ...]) -> None:
        """Record the results of a round so far, and its end. `wanted`: the symbols for which the timer should run."""
        request = timer.request
        if request is None or request.task is None:
            return
        ended, was = request.task.done(), timer.state
        self._apply_confirmed(timer, request)
        if not ended:
            return
        timer.request = None
        for symbol, sent, failure in request.failed:
            self._refused(timer, request, symbol, sent, failure)
        error = asyncio.CancelledError("it was cancelled") if request.task.cancelled() else request.task.exception()
        if error is not None:
            self._failed(timer, request, error)
        else:
            if timer.failure is not None and request.action == "arm" and was == "armed" and timer.runs:
                self._record_running(timer, "is refreshed again")
            timer.failures, timer.failure, timer.not_before = 0, None, 0.0
            timer.maintenance = request.task.result()
        if timer.runs:
            sent = max(timer.runs.values()) + timer.timeout - self._clock.monotonic()
            until = self._clock.now() + timedelta(seconds=sent)
            self._stored.running[timer.account] = Running(until, list(timer.symbols))
        elif timer.state == "off":
            self._stored.running.pop(timer.account, None)  # nothing was started
        timer.refused = {each: why for each, why in timer.refused.items() if each in timer.runs or each in wanted}

    def _apply_confirmed(self, timer: DeadManTimer, request: TimerRequest) -> None:
        """Record what the venue has confirmed."""
        done, request.done = request.done, []
        for symbol, sent in done:
            if timer.refused.pop(symbol, None) is not None:
                was = "runs" if request.action == "arm" else "is stopped"
                self._record(timer.account, f"{was} for {symbol} now", "page")
            if request.action == "arm":
                timer.runs[symbol] = sent
            else:
                timer.runs.pop(symbol, None)
        if not done:
            return
        if request.action == "arm":
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
        self._stored.running.pop(timer.account, None)
        if timer.state != "off":
            self._record(timer.account, f"was stopped: {why}", "page" if timer.page else "info")
        timer.state, timer.until_at = "off", None
        timer.runs.clear()
        timer.refused.clear()

    def _refused(self, timer: DeadManTimer, request: TimerRequest, symbol: str, sent: float, error: Exception) -> None:
        """Record a refusal of one symbol; the others continue without it."""
        before = timer.refused.get(symbol)
        times = 1 if before is None else before.times + 1
        effect = timer.could_not(request.action)
        what = f"{effect} for {symbol}: {error_text(error)}"
        if before is not None and effect in before.what:
            what = before.what
        timer.refused[symbol] = SymbolRefusal(times, self._clock.monotonic() + timer.pause(times), what)
        if request.action == "arm" and symbol not in timer.runs:
            self._may_run(timer, (symbol,), sent)

    def _failed(self, timer: DeadManTimer, request: TimerRequest, error: BaseException) -> None:
        timer.failures += 1
        timer.paged = True
        now = self._clock.monotonic()
        # A request that waits for room has a turn, and is repeated at the next tick to keep it.
        timer.not_before = now if isinstance(error, NoPollRoomError) else now + timer.pause(timer.failures)
        if (
            timer.failure is None or timer.could_not(request.action) + ":" not in timer.failure
        ):  # the first reason stays
            timer.failure = f"it {timer.could_not(request.action)}: {error_text(error)}"
        nothing_done = isinstance(error, VenueDownError | RateLimitedError | NoPollRoomError)
        if request.action == "arm" and not timer.runs and not nothing_done:
            self._may_run(timer, request.symbols, request.sent)

    def _may_run(self, timer: DeadManTimer, symbols: tuple[str, ...], sent: float) -> None:
        timer.runs.update(dict.fromkeys(symbols, sent))
        if timer.state == "off":
            timer.state = "unknown"
        self._set_until(timer)

    def _run_out(self, timer: DeadManTimer, wanted: tuple[str, ...]) -> None:
        """Detect a timer that expired without a refresh. For a symbol without resting orders nothing was cancelled."""
        now, request = self._clock.monotonic(), timer.request
        over = {each: at + timer.timeout for each, at in timer.runs.items() if now >= at + timer.timeout}
        if request is not None and request.action == "arm":
            over = {each: at for each, at in over.items() if each not in request.symbols}  # its answer decides
        if not over:
            return
        fired = sorted(over.keys() & set(wanted))
        if fired:
            at = self._clock.now() + timedelta(seconds=min(over[each] for each in fired) - now)
            at = timer.until_at if fired == sorted(timer.runs) and timer.until_at is not None else at
            why = timer.failure or next((timer.refused[each].what for each in fired if each in timer.refused), None)
            self._fired(timer.account, at, why or "no refresh reached the venue in time", tuple(fired))
            timer.paged = True
        for each in over:
            del timer.runs[each]
            timer.refused.pop(each, None)
        if timer.runs:
            self._set_until(timer)
            return
        if not fired:
            self._is_off(timer, "no order rested any more where it ran")
        self._stored.running.pop(timer.account, None)
        timer.state, timer.until_at = "off", None

    def _fired(self, account: str, at: Instant, why: str, symbols: tuple[str, ...] = ()) -> None:
        self._stored.record_fired(account, at)
        where = "".join(f" for {', '.join(symbols)}" for _ in (1,) if symbols not in ((), (WHOLE_ACCOUNT,)))
        text = f"has fired{where} at {rfc3339(at)}, and the venue cancels the orders there: {why}"
        self._record(account, text, "page")

    async def _stop(self, timer: DeadManTimer) -> None:
        """Wait for the round under way, then stop the timer. The last request may use what is reserved for closing."""
        for tries in range(LAST_TRIES + 2):
            if timer.request is not None and timer.request.task is not None:
                await asyncio.wait((timer.request.task,))  # bounded by its own timeout
                self._collect(timer, ())
            if timer.state == "off" or tries > LAST_TRIES:
                return
            timer.why, timer.page = "the runner was stopped", None
            self._send(timer, "disarm", tuple(timer.runs), last=True)

    def _set_until(self, timer: DeadManTimer) -> None:
        until = min(timer.runs.values()) + timer.timeout
        if until != timer.until or timer.until_at is None:
            timer.until = until
            timer.until_at = self._clock.now() + timedelta(seconds=until - self._clock.monotonic())

    def _record(self, account: str, what: str, severity: Severity) -> None:
        text = f"the dead-man timer of account {account} {what}"
        self._stored.add(TimerEvent(self._clock.now(), account, text, severity))

    def _save(self) -> None:
        blob = encode_record(self._stored)
        if blob != self._saved:
            self._store.put_live(LIVE_NAME, blob)
            self._saved = blob
