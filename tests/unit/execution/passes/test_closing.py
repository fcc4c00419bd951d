"""Closing: what is sent, what is believed, and how a decision's job ends. Cases C1, C4, C5, C9 by name."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.execution.account_executor import AccountExecutor
from killswitch.execution.state.intents import client_order_id, planned_entries
from killswitch.journal.codec import decode
from killswitch.journal.lifecycle import TRANSITIONS, ForbiddenTransitionError, TargetEvent, TargetState
from killswitch.journal.targets import PositionTarget
from killswitch.model.decision import LockOrder, Rung, Unwinding, decode_decision
from killswitch.model.snapshot import AccountSnapshot, Quality, Snapshot
from killswitch.model.store import JournalEntry, Store
from killswitch.model.venue import (
    FateUnknownError,
    OrderRejectedError,
    OrderReport,
    OrderRequest,
    RateLimitedError,
    VenueDownError,
    VenueError,
)
from tests.closing_cases import commit, decide, drive
from tests.honest_venue import NOW, HonestVenue, VirtualClock
from tests.lock_turns import LockFolder

D = Decimal


def closer_for(venue: HonestVenue, store: Store, clock: VirtualClock | None = None) -> AccountExecutor:
    return AccountExecutor(venue.account, venue, store, clock or VirtualClock())


def close(venue: HonestVenue, store: Store, targets: dict[str, Decimal], passes: int = 5000) -> AccountExecutor:
    """Decide, adopt and drive; returns the executor, which has the status of the close."""
    closer = closer_for(venue, store)
    closer.adopt(commit(store, decide(venue, targets)))
    asyncio.run(drive(closer, passes))
    return closer


def kinds(store: Store, decision: str = "d1") -> list[str]:
    return [entry.kind for entry in store.journal(decision)]


def finished_fields(store: Store, decision: str = "d1") -> dict[str, str | None]:
    (finished,) = [entry for entry in store.journal(decision) if entry.kind == "finished"]
    return finished.data


def is_for_btc(request: OrderRequest) -> bool:
    return request.symbol == "BTC"


def buying_back(venue: HonestVenue, amount: Decimal) -> Callable[[OrderReport], OrderReport]:
    """Somebody else buys `amount` contracts of BTC after an order."""

    def buy(report: OrderReport) -> OrderReport:
        venue.move("BTC", amount)
        return report

    return buy


def with_contracts(contracts: Decimal) -> Callable[[AccountSnapshot], AccountSnapshot]:
    """The snapshot with this size of every position."""

    def resized(true: AccountSnapshot) -> AccountSnapshot:
        sizes = tuple(replace(each, contracts=contracts) for each in true.positions or ())
        return replace(true, positions=sizes)

    return resized


def test_a_trim_closes_exactly_what_was_decided(store: Store) -> None:
    """Half of the long is closed, all of the short, and the journal has it in order."""
    venue = HonestVenue({"BTC": D(100), "ETH": D(-30)})
    closer = close(venue, store, {"BTC": D(50), "ETH": D(0)})
    assert (venue.position("BTC"), venue.position("ETH")) == (D(50), D(0))
    assert kinds(store) == [
        "planned", "planned", "sending", "sending", "filled", "filled", "verified", "verified", "finished",
    ]  # fmt: skip
    (closing,) = closer.progress()
    assert (closing.status, closing.residual) == ("flat", ())
    assert closing.cost == D(80) * D("0.05")


def test_c1_an_empty_answer_with_margin_in_use_is_not_flat(store: Store) -> None:
    """The venue lists no position while margin is in use: nothing is recorded as closed.

    This is a trim: a full close continues on what was known last.
    """

    venue = HonestVenue({"BTC": D(100)}, fill_shares=("0.5",))
    venue.change("snapshot", lambda true: replace(true, positions=()))
    closer = close(venue, store, {"BTC": D(10)}, passes=60)
    assert "verified" not in kinds(store)
    assert "finished" not in kinds(store)
    assert closer.progress()[0].status == "closing"
    assert closer.distrust == "an empty book with 1100.0 of margin in use"


def test_c1_a_full_close_continues_on_the_last_known_positions_while_an_empty_book_has_margin_in_use(
    store: Store,
) -> None:
    """Of 100 half fills, and the venue lists no position: the other 50 follow, and nothing ends before them."""

    def empty(true: AccountSnapshot) -> AccountSnapshot:
        if true.positions:
            assert "verified" not in kinds(store)
            assert "finished" not in kinds(store)
        return replace(true, positions=())

    venue = HonestVenue({"BTC": D(100)}, fill_shares=("0.5",))
    venue.change("snapshot", empty)
    close(venue, store, {"BTC": D(0)})
    assert [D(order["amount"]) for order in venue.state["orders"].values()] == [D(100), D(50)]
    assert (venue.position("BTC"), finished_fields(store)["status"]) == (D(0), "flat")


@pytest.mark.parametrize("quality", ["stale", "malformed", "down"])
def test_c1_an_answer_of_bad_quality_is_not_flat(store: Store, quality: Quality) -> None:
    """Positions with any quality but `ok` prove nothing, however empty they are."""

    bad = {"quality": quality, "reason": "r", "positions": (), "margin_used": D(0)}
    venue = HonestVenue({"BTC": D(100)}, fill_shares=("0.5",))
    venue.change("snapshot", lambda true: replace(true, **bad))
    close(venue, store, {"BTC": D(0)}, passes=60)
    assert "finished" not in kinds(store)
    venue.recover()
    restarted = closer_for(venue, store, VirtualClock(NOW.replace(hour=13)))
    asyncio.run(restarted.recover())
    assert asyncio.run(drive(restarted))
    assert (finished_fields(store)["status"], venue.position("BTC")) == ("flat", D(0))


def test_c1_missing_positions_are_not_flat(store: Store) -> None:
    """`positions: null` is unknown, not empty."""

    venue = HonestVenue({"BTC": D(100)}, fill_shares=("0.5",))
    venue.change("snapshot", lambda true: replace(true, positions=None))
    close(venue, store, {"BTC": D(0)}, passes=60)
    assert "finished" not in kinds(store)


def test_c1_sizes_of_zero_in_one_answer_are_not_flat(store: Store) -> None:
    """Positions of size 0 must repeat themselves before they count; one such answer is ignored."""

    venue = HonestVenue({"BTC": D(100)}, fill_shares=("0.5",))
    venue.change("snapshot", with_contracts(D(0)), times=2)
    close(venue, store, {"BTC": D(0)})
    assert (finished_fields(store)["status"], venue.position("BTC")) == ("flat", D(0))


def test_c4_close_all_is_not_done_until_the_venue_shows_flat(store: Store) -> None:
    """Partial fills are followed by further orders, and the end is journaled only at a position of zero."""
    venue = HonestVenue({"BTC": D(100)}, fill_shares=("0.3", "0", "0.5"))
    close(venue, store, {"BTC": D(0)})
    assert venue.position("BTC") == D(0)
    assert finished_fields(store)["status"] == "flat"
    shown = [entry.data["position"] for entry in store.journal("d1") if entry.kind == "verified"]
    assert [D(each or "nan") for each in shown] == [D(70), D(70), D(35), D(0)]


def test_c4_a_close_that_cannot_finish_reports_the_residual(store: Store) -> None:
    """A trim that a venue fills no further ends as `residual`, with the contracts, never as flat."""
    venue = HonestVenue({"BTC": D(100)}, fill_shares=("0.3", *["0"] * 50))
    closer = close(venue, store, {"BTC": D(10)})
    assert finished_fields(store)["status"] == "residual"
    (closing,) = closer.progress()
    assert closing.status == "residual"
    assert [(left.symbol, left.position_side, left.contracts) for left in closing.residual] == [("BTC", "long", D(63))]
    restarted = closer_for(venue, store)
    asyncio.run(restarted.recover())
    assert restarted.progress() == (closing,)


def test_c5_an_observing_decision_touches_nothing(store: Store) -> None:
    """No planned entry, no order, no cancel: the venue gets no request."""
    venue = HonestVenue({"BTC": D(100)}, resting={"o1": "BTC"})
    observed = replace(decide(venue, {"BTC": D(0)}, cancels={"o1": ("BTC", "entry")}), mode="observe")
    assert planned_entries(observed) == ()
    closer = closer_for(venue, store)
    closer.adopt(commit(store, observed))
    assert asyncio.run(closer.advance()) is False
    assert (venue.state["log"], venue.position("BTC"), list(venue.state["resting"])) == ([], D(100), ["o1"])
    assert (kinds(store), closer.progress()) == ([], ())


def test_c9_dust_ends_as_blocked_and_raises_nothing(store: Store) -> None:
    """What is left below the venue's minimum is reported, and the other positions are closed."""
    venue = HonestVenue({"BTC": D("1.0"), "ETH": D(10)}, fill_shares=("0.95",), step="0.01", minimum="0.1")
    closer = close(venue, store, {"BTC": D(0), "ETH": D(0)})
    assert (venue.position("BTC"), venue.position("ETH")) == (D("0.05"), D(0))
    (closing,) = closer.progress()
    assert (closing.status, [left.contracts for left in closing.residual]) == ("blocked", [D("0.05")])
    assert finished_fields(store)["reason"] == "dust: 0.050 of BTC is below the venue's minimum"


