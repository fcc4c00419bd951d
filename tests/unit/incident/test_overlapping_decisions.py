"""Overlapping decisions: what the order of a killed process closed is no change by others."""

from __future__ import annotations

from decimal import Decimal

from killswitch.incident.incident_builder import incident_of
from killswitch.incident.record.checklist import StartedAs
from killswitch.incident.record.incident_decisions import find_incident
from killswitch.incident.record.results import read_result
from killswitch.model.store import JournalEntry
from tests.incidents import FIRST, SECOND, FilledStore, entry, firing, intent, snapshot
from tests.worlds import after

INTENTS = (intent("BTC", "sell", "10", "0"),)


def two_closes(written: FilledStore, *first: JournalEntry) -> None:
    """A close whose process is killed after sending its order at 1 s, and a manual one at 5 s with nothing to do.

    The second is decided on 10 BTC still held, and verifies 0 at 8 s. `first`: the entries on the order's outcome.
    """
    killed = firing(FIRST, after(), "close-everything", 3, 0, *INTENTS, kind="manual")
    later = firing(SECOND, after(seconds=5), "close-everything", 3, 0, *INTENTS, kind="manual")
    written.tick(after(), [killed], [entry(FIRST, "planned", after(), contracts="10", target="0", value="100")],
                 snapshot=snapshot(after()))  # fmt: skip
    written.store.append(entry(FIRST, "sending", after(seconds=1), side="sell", amount="10", order="market"))
    written.tick(after(seconds=5), [later],
                 [entry(SECOND, "planned", after(seconds=5), contracts="10", target="0", value="100")],
                 snapshot=snapshot(after(seconds=5)))  # fmt: skip
    for each in (*first, entry(SECOND, "verified", after(seconds=8), position="0", target="0"),
                 entry(SECOND, "finished", after(seconds=8), None, status="flat")):  # fmt: skip
        written.store.append(each)


def closed_by_others(written: FilledStore) -> tuple[Decimal | None, Decimal | None]:
    """The quantities closed by other decisions of ours, and by others; history and report must agree."""
    decision = written.store.decision(SECOND)
    assert decision is not None
    (position,) = read_result(written.store, decision.decision).positions
    (reported,) = incident_of(written.store, find_incident(written.store, SECOND), StartedAs("store.sqlite")).positions
    assert position == reported
    return position.other_decisions, position.others


def test_a_fill_of_a_killed_process_is_no_change_by_others(written: FilledStore) -> None:
    """Its fill of all 10 is found after the second decision."""
    two_closes(written, entry(FIRST, "filled", after(seconds=6), state="filled", filled="10", price="99"))
    assert closed_by_others(written) == (10, 0)


def test_a_quantity_that_neither_decision_ordered_is_a_change_by_others(written: FilledStore) -> None:
    """The order filled 4 of the 10."""
    two_closes(written, entry(FIRST, "filled", after(seconds=6), state="filled", filled="4", price="99"))
    assert closed_by_others(written) == (4, 6)


def test_while_the_status_of_its_order_is_unknown_the_split_is_unknown(written: FilledStore) -> None:
    """Either that order closed the position, or others did."""
    two_closes(written)
    assert closed_by_others(written) == (None, None)


def test_a_fill_before_the_second_decision_explains_no_later_change(written: FilledStore) -> None:
    """Its 10 were closed before the second decision, which held another 10: others closed these."""
    two_closes(written, entry(FIRST, "filled", after(seconds=4), state="filled", filled="10", price="99"))
    assert closed_by_others(written) == (0, 10)


def test_an_order_absent_at_the_venue_may_have_been_in_flight(written: FilledStore) -> None:
    """It is absent when the next process queries it, and the position is closed a second later, by whom is unknown."""
    killed = firing(FIRST, after(), "close-everything", 3, 0, *INTENTS, kind="manual")
    written.tick(after(), [killed], [entry(FIRST, "planned", after(), contracts="10", target="0", value="100")],
                 snapshot=snapshot(after()))  # fmt: skip
    for each in (
        entry(FIRST, "sending", after(seconds=1), side="sell", amount="10", order="market"),
        entry(FIRST, "absent", after(seconds=6)),
        entry(FIRST, "verified", after(seconds=7), position="0", target="0"),
        entry(FIRST, "finished", after(seconds=7), None, status="flat"),
    ):
        written.store.append(each)
    (position,) = read_result(written.store, killed).positions
    assert (position.filled, position.others) == (0, None)
