"""The first orders of a decision: on the reading that it was made on, and without a look in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from killswitch.execution.account_executor import AccountExecutor
from killswitch.execution.closing_pace import PACE
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.store import Store
from killswitch.store.sqlite import open_store
from tests.closing_cases import commit, decide, drive
from tests.honest_venue import HonestVenue, VirtualClock

D = Decimal


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    opened = open_store(str(tmp_path / "store.sqlite"))
    yield opened
    opened.close()


class Logged(HonestVenue):
    """Writes every look at the account into its log."""

    async def snapshot(self) -> AccountSnapshot:
        self.state["log"].append("look")
        return await super().snapshot()


def told(venue: HonestVenue) -> AccountSnapshot:
    """What a tick has read of the account."""
    return asyncio.run(HonestVenue.snapshot(venue))


def words(venue: HonestVenue) -> list[str]:
    return [line.split()[0] for line in venue.state["log"]]


def test_the_ticks_own_reading_is_good_for_the_first_orders(store: Store) -> None:
    """No look before the orders, one after them, and flat."""
    venue = Logged({"BTC": D(100), "ETH": D(-3)})
    closer = AccountExecutor("main", venue, store, VirtualClock())
    closer.apply_snapshot(told(venue), at=0.0)
    closer.adopt(commit(store, decide(venue, {"BTC": D(0), "ETH": D(0)})))
    assert asyncio.run(drive(closer))
    assert words(venue) == ["submit", "submit", "look"]


def test_what_could_go_too_far_waits_for_a_look_of_its_own(store: Store) -> None:
    """Holdings that the venue does not keep from being sold twice are looked at first."""
    venue = Logged({"BTC": D(100)})
    closer = AccountExecutor("main", venue, store, VirtualClock())
    closer.apply_snapshot(told(venue), at=0.0)
    closer.adopt(commit(store, decide(venue, {"BTC": D(0)}, reduce_only=False)))
    assert asyncio.run(drive(closer))
    assert words(venue)[0] == "look"


@pytest.mark.parametrize("late", [True, False], ids=["the reading is old", "orders have moved a moment ago"])
def test_a_reading_from_before_our_own_orders_is_not_used(store: Store, late: bool) -> None:
    """A tick reads while orders fill: half was closed meanwhile, and a second trim sends nothing."""
    venue, clock = Logged({"BTC": D(100)}), VirtualClock()
    closer = AccountExecutor("main", venue, store, clock)
    old = told(venue)
    closer.apply_snapshot(old, at=clock.monotonic())
    decisions = [commit(store, decide(venue, {"BTC": D(50)}, name=name)) for name in ("d1", "d2")]
    closer.adopt(decisions[0])
    assert asyncio.run(drive(closer))
    closer.apply_snapshot(old, at=clock.monotonic())
    clock.elapsed += PACE.longest_snapshot_age + 0.1 if late else 0.0
    closer.adopt(decisions[1])
    assert asyncio.run(drive(closer))
    assert (venue.position("BTC"), words(venue).count("submit")) == (D(50), 1)


def test_where_the_tick_could_not_read_the_first_orders_do_not_wait_for_another_try(store: Store) -> None:
    """A close by force on a venue whose positions nobody can read leaves before the account is asked for again."""
    venue = Logged({"BTC": D(100)})
    closer = AccountExecutor("main", venue, store, VirtualClock())
    closer.apply_snapshot(
        msgspec.structs.replace(told(venue), quality="down", reason="no answer", positions=None), at=0.0
    )
    closer.adopt(commit(store, decide(venue, {"BTC": D(0)})))
    asyncio.run(drive(closer, 1))
    assert words(venue)[:2] == ["submit", "look"]


def test_a_prepared_decision_is_worked_on_only_once_it_is_adopted(store: Store) -> None:
    """Made ready while it is being committed, it sends nothing; adopted, it closes as any other."""
    from killswitch.execution.state.intents import planned_entries

    venue = Logged({"BTC": D(100)})
    closer = AccountExecutor("main", venue, store, VirtualClock())
    decision = decide(venue, {"BTC": D(0)})
    closer.prepare(decision, planned_entries(decision))
    assert not asyncio.run(closer.advance())
    assert words(venue) == []
    closer.adopt(commit(store, decision))
    assert asyncio.run(drive(closer))
    assert venue.position("BTC") == 0
