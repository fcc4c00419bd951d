"""What of a position was closed before a decision began to count: by the place of its plan in the journal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from killswitch.execution.closing_pace import PACE
from killswitch.execution.state.execution_state import ExecutionState
from killswitch.journal.codec import decode
from killswitch.journal.entries import NO_CLOSING_OBSERVER
from killswitch.journal.lifecycle import TargetState
from killswitch.model.store import JournalEntry, JournalKind, Store
from killswitch.store.sqlite import open_store
from tests.closing_cases import commit, decide
from tests.honest_venue import NOW, HonestVenue, VirtualClock

D = Decimal


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    opened = open_store(str(tmp_path / "store.sqlite"))
    yield opened
    opened.close()


def entry(kind: JournalKind, symbol: str, name: str, account: str = "main", **data: str) -> JournalEntry:
    return JournalEntry("d1", kind, NOW, account, symbol, "long", name, 1, dict(data))


def sold(memory: ExecutionState, symbol: str, name: str, filled: str) -> None:
    """An order of the first decision leaves over 1 contract, and fills so much."""
    memory.record([decode(entry("sending", symbol, name, amount="1", position="10"))])
    memory.record([decode(entry("filled", symbol, name, filled=filled, price="100", fee="0"))])
    memory.record([decode(entry("verified", symbol, name, position="10", target="0"))])


def both(store: Store) -> tuple[ExecutionState, HonestVenue]:
    """A decision on BTC and ETH that is at work."""
    memory = ExecutionState("main", store, VirtualClock(), PACE, NO_CLOSING_OBSERVER)
    venue = HonestVenue({"BTC": D(10), "ETH": D(10)})
    assert memory.adopt(commit(store, decide(venue, {"BTC": D(0), "ETH": D(0)}, name="d1")))
    return memory, venue


def test_what_was_closed_between_a_plan_and_its_beginning_counts_for_it(store: Store) -> None:
    """0.6 of BTC before the plan and 0.2 after it, and other positions and accounts besides: it begins at 0.6."""
    memory, venue = both(store)
    sold(memory, "BTC", "o1", "0.6")
    later = commit(store, decide(venue, {"BTC": D(5)}, name="d2"))
    sold(memory, "BTC", "o2", "0.2")
    sold(memory, "ETH", "o3", "0.4")
    store.append(entry("filled", "BTC", "o9", "other", filled="0.5", price="100", fee="0"))
    assert memory.adopt(later)
    (line,) = memory.jobs["d2"].lines
    assert (line.closed_before, memory.ledger(line.key).closed) == (D("0.6"), D("0.8"))


def test_what_was_closed_after_it_was_made_ready_counts_for_it_too(store: Store) -> None:
    """Made ready with its plan, and taken up later: the same 0.6."""
    memory, venue = both(store)
    sold(memory, "BTC", "o1", "0.6")
    later = decide(venue, {"BTC": D(5)}, name="d2")
    planned = [JournalEntry("d2", "planned", NOW, "main", "BTC", "long", sequence=9)]
    memory.prepare(later, planned)
    sold(memory, "BTC", "o2", "0.2")
    assert memory.adopt(commit(store, later))
    (line,) = memory.jobs["d2"].lines
    assert line.closed_before == D("0.6")


def test_a_decision_is_taken_up_once_and_one_without_a_plan_never(store: Store) -> None:
    """The second time it is at work already; what was not planned on this account is nobody's work."""
    memory, venue = both(store)
    decision = memory.jobs["d1"].decision
    assert not memory.adopt(decision)
    memory.prepare(decision, ())
    assert memory.jobs["d1"].planned is not None
    foreign = decide(HonestVenue({"BTC": D(1)}, account="other"), {"BTC": D(0)}, name="d3")
    assert not memory.adopt(commit(store, foreign))
    assert set(memory.jobs) == {"d1"}
    assert [line.symbol for line in memory.lines()] == ["BTC", "ETH"]
    assert venue.account == "main"


def test_what_our_orders_leave_is_known_from_the_first_of_them_on(store: Store) -> None:
    """Ten before any; after 0.6 of ten, 9.4; how many entries there were and were about orders is counted."""
    memory, _ = both(store)
    line, other = (each.key for each in memory.lines())
    assert memory.expected() == {line: D(10), other: D(10)}
    sold(memory, "BTC", "o1", "0.6")
    assert memory.expected() == {line: D("9.4"), other: D(10)}
    assert (memory.written, memory.order_changes, memory.sent) == (3, 2, 1)


def test_nothing_to_record_changes_nothing(store: Store) -> None:
    """No entry, no count."""
    memory, _ = both(store)
    memory.record([])
    assert (memory.written, memory.order_changes, memory.sent) == (0, 0, 0)


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_recorded_together_is_durable_at_the_end_however_it_ends(store: Store, fails: bool) -> None:
    """Nothing is written inside; at the end everything that has moved is, also where something failed."""
    memory, _ = both(store)
    line = memory.lines()[0]
    before = len(store.journal())
    verified = JournalEntry(
        decision=line.decision, kind="verified", at=NOW, account="main", symbol=line.symbol,
        position_side=line.position_side, data={"position": "0", "target": "0"},
    )  # fmt: skip
    with contextlib.suppress(RuntimeError), memory.transaction():
        memory.record([decode(verified)])
        assert len(store.journal()) == before
        if fails:
            raise RuntimeError("a defect")
    assert [entry.kind for entry in store.journal()[before:]] == ["verified"]
    assert line.state is TargetState.AT_TARGET