def test_c9_a_minimum_that_only_the_venue_knows_ends_as_blocked(store: Store) -> None:
    """Without known rules one order is sent, and its `below_minimum` refusal ends the target."""
    venue = HonestVenue({"BTC": D("0.05")}, step=None, minimum="0.1")
    close(venue, store, {"BTC": D(0)})
    assert finished_fields(store)["status"] == "blocked"
    assert kinds(store).count("sending") == 1


def test_l4_a_lock_never_holds_back_our_own_close(store: Store, tmp_path: Path) -> None:
    """With the strictest lock on the account, the close goes through: the lock is not checked before reducing."""
    folder = LockFolder(tmp_path / "locks", None, generation=1, alive_for=15)
    folder.write(LockOrder("account/main", "all", None), "s", "r", "d1", NOW)
    venue = HonestVenue({"BTC": D(100)})
    close(venue, store, {"BTC": D(0)})
    assert venue.position("BTC") == D(0)


def test_entries_are_cancelled_before_and_protection_after_closing(store: Store) -> None:
    """Entries are cancelled first, then orders are sent, and then the protection is cancelled."""
    venue = HonestVenue({"BTC": D(100)}, resting={"stop": "BTC", "entry": "BTC"})
    closer = closer_for(venue, store)
    cancels = {"stop": ("BTC", "all"), "entry": ("BTC", "entry")}
    closer.adopt(commit(store, decide(venue, {"BTC": D(0)}, cancels=cancels)))  # type: ignore[arg-type] # literals
    asyncio.run(drive(closer))
    name = client_order_id("d1", 0, 1)
    assert venue.state["log"] == ["cancel entry", f"submit {name}", "cancel stop"]
    assert finished_fields(store)["status"] == "flat"


