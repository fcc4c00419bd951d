"""The position ledger: anchors and outstanding amounts, worked by hand from journal entries."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from killswitch.journal.codec import decode, number
from killswitch.journal.entries import Entry, known
from killswitch.journal.ledger import PositionLedger
from killswitch.journal.lifecycle import TargetEvent, event_of
from killswitch.model.store import JournalEntry, JournalKind

D = Decimal
AT = datetime(2026, 1, 1, tzinfo=UTC)

DECIDED = D(9)


def entry(kind: JournalKind, name: str | None = "o1", **data: str | None) -> Entry:
    return decode(JournalEntry("d1", kind, AT, "main", "BTC", "long", name, 1, data))


def fold(*entries: Entry) -> PositionLedger:
    of = PositionLedger()
    for each in entries:
        of.apply(each, DECIDED)
    return of


def test_the_anchor_is_the_smallest_verified_position() -> None:
    """Ten, then seven, then a late nine: seven; an unreadable position changes nothing."""
    shown = [entry("verified", None, position=text) for text in ("10", "7", "9", "?")]
    assert fold(shown[0]).anchor == D(10)
    assert fold(*shown).anchor == D(7)


def test_a_single_order_sets_the_anchor_to_the_position_it_was_sent_on() -> None:
    """It may lie above the last anchor, since the position may have grown; a second one in flight changes nothing."""
    of = fold(entry("verified", None, position="5"), entry("sending", position="8", amount="3"))
    assert (of.anchor, of.outstanding) == (D(8), {"o1": D(3)})
    of.apply(entry("sending", "o2", position="20", amount="4"), DECIDED)
    assert (of.anchor, of.outstanding) == (D(8), {"o1": D(3), "o2": D(4)})


def test_the_anchor_does_not_move_while_an_order_may_fill() -> None:
    """The venue's positions may lag behind its fills: the anchor waits for the answer."""
    of = fold(entry("sending", position="8", amount="3"), entry("verified", None, position="1"))
    assert of.anchor == D(8)


def test_fills_lower_the_anchor_and_add_to_what_is_closed() -> None:
    """8 less 2 less 1; a repeated report of the same order counts for nothing."""
    of = fold(entry("sending", position="8", amount="3"), entry("filled", filled="2"), entry("filled", filled="2"))
    assert (of.anchor, of.closed, of.outstanding) == (D(6), D(2), {})
    of.apply(entry("sending", "o2", position="6", amount="3"), DECIDED)
    of.apply(entry("filled", "o2", filled="1"), DECIDED)
    assert (of.anchor, of.closed) == (D(5), D(3))


def test_an_unreadable_fill_counts_as_full() -> None:
    """All 3 that were sent; an anchor that is unknown stays unknown."""
    of = fold(entry("sending", position="8", amount="3"), entry("filled", filled=None))
    assert (of.anchor, of.closed) == (D(5), D(3))
    of = fold(entry("sending", amount="3"), entry("filled", filled="1"))
    assert (of.anchor, of.closed) == (None, D(1))


def test_an_order_with_an_unreadable_amount_is_outstanding() -> None:
    """That something is in flight is known, though not how much."""
    assert fold(entry("sending", position="8", amount="?")).outstanding == {"o1": DECIDED}


@pytest.mark.parametrize("kind", ["rejected", "absent"])
def test_an_absent_or_rejected_order_is_no_longer_outstanding(kind: JournalKind) -> None:
    """The anchor and the closed amount stay; a repeated entry changes nothing."""
    of = fold(entry("sending", position="8", amount="3"), entry(kind), entry(kind))
    assert (of.anchor, of.closed, of.outstanding) == (D(8), D(0), {})


def test_a_detached_order_counts_unless_the_venue_caps_the_next_order() -> None:
    """8 held, 3 detached: 5 are free, and all 8 for a capped order; one in flight is counted for both."""
    of = fold(entry("sending", position="8", amount="3"), entry("set_aside"))
    assert (of.detached, of.closable(D(8)), of.closable(D(8), is_capped_by_venue=True)) == ({"o1"}, D(5), D(8))
    of.apply(entry("sending", "o2", position="8", amount="1"), DECIDED)
    assert (of.closable(D(8)), of.closable(D(8), is_capped_by_venue=True)) == (D(4), D(7))


def test_an_order_sent_again_under_its_id_is_no_longer_detached() -> None:
    """Even a capped order is held back by it."""
    of = fold(entry("sending", position="8", amount="3"), entry("set_aside"), entry("sending", amount="3"))
    assert (of.detached, of.closable(D(8), is_capped_by_venue=True)) == (set(), D(5))


def test_only_an_outstanding_order_can_be_detached() -> None:
    """The id of an order that was settled before is not kept."""
    assert fold(entry("set_aside")).detached == set()


def test_the_ledger_waits_until_every_outstanding_order_is_abandoned() -> None:
    """Of two, one abandoned: it still waits; both: no longer, though both still count."""
    of = fold(entry("sending", position="8", amount="3"), entry("sending", "o2", amount="2"))
    assert of.is_waiting
    of.apply(entry("abandoned"), DECIDED)
    assert of.is_waiting
    of.apply(entry("abandoned", "o2"), DECIDED)
    assert (of.is_waiting, of.closable(D(8))) == (False, D(3))


def test_the_assumed_position_is_the_smaller_of_the_venues_and_ours() -> None:
    """Before the first anchor the venue's; what our orders leave is then what it was before."""
    blank = PositionLedger()
    assert (blank.assumed(D(4)), blank.remaining(D(9)), blank.closable(D(4)), blank.is_waiting) == (
        D(4),
        D(9),
        D(4),
        False,
    )
    of = fold(entry("verified", None, position="5"))
    assert (of.assumed(D(4)), of.assumed(D(6)), of.remaining(D(9))) == (D(4), D(5), D(5))


@pytest.mark.parametrize(("text", "value"), [("1.50", "1.50"), ("0", "0"), ("-2", "-2")])
def test_a_number_is_read_as_it_is_written(text: str, value: str) -> None:
    """Decimal text to its digit."""
    assert str(known(number(text))) == value


@pytest.mark.parametrize("text", [None, "", "much", "NaN", "Infinity", "-Infinity", "sNaN"])
def test_a_text_that_is_no_finite_number_is_unknown(text: str | None) -> None:
    """None, and never 0."""
    assert known(number(text)) is None


@pytest.mark.parametrize(
    ("position", "target", "event"),
    [
        ("5", "5", TargetEvent.VERIFIED_AT),
        ("4", "5", TargetEvent.VERIFIED_AT),
        ("6", "5", TargetEvent.VERIFIED_ABOVE),
        (None, "5", TargetEvent.VERIFIED_ABOVE),
        ("5", None, TargetEvent.VERIFIED_ABOVE),
        ("?", "?", TargetEvent.VERIFIED_ABOVE),
    ],
)
def test_a_target_is_reached_only_by_two_readable_numbers(
    position: str | None, target: str | None, event: TargetEvent
) -> None:
    """An unreadable position is never at its target."""
    assert event_of(entry("verified", None, position=position, target=target)) is event


def test_a_slice_that_follows_at_once_differs_from_any_other_order() -> None:
    """By the text in `after`; kinds that move no target give no event."""
    assert event_of(entry("sending", after="next slice")) is TargetEvent.NEXT_SLICE
    assert event_of(entry("sending", after="else")) is TargetEvent.SENDING
    assert event_of(entry("acknowledged", after="next slice")) is TargetEvent.ACKNOWLEDGED
    assert event_of(entry("planned", None)) is None
