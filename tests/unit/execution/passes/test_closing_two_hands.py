"""Two processes that close one account: the elder is stopped, and what it has left in the journal is lived with."""

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


def test_a_closer_whose_lease_has_passed_on_sends_nothing(stores: tuple[SqlStore, SqlStore]) -> None:
    """Stopped in mid-close and woken up after another has taken over, it fails before its next order leaves."""
    old, new = stores
    venue = HonestVenue({"BTC": D(100)}, fill_shares=("0.1", "0.1"))
    old.fence(old.acquire("a", 0, 1).generation)
    elder = AccountExecutor("main", venue, old, VirtualClock())
    elder.adopt(commit(old, decide(venue, {"BTC": D(0)})))
    asyncio.run(drive(elder, 1))
    new.fence(new.acquire("b", 2, 10).generation)
    sent = len(venue.state["log"])
    with pytest.raises(FencedError):
        asyncio.run(drive(elder))
    assert len(venue.state["log"]) == sent
    heir = AccountExecutor("main", venue, new, VirtualClock())
    asyncio.run(heir.recover())
    assert asyncio.run(drive(heir))
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
def test_every_history_can_be_recalled(history: list[tuple[str, str, str]]) -> None:
    """Whatever order two hands have written in, the line has a state, and no order counts twice."""
    line = PositionTarget("d1", "main", "BTC", "long", "sell", D(0), D(100), D(100), True, 1, 0)
    for each in history:
        line.replay(decode(entry(*each)))
    assert line.filled <= 40
    assert (line.state is TargetState.OVER) == any(kind == "finished" for kind, _, _ in history)


def test_a_history_that_does_not_follow_is_asked_about_and_the_close_goes_on(stores: tuple[SqlStore, SqlStore]) -> None:
    """The journal says twice that an order filled: the venue is asked about it, its positions decide, and it ends."""
    store, _ = stores
    venue = HonestVenue({"BTC": D(100)}, fill_shares=("0.1",))
    closer = AccountExecutor("main", venue, store, VirtualClock())
    closer.adopt(commit(store, decide(venue, {"BTC": D(0)})))
    asyncio.run(drive(closer, 1))
    (filled,) = [each for each in store.journal("d1") if each.kind == "filled"]
    store.append(filled)
    for _ in range(2):
        heir = AccountExecutor("main", venue, store, VirtualClock(NOW.replace(hour=13)))
        asyncio.run(heir.recover())
        asyncio.run(drive(heir))
    (finished,) = [each for each in store.journal("d1") if each.kind == "finished"]
    assert (venue.position("BTC"), finished.data["status"]) == (D(0), "flat")
    assert f"ask {filled.client_order_id}" in venue.state["log"]
