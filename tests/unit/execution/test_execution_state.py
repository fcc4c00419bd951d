"""Execution state: what of a position was closed before a decision counts, by the place of its plan in the journal."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from decimal import Decimal

import pytest

from killswitch.execution.closing_pace import PACE
from killswitch.execution.decide.target_verdict import left_to_close
from killswitch.execution.state.execution_state import ExecutionState
from killswitch.journal.codec import decode
from killswitch.journal.entries import NO_CLOSING_OBSERVER
from killswitch.journal.lifecycle import TargetState
from killswitch.model.snapshot import Closing
from killswitch.model.store import JournalEntry, JournalKind, Store
from tests.closing_cases import commit, decide
from tests.honest_venue import NOW, HonestVenue, VirtualClock

D = Decimal


def entry(kind: JournalKind, symbol: str, name: str, account: str = "main", **data: str) -> JournalEntry:
    return JournalEntry("d1", kind, NOW, account, symbol, "long", name, 1, dict(data))


def sold(state: ExecutionState, symbol: str, name: str, filled: str) -> None:
    """An order of the first decision is sent for 1 contract, and fills `filled` of it."""
    state.record([decode(entry("sending", symbol, name, amount="1", position="10"))])
    state.record([decode(entry("filled", symbol, name, filled=filled, price="100", fee="0"))])
    state.record([decode(entry("verified", symbol, name, position="10", target="0"))])


def state_and_venue(store: Store) -> tuple[ExecutionState, HonestVenue]:
    """A decision on BTC and ETH that is adopted."""
    state = ExecutionState("main", store, VirtualClock(), PACE, NO_CLOSING_OBSERVER)
    venue = HonestVenue({"BTC": D(10), "ETH": D(10)})
    assert state.adopt(commit(store, decide(venue, {"BTC": D(0), "ETH": D(0)}, name="d1")))
    return state, venue


def test_what_was_closed_before_a_plan_is_the_base_of_its_decision(store: Store) -> None:
    """0.6 of BTC before the plan and 0.2 after it, and other positions and accounts besides: the base is 0.6."""
    state, venue = state_and_venue(store)
    sold(state, "BTC", "o1", "0.6")
    later = commit(store, decide(venue, {"BTC": D(5)}, name="d2"))
    sold(state, "BTC", "o2", "0.2")
    sold(state, "ETH", "o3", "0.4")
    store.append(entry("filled", "BTC", "o9", "other", filled="0.5", price="100", fee="0"))
    assert state.adopt(later)
    (target,) = state.jobs["d2"].targets
    assert (target.closed_before, state.ledger(target.key).closed) == (D("0.6"), D("0.8"))


def test_what_was_closed_after_a_decision_was_prepared_counts_for_it(store: Store) -> None:
    """Prepared with its plan, and adopted later: the same 0.6."""
    state, venue = state_and_venue(store)
    sold(state, "BTC", "o1", "0.6")
    later = decide(venue, {"BTC": D(5)}, name="d2")
    planned = [JournalEntry("d2", "planned", NOW, "main", "BTC", "long", sequence=9)]
    state.prepare(later, planned)
    sold(state, "BTC", "o2", "0.2")
    assert state.adopt(commit(store, later))
    (target,) = state.jobs["d2"].targets
    assert target.closed_before == D("0.6")


def test_a_decision_is_adopted_once_and_one_without_a_plan_never(store: Store) -> None:
    """The second time it is already adopted; a decision that was not planned on this account has no job here."""
    state, venue = state_and_venue(store)
    decision = state.jobs["d1"].decision
    assert not state.adopt(decision)
    state.prepare(decision, ())
    assert state.jobs["d1"].planned is not None
    foreign = decide(HonestVenue({"BTC": D(1)}, account="other"), {"BTC": D(0)}, name="d3")
    assert not state.adopt(commit(store, foreign))
    assert set(state.jobs) == {"d1"}
    assert [target.symbol for target in state.targets()] == ["BTC", "ETH"]
    assert venue.account == "main"


def test_the_expected_positions_follow_our_orders(store: Store) -> None:
    """Ten before any order; 9.4 after 0.6 of ten; entries, and entries about orders, are counted."""
    state, _ = state_and_venue(store)
    target, other = (each.key for each in state.targets())
    assert state.expected() == {target: D(10), other: D(10)}
    sold(state, "BTC", "o1", "0.6")
    assert state.expected() == {target: D("9.4"), other: D(10)}
    assert (state.written, state.order_changes, state.sent) == (3, 2, 1)


def test_an_empty_record_changes_nothing(store: Store) -> None:
    """No entry, no count."""
    state, _ = state_and_venue(store)
    state.record([])
    assert (state.written, state.order_changes, state.sent) == (0, 0, 0)


@pytest.mark.parametrize("fails", [False, True])
def test_a_transaction_is_durable_at_its_end_even_after_a_failure(store: Store, fails: bool) -> None:
    """Nothing is written inside; at the end every change is, also where something failed."""
    state, _ = state_and_venue(store)
    target = state.targets()[0]
    before = len(store.journal())
    verified = JournalEntry(
        decision=target.decision, kind="verified", at=NOW, account="main", symbol=target.symbol,
        position_side=target.position_side, data={"position": "0", "target": "0"},
    )  # fmt: skip
    with contextlib.suppress(RuntimeError), state.transaction():
        state.record([decode(verified)])
        assert len(store.journal()) == before
        if fails:
            raise RuntimeError("a defect")
    assert [entry.kind for entry in store.journal()[before:]] == ["verified"]
    assert target.state is TargetState.AT_TARGET


def test_a_recovery_reads_the_journal_of_each_decision_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two decisions under way: jobs, ledgers and observers are restored from one read of each."""
    before, venue = state_and_venue(store)
    sold(before, "BTC", "o1", "0.6")
    commit(store, decide(venue, {"BTC": D(5)}, name="d2"))
    reads, journal = [], store.journal

    def counted(decision: str | None = None) -> Sequence[JournalEntry]:
        reads.append(decision)
        return journal(decision)

    monkeypatch.setattr(store, "journal", counted)
    after = ExecutionState("main", store, VirtualClock(), PACE, NO_CLOSING_OBSERVER)
    after.recover()
    assert sorted(map(str, reads)) == ["d1", "d2"]
    assert after.ledger(("BTC", "long")).closed == D("0.6")