def test_a_resting_order_that_blocks_the_close_is_cancelled_first(store: Store) -> None:
    """`blocked_by_order` cancels that symbol's resting orders, and the close is tried again."""

    venue = HonestVenue({"BTC": D(100)}, resting={"stop": "BTC"})
    error = OrderRejectedError("blocked_by_order", "a stop rests")
    venue.fail("submit", error, when=lambda _: "stop" in venue.state["resting"])
    closer = closer_for(venue, store)
    closer.adopt(commit(store, decide(venue, {"BTC": D(0)}, cancels={"stop": ("BTC", "all")})))
    asyncio.run(drive(closer))
    assert (finished_fields(store)["status"], venue.position("BTC")) == ("flat", D(0))


def test_a_close_refused_as_flat_because_orders_cover_the_position_becomes_flat(store: Store) -> None:
    """One code for "gone" and "covered by resting orders": while the position is shown, these orders are cancelled."""

    venue = HonestVenue({"BTC": D(100)}, resting={"stop": "BTC"})
    error = OrderRejectedError("already_flat", "-2022 ReduceOnly Order is rejected")
    venue.fail("submit", error, when=lambda _: "stop" in venue.state["resting"])
    closer = closer_for(venue, store)
    closer.adopt(commit(store, decide(venue, {"BTC": D(0)}, cancels={"stop": ("BTC", "all")})))
    asyncio.run(drive(closer))
    assert (finished_fields(store)["status"], venue.position("BTC")) == ("flat", D(0))


@pytest.mark.parametrize("after_effect", [False, True])
def test_an_unknown_order_status_is_resolved_by_a_query(store: Store, after_effect: bool) -> None:
    """A timeout closes the position once, whether the order had arrived or not."""

    venue = HonestVenue({"BTC": D(100)})
    venue.fail("submit", FateUnknownError("timeout"), times=1, is_done=after_effect)
    close(venue, store, {"BTC": D(50)})
    assert (venue.position("BTC"), venue.traded("BTC")) == (D(50), D(50))
    log: list[str] = venue.state["log"]
    if after_effect:
        assert [line.split()[0] for line in log] == ["submit", "ask"]
    else:
        assert log[-1].startswith("submit")
        assert {line.split()[0] for line in log[:-1]} == {"ask"}
        names = {entry.client_order_id for entry in store.journal("d1") if entry.kind == "sending"}
        assert len(names) == 1, "after `absent` the same name is sent again"


