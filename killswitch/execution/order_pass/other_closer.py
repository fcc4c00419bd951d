"""Another closer on the same account, to which this one yields: may it send orders now, and how much at most?

A dead-man's watcher and the runner may wake in the same second, each with a store and credentials of its own. Where the
venue enforces reduce-only they cannot sell more than there is, and neither waits. Elsewhere the runner has the right
and the watcher yields. One poll before the first order is no lock, because both polls may precede both orders, so the
watcher polls twice, `LEAST_APART` apart, and sends only if the other has done nothing in between (ADR 0172).

The other's orders are those with client order ids of this program that are not in the journal of this store.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Final

from msgspec import Struct

from killswitch.execution.account_context import AccountContext
from killswitch.execution.decide.position_trust import Distrust, positions_of
from killswitch.execution.decide.target_verdict import TargetAction, size_order
from killswitch.execution.report_validation import finite
from killswitch.execution.state.execution_state import ExecutionState
from killswitch.journal.entries import Cancelled, PositionKey
from killswitch.journal.lifecycle import ZERO
from killswitch.journal.targets import PositionTarget
from killswitch.model.snapshot import AccountSnapshot, Instrument, Order
from killswitch.model.venue import is_ours

LEAST_APART: Final = 3.0
"""Seconds between the two polls. Of closers that wake within ±1 s at a venue that shows an order after 300 ms, 19% sell
too much after 1 s, 0.5% after 3 s and 0.005% after 10 s (ADR 0172; `tests/faults/two_closers` plays it)."""
REPORTED_AFTER: Final = 30.0
"""Seconds without an order of ours after which people are notified, although every poll is answered."""
LONGEST_FALL: Final = 30.0
"""Seconds for which a falling position is left to whoever reduces it, where no order shows that it is another closer:
a bot that trades all the time must not prevent the close."""
STALE_AFTER: Final = 10.0
"""Seconds after which an unchanged order of the other is cancelled: a closer that lives replaces its orders sooner, and
one that is dead would keep the position open with them."""
LONGEST_ROUND: Final = 1.0
"""Seconds after the later poll at which its permission lapses: cancels and request limits may hold orders up."""
_RETRIED_AFTER: Final = 1.0
"""Seconds after which a poll that failed is repeated."""


OrderKey = tuple[str, str]
"""Symbol and venue id: some venues number the orders of each symbol."""


class OtherActivity(Struct, frozen=True):
    """One poll: what is held, and the other's open orders. Quantities in contracts.

    `at`: monotonic seconds at which the last answer arrived. `orders`: without conditional ones, which do nothing
    until their trigger. `closed`: what our own orders had closed of each position by then. `is_hedged`: whether
    a position side of an order counts; elsewhere each sale reduces a long, whatever it was sent for.
    """

    at: float
    positions: Mapping[PositionKey, Decimal]
    orders: Mapping[OrderKey, Order]
    closed: Mapping[PositionKey, Decimal]
    is_hedged: bool = False

    def outstanding(self, key: PositionKey) -> Decimal:
        """The most that the other's orders may still close of the position; infinite if an amount is unreadable."""
        return sum((_left(order) for order in self.orders.values() if self.reduces(order, key)), ZERO)

    def reduces(self, order: Order, key: PositionKey) -> bool:
        """Whether the order may reduce the position; one without a position side may in hedge mode, too."""
        symbol, side = key
        closes = "sell" if side == "long" else "buy"
        is_of_side = not self.is_hedged or order.position_side in (None, side)
        return order.symbol == symbol and order.side == closes and is_of_side

    def has_fallen_since(self, before: OtherActivity, key: PositionKey) -> bool:
        """Whether the position fell by more than our own orders have closed."""
        ours = self.closed.get(key, ZERO) - before.closed.get(key, ZERO)
        return self.positions.get(key, ZERO) < before.positions.get(key, ZERO) - max(ours, ZERO)

    def has_same_orders(self, before: OtherActivity) -> bool:
        """Whether the other has the same open orders as before, and none of them has filled further."""
        return {name: _left(order) for name, order in self.orders.items()} == {
            name: _left(order) for name, order in before.orders.items()
        }


def _left(order: Order) -> Decimal:
    amount, filled = finite(order.amount), ZERO if order.filled is None else finite(order.filled)
    return Decimal("Infinity") if amount is None or filled is None else max(ZERO, amount - filled)