@pytest.mark.parametrize("is_prepared", [False, True], ids=["adopted", "prepared, then adopted"])
def test_c2_a_trim_after_an_ended_close_never_closes_more_than_it_decided(store: Store, is_prepared: bool) -> None:
    """75 of 100 are closed and the close ends; after the lag of positions a trim of the rest counts from its own plan.

    Counted against the fills of a ledger that is dropped meanwhile, the trim could close 75 more.
    """
    clock = VirtualClock()
    state = ExecutionState("main", store, clock, PACE, NO_CLOSING_OBSERVER)
    venue = HonestVenue({"BTC": D(100)})
    first = commit(store, decide(venue, {"BTC": D(25)}, name="d1"))
    assert state.adopt(first)
    state.record([decode(entry("sending", "BTC", "o1", amount="75", position="100"))])
    state.record([decode(entry("filled", "BTC", "o1", filled="75", price="100", fee="0"))])
    state.end(state.jobs["d1"], Closing(decision="d1", status="flat"))
    clock.elapsed += PACE.position_lag + 1
    venue.state["positions"]["BTC"] = D(25)
    trim = decide(venue, {"BTC": D("6.25")}, name="d2")
    if is_prepared:
        state.prepare(trim, [JournalEntry("d2", "planned", NOW, "main", "BTC", "long", sequence=9)])
    assert state.adopt(commit(store, trim))
    (target,) = state.jobs["d2"].targets
    assert left_to_close(target, state.ledger(target.key)) == D("18.75")
