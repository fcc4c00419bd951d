"""The first orders of a decision use the snapshot of the tick that made it, without a poll in between."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.execution.account_executor import AccountExecutor
from killswitch.execution.closing_pace import PACE
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.store import Store
from tests.closing_cases import commit, decide, drive
from tests.honest_venue import HonestVenue, VirtualClock

D = Decimal


def logged(positions: dict[str, Decimal], **more: Any) -> HonestVenue:
    """A venue that logs every poll of the account."""
    venue = HonestVenue(positions, **more)

    def log(answer: AccountSnapshot) -> AccountSnapshot:
        venue.state["log"].append("poll")
        return answer

    venue.change("snapshot", log)
    return venue


def snapshot_of(venue: HonestVenue) -> AccountSnapshot:
    """The account's snapshot, not logged."""
    found = asyncio.run(venue.snapshot())
    venue.state["log"].pop()
    return found


def logged_calls(venue: HonestVenue) -> list[str]:
    return [line.split()[0] for line in venue.state["log"]]


def test_the_first_orders_use_the_ticks_snapshot(store: Store) -> None:
    """No poll before the orders, one after them, and flat."""
    venue = logged({"BTC": D(100), "ETH": D(-3)})
    closer = AccountExecutor("main", venue, store, VirtualClock())
    closer.apply_snapshot(snapshot_of(venue), at=0.0)
    closer.adopt(commit(store, decide(venue, {"BTC": D(0), "ETH": D(0)})))
    assert asyncio.run(drive(closer))
    assert logged_calls(venue) == ["submit", "submit", "poll"]


def test_orders_that_may_oversell_wait_for_a_new_poll(store: Store) -> None:
    """Holdings that the venue does not protect from being sold twice are polled first."""
    venue = logged({"BTC": D(100)})
    closer = AccountExecutor("main", venue, store, VirtualClock())
    closer.apply_snapshot(snapshot_of(venue), at=0.0)
    closer.adopt(commit(store, decide(venue, {"BTC": D(0)}, reduce_only=False)))
    assert asyncio.run(drive(closer))
    assert logged_calls(venue)[0] == "poll"


def test_the_ticks_snapshot_is_used_however_long_the_process_has_run(store: Store) -> None:
    """Its age counts, and not the time since the start: after a day there is no poll before the orders either."""
    venue, clock = logged({"BTC": D(100)}), VirtualClock()
    clock.elapsed = 86_400.0
    closer = AccountExecutor("main", venue, store, clock)
    closer.apply_snapshot(snapshot_of(venue), at=clock.monotonic())
    closer.adopt(commit(store, decide(venue, {"BTC": D(0)})))
    assert asyncio.run(drive(closer))
    assert logged_calls(venue) == ["submit", "poll"]


@pytest.mark.parametrize("late", [True, False], ids=["the snapshot is old", "orders have moved a moment ago"])
def test_a_snapshot_from_before_our_own_orders_is_not_used(store: Store, late: bool) -> None:
    """A tick polls while orders fill: half was closed meanwhile, and a second trim sends nothing."""
    venue, clock = logged({"BTC": D(100)}), VirtualClock()
    closer = AccountExecutor("main", venue, store, clock)
    earlier = snapshot_of(venue)
    closer.apply_snapshot(earlier, at=clock.monotonic())
    decisions = [commit(store, decide(venue, {"BTC": D(50)}, name=name)) for name in ("d1", "d2")]
    closer.adopt(decisions[0])
    assert asyncio.run(drive(closer))
    closer.apply_snapshot(earlier, at=clock.monotonic())
    clock.elapsed += PACE.longest_snapshot_age + 0.1 if late else 0.0
    closer.adopt(decisions[1])
    assert asyncio.run(drive(closer))
    assert (venue.position("BTC"), logged_calls(venue).count("submit")) == (D(50), 1)


def test_the_first_orders_of_an_unavailable_account_do_not_wait_for_another_poll(store: Store) -> None:
    """A forced close on a venue whose positions are unavailable leaves before the account is polled again."""
    venue = logged({"BTC": D(100)})
    closer = AccountExecutor("main", venue, store, VirtualClock())
    closer.apply_snapshot(replace(snapshot_of(venue), quality="down", reason="no answer", positions=None), at=0.0)
    closer.adopt(commit(store, decide(venue, {"BTC": D(0)})))
    asyncio.run(drive(closer, 1))
    assert logged_calls(venue)[:2] == ["submit", "poll"]


def test_a_prepared_decision_sends_orders_only_once_it_is_adopted(store: Store) -> None:
    """Prepared while it is being committed, it sends nothing; adopted, it closes as any other."""
    from killswitch.execution.state.intents import planned_entries

    venue = logged({"BTC": D(100)})
    closer = AccountExecutor("main", venue, store, VirtualClock())
    decision = decide(venue, {"BTC": D(0)})
    closer.prepare(decision, planned_entries(decision))
    assert not asyncio.run(closer.advance())
    assert logged_calls(venue) == []
    closer.adopt(commit(store, decision))
    assert asyncio.run(drive(closer))
    assert venue.position("BTC") == 0


@pytest.mark.parametrize(("age", "polls"), [(0.5, 0), (PACE.poll_interval * 2 + 0.1, 1)], ids=["new", "old"])
def test_while_the_venue_contradicts_our_fills_the_runners_polls_are_used(store: Store, age: float, polls: int) -> None:
    """Half of 100 is closed and a bot buys 20: no poll of ours takes the units of the runner's, unless its are old."""
    venue, clock = logged({"BTC": D(100)}), VirtualClock()
    closer = AccountExecutor("main", venue, store, clock)
    closer.adopt(commit(store, decide(venue, {"BTC": D(50)}, name="d1")))
    assert asyncio.run(drive(closer))
    venue.move("BTC", D(20))
    closer.adopt(commit(store, decide(venue, {"BTC": D(50)}, name="d2")))
    asyncio.run(drive(closer, 1))
    begun = logged_calls(venue).count("poll")
    clock.elapsed += PACE.poll_interval
    for _ in range(2):
        clock.elapsed += 1.0
        closer.apply_snapshot(snapshot_of(venue), at=clock.monotonic())
        clock.elapsed += age
        asyncio.run(closer.advance())
    assert logged_calls(venue).count("poll") - begun == 2 * polls
    assert logged_calls(venue).count("submit") == 1