def test_no_answer_about_a_sent_order_means_no_second_order(store: Store) -> None:
    """While the status of a trim's order is unknown, nothing more is sent for the position."""

    venue = HonestVenue({"BTC": D(100)}, fill_shares=("0.5",))
    venue.fail("submit", FateUnknownError("timeout"), is_done=True)
    venue.fail("find_order", VenueDownError("maintenance"))
    closer = close(venue, store, {"BTC": D(50)}, passes=300)
    assert len(venue.state["orders"]) == 1
    assert closer.progress()[0].status == "closing"


@pytest.mark.parametrize("error", [VenueDownError("maintenance"), RateLimitedError("slow down", 7.0)])
def test_a_venue_that_processes_no_order_uses_no_attempt(store: Store, error: VenueError) -> None:
    """However often it refuses to process it, the close continues under the same id once it does."""

    venue = HonestVenue({"BTC": D(100)})
    venue.fail("submit", error, times=40)
    closer = closer_for(venue, store)
    closer.adopt(commit(store, decide(venue, {"BTC": D(0)})))
    assert asyncio.run(drive(closer, passes=5000))
    assert finished_fields(store)["status"] == "flat"
    assert {entry.attempt for entry in store.journal("d1") if entry.kind == "sending"} == {1}


def test_a_rate_limit_is_kept(store: Store) -> None:
    """The venue gets no request before `retry_after` is over."""

    clock, venue = VirtualClock(), HonestVenue({"BTC": D(100)})
    polled_at: list[float] = []

    def seen(answer: AccountSnapshot) -> AccountSnapshot:
        polled_at.append(clock.monotonic())
        return answer

    venue.fail("submit", RateLimitedError("slow down", 7.0), times=1)
    venue.change("snapshot", seen)
    closer = closer_for(venue, store, clock)
    closer.adopt(commit(store, decide(venue, {"BTC": D(0)})))
    assert asyncio.run(drive(closer))
    assert polled_at[0] == 0.0
    assert polled_at[1] >= 7.0


def test_one_position_that_is_refused_does_not_hold_up_the_others(store: Store) -> None:
    """A trim that may not be traded is given up as blocked; the others, ranked after it, are closed meanwhile."""

    venue = HonestVenue({"BTC": D(100), "ETH": D(10)})
    venue.fail("submit", OrderRejectedError("permission", "not on this symbol"), when=is_for_btc)
    closer = close(venue, store, {"BTC": D(50), "ETH": D(0)}, passes=1)
    assert venue.position("ETH") == D(0)
    asyncio.run(drive(closer, passes=2000))
    assert finished_fields(store)["status"] == "blocked"


def test_a_defect_in_an_adapter_does_not_hold_up_the_others(store: Store) -> None:
    """Whatever an adapter raises, the other positions are closed, and the order is queried."""

    venue = HonestVenue({"BTC": D(100), "ETH": D(10)})
    venue.fail("submit", KeyError("avgPx"), times=1, when=is_for_btc)
    close(venue, store, {"BTC": D(0), "ETH": D(0)})
    assert (venue.position("BTC"), venue.position("ETH")) == (D(0), D(0))
    assert finished_fields(store)["status"] == "flat"


def test_a_position_closed_by_hand_meanwhile_is_at_target(store: Store) -> None:
    """Nothing is sent for it, and the job ends as flat."""
    venue = HonestVenue({"BTC": D(100)})
    decision = commit(store, decide(venue, {"BTC": D(0)}))
    venue.move("BTC", D(-100))
    closer = closer_for(venue, store)
    closer.adopt(decision)
    asyncio.run(drive(closer))
    assert (venue.state["log"], finished_fields(store)["status"]) == ([], "flat")


def test_a_position_that_turned_meanwhile_is_left_alone(store: Store) -> None:
    """A long was to be closed and is a short now: no order is sent into the short."""
    venue = HonestVenue({"BTC": D(100)})
    decision = commit(store, decide(venue, {"BTC": D(0)}))
    venue.move("BTC", D(-150))
    closer = closer_for(venue, store)
    closer.adopt(decision)
    asyncio.run(drive(closer))
    assert venue.position("BTC") == D(-50)


