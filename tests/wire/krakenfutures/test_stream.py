"""The private stream of Kraken Futures: ccxt's WebSocket client against the venue's messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal

from killswitch.accounts.poll.push_listener import STALE_AFTER
from killswitch.model.venue import OrderRequest, Push
from tests.faults.exchange import Exchange, Market
from tests.virtual_time import VirtualTime
from tests.wire.krakenfutures.stream import signature
from tests.wire.krakenfutures.venue import SECRET, KrakenFuturesWire
from tests.wire.server import KEY, WireVenue
from tests.wire.stream_listening import ListenedAccount, run_listened_account

BTC, ETH = "BTC/USD:USD", "ETH/USD:USD"
FEEDS = {"open_orders", "open_positions", "balances"}
D = Decimal


def venue(time: VirtualTime) -> WireVenue:
    """An account that is long 2 BTC and short 5 ETH."""
    held = {(BTC, "long"): D(2), (ETH, "short"): D(5)}
    markets = [Market(BTC, D(100)), Market(ETH, D(10))]
    return KrakenFuturesWire(Exchange(held, lambda: (time.elapsed, time.now()), markets=markets))  # type: ignore[arg-type] # sides


def play(
    scenario: Callable[[ListenedAccount], Awaitable[None]], server: Callable[[VirtualTime], WireVenue] = venue
) -> None:
    """Run a scenario on an account whose stream is listened to."""
    run_listened_account("krakenfutures", server, scenario, currency="USD", credentials={"key": KEY, "secret": SECRET})


def sale(name: str, amount: str = "0.5", price: str | None = None) -> OrderRequest:
    """A foreign order: BTC is sold, at market or at a price."""
    kind = {} if price is None else {"price": D(price)}
    return OrderRequest(
        name, BTC, "sell", "long", D(amount), reduce_only=True, type="limit" if kind else "market", **kind
    )


def test_a_challenge_is_signed_as_documented() -> None:
    """The documents' own example: challenge, secret and signature are theirs."""
    secret = "7zxMEF5p/Z8l2p2U7Ghv6x14Af+Fx+92tPgUdVQ748FOIrEoT9bgT+bTRfXc5pz8na+hL/QdrCVG7bh9KpT0eMTm"
    signed = "4JEpF3ix66GA2B+ooK128Ift4XQVtc137N9yeg4Kqsn9PI0Kpzbysl9M1IeCEdjg0zl00wkVqcsnG4bmnlMb3A=="
    assert signature("c100b894-1729-464d-ace1-52dbce11db42", secret) == signed


def test_foreign_orders_and_trades_wake_a_poll() -> None:
    """A trade, a resting order, and its end: each is pushed at once, and nothing else wakes a poll."""

    async def scenario(listened: ListenedAccount) -> None:
        exchange = listened.venue.exchange
        assert await listened.requests_poll(lambda: exchange.place(sale("theirs"), by="hand"))
        assert listened.view.state == "heard"
        assert set(listened.venue.subscribed) == FEEDS
        assert await listened.requests_poll(lambda: exchange.place(sale("resting", price="120"), by="hand"))
        assert await listened.requests_poll(lambda: exchange.cancel(exchange.names["resting"]))
        assert await listened.requests_poll(lambda: exchange.take_away((ETH, "short"), D(1), "liquidation"))
        seen = await listened.poll()
        assert {it.symbol: it.contracts for it in seen.positions or ()} == {BTC: D("1.5"), ETH: D(4)}
        assert listened.listener.alerts.texts == ()

    play(scenario)


def test_orders_positions_and_balances_are_distinguished() -> None:
    """A resting order filled in two parts: `orders` each time, and each fill also as `positions`."""

    def venue_with_partial_fills(time: VirtualTime) -> WireVenue:
        """Three quarters of the sale find a buyer, in two parts."""
        server = venue(time)
        server.exchange.markets[BTC].shares = [D("0.5"), D("0.5")]
        return server

    async def scenario(listened: ListenedAccount) -> None:
        pushes: list[Push] = []
        listener = asyncio.ensure_future(listened.account.listen(pushes.append))
        await listened.time.sleep(3.0)
        pushes.clear()
        listened.venue.exchange.place(sale("parts", "1", "100"), by="hand")
        await listened.time.sleep(1.0)
        assert {it.kind for it in pushes} == {"orders", "positions", "balance"}
        pushes.clear()
        listened.venue.exchange.reprice(BTC, D(100))
        await listened.time.sleep(1.0)
        assert "orders" in {it.kind for it in pushes}
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)
        assert "lost" not in {it.kind for it in pushes}

    play(scenario, venue_with_partial_fills)


