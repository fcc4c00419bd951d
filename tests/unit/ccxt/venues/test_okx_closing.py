"""A whole account closed at OKX by the executor itself: real client, real wire, virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from killswitch.execution.account_executor import AccountExecutor
from killswitch.model.snapshot import OrderSide, Snapshot
from killswitch.ratelimit.budget import RequestBudgets
from tests.faults.exchange import Key, Market, Mode
from tests.faults.journal_checker import MemoryJournal
from tests.faults.mishaps import Mishap, Rule
from tests.faults.scene import committed, decision_on
from tests.faults.statement import statement
from tests.wire.okx.desk import BTC, ETH, OkxDesk

D = Decimal
BOOK: Mapping[Key, Decimal] = {(BTC, "long"): D(5), (ETH, "short"): D(3)}
SIZES = {BTC: D("0.01"), ETH: D("0.1")}


class Closed:
    """The desk after a decision to close everything, and the journal of the close."""

    def __init__(
        self,
        *rules: Rule,
        held: Mapping[Key, Decimal] = BOOK,
        mode: Mode = "one_way",
        metered: bool = False,
        targets: Mapping[Key, Decimal] | None = None,
        stops: Mapping[Key, int] | None = None,
        **more: Any,
    ) -> None:
        markets = [Market(BTC, D(60000), step=D("0.01"), maximum=D(1000)), Market(ETH, D(3000), step=D("0.01"))]
        self.desk = OkxDesk(held, *rules, mode=mode, markets=markets, sizes=SIZES, **more)
        self.store = MemoryJournal()
        exchange = self.desk.exchange
        for key, price in (stops or {}).items():
            side: OrderSide = "sell" if key[1] == "long" else "buy"
            when = "falls" if key[1] == "long" else "rises"
            exchange.rest(key[0], side, held[key], reduce_only=True, trigger_price=D(price), trigger_when=when)
        decided = decision_on(exchange, "d1", self.desk.time.now(), targets or dict.fromkeys(held, D(0)))
        committed(self.store, decided, Snapshot(decided.as_of, (statement(exchange),), "killswitch.snapshot/v1"))

        async def close(venue: Any) -> None:
            budget = RequestBudgets().of("main", "okx", venue.traits) if metered else None
            closer = AccountExecutor("main", venue, self.store, self.desk.time, budget=budget)
            closer.adopt(decided)
            async with asyncio.timeout(600):
                while await closer.advance():
                    await self.desk.time.sleep(min(max(closer.wait, 0.02), 1.0))

        self.desk.run(close)
        entries = [it for it in self.store.journal("d1") if it.kind == "finished"]
        self.status = [str(it.data.get("status")) for it in entries]
        self.held = {key: amount for key, amount in exchange.held.items() if amount}
        assert exchange.turned == []


def test_every_position_of_the_account_is_closed_once() -> None:
    """Long and short, each with one order, and the venue is flat."""
    closed = Closed()
    assert (closed.status, closed.held) == (["flat"], {})
    assert closed.desk.venue.calls("submit") + closed.desk.venue.calls("submit_batch") in (1, 2)


@pytest.mark.parametrize("mishap", ["done", "done_silent", "garbled", "lost", "silent", "late", "limited", "down"])
def test_an_order_of_unknown_status_is_queried_and_never_sent_twice(mishap: Mishap) -> None:
    """Whatever happens to the first request, exactly five and three contracts are traded."""
    closed = Closed(Rule("submit", mishap), Rule("submit_batch", mishap))
    assert (closed.status, closed.held) == (["flat"], {})
    assert sum(it.amount for it in closed.desk.exchange.fills) == 8


def test_in_long_short_mode_both_sides_of_a_symbol_are_closed() -> None:
    """Five long and two short of the same instrument: no close opens the other side."""
    closed = Closed(held={(BTC, "long"): D(5), (BTC, "short"): D(2)}, mode="hedge")
    assert (closed.status, closed.held) == (["flat"], {})
    assert [it.amount for it in sorted(closed.desk.exchange.fills, key=lambda it: it.amount)] == [2, 5]


def test_isolated_and_cross_positions_are_closed_in_their_own_margin_modes() -> None:
    """In the other mode OKX has no such position, and would open one in net mode without reduce-only."""
    closed = Closed(isolated=(BTC,))
    assert (closed.status, closed.held) == (["flat"], {})


def test_a_partial_close_leaves_the_decided_remainder_and_its_stop() -> None:
    """Two of five contracts remain, and their stop still rests."""
    closed = Closed(targets={(BTC, "long"): D(2)}, stops={(BTC, "long"): 50000})
    assert closed.status == ["flat"]
    assert closed.held[BTC, "long"] == 2
    (stop,) = closed.desk.exchange.resting()
    assert stop.trigger_price == 50000
    assert stop.reduce_only


def test_an_amount_above_the_market_order_maximum_is_split() -> None:
    """2,500 contracts, and no market order above 1,000: none is rejected for its size."""
    closed = Closed(held={(BTC, "long"): D(2500)})
    assert (closed.status, closed.held) == (["flat"], {})
    assert [it.amount for it in closed.desk.exchange.fills] == [1000, 1000, 500]


def test_two_hundred_positions_are_closed_within_okxs_limits_in_less_than_a_second() -> None:
    """Ten batches of 20 and one query for each order; each instrument has its own limit of 30 a second."""
    held: Mapping[Key, Decimal] = {(f"S{number}/USDT:USDT", "long"): D(5) for number in range(200)}
    closed = Closed(held=held, metered=True, enforced=True, latency=0.05)
    assert (closed.status, closed.held) == (["flat"], {})
    assert closed.desk.time.elapsed < 1
    assert [entry.data for entry in closed.store.journal("d1") if entry.kind == "rejected"] == []