def test_targets_of_several_decisions_merge_to_the_smallest(store: Store) -> None:
    """Two policies that each trim leave the smaller target, not the sum of their orders."""
    venue = HonestVenue({"BTC": D(100)})
    first, second = decide(venue, {"BTC": D(50)}), decide(venue, {"BTC": D(40)}, name="d2")
    closer = closer_for(venue, store)
    for decision in (first, second):
        closer.adopt(commit(store, decision))
    asyncio.run(drive(closer))
    assert (venue.position("BTC"), venue.traded("BTC")) == (D(40), D(60))
    assert (finished_fields(store, "d1")["status"], finished_fields(store, "d2")["status"]) == ("flat", "flat")


def test_a_full_close_does_not_wait_for_a_trim_of_unknown_status(store: Store) -> None:
    """What the trim cannot have closed is closed at once; the rest once its status is known."""

    venue, trim = HonestVenue({"BTC": D(100)}), client_order_id("d1", 0, 1)
    venue.fail("submit", FateUnknownError("timeout"), when=lambda request: request.client_order_id == trim)
    outage = venue.fail("find_order", VenueDownError("maintenance"))
    closer = closer_for(venue, store)
    closer.adopt(commit(store, decide(venue, {"BTC": D(50)})))
    asyncio.run(drive(closer, passes=3))
    closer.adopt(commit(store, decide(venue, {"BTC": D(0)}, name="d2")))
    asyncio.run(drive(closer, passes=3))
    assert venue.position("BTC") == D(50)
    outage.left = 0
    asyncio.run(drive(closer))
    assert venue.position("BTC") == D(0)


@pytest.mark.parametrize(
    ("unwinding", "cut", "expected"),
    [
        (None, ("0.1",), ["1.6"]),
        (Unwinding("steps", (Rung("market"),), is_sliced=False), ("0.1",), ["1.6"]),
        (Unwinding("thin", is_sliced=True), ("0.1",), ["0.1"] * 16),
        (Unwinding("old", is_sliced=False), ("0.4", "0.4"), ["0.4"] * 4),
    ],
)
def test_what_is_added_before_the_first_order_is_closed_with_it(
    store: Store, unwinding: Unwinding | None, cut: Sequence[str], expected: Sequence[str]
) -> None:
    """A bot enlarges 0.1 to 1.6: one order of 1.6, and slices only where liquidity bounds them or the plan had some."""
    venue = HonestVenue({"BTC": sum(map(D, cut), D(0))})
    planned = decide(venue, {"BTC": D(0)})
    intents = tuple(replace(planned.intents[0], contracts=D(part)) for part in cut)
    closer = closer_for(venue, store)
    closer.adopt(commit(store, replace(planned, intents=intents, unwinding=unwinding)))
    venue.move("BTC", D("1.6") - venue.position("BTC"))
    asyncio.run(drive(closer))
    sent = [order["amount"] for order in venue.state["orders"].values()]
    assert ([D(each) for each in sent], venue.position("BTC")) == ([D(each) for each in expected], D(0))


OLDER = b"""{
  "id": "d0d0d0d0d0d0d0d0d0d0", "as_of": "2026-01-01T00:00:00Z", "policy": "p", "policy_set": "sha256:0",
  "scope": "account/main", "mode": "enforce", "stage": "close", "level": 1, "previous_level": 0,
  "format": "killswitch.decision/v1",
  "intents": [{"account": "main", "symbol": "BTC", "position_side": "long", "side": "sell", "contracts": "0.1",
               "target": "0", "reduce_only": true, "rank": 1}],
  "unwinding": {"name": "thin"%b}
}"""
"""A decision as versions before `is_sliced` stored it: of one slice, whether liquidity had bounded that or not."""


@pytest.mark.parametrize(("key", "expected"), [(b"", ["0.1"] * 16), (b', "is_sliced": false', ["1.6"])])
def test_a_decision_of_an_older_version_keeps_the_bound_that_it_may_have_had(
    store: Store, key: bytes, expected: Sequence[str]
) -> None:
    """Its record does not say whether liquidity bounded its only slice: the stricter holds after an upgrade."""
    venue = HonestVenue({"BTC": D("0.1")})
    stored = decode_decision(OLDER % key)
    closer = closer_for(venue, store)
    closer.adopt(commit(store, stored))
    venue.move("BTC", D("1.5"))
    asyncio.run(drive(closer))
    sent = [order["amount"] for order in venue.state["orders"].values()]
    assert ([D(each) for each in sent], venue.position("BTC")) == ([D(each) for each in expected], D(0))


