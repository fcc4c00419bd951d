"""The private stream of Kraken Futures, heard by the real client: ccxt's WebSocket side against the venue's words."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal

from killswitch.accounts.poll.push_listener import STALE_AFTER
from killswitch.model.venue import OrderRequest, Push
from tests.faults.exchange import Exchange, Market
from tests.virtual_time import VirtualTime
from tests.wire.heard import Heard, listened_to
from tests.wire.krakenfutures.stream import signature
from tests.wire.krakenfutures.venue import SECRET, KrakenFuturesWire
from tests.wire.server import KEY, WireVenue

BTC, ETH = "BTC/USD:USD", "ETH/USD:USD"
FEEDS = {"open_orders", "open_positions", "balances"}
D = Decimal


def venue(time: VirtualTime) -> WireVenue:
    """An account that is long 2 BTC and short 5 ETH."""
    held = {(BTC, "long"): D(2), (ETH, "short"): D(5)}
    markets = [Market(BTC, D(100)), Market(ETH, D(10))]
    return KrakenFuturesWire(Exchange(held, lambda: (time.elapsed, time.now()), markets=markets))  # type: ignore[arg-type] # sides


def told(story: Callable[[Heard], Awaitable[None]], made: Callable[[VirtualTime], WireVenue] = venue) -> None:
    """Tell it with an account whose stream is listened to."""
    listened_to("krakenfutures", made, story, currency="USD", credentials={"key": KEY, "secret": SECRET})


def sale(name: str, amount: str = "0.5", price: str | None = None) -> OrderRequest:
    """What another hand orders: BTC is sold, at market or for a price."""
    kind = {} if price is None else {"price": D(price)}
    return OrderRequest(
        name, BTC, "sell", "long", D(amount), reduce_only=True, type="limit" if kind else "market", **kind
    )  # type: ignore[arg-type] # a price


def test_a_challenge_is_signed_as_the_documents_say() -> None:
    """Their example: the challenge, the secret and what signs it are theirs."""
    secret = "7zxMEF5p/Z8l2p2U7Ghv6x14Af+Fx+92tPgUdVQ748FOIrEoT9bgT+bTRfXc5pz8na+hL/QdrCVG7bh9KpT0eMTm"
    signed = "4JEpF3ix66GA2B+ooK128Ift4XQVtc137N9yeg4Kqsn9PI0Kpzbysl9M1IeCEdjg0zl00wkVqcsnG4bmnlMb3A=="
    assert signature("c100b894-1729-464d-ace1-52dbce11db42", secret) == signed


def test_what_another_hand_does_wakes_a_reading() -> None:
    """A trade, an order that rests, and its end: each is heard at once, and nothing else wakes."""

    async def story(here: Heard) -> None:
        exchange = here.venue.exchange
        assert await here.wakes(lambda: exchange.place(sale("theirs"), by="hand"))
        assert here.view.state == "heard"
        assert set(here.venue.subscribed) == FEEDS
        assert await here.wakes(lambda: exchange.place(sale("resting", price="120"), by="hand"))
        assert await here.wakes(lambda: exchange.cancel(exchange.names["resting"]))
        assert await here.wakes(lambda: exchange.take_away((ETH, "short"), D(1), "liquidation"))
        seen = await here.poll()
        assert {it.symbol: it.contracts for it in seen.positions or ()} == {BTC: D("1.5"), ETH: D(4)}
        assert here.listening.problems == ()

    told(story)


def test_orders_positions_and_balances_are_told_apart() -> None:
    """An order that rests and is filled in two parts: `orders` each time, and what was filled also as `positions`."""

    def thin(time: VirtualTime) -> WireVenue:
        """Of the sale three quarters find a buyer, in two parts."""
        made = venue(time)
        made.exchange.markets[BTC].shares = [D("0.5"), D("0.5")]
        return made

    async def story(here: Heard) -> None:
        heard: list[Push] = []
        listening = asyncio.ensure_future(here.account.listen(heard.append))
        await here.time.sleep(3.0)
        heard.clear()
        here.venue.exchange.place(sale("parts", "1", "100"), by="hand")
        await here.time.sleep(1.0)
        assert {it.kind for it in heard} == {"orders", "positions", "balance"}
        heard.clear()
        here.venue.exchange.reprice(BTC, D(100))
        await here.time.sleep(1.0)
        assert "orders" in {it.kind for it in heard}
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        assert "lost" not in {it.kind for it in heard}

    told(story, thin)


def test_a_stream_that_falls_silent_is_told_as_stale_and_the_polls_go_on() -> None:
    """The connection stays and answers no ping: after a minute it is stale, and what is read is as good as before."""

    async def story(here: Heard) -> None:
        exchange = here.venue.exchange
        assert await here.wakes(lambda: exchange.trade((BTC, "long"), D(-1)))
        await here.time.sleep(20.0)
        here.venue.streams.fall_silent()
        await here.time.sleep(STALE_AFTER - 30.0)
        assert here.view.state == "heard"
        await here.time.sleep(60.0)
        assert here.view.state == "stale"
        (problem,) = here.listening.problems
        assert "is unreliable: no sign of life for 60 s; until it delivers again" in problem
        assert not await here.wakes(lambda: exchange.trade((ETH, "short"), D(-1)))
        seen = await here.poll()
        assert (seen.quality, len(here.venue.sockets)) == ("ok", 1)
        assert {it.symbol: it.contracts for it in seen.positions or ()} == {BTC: D(1), ETH: D(4)}

    told(story)


def test_a_stream_that_is_cut_is_told_and_comes_back() -> None:
    """With a challenge of its own: what happens after that wakes a reading as before."""

    async def story(here: Heard) -> None:
        exchange = here.venue.exchange
        assert await here.wakes(lambda: exchange.trade((BTC, "long"), D(-1)))
        for socket in list(here.venue.sockets):
            await socket.close()
        await here.time.sleep(0.5)
        assert here.view.state == "lost"
        await here.time.sleep(5.0)
        assert here.view.state == "heard"
        assert sorted(here.venue.subscribed) == sorted(FEEDS)
        assert await here.wakes(lambda: exchange.trade((BTC, "long"), D(-1)))
        (problem,) = here.listening.problems
        assert "the stream of account main is unreliable" in problem

    told(story)


def test_a_signature_that_the_venue_refuses_is_said_and_tried_again() -> None:
    """It never looks alive meanwhile; as soon as the venue takes the signature, the stream is heard."""

    async def story(here: Heard) -> None:
        streams = here.venue.streams
        right, streams.secret = streams.secret, "QU5PVEhFUg=="
        await here.time.sleep(90.0)
        assert here.view.state == "lost"
        (problem,) = here.listening.problems
        assert "Failed to subscribe to authenticated feed; if it repeats, key or secret are wrong" in problem
        assert set(streams.refused) == FEEDS
        assert (await here.poll()).quality == "ok"
        streams.secret = right
        await here.time.sleep(120.0)
        assert here.view.state == "heard"
        assert await here.wakes(lambda: here.venue.exchange.trade((BTC, "long"), D(-1)))

    told(story)


def test_a_feed_that_is_refused_later_on_is_asked_for_anew() -> None:
    """The venue raises an alert on a stream that stood: all of it is begun again, with a new challenge."""

    async def story(here: Heard) -> None:
        assert await here.wakes(lambda: here.venue.exchange.trade((BTC, "long"), D(-1)))
        (old,) = here.venue.sockets
        await old.send_json({"event": "alert", "message": "Failed to subscribe to authenticated feed"})
        await here.time.sleep(10.0)
        assert old not in here.venue.sockets
        assert sorted(here.venue.subscribed) == sorted(FEEDS)
        assert await here.wakes(lambda: here.venue.exchange.trade((BTC, "long"), D(-1)))

    told(story)
