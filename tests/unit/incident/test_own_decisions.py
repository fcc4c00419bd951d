"""What a killed process has closed is told as ours, beside a later decision on the same positions."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from killswitch.incident.incident_builder import incident_of
from killswitch.incident.record.checklist import StartedAs
from killswitch.incident.record.incident_decisions import find_incident
from killswitch.incident.record.results import read_result
from killswitch.model.store import JournalEntry
from tests.incidents import FIRST, SECOND, HandWritten, entry, firing, hand_written, intent, snapshot
from tests.worlds import after

BEGUN = (intent("BTC", "sell", "10", "0"),)


@pytest.fixture
def written(tmp_path: Path) -> Iterator[HandWritten]:
    made = hand_written(tmp_path)
    yield made
    made.store.close()


def two_closes(written: HandWritten, *first: JournalEntry) -> None:
    """A close whose process was killed after its order left at 1 s, and one by hand at 5 s that found nothing to do.

    The second was decided on 10 BTC that were held still, and saw none at 8 s. `first`: what became of the order.
    """
    one = firing(FIRST, after(), "close-everything", 3, 0, *BEGUN, kind="manual")
    two = firing(SECOND, after(seconds=5), "close-everything", 3, 0, *BEGUN, kind="manual")
    written.tick(after(), [one], [entry(FIRST, "planned", after(), contracts="10", target="0", value="100")],
                 snapshot=snapshot(after()))  # fmt: skip
    written.store.append(entry(FIRST, "sending", after(seconds=1), side="sell", amount="10", order="market"))
    written.tick(after(seconds=5), [two],
                 [entry(SECOND, "planned", after(seconds=5), contracts="10", target="0", value="100")],
                 snapshot=snapshot(after(seconds=5)))  # fmt: skip
    for each in (*first, entry(SECOND, "verified", after(seconds=8), position="0", target="0"),
                 entry(SECOND, "finished", after(seconds=8), None, status="flat")):  # fmt: skip
        written.store.append(each)


def divided(written: HandWritten) -> tuple[Decimal | None, Decimal | None]:
    """What went by orders of other decisions, and by nobody of ours; the same in history and in the report."""
    decision = written.store.decision(SECOND)
    assert decision is not None
    (position,) = read_result(written.store, decision.decision).positions
    (reported,) = incident_of(written.store, find_incident(written.store, SECOND), StartedAs("store.sqlite")).positions
    assert position == reported
    return position.other_decisions, position.others


def test_what_the_order_of_a_killed_process_filled_is_no_change_by_others(written: HandWritten) -> None:
    """All of the 10 that were gone: its fill was found after the second decision."""
    two_closes(written, entry(FIRST, "filled", after(seconds=6), state="filled", filled="10", price="99"))
    assert divided(written) == (10, 0)


def test_what_neither_decision_ordered_is_a_change_by_others(written: HandWritten) -> None:
    """The order filled 4 of the 10."""
    two_closes(written, entry(FIRST, "filled", after(seconds=6), state="filled", filled="4", price="99"))
    assert divided(written) == (4, 6)


def test_as_long_as_the_fate_of_its_order_is_unknown_nobody_is_named(written: HandWritten) -> None:
    """It may have been that order, or somebody else."""
    two_closes(written)
    assert divided(written) == (None, None)


def test_what_it_filled_before_the_second_decision_explains_nothing_after_it(written: HandWritten) -> None:
    """Its 10 were gone when the second was decided on 10 that were held: these went by others."""
    two_closes(written, entry(FIRST, "filled", after(seconds=4), state="filled", filled="10", price="99"))
    assert divided(written) == (0, 10)


def test_an_order_that_the_venue_did_not_have_may_have_been_under_way(written: HandWritten) -> None:
    """It was absent when the next process asked, and the position was gone a second later: by whom is not known."""
    one = firing(FIRST, after(), "close-everything", 3, 0, *BEGUN, kind="manual")
    written.tick(after(), [one], [entry(FIRST, "planned", after(), contracts="10", target="0", value="100")],
                 snapshot=snapshot(after()))  # fmt: skip
    for each in (
        entry(FIRST, "sending", after(seconds=1), side="sell", amount="10", order="market"),
        entry(FIRST, "absent", after(seconds=6)),
        entry(FIRST, "verified", after(seconds=7), position="0", target="0"),
        entry(FIRST, "finished", after(seconds=7), None, status="flat"),
    ):
        written.store.append(each)
    (position,) = read_result(written.store, one).positions
    assert (position.filled, position.others) == (0, None)
