"""How far a close has come, and when it is expected to end."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.cli.live.close_progress import progress_block
from killswitch.journal.codec import decode_all
from killswitch.model.decision import Decision, Intent, Unwinding
from killswitch.model.store import JournalEntry, JournalKind
from killswitch.operations.progress import CloseProgress, progress_of, scheduled_seconds
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


def verified(symbol: str, seconds: float, left: str) -> JournalEntry:
    return entry("verified", seconds, symbol, position=left, target="0")


def at(seconds: float, about: Decision, journal: Sequence[JournalEntry], *, runs: bool = True) -> CloseProgress:
    return progress_of(about, decode_all(journal), after(seconds=seconds), is_runner_alive=runs)


def left(progress: CloseProgress) -> float | None:
    """Seconds until it is expected to end."""
    return None if progress.expected_end is None else (progress.expected_end - progress.at).total_seconds()


def test_before_anything_has_filled_the_end_is_unknown() -> None:
    """Nothing is known of the pace, and none is declared."""
    shown = at(3, decision("1", "1"), [*planned(A="1", B="1"), sent("A", "o1", 1, "1")])
    assert (shown.positions, shown.done, shown.open, shown.orders.sent, shown.orders.filled) == (2, 0, 2, 1, 0)
    assert (shown.elapsed, shown.expected_end, shown.unknown_because) == (3.0, None, "nothing has filled yet")


def test_the_end_is_expected_by_the_pace_so_far() -> None:
    """A third of the work took 10 s from the first order on: the other two thirds take 20 s."""
    journal = [
        *planned(A="1", B="1", C="1"), sent("A", "o1", 2, "1"), filled("A", "o1", 3, "1"), verified("A", 4, "0"),
    ]  # fmt: skip
    shown = at(12, decision("1", "1", "1"), journal)
    assert (shown.done, left(shown)) == (1, pytest.approx(20.0, abs=1e-3))


def test_a_position_that_is_partly_filled_counts_by_its_part() -> None:
    """A quarter of one position of two is an eighth of the work: 4 s for it are 28 s for the rest."""
    journal = [*planned(A="4", B="1"), sent("A", "o1", 0, "4"), filled("A", "o1", 1, "1")]
    assert left(at(4, decision("4", "1"), journal)) == pytest.approx(28.0, abs=1e-3)


def test_a_declared_pace_is_known_before_anything_has_filled() -> None:
    """Six orders at twenty a minute take 18 s."""
    slow = decision("3", "3", unwinding=Unwinding("slow", max_orders_per_minute=20), parts=3)
    assert left(at(0, slow, planned(A="3", B="3"))) == pytest.approx(18.0)


def test_the_pause_between_slices_is_reckoned_with() -> None:
    """Five slices with 2 s between two of them take at least 8 s."""
    assert left(at(0, decision("5", unwinding=Unwinding("slow", pause=2.0), parts=5), planned(A="5"))) == 8.0


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
def test_a_declared_pace_says_how_long_a_close_lasts(unwinding: Unwinding | None, seconds: float) -> None:
    """Two positions of three slices each: six orders on the account, two pauses for each position."""
    assert scheduled_seconds(decision("3", "3", unwinding=unwinding, parts=3)) == seconds


def test_of_two_paces_the_slower_holds() -> None:
    """The venue fills faster than the schedule sends, and the other way round."""
    fast = [*planned(A="2", B="2"), sent("A", "o1", 0, "2"), filled("A", "o1", 1, "2"), verified("A", 1, "0")]
    paced = decision("2", "2", unwinding=Unwinding("slow", max_orders_per_minute=2))
    assert left(at(1, paced, fast)) == pytest.approx(30.0)
    assert left(at(90, paced, fast)) == pytest.approx(90.0, abs=1e-3)


def test_without_a_runner_no_end_is_expected() -> None:
    """Nobody works on it."""
    journal = [*planned(A="1", B="1"), sent("A", "o1", 0, "1"), filled("A", "o1", 1, "1")]
    shown = at(5, decision("1", "1"), journal, runs=False)
    assert (shown.expected_end, shown.unknown_because) == (None, "no runner is running to work on it")


def test_what_is_refused_or_unknown_is_held_up_with_the_reason() -> None:
    """Two positions of three are held up, one is on its way: neither then nor with all held up is there an end."""
    journal = [
        *planned(A="1", B="2", C="3"),
        sent("A", "o1", 1, "1"), sent("B", "o2", 1, "2"), sent("C", "o3", 1, "3"),
        entry("rejected", 2, "A", "o1", reason="market_closed", text="A is halted"),
        entry("unknown", 2, "B", "o2"),
        entry("acknowledged", 2, "C", "o3"),
    ]  # fmt: skip
    about = decision("1", "2", "3")
    shown = at(5, about, journal)
    assert (shown.orders.sent, shown.orders.unknown, shown.orders.refused) == (3, 1, 1)
    assert [(each.symbol, each.why) for each in shown.blocked] == [
        ("A", "rejected: market_closed (A is halted)"), ("B", "the status of order o2 is unknown"),
    ]  # fmt: skip
    assert (shown.expected_end, shown.unknown_because) == (None, "2 of 3 open positions are held up")
    journal.append(entry("rejected", 6, "C", "o3", reason="price_band"))
    assert at(7, about, journal).unknown_because == "every open position is held up"


@pytest.mark.parametrize(("status", "standing"), [("flat", "flat"), ("residual", "residual"), ("blocked", "blocked")])
def test_a_close_that_has_ended_stands_still(status: str, standing: str) -> None:
    """Its length is from the decision to its end, however long ago that is; what is left open says why."""
    journal = [
        *planned(A="1"), sent("A", "o1", 1, "1"), filled("A", "o1", 2, "1"),
        verified("A", 3, "0" if status == "flat" else "0.5"),
        entry("finished", 4, status=status, reason="half a lot is dust"),
    ]  # fmt: skip
    shown = at(100, decision("1"), journal)
    assert (shown.standing, shown.elapsed, shown.expected_end) == (standing, 4.0, after(seconds=4))
    assert [(each.left, each.why) for each in shown.blocked] == (
        [] if status == "flat" else [(Decimal("0.5"), "half a lot is dust")]
    )


def test_a_change_is_everything_but_the_time() -> None:
    """A second later with nothing new is the same; an order more is another."""
    journal = [*planned(A="1", B="1"), sent("A", "o1", 0, "1"), filled("A", "o1", 1, "1")]
    about = decision("1", "1")
    assert at(2, about, journal).changing == at(3, about, journal).changing
    assert at(2, about, journal).changing != at(2, about, [*journal, sent("B", "o2", 2, "1")]).changing


def test_a_stage_that_only_observes_has_no_positions_at_work() -> None:
    """Nothing is planned, so nothing is followed."""
    shown = at(1, replace(decision("1"), mode="observe"), [])
    assert (shown.positions, shown.standing) == (0, "recorded only")


def test_orders_that_filled_in_part_or_not_at_all_are_told_apart() -> None:
    """Of three, one filled whole, one half, and one expired with nothing."""
    journal = [
        *planned(A="1", B="2", C="3"),
        sent("A", "o1", 1, "1"), sent("B", "o2", 1, "2"), sent("C", "o3", 1, "3"),
        filled("A", "o1", 2, "1"), filled("B", "o2", 2, "1"), filled("C", "o3", 2, "0"),
    ]  # fmt: skip
    counts = at(5, decision("1", "2", "3"), journal).orders
    assert (counts.sent, counts.filled, counts.partly, counts.empty) == (3, 2, 1, 1)
    shown = progress_block(at(5, decision("1", "2", "3"), journal))
    assert "3 sent, 2 filled (1 in part), 0 unknown, 1 ended without a fill" in shown[2]
