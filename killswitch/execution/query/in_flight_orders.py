"""Follows orders in flight until each has an end: queried, set aside, cancelled, abandoned."""

from __future__ import annotations

import math

from killswitch.execution.account_context import AccountContext
from killswitch.execution.order_pass.market_halts import Halts
from killswitch.execution.query.order_query import Asking, questions
from killswitch.execution.send.order_sender import Dispatch
from killswitch.execution.state.execution_state import Memory
from killswitch.journal.lifecycle import State


class Following:
    """The in-flight orders of one account."""

    def __init__(
        self, context: AccountContext, memory: Memory, asking: Asking, halts: Halts, dispatch: Dispatch
    ) -> None:  # fmt: skip
        self._context = context
        self._memory = memory
        self._asking = asking
        self._halts = halts
        self._dispatch = dispatch
        self._called_back: dict[str, float] = {}

    async def follow(self) -> None:
        """Query every order without a known end, and set aside those that their positions need not wait for."""
        self._take_late()
        about = [question for line in self._memory.lines() for question in questions(line)]
        await self._asking.ask(about)
        self._take_late()
        about = [question for line in self._memory.lines() for question in questions(line)]
        aside = [
            self._asking.set_aside(question)
            for question in about
            if question.state in (State.SENDING, State.UNKNOWN)
            and self._asking.has_asked(question)
            and (question.line.guarded or self._asking.is_late(question))
        ]
        self._memory.record([*aside, *self._asking.give_up(self._context.clock.monotonic(), about)])
        await self._call_back()

    def _take_late(self) -> None:
        """Journal answers that arrived late, unless a query has shown as much before."""
        for entry in self._dispatch.late():
            if self._memory.is_news(entry):
                self._memory.record([entry])

    async def _call_back(self) -> None:
        """Cancel our orders that have been open for too long, so that others can replace them."""
        for line in self._memory.lines():
            name = line.client_order_id or ""
            if line.state is not State.WORKING or line.order_id is None or line.sent_at is None:
                continue
            # A market order works until the venue has filled it.
            too_long = line.bounded and self._context.since(line.sent_at) >= self._context.pace.rest_at_most
            if too_long or self._memory.works[line.decision].given_up is not None:
                await self._call(line.symbol, name, line.order_id, halted=self._halts.rests(line))
        for line in self._memory.lines():
            for name in line.aside:
                if (order := self._asking.resting_as(name)) is not None:
                    await self._call(line.symbol, name, order)

    async def _call(self, symbol: str, name: str, order: str, *, halted: bool = False) -> None:
        """Cancel one of our orders, at most as often as it is queried."""
        now = self._context.clock.monotonic()
        pause = self._context.pace.ask_halted if halted else self._context.pace.poll
        if self._called_back.get(name, -math.inf) <= now - pause and self._context.may_act():
            self._called_back[name] = now
            await self._context.cancel(symbol, order)
            self._asking.hurry([name] if halted else ())
