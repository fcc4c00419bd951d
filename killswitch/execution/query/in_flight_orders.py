"""Follows orders in flight until each has an end: queried, set aside, cancelled, abandoned."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from killswitch.execution.account_context import AccountContext
from killswitch.execution.order_pass.market_halts import MarketHalts
from killswitch.execution.query.order_query import OrderQuery, questions
from killswitch.execution.send.order_sender import OrderSender
from killswitch.execution.state.execution_state import ExecutionState
from killswitch.journal.lifecycle import TargetState


@dataclass(slots=True)
class InFlightOrders:
    """The in-flight orders of one account."""

    _context: AccountContext
    _memory: ExecutionState
    _asking: OrderQuery
    _halts: MarketHalts
    _dispatch: OrderSender
    _cancelled_at: dict[str, float] = field(default_factory=dict)

    async def follow(self) -> None:
        """Query every order without a known end, and set aside those that their positions need not wait for."""
        self._record_late_answers()
        about = [question for line in self._memory.lines() for question in questions(line)]
        await self._asking.query(about)
        self._record_late_answers()
        about = [question for line in self._memory.lines() for question in questions(line)]
        aside = [
            self._asking.set_aside(question)
            for question in about
            if question.state in (TargetState.SENDING, TargetState.UNKNOWN)
            and self._asking.is_unanswered(question)
            and (question.line.is_capped_by_venue or self._asking.is_late(question))
        ]
        self._memory.record([*aside, *self._asking.abandoned(self._context.clock.monotonic(), about)])
        await self._cancel_overdue()

    def _record_late_answers(self) -> None:
        """Journal answers that arrived late, unless a query has shown as much before."""
        for entry in self._dispatch.late_answers():
            if self._memory.adds_information(entry):
                self._memory.record([entry])

    async def _cancel_overdue(self) -> None:
        """Cancel our orders that have been open for too long, so that others can replace them."""
        for line in self._memory.lines():
            name = line.client_order_id or ""
            if line.state is not TargetState.WORKING or line.order_id is None or line.sent_at is None:
                continue
            # A market order works until the venue has filled it.
            too_long = line.has_limit and self._context.seconds_since(line.sent_at) >= self._context.pace.rest_at_most
            if too_long or self._memory.jobs[line.decision].given_up is not None:
                await self._cancel(line.symbol, name, line.order_id, halted=self._halts.is_resting(line))
        for line in self._memory.lines():
            for name in line.detached:
                if (order := self._asking.open_order_id(name)) is not None:
                    await self._cancel(line.symbol, name, order)

    async def _cancel(self, symbol: str, name: str, order: str, *, halted: bool = False) -> None:
        """Cancel one of our orders, at most as often as it is queried."""
        now = self._context.clock.monotonic()
        pause = self._context.pace.ask_halted if halted else self._context.pace.poll
        if self._cancelled_at.get(name, -math.inf) <= now - pause and self._context.can_send():
            self._cancelled_at[name] = now
            await self._context.cancel(symbol, order)
            self._asking.expedite([name] if halted else ())