def test_a_trim_is_not_repeated_when_the_positions_lag_behind_the_fills(store: Store) -> None:
    """The venue shows the old position for a while after the fill: 50% stays 50%."""

    venue, seen = HonestVenue({"BTC": D(100)}), list[AccountSnapshot]()

    def first(true: AccountSnapshot) -> AccountSnapshot:
        seen.append(true)
        return seen[0]

    venue.change("snapshot", first, times=6)
    close(venue, store, {"BTC": D(50)})
    assert (venue.position("BTC"), finished_fields(store)["status"]) == (D(50), "flat")


def test_a_restarted_closer_knows_what_an_ended_decision_has_closed(store: Store) -> None:
    """The venue shows the position from before an order of a decision that has since ended: nothing is sent twice."""

    venue = HonestVenue({"BTC": D(100)}, resting={"stop": "BTC"})
    closer = closer_for(venue, store)
    closer.adopt(commit(store, decide(venue, {"BTC": D(25)})))
    closer.adopt(commit(store, decide(venue, {"BTC": D(25)}, name="d2", cancels={"stop": ("BTC", "all")})))
    asyncio.run(drive(closer, passes=1))
    assert (finished_fields(store)["status"], "finished" in kinds(store, "d2")) == ("flat", False)
    venue.change("snapshot", with_contracts(D(100)), times=5)
    restarted = closer_for(venue, store)
    asyncio.run(restarted.recover())
    asyncio.run(drive(restarted))
    assert (venue.position("BTC"), finished_fields(store, "d2")["status"]) == (D(25), "flat")


def test_the_orders_of_an_ended_decision_bound_what_another_sends_after_a_restart(store: Store) -> None:
    """The second decision was made before the first one's fill, and the venue shows the position of then."""

    venue = HonestVenue({"BTC": D(100), "ETH": D(10)})
    first, second = decide(venue, {"BTC": D(50)}), decide(venue, {"ETH": D(0), "BTC": D(25)}, name="d2")
    closer = closer_for(venue, store)
    closer.adopt(commit(store, first))
    asyncio.run(drive(closer, passes=1))
    venue.fail("submit", RateLimitedError("slow down", 5.0))
    closer.adopt(commit(store, second))
    asyncio.run(drive(closer, passes=1))
    assert (finished_fields(store)["status"], venue.position("BTC")) == ("flat", D(50))
    venue.recover()
    venue.change("snapshot", with_contracts(D(100)), times=1)
    restarted = closer_for(venue, store)
    asyncio.run(restarted.recover())
    asyncio.run(drive(restarted))
    assert (venue.position("BTC"), finished_fields(store, "d2")["status"]) == (D(25), "flat")


def test_an_absence_is_not_believed_before_a_late_request_can_have_arrived(store: Store) -> None:
    """Queried a moment after sending, the venue has no such order: that is no final answer yet."""

    venue, clock = HonestVenue({"BTC": D(100)}), VirtualClock()
    venue.fail("submit", FateUnknownError("timeout"))
    closer = closer_for(venue, store, clock)
    closer.adopt(commit(store, decide(venue, {"BTC": D(50)})))
    while clock.monotonic() < 1.9:
        asyncio.run(closer.advance())
    assert kinds(store) == ["planned", "sending", "unknown"]
    while clock.monotonic() < 3.5:
        asyncio.run(closer.advance())
    assert "absent" in kinds(store)


def test_an_order_refused_as_a_duplicate_is_queried(store: Store) -> None:
    """After a false denial the order is sent again; the refused repeat leads to the fill."""

    venue = HonestVenue({"BTC": D(100)})
    venue.fail("submit", FateUnknownError("timeout"), is_done=True)
    venue.change("find_order", lambda _: None, times=6)
    venue.change("fills", lambda _: (), when=lambda *_: venue.requests_of("find_order") < 7)
    venue.change("snapshot", with_contracts(D(100)), when=lambda: "filled" not in kinds(store))
    closer = close(venue, store, {"BTC": D(50)})
    assert (venue.position("BTC"), finished_fields(store)["status"]) == (D(50), "flat")
    assert "absent" in kinds(store)
    assert [D(e.data["filled"] or 0) for e in store.journal("d1") if e.kind == "filled"] == [D(50)]
    assert closer.progress()[0].cost == D(50) * D("0.05")


def test_a_trimmed_position_that_grows_again_is_reported_not_chased(store: Store) -> None:
    """A bot that buys back what was sold causes a residual: the decision closes no more than it decided."""

    venue = HonestVenue({"BTC": D(100)})
    venue.change("submit", buying_back(venue, D(50)))
    close(venue, store, {"BTC": D(50)})
    assert venue.traded("BTC") == D(50)
    assert finished_fields(store)["status"] == "residual"
    assert "has grown meanwhile" in (finished_fields(store)["reason"] or "")


