"""Closing continues through what time may lift, and reports what it is waiting for."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.execution.account_executor import AccountExecutor
from killswitch.model.store import Store
from killswitch.model.venue import FateUnknownError, OrderRejectedError, RejectReason
from tests.closing_cases import commit, decide, drive
from tests.honest_venue import HonestVenue, VirtualClock

D = Decimal


@pytest.mark.parametrize("reason", ["market_closed", "other"])
@pytest.mark.parametrize(("target", "left"), [(D(0), D(0)), (D(50), D(100))], ids=["a full close", "a trim"])
def test_a_full_close_outlasts_a_closed_market(
    store: Store, reason: RejectReason, target: Decimal, left: Decimal
) -> None:
    """Refused for ten minutes: reported after eight times, tried at growing intervals, and closed; a trim gives up."""
    clock = VirtualClock()

    venue, often = HonestVenue({"BTC": D(100)}), 10**6
    refusals = venue.fail(
        "submit", OrderRejectedError(reason, "come back later"), times=often, when=lambda _: clock.monotonic() < 600
    )
    closer = AccountExecutor("main", venue, store, clock)
    closer.adopt(commit(store, decide(venue, {"BTC": target})))
    told: set[str] = set()
    with asyncio.Runner() as runner:
        while runner.run(drive(closer, 1)) is False:
            told.update(closer.stalls.values())
    assert venue.position("BTC") == left
    assert often - refusals.left <= 30
    if target == 0:
        assert told == {f"BTC is refused repeatedly ({reason}) and is retried"}


def test_an_order_that_rests_for_long_is_reported(store: Store) -> None:
    """It is still queried, and after half a minute it is reported by its id."""

    clock = VirtualClock()
    venue = HonestVenue({"BTC": D(100)})
    venue.change("submit", lambda report: replace(report, state="open", filled=D(0)))
    venue.change("find_order", lambda report: report and replace(report, state="open", filled=D(0)))
    closer = AccountExecutor("main", venue, store, clock)
    closer.adopt(commit(store, decide(venue, {"BTC": D(0)})))
    asyncio.run(drive(closer, 5))
    assert closer.stalls == {}
    clock.elapsed += 30.0
    (name,) = venue.state["orders"]
    assert list(closer.stalls.values()) == [f"order {name} on BTC has been open since 2021-05-19 12:00:00 UTC"]


def test_an_order_of_unknown_status_for_long_is_reported(store: Store) -> None:
    """It is detached and queried, and reported to people, who can check at the venue by other means."""

    clock = VirtualClock()
    venue = HonestVenue({"BTC": D(100)})
    venue.fail("submit", FateUnknownError("no answer"), is_done=True)
    venue.fail("find_order", FateUnknownError("no answer"))
    venue.fail("fills", FateUnknownError("no answer"))
    closer = AccountExecutor("main", venue, store, clock)
    closer.adopt(commit(store, decide(venue, {"BTC": D(50)})))
    asyncio.run(drive(closer, 5))
    assert closer.stalls == {}
    clock.elapsed += 30.0
    asyncio.run(drive(closer, 5))
    (name,) = venue.state["orders"]
    wanted = f"order {name} on BTC has unknown status since 2021-05-19 12:00:00 UTC and is being queried"
    assert list(closer.stalls.values()) == [wanted]
