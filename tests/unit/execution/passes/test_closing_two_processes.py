"""Two processes that close one account: the first is stopped, and the second continues from the journal it left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.execution.account_executor import AccountExecutor
from killswitch.journal.codec import decode
from killswitch.journal.lifecycle import TargetState
from killswitch.journal.targets import PositionTarget
from killswitch.model.store import JournalEntry
from killswitch.store.errors import FencedError
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from tests.closing_cases import commit, decide, drive
from tests.honest_venue import NOW, HonestVenue, VirtualClock

D = Decimal
KINDS = ("sending", "acknowledged", "unknown", "filled", "rejected", "absent", "verified", "finished")


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[SqlStore, SqlStore]]:
    """One store, opened by two processes."""
    opened = open_store(str(tmp_path / "store.sqlite")), open_store(str(tmp_path / "store.sqlite"))
    yield opened
    for store in opened:
        store.close()


def test_an_executor_that_has_lost_its_lease_sends_nothing(stores: tuple[SqlStore, SqlStore]) -> None:
    """Stopped during a close and resumed after another has taken over, it fails before its next order leaves."""
    old, new = stores
    venue = HonestVenue({"BTC": D(100)}, fill_shares=("0.1", "0.1"))
    old.fence(old.acquire("a", 0, 1).generation)
    earlier = AccountExecutor("main", venue, old, VirtualClock())
    earlier.adopt(commit(old, decide(venue, {"BTC": D(0)})))
    asyncio.run(drive(earlier, 1))
    new.fence(new.acquire("b", 2, 10).generation)
    sent = len(venue.state["log"])
    with pytest.raises(FencedError):
        asyncio.run(drive(earlier))
    assert len(venue.state["log"]) == sent
    successor = AccountExecutor("main", venue, new, VirtualClock())
    asyncio.run(successor.recover())
    assert asyncio.run(drive(successor))
    assert venue.position("BTC") == 0


def entry(kind: str, name: str, filled: str) -> JournalEntry:
    return msgspec.convert(
        {"decision": "d1", "kind": kind, "at": NOW, "account": "main", "symbol": "BTC", "position_side": "long",
         "client_order_id": None if kind in ("verified", "finished") else name, "attempt": int(name[-1]),
         "data": {"amount": "50", "position": "100", "target": "0", "filled": filled, "status": "flat"}},
        JournalEntry,
    )  # fmt: skip


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(("x1", "x2")), st.sampled_from(("0", "20"))), max_size=9)
)
def test_every_journal_of_two_processes_can_be_replayed(history: list[tuple[str, str, str]]) -> None:
    """Whatever two processes have written, and in whatever order, the target has a state, and no order counts twice."""
    target = PositionTarget("d1", "main", "BTC", "long", "sell", D(0), D(100), D(100), True, 1, 0)
    for each in history:
        target.replay(decode(entry(*each)))
    assert target.filled <= 40
    assert (target.state is TargetState.OVER) == any(kind == "finished" for kind, _, _ in history)


def test_an_inconsistent_journal_is_resolved_by_queries_and_the_close_continues(
    stores: tuple[SqlStore, SqlStore],
) -> None:
    """The journal has the fill of one order twice: the venue is queried, its positions decide, and the close ends."""
    store, _ = stores
    venue = HonestVenue({"BTC": D(100)}, fill_shares=("0.1",))
    closer = AccountExecutor("main", venue, store, VirtualClock())
    closer.adopt(commit(store, decide(venue, {"BTC": D(0)})))
    asyncio.run(drive(closer, 1))
    (filled,) = [each for each in store.journal("d1") if each.kind == "filled"]
    store.append(filled)
    for _ in range(2):
        successor = AccountExecutor("main", venue, store, VirtualClock(NOW.replace(hour=13)))
        asyncio.run(successor.recover())
        asyncio.run(drive(successor))
    (finished,) = [each for each in store.journal("d1") if each.kind == "finished"]
    assert (venue.position("BTC"), finished.data["status"]) == (D(0), "flat")
    assert f"ask {filled.client_order_id}" in venue.state["log"]