def test_a_full_close_chases_a_position_that_grows(store: Store) -> None:
    """What was bought meanwhile is closed too."""

    venue = HonestVenue({"BTC": D(100)})
    venue.change("submit", buying_back(venue, D(20)), times=1)
    close(venue, store, {"BTC": D(0)})
    assert (venue.position("BTC"), finished_fields(store)["status"]) == (D(0), "flat")


def test_a_fresh_decision_is_sent_although_the_account_is_unavailable(store: Store) -> None:
    """Its snapshot is seconds old and the order is reduce-only: the crash does not wait."""

    venue = HonestVenue({"BTC": D(100), "ETH": D(5)})
    venue.fail("snapshot", VenueDownError("positions endpoint"))
    close(venue, store, {"BTC": D(50), "ETH": D(0)}, passes=50)
    assert (venue.position("BTC"), venue.position("ETH")) == (D(50), D(0))
    assert "finished" not in kinds(store)


def test_an_old_decision_waits_for_a_snapshot(store: Store) -> None:
    """After a restart nothing is sent on an old snapshot."""

    venue = HonestVenue({"BTC": D(100)})
    venue.fail("snapshot", VenueDownError("positions endpoint"))
    commit(store, decide(venue, {"BTC": D(50)}))
    closer = closer_for(venue, store, VirtualClock(NOW.replace(hour=13)))
    asyncio.run(closer.recover())
    asyncio.run(drive(closer, passes=50))
    assert venue.state["log"] == []


def test_an_order_that_stays_open_is_followed_to_its_end(store: Store) -> None:
    """An acknowledged order is queried until it is final; no second one is sent meanwhile."""

    venue = HonestVenue({"BTC": D(100)})
    venue.change("submit", lambda report: replace(report, state="open", filled=D(0)))
    venue.change("find_order", lambda report: report and replace(report, state="open"), times=5)
    close(venue, store, {"BTC": D(0)})
    assert kinds(store) == ["planned", "sending", "acknowledged", "filled", "verified", "finished"]
    assert len(venue.state["orders"]) == 1


def test_refusals_are_retried_at_growing_intervals_and_then_reported(store: Store) -> None:
    """Eight refusals in a row of the last kind of order end the target of a trim, with growing waits between them."""
    venue, clock = HonestVenue({"BTC": D(100)}), VirtualClock()
    venue.fail("submit", OrderRejectedError("price_band", "no"))
    closer = closer_for(venue, store, clock)
    closer.adopt(commit(store, decide(venue, {"BTC": D(50)})))
    assert asyncio.run(drive(closer, passes=5000))
    assert kinds(store).count("sending") == 2 + 8, "two at market before the last rung, and eight more"
    assert clock.monotonic() >= 0.5 + 0.5 + 0.5 + 1 + 2 + 4 + 8 + 16 + 30
    assert finished_fields(store)["status"] == "residual"
    assert "price_band" in (finished_fields(store)["reason"] or "")


def test_an_order_above_the_maximum_is_sent_in_smaller_parts(store: Store) -> None:
    """`above_maximum` halves what is sent at once until the venue takes it."""

    venue = HonestVenue({"BTC": D(100)})
    venue.fail("submit", OrderRejectedError("above_maximum", "at most 30"), when=lambda request: request.amount > 30)
    close(venue, store, {"BTC": D(0)}, passes=5000)
    assert (venue.position("BTC"), finished_fields(store)["status"]) == (D(0), "flat")


def test_a_split_order_of_one_position_is_one_target(store: Store) -> None:
    """Planning splits at the venue's maximum; closing sends parts of that size until the target is reached."""
    venue = HonestVenue({"BTC": D(100)})
    whole = decide(venue, {"BTC": D(20)})
    parts = tuple(replace(whole.intents[0], contracts=D(part)) for part in ("30", "30", "20"))
    closer = closer_for(venue, store)
    closer.adopt(commit(store, replace(whole, intents=parts)))
    asyncio.run(drive(closer))
    assert (venue.position("BTC"), finished_fields(store)["status"]) == (D(20), "flat")
    assert [D(order["amount"]) for order in venue.state["orders"].values()] == [D(30), D(30), D(20)]


