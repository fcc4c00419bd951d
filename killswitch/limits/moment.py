"""What the gate knows at a question: the time, the lock, the sentinel, and whether the account's state proves anything.

`held_back` is step 4 of the checks, `doubt` step 5.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from killswitch.limits.book import side_of
from killswitch.limits.checks import CheckedLimits
from killswitch.limits.question import Reason
from killswitch.limits.view import GateAccount, GateView
from killswitch.model.instant import to_micros
from killswitch.model.lock_parts import strictest_at
from killswitch.model.snapshot import LockPart, Order, Side
from killswitch.model.words import LockMode

VALID_FOR: Final = timedelta(seconds=2)
REQUEST_TIMEOUT: Final = timedelta(seconds=30)
"""What counts for an account without a `Limits` document."""


class LockState(Struct, frozen=True):
    """The account's lock as its file says at the question. `mode` None: open. `only`: the locked parts; empty: all."""

    mode: LockMode | None = None
    reason: str = ""
    only: tuple[LockPart, ...] = ()

    def mode_at(self, side: Side, symbol: str) -> LockMode | None:
        """How a position is locked; None if it is not."""
        return strictest_at(self.only, side, symbol) if self.only else self.mode


class GateMoment(Struct, frozen=True):
    """What the gate reads at a question. `now` and `started_at` are times by the clock of the run.

    `sentinel`: why everything is halted by a sentinel file; None: there is none. An error while looking is one.
    `clock_went_back`: the gate's clock is behind what it was, or has not agreed with the venue's for a minute since.
    """

    now: datetime
    started_at: datetime
    lock_state: LockState = LockState()
    sentinel: str | None = None
    clock_went_back: bool = False


class Denial(Struct, frozen=True):
    """Why a question is denied. `retry`: whether a fresh read of the account may change that."""

    reason: Reason
    text: str
    retry: bool = False
    limits: CheckedLimits | None = None


def times_of(account: GateAccount) -> tuple[timedelta, timedelta]:
    """How long a verdict is valid, and the time-out of the bot's requests."""
    limits = account.limits
    if limits is None:
        return VALID_FOR, REQUEST_TIMEOUT
    return timedelta(microseconds=limits.valid_for), timedelta(microseconds=limits.request_timeout)


def is_warming_up(account: GateAccount, moment: GateMoment) -> bool:
    """Whether an order that was allowed before this gate started may still arrive unseen."""
    valid_for, timeout = times_of(account)
    return not account.reads.all_began_after(moment.started_at + valid_for + timeout)


def doubt(account: GateAccount, moment: GateMoment) -> tuple[Reason, str] | None:
    """Why nothing plain can be proved by the account's state now; None if it can."""
    state, reads, limits = account.state, account.reads, account.limits
    if reads.orders is not None and is_warming_up(account, moment):
        return "warming_up", "the gate has just started, and an order that was allowed before may still arrive"
    age = None if reads.positions is None else moment.now - reads.positions
    if state.quality == "ok" and (limits is None or age is None or age > timedelta(microseconds=limits.stale_after)):
        what = "of unknown age" if age is None else f"{age.total_seconds():.1f} s old"
        return "view_stale", f"the account's state is {what}"
    order = "orders were read after positions" if reads.orders is not None else "when orders were read is not stated"
    unknown: tuple[tuple[bool, Reason, str], ...] = (
        (state.quality != "ok", "account_unknown", f"the account is {state.quality}: {state.reason or 'no reason'}"),
        (state.positions is None, "positions_unknown", "the account's positions are unknown"),
        (state.orders is None, "orders_unknown", "the account's resting orders are unknown"),
        (
            not reads.is_ordered, "orders_newer_than_positions",
            f"{order}, so that a fill between the two may be in neither",
        ),
    )  # fmt: skip
    return next(((reason, text) for is_so, reason, text in unknown if is_so), None)


def held_back(account: GateAccount, moment: GateMoment, order: Order) -> Denial | None:
    """What holds back everything that opens: sentinel, lock, pause, maintenance; and an account without limits."""
    side, lock = side_of(order), moment.lock_state
    if moment.sentinel is not None:
        return Denial("sentinel", f"everything is halted by the sentinel file: {moment.sentinel}")
    if lock.mode_at(side, order.symbol) is not None:
        parts = [part for part in lock.only if part.reaches(side, order.symbol)]
        reason: Reason = "locked"
        if parts:
            reason = "symbol_locked" if all(part.symbols is not None for part in parts) else "side_locked"
            reason = "locked" if any(part.is_everything for part in parts) else reason
        return Denial(reason, f"{side} in {order.symbol} is locked: {lock.reason}")
    pause = next((each for each in account.pauses if each.reaches(side, order.symbol)), None)
    if pause is not None:
        return Denial("paused", f"{pause.scope} is paused: {pause.reason}")
    limits = account.limits
    if limits is None:
        return no_limits()
    now = to_micros(moment.now)
    window = next((each for each in limits.maintenance if each.begins <= now < each.ends), None)
    if window is not None:
        return Denial("maintenance", f"maintenance: {window.reason}")
    session = next((each for each in limits.maintenance_in if each.is_open(now)), None)
    return None if session is None else Denial("maintenance", f"maintenance: {session.name}")


def no_limits() -> Denial:
    """The denial of an entry in an account without limits."""
    return Denial("no_limits", "the account has no `Limits` document: add one whose `match` takes it in")


def is_back(view: GateView, now: datetime) -> bool:
    """Whether the run's clock went back a short time ago."""
    return view.clock_back_until is not None and now < view.clock_back_until
