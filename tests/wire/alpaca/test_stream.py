"""Pushes, broker suspension, inspection and bars, at Alpaca on loopback."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from killswitch.model.inspection import Bar
from killswitch.model.venue import (
    OrderRejectedError,
    Push,
    VenueDownError,
)
from killswitch_alpaca.family import family
from killswitch_alpaca.venue import AlpacaVenue
from tests.faults.exchange import Market
from tests.faults.mishaps import Rule, Script
from tests.wire.alpaca.scene import AAPL, BTC, REGULAR, run, sale
from tests.wire.alpaca.venue import AlpacaWire
from tests.wire.server import KEY, SECRET

D = Decimal


def test_a_suspension_makes_the_broker_refuse_every_order() -> None:
    """Ours too: permission; the snapshot gives the reason, and lifting it accepts orders again."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.suspend_trading(True)
        assert wire.configuration["suspend_trade"] is True
        assert wire.configuration["pdt_check"] == "entry"
        with pytest.raises(OrderRejectedError) as caught:
            await venue.submit(sale())
        assert caught.value.reason == "permission"
        assert "suspend_trade" in ((await venue.snapshot()).reason or "")
        await venue.suspend_trading(False)
        assert (await venue.submit(sale())).filled == 10

    run(case)


def test_an_inspection_shows_what_the_account_may_do() -> None:
    """Status, clock, hours and configuration; Alpaca does not report the rights of a key."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.configuration["no_shorting"] = True
        found = await venue.inspect()
        assert (found.status, found.clock_skew_ms, found.position_mode) == ("ok", 0.0, "one_way")
        assert (found.rights.read, found.rights.trade, found.rights.withdraw) == (True, None, None)
        assert any("open until 2021-05-19 20:00 UTC" in note for note in found.notes)
        assert any("no_shorting" in note for note in found.notes)
        wire.account_flags = {"status": "ACCOUNT_UPDATED"}
        transitional = await venue.inspect()
        assert transitional.status == "ok"
        assert any("ACCOUNT_UPDATED" in note for note in transitional.notes)
        wire.account_flags = {"account_blocked": True, "status": "ACCOUNT_CLOSED"}
        blocked = await venue.inspect()
        assert (blocked.status, blocked.rights.trade) == ("account_closed", False)

    run(case)


def test_the_stream_pushes_orders_and_fills_and_makes_the_next_poll_refresh_them() -> None:
    """A fill is `positions`, a new order `orders`; the next snapshot reads the orders before they are due."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        pushes: list[Push] = []
        listener = asyncio.create_task(venue.listen(pushes.append))
        await venue.snapshot()
        await asyncio.sleep(0.5)
        assert pushes == [Push("alive")]
        await venue.snapshot()
        wire.exchange.place(sale("1", client_order_id="theirs"), by="hand")
        wire.exchange.rest(AAPL, "sell", D(2), type="limit", price=D(130))
        wire.exchange.notify_listeners()
        await asyncio.sleep(0.5)
        assert [push.kind for push in pushes] == ["alive", "positions", "orders"]
        seen = await venue.snapshot()
        assert len(seen.orders or ()) == 1
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)

    run(case)


def test_a_silent_stream_is_lost_and_reconnected() -> None:
    """Twenty seconds of silence after a ping: lost, with the reason, and soon alive again."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        pushes: list[Push] = []
        wire.mute = True
        listener = asyncio.create_task(venue.listen(pushes.append))
        await asyncio.sleep(19)
        assert [push.kind for push in pushes] == ["alive"]
        wire.mute = False
        await asyncio.sleep(15)
        assert [push.kind for push in pushes][:3] == ["alive", "lost", "alive"]
        assert "no message for" in (pushes[1].why or "")
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)

    run(case)


def test_refused_keys_end_the_listener() -> None:
    """Reconnecting with them would never succeed."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        with pytest.raises(VenueDownError, match="refused the keys"):
            await venue.listen(lambda _: None)

    run(case, secret="another")


def test_many_assets_are_fetched_in_one_request() -> None:
    """Thirty symbols do not take thirty requests."""
    names = [f"S{number}" for number in range(30)]

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        seen = await venue.snapshot()
        assert len(seen.instruments or ()) == 30
        assert len(wire.seen) <= 7

    run(case, held={(name, "long"): D(10) for name in names}, markets=tuple(Market(name) for name in names))


def test_bars_of_coins_need_no_keys_and_come_oldest_first() -> None:
    """From the requested time, as many as requested, in milliseconds and exact numbers."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.revoked = True
        wire.bars[BTC] = [
            {"t": f"2021-05-19T00:0{minute}:00Z", "o": 1.1, "h": 2, "l": 0.1, "c": 1.3, "v": 7.25, "n": 3, "vw": 1.2}
            for minute in range(5)
        ]
        history = family.history("alpaca", wire.address)
        assert history is not None
        since = int(datetime(2021, 5, 19, 0, 2, tzinfo=REGULAR.tzinfo).timestamp() * 1000)
        found = await history.bars(BTC, "1m", since, 2)
        numbers = (D("1.1"), D(2), D("0.1"), D("1.3"), D("7.25"))
        assert found == [Bar(since, *numbers), Bar(since + 60_000, *numbers)]
        assert await history.bars(BTC, "1m", since + 3_600_000) == []
        await history.close()

    run(case)


def test_bars_of_stocks_use_the_keys_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Valid keys get bars; refused keys are reported without being shown."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.bars[AAPL] = [{"t": "2021-05-19T00:00:00Z", "o": 1, "h": 2, "l": 1, "c": 2, "v": 7}]
        monkeypatch.setenv("APCA_API_KEY_ID", KEY)
        monkeypatch.setenv("APCA_API_SECRET_KEY", SECRET)
        history = family.history("alpaca", wire.address)
        assert history is not None
        assert len(await history.bars(AAPL, "1d", 0)) == 1
        wire.revoked = True
        with pytest.raises(VenueDownError, match="not authorized") as caught:
            await history.bars(AAPL, "1d", 0)
        assert "PLANTED" not in str(caught.value)
        await history.close()

    run(case)


def test_a_full_page_of_trades_is_followed_by_the_next() -> None:
    """Of 130 trades between two polls none is lost."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        for number in range(130):
            await asyncio.sleep(0.01)
            wire.exchange.place(sale("0.01", client_order_id=f"theirs{number}"), by="hand")
        await asyncio.sleep(61)
        seen = await venue.snapshot()
        assert len({fill.id for fill in seen.fills or ()}) == 130

    run(case)


def test_a_long_list_of_orders_is_read_page_by_page() -> None:
    """1,100 open orders take three answers."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        for number in range(1100):
            order = wire.exchange.rest(AAPL, "buy", D(1), type="limit", price=D(50))
            wire.placed_at[order] = REGULAR - timedelta(seconds=number)
        assert len(await venue.open_orders()) == 1100
        assert wire.calls("open_orders") == 3

    run(case)


def test_requests_of_one_account_run_in_parallel_and_orders_never_wait_for_queries() -> None:
    """Four hanging queries do not delay an order."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        wire.mishaps = Script(Rule("find_order", "silent", times=4))
        hanging = [asyncio.create_task(venue.find_order(AAPL, f"ks{number}")) for number in range(4)]
        await asyncio.sleep(0)
        report = await venue.submit(sale())
        assert report.state == "filled"
        assert not any(each.done() for each in hanging)
        found = await asyncio.gather(*hanging, return_exceptions=True)
        assert all(isinstance(each, VenueDownError) for each in found)

    run(case)
