"""What venues state of their limits, clocks, queues of deleveraging and withdrawals, over the wire."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from killswitch.model.snapshot import AccountSnapshot, LimitUse, Withdrawals
from killswitch.model.venue import OrderRequest
from killswitch_alpaca.venue import AlpacaVenue
from killswitch_ccxt.instruments import Quote, watched_price
from killswitch_ccxt.venue import CcxtVenue
from killswitch_ccxt.venues.bitget.dialect import Bitget
from killswitch_ccxt.venues.bybit.codes import LIMITS as BYBIT_LIMITS
from killswitch_ccxt.venues.bybit.dialect import Bybit
from killswitch_ccxt.venues.bybit.rows import bounded
from killswitch_ccxt.venues.okx.rows import price_limits
from tests.faults.mishaps import Rule, Script
from tests.wire.alpaca.scene import TIMEOUT
from tests.wire.alpaca.scene import run as at_alpaca
from tests.wire.alpaca.venue import AlpacaWire
from tests.wire.binance.test_adapter import play as at_binance
from tests.wire.binance.venue import BinanceWire
from tests.wire.bitget.venue import BitgetWire
from tests.wire.bybit.desk import Desk
from tests.wire.bybit.venue import BybitWire
from tests.wire.okx.desk import BTC, OkxDesk
from tests.wire.okx.venue import OkxWire
from tests.wire.server import WireVenue

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


# Bitget


def test_bitget_states_what_is_left_of_each_endpoint() -> None:
    """One of ten requests of an account, and of five for positions, in this second."""
    desk = Desk("bitget", BitgetWire, {(BTC, "long"): "5"})

    async def main() -> AccountSnapshot:
        async with desk.open():
            found: AccountSnapshot = await desk.venue.snapshot()
            return found

    limits = stated(desk.time.run(main()))
    assert limits["accounts"] == LimitUse("accounts", D(1), D(10))
    assert limits["position"] == LimitUse("position", D(1), D(5))


@pytest.mark.parametrize(
    ("left", "path", "expected"),
    [
        ("9", "/api/v2/mix/account/accounts", {"accounts": LimitUse("accounts", D(1), D(10))}),
        ("10", "/api/v2/mix/account/accounts", {"accounts": LimitUse("accounts", D(0), D(10))}),
        ("19", "/api/v2/mix/account/accounts", {}),  # the limit of another account, which no answer states
        ("9", "/api/v2/mix/market/contracts", {}),
        ("", "/api/v2/mix/account/accounts", {}),
        ("-1", "/api/v2/mix/account/accounts", {}),
    ],
)
def test_what_is_left_is_of_the_documented_limit(left: str, path: str, expected: dict[str, LimitUse]) -> None:
    """An endpoint without a documented limit, and more than that limit, are unknown."""
    assert Bitget.limit_uses({"x-mbx-used-remain-limit": left}, path) == expected


# Price limits of watched symbols


@pytest.mark.parametrize(
    ("exchange", "server", "lowest", "highest"),
    [
        ("binanceusdm", BinanceWire, "0.7", "1.3"),  # multipliers of the mark
        ("bybit", BybitWire, "0.99", "1.01"),  # the index is the mark: 1% and not 2%
        ("okx", OkxWire, "0.99", "1.02"),
        ("bitget", BitgetWire, None, None),
    ],
)
def test_price_limits_of_watched_symbols(
    exchange: str, server: type[WireVenue], lowest: str | None, highest: str | None
) -> None:
    """The middle of the lowest and the highest price, and the distance from it; unknown where no answer states them."""
    desk = Desk(exchange, server, {(BTC, "long"): "5"}, watch=(BTC,))

    async def main() -> AccountSnapshot:
        async with desk.open():
            found: AccountSnapshot = await desk.venue.snapshot()
            return found

    (row,) = desk.time.run(main()).watched or ()
    if lowest is None or highest is None:
        assert (row.reference_price, row.price_limit) == (None, None)
        return
    assert row.mark_price and row.reference_price and row.price_limit
    assert row.reference_price == row.mark_price * (D(lowest) + D(highest)) / 2
    assert row.reference_price * (1 + row.price_limit) == pytest.approx(row.mark_price * D(highest))
    assert row.reference_price * (1 - row.price_limit) == pytest.approx(row.mark_price * D(lowest))


@pytest.mark.parametrize(
    ("mark", "index", "expected"),
    [
        ("100", "100", ("99", "101")),
        ("100", "101.5", ("99", "101.5")),  # an index beyond x widens it
        ("100", "103", ("99", "102")),  # up to y
        ("100", "97", ("98", "101")),
        ("100", None, (None, None)),
    ],
)
def test_bybits_price_limits(mark: str, index: str | None, expected: tuple[str | None, str | None]) -> None:
    """Worked by hand from its documents: x 1%, y 2%."""
    rule = {"info": {"riskParameters": {"priceLimitRatioX": "0.01", "priceLimitRatioY": "0.02"}}}
    found = bounded(Quote(mark=D(mark), index=None if index is None else D(index)), rule)
    assert (found.lowest, found.highest) == tuple(None if it is None else D(it) for it in expected)
    assert bounded(found, {"info": {}}) == found


def test_a_price_limit_that_is_off_is_none() -> None:
    """OKX answers prices with `enabled: false` too."""
    row = {"instId": "A", "buyLmt": "102", "sellLmt": "99", "enabled": False}
    assert price_limits(row) == {}
    assert price_limits({**row, "enabled": True}) == {"lowest": D(99), "highest": D(102)}


@pytest.mark.parametrize(("last", "is_at_limit"), [("102", True), ("101.99", False), ("99.01", False), ("99", True)])
def test_both_prices_of_a_band_are_at_the_limit(last: str, is_at_limit: bool) -> None:
    """Rounding of the quotients does not hide that the last price is the highest, or the lowest, possible one."""
    row = watched_price("A", Quote(last=D(last), mark=D(100), lowest=D(99), highest=D(102)), is_spot=False)
    assert row.last_price and row.reference_price and row.price_limit
    assert (abs(row.last_price / row.reference_price - 1) >= row.price_limit) is is_at_limit


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
