"""One account's dead-man timer: what is known of it, and whether it may run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, NamedTuple

from killswitch.graph.timer import TimerRule
from killswitch.model.instant import SECOND
from killswitch.model.snapshot import AccountSnapshot, Instant, InstrumentState
from killswitch.model.venue import DeadManRule, DeadManVenue
from killswitch.runner.deadman_memory import TimerView
from killswitch.runner.deadman_rules import CLOSED_TO_ORDERS, bared, cancellable
from killswitch.runner.metering import Meter

LOOK_EVERY = 300.0
"""Seconds between two questions whether the venue has announced maintenance."""

Doing = Literal["arm", "disarm", "look"]


class Obstacle(NamedTuple):
    """What keeps a timer from running. `pages`: whether a person must know."""

    why: str
    pages: bool = False


@dataclass(slots=True)
class Work:
    """A request that is under way: what it asks for, of which symbols, and by when the venue knows of it."""

    doing: Doing
    symbols: tuple[str, ...]
    sent: float
    task: asyncio.Task[str | None]
    """The venue's word on its maintenance, where it was asked and has any."""


@dataclass(slots=True)
class Timer:
    """One account's timer. Times are seconds of the runner's clock."""

    account: str
    rule: TimerRule
    venue: DeadManRule
    adapter: DeadManVenue
    meter: Meter
    patience: float
    state: Literal["armed", "off", "unknown"] = "off"
    until: float = 0.0
    until_at: Instant | None = None
    refreshed: float = 0.0
    symbols: tuple[str, ...] = ()
    why: str | None = "no tick has ended yet"
    pages: bool = False
    """Whether what keeps it off is news to a person."""
    failures: int = 0
    failure: str | None = None
    not_before: float = 0.0
    looked_at: float | None = None
    maintenance: str | None = None
    states: dict[str, InstrumentState] = field(default_factory=dict)
    work: Work | None = None

    @property
    def view(self) -> TimerView:
        """What `status` shows of it."""
        refreshed = None
        if self.state == "armed" and self.until_at is not None:
            refreshed = self.until_at - timedelta(seconds=self.timeout)
        return TimerView(
            self.account, self.rule.name, self.state, self.until_at, self.failure or self.why, refreshed
        )  # fmt: skip

    @property
    def timeout(self) -> float:
        return self.rule.timeout / SECOND

    @property
    def refresh(self) -> float:
        return self.rule.refresh / SECOND

    def look(self, account: AccountSnapshot) -> None:
        """Take in the symbols' states; they hold until they are given again."""
        for each in account.instruments or ():
            if each.state is not None:
                self.states[each.symbol] = each.state

    def obstacle(self, account: AccountSnapshot, went_off: int) -> Obstacle | None:
        """Why the timer must not run now; None if it may. `went_off`: how often it has in the last day."""
        return next(self._obstacles(account, went_off), None)

    def _obstacles(self, account: AccountSnapshot, went_off: int) -> Iterator[Obstacle]:
        if self.venue.a_day is not None and went_off >= self.venue.a_day:
            yield Obstacle(f"it has gone off {went_off} times in a day, and the venue allows no more", pages=True)
        if self.venue.quiet_for_maintenance:
            if self.maintenance is not None:
                yield Obstacle(f"the venue says {self.maintenance}", pages=True)
            if self.states and all(state in CLOSED_TO_ORDERS for state in self.states.values()):
                yield Obstacle("the venue takes no ordinary orders, as around its maintenance", pages=True)
        if not self.rule.accept_unprotected:
            bare = bared(account, self.venue)
            if bare:
                told = "would" if self.venue.takes_stops else "may"
                why = f"it {told} cancel the protective orders of {', '.join(bare)} and leave the position naked"
                yield Obstacle(f"{why}; `accept_unprotected: true` would accept that", pages=True)
            if bare is None and self.state != "armed":
                # One that runs is refreshed all the same: it is letting go of it that would cancel.
                yield Obstacle("it is not known which protective orders rest there")
        if self.venue.reach == "symbol" and not self.wanted(account):
            yield Obstacle("nothing rests there that it could cancel")

    def wants_look(self, now: float) -> bool:
        """Whether it is time to ask if announced maintenance is over."""
        return self.maintenance is not None and (self.looked_at is None or now - self.looked_at >= LOOK_EVERY)

    def wanted(self, account: AccountSnapshot) -> tuple[str, ...]:
        """The symbols to start it for; none where it is for the whole account."""
        if self.venue.reach != "symbol":
            return ()
        known = cancellable(account)
        return self.symbols if known is None else known
