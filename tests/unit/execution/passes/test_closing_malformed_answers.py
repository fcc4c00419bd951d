"""Closing with malformed answers: every journal entry is readable, and nothing is sent twice."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.execution.account_executor import AccountExecutor
from killswitch.journal.codec import decode
from killswitch.journal.lifecycle import TargetState
from killswitch.journal.targets import PositionTarget
from killswitch.model.store import JournalEntry, Store
from tests.closing_cases import commit, decide, drive
from tests.honest_venue import NOW, HonestVenue, VirtualClock

D = Decimal


def close_position(venue: HonestVenue, store: Store, target: Decimal, passes: int = 5000) -> AccountExecutor:
    closer = AccountExecutor(venue.account, venue, store, VirtualClock())
    closer.adopt(commit(store, decide(venue, {"BTC": target})))
    asyncio.run(drive(closer, passes))
    return closer


def kinds(store: Store) -> list[str]:
    return [entry.kind for entry in store.journal("d1")]


def garbling(wrong: dict[str, Any], queries: int = 2) -> HonestVenue:
    """Executes what it is sent; its answers to orders, and to the first queries, carry `wrong` fields."""
    venue = HonestVenue({"BTC": D(100)})
    venue.change("submit", lambda true: replace(true, **wrong))
    venue.change("find_order", lambda true: true and replace(true, **wrong), times=queries)
    return venue


@pytest.mark.parametrize(
    "wrong",
    [
        {"filled": None},
        {"filled": D("NaN")},
        {"filled": D("Infinity")},
        {"filled": D(-1)},
        {"filled": "50"},
        {"state": "gone"},
        {"state": ["filled"]},
        {"client_order_id": "another"},
    ],
    ids=lambda wrong: " ".join(f"{key}={value}" for key, value in wrong.items()),
)
def test_an_impossible_answer_is_unknown_and_queried(store: Store, wrong: dict[str, Any]) -> None:
    """It is not journaled as a fill, the order is not sent again, and the true answer counts when it arrives."""
    venue = garbling(wrong)
    close_position(venue, store, D(50))
    assert kinds(store) == ["planned", "sending", "unknown", "filled", "verified", "finished"]
    assert (venue.position("BTC"), len(venue.state["orders"])) == (D(50), 1)


def test_an_overfill_counts_as_the_amount(store: Store) -> None:
    """An order that the venue always reports as overfilled counts as filled, and its queries end."""
    venue = garbling({"filled": D(51)}, queries=10**6)
    close_position(venue, store, D(50))
    assert kinds(store) == ["planned", "sending", "filled", "verified", "finished"]
    assert store.journal("d1")[2].data["filled"] == "50"


@pytest.mark.parametrize("wrong", [{"average_price": D("NaN")}, {"fee": D("sNaN")}, {"fee": "0.1"}])
def test_a_price_that_is_no_number_makes_the_cost_unknown_and_nothing_else(store: Store, wrong: dict[str, Any]) -> None:
    """The close continues to flat, and its cost is unknown, after a restart too."""
    venue = garbling(wrong)
    (closing,) = close_position(venue, store, D(0)).progress()
    assert (closing.status, closing.cost) == ("flat", None)
    again = AccountExecutor("main", venue, store, VirtualClock())
    asyncio.run(again.recover())
    assert again.progress() == (closing,)


def test_a_text_that_cannot_be_encoded_is_journaled_as_far_as_possible(store: Store) -> None:
    """A venue's text with a lone surrogate does not prevent its refusal from being journaled."""

    venue = HonestVenue({"BTC": D(100)})
    venue.fail("submit", ValueError("\ud800" * 10_000))
    close_position(venue, store, D(0), passes=3)
    answer = next(entry for entry in store.journal("d1") if entry.kind == "unknown")
    assert len(answer.data["text"] or "") == 500


def test_an_older_entry_without_a_number_counts_as_filled_in_full() -> None:
    """A journal with such an entry is readable: at worst the order closed all it could, and its cost is unknown."""
    target = PositionTarget("d1", "main", "BTC", "long", "sell", D(0), D(10), D(10), True, 1, 0)
    for kind, data in (("sending", {"amount": "10", "position": "10"}), ("filled", {"filled": "None", "price": "NaN"})):
        target.apply(
            decode(JournalEntry("d1", kind, NOW, "main", "BTC", "long", "x", 1, data))  # type: ignore[arg-type] # literals
        )
    assert (target.state, target.filled, target.cost) == (TargetState.SETTLED, D(10), None)


@pytest.mark.parametrize("request_", ["submit", "find_order", "snapshot", "cancel"])
def test_an_adapter_that_cancels_itself_has_given_no_answer(store: Store, request_: str) -> None:
    """A CancelledError that nobody requested leaves the status unknown, and does not end the run."""

    venue = HonestVenue({"BTC": D(100)}, resting={"o1": "BTC"}, fill_shares=("0.5",))
    closer = AccountExecutor("main", venue, store, VirtualClock())
    decision = decide(venue, {"BTC": D(0)}, cancels={"o1": ("BTC", "entry")})
    venue.fail(request_, asyncio.CancelledError(), times=1)
    closer.adopt(commit(store, decision))
    assert asyncio.run(drive(closer))
    assert (venue.position("BTC"), kinds(store)[-1]) == (D(0), "finished")


def test_a_pass_that_the_runner_cancels_does_end() -> None:
    """Our own cancellation propagates: the cancelled task distinguishes it from an adapter's own."""
    from killswitch.execution.response_timeouts import is_task_cancelled

    async def story() -> bool:
        seen: list[bool] = []

        async def request() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append(is_task_cancelled())
                raise

        task = asyncio.create_task(request())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return seen == [True] and not is_task_cancelled()

    assert asyncio.run(story())
