"""A scenario with all names resolved: what a run needs of its document."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from msgspec import Struct

from killswitch.graph.nodes import SignalRef
from killswitch.model.snapshot import Event
from killswitch.model.words import Market, Place
from killswitch.scenario.given_signals import GivenValue
from killswitch.scenario.heard import Hearing
from killswitch.scenario.series import Unread, Value

Notices = Literal["all", "pages", "none"]
"""Which notices fail a scenario if nothing expects them."""
Subject = Literal[
    "fires", "resets", "decides", "notice", "in_force", "trigger", "lock_in_force", "stops", "may_open", "switch"
]
DECIDED: tuple[Subject, ...] = ("fires", "resets", "decides")


TradeBy = Literal["stop", "liquidation", "adl"]


class PositionSeries(Struct, frozen=True):
    """A position by step. `price` None: it moves as the account's equity requires, from `first_price`.

    `trades`: what its contracts changed by, by step, where it was no plain order.
    """

    symbol: str
    side: Literal["long", "short"]
    contracts: list[Value]
    price: list[Value] | None
    first_price: Decimal
    contract_size: Decimal
    amount_step: Decimal | None = None
    price_step: Decimal | None = None
    liquidation: list[Value] | None = None
    margin: list[Value] | None = None
    trades: dict[int, TradeBy] = {}


class RestingOrder(Struct, frozen=True):
    """An order that rests during the whole scenario."""

    id: str
    symbol: str
    side: Literal["buy", "sell"]
    amount: Decimal
    price: Decimal | None
    trigger_price: Decimal | None
    reduce_only: bool | None


class MoneyFlow(Struct, frozen=True):
    """Money that enters (+) or leaves (−) at a step; `unexplained` has no row."""

    step: int
    kind: Literal["deposit", "withdrawal", "transfer", "funding", "fee", "unexplained"]
    amount: Decimal


class AccountSeries(Struct, frozen=True):
    """An account by step. `equity` None: positions and flows move it, from `first_equity`.

    `unread`: why it could not be read, by step; `absent`: the steps without an equity. `health` and `amounts`: series
    by the field of a snapshot that they are. `watch`: mark prices by symbol.
    """

    name: str
    venue: str
    market: Market
    currency: str
    equity: list[Value] | None
    first_equity: Decimal
    unread: dict[int, Unread]
    absent: frozenset[int]
    positions: tuple[PositionSeries, ...] | None
    orders: tuple[RestingOrder, ...] = ()
    flows: tuple[MoneyFlow, ...] = ()
    amounts: dict[str, list[Value]] = {}
    health: dict[str, list[Value]] = {}
    watch: dict[str, list[Value]] = {}


def stops_text(lines: Iterable[str]) -> str:
    """What is done about stops in one text, whatever the order; `none` for nothing."""
    return "; ".join(sorted(lines)) or "none"


class Outage(Struct, frozen=True):
    """The runner is down after step `last`, until step `first`."""

    last: int
    first: int


class Expectation(Struct, frozen=True):
    """What is expected at `at`, after the start. `name` is the stage, trigger, kind or mode that it is about."""

    at: timedelta
    subject: Subject
    policy: str
    scope: str
    name: str
    place: Place
    truth: str | None = None
    lock: str | None = None
    lock_of: tuple[str, ...] | None = None
    orders: tuple[str, ...] | None = None
    cancels: tuple[str, ...] | None = None
    source: str | None = None
    notifies: tuple[str, ...] = ()
    reason: str | None = None
    text: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What is expected, in one line: `fires warn (circuit-breaker on account/main)`."""
        key = self.subject.replace("_", " ")
        name = self.name if self.truth is None else f"{self.name} is {self.truth}"
        return f"{key} {name}{self.where}"

    @property
    def where(self) -> str:
        """The policy and the scope, in parentheses; empty for neither."""
        if not self.policy:
            return f" ({self.scope})" if self.scope else ""
        return f" ({self.policy} on {self.scope})"


class Steps(Struct, frozen=True):
    """When the steps of a scenario are, in microseconds after its start: `every` apart, or at `times`."""

    count: int
    every: int
    times: tuple[int, ...] = ()

    def at(self, step: int) -> int:
        """The time of a step."""
        return self.times[step] if self.times else self.every * step

    def step(self, at: int) -> int | None:
        """The step at a time; None between two steps, and after the last one."""
        if self.times:
            return self.times.index(at) if at in self.times else None
        step, rest = divmod(at, self.every)
        return None if rest or step >= self.count else step

    @property
    def last(self) -> int:
        """The time of the last step."""
        return self.times[-1] if self.times else self.every * (self.count - 1)

    def around(self, at: int) -> tuple[int, int]:
        """The times of the steps before and after a time that is between two of them."""
        if self.times:
            return max(each for each in self.times if each < at), min(each for each in self.times if each > at)
        return at // self.every * self.every, (at // self.every + 1) * self.every


class Scenario(Struct, frozen=True):
    """One scenario. Series have a value for each step; with a `recording` there are no series.

    `pushes`: the steps that count no tick. `signals`: values by step of signals that are not those of the book.
    `heard`: what the watchers of dead-man's switches hear, by switch.
    """

    name: str
    place: Place
    policies: tuple[str, ...]
    starts: datetime
    clock: Steps
    accounts: tuple[AccountSeries, ...]
    events: dict[int, tuple[Event, ...]]
    outages: tuple[Outage, ...]
    expectations: tuple[Expectation, ...]
    recording: str | None = None
    pending: str | None = None
    notices: Notices = "pages"
    pushes: frozenset[int] = frozenset()
    signals: dict[SignalRef, list[GivenValue]] = {}
    heard: dict[str, tuple[Hearing, ...]] = {}

    @property
    def steps(self) -> int:
        """How many steps it has."""
        return self.clock.count

    def at(self, step: int) -> datetime:
        """The time of a step."""
        return self.starts + timedelta(microseconds=self.clock.at(step))
