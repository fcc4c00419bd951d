"""Short constructors for tests of the gate: a view of one account, a question, a moment."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from killswitch.graph.limits import BandRule, DayRule, LimitAmount, LimitsRule, SizeRule
from killswitch.limits.moment import GateMoment, LockState
from killswitch.limits.question import GateVerdict, OrderAsked, Question
from killswitch.limits.reservations import Reservations
from killswitch.limits.verdict import Judged, verdict
from killswitch.limits.view import DayState, GateAccount, GateView, ReadTimes
from killswitch.model.snapshot import AccountSnapshot, Health, Order, Position, WatchedPrice
from tests.worlds import START, account, rules

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
EVERY_TYPE = ("market", "limit", "stop", "take_profit", "trailing_stop")
NOW = START + timedelta(hours=1)
"""The time of a question; the gate has run for an hour."""


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def usdt(value: str) -> LimitAmount:
    return LimitAmount(Decimal(value), "money", "USDT")


def share(value: str) -> LimitAmount:
    return LimitAmount(Decimal(value), "percent")


def limits(**more: Any) -> LimitsRule:
    """Limits of `main` with only a staleness of 10 s, valid for 2 s, with a time-out of 30 s, unless given."""
    known: dict[str, Any] = {
        "stale_after": 10_000_000, "valid_for": 2_000_000, "request_timeout": 30_000_000, "cash": ("USDT", "USDC"),
    }  # fmt: skip
    return LimitsRule("limits", ("main",), **(known | more))


def sizes(*amounts: LimitAmount, symbols: tuple[str, ...] | None = None) -> tuple[SizeRule, ...]:
    return tuple(SizeRule(symbols=symbols, at_most=each) for each in amounts)


def day(**more: Any) -> DayRule:
    return DayRule(**more)


def band(at_most: str) -> tuple[BandRule, ...]:
    return (BandRule(at_most=Decimal(at_most)),)


def held(side: str, contracts: str, symbol: str = BTC, **more: Any) -> Position:
    """A position at a mark of 100."""
    return Position(symbol, side, Decimal(contracts), mark_price=Decimal(100), **more)  # type: ignore[arg-type]  # literal


def resting(name: str, side: str, amount: str, symbol: str = BTC, **more: Any) -> Order:
    return Order(name, symbol, side, Decimal(amount), name, **more)  # type: ignore[arg-type]  # literal


def state(*positions: Position, **more: Any) -> AccountSnapshot:
    """A swap account of 10,000 USDT in one-way mode, with marks of 100 for BTC and ETH, and steps of 0.001."""
    known: dict[str, Any] = {
        "position_mode": "one_way", "free": "10000", "instruments": [rules(BTC), rules(ETH)],
        "health": Health(latency_ms=50.0),
        "watched": tuple(
            WatchedPrice(symbol, Decimal(100), bid=Decimal("99.9"), ask=Decimal("100.1")) for symbol in (BTC, ETH)
        ),
    }  # fmt: skip
    known |= more
    return account(known.pop("equity", "10000"), known.pop("positions", positions), **known)


def gate_account(*positions: Position, rule: LimitsRule | None = None, **more: Any) -> GateAccount:
    """The account, whose reads began half a second ago, orders first; its venue enforces every flag."""
    own = {"reads", "enforced", "own", "filled", "seen_ids", "day", "pauses", "limits"}
    known: dict[str, Any] = {
        "reads": ReadTimes(NOW - seconds(0.5), NOW - seconds(0.6), NOW - seconds(0.5)), "enforced": EVERY_TYPE,
        "day": DayState("2024-01-01", START, Decimal(10000), Decimal(0), 0, Decimal(0)),
        "limits": limits() if rule is None else rule,
    }  # fmt: skip
    known |= {name: value for name, value in more.items() if name in own}
    return GateAccount(state(*positions, **{k: v for k, v in more.items() if k not in own}), **known)


def view(*accounts: GateAccount, **more: Any) -> GateView:
    return GateView(NOW, START, "sha256:1", accounts, **more)


def asks(side: str, amount: str, symbol: str = BTC, unit: str = "contracts", **more: Any) -> OrderAsked:
    return OrderAsked(symbol, side, Decimal(amount), unit, **more)  # type: ignore[arg-type]  # literals


def moment(at: datetime = NOW, lock: LockState | None = None, **more: Any) -> GateMoment:
    return GateMoment(at, more.pop("started_at", START), lock or LockState(), **more)


LOCKED = moment(lock=LockState("reduce_only", "drawdown"))


def judged(
    seen: GateAccount, *orders: OrderAsked, at: GateMoment | None = None, before: Reservations | None = None,
    name: str = "q1", **more: Any,
) -> Judged:  # fmt: skip
    """The verdict on these orders as one question, and the reservations after it."""
    return verdict(Question(name, "main", orders), view(seen, **more), before or Reservations(), at or moment())


def answer(seen: GateAccount, *orders: OrderAsked, **more: Any) -> GateVerdict:
    return judged(seen, *orders, **more).verdict
