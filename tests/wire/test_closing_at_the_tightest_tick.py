"""A close ends soon after the venue is flat, at the shortest tick that `venues check` allows, at every venue.

As in a real run, the account is polled at that tick within the poll share of the venue's documented limits, while the
closer, which draws on the same limits, has to account for an order whose answer is lost.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Final

import pytest

from killswitch.accounts.poll.request_meter import NoPollRoomError, RequestMeter
from killswitch.conformance.stand import Key
from killswitch.execution.account_executor import AccountExecutor
from killswitch.model.venue import VenueAdapter, VenueError, traits_of
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.budget import RequestBudgets
from killswitch.ratelimit.poll_cost import PolledAccount, poll_costs
from tests.conformance.stands import Wired, WireStand
from tests.conformance.wires import WIRES
from tests.faults.journal_checker import MemoryJournal
from tests.faults.mishaps import Mishap, Rule
from tests.faults.scene import committed, decision_on
from tests.rotation import each_taking_turns

SHARE: Final = Decimal("0.5")
"""The share that polling leaves to closing unless the Account document declares another."""
WARM_UP: Final = 75.0
"""Seconds of polling before the decision, so that limits per minute are as full as they get."""
ABSENCE_ACCEPTED: Final = {"bybit": 6.5, "bitget": 31.5, "mexc": 11.5}
"""Seconds until an absence may be accepted, by how long the venue can execute a request; elsewhere two."""
SOON: Final = 6.0
"""Seconds: one until the query after that, and two windows of a limit."""
QUARTER: Final = Decimal("0.25")


def tightest_tick(adapter: VenueAdapter) -> float:
    """The shortest tick, in seconds, at which `venues check` finds room for every poll of one account."""
    costs = poll_costs([PolledAccount("main", "here", traits_of(adapter), SHARE)], 1.0)["main"]
    return max((cost.least for cost in costs), default=0.0) or 0.1


class PolledClose:
    """One account at a wire-level venue that is polled at a tick, and closed at the end."""

    def __init__(self, wired: Wired) -> None:
        self.stand = WireStand(replace(wired, more=wired.more[:4]))
        self.keys: list[Key] = [(symbol, "long") for symbol in (*self.stand.symbols, *self.stand.more)]
        self.store = MemoryJournal()
        self.missed = self.read = 0
        """Polls that found no room, and those that did."""
        self.flat_at = self.ended_at = float("inf")
        """Seconds since the decision."""

    def play(self, *rules: Rule) -> str:
        """Close everything, and return how the close ended."""
        return self.stand.run(self._close_all(rules))

    async def _close_all(self, rules: tuple[Rule, ...]) -> str:
        stand, time = self.stand, self.stand._time
        adapter = await stand.open(dict.fromkeys(self.keys, Decimal(4)))
        exchange = stand.wire.exchange
        stand.wire.enforced = True
        interval = tightest_tick(adapter)
        budgets = RequestBudgets(interval)
        meter = RequestMeter(budgets.of("main", "here", traits_of(adapter), SHARE), Breaker(), time.monotonic, interval)
        closer = AccountExecutor("main", adapter, self.store, time, budget=meter.budget, breaker=meter.breaker)
        await closer.recover()
        polling = asyncio.create_task(self._poll(adapter, meter, closer, interval))
        try:
            await asyncio.sleep(WARM_UP)
            for symbol, _ in self.keys:
                exchange.markets[symbol] = replace(exchange.markets[symbol], shares=[QUARTER])
            stand._script.rules += rules
            started = time.monotonic()
            exchange.watchers.append(lambda: self._observe(started))
            targets = dict.fromkeys(self.keys, Decimal(0))
            decision = decision_on(exchange, "d1", time.now(), targets, reduce_only=True)
            closer.adopt(committed(self.store, decision))
            while await closer.advance():
                if time.monotonic() - started > 300.0:
                    return "does not end"
            self.ended_at = time.monotonic() - started
            return next(iter(it.data["status"] or "" for it in self.store.entries if it.kind == "finished"))
        finally:
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
            if (ending := closer.abandon()) is not None:
                await asyncio.gather(ending, return_exceptions=True)
            await adapter.close()
            await stand.close()

    def _observe(self, started: float) -> None:
        if not any(self.stand.held(key) for key in self.keys) and self.flat_at == float("inf"):
            self.flat_at = self.stand._time.monotonic() - started

    async def _poll(self, adapter: VenueAdapter, meter: RequestMeter, closer: AccountExecutor, interval: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            try:
                reservation = await meter.admit(interval)
            except NoPollRoomError:
                self.missed += 1
            else:
                self.read += 1
                sent_at = meter.monotonic()
                try:
                    closer.apply_snapshot(await adapter.snapshot(), sent_at)
                except VenueError:
                    pass
                finally:
                    meter.finish(reservation, adapter)
            due = max(due + interval, loop.time())
            await asyncio.sleep(due - loop.time())


ANSWERS: Final[tuple[Mishap, ...]] = ("lost", "done", "silent", "done_silent")


@pytest.mark.parametrize(
    ("name", "answer"), each_taking_turns(WIRES, "an answer is lost at the tightest tick", ANSWERS)
)
def test_a_lost_answer_to_an_order_does_not_keep_a_close_open(name: str, answer: Mishap) -> None:
    """One order request gets no answer, and every order fills a quarter: the close ends once the outcome is known."""
    close = PolledClose(WIRES[name])
    assert close.play(Rule("submit", answer), Rule("submit_batch", answer)) == "flat"
    assert close.ended_at <= ABSENCE_ACCEPTED.get(name, 2.0) + SOON
