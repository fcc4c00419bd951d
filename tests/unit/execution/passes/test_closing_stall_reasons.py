"""Closing continues through what time may lift, and reports what it is waiting for."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import msgspec
import pytest

from killswitch.execution.account_executor import AccountExecutor
from killswitch.model.snapshot import Fill
from killswitch.model.store import Store
from killswitch.model.venue import FateUnknownError, OrderRejectedError, OrderReport, OrderRequest, RejectReason
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

    class Closed(HonestVenue):
        async def submit(self, request: OrderRequest) -> OrderReport:
            if clock.monotonic() < 600:
                self.state["log"].append("refused")
                raise OrderRejectedError(reason, "come back later")
            return await super().submit(request)

    venue = Closed({"BTC": D(100)})
    closer = AccountExecutor("main", venue, store, clock)
    closer.adopt(commit(store, decide(venue, {"BTC": target})))
    told: set[str | None] = set()
    with asyncio.Runner() as runner:
        while runner.run(drive(closer, 1)) is False:
            told.add(closer.stall_notice)
    assert venue.position("BTC") == left
    assert venue.state["log"].count("refused") <= 30
    if target == 0:
        assert told == {None, f"BTC is refused repeatedly ({reason}) and is retried"}


def test_an_order_that_rests_for_long_is_reported(store: Store) -> None:
    """It is still queried, and after half a minute it is reported by its id."""

    class Slow(HonestVenue):
        async def submit(self, request: OrderRequest) -> OrderReport:
            return msgspec.structs.replace(await super().submit(request), state="open", filled=D(0))

        async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
            report = await super().find_order(symbol, client_order_id)
            return report and msgspec.structs.replace(report, state="open", filled=D(0))

    clock = VirtualClock()
    venue = Slow({"BTC": D(100)})
    closer = AccountExecutor("main", venue, store, clock)
    closer.adopt(commit(store, decide(venue, {"BTC": D(0)})))
    asyncio.run(drive(closer, 5))
    assert closer.stall_notice is None
    clock.elapsed += 30.0
    (name,) = venue.state["orders"]
    assert closer.stall_notice == f"order {name} on BTC has been open since 2021-05-19 12:00:00 UTC"


def test_an_order_of_unknown_status_for_long_is_reported(store: Store) -> None:
    """It is detached and queried, and reported to people, who can check at the venue by other means."""

    class Mute(HonestVenue):
        async def submit(self, request: OrderRequest) -> OrderReport:
            await super().submit(request)
            raise FateUnknownError("no answer")

        async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
            raise FateUnknownError("no answer")

        async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
            raise FateUnknownError("no answer")

    clock = VirtualClock()
    venue = Mute({"BTC": D(100)})
    closer = AccountExecutor("main", venue, store, clock)
    closer.adopt(commit(store, decide(venue, {"BTC": D(50)})))
    asyncio.run(drive(closer, 5))
    assert closer.stall_notice is None
    clock.elapsed += 30.0
    asyncio.run(drive(closer, 5))
    (name,) = venue.state["orders"]
    wanted = f"order {name} on BTC has unknown status since 2021-05-19 12:00:00 UTC and is being queried"
    assert closer.stall_notice == wanted
