"""Position targets: a decision's target on one position and its orders, folded from the journal by `lifecycle`."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Literal

from msgspec import Struct, field

from killswitch.journal.entries import (
    EXPIRED,
    NOT_PROCESSED,
    Absent,
    Entry,
    Filled,
    OrderSending,
    PlannedWork,
    PositionKey,
    Rejected,
    Restored,
    Undecodable,
    known,
)
from killswitch.journal.lifecycle import (
    DETACHED_TRANSITIONS,
    IN_FLIGHT,
    TRANSITIONS,
    ZERO,
    ForbiddenTransitionError,
    TargetEvent,
    TargetState,
    event_of,
)
from killswitch.journal.orders import JournaledOrder, JournaledOrders
from killswitch.model.computed_once import computed_once
from killswitch.model.snapshot import OrderSide, Side
from killswitch.risk.trading_cost import MarkedContract, delay_cost

TargetName = tuple[str, str, Side]

_NO_STEP_DOWN = frozenset(
    {"above_maximum", "insufficient_margin", "blocked_by_order", "already_flat", "duplicate_client_order_id"}
)
"""Refusals that another order type would not avoid."""


_COVERED = frozenset(2**power for power in range(1, 20))
"""Numbers of consecutive `already_flat` refusals after which resting orders are looked for again."""


class PositionTarget(Struct, dict=True):
    """A decision's target on one position, and its orders. Quantities in contracts.

    `decided` is how much the decision closes, `largest` the largest single order, `index` the index of the first intent
    in the decision. All fields from `state` on are folded from the journal only.
    """

    decision: str
    account: str
    symbol: str
    position_side: Side
    side: OrderSide
    target_size: Decimal
    decided: Decimal
    largest: Decimal
    reduce_only: bool
    rank: int
    index: int
    purpose: Literal["reduce", "hop", "hedge"] = "reduce"
    after: int | None = None
    band: Decimal | None = None
    urgency: tuple[float, float, int, int] = (0.0, 0.0, 0, 0)
    """Of two targets of equal size on one position, the one with the smaller value acts."""
    is_enforced: bool = False
    """Whether the venue is known to enforce reduce-only for its orders; elsewhere the flag prevents nothing."""
    is_own_part: bool = False
    """Whether others own the rest of the position: no more than was decided is closed, whatever the venue shows."""
    at_market: bool = False
    """Whether its orders skip the steps of the ladder before the first market order."""
    kept_holding: Decimal = ZERO
    """For a hop: the holding of its symbol before, which is not sold."""
    state: TargetState = TargetState.READY
    attempt: int = 0
    is_id_used: bool = True
    """Whether the client order id of `attempt` is used up, so that the next order needs a new one."""
    orders: JournaledOrders = field(default_factory=JournaledOrders)
    """Every order towards the target."""
    order: JournaledOrder | None = None
    """The order sent last."""
    expired_orders: int = 0
    """Orders refused as expired since the last fill."""
    can_still_arrive: bool = False
    """Whether a request under `client_order_id` that was reported absent may still arrive."""
    filled: Decimal = ZERO
    closed_before: Decimal = ZERO
    """Contracts of the position closed by any decision before work on this one started."""
    counted_orders: frozenset[str | None] = frozenset()
    """Client order ids whose fills are included in `filled`."""
    detached: dict[str, JournaledOrder] = field(default_factory=dict)
    """Orders of unknown status that the target does not wait for."""
    abandoned: tuple[str, ...] = ()
    """Client order ids whose status was never known."""
    abandoned_amount: Decimal = ZERO
    """Worst-case fills of the abandoned orders."""
    attempts_without_fill: int = 0
    """Consecutive attempts that the venue answered without a fill."""
    refusal: str | None = None
    """Reason of the venue's refusal of the last order, if it was refused."""
    last_refusal: str | None = None
    """Reason of the last refusal since the last fill."""
    flat_refusals: int = 0
    """Consecutive refusals as `already_flat`."""
    execution_step: int = 0
    """Index of the ladder step of the order sent last; `rung` in the journal."""
    failed_tries: int = 0
    """Consecutive unsuccessful orders on `execution_step`: without a fill, or bounded and partly filled."""
    largest_before_cut: Decimal | None = None
    """Value of `largest` before it was cut for lack of margin."""
    is_fully_filled: bool = False
    """Whether the last order filled completely."""
    is_in_whole_close: bool = False
    """Whether a whole-book close included it."""
    proceeds: Decimal | None = ZERO
    """Proceeds of the fills in quote units; None once a part is unknown."""
    decision_mark: MarkedContract | None = None
    """The mark at the decision."""
    cost: Decimal | None = ZERO
    """Fees and slippage so far in the account's currency, each fill against the mark when its order was sent; None once
    a part is unknown."""
    delay: Decimal | None = ZERO
    """Delay cost: the market's move between decision and orders, for the fills; None once a part is unknown."""

    @computed_once
    def key(self) -> PositionKey:
        """The position of the target within its account."""
        return self.symbol, self.position_side

    @computed_once
    def name(self) -> TargetName:
        """Unique name of the target within its account."""
        return self.decision, self.symbol, self.position_side

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
    def has_limit(self) -> bool:
        """Whether the order sent last had a limit price."""
        sending = None if self.order is None else self.order.sending
        return sending is not None and sending.price is not None

    @property
    def is_resting(self) -> bool:
        """Whether the order sent last was a resting limit order."""
        sending = None if self.order is None else self.order.sending
        return sending is not None and sending.order == "limit"

    @property
    def arrival(self) -> MarkedContract | None:
        """The mark when the order was sent."""
        return None if self.order is None else self.order.arrival

    @property
    def is_in_flight(self) -> bool:
        return self.state in IN_FLIGHT

    @property
    def is_counted_by_fills(self) -> bool:
        """Whether progress is measured by its own fills instead of the position."""
        return self.purpose != "reduce"

    @property
    def remaining(self) -> Decimal:
        """For a target measured by its fills: contracts still to trade."""
        return max(ZERO, self.decided - self.filled)

    @property
    def is_blocked(self) -> bool:
        """Whether resting orders blocked its last order; on accounts without margin they lock the holding.

        Binance uses one code (-2022) both for a closed position and for resting orders that cover it. After the first
        refusal the position may be closed and the snapshot late. After the second, for a position that a snapshot still
        shows, orders may cover it. After the third, once they are canceled, they were not the reason. They are looked
        for again after the fourth refusal, the eighth, and so on.
        """
        if self.is_own_part:
            return False  # the orders may be another strategy's, and are not cancelled for this close
        locked = self.refusal == "insufficient_margin" and not self.reduce_only and self.purpose != "hedge"
        return self.refusal == "blocked_by_order" or locked or self.flat_refusals in _COVERED

    @property
    def is_bounded_by_venue(self) -> bool:
        """Whether the venue prevents its orders from opening a position: sent reduce-only, and known to be enforced."""
        return self.reduce_only and self.is_enforced

    @property
    def is_capped_by_venue(self) -> bool:
        """Whether the venue prevents its orders from closing more than the position: a full close, where it does."""
        return self.is_bounded_by_venue and self.target_size == ZERO and not self.is_counted_by_fills

    @property
    def outstanding(self) -> Decimal:
        """Worst-case fills of its orders of unknown status."""
        return sum((order.may_fill(self.decided) for order in self.detached.values()), self.abandoned_amount)

    def check(self, entry: Entry) -> TargetEvent | None:
        """Return the event of an entry, or raise what `apply` would raise; an invalid entry must not be journaled."""
        event = event_of(entry)
        if event is None:
            return None
        if entry.client_order_id is not None and entry.client_order_id in self.detached:
            if event not in DETACHED_TRANSITIONS:
                raise ForbiddenTransitionError(f"{self._label} {event.value} of {entry.client_order_id}, set aside")
        elif event not in TRANSITIONS[self.state]:
            raise ForbiddenTransitionError(f"{self._label} {event.value} while {self.state.value}")
        return event

    def apply(self, entry: Entry) -> None:
        """Apply one journal entry of this target; ForbiddenTransitionError if the transition is invalid."""
        event = self.check(entry)
        if event is None:
            self._apply_non_event(entry)
            return
        order = self.orders.apply(entry)
        if entry.client_order_id is not None and entry.client_order_id in self.detached:
            self._apply_detached(entry, event)
            return
        self.state = TRANSITIONS[self.state][event]
        match entry:
            case OrderSending():
                self._apply_sending(entry, order)
            case Filled():
                self._apply_fill(entry)
            case Rejected():
                self._apply_rejection(entry)
            case Absent():
                self.is_id_used = False
                self.can_still_arrive = entry.early
                self.attempts_without_fill += 1
            case _ if event is TargetEvent.SWEPT:
                self.is_in_whole_close = True
                self.cost = self.delay = self.proceeds = None
            case _ if event is TargetEvent.SET_ASIDE:
                if self.order is not None and self.client_order_id is not None:
                    self.detached[self.client_order_id] = self.order
                self.is_id_used, self.can_still_arrive = True, False

    def replay(self, entry: Entry) -> None:
        """Apply an entry of the past, also an invalid transition: two programs may have written this journal.

        After an invalid transition the newest order has an unknown status, so that it is queried, and the cost is
        unknown. Entries after the end are ignored.
        """
        try:
            self.apply(entry)
        except ForbiddenTransitionError:
            self._mark_inconsistent(entry)

    @property
    def _label(self) -> str:
        return f"{self.decision} {self.symbol} {self.position_side}:"

    def _apply_non_event(self, entry: Entry) -> None:
        """Apply an entry that is no event: the mark at the decision, or an entry that cannot be decoded."""
        if isinstance(entry, PlannedWork):
            self.decision_mark = self.decision_mark or entry.marked
        elif isinstance(entry, Restored) and self.state is not TargetState.OVER:
            self.attempt, self.is_id_used = max(self.attempt, entry.attempt or 0), True
            self.state = self.state if self.is_in_flight else TargetState.SETTLED  # verified before the next order
            self.is_fully_filled = False  # no slice follows at once
            self.cost = self.delay = self.proceeds = None
        elif isinstance(entry, Undecodable) and self.state is not TargetState.OVER:
            self._apply_undecodable(entry)

    def _apply_undecodable(self, entry: Undecodable) -> None:
        """Apply an undecodable entry: it may concern its order, an unknown order, or the position."""
        self.cost = self.delay = self.proceeds = None
        self.is_fully_filled = False  # no slice follows at once
        order = self.orders.apply(entry)
        if order is None:
            self.state = TargetState.UNKNOWN if self.is_in_flight else TargetState.SETTLED
        elif order is self.order:
            self.state = TargetState.UNKNOWN
        elif order.name not in self.detached:
            self.detached[order.name] = order

    def _apply_detached(self, entry: Entry, event: TargetEvent) -> None:
        name = entry.client_order_id or ""
        if DETACHED_TRANSITIONS[event]:
            return
        order = self.detached.pop(name)
        if isinstance(entry, Filled):
            self._count_fill(entry, order.may_fill(self.decided), order.arrival)
        elif event is TargetEvent.ABANDONED:
            self.abandoned = (*self.abandoned, name)
            self.abandoned_amount += order.may_fill(self.decided)
            self.cost = self.delay = self.proceeds = None

    def _mark_inconsistent(self, entry: Entry) -> None:
        if self.state is TargetState.OVER:
            return
        order = self.orders.apply(entry)
        match entry:
            case OrderSending():
                self._apply_sending(entry, order)
            case Filled():
                self._apply_fill(entry)
        if event_of(entry) is TargetEvent.FINISHED:
            self.state = TargetState.OVER
            return
        self.cost = self.delay = None
        if self.client_order_id is not None:
            self.state = TargetState.UNKNOWN

    def _apply_sending(self, entry: OrderSending, order: JournaledOrder | None) -> None:
        self.attempt = entry.attempt or 0
        self.order = order
        step = known(entry.rung) or 0
        self.execution_step, self.failed_tries = step, self.failed_tries if step == self.execution_step else 0

    def _apply_fill(self, entry: Filled) -> None:
        self.is_id_used, self.can_still_arrive = True, False
        self.refusal = None
        filled = self._count_fill(entry, self.may_fill, self.arrival)
        self.is_fully_filled = filled is not None and filled >= self.sent_amount
        if self.largest_before_cut is not None and filled:
            self.largest, self.largest_before_cut = self.largest_before_cut, None  # another leg has freed margin
        if filled is not None:
            is_success = filled >= self.sent_amount or (filled > ZERO and not self.has_limit)
            self.failed_tries = 0 if is_success else self.failed_tries + 1

    def _count_fill(self, entry: Filled, may_fill: Decimal, arrival: MarkedContract | None) -> Decimal | None:
        """Count the fill of an order once; None if it was counted before."""
        if entry.client_order_id in self.counted_orders:
            return None
        self.counted_orders |= {entry.client_order_id}
        filled = known(entry.filled)
        if filled is None:
            # Worst case: it closed all that it could, so that nothing is closed twice on an unreadable answer.
            self.filled += entry.worst_case_fill(may_fill)
            self.cost = self.delay = self.proceeds = None
            self.attempts_without_fill += 1
            return ZERO
        self.filled += filled
        self.flat_refusals = 0
        if filled <= ZERO:
            self.attempts_without_fill += 1
            return filled
        self.attempts_without_fill = self.expired_orders = 0
        self.last_refusal = None
        price, fee = known(entry.price), known(entry.fee)
        if self.proceeds is not None:
            self.proceeds = None if price is None else self.proceeds + filled * price
        delay = delay_cost(self.side, filled, self.decision_mark, arrival)
        self.delay = None if self.delay is None or delay is None else self.delay + delay
        if self.cost is None or price is None or fee is None or arrival is None:
            self.cost = None
        else:
            self.cost += fee + arrival.cost(self.side, filled, price)
        return filled

    def _apply_rejection(self, entry: Rejected) -> None:
        self.refusal = self.last_refusal = entry.reason
        self.expired_orders += self.refusal == EXPIRED
        if self.refusal in NOT_PROCESSED:
            self.is_id_used = False
            return
        # While the previous request may still arrive, a new client order id would let both be executed.
        self.can_still_arrive = self.can_still_arrive and entry.order is None
        self.is_id_used = not self.can_still_arrive
        self.attempts_without_fill += 1
        self.flat_refusals = self.flat_refusals + 1 if self.refusal == "already_flat" else 0
        if self.refusal == "above_maximum" or (self.refusal == "insufficient_margin" and self.reduce_only):
            if self.largest_before_cut is None and self.refusal == "insufficient_margin":
                self.largest_before_cut = self.largest
            self.largest = self.sent_amount / 2
        if self.refusal not in _NO_STEP_DOWN:
            self.failed_tries += 1