def test_a_silent_stream_is_stale_and_polls_continue() -> None:
    """The connection stays and answers no ping: after a minute it is stale, and polls are as good as before."""

    async def scenario(listened: ListenedAccount) -> None:
        exchange = listened.venue.exchange
        assert await listened.requests_poll(lambda: exchange.trade((BTC, "long"), D(-1)))
        await listened.time.sleep(20.0)
        listened.venue.streams.fall_silent()
        await listened.time.sleep(STALE_AFTER - 30.0)
        assert listened.view.state == "heard"
        await listened.time.sleep(60.0)
        assert listened.view.state == "stale"
        (problem,) = listened.listener.alerts.texts
        assert "is unreliable: no sign of life for 60 s; until it delivers again" in problem
        assert not await listened.requests_poll(lambda: exchange.trade((ETH, "short"), D(-1)))
        seen = await listened.poll()
        assert (seen.quality, len(listened.venue.sockets)) == ("ok", 1)
        assert {it.symbol: it.contracts for it in seen.positions or ()} == {BTC: D(1), ETH: D(4)}

    play(scenario)


def test_a_closed_stream_is_lost_and_reconnected() -> None:
    """With a new challenge: later changes wake a poll as before."""

    async def scenario(listened: ListenedAccount) -> None:
        exchange = listened.venue.exchange
        assert await listened.requests_poll(lambda: exchange.trade((BTC, "long"), D(-1)))
        for socket in list(listened.venue.sockets):
            await socket.close()
        await listened.time.sleep(0.5)
        assert listened.view.state == "lost"
        await listened.time.sleep(5.0)
        assert listened.view.state == "heard"
        assert sorted(listened.venue.subscribed) == sorted(FEEDS)
        assert await listened.requests_poll(lambda: exchange.trade((BTC, "long"), D(-1)))
        (problem,) = listened.listener.alerts.texts
        assert "the stream of account main is unreliable" in problem

    play(scenario)


def test_a_refused_signature_is_reported_and_retried() -> None:
    """Meanwhile the stream never looks alive; once the venue accepts the signature, it delivers."""

    async def scenario(listened: ListenedAccount) -> None:
        streams = listened.venue.streams
        right, streams.secret = streams.secret, "QU5PVEhFUg=="
        await listened.time.sleep(90.0)
        assert listened.view.state == "lost"
        (problem,) = listened.listener.alerts.texts
        assert "Failed to subscribe to authenticated feed; if it repeats, key or secret are wrong" in problem
        assert set(streams.refused) == FEEDS
        assert (await listened.poll()).quality == "ok"
        streams.secret = right
        await listened.time.sleep(120.0)
        assert listened.view.state == "heard"
        assert await listened.requests_poll(lambda: listened.venue.exchange.trade((BTC, "long"), D(-1)))

    play(scenario)


def test_a_feed_that_is_refused_later_is_subscribed_to_again() -> None:
    """The venue raises an alert on an established stream: the adapter reconnects, with a new challenge."""

    async def scenario(listened: ListenedAccount) -> None:
        assert await listened.requests_poll(lambda: listened.venue.exchange.trade((BTC, "long"), D(-1)))
        (old,) = listened.venue.sockets
        await old.send_json({"event": "alert", "message": "Failed to subscribe to authenticated feed"})
        await listened.time.sleep(10.0)
        assert old not in listened.venue.sockets
        assert sorted(listened.venue.subscribed) == sorted(FEEDS)
        assert await listened.requests_poll(lambda: listened.venue.exchange.trade((BTC, "long"), D(-1)))

    play(scenario)
