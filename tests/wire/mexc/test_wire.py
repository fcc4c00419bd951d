"""The real ccxt client against MEXC's contract API on loopback."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, Literal

import ccxt.async_support as ccxt
import pytest

from tests.faults.exchange import Exchange, Market
from tests.virtual_time import VirtualTime
from tests.wire.mexc.venue import MexcWire
from tests.wire.server import KEY, SECRET

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"


def with_client(
    action: Callable[[Any, MexcWire], Awaitable[Any]],
    *,
    secret: str = SECRET,
    mode: Literal["one_way", "hedge"] = "hedge",
    **more: Any,
) -> tuple[Any, MexcWire]:
    """Run an action with a client of an account with BTC both ways and short ETH; its result, and the venue."""
    timeline = VirtualTime()
    held = {(BTC, "long"): Decimal(30), (ETH, "short"): Decimal(5)}
    exchange = Exchange(
        held | ({(BTC, "short"): Decimal(10)} if mode == "hedge" else {}),  # type: ignore[arg-type] # sides
        lambda: (timeline.elapsed, timeline.now()),
        mode=mode,
        markets=[Market(it, step=Decimal(1), minimum=Decimal(1)) for it in (BTC, ETH)],
        resting_exits_block=True,
    )
    venue = MexcWire(exchange, **more)
    venue.sizes = {BTC: Decimal("0.0001"), ETH: Decimal("0.01")}

    async def main() -> Any:
        await venue.start()
        options = {"defaultType": "swap"}
        client = ccxt.mexc({"apiKey": KEY, "secret": secret, "enableRateLimit": False, "options": options})
        client.number = Decimal
        client.nonce = venue.now_ms
        client.urls["api"]["spot"] = {"public": venue.address, "private": venue.address}
        client.urls["api"]["contract"] = {
            "public": f"{venue.address}/api/v1/contract",
            "private": f"{venue.address}/api/v1/private",
        }
        try:
            return await action(client, venue)
        finally:
            await client.close()
            await venue.stop()

    return timeline.run(main()), venue


def test_positions_and_equity_are_read() -> None:
    """Positions are counted in contracts, each of its own size; in hedge mode both sides of a symbol are listed."""

    async def action(client: Any, venue: MexcWire) -> Any:
        return (
            await client.fetch_positions(),
            await client.contractPrivateGetAccountAssets(),
            await client.fetch_position_mode(),
            await client.fetch_tickers(),
            client.markets,
        )

    (positions, assets, mode, tickers, rules), venue = with_client(action)
    sized = {(it["symbol"], it["side"]): (it["contracts"], rules[it["symbol"]]["contractSize"]) for it in positions}
    assert sized == {
        (BTC, "long"): (Decimal(30), Decimal("0.0001")),
        (BTC, "short"): (Decimal(10), Decimal("0.0001")),
        (ETH, "short"): (Decimal(5), Decimal("0.01")),
    }
    assert assets["data"][0]["equity"] == 100_000
    assert mode["hedged"] is True
    assert tickers[BTC]["info"]["fairPrice"] == 100
    assert venue.refusals == []


def test_a_wrong_signature_and_a_wrong_clock_are_refused() -> None:
    """602 for a signature, 513 for a time that is more than ten seconds away."""

    async def signed(client: Any, venue: MexcWire) -> None:
        with pytest.raises(ccxt.AuthenticationError, match="602"):
            await client.contractPrivateGetPositionOpenPositions()

    async def early(client: Any, venue: MexcWire) -> None:
        client.nonce = lambda: venue.now_ms() - 11_000
        with pytest.raises(ccxt.BadRequest, match="513"):
            await client.contractPrivateGetPositionOpenPositions()

    with_client(signed, secret="another")
    with_client(early)


def test_side_four_closes_a_long_and_the_order_is_found_by_its_client_order_id() -> None:
    """Sides are 1 to 4; the other side of the same symbol stays."""

    async def action(client: Any, venue: MexcWire) -> Any:
        order = {"symbol": "BTC_USDT", "vol": 30, "side": 4, "type": 5, "openType": 2, "externalOid": "kswa1"}
        sent = await client.contractPrivatePostOrderCreate(order)
        params = {"symbol": "BTC_USDT", "external_oid": "kswa1"}
        found = await client.contractPrivateGetOrderExternalSymbolExternalOid(params)
        deals = await client.contractPrivateGetOrderDealDetailsOrderId({"order_id": sent["data"]["orderId"]})
        return found["data"], deals["data"]

    (found, deals), venue = with_client(action)
    assert (found["state"], found["dealVol"], found["side"]) == (3, 30, 4)
    assert [(it["side"], it["vol"], it["externalOid"]) for it in deals] == [(4, 30, "kswa1")]
    assert venue.exchange.held == {(BTC, "long"): 0, (BTC, "short"): 10, (ETH, "short"): 5}


def test_a_missing_order_is_reported_as_missing() -> None:
    """Code 2040."""

    async def action(client: Any, venue: MexcWire) -> None:
        with pytest.raises(ccxt.ExchangeError, match="2040"):
            await client.contractPrivateGetOrderExternalSymbolExternalOid(
                {"symbol": "BTC_USDT", "external_oid": "never"}
            )

    with_client(action)


def test_a_resting_exit_blocks_another_in_hedge_mode() -> None:
    """2008; a batch reports it for each order, and is accepted once in two seconds."""

    async def action(client: Any, venue: MexcWire) -> Any:
        venue.exchange.rest(BTC, "sell", Decimal(20), reduce_only=True, price=Decimal(120), type="limit")
        order = {"symbol": "BTC_USDT", "vol": 30, "side": 4, "type": 5, "openType": 2}
        other = {"symbol": "ETH_USDT", "vol": 5, "side": 2, "type": 5, "openType": 2}
        rows = [order | {"externalOid": "a"}, other | {"externalOid": "b"}]
        answer = await client.contractPrivatePostOrderSubmitBatch(rows)
        with pytest.raises(ccxt.RateLimitExceeded, match="510"):
            await client.contractPrivatePostOrderSubmitBatch(rows)
        return answer["data"]

    rows, _ = with_client(action, enforced=True)
    assert [(it["externalOid"], it["errorCode"]) for it in rows] == [("a", 2008), ("b", 0)]


def test_the_whole_book_is_closed_in_one_request() -> None:
    """Everything is closed at market."""

    async def action(client: Any, venue: MexcWire) -> None:
        await client.close_all_positions()

    _, venue = with_client(action, mode="one_way")
    assert set(venue.exchange.held.values()) == {0}


def test_plan_orders_and_attached_stops_are_two_lists() -> None:
    """Each is cancelled by its own route; cancelling a missing order is answered 2041."""

    async def action(client: Any, venue: MexcWire) -> Any:
        exchange = venue.exchange
        waits = {"reduce_only": True, "trigger_price": Decimal(90), "trigger_when": "falls"}
        plan, stop = (exchange.rest(BTC, "sell", Decimal(5), **waits) for _ in range(2))
        venue.attached.add(stop)
        plans = await client.contractPrivateGetPlanorderListOrders({"states": 1})
        stops = await client.contractPrivateGetStoporderListOrders({"is_finished": 0})
        await client.contractPrivatePostPlanorderCancel([{"symbol": "BTC_USDT", "orderId": plan}])
        await client.contractPrivatePostStoporderCancel([{"stopPlanOrderId": stop}])
        again = await client.contractPrivatePostOrderCancel([plan])
        return plans["data"], stops["data"], again["data"]

    ((plan,), (stop,), (again,)), venue = with_client(action)
    assert (plan["side"], plan["triggerPrice"], plan["triggerType"]) == (4, 90, 2)
    assert (stop["positionType"], stop["stopLossPrice"], stop["takeProfitPrice"]) == (1, 90, 0)
    assert again["errorCode"] == 2041
    assert not venue.exchange.resting()


def test_maintenance_has_the_venues_own_code() -> None:
    """801."""

    async def action(client: Any, venue: MexcWire) -> None:
        venue.maintenance = True
        with pytest.raises(ccxt.OnMaintenance, match="801"):
            await client.contractPrivateGetPositionOpenPositions()

    with_client(action)
