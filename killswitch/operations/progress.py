"""The progress of a close and its expected end, from its decision and its journal alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import Final, Literal

from msgspec import Struct

from killswitch.incident.record.order_outcomes import OrderOutcome
from killswitch.incident.record.results import AccountClose, DecisionStatus, Result, fold_result
from killswitch.journal.entries import Entry, Place, PlannedWork, known
from killswitch.model.decision import Decision, Unwinding
from killswitch.model.words import Cause

PROGRESS_FORMAT: Final = "killswitch.progress/v1"
ZERO = Decimal(0)


class OrderCounts(Struct, frozen=True):
    """Number of orders of a close by outcome; each is counted once. `unknown`: its status is not confirmed."""

    sent: int
    filled: int
    unknown: int
    refused: int
    partly: int = 0
    """Orders that are filled in part, or ended so; they are not in `filled`."""
    empty: int = 0
    """Orders that the venue ended without a fill."""


class OpenPosition(Struct, frozen=True):
    """A position whose close is blocked: the contracts left to close (null: unknown), and the reason."""

    account: str
    symbol: str
    position_side: str
    left: Decimal | None
    why: str


class CloseProgress(Struct, frozen=True):
    """One decision's close. `elapsed` in seconds since it was decided, until now or its end.

    `expected_end` is null if it cannot be estimated, and `unknown_because` is the reason.
    """

    at: datetime
    decision: str
    scope: str
    stage: str | None
    author: str | None
    reason: str | None
    cause: Cause | None
    standing: DecisionStatus
    positions: int
    done: int
    open: int
    orders: OrderCounts
    blocked: tuple[OpenPosition, ...]
    elapsed: float
    expected_end: datetime | None
    unknown_because: str | None
    format: Literal["killswitch.progress/v1"] = PROGRESS_FORMAT

    @property
    def changing(self) -> tuple[object, ...]:
        """Every field but the time: a change of them is a change of progress."""
        return (self.standing, self.positions, self.done, self.orders, self.blocked)


class _PositionProgress(Struct, frozen=True):
    """One position of a close: what is to be closed and what was closed, in contracts."""

    key: Place
    contracts: Decimal
    filled: Decimal
    left: Decimal | None
    done: bool
    largest: Decimal

    @property
    def share(self) -> Decimal:
        """The completed share of the close, 0 to 1."""
        return Decimal(1) if self.done or not self.contracts else min(Decimal(1), self.filled / self.contracts)

    @property
    def orders_left(self) -> int:
        """Number of further orders, if each of them fills."""
        remaining = max(ZERO, self.contracts - self.filled)
        if self.done:
            return 0
        return max(1, int((remaining / self.largest).to_integral_value(ROUND_CEILING))) if self.largest else 1


def progress_of(decision: Decision, journal: Sequence[Entry], now: datetime, *, is_runner_alive: bool) -> CloseProgress:
    """The progress of the close of `decision` at `now`. `is_runner_alive`: whether a runner works on it."""
    result = fold_result(decision, journal, None)
    orders = _by_position(result.orders)
    targets = _positions(decision, journal, result, orders)
    endings = {ending.account: ending for ending in result.endings}
    blocked = tuple(
        each
        for position in targets
        if (each := _blocked_position(position, orders.get(position.key, ()), endings)) is not None
    )
    ended = result.standing != "closing"
    until = max((each.at for each in result.endings if each.at), default=now) if ended else now
    left, why = None, None
    if not ended:
        left, why = _seconds_left(decision, targets, result, blocked, now, is_runner_alive=is_runner_alive)
    done = sum(position.done for position in targets)
    return CloseProgress(
        at=now,
        decision=decision.id,
        scope=decision.scope,
        stage=decision.stage,
        author=decision.author,
        reason=decision.reason,
        cause=decision.cause,
        standing=result.standing,
        positions=len(targets),
        done=done,
        open=len(targets) - done,
        orders=_counts(result.orders),
        blocked=blocked,
        elapsed=max(0.0, (until - decision.as_of).total_seconds()),
        expected_end=until if ended else None if left is None else now + timedelta(seconds=left),
        unknown_because=why,
    )


def scheduled_seconds(decision: Decision) -> float:
    """Seconds that the declared pace takes if every order fills; 0 without a declared pace."""
    unwinding = decision.unwinding
    if unwinding is None:
        return 0.0
    orders = Counter(intent.account for intent in decision.intents)
    slices = Counter((intent.account, intent.symbol, intent.position_side) for intent in decision.intents)
    return _scheduled(unwinding, max(orders.values(), default=0), max(slices.values(), default=0))


def _scheduled(unwinding: Unwinding, orders: int, slices: int) -> float:
    """Seconds for this many orders of one account, with this many slices of one position."""
    a_minute = unwinding.max_orders_per_minute
    by_rate = 0.0 if a_minute is None else orders * 60.0 / a_minute
    return max(by_rate, max(0, slices - 1) * (unwinding.pause or 0.0))


def _by_position(orders: Sequence[OrderOutcome]) -> Mapping[Place, Sequence[OrderOutcome]]:
    """The orders of each position, in the order of sending."""
    found: dict[Place, list[OrderOutcome]] = {}
    for order in orders:
        found.setdefault(order.place, []).append(order)
    return found


def _positions(
    decision: Decision, journal: Sequence[Entry], result: Result, orders: Mapping[Place, Sequence[OrderOutcome]]
) -> tuple[_PositionProgress, ...]:
    last_verified = {(each.account, each.symbol, each.position_side): each for each in result.verified}
    flat = {ending.account for ending in result.endings if ending.status == "flat"}
    largest = _largest(decision)
    found = []
    for entry in journal:
        if not isinstance(entry, PlannedWork) or entry.symbol is None:
            continue
        key: Place = (entry.account, entry.symbol, entry.position_side)
        latest = last_verified.get((entry.account or "", entry.symbol, entry.position_side))
        contracts = known(entry.contracts) or ZERO
        found.append(
            _PositionProgress(
                key=key,
                contracts=contracts,
                filled=sum((order.filled or ZERO for order in orders.get(key, ())), ZERO),
                left=None if latest is None else max(ZERO, latest.position - latest.target),
                done=entry.account in flat or (latest is not None and latest.position <= latest.target),
                largest=largest.get(key, contracts),
            )
        )
    return tuple(found)


def _largest(decision: Decision) -> Mapping[Place, Decimal]:
    """The largest slice of each position."""
    found: dict[Place, Decimal] = {}
    for intent in decision.intents:
        key = (intent.account, intent.symbol, intent.position_side)
        found[key] = max(intent.contracts, found.get(key, ZERO))
    return found


def _counts(orders: Sequence[OrderOutcome]) -> OrderCounts:
    return OrderCounts(
        sent=len(orders),
        filled=sum(1 for order in orders if order.filled and not _is_partly_filled(order)),
        unknown=sum(1 for order in orders if _is_unknown(order)),
        refused=sum(1 for order in orders if order.is_rejected),
        partly=sum(1 for order in orders if _is_partly_filled(order)),
        empty=sum(1 for order in orders if order.fate == "final" and order.filled == 0 and not order.did_nothing),
    )


def _is_partly_filled(order: OrderOutcome) -> bool:
    return bool(order.filled) and order.amount is not None and order.filled is not None and order.filled < order.amount


def _is_unknown(order: OrderOutcome) -> bool:
    return order.fate in ("set aside", "abandoned") or (order.fate == "in flight" and order.was_unknown)


def _blocked_position(
    position: _PositionProgress, orders: Sequence[OrderOutcome], endings: Mapping[str, AccountClose]
) -> OpenPosition | None:
    """The reason why the close of a position is blocked; None if it is done or proceeds."""
    if position.done:
        return None
    unknown = [order.client_order_id for order in orders if _is_unknown(order)]
    ending = endings.get(position.key[0] or "")
    why = None
    if unknown:
        why = f"the status of order {unknown[-1]} is unknown"
    elif orders and orders[-1].is_rejected:
        why = orders[-1].outcome + (f" ({orders[-1].text})" if orders[-1].text else "")
    elif ending is not None:
        why = ending.reason or ending.status
    if why is None:
        return None
    account, symbol, side = position.key
    return OpenPosition(account or "", symbol or "", side or "", position.left, why)


def _seconds_left(
    decision: Decision,
    positions: Sequence[_PositionProgress],
    result: Result,
    blocked: Sequence[OpenPosition],
    now: datetime,
    *,
    is_runner_alive: bool,
) -> tuple[float | None, str | None]:
    """The expected seconds until the end, or why they are unknown.

    The longer of two estimates counts: the pace so far, extrapolated to the rest, and the declared pace.
    """
    open_count = sum(not position.done for position in positions)
    if not is_runner_alive:
        return None, "no runner is running to work on it"
    if open_count and open_count == len(blocked):
        return None, "every open position is held up"
    if blocked:
        return None, f"{len(blocked)} of {open_count} open positions {'is' if len(blocked) == 1 else 'are'} held up"
    expected = [it for it in (_by_pace(positions, result, now), _by_schedule(decision, positions)) if it is not None]
    return (max(expected), None) if expected else (None, "nothing has filled yet")


def _by_pace(positions: Sequence[_PositionProgress], result: Result, now: datetime) -> float | None:
    if not positions or not result.orders:
        return None
    share = sum((position.share for position in positions), ZERO) / len(positions)
    elapsed = (now - min(order.sent_at for order in result.orders)).total_seconds()
    return float(Decimal(max(0.0, elapsed)) * (1 - share) / share) if share else None


def _by_schedule(decision: Decision, positions: Sequence[_PositionProgress]) -> float | None:
    """Seconds by the declared pace, which spaces the orders of each account and the slices of each position."""
    unwinding = decision.unwinding
    if unwinding is None or (unwinding.max_orders_per_minute is None and unwinding.pause is None):
        return None
    orders: dict[str | None, int] = {}
    for position in positions:
        orders[position.key[0]] = orders.get(position.key[0], 0) + position.orders_left
    return _scheduled(
        unwinding, max(orders.values(), default=0), max((position.orders_left for position in positions), default=0)
    )
