"""Position targets: a decision's target on one position and its orders, folded from the journal by `lifecycle`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Literal

from killswitch.journal.entries import (
    EXPIRED,
    NOT_HEARD,
    Absent,
    Entry,
    Filled,
    Planned,
    PositionKey,
    Rejected,
    Sending,
    Undecodable,
    known,
)
from killswitch.journal.lifecycle import (
    ASIDE,
    IN_FLIGHT,
    TRANSITIONS,
    ZERO,
    Event,
    ForbiddenTransitionError,
    State,
    event_of,
)
from killswitch.journal.orders import JournaledOrder, JournaledOrders
from killswitch.model.snapshot import OrderSide, Side
from killswitch.risk.trading_cost import Marked, delay_cost

LineName = tuple[str, str, Side]

_NO_STEP_DOWN = frozenset(
    {"above_maximum", "insufficient_margin", "blocked_by_order", "already_flat", "duplicate_client_order_id"}
)
"""Refusals that another order type would not avoid."""


_COVERED = frozenset(2**power for power in range(1, 20))
"""Numbers of consecutive `already_flat` refusals after which resting orders are looked for again."""


@dataclass(slots=True)
class Line:
    """A decision's target on one position, and its orders. Quantities in contracts.

    `decided` is how much the decision closes, `largest` the largest single order, `index` the index of the first intent
    in the decision. All fields from `state` on are folded from the journal only.
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
    purpose: Literal["reduce", "hop", "hedge"] = "reduce"
    after: int | None = None
    band: Decimal | None = None
    urgency: tuple[float, float, int, int] = (0.0, 0.0, 0, 0)
    """Of two lines with the same target, the one with the smaller value acts."""
    kept: Decimal = ZERO
    """For a hop: the holding of its symbol before, which is not sold."""

    state: State = State.READY
    attempt: int = 0
    spent: bool = True
    """Whether the client order id of `attempt` is used up, so that the next order needs a new one."""
    orders: JournaledOrders = field(default_factory=JournaledOrders)
    """Every order towards the target."""
    order: JournaledOrder | None = None
    """The order sent last."""
    expired: int = 0
    """Orders refused as expired since the last fill."""
    kept_name: bool = False
    """Whether a request under `client_order_id` that was reported absent may still arrive."""
    filled: Decimal = ZERO
    closed_before: Decimal = ZERO
    """Contracts of the position closed by any decision before work on this one started."""
    counted: frozenset[str | None] = frozenset()
    """Client order ids whose fills are included in `filled`."""
    aside: dict[str, JournaledOrder] = field(default_factory=dict)
    """Orders of unknown status that the line does not wait for."""
    abandoned: tuple[str, ...] = ()
    """Client order ids whose status was never known."""
    lost: Decimal = ZERO
    """Worst-case fills of the abandoned orders."""
    fruitless: int = 0
    """Consecutive attempts that the venue answered without a fill."""
    refusal: str | None = None
    """Reason of the venue's refusal of the last order, if it was refused."""
    trouble: str | None = None
    """Reason of the last refusal since the last fill."""
    said_flat: int = 0
    """Consecutive refusals as `already_flat`."""
    rung: int = 0
    tried: int = 0
    """Consecutive unsuccessful orders on `rung`: without a fill, or bounded and partly filled."""
    uncut: Decimal | None = None
    """Value of `largest` before it was cut for lack of margin."""
    whole: bool = False
    """Whether the last order filled completely."""
    swept: bool = False
    """Whether a whole-book close included it."""
    received: Decimal | None = ZERO
    """Proceeds of the fills in quote units; None once a part is unknown."""
    decided_at: Marked | None = None
    """The mark at the decision."""
    cost: Decimal | None = field(default=ZERO)
    """Fees and slippage so far in the account's currency, each fill against the mark when its order was sent; None once
    a part is unknown."""
    delay: Decimal | None = field(default=ZERO)
    """Delay cost: the market's move between decision and orders, for the fills; None once a part is unknown."""

    @property
    def key(self) -> PositionKey:
        return (self.symbol, self.position_side)

    @property
    def name(self) -> LineName:
        """Unique name of the line within its account."""
        return (self.decision, self.symbol, self.position_side)

    @property
    def client_order_id(self) -> str | None:
        """Client order id of the order sent last."""
        return None if self.order is None else self.order.first.client_order_id

    @property
    def order_id(self) -> str | None:
        """Venue id of the order sent last, once reported."""
        return None if self.order is None else self.order.order_id

    @property
    def sent_amount(self) -> Decimal:
        """Amount of the order sent last; `decided` if unreadable."""
        sending = None if self.order is None else self.order.sending
        if sending is None:
            return ZERO
        amount = known(sending.amount)
        return self.decided if amount is None else amount

    @property
    def may_fill(self) -> Decimal:
        """Upper bound of the fills under the client order id of the order sent last."""
        return ZERO if self.order is None else self.order.may_fill(self.decided)

    @property
    def sent_at(self) -> datetime | None:
        return None if self.order is None else self.order.sent_at

    @property
    def valid_for(self) -> float | None:
        """Validity of its request in seconds; None if unbounded."""
        return None if self.order is None else self.order.valid_for

    @property
    def bounded(self) -> bool:
        """Whether the order sent last had a limit price."""
        sending = None if self.order is None else self.order.sending
        return sending is not None and sending.price is not None

    @property
    def rests(self) -> bool:
        """Whether the order sent last was a resting limit order."""
        sending = None if self.order is None else self.order.sending
        return sending is not None and sending.order == "limit"

    @property
    def arrival(self) -> Marked | None:
        """The mark when the order was sent."""
        return None if self.order is None else self.order.arrival

    @property
    def in_flight(self) -> bool:
        return self.state in IN_FLIGHT

    @property
    def by_fills(self) -> bool:
        """Whether progress is measured by its own fills instead of the position."""
        return self.purpose != "reduce"

    @property
    def remaining(self) -> Decimal:
        """For a line measured by its fills: contracts still to trade."""
        return max(ZERO, self.decided - self.filled)

    @property
    def is_blocked(self) -> bool:
        """Whether resting orders blocked its last order; on accounts without margin they lock the holding.

        Binance uses one code (-2022) both for a closed position and for resting orders that cover it. After the first
        refusal the position may be closed and the snapshot late. After the second, for a position that a snapshot still
        shows, orders may cover it. After the third, once they are canceled, they were not the reason. They are looked
        for again after the fourth refusal, the eighth, and so on.
        """
        locked = self.refusal == "insufficient_margin" and not self.reduce_only and self.purpose != "hedge"
        return self.refusal == "blocked_by_order" or locked or self.said_flat in _COVERED

    @property
    def guarded(self) -> bool:
        """Whether the venue prevents its orders from closing more than the position: a full, reduce-only close."""
        return self.reduce_only and self.target == ZERO and not self.by_fills

    @property
    def outstanding(self) -> Decimal:
        """Worst-case fills of its orders of unknown status."""
        return sum((order.may_fill(self.decided) for order in self.aside.values()), self.lost)

    def check(self, entry: Entry) -> Event | None:
        """Return the event of an entry, or raise what `apply` would raise; an invalid entry must not be journaled."""
        event = event_of(entry)
        if event is None:
            return None
        if entry.client_order_id is not None and entry.client_order_id in self.aside:
            if event not in ASIDE:
                raise ForbiddenTransitionError(f"{self._words} {event.value} of {entry.client_order_id}, set aside")
        elif event not in TRANSITIONS[self.state]:
            raise ForbiddenTransitionError(f"{self._words} {event.value} while {self.state.value}")
        return event

    def apply(self, entry: Entry) -> None:
        """Apply one journal entry of this line; ForbiddenTransitionError if the transition is invalid."""
        event = self.check(entry)
        if event is None:
            self._note(entry)
            return
        order = self.orders.apply(entry)
        if entry.client_order_id is not None and entry.client_order_id in self.aside:
            self._apply_aside(entry, event)
            return
        self.state = TRANSITIONS[self.state][event]
        match entry:
            case Sending():
                self._sent(entry, order)
            case Filled():
                self._settled(entry)
            case Rejected():
                self._refused(entry)
            case Absent():
                self.spent = False
                self.kept_name = entry.early
                self.fruitless += 1
            case _ if event is Event.SWEPT:
                self.swept = True
                self.cost = self.delay = self.received = None
            case _ if event is Event.SET_ASIDE:
                self._set_aside()

    def recall(self, entry: Entry) -> None:
        """Apply an entry of the past, also an invalid transition: two programs may have written this journal.

        After an invalid transition the newest order has an unknown status, so that it is queried, and the cost is
        unknown. Entries after the end are ignored.
        """
        try:
            self.apply(entry)
        except ForbiddenTransitionError:
            self._muddle(entry)

    @property
    def _words(self) -> str:
        return f"{self.decision} {self.symbol} {self.position_side}:"

    def _note(self, entry: Entry) -> None:
        """Apply an entry that is no event: the mark at the decision, or an entry that cannot be decoded."""
        if isinstance(entry, Planned):
            self.decided_at = self.decided_at or entry.marked
        elif isinstance(entry, Undecodable) and self.state is not State.OVER:
            self._count_at_worst(entry)

    def _count_at_worst(self, entry: Undecodable) -> None:
        """Apply an undecodable entry: it may concern its order, an unknown order, or the position."""
        self.cost = self.delay = self.received = None
        self.whole = False  # no slice follows at once
        order = self.orders.apply(entry)
        if order is None:
            self.state = State.UNKNOWN if self.in_flight else State.SETTLED
        elif order is self.order:
            self.state = State.UNKNOWN
        elif order.name not in self.aside:
            self.aside[order.name] = order

    def _apply_aside(self, entry: Entry, event: Event) -> None:
        name = entry.client_order_id or ""
        if ASIDE[event]:
            return
        order = self.aside.pop(name)
        if isinstance(entry, Filled):
            self._count(entry, order.may_fill(self.decided), order.arrival)
        elif event is Event.ABANDONED:
            self.abandoned = (*self.abandoned, name)
            self.lost += order.may_fill(self.decided)
            self.cost = self.delay = self.received = None

    def _set_aside(self) -> None:
        if self.order is not None and self.client_order_id is not None:
            self.aside[self.client_order_id] = self.order
        self.spent, self.kept_name = True, False

    def _muddle(self, entry: Entry) -> None:
        if self.state is State.OVER:
            return
        order = self.orders.apply(entry)
        match entry:
            case Sending():
                self._sent(entry, order)
            case Filled():
                self._settled(entry)
        if event_of(entry) is Event.FINISHED:
            self.state = State.OVER
            return
        self.cost = self.delay = None
        if self.client_order_id is not None:
            self.state = State.UNKNOWN

    def _sent(self, entry: Sending, order: JournaledOrder | None) -> None:
        self.attempt = entry.attempt or 0
        self.order = order
        rung = known(entry.rung) or 0
        self.rung, self.tried = rung, self.tried if rung == self.rung else 0

    def _settled(self, entry: Filled) -> None:
        self.spent, self.kept_name = True, False
        self.refusal = None
        filled = self._count(entry, self.may_fill, self.arrival)
        self.whole = filled is not None and filled >= self.sent_amount
        if self.uncut is not None and filled:
            self.largest, self.uncut = self.uncut, None  # another leg has freed margin
        if filled is not None:
            good = filled >= self.sent_amount or (filled > ZERO and not self.bounded)
            self.tried = 0 if good else self.tried + 1

    def _count(self, entry: Filled, may_fill: Decimal, arrival: Marked | None) -> Decimal | None:
        """Count the fill of an order once; None if it was counted before."""
        if entry.client_order_id in self.counted:
            return None
        self.counted |= {entry.client_order_id}
        filled = known(entry.filled)
        if filled is None:
            # Worst case: it closed all that it could, so that nothing is closed twice on an unreadable answer.
            self.filled += entry.at_worst(may_fill)
            self.cost = self.delay = self.received = None
            self.fruitless += 1
            return ZERO
        self.filled += filled
        self.fruitless = 0 if filled > ZERO else self.fruitless + 1
        self.said_flat = 0
        self.expired = 0 if filled > ZERO else self.expired
        self.trouble = None if filled > ZERO else self.trouble
        price = known(entry.price)
        if filled > ZERO and self.received is not None:
            self.received = None if price is None else self.received + filled * price
        if filled > ZERO:
            self._count_cost(filled, price, known(entry.fee), arrival)
        return filled

    def _count_cost(self, filled: Decimal, price: Decimal | None, fee: Decimal | None, arrival: Marked | None) -> None:
        delay = delay_cost(self.side, filled, self.decided_at, arrival)
        self.delay = None if self.delay is None or delay is None else self.delay + delay
        if self.cost is None or price is None or fee is None or arrival is None:
            self.cost = None
        else:
            self.cost += fee + arrival.cost(self.side, filled, price)

    def _refused(self, entry: Rejected) -> None:
        self.refusal = entry.reason
        self.trouble = self.refusal
        self.expired += self.refusal == EXPIRED
        if self.refusal in NOT_HEARD:
            self.spent = False
            return
        # While the previous request may still arrive, a new client order id would let both be executed.
        self.kept_name = self.kept_name and entry.order is None
        self.spent = not self.kept_name
        self.fruitless += 1
        self.said_flat = self.said_flat + 1 if self.refusal == "already_flat" else 0
        if self.refusal == "above_maximum" or (self.refusal == "insufficient_margin" and self.reduce_only):
            self.uncut = self.largest if self.uncut is None and self.refusal == "insufficient_margin" else self.uncut
            self.largest = self.sent_amount / 2
        if self.refusal not in _NO_STEP_DOWN:
            self.tried += 1
