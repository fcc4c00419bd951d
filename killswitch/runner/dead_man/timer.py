"""One account's dead-man timer: its state, and whether it may run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import timedelta
from typing import Literal

from msgspec import Struct, field

from killswitch.accounts.poll.request_meter import RequestMeter
from killswitch.accounts.poll.timer_budget import TimerBudget
from killswitch.graph.nodes import TimerRule
from killswitch.model.alert import Alert, Alerts
from killswitch.model.backoff import Backoff
from killswitch.model.inspection import Inspection
from killswitch.model.instant import SECOND, rfc3339
from killswitch.model.legible import legible
from killswitch.model.snapshot import AccountSnapshot, Instant, InstrumentState
from killswitch.model.venue import DeadManRule, VenueTimer
from killswitch.render.formats import count_of
from killswitch.runner.dead_man.timer_record import TimerView
from killswitch.runner.dead_man.timer_rules import (
    CLOSED_TO_ORDERS,
    cancellable,
    does_not_run,
    unprotected_reason,
    unprotected_symbols,
)

STATUS_QUERY_EVERY = 300.0
"""Seconds between two queries whether the venue has announced maintenance."""

OFF = ("fired", "maintenance", "unprotected", "limits")
"""The kinds of pages about a timer that must not run, in the order in which they are looked for."""
TimerAction = Literal["arm", "disarm", "query"]


NO_TICK = "no tick has ended yet"
"""Why no timer runs before the first tick."""
CHUNK = 5
"""Number of symbols that are refreshed before polls have their turn, where a timer is for one symbol."""
WHOLE_ACCOUNT = ""
"""The symbol of a timer for the whole account."""
FIRST_RETRY = 1.0
"""Seconds after a request that failed; the pauses grow up to the time between refreshes."""


class Obstacle(Struct, frozen=True):
    """A reason why a timer must not run. `page`: the kind of the page about it; None if it is not paged."""

    why: str
    page: str | None = None


class TimerRequest(Struct):
    """A round of requests that is under way: its action, its symbols and its results.

    `done`: confirmed symbols, with the seconds at which their request was sent; `failed`: symbols whose request failed,
    with these seconds and the error.
    """

    action: TimerAction
    symbols: tuple[str, ...]
    sent: float
    task: asyncio.Task[str | None] | None = None
    """Its result is the maintenance that the venue announces; None if it announces none."""
    done: list[tuple[str, float]] = field(default_factory=list)
    failed: list[tuple[str, float, Exception]] = field(default_factory=list)
    last: bool = False
    """Whether it belongs to a clean stop."""

    @property
    def chunks(self) -> Iterator[tuple[str, ...]]:
        """The symbols of each single request."""
        if self.symbols == (WHOLE_ACCOUNT,):
            yield ()
            return
        for start in range(0, len(self.symbols), CHUNK):
            yield self.symbols[start : start + CHUNK]


class SymbolRefusal(Struct, frozen=True):
    """The refusal of one symbol. `retry`: seconds of the clock before which it is not requested again."""

    times: int
    retry: float
    what: str


class DeadManTimer:
    """One account's timer. Times are seconds of the runner's clock."""

    def __init__(
        self,
        account: str,
        rule: TimerRule,
        requests: VenueTimer,
        inspect: Callable[[], Awaitable[Inspection]] | None,
        meter: RequestMeter,
        request_timeout: float,
        budget: TimerBudget,
    ) -> None:
        self.account = account
        self.rule = rule
        self.requests = requests
        self.inspect = inspect
        self.meter = meter
        self.request_timeout = request_timeout
        self.budget = budget
        self.state: Literal["armed", "off", "unknown"] = "off"
        self.until: float = 0.0
        self.until_at: Instant | None = None
        self.runs: dict[str, float] = {}
        """Symbol, or `WHOLE_ACCOUNT` → when the request was sent that started, or may have started, its timer."""
        self.refused: dict[str, SymbolRefusal] = {}
        self.why: str | None = NO_TICK
        self.page: str | None = None
        """The kind of the page about the reason for which it is off; None if it is not paged."""
        self.paged: bool = False
        """Whether a page about it is still open; the end of that problem must be paged as well."""
        self.failures: int = 0
        self.failure: str | None = None
        self.not_before: float = 0.0
        self.status_queried_at: float | None = None
        self.maintenance: str | None = None
        self.states: dict[str, InstrumentState] = {}
        self.request: TimerRequest | None = None

    @property
    def venue(self) -> DeadManRule:
        """The venue's rule for its timer."""
        return self.requests.rule

    @property
    def view(self) -> TimerView:
        """The timer as `status` shows it."""
        refreshed = None
        if self.state == "armed" and self.until_at is not None:
            refreshed = self.until_at - timedelta(seconds=self.timeout)
        return TimerView(self.account, self.rule.name, self.state, self.until_at, self.failure or self.why, refreshed)

    @property
    def alerts(self) -> Alerts:
        """Why the timer does not run or is not refreshed; unknown while neither is known. Its events notify the end."""
        key = f"dead-man/{self.account}"
        found = tuple(Alert(f"{key}/{what}", "page", text, resolves=False) for what, text in self._problems())
        is_known = found or self.state == "armed" or self.why not in (None, NO_TICK)
        if self.failure is not None:
            return Alerts(found, (f"{key}/off",))
        if self.page is not None:  # the reasons after the first one are not looked for
            return Alerts(found, tuple(f"{key}/off/{each}" for each in OFF[OFF.index(self.page) + 1 :]))
        return Alerts(found, () if is_known else (key,))

    def _problems(self) -> Iterator[tuple[str, str]]:
        """What does not work, and the message about it, which is unchanged until that is over."""
        if self.failure is not None:
            end = "it does not run"
            if self.state != "off" and self.until_at is not None:
                end = f"it fires at {rfc3339(self.until_at)} unless that ends"
            yield "requests", f"the dead-man timer of account {self.account}: {self.failure}; {end}"
        elif self.page is not None:
            yield f"off/{self.page}", does_not_run(self.account, self.why or "no reason is known")
        for symbol, refusal in self.refused.items():
            yield f"symbol/{symbol}", f"the dead-man timer of account {self.account} {refusal.what}; it is retried"

    @property
    def not_stopped(self) -> str:
        """The message of a clean stop that could not stop the timer."""
        at = "an unknown time" if self.until_at is None else rfc3339(self.until_at)
        return (
            f"the dead-man timer of account {self.account} could not be stopped ({self.reason}): it fires at {at} "
            "and cancels the orders that rest there"
        )

    def could_not(self, action: TimerAction) -> str:
        """The effect that a failed request did not have."""
        if action == "disarm":
            return "could not be stopped"
        return "could not be refreshed" if self.state == "armed" else "could not be started"

    @property
    def timeout(self) -> float:
        return self.rule.timeout / SECOND

    @property
    def refresh(self) -> float:
        return self.rule.refresh / SECOND

    @property
    def reason(self) -> str:
        """Why the last round of requests failed."""
        return self.failure or "; ".join(f"it {refusal.what}" for refusal in self.refused.values()) or "not known"

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols for which it runs, or may run."""
        return tuple(sorted(self.runs.keys() - {WHOLE_ACCOUNT}))

    def due(self, now: float, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """Symbols of `wanted` whose refresh is due, the next to fire first, then those for which it does not run."""
        every = self.budget.refresh_interval(self.account)
        runs = sorted((self.runs[each], each) for each in wanted if each in self.runs)
        due = [each for at, each in runs if now - at >= every or self.state != "armed"]
        return self.free(now, (*due, *(each for each in wanted if each not in self.runs)))

    def free(self, now: float, symbols: Iterable[str]) -> tuple[str, ...]:
        """The symbols without a refusal whose retry is still to come."""
        return tuple(each for each in symbols if each not in self.refused or now >= self.refused[each].retry)

    def pause(self, failures: int) -> float:
        """Seconds after so many failures in a row."""
        return Backoff(FIRST_RETRY, self.refresh).after(failures)

    def observe(self, account: AccountSnapshot) -> None:
        """Record the number of symbols, and the symbols' states, which are valid until the next ones."""
        self.budget.symbols[self.account] = max(len(self.wanted(account)), 1)
        for each in account.instruments or ():
            if each.state is not None:
                self.states[each.symbol] = each.state

    def obstacle(self, account: AccountSnapshot, fired: int) -> Obstacle | None:
        """Why the timer must not run now; None if it may. `fired`: how often it has fired in the last 24 h."""
        return next(self._obstacles(account, fired), None)

    def _obstacles(self, account: AccountSnapshot, fired: int) -> Iterator[Obstacle]:
        if self.venue.a_day is not None and fired >= self.venue.a_day:
            yield Obstacle(
                f"it has fired {count_of(fired, 'time')} in 24 h, the most that the venue allows", page="fired"
            )
        if self.venue.quiet_for_maintenance:
            if self.maintenance is not None:
                yield Obstacle(f"the venue announces {self.maintenance}", page="maintenance")
            if self.states and all(state in CLOSED_TO_ORDERS for state in self.states.values()):
                yield Obstacle("the venue accepts no ordinary orders, as around its maintenance", page="maintenance")
        if not self.rule.accept_unprotected:
            unprotected = unprotected_symbols(account, self.venue)
            if unprotected:
                yield Obstacle(unprotected_reason(unprotected, self.venue), page="unprotected")
            if unprotected is None and self.state != "armed":
                # A timer that runs is refreshed nevertheless: without a refresh it would cancel the orders.
                yield Obstacle("the protective orders there are unknown")
        if self.venue.reach == "symbol" and self.wanted(account) == ():
            yield Obstacle("no order rests there that it could cancel")
        if not self.budget.fits(self.account):
            number = len(self.wanted(account))
            why = f"polls and its refreshes for {number} symbol{'s' * (number != 1)} exceed the request limits"
            yield Obstacle(f"{why}: lengthen --interval or `timeout`, or lower closing_share", page="limits")

    def is_status_query_due(self, now: float) -> bool:
        """Whether to query now if the announced maintenance is over."""
        return self.maintenance is not None and (
            self.status_queried_at is None or now - self.status_queried_at >= STATUS_QUERY_EVERY
        )

    def wanted(self, account: AccountSnapshot) -> tuple[str, ...]:
        """The symbols to start it for; `WHOLE_ACCOUNT` if it is for the whole account."""
        if self.venue.reach != "symbol":
            return (WHOLE_ACCOUNT,)
        cancellable_symbols = cancellable(account)
        return self.symbols if cancellable_symbols is None else cancellable_symbols


def error_text(error: BaseException) -> str:
    """The message of an error, or its class if it has none."""
    return legible(str(error) or type(error).__name__)
