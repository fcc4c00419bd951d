"""The life of a decision's target on one position: a state machine whose events are journal entries.

What is not in the journal did not happen: the running program and the one that restarts after a kill -9 fold
the same entries through the same table, so that both know the same.

| state       | means                                              | leaves it by                                     |
|-------------|----------------------------------------------------|--------------------------------------------------|
| `READY`     | nothing is in flight; may send                     | `sending`, `verified`, `finished`                |
| `SENDING`   | journaled; the request may or may not have left    | the venue's answer, or the lack of one           |
| `UNKNOWN`   | no answer said what happened: ask, never send      | what the venue says when asked                   |
| `WORKING`   | the venue has the order, and it is not final       | `filled`                                         |
| `SETTLED`   | final at the venue; its effect is not verified yet | `verified`: nothing more is sent before          |
| `AT_TARGET` | the venue's own positions show the target reached  | `verified` (it grew again), `finished`           |
| `OVER`      | the decision's work on the account has ended       | nothing                                          |

Journaled **before** the deed: `planned` (with the decision, in the tick's transaction) and `sending` (before the
request leaves). Journaled **after** it, as the answer: `acknowledged`, `filled`, `rejected`, `unknown`, `absent`,
`verified`, `finished`. Killed between a deed and its answer, the line is `SENDING`, and is asked about.

A client order id is spent once the venue has answered about it. After `absent`, and after a refusal to listen,
the same id is sent again: should the first request still arrive, the venue refuses the second as a duplicate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Final

from killswitch.closing.pace import Pace
from killswitch.model.snapshot import OrderSide, Side
from killswitch.model.store import JournalEntry

PositionKey = tuple[str, Side]
LineName = tuple[str, str, Side]
ZERO = Decimal(0)


class State(Enum):
    READY = "ready"
    SENDING = "sending"
    UNKNOWN = "unknown"
    WORKING = "working"
    SETTLED = "settled"
    AT_TARGET = "at target"
    OVER = "over"


class Event(Enum):
    """A journal entry, as far as it moves the machine."""

    SENDING = "sending"
    ACKNOWLEDGED = "acknowledged"
    FATE_UNKNOWN = "unknown"
    FILLED = "filled"
    REJECTED = "rejected"
    ABSENT = "absent"
    VERIFIED_AT = "verified at target"
    VERIFIED_ABOVE = "verified above target"
    FINISHED = "finished"


_MOVING: Final = frozenset(event.value for event in Event)
_ANSWERS: Final = {
    Event.ACKNOWLEDGED: State.WORKING,
    Event.FILLED: State.SETTLED,
    Event.REJECTED: State.READY,
    Event.ABSENT: State.READY,
}
_VERDICTS: Final = {Event.VERIFIED_AT: State.AT_TARGET, Event.VERIFIED_ABOVE: State.READY}

TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = {
    State.READY: {Event.SENDING: State.SENDING, Event.FINISHED: State.OVER, **_VERDICTS},
    State.SENDING: {Event.FATE_UNKNOWN: State.UNKNOWN, **_ANSWERS},
    State.UNKNOWN: {**_ANSWERS},
    State.WORKING: {Event.FILLED: State.SETTLED},
    State.SETTLED: {**_VERDICTS},
    State.AT_TARGET: {Event.FINISHED: State.OVER, **_VERDICTS},
    State.OVER: {},
}
IN_FLIGHT: Final = frozenset({State.SENDING, State.UNKNOWN, State.WORKING})

NOT_HEARD: Final = frozenset({"rate_limited", "venue_down"})
"""Reasons of `rejected` for which the venue did not even look at the order: they spend neither id nor attempt."""


class ForbiddenTransitionError(Exception):
    """A journal entry does not follow from the ones before it: a defect of this program, or a foreign hand."""


def event_of(entry: JournalEntry) -> Event | None:
    """What `entry` does to a line; None for kinds that do nothing to it (`planned`, `cancelled`, `locked`)."""
    if entry.kind == "verified":
        position, target = number(entry.data.get("position")), number(entry.data.get("target"))
        reached = position is not None and target is not None and position <= target
        return Event.VERIFIED_AT if reached else Event.VERIFIED_ABOVE
    return Event(entry.kind) if entry.kind in _MOVING else None


def number(text: str | None) -> Decimal | None:
    """A quantity or a price from a journal entry; None, unknown, for text that is no finite number."""
    try:
        value = Decimal(text) if text else None
    except InvalidOperation:
        return None
    return value if value is not None and value.is_finite() else None


@dataclass(slots=True)
class Line:
    """A decision's target on one position, and the orders towards it. Quantities in contracts.

    `decided` is how much the decision closes, `largest` the biggest single order, `index` the place of the
    first intent in the decision. What follows below is folded from the journal and nothing else.
    """

    decision: str
    account: str
    symbol: str
    position_side: Side
    side: OrderSide
    target: Decimal
    decided: Decimal
    largest: Decimal
    reduce_only: bool
    rank: int
    index: int

    state: State = State.READY
    attempt: int = 0
    spent: bool = True
    """Whether the id of `attempt` is used up, so that the next order needs the next one."""
    client_order_id: str | None = None
    order_id: str | None = None
    sent_amount: Decimal = ZERO
    may_fill: Decimal = ZERO
    """The most that was ever sent under `client_order_id`, so the most that may fill under it."""
    sent_at: datetime | None = None
    filled: Decimal = ZERO
    counted: frozenset[str | None] = frozenset()
    """Client order ids whose fills are in `filled`: each counts once."""
    fruitless: int = 0
    """Attempts in a row that the venue answered without filling anything."""
    refusal: str | None = None
    """Why the venue refused the last order, if it did."""
    mark: Decimal | None = None
    value: Decimal | None = None
    """The account currency that one contract moves when the mark doubles."""
    cost: Decimal | None = field(default=ZERO)
    """Fees and slippage against `mark` so far, account currency; None once a part of it is unknown."""

    @property
    def key(self) -> PositionKey:
        return (self.symbol, self.position_side)

    @property
    def name(self) -> LineName:
        """What tells it from every other line of its account."""
        return (self.decision, self.symbol, self.position_side)

    @property
    def in_flight(self) -> bool:
        return self.state in IN_FLIGHT

    def apply(self, entry: JournalEntry) -> None:
        """Move by one journal entry of this line. ForbiddenTransitionError if it cannot follow."""
        event = event_of(entry)
        if event is None:
            self._take_mark(entry.data)
            return
        if event not in TRANSITIONS[self.state]:
            raise ForbiddenTransitionError(
                f"{self.decision} {self.symbol} {self.position_side}: {event.value} while {self.state.value}"
            )
        self.state = TRANSITIONS[self.state][event]
        match event:
            case Event.SENDING:
                self._sent(entry)
            case Event.ACKNOWLEDGED:
                self.order_id = entry.data.get("order")
            case Event.FILLED:
                self._settled(entry)
            case Event.REJECTED:
                self._refused(entry.data)
            case Event.ABSENT:
                self.spent = False
                self.fruitless += 1

    def stuck(self, now: datetime, pace: Pace) -> str | None:
        """Why a person should look at it, though it is still being tried; None if there is no reason to."""
        if self.in_flight and self.sent_at is not None:
            if (now - self.sent_at).total_seconds() < pace.resting_for:
                return None
            how = "rests" if self.state is State.WORKING else "is of unknown fate"
            return f"order {self.client_order_id} on {self.symbol} {how} since {self.sent_at:%Y-%m-%d %H:%M:%S} UTC"
        if self.state is not State.AT_TARGET and self.fruitless >= pace.fruitless_attempts:
            return f"{self.symbol} is refused again and again ({self.refusal}), and tried again"
        return None

    def recall(self, entry: JournalEntry) -> None:
        """Move by an entry of the past, whether it follows or not: two hands may have written this journal.

        Where it does not, the newest order is of unknown fate, so that the venue is asked about it, and the cost
        is unknown. What came after the end moves nothing.
        """
        try:
            self.apply(entry)
        except ForbiddenTransitionError:
            self._muddle(entry)

    def _muddle(self, entry: JournalEntry) -> None:
        if self.state is State.OVER:
            return
        match event_of(entry):
            case Event.SENDING:
                self._sent(entry)
            case Event.FILLED:
                self._settled(entry)
            case Event.FINISHED:
                self.state = State.OVER
                return
        self.cost = None
        if self.client_order_id is not None:
            self.state = State.UNKNOWN

    def _take_mark(self, data: Mapping[str, str | None]) -> None:
        mark, value = number(data.get("mark")), number(data.get("value"))
        if self.mark is None and mark is not None and value is not None:
            self.mark, self.value = mark, value

    def _sent(self, entry: JournalEntry) -> None:
        self.attempt = entry.attempt or 0
        self.client_order_id = entry.client_order_id
        amount = number(entry.data.get("amount"))
        self.sent_amount = self.decided if amount is None else amount
        self.may_fill = self.sent_amount if self.spent else max(self.may_fill, self.sent_amount)
        self.sent_at = entry.at
        self.order_id = None
        self._take_mark(entry.data)

    def _settled(self, entry: JournalEntry) -> None:
        data = entry.data
        self.spent = True
        self.refusal = None
        if entry.client_order_id in self.counted:
            return
        self.counted |= {entry.client_order_id}
        filled = number(data.get("filled"))
        if filled is None:
            # At worst it closed all that it could: nothing is closed twice on an answer that cannot be read.
            self.filled += self.may_fill
            self.cost = None
            self.fruitless += 1
            return
        self.filled += filled
        self.fruitless = 0 if filled > ZERO else self.fruitless + 1
        self._count_cost(filled, number(data.get("price")), number(data.get("fee")))

    def _count_cost(self, filled: Decimal, price: Decimal | None, fee: Decimal | None) -> None:
        if filled == ZERO or self.cost is None:
            return
        if price is None or fee is None or not self.mark or self.value is None:
            self.cost = None
            return
        fall = (self.mark - price) / self.mark
        self.cost += fee + filled * self.value * (fall if self.side == "sell" else -fall)

    def _refused(self, data: Mapping[str, str | None]) -> None:
        self.refusal = data.get("reason")
        self.spent = self.refusal not in NOT_HEARD
        if self.spent:
            self.fruitless += 1
        if self.refusal == "above_maximum":
            self.largest = self.sent_amount / 2
