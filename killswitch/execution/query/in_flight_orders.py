"""Follows orders in flight until each has ended: queries, detaches, cancels and abandons them."""

from __future__ import annotations

import math

from killswitch.execution.account_context import AccountContext
from killswitch.execution.decide.position_trust import TrustedBook
from killswitch.execution.order_pass.market_halts import MarketHalts
from killswitch.execution.order_pass.pass_verdicts import is_shown
from killswitch.execution.query.order_query import OrderQuery, questions
from killswitch.execution.send.order_sender import OrderSender
from killswitch.execution.state.execution_state import ExecutionState
from killswitch.journal.lifecycle import ZERO, TargetState
from killswitch.journal.targets import PositionTarget


class InFlightOrders:
    """The in-flight orders of one account."""

    def __init__(
        self,
        context: AccountContext,
        state: ExecutionState,
        queries: OrderQuery,
        halts: MarketHalts,
        sender: OrderSender,
    ) -> None:
        self._context = context
        self._state = state
        self._queries = queries
        self._halts = halts
        self._sender = sender
        self._cancelled_at: dict[str, float] = {}
        """Monotonic seconds of the last cancel request for each order in flight, by client order id."""

    async def follow(self) -> None:
        """Query every order whose end is unknown, and detach those that their positions need not wait for."""
        self._record_late_answers()
        about = [question for target in self._state.targets() for question in questions(target)]
        await self._queries.query(about)
        self._record_late_answers()
        about = [question for target in self._state.targets() for question in questions(target)]
        detached = [
            self._queries.detached_entry(question)
            for question in about
            if question.state in (TargetState.SENDING, TargetState.UNKNOWN)
            and self._queries.is_unanswered(question)
            and (question.target.is_capped_by_venue or self._queries.is_overdue(question))
        ]
        self._state.record([*detached, *self._queries.abandoned(self._context.monotonic(), about)])
        await self._cancel_overdue()

    def settle_closed_positions(self, book: TrustedBook) -> None:
        """Settle the detached orders that can have no effect any more, so that no end waits for them (ADR 0058).

        That is where the venue shows the position closed, the fills of the target's other orders account for all of it,
        the venue limits the order to reducing the position, and has answered that it has no such order.
        """
        settled = [
            self._queries.settled_by_position(question)
            for target in self._state.targets()
            if target.detached and not target.is_in_flight and _is_closed_by_others(target, book)
            for question in questions(target)
        ]
        self._state.record([entry for entry in settled if entry is not None])

    def _record_late_answers(self) -> None:
        """Journal late answers, unless a query has already shown the same."""
        for entry in self._sender.late_answers():
            if self._state.adds_information(entry):
                self._state.record([entry])

    async def _cancel_overdue(self) -> None:
        """Cancel our orders that have been open for too long, so that others can replace them."""
        targets = self._state.targets()
        # Drop orders that have ended: a run may send any number of them.
        if self._cancelled_at:
            names = {target.client_order_id for target in targets}.union(*(target.detached for target in targets))
            self._cancelled_at = {name: at for name, at in self._cancelled_at.items() if name in names}
        for target in targets:
            name = target.client_order_id or ""
            if target.state is not TargetState.WORKING or target.order_id is None or target.sent_at is None:
                continue
            # A market order is open until the venue has filled it.
            too_long = (
                target.has_limit and self._context.seconds_since(target.sent_at) >= self._context.pace.longest_resting
            )
            if too_long or self._state.jobs[target.decision].given_up is not None:
                await self._cancel(target.symbol, name, target.order_id, halted=self._halts.is_resting(target))
        for target in targets:
            for name in tuple(target.detached):
                if (order := self._queries.open_order_id(name)) is not None:
                    await self._cancel(target.symbol, name, order)

    async def _cancel(self, symbol: str, name: str, order: str, *, halted: bool = False) -> None:
        """Cancel one of our orders, at most as often as it is queried."""
        now = self._context.monotonic()
        pause = self._context.pace.halted_query_interval if halted else self._context.pace.poll_interval
        if self._cancelled_at.get(name, -math.inf) <= now - pause and self._context.can_send():
            self._cancelled_at[name] = now
            await self._context.cancel(symbol, order)
            self._queries.expedite([name] if halted else ())


def _is_closed_by_others(target: PositionTarget, book: TrustedBook) -> bool:
    """Whether the target's position is closed, and the known fills of its orders explain that."""
    is_gone = is_shown(target, book) and book.contracts(target.key) == ZERO
    return target.is_capped_by_venue and is_gone and target.filled >= target.decided
