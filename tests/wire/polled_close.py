"""One account at a wire-level venue that is polled at a tick, and closed at the end.

The account is polled within the poll share of the venue's documented limits, while the executor, which draws on the
same limits, has to account for orders whose answers are lost.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Final

from msgspec.structs import replace

from killswitch.accounts.poll.request_meter import NoPollRoomError, RequestMeter
from killswitch.conformance.harness import Key
from killswitch.execution.account_executor import AccountExecutor
from killswitch.model.venue import VenueAdapter, VenueError
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.budget import RequestBudgets
from killswitch.ratelimit.poll_cost import PolledAccount, poll_costs
from tests.conformance.harnesses import Wired, WireHarness
from tests.faults.journal_checker import MemoryJournal
from tests.faults.mishaps import Rule
from tests.faults.scene import committed, decision_on

SHARE: Final = Decimal("0.5")
"""The share that polling leaves to closing unless the Account document declares another."""
WARM_UP: Final = 75.0
"""Seconds of polling before the decision, so that limits per minute are as full as they get."""
QUARTER: Final = Decimal("0.25")


def tightest_tick(adapter: VenueAdapter) -> float:
    """The shortest tick, in seconds, at which `venues check` finds room for every poll of one account."""
    costs = poll_costs([PolledAccount("main", "here", adapter.traits, SHARE)], 1.0)["main"]
    return max((cost.least for cost in costs), default=0.0) or 0.1


class PolledClose:
    """One account at a wire-level venue that is polled at a tick, and closed at the end."""

    def __init__(self, wired: Wired, more: int = 4) -> None:
        """Hold the venue's usual symbols and `more` others."""
        self.harness = WireHarness(replace(wired, more=wired.more[:more]))
        self.keys: list[Key] = [(symbol, "long") for symbol in (*self.harness.symbols, *self.harness.more)]
        self.store = MemoryJournal()
        self.missed = self.read = 0
        """Polls that found no room, and those that did."""
        self.flat_at = self.ended_at = float("inf")
        """Seconds since the decision."""

    def play(self, *rules: Rule) -> str:
        """Close everything, and return how the close ended."""
        return self.harness.run(self._close_all(rules))

    async def _close_all(self, rules: tuple[Rule, ...]) -> str:
        harness, time = self.harness, self.harness.time
        adapter = await harness.open(dict.fromkeys(self.keys, Decimal(4)))
        exchange = harness.wire.exchange
        harness.wire.enforced = True
        interval = tightest_tick(adapter)
        budgets = RequestBudgets(interval)
        meter = RequestMeter(budgets.of("main", "here", adapter.traits, SHARE), Breaker(), time.monotonic, interval)
        closer = AccountExecutor("main", adapter, self.store, time, budget=meter.budget, breaker=meter.breaker)
        await closer.recover()
        polling = asyncio.create_task(self._poll(adapter, meter, closer, interval))
        try:
            await asyncio.sleep(WARM_UP)
            for symbol, _ in self.keys:
                exchange.markets[symbol] = replace(exchange.markets[symbol], shares=[QUARTER])
            harness.script.rules += rules
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
            await harness.close()

    def _observe(self, started: float) -> None:
        if not any(self.harness.held(key) for key in self.keys) and self.flat_at == float("inf"):
            self.flat_at = self.harness.time.monotonic() - started

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
                    pass  # as in a run, a snapshot that could not be read changes nothing, and the next one is due
                finally:
                    meter.finish(reservation, adapter)
            due = max(due + interval, loop.time())
            await asyncio.sleep(due - loop.time())
