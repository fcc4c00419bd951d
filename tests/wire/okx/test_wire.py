"""The real ccxt client against OKX on loopback: what it sends is taken, and refused for what OKX refuses."""

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
Talk = Callable[[OkxWire, Any], Awaitable[Any]]


def client_of(venue: OkxWire, time: VirtualTime, **more: str) -> Any:
    """ccxt's OKX pointed at the venue, with its clock on the test's time."""
    kind = type("okx", (ccxt.pro.okx,), {"milliseconds": lambda self: int(time.now().timestamp() * 1000)})
    credentials = {"apiKey": KEY, "secret": SECRET, "password": PASSPHRASE} | more
    client: Any = kind({**credentials, "enableRateLimit": False, "options": {"fetchMarkets": {"types": ["swap"]}}})
    client.number = D
    client.urls["api"]["rest"] = venue.address
    client.urls["api"]["ws"] = f"{venue.address_ws}/ws/v5"
    return client


def spoken(
    talk: Talk,
    held: Mapping[Key, Decimal] | None = None,
    *,
    mode: Mode = "one_way",
    keys: Mapping[str, str] | None = None,
    **more: Any,
) -> Any:
    """Let `talk` speak with a venue that holds these positions; every route must be one that is spoken here."""
    time = VirtualTime()

    async def main() -> Any:
        held_ = LONG if held is None else held
        exchange = Exchange(
            held_, lambda: (time.monotonic(), time.now()), mode=mode, markets=[Market("A", step=D("0.01"))]
        )
        venue = OkxWire(exchange, **more)
        await venue.start()
        client = client_of(venue, time, **(keys or {}))
        try:
            return await talk(venue, client)
        finally:
            await client.close()
            await venue.stop()
            assert venue.refusals == []

    return time.run(main())


def test_positions_balance_and_rules_are_what_the_exchange_holds() -> None:
    """5 contracts of 0.1 each at 100: notional 50 USDT, told in dollars at 0.999; equity is in coins and in dollars."""

    async def talk(venue: OkxWire, client: Any) -> None:
        (position,) = await client.fetch_positions()
        assert (position["symbol"], position["side"], position["contracts"]) == ("A/USDT:USDT", "long", 5)
        assert (client.market("A/USDT:USDT")["contractSize"], position["notional"]) == (D("0.1"), D("49.95"))
        balance = await client.fetch_balance()
        assert balance["USDT"]["total"] == 100_000
        assert D(balance["info"]["data"][0]["totalEq"]) == 99_900
        assert (await client.fetch_position_mode())["hedged"] is False

    spoken(talk, sizes={"A": D("0.1")})


def test_an_order_closes_what_is_held_and_is_found_by_its_name() -> None:
    """Placed through the batch route as ccxt does it; a second one of the name is 51016, and one unknown is 51603."""

    async def talk(venue: OkxWire, client: Any) -> None:
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

    spoken(talk)


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
def test_orders_are_refused_in_okx_codes(amount: str, more: dict[str, object], code: str) -> None:
    """Lot size, maximum, minimum, names, margin mode, direction, and a position side in net mode."""

    async def talk(venue: OkxWire, client: Any) -> None:
        venue.exchange.markets["A"].maximum = D(500)
        venue.exchange.markets["A"].minimum = D("0.01")
        order = {"instId": "A-USDT-SWAP", "tdMode": "cross", "side": "sell", "ordType": "market", "sz": amount,
                 "clOrdId": "ks1", "reduceOnly": True} | more  # fmt: skip
        with pytest.raises(ccxt.ExchangeError) as refused:
            await client.private_post_trade_order(order)
        assert f'"sCode": "{code}"' in str(refused.value)
        assert venue.exchange.held == LONG

    spoken(talk)


