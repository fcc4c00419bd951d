"""The real ccxt client against OKX on loopback: its requests are accepted, or refused for OKX's own reasons."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any

import ccxt
import ccxt.pro
import pytest

from tests.faults.exchange import Exchange, Key, Market, Mode
from tests.virtual_time import VirtualTime
from tests.wire.okx.venue import OkxWire
from tests.wire.server import KEY, PASSPHRASE, SECRET

D = Decimal
LONG: Mapping[Key, Decimal] = {("A", "long"): D(5)}
Scenario = Callable[[OkxWire, Any], Awaitable[Any]]


def client_of(venue: OkxWire, time: VirtualTime, **more: str) -> Any:
    """ccxt's OKX client pointed at the venue, on the test's clock."""
    kind = type("okx", (ccxt.pro.okx,), {"milliseconds": lambda self: int(time.now().timestamp() * 1000)})
    credentials = {"apiKey": KEY, "secret": SECRET, "password": PASSPHRASE} | more
    client: Any = kind({**credentials, "enableRateLimit": False, "options": {"fetchMarkets": {"types": ["swap"]}}})
    client.number = D
    client.urls["api"]["rest"] = venue.address
    client.urls["api"]["ws"] = f"{venue.address_ws}/ws/v5"
    return client


def play(
    scenario: Scenario,
    held: Mapping[Key, Decimal] | None = None,
    *,
    mode: Mode = "one_way",
    keys: Mapping[str, str] | None = None,
    **more: Any,
) -> Any:
    """Run a scenario at a venue with these positions; a request for a missing route fails it."""
    time = VirtualTime()

    async def main() -> Any:
        positions = LONG if held is None else held
        exchange = Exchange(
            positions, lambda: (time.monotonic(), time.now()), mode=mode, markets=[Market("A", step=D("0.01"))]
        )
        venue = OkxWire(exchange, **more)
        await venue.start()
        client = client_of(venue, time, **(keys or {}))
        try:
            return await scenario(venue, client)
        finally:
            await client.close()
            await venue.stop()
            assert venue.refusals == []

    return time.run(main())


def test_positions_balance_and_rules_match_the_exchange() -> None:
    """5 contracts of 0.1 each at 100: notional 50 USDT, in dollars at 0.999; equity is in coins and in dollars."""

    async def scenario(venue: OkxWire, client: Any) -> None:
        (position,) = await client.fetch_positions()
        assert (position["symbol"], position["side"], position["contracts"]) == ("A/USDT:USDT", "long", 5)
        assert (client.market("A/USDT:USDT")["contractSize"], position["notional"]) == (D("0.1"), D("49.95"))
        balance = await client.fetch_balance()
        assert balance["USDT"]["total"] == 100_000
        assert D(balance["info"]["data"][0]["totalEq"]) == 99_900
        assert (await client.fetch_position_mode())["hedged"] is False

    play(scenario, sizes={"A": D("0.1")})


def test_an_order_closes_a_position_and_is_found_by_its_client_order_id() -> None:
    """Placed by the batch route, as ccxt does; a repeated client order id is 51016, and an unknown one 51603."""

    async def scenario(venue: OkxWire, client: Any) -> None:
        params = {"reduceOnly": True, "clientOrderId": "ks1"}
        await client.create_order("A/USDT:USDT", "market", "sell", D(2), None, params)
        found = await client.fetch_order(None, "A/USDT:USDT", {"clientOrderId": "ks1"})
        assert (found["status"], found["filled"], found["average"]) == ("closed", 2, 100)
        (trade,) = await client.fetch_my_trades("A/USDT:USDT")
        assert (trade["amount"], trade["order"], D(trade["info"]["fee"])) == (2, found["id"], D("-0.1"))
        with pytest.raises(ccxt.InvalidOrder, match="51016"):
            await client.create_order("A/USDT:USDT", "market", "sell", D(2), None, params)
        with pytest.raises(ccxt.OrderNotFound, match="51603"):
            await client.fetch_order(None, "A/USDT:USDT", {"clientOrderId": "ks2"})
        assert venue.exchange.held["A", "long"] == 3

    play(scenario)


@pytest.mark.parametrize(
    ("amount", "more", "code"),
    [
        ("2.005", {}, "51121"),
        ("900", {"reduceOnly": False}, "51202"),
        ("0.001", {}, "51020"),
        ("1", {"clOrdId": "with-dashes"}, "51000"),
        ("1", {"tdMode": "isolated"}, "51169"),
        ("1", {"side": "buy"}, "51169"),
        ("1", {"posSide": "long"}, "51000"),
    ],
)
def test_orders_are_refused_with_okx_codes(amount: str, more: dict[str, object], code: str) -> None:
    """Lot size, maximum, minimum, names, margin mode, direction, and a position side in net mode."""

    async def scenario(venue: OkxWire, client: Any) -> None:
        venue.exchange.markets["A"].maximum = D(500)
        venue.exchange.markets["A"].minimum = D("0.01")
        order = {"instId": "A-USDT-SWAP", "tdMode": "cross", "side": "sell", "ordType": "market", "sz": amount,
                 "clOrdId": "ks1", "reduceOnly": True} | more  # fmt: skip
        with pytest.raises(ccxt.ExchangeError) as refused:
            await client.private_post_trade_order(order)
        assert f'"sCode": "{code}"' in str(refused.value)
        assert venue.exchange.held == LONG

    play(scenario)


def test_a_partly_refused_batch_has_code_2_and_a_result_in_each_row() -> None:
    """Of two orders one is refused: the other is executed, and the rows keep their places."""

    async def scenario(venue: OkxWire, client: Any) -> None:
        one = {"instId": "A-USDT-SWAP", "tdMode": "cross", "side": "sell", "ordType": "market", "reduceOnly": True}
        rows = [one | {"sz": "1", "clOrdId": "ks1"}, one | {"sz": "1.005", "clOrdId": "ks2"}]
        answer = await client.private_post_trade_batch_orders(rows)
        results = [(row["clOrdId"], row["sCode"]) for row in answer["data"]]
        assert (answer["code"], results) == ("2", [("ks1", "0"), ("ks2", "51121")])
        assert venue.calls("submit_batch") == 1
        assert venue.taken() == {"batch orders/A-USDT-SWAP": 2}

    play(scenario)


def test_hedge_mode_requires_a_side_and_at_most_the_held_amount() -> None:
    """51000 without a side, 51112 for more than is held; the whole position closes that side alone."""
    held: Mapping[Key, Decimal] = {("A", "long"): D(5), ("A", "short"): D(3)}

    async def scenario(venue: OkxWire, client: Any) -> None:
        params: dict[str, object] = {"clientOrderId": "ks1"}
        with pytest.raises(ccxt.ExchangeError, match="51000"):
            await client.create_order("A/USDT:USDT", "market", "sell", D(1), None, params)
        params |= {"hedged": True, "reduceOnly": True}
        with pytest.raises(ccxt.ExchangeError, match="51112"):
            await client.create_order("A/USDT:USDT", "market", "sell", D(6), None, params)
        await client.create_order("A/USDT:USDT", "market", "sell", D(5), None, params)
        assert venue.exchange.held == {("A", "long"): 0, ("A", "short"): 3}
        (row,) = await client.fetch_positions()
        assert (row["side"], row["contracts"], row["hedged"]) == ("short", 3, True)

    play(scenario, held, mode="hedge")


def test_algo_orders_have_a_list_and_a_cancel_route_of_their_own() -> None:
    """A stop of ours and a foreign stop: neither is in the plain list; missing ones are 51400 and 51401."""

    async def scenario(venue: OkxWire, client: Any) -> None:
        venue.exchange.rest("A", "sell", D(5), reduce_only=True, trigger_price=D(80), trigger_when="falls")
        params = {"stopLossPrice": D(90), "reduceOnly": True, "clientOrderId": "ks1", "algoClOrdId": "ks1"}
        made = await client.create_order("A/USDT:USDT", "market", "sell", D(5), None, params)
        assert await client.fetch_open_orders() == []
        resting = await client.fetch_open_orders(None, None, None, {"ordType": "conditional"})
        assert [it["info"]["slTriggerPx"] for it in resting] == ["90", "80"]
        await client.cancel_order(made["id"], "A/USDT:USDT", {"trigger": True})
        with pytest.raises(ccxt.OrderNotFound, match="51401"):
            await client.cancel_order(made["id"], "A/USDT:USDT", {"trigger": True})
        with pytest.raises(ccxt.OrderNotFound, match="51400"):
            await client.cancel_order("1", "A/USDT:USDT")
        venue.exchange.reprice("A", D(79))
        assert venue.exchange.held["A", "long"] == 0

    play(scenario)


@pytest.mark.parametrize(
    ("keys", "code"),
    [({"apiKey": "another"}, "50111"), ({"secret": "another"}, "50113"), ({"password": "another"}, "50105")],
)
def test_each_credential_has_its_own_refusal_code(keys: Mapping[str, str], code: str) -> None:
    """Key, signature and passphrase each have one."""

    async def scenario(venue: OkxWire, client: Any) -> None:
        with pytest.raises(ccxt.AuthenticationError, match=code):
            await client.fetch_balance()

    play(scenario, keys=keys)


def test_a_clock_that_is_off_and_a_read_only_key_are_refused() -> None:
    """30 seconds are too many (50102); a key without `trade` gets 50120."""

    async def scenario(venue: OkxWire, client: Any) -> None:
        with pytest.raises(ccxt.ExchangeError, match="50120"):
            await client.create_order("A/USDT:USDT", "market", "sell", D(1), None, {"clientOrderId": "ks1"})
        client.options["timeDifference"] = 31_000
        with pytest.raises(ccxt.InvalidNonce, match="50102"):
            await client.fetch_balance()

    play(scenario, perm="read_only")


def test_too_many_requests_are_429_and_maintenance_is_50001() -> None:
    """The eleventh query of positions within two seconds is refused, and maintenance refuses everything."""

    async def scenario(venue: OkxWire, client: Any) -> None:
        for _ in range(10):
            await client.fetch_positions()
        with pytest.raises(ccxt.RateLimitExceeded, match="50011"):
            await client.fetch_positions()
        await asyncio.sleep(2)
        await client.fetch_positions()
        venue.maintenance = True
        with pytest.raises(ccxt.OnMaintenance, match="50001"):
            await client.fetch_positions()

    play(scenario, enforced=True)


def test_the_dead_man_timer_cancels_plain_orders_and_leaves_stops() -> None:
    """Between 10 and 120 seconds; a restart resets it, and at its end the plain order is gone."""

    async def scenario(venue: OkxWire, client: Any) -> None:
        venue.exchange.rest("A", "sell", D(5), reduce_only=True, price=D(120), type="limit")
        venue.exchange.rest("A", "sell", D(5), reduce_only=True, trigger_price=D(80), trigger_when="falls")
        with pytest.raises(ccxt.BadRequest, match="51000"):
            await client.cancel_all_orders_after(5_000)
        for _ in range(3):
            await client.cancel_all_orders_after(10_000)
            await asyncio.sleep(9)
        assert len(venue.exchange.resting()) == 2
        await asyncio.sleep(2)
        assert [it.trigger_price for it in venue.exchange.resting()] == [80]

    play(scenario)


def test_close_position_requires_its_margin_mode() -> None:
    """51023 for the mode without a position; then the whole position is closed."""

    async def scenario(venue: OkxWire, client: Any) -> None:
        with pytest.raises(ccxt.ExchangeError, match="51023"):
            await client.close_position("A/USDT:USDT")
        await client.close_position("A/USDT:USDT", None, {"marginMode": "isolated"})
        assert venue.exchange.held["A", "long"] == 0

    play(scenario, isolated=("A",))


def test_the_stream_logs_in_and_pushes_every_change() -> None:
    """Positions at once, and again after a foreign sale; orders and the balance too."""

    async def scenario(venue: OkxWire, client: Any) -> None:
        first = await client.watch_positions()
        assert [(it["symbol"], it["contracts"]) for it in first] == [("A/USDT:USDT", 5)]
        venue.exchange.trade(("A", "long"), D(-2))
        second = await client.watch_positions()
        assert [it["contracts"] for it in second] == [3]
        waiting = asyncio.ensure_future(client.watch_orders())
        await asyncio.sleep(1)
        await client.create_order("A/USDT:USDT", "limit", "sell", D(1), D(120), {"clientOrderId": "ks1"})
        (order,) = await waiting
        assert (order["clientOrderId"], order["status"]) == ("ks1", "open")
        accounts = (await client.watch_balance())["info"]["data"]
        assert accounts[0]["details"][0]["eq"] == "100000"

    play(scenario)