class OtherCloser:
    """Permits the orders of one account round by round. It sends no order, and cancels stale ones of the other."""

    def __init__(
        self, context: AccountContext, state: ExecutionState, observe: Callable[[AccountSnapshot], None]
    ) -> None:
        """`observe` is called with each snapshot polled here, and calls `collect`: fills are reported only once."""
        self._context = context
        self._state = state
        self._observe = observe
        self._first: OtherActivity | None = None
        """The earlier of the two polls."""
        self._permission: OtherActivity | None = None
        """The later one, while a round is sent on it."""
        self._has_other_filled = False
        """Whether a fill of the other was reported since the earlier poll."""
        self._fills: set[str] = set()
        """Ids of the other's fills."""
        self._has_sent = False
        self._not_before = -math.inf
        self._wanted_since: float | None = None
        """Since when orders have been due without any being permitted."""
        self._falls_since: dict[PositionKey, float] = {}
        self._unchanged_since: dict[OrderKey, float] = {}
        """Since when an order of the other has been seen unchanged."""
        self._unanswered: str | None = None
        self._reason = ""

    # What the passes need to know

    def must_yield(self, target: PositionTarget) -> bool:
        """Whether the target's orders need permission, because the venue does not limit them to the position.

        Unknown counts as not limited.
        """
        return not target.is_bounded_by_venue

    @property
    def next_at(self) -> float:
        """Monotonic seconds at which the next poll is due; infinite if no order waits for one."""
        return math.inf if self._wanted_since is None else self._not_before

    def problems(self) -> dict[str, str]:
        """Why orders wait, once an operator must know: identifier → text."""
        account = self._context.account
        if self._unanswered is not None:
            text = f"account {account}: nothing is sent, because the venue does not show what another closer does there"
            return {"another-closer/unanswered": f"{text} ({self._unanswered}); it is polled again"}
        since = self._wanted_since
        if since is None or self._context.monotonic() - since < REPORTED_AFTER:
            return {}
        text = f"account {account}: nothing has been sent for {REPORTED_AFTER:g} s, because {self._reason}"
        return {"another-closer/yielding": text}

    # A round of orders

    async def begin_round(self, targets: Iterable[PositionTarget]) -> None:
        """Poll the account if that is due, and permit or refuse a round of orders for `targets`, which are due."""
        self._permission, self._has_sent = None, False
        wanted = [target for target in targets if self.must_yield(target)]
        if not wanted:
            self._wanted_since = self._unanswered = None
            return
        now = self._context.monotonic()
        if self._wanted_since is None:
            self._wanted_since, self._reason = now, "the two polls are not done"
        if now < self._not_before or not self._has_room(now):
            return
        found = await self._poll()
        if found is None:
            self._not_before = self._context.monotonic() + _RETRIED_AFTER
            return
        before, self._first, self._not_before = self._first, found, found.at + LEAST_APART
        has_filled, self._has_other_filled = self._has_other_filled, False
        if before is None:
            return
        await self._cancel_stale(before, found, wanted)
        falls = self._has_new_falls(before, found)
        if has_filled or not found.has_same_orders(before):
            self._reason = "another closer sends orders there, and this one yields to it"
        elif falls:
            self._reason = "others reduce the positions"
        else:
            self._reason = "others have orders that cover the positions"
            self._permission = found

    def permitted(self, target: PositionTarget, amount: Decimal, instrument: Instrument | None) -> Decimal:
        """How much of `amount` contracts may be sent for the target in this round; 0 if nothing.

        At most the position of the later poll, less what the other's orders and ours may still close, and less what is
        to be left of it.
        """
        if not self.must_yield(target):
            return amount
        if self._permission is None or self._context.monotonic() - self._permission.at > LONGEST_ROUND:
            return ZERO
        if target.is_counted_by_fills:
            return amount  # its amount is what another order has brought in, and no position
        most = self._most(self._permission, target)
        if amount <= most:
            return amount
        verdict = size_order(target, most, instrument) if most > ZERO else None
        return verdict.amount if verdict is not None and verdict.do is TargetAction.SEND else ZERO

    def record_sent(self, target: PositionTarget) -> None:
        """Record that an order of the target was sent: the next round needs two polls after it."""
        if self.must_yield(target):
            self._has_sent, self._wanted_since = True, None

    def end_round(self) -> None:
        """End the round that `begin_round` began."""
        self._permission = None
        if self._has_sent:
            self._first, self._not_before, self._has_sent = None, -math.inf, False

    def collect(self, account: AccountSnapshot) -> None:
        """Collect fills of the other from a snapshot of the executor or the runner; each counts once."""
        own = self._own_names()
        found = {it.id for it in account.fills or () if self._is_others(it.client_order_id, own)}
        self._has_other_filled |= not found <= self._fills
        self._fills |= found

    # Parts of a round

    def _has_room(self, now: float) -> bool:
        """Whether both requests may be sent now; else sets when they may."""
        waits = (self._context.wait("snapshot"), self._context.wait("open_orders"), self._context.breaker_open_for)
        room_in = max(*waits, self._context.paused_for)
        if room_in > 0.0:
            self._not_before, self._reason = now + room_in, "the venue's request limits leave no room for the two polls"
        return room_in <= 0.0

    async def _poll(self) -> OtherActivity | None:
        """Poll positions and open orders; None, with the reason in `_unanswered`, if either is missing."""
        answer, orders = await asyncio.gather(self._context.snapshot("closing"), self._context.open_orders())
        found = Distrust(answer) if isinstance(answer, str) else positions_of(answer)
        if isinstance(found, Distrust):
            self._unanswered = f"positions: {found.reason}"
            return None
        if orders is None:
            self._unanswered = "its open orders are not answered"
            return None
        if isinstance(answer, AccountSnapshot):
            self._observe(answer)
        self._unanswered, own = None, self._own_names()
        others = (it for it in orders if self._is_others(it.client_order_id, own))
        return OtherActivity(
            at=self._context.monotonic(),
            positions={key: position.contracts for key, position in found.positions.items()},
            orders={(order.symbol, order.id): order for order in others if order.trigger_price is None},
            closed={key: ledger.closed for key, ledger in self._state.ledgers.items()},
            is_hedged=isinstance(answer, AccountSnapshot) and answer.position_mode == "hedge",
        )

    def _own_names(self) -> frozenset[str]:
        """Client order ids of the orders in our own journal."""
        return frozenset().union(*(target.orders.newest for target in self._state.targets()))

    @staticmethod
    def _is_others(name: str | None, own: frozenset[str]) -> bool:
        """Whether a client order id is one of this program, and not in our own journal."""
        return is_ours(name) and name not in own

    def _has_new_falls(self, before: OtherActivity, found: OtherActivity) -> bool:
        """Whether a position has fallen without an order of ours, and has not done so at each poll for too long.

        One fall holds all positions back: where the other has closed one, its orders on the others are on their way.
        """
        at_work = {target.key for target in self._state.targets()}
        falling = {key for key in at_work if found.has_fallen_since(before, key)}
        self._falls_since = {key: self._falls_since.get(key, before.at) for key in falling}
        return any(found.at - since < LONGEST_FALL for since in self._falls_since.values())

    def _most(self, found: OtherActivity, target: PositionTarget) -> Decimal:
        ledger = self._state.ledger(target.key)
        closed_since = ledger.closed - found.closed.get(target.key, ZERO)
        unknown = sum(ledger.outstanding.values(), ZERO)
        held = found.positions.get(target.key, ZERO) - found.outstanding(target.key)
        return held - closed_since - unknown - target.target_size

    async def _cancel_stale(
        self, before: OtherActivity, found: OtherActivity, wanted: Iterable[PositionTarget]
    ) -> None:
        """Cancel the orders of the other that have been open unchanged for too long, where they hold a close back."""
        unchanged = {
            key for key, order in found.orders.items()
            if key in before.orders and _left(order) == _left(before.orders[key])
        }  # fmt: skip
        self._unchanged_since = {key: self._unchanged_since.get(key, before.at) for key in unchanged}
        for (symbol, order_id), since in self._unchanged_since.items():
            order = found.orders[symbol, order_id]
            held_back = next((target for target in wanted if found.reduces(order, target.key)), None)
            if held_back is None or found.at - since < STALE_AFTER:
                continue
            if await self._context.cancel(symbol, order_id) is None:
                place = (held_back.decision, self._context.clock.now(), self._context.account, *held_back.key)
                self._context.record([Cancelled(*place, order=order_id, why="blocks the close")])