def test_a_batch_tells_row_by_row_under_code_2() -> None:
    """Of two orders one is refused: the other is done, and the rows stay in their places."""

    async def talk(venue: OkxWire, client: Any) -> None:
        one = {"instId": "A-USDT-SWAP", "tdMode": "cross", "side": "sell", "ordType": "market", "reduceOnly": True}
        rows = [one | {"sz": "1", "clOrdId": "ks1"}, one | {"sz": "1.005", "clOrdId": "ks2"}]
        answer = await client.private_post_trade_batch_orders(rows)
        told = [(row["clOrdId"], row["sCode"]) for row in answer["data"]]
        assert (answer["code"], told) == ("2", [("ks1", "0"), ("ks2", "51121")])
        assert venue.calls("submit_batch") == 1
        assert venue.taken() == {"batch orders/A-USDT-SWAP": 2}

    spoken(talk)


def test_hedge_mode_wants_a_side_and_no_more_than_it_holds() -> None:
    """51000 without a side, 51112 for more than is held, and the rest closes that side alone."""
    held: Mapping[Key, Decimal] = {("A", "long"): D(5), ("A", "short"): D(3)}

    async def talk(venue: OkxWire, client: Any) -> None:
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

    spoken(talk, held, mode="hedge")


def test_algo_orders_live_in_a_list_of_their_own_and_are_cancelled_there() -> None:
    """A stop of ours and a stop by hand: neither is in the plain list; gone ones are 51400 and 51401."""

    async def talk(venue: OkxWire, client: Any) -> None:
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

    spoken(talk)


@pytest.mark.parametrize(
    ("keys", "code"),
    [({"apiKey": "another"}, "50111"), ({"secret": "another"}, "50113"), ({"password": "another"}, "50105")],
)
def test_credentials_are_checked_by_their_own_codes(keys: Mapping[str, str], code: str) -> None:
    """Key, signature and passphrase each have one."""

    async def talk(venue: OkxWire, client: Any) -> None:
        with pytest.raises(ccxt.AuthenticationError, match=code):
            await client.fetch_balance()

    spoken(talk, keys=keys)


def test_a_clock_that_is_off_is_told_and_a_key_that_only_reads_sends_nothing() -> None:
    """30 seconds are too many (50102); a key without `trade` gets 50120."""

    async def talk(venue: OkxWire, client: Any) -> None:
        with pytest.raises(ccxt.ExchangeError, match="50120"):
            await client.create_order("A/USDT:USDT", "market", "sell", D(1), None, {"clientOrderId": "ks1"})
        client.options["timeDifference"] = 31_000
        with pytest.raises(ccxt.InvalidNonce, match="50102"):
            await client.fetch_balance()

    spoken(talk, perm="read_only")


def test_too_many_requests_are_429_and_maintenance_is_50001() -> None:
    """The eleventh reading of positions within two seconds is refused, and maintenance refuses everything."""

    async def talk(venue: OkxWire, client: Any) -> None:
        for _ in range(10):
            await client.fetch_positions()
        with pytest.raises(ccxt.RateLimitExceeded, match="50011"):
            await client.fetch_positions()
        await asyncio.sleep(2)
        await client.fetch_positions()
        venue.maintenance = True
        with pytest.raises(ccxt.OnMaintenance, match="50001"):
            await client.fetch_positions()

    spoken(talk, enforced=True)


def test_the_dead_mans_timer_takes_plain_orders_and_leaves_stops() -> None:
    """Between 10 and 120 seconds; started again it waits again, and at its end the plain order is gone."""

    async def talk(venue: OkxWire, client: Any) -> None:
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

    spoken(talk)


def test_closing_a_position_by_one_call_wants_its_margin_mode() -> None:
    """51023 for the mode in which there is none; then all of it goes."""

    async def talk(venue: OkxWire, client: Any) -> None:
        with pytest.raises(ccxt.ExchangeError, match="51023"):
            await client.close_position("A/USDT:USDT")
        await client.close_position("A/USDT:USDT", None, {"marginMode": "isolated"})
        assert venue.exchange.held["A", "long"] == 0

    spoken(talk, isolated=("A",))


def test_the_stream_logs_in_and_tells_every_change() -> None:
    """Positions at once, and again when a hand sells; a wrong secret is not let in."""

    async def talk(venue: OkxWire, client: Any) -> None:
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
        told = (await client.watch_balance())["info"]["data"]
        assert told[0]["details"][0]["eq"] == "100000"

    spoken(talk)
