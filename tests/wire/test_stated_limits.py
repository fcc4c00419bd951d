"""What venues state of their limits, clocks, queues of deleveraging and withdrawals, over the wire."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from killswitch.model.snapshot import AccountSnapshot, LimitUse, Withdrawals
from killswitch.model.venue import OrderRequest
from killswitch_alpaca.venue import AlpacaVenue
from killswitch_ccxt.venue import CcxtVenue
from killswitch_ccxt.venues.bybit.codes import LIMITS as BYBIT_LIMITS
from killswitch_ccxt.venues.bybit.dialect import Bybit
from tests.faults.mishaps import Rule, Script
from tests.wire.alpaca.scene import TIMEOUT
from tests.wire.alpaca.scene import run as at_alpaca
from tests.wire.alpaca.venue import AlpacaWire
from tests.wire.binance.test_adapter import play as at_binance
from tests.wire.binance.venue import BinanceWire
from tests.wire.bybit.desk import Desk
from tests.wire.bybit.venue import BybitWire
from tests.wire.okx.desk import BTC, OkxDesk

D = Decimal


def stated(seen: AccountSnapshot) -> dict[str, LimitUse]:
    """The limits of a snapshot, by name."""
    assert seen.health is not None
    return {each.name: each for each in seen.health.limits or ()}


# Binance


def test_binance_states_the_weight_of_the_address_in_every_answer() -> None:
    """X-MBX-USED-WEIGHT-1M, of the documented 2400 a minute; and the rank of a position, of 4."""

    async def scenario(wire: BinanceWire, venue: CcxtVenue) -> None:
        seen = await venue.snapshot()
        assert stated(seen) == {"weight": LimitUse("weight", D(wire.taken()["weight"]), D(2400))}
        assert (seen.adl_ranks, {it.adl_rank for it in seen.positions or ()}) == (4, {2})
        assert seen.withdrawals is None

    at_binance(scenario)


# Bybit


def test_bybit_states_the_limit_of_each_endpoint() -> None:
    """X-Bapi-Limit and what is left of it, for the endpoints of this snapshot; ranks count to 5."""
    desk = Desk("bybit", BybitWire, {(BTC, "long"): "5"})

    async def main() -> AccountSnapshot:
        async with desk.open():
            found: AccountSnapshot = await desk.venue.snapshot()
            return found

    seen = desk.time.run(main())
    limits = stated(seen)
    assert limits["wallet"] == LimitUse("wallet", D(1), D(50))
    assert {each.limit for each in limits.values()} <= {D(limit.allowed) for limit in BYBIT_LIMITS}
    assert (seen.adl_ranks, {it.adl_rank for it in seen.positions or ()}) == (5, {2})


def test_a_count_holds_only_for_the_time_that_its_limit_covers() -> None:
    """An order uses one of ten in a second: the next snapshot has it, one two seconds later has not."""
    desk = Desk("bybit", BybitWire, {(BTC, "long"): "5"})
    sale = OrderRequest("ks1", BTC, "sell", "long", D(1), reduce_only=True)

    async def main() -> tuple[AccountSnapshot, AccountSnapshot]:
        async with desk.open():
            await desk.venue.snapshot()
            await desk.venue.submit(sale)
            soon = await desk.venue.snapshot()
            await asyncio.sleep(2.0)
            return soon, await desk.venue.snapshot()

    soon, later = desk.time.run(main())
    assert stated(soon)["create"] == LimitUse("create", D(1), D(10))
    assert "create" not in stated(later)
    assert "wallet" in stated(later)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({"x-bapi-limit": "300", "x-bapi-limit-status": "290"}, (10, 300), id="a higher one than usual"),
        pytest.param({"x-bapi-limit": "50", "x-bapi-limit-status": "50"}, (0, 50), id="nothing used"),
        pytest.param({}, None, id="not stated"),
        pytest.param({"x-bapi-limit": "many", "x-bapi-limit-status": "1"}, None, id="no number"),
    ],
)
def test_the_stated_limit_of_an_account_counts(headers: dict[str, str], expected: tuple[int, int] | None) -> None:
    """Bybit raises the limits of some accounts, and says so in each answer."""
    found = Bybit.limit_uses(headers, "/v5/account/wallet-balance")
    wanted = {} if expected is None else {"wallet": LimitUse("wallet", D(expected[0]), D(expected[1]))}
    assert found == wanted


# OKX


def test_okx_states_no_use_of_its_limits() -> None:
    """Its answers have no such header: absent, which is unknown, and not unused. Ranks count to 5."""
    seen = OkxDesk({(BTC, "long"): D(5)}).run(lambda venue: venue.snapshot())
    assert (seen.health.limits, seen.adl_ranks, seen.withdrawals) == (None, 5, None)
    assert {it.adl_rank for it in seen.positions} == {1}
    assert seen.health.clock_skew_ms is not None


# Alpaca


def test_alpaca_states_its_limit_of_requests_and_blocked_transfers() -> None:
    """X-RateLimit-Limit and -Remaining: 200 a minute; transfers_blocked of the account."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        seen = await venue.snapshot()
        (limit,) = stated(seen).values()
        assert (limit.name, limit.limit) == ("requests", 200)
        assert 0 < limit.used <= sum(not it.ask.path.startswith("/v1beta") for it in wire.seen)
        assert seen.withdrawals == (Withdrawals("USD", False),)
        assert seen.adl_ranks is None
        wire.account_flags = {"transfers_blocked": True}
        await asyncio.sleep(60.0)
        assert (await venue.snapshot()).withdrawals == (Withdrawals("USD", True),)

    at_alpaca(case)


def test_a_poll_that_is_not_answered_has_the_latency_of_the_timeout() -> None:
    """The venue never answers: 0.4 s, and a timeout is counted."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        seen = await venue.snapshot()
        assert seen.quality == "down"
        assert seen.health is not None
        assert seen.health.latency_ms == pytest.approx(1000 * TIMEOUT, abs=50)
        assert seen.health.timeouts == 1

    at_alpaca(case, mishaps=Script(Rule("snapshot", "silent")))