def test_slippage_is_counted_against_the_mark_of_the_order_and_delay_against_the_decisions(store: Store) -> None:
    """Decided at 110, sent at 101 and sold at 100: one of slippage a contract and the fees, and nine of delay."""
    venue = HonestVenue({"BTC": D(10)})
    decision = decide(venue, {"BTC": D(0)})
    account = asyncio.run(venue.snapshot())
    dearer = tuple(replace(p, mark_price=D(110), notional=p.contracts * 110) for p in account.positions or ())
    account = replace(account, positions=dearer)
    snapshot = Snapshot(NOW, (account,), "killswitch.snapshot/v1")
    (planned,) = planned_entries(decision, snapshot=snapshot)
    assert planned.data == {"contracts": "10", "target": "0", "mark": "110", "value": "110"}
    target = PositionTarget("d1", "main", "BTC", "long", "sell", D(0), D(10), D(10), True, 1, 0)
    for entry in (
        planned,
        order_entry("sending", amount="10", position="10", mark="101", value="101"),
        order_entry("filled", filled="10", price="100", fee="5"),
    ):
        target.apply(decode(entry))
    assert target.cost is not None
    assert target.delay is not None
    assert (round(target.cost, 9), round(target.delay, 9)) == (D(10) * 1 + 5, D(10) * 9)


def order_entry(kind: str, **data: str) -> JournalEntry:
    return msgspec.convert(
        {"decision": "d1", "kind": kind, "at": NOW, "account": "main", "symbol": "BTC", "position_side": "long",
         "client_order_id": "x", "attempt": 1, "data": data},
        JournalEntry,
    )  # fmt: skip


def test_only_armed_accounts_are_planned(store: Store) -> None:
    """`planned_entries` leaves out what is not armed, so that a restart does not act on it."""
    venue = HonestVenue({"BTC": D(100)})
    decision = decide(venue, {"BTC": D(0)}, cancels={"o1": ("BTC", "entry")})
    assert planned_entries(decision, accounts=["other"]) == ()
    assert [entry.account for entry in planned_entries(decision, accounts=["main"])] == ["main"]


@given(st.text(), st.integers(0, 36**4 - 1), st.integers(0, 36**5 - 1))
def test_a_client_order_id_is_short_plain_and_always_the_same(decision: str, index: int, attempt: int) -> None:
    """At most 32 characters of [a-z0-9], and the same for the same decision, intent and attempt."""
    name = client_order_id(decision, index, attempt)
    assert re.fullmatch(r"[a-z0-9]{1,32}", name)
    assert name == client_order_id(decision, index, attempt)


@given(st.lists(st.tuples(st.text(max_size=3), st.integers(0, 40), st.integers(0, 40)), unique=True, max_size=40))
def test_different_orders_have_different_client_order_ids(orders: list[tuple[str, int, int]]) -> None:
    """No two of (decision, intent, attempt) share an id."""
    assert len({client_order_id(*order) for order in orders}) == len(orders)


def test_a_target_never_sends_while_an_order_of_its_own_is_in_flight() -> None:
    """The table has no transition from an order in flight, or from one not yet verified, to another order."""
    for state in (TargetState.SENDING, TargetState.UNKNOWN, TargetState.WORKING, TargetState.SETTLED, TargetState.OVER):
        assert TargetEvent.SENDING not in TRANSITIONS[state]


def test_a_target_never_ends_while_an_order_is_in_flight() -> None:
    """`finished` follows only where nothing can fill any more."""
    allowed = {state for state, moves in TRANSITIONS.items() if TargetEvent.FINISHED in moves}
    assert allowed == {TargetState.READY, TargetState.AT_TARGET}


def test_every_state_but_the_last_can_be_left() -> None:
    """No state is a trap, and every one is reachable from the first."""
    reached, edge = {TargetState.READY}, [TargetState.READY]
    while edge:
        for state in TRANSITIONS[edge.pop()].values():
            if state not in reached:
                reached.add(state)
                edge.append(state)
    assert reached == set(TargetState)
    assert [state for state, moves in TRANSITIONS.items() if not moves] == [TargetState.OVER]


def test_a_forbidden_entry_is_refused() -> None:
    """A journal in which an order is final twice is refused."""
    target = PositionTarget("d1", "main", "BTC", "long", "sell", D(0), D(10), D(10), True, 1, 0)
    target.apply(decode(order_entry("sending", amount="10", position="10")))
    target.apply(decode(order_entry("filled", filled="10")))
    with pytest.raises(ForbiddenTransitionError, match="d1 BTC long: filled while settled"):
        target.apply(decode(order_entry("filled", filled="10")))
