"""A decision's target on one position, and the orders towards it, folded from the journal through `lifecycle`."""

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
"""Refusals that another kind of order would not change."""


_COVERED = frozenset(2**power for power in range(1, 20))
"""After so many refusals in a row as `already_flat`, of a position that is shown, orders may cover it."""


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
    purpose: Literal["reduce", "hop", "hedge"] = "reduce"
    after: int | None = None
    band: Decimal | None = None
    urgency: tuple[float, float, int, int] = (0.0, 0.0, 0, 0)
    """Of two lines for the same target, the one with the smaller urgency acts."""
    kept: Decimal = ZERO
    """For a hop: what was held of its symbol before, and is not sold."""

    state: State = State.READY
    attempt: int = 0
    spent: bool = True
    """Whether the id of `attempt` is used up, so that the next order needs the next one."""
    orders: JournaledOrders = field(default_factory=JournaledOrders)
    """Every order towards the target."""
    order: JournaledOrder | None = None
    """The one that was sent last."""
    expired: int = 0
    """Orders that were refused because their time was up, since anything was filled."""
    kept_name: bool = False
    """Whether a request under `client_order_id` that was believed to be absent may arrive yet."""
    filled: Decimal = ZERO
    closed_before: Decimal = ZERO
    """What had been closed of the position, by whichever decision, when this one was taken up."""
    counted: frozenset[str | None] = frozenset()
    """Client order ids whose fills are in `filled`: each counts once."""
    aside: dict[str, JournaledOrder] = field(default_factory=dict)
    """Orders of unknown fate that the line does not wait for."""
    abandoned: tuple[str, ...] = ()
    """Client order ids whose fate was never known."""
    lost: Decimal = ZERO
    """What they may have filled, at worst."""
    fruitless: int = 0
    """Attempts in a row that the venue answered without filling anything."""
    refusal: str | None = None
    """Why the venue refused the last order, if it did."""
    trouble: str | None = None
    """The last refusal since something was filled."""
    said_flat: int = 0
    """How often in a row its orders were refused as `already_flat`."""
    rung: int = 0
    tried: int = 0
    """Orders in a row on `rung` that it was not good for: without a fill, or bounded and filled in part."""
    uncut: Decimal | None = None
    """`largest` as it was before margin cut it."""
    whole: bool = False
    """Whether the last order filled wholly."""
    swept: bool = False
    """Whether it was asked to be closed with the whole book."""
    received: Decimal | None = ZERO
    """What the fills came to in quote units; None once a part of it is unknown."""
    decided_at: Marked | None = None
    """The mark that was decided on."""
    cost: Decimal | None = field(default=ZERO)
    """Fees and slippage so far, each fill against the mark when its order was sent, account currency; None once a part
    of it is unknown."""
    delay: Decimal | None = field(default=ZERO)
    """What the market moved between the decision and the orders, for what they filled; None once a part is unknown."""

    @property
    def key(self) -> PositionKey:
        return (self.symbol, self.position_side)

    @property
    def name(self) -> LineName:
        """What tells it from every other line of its account."""
        return (self.decision, self.symbol, self.position_side)

    @property
    def client_order_id(self) -> str | None:
        """The name of the order that was sent last."""
        return None if self.order is None else self.order.first.client_order_id

    @property
    def order_id(self) -> str | None:
        """The venue's id of that order, once it was told."""
        return None if self.order is None else self.order.order_id

    @property
    def sent_amount(self) -> Decimal:
        """What it was sent for; all that was decided, where that cannot be read."""
        sending = None if self.order is None else self.order.sending
        if sending is None:
            return ZERO
        amount = known(sending.amount)
        return self.decided if amount is None else amount

    @property
    def may_fill(self) -> Decimal:
        """The most that was ever sent under its name, so the most that may fill under it."""
        return ZERO if self.order is None else self.order.may_fill(self.decided)

    @property
    def sent_at(self) -> datetime | None:
        return None if self.order is None else self.order.sent_at

    @property
    def valid_for(self) -> float | None:
        """Seconds for which its request was valid, if it said so."""
        return None if self.order is None else self.order.valid_for

    @property
    def bounded(self) -> bool:
        """Whether it had a limit."""
        sending = None if self.order is None else self.order.sending
        return sending is not None and sending.price is not None

    @property
    def rests(self) -> bool:
        """Whether it was one that rests."""
        sending = None if self.order is None else self.order.sending
        return sending is not None and sending.order == "limit"

    @property
    def arrival(self) -> Marked | None:
        """The mark when it was sent."""
        return None if self.order is None else self.order.arrival

    @property
    def in_flight(self) -> bool:
        return self.state in IN_FLIGHT

    @property
    def by_fills(self) -> bool:
        """Whether its own fills say how far it has come, and not the position."""
        return self.purpose != "reduce"

    @property
    def remaining(self) -> Decimal:
        """For a line that is counted by its own fills: what it has still to trade."""
        return max(ZERO, self.decided - self.filled)

    @property
    def is_blocked(self) -> bool:
        """Whether resting orders stood in the way of its last one; where nothing is lent they lock what is held.

        Binance has one code (-2022) for a position that is gone and for resting orders that cover it. Said once, it may
        be gone and the reading behind; said again of one that a reading shows, orders may cover it. Said a third time,
        after they were taken away, they were not why. They are looked for again the fourth time, the eighth and so on.
        """
        locked = self.refusal == "insufficient_margin" and not self.reduce_only and self.purpose != "hedge"
        return self.refusal == "blocked_by_order" or locked or self.said_flat in _COVERED

    @property
    def guarded(self) -> bool:
        """Whether the venue itself keeps its orders from closing more than is there: a full, reduce-only close."""
        return self.reduce_only and self.target == ZERO and not self.by_fills

    @property
    def outstanding(self) -> Decimal:
        """What its orders of unknown fate may fill yet, or have filled, at worst."""
        return sum((order.may_fill(self.decided) for order in self.aside.values()), self.lost)

    def check(self, entry: Entry) -> Event | None:
        """Its event; raises what `apply` would, and changes nothing: what cannot be folded must not be written down."""
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
        """Move by one journal entry of this line. ForbiddenTransitionError if it cannot follow."""
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
        """Move by an entry of the past, whether it follows or not: two hands may have written this journal.

        Where it does not, the newest order is of unknown fate, so that the venue is asked about it, and the cost
        is unknown. What came after the end moves nothing.
        """
        try:
            self.apply(entry)
        except ForbiddenTransitionError:
            self._muddle(entry)

    @property
    def _words(self) -> str:
        return f"{self.decision} {self.symbol} {self.position_side}:"

    def _note(self, entry: Entry) -> None:
        """An entry that is no event of the machine: the mark that was decided on, or one that nobody can decode."""
        if isinstance(entry, Planned):
            self.decided_at = self.decided_at or entry.marked
        elif isinstance(entry, Undecodable) and self.state is not State.OVER:
            self._count_at_worst(entry)

    def _count_at_worst(self, entry: Undecodable) -> None:
        """It may have said anything: of its order, of one that is not known here, or of the position."""
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
            self.largest, self.uncut = self.uncut, None  # another leg has made room
        if filled is not None:
            good = filled >= self.sent_amount or (filled > ZERO and not self.bounded)
            self.tried = 0 if good else self.tried + 1

    def _count(self, entry: Filled, may_fill: Decimal, arrival: Marked | None) -> Decimal | None:
        """Take in what an order has filled, once; None if that was done before."""
        if entry.client_order_id in self.counted:
            return None
        self.counted |= {entry.client_order_id}
        filled = known(entry.filled)
        if filled is None:
            # At worst it closed all that it could: nothing is closed twice on an answer that cannot be read.
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
        # Where the request before it may arrive yet, another name would let both be carried out.
        self.kept_name = self.kept_name and entry.order is None
        self.spent = not self.kept_name
        self.fruitless += 1
        self.said_flat = self.said_flat + 1 if self.refusal == "already_flat" else 0
        if self.refusal == "above_maximum" or (self.refusal == "insufficient_margin" and self.reduce_only):
            self.uncut = self.largest if self.uncut is None and self.refusal == "insufficient_margin" else self.uncut
            self.largest = self.sent_amount / 2
        if self.refusal not in _NO_STEP_DOWN:
            self.tried += 1
