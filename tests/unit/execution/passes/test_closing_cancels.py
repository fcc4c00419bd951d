"""Cancels that fail or hang: the close does not wait for them, they end, and the result says how."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.execution.account_executor import AccountExecutor
from killswitch.execution.closing_pace import PACE
from killswitch.model.store import Store
from tests.closing_cases import commit, decide, drive
from tests.honest_venue import HonestVenue, VirtualClock

D = Decimal


NOT_FOUND = RuntimeError("404 unknown order")
"""An error of the adapter's own at a cancel."""


def close_with_cancels(venue: HonestVenue, store: Store, cancels: dict[str, Any]) -> dict[str, str | None]:
    """What the `finished` entry says."""
    closer = AccountExecutor("main", venue, store, VirtualClock())
    closer.adopt(commit(store, decide(venue, {"BTC": D(0)}, cancels=cancels)))
    assert asyncio.run(drive(closer)), "the work has no end"
    (finished,) = [entry for entry in store.journal("d1") if entry.kind == "finished"]
    return finished.data


@pytest.mark.parametrize("why", ["entry", "all"])
def test_a_cancel_that_always_fails_is_given_up_and_reported(store: Store, why: str) -> None:
    """The position is closed, the order is named with the reason, and the close ends: not flat."""
    venue = HonestVenue({"BTC": D(100)}, resting={"o1": "BTC"})
    venue.fail("cancel", NOT_FOUND)
    data = close_with_cancels(venue, store, {"o1": ("BTC", why)})
    assert venue.position("BTC") == 0
    assert (data["status"], venue.received.count(("cancel", "BTC", "o1"))) == ("blocked", PACE.fruitless_attempts)
    assert "order o1 cannot be cancelled: 8 requests in a row failed, the last one with RuntimeError: 404" in (
        data["reason"] or ""
    )


def test_an_order_that_is_no_longer_open_counts_as_cancelled(store: Store) -> None:
    """The adapter raises for a missing order; the venue's open orders, queried several times, confirm it."""
    venue = HonestVenue({"BTC": D(100)}, resting={"o1": "BTC"})
    venue.fail("cancel", NOT_FOUND)
    venue.change("open_orders", lambda _: ())
    assert close_with_cancels(venue, store, {"o1": ("BTC", "entry")})["status"] == "flat"
    assert venue.received.count(("cancel", "BTC", "o1")) == 1 + PACE.confirm_snapshots


def test_cancels_that_hang_cost_the_close_one_short_wait_for_all_of_them(store: Store) -> None:
    """Six are sent at the same time, and the first order leaves after one timeout, although all six hang."""

    class Hanging(HonestVenue):
        waiting = 0
        most = 0

        async def cancel(self, symbol: str, order_id: str) -> None:
            self.state["log"].append(f"cancel {order_id}")
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            try:
                await asyncio.Event().wait()
            finally:
                self.waiting -= 1

    venue = Hanging({"BTC": D(100)}, resting={f"o{n}": "BTC" for n in range(6)})
    pace = replace(PACE, cancel_timeout=0.01)
    closer = AccountExecutor("main", venue, store, VirtualClock(), pace=pace)
    closer.adopt(commit(store, decide(venue, {"BTC": D(0)}, cancels={f"o{n}": ("BTC", "entry") for n in range(6)})))
    asyncio.run(drive(closer, 1))
    assert (venue.most, venue.position("BTC")) == (6, D(0))
    asyncio.run(drive(closer, 1))
    assert len([line for line in venue.state["log"] if line.startswith("cancel")]) == 6, "asked again at once"


def test_the_cancels_of_a_suspicion_end_by_themselves_and_are_no_close(store: Store) -> None:
    """A run ends with them planned: the next one cancels, leaves the position alone, and shows no close meanwhile."""
    venue = HonestVenue({"BTC": D(100)}, resting={"o1": "BTC", "o2": "BTC"})
    decision = replace(decide(venue, {}, cancels={"o1": ("BTC", "entry")}), kind="suspicion")
    dead = AccountExecutor("main", venue, store, VirtualClock())
    dead.adopt(commit(store, decision))
    assert dead.progress() == ()
    closer = AccountExecutor("main", venue, store, VirtualClock())
    asyncio.run(closer.recover())
    assert closer.progress() == ()
    assert asyncio.run(drive(closer)), "the work has no end"
    assert (closer.progress(), list(store.unfinished())) == ((), [])
    assert (venue.position("BTC"), venue.state["log"].count("cancel o1")) == (100, 1)
    assert "cancel o2" not in venue.state["log"]
    later = AccountExecutor("main", venue, store, VirtualClock())
    asyncio.run(later.recover())
    assert later.progress() == ()
