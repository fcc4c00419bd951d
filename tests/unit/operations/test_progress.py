"""The progress of a close, and its expected end."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.cli.live.close_progress import progress_section
from killswitch.journal.codec import decode_all
from killswitch.model.decision import Decision, Intent, Unwinding
from killswitch.model.store import JournalEntry, JournalKind
from killswitch.operations.progress import CloseProgress, progress_of, scheduled_seconds
from killswitch.render.document import section_text
from tests.worlds import START, after


def decision(*contracts: str, unwinding: Unwinding | None = None, parts: int = 1) -> Decision:
    """A close of one long position for each of `contracts`, in `parts` orders each, by symbols A, B, C …"""
    intents = tuple(
        Intent("main", "ABC"[i], "long", "sell", Decimal(each) / parts, Decimal(0), reduce_only=True, rank=i + 1)
        for i, each in enumerate(contracts)
        for _ in range(parts)
    )
    return Decision(
        id="d1", as_of=START, policy="operator", policy_set="sha256:test", scope="portfolio", mode="enforce",
        stage=None, level=0, previous_level=0, kind="manual", intents=intents, unwinding=unwinding,
    )  # fmt: skip


def entry(
    kind: JournalKind, seconds: float, symbol: str | None = None, order: str | None = None, **data: str
) -> JournalEntry:
    return JournalEntry(
        "d1", kind, after(seconds=seconds), "main", symbol, None if symbol is None else "long", order, data=dict(data)
    )


def planned(**contracts: str) -> list[JournalEntry]:
    return [entry("planned", 0, symbol, contracts=each, target="0") for symbol, each in contracts.items()]


def sent(symbol: str, order: str, seconds: float, amount: str) -> JournalEntry:
    return entry("sending", seconds, symbol, order, side="sell", amount=amount)


def filled(symbol: str, order: str, seconds: float, amount: str) -> JournalEntry:
    return entry("filled", seconds, symbol, order, state="filled", filled=amount, price="10", fee="0")


def verified(symbol: str, seconds: float, seconds_left: str) -> JournalEntry:
    return entry("verified", seconds, symbol, position=seconds_left, target="0")


def progress_at(
    seconds: float, close: Decision, journal: Sequence[JournalEntry], *, is_runner_alive: bool = True
) -> CloseProgress:
    return progress_of(close, decode_all(journal), after(seconds=seconds), is_runner_alive=is_runner_alive)


def seconds_left(progress: CloseProgress) -> float | None:
    """Seconds until the expected end."""
    return None if progress.expected_end is None else (progress.expected_end - progress.at).total_seconds()


def test_before_the_first_fill_the_end_is_unknown() -> None:
    """No pace is measured, and none is declared."""
    progress = progress_at(3, decision("1", "1"), [*planned(A="1", B="1"), sent("A", "o1", 1, "1")])
    assert (progress.positions, progress.done, progress.open, progress.orders.sent, progress.orders.filled) == (
        2,
        0,
        2,
        1,
        0,
    )
    assert (progress.elapsed, progress.expected_end, progress.unknown_because) == (3.0, None, "nothing has filled yet")


def test_the_expected_end_follows_the_pace_so_far() -> None:
    """A third of the work took 10 s from the first order: the other two thirds take 20 s."""
    journal = [
        *planned(A="1", B="1", C="1"), sent("A", "o1", 2, "1"), filled("A", "o1", 3, "1"), verified("A", 4, "0"),
    ]  # fmt: skip
    progress = progress_at(12, decision("1", "1", "1"), journal)
    assert (progress.done, seconds_left(progress)) == (1, pytest.approx(20.0, abs=1e-3))


def test_a_partly_filled_position_counts_in_proportion() -> None:
    """A quarter of one of two positions is an eighth of the work: it took 4 s, so the rest takes 28 s."""
    journal = [*planned(A="4", B="1"), sent("A", "o1", 0, "4"), filled("A", "o1", 1, "1")]
    assert seconds_left(progress_at(4, decision("4", "1"), journal)) == pytest.approx(28.0, abs=1e-3)


def test_a_declared_pace_gives_an_end_before_the_first_fill() -> None:
    """Six orders at twenty a minute take 18 s."""
    slow = decision("3", "3", unwinding=Unwinding("slow", max_orders_per_minute=20), parts=3)
    assert seconds_left(progress_at(0, slow, planned(A="3", B="3"))) == pytest.approx(18.0)


def test_the_pause_between_slices_is_included() -> None:
    """Five slices with 2 s between two of them take at least 8 s."""
    assert (
        seconds_left(progress_at(0, decision("5", unwinding=Unwinding("slow", pause=2.0), parts=5), planned(A="5")))
        == 8.0
    )


@pytest.mark.parametrize(
    ("unwinding", "seconds"),
    [
        (None, 0.0),
        (Unwinding("plain"), 0.0),
        (Unwinding("slow", max_orders_per_minute=20), 18.0),
        (Unwinding("slow", pause=4.0), 8.0),
        (Unwinding("slow", max_orders_per_minute=60, pause=4.0), 8.0),
    ],
)
def test_a_declared_pace_determines_the_duration_of_a_close(unwinding: Unwinding | None, seconds: float) -> None:
    """Two positions of three slices each: six orders on the account, two pauses for each position."""
    assert scheduled_seconds(decision("3", "3", unwinding=unwinding, parts=3)) == seconds


def test_of_two_paces_the_slower_one_counts() -> None:
    """The venue fills faster than the schedule sends, and the reverse."""
    fast = [*planned(A="2", B="2"), sent("A", "o1", 0, "2"), filled("A", "o1", 1, "2"), verified("A", 1, "0")]
    paced = decision("2", "2", unwinding=Unwinding("slow", max_orders_per_minute=2))
    assert seconds_left(progress_at(1, paced, fast)) == pytest.approx(30.0)
    assert seconds_left(progress_at(90, paced, fast)) == pytest.approx(90.0, abs=1e-3)


def test_without_a_runner_no_end_is_expected() -> None:
    """No runner works on the close."""
    journal = [*planned(A="1", B="1"), sent("A", "o1", 0, "1"), filled("A", "o1", 1, "1")]
    progress = progress_at(5, decision("1", "1"), journal, is_runner_alive=False)
    assert (progress.expected_end, progress.unknown_because) == (None, "no runner is running to work on it")


def test_positions_with_refused_or_unknown_orders_are_held_up_with_the_reason() -> None:
    """No end is expected with two of three positions held up, nor with all three."""
    journal = [
        *planned(A="1", B="2", C="3"),
        sent("A", "o1", 1, "1"), sent("B", "o2", 1, "2"), sent("C", "o3", 1, "3"),
        entry("rejected", 2, "A", "o1", reason="market_closed", text="A is halted"),
        entry("unknown", 2, "B", "o2"),
        entry("acknowledged", 2, "C", "o3"),
    ]  # fmt: skip
    close = decision("1", "2", "3")
    progress = progress_at(5, close, journal)
    assert (progress.orders.sent, progress.orders.unknown, progress.orders.refused) == (3, 1, 1)
    assert [(each.symbol, each.why) for each in progress.blocked] == [
        ("A", "rejected: market_closed (A is halted)"), ("B", "the status of order o2 is unknown"),
    ]  # fmt: skip
    assert (progress.expected_end, progress.unknown_because) == (None, "2 of 3 open positions are held up")
    journal.append(entry("rejected", 6, "C", "o3", reason="price_band"))
    assert progress_at(7, close, journal).unknown_because == "every open position is held up"


@pytest.mark.parametrize(
    ("status", "status_shown"), [("flat", "flat"), ("residual", "residual"), ("blocked", "blocked")]
)
def test_the_progress_of_an_ended_close_no_longer_changes(status: str, status_shown: str) -> None:
    """Its duration runs from decision to end, however long ago; a remaining position has its reason."""
    journal = [
        *planned(A="1"), sent("A", "o1", 1, "1"), filled("A", "o1", 2, "1"),
        verified("A", 3, "0" if status == "flat" else "0.5"),
        entry("finished", 4, status=status, reason="half a lot is dust"),
    ]  # fmt: skip
    progress = progress_at(100, decision("1"), journal)
    assert (progress.standing, progress.elapsed, progress.expected_end) == (status_shown, 4.0, after(seconds=4))
    assert [(each.left, each.why) for each in progress.blocked] == (
        [] if status == "flat" else [(Decimal("0.5"), "half a lot is dust")]
    )


def test_progress_counts_as_changed_unless_only_time_has_passed() -> None:
    """A second later without news is no change; a further order is one."""
    journal = [*planned(A="1", B="1"), sent("A", "o1", 0, "1"), filled("A", "o1", 1, "1")]
    close = decision("1", "1")
    assert progress_at(2, close, journal).changing == progress_at(3, close, journal).changing
    assert (
        progress_at(2, close, journal).changing != progress_at(2, close, [*journal, sent("B", "o2", 2, "1")]).changing
    )


def test_an_observing_stage_has_no_positions_in_progress() -> None:
    """Nothing is planned, so nothing is in progress."""
    progress = progress_at(1, replace(decision("1"), mode="observe"), [])
    assert (progress.positions, progress.standing) == (0, "recorded only")


def test_an_order_that_is_filled_in_part_so_far_is_not_counted_as_filled() -> None:
    """The venue holds an order of 2, of which 1 is filled; another of 1 is filled."""
    journal = [
        *planned(A="1", B="2"), sent("A", "o1", 1, "1"), sent("B", "o2", 1, "2"), filled("A", "o1", 2, "1"),
        entry("acknowledged", 2, "B", "o2", filled="1"),
    ]  # fmt: skip
    counts = progress_at(5, decision("1", "2"), journal).orders
    assert (counts.sent, counts.filled, counts.partly, counts.empty) == (2, 1, 1, 0)


def test_partly_filled_and_unfilled_orders_are_counted_separately() -> None:
    """Of three orders, one filled fully, one half, and one expired without a fill."""
    journal = [
        *planned(A="1", B="2", C="3"),
        sent("A", "o1", 1, "1"), sent("B", "o2", 1, "2"), sent("C", "o3", 1, "3"),
        filled("A", "o1", 2, "1"), filled("B", "o2", 2, "1"), filled("C", "o3", 2, "0"),
    ]  # fmt: skip
    counts = progress_at(5, decision("1", "2", "3"), journal).orders
    assert (counts.sent, counts.filled, counts.partly, counts.empty) == (3, 1, 1, 1)
    progress = section_text(progress_section(progress_at(5, decision("1", "2", "3"), journal))).splitlines()
    assert "3 sent, 1 filled, 1 in part, 0 unknown, 1 ended without a fill" in progress[2]
