"""Which snapshots closing believes, and how often they must repeat themselves (C1)."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.execution.account_executor import AccountExecutor
from killswitch.model.snapshot import AccountSnapshot, Instrument, Position
from killswitch.model.store import Store
from tests.closing_cases import commit, decide, drive
from tests.honest_venue import HonestVenue, VirtualClock

D = Decimal


class Spot(HonestVenue):
    """A venue without margin; between two times of the clock its answers lack the symbols in `lost`."""

    def __init__(self, clock: VirtualClock, lost: set[str], until: float, **positions: int) -> None:
        super().__init__({symbol: D(amount) for symbol, amount in positions.items()}, fill_shares=("0.1", "0.1"))
        self.clock, self.lost, self.until = clock, lost, until

    async def snapshot(self) -> AccountSnapshot:
        true = replace(await super().snapshot(), market="spot", margin_used=None)
        if self.clock.monotonic() >= self.until or not self.state["orders"]:
            return true
        held = tuple(position for position in true.positions or () if position.symbol not in self.lost)
        return replace(true, positions=held)


@pytest.mark.parametrize("lost", [{"BTC"}, {"BTC", "ETH"}], ids=["a page of it", "all of it"])
def test_c1_positions_that_vanish_by_no_order_of_ours_are_not_flat_in_any_market(store: Store, lost: set[str]) -> None:
    """A spot account's answer is lost for four seconds during a close: nothing counts as closed before it is."""
    clock = VirtualClock()
    venue = Spot(clock, lost, 4.0, BTC=100, ETH=10)
    closer = AccountExecutor("main", venue, store, clock)
    closer.adopt(commit(store, decide(venue, {"BTC": D(0), "ETH": D(0)}, reduce_only=False)))
    while clock.monotonic() < 4.0:
        asyncio.run(drive(closer, 1))
        clock.elapsed += 0.1
        assert "finished" not in [entry.kind for entry in store.journal("d1")]
        assert "BTC long" in (closer.distrust or "BTC long")
    assert asyncio.run(drive(closer))
    assert (venue.position("BTC"), venue.position("ETH")) == (D(0), D(0))
    verified = [e.data["position"] for e in store.journal("d1") if (e.kind, e.symbol) == ("verified", "BTC")]
    assert verified[-1] == "0"


def test_c1_a_position_that_stays_missing_is_believed_to_be_gone(store: Store) -> None:
    """Closed by someone else during a close: missing for some seconds it is gone, and nothing more is sent for it."""
    clock = VirtualClock()
    venue = Spot(clock, set(), 0.0, BTC=100, ETH=10)
    closer = AccountExecutor("main", venue, store, clock)
    closer.adopt(commit(store, decide(venue, {"BTC": D(0), "ETH": D(0)}, reduce_only=False)))
    asyncio.run(drive(closer, 1))
    venue.move("BTC", -venue.position("BTC"))
    assert asyncio.run(drive(closer))
    assert clock.monotonic() >= 5.0
    assert [order["symbol"] for order in venue.state["orders"].values()].count("BTC") == 1
    assert venue.position("ETH") == 0, "the other position did not wait"


@pytest.mark.parametrize("size", ["NaN", "sNaN", "Infinity", "-1"])
def test_a_size_that_is_no_number_makes_every_position_unknown(store: Store, size: str) -> None:
    """Such an answer trims nothing, and the close continues at the next valid answer."""

    def malformed(true: AccountSnapshot) -> AccountSnapshot:
        held = tuple(replace(each, contracts=D(size)) for each in true.positions or ())
        return replace(true, positions=held)

    venue = HonestVenue({"BTC": D(100)}, fill_shares=("0.5",))
    venue.change("snapshot", malformed, times=30)
    closer = AccountExecutor("main", venue, store, VirtualClock())
    closer.adopt(commit(store, decide(venue, {"BTC": D(10)})))
    asyncio.run(drive(closer, 30))
    assert closer.distrust == f"BTC long has an invalid size: {size} contracts"
    assert asyncio.run(drive(closer))
    assert venue.position("BTC") == 10


@pytest.mark.parametrize("size", ["NaN", "sNaN", "Infinity", "-1"])
def test_a_full_close_continues_on_the_last_known_positions_while_sizes_are_no_numbers(store: Store, size: str) -> None:
    """Of 100 half fills; the other 50 follow on no such answer, and the close ends on the first valid one."""

    def malformed(true: AccountSnapshot) -> AccountSnapshot:
        (held,) = true.positions or (Position("BTC", "long", D(1)),)
        return replace(true, positions=(replace(held, contracts=D(size)),))

    venue = HonestVenue({"BTC": D(100)}, fill_shares=("0.5",))
    venue.change("snapshot", malformed, when=lambda: venue.state["orders"])
    closer = AccountExecutor("main", venue, store, VirtualClock())
    closer.adopt(commit(store, decide(venue, {"BTC": D(0)})))
    assert not asyncio.run(drive(closer, 60))
    assert [D(order["amount"]) for order in venue.state["orders"].values()] == [D(100), D(50)]
    assert "finished" not in [entry.kind for entry in store.journal("d1")]
    venue.recover()
    assert asyncio.run(drive(closer))
    assert venue.traded("BTC") == 100


def test_rules_that_are_no_numbers_are_unknown_rules(store: Store) -> None:
    """A step of NaN does not prevent the close of a position."""

    rules = (Instrument("BTC", amount_step=D("NaN"), min_amount=D("sNaN"), max_amount=D("Infinity")),)
    venue = HonestVenue({"BTC": D(100)})
    venue.change("snapshot", lambda true: replace(true, instruments=rules))
    closer = AccountExecutor("main", venue, store, VirtualClock())
    closer.adopt(commit(store, decide(venue, {"BTC": D(0)})))
    assert asyncio.run(drive(closer))
    assert venue.position("BTC") == 0
