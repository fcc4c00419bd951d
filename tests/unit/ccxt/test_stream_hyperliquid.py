"""Hyperliquid's stream through ccxt's WebSocket client, against a server that follows Hyperliquid's documentation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import pytest
from aiohttp import web

from killswitch.accounts.poll.push_listener import STALE_AFTER
from killswitch.model.venue import Push
from tests.unit.ccxt.streaming_venue import StreamingVenue
from tests.unit.ccxt.venues.test_hyperliquid import MASTER, META, PRIVATE, STATE
from tests.virtual_time import VirtualTime
from tests.wire.server import Ask, Reply
from tests.wire.stream_listening import ListenedAccount, run_listened_account

VAULT: Final = "0x" + "3" * 40
TYPES: Final = ["clearinghouseState", "orderUpdates"]
ORDER = {
    "order": {"coin": "BTC", "side": "B", "limitPx": "30000.0", "sz": "0.001", "oid": 7456484275,
              "timestamp": 1710163596492, "origSz": "0.001"},
    "status": "open", "statusTimestamp": 1710163596492,
}  # fmt: skip


class Hyperliquid(StreamingVenue):
    """Knows one account, and reports requests that it rejects on the channel `error`."""

    path = "/ws"

    def __init__(self, time: VirtualTime, user: str = MASTER) -> None:
        super().__init__(time)
        self._user = user.lower()
        self.is_full = False
        """Whether it rejects every subscription now."""
        self._answers: Mapping[str, Any] = {
            "metaAndAssetCtxs": META, "clearinghouseState": STATE, "userAbstraction": "default",
            "exchangeStatus": {"time": 1, "specialStatuses": None},
        }  # fmt: skip

    def answer(self, ask: Ask) -> Reply:
        return Reply(json.dumps(self._answers.get(str(ask.params["type"]), [])))

    async def receive(self, socket: web.WebSocketResponse, message: dict[str, Any]) -> None:
        if message["method"] == "ping":
            await socket.send_str(json.dumps({"channel": "pong"}))
            return
        subscription = message["subscription"]
        if self.is_full or subscription["type"] in self.subscribed:
            error = "Cannot track more than 10 total users." if self.is_full else f"Already subscribed: {subscription}"
            await socket.send_str(json.dumps({"channel": "error", "data": error}))
            return
        await socket.send_str(json.dumps({"channel": "subscriptionResponse", "data": message}))
        if subscription["user"].lower() == self._user:
            self.subscribed.append(subscription["type"])

    def order(self) -> None:
        if "orderUpdates" in self.subscribed:
            self.send_soon({"channel": "orderUpdates", "data": [ORDER]})

    def state(self) -> None:
        if "clearinghouseState" in self.subscribed:
            data = {"dex": "", "user": self._user, "clearinghouseState": STATE}
            self.send_soon({"channel": "clearinghouseState", "data": data})


def run_story(
    story: Callable[[ListenedAccount], Awaitable[None]],
    made: Callable[[VirtualTime], Hyperliquid] = Hyperliquid,
    **options: object,
) -> None:
    """Run a story with an account whose stream the runner's listener follows."""
    keys = {"wallet_address": MASTER, "private_key": PRIVATE}
    run_listened_account("hyperliquid", made, story, currency="USDC", credentials=keys, options=options)


def test_orders_and_positions_wake_a_poll() -> None:
    """Order updates, and the state of the account with its positions."""

    async def story(here: ListenedAccount) -> None:
        assert await here.requests_poll(here.venue.order)
        assert await here.requests_poll(here.venue.state)
        assert (here.view.state, here.listener.alerts.texts) == ("heard", ())
        assert sorted(here.venue.subscribed) == TYPES

    run_story(story)


def test_each_message_has_the_kind_of_its_channel() -> None:
    """An order as `orders`, the state as `positions`."""

    async def story(here: ListenedAccount) -> None:
        pushes: list[Push] = []
        listening = asyncio.ensure_future(here.account.listen(pushes.append))
        await here.time.sleep(3.0)
        for send, kind in ((here.venue.order, "orders"), (here.venue.state, "positions")):
            pushes.clear()
            send()
            await here.time.sleep(1.0)
            assert {it.kind for it in pushes} - {"alive"} == {kind}
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

    run_story(story)


def test_the_stream_of_a_vault_is_followed_not_that_of_its_trading_wallet() -> None:
    """Subscriptions use the vault's address, as all other requests do."""

    async def story(here: ListenedAccount) -> None:
        assert await here.requests_poll(here.venue.order)
        assert await here.requests_poll(here.venue.state)

    run_story(story, lambda time: Hyperliquid(time, VAULT), vault=VAULT)


def test_a_rejected_subscription_is_reported_and_requested_again() -> None:
    """ccxt would count it as subscribed, and receive nothing for ever while pings are answered."""

    async def story(here: ListenedAccount) -> None:
        here.venue.is_full = True
        await here.time.sleep(90.0)
        assert here.view.state == "lost"
        (problem,) = here.listener.alerts.texts
        assert "Hyperliquid refuses a request on the stream: Cannot track more than 10 total users." in problem
        here.venue.is_full = False
        await here.time.sleep(120.0)
        assert await here.requests_poll(here.venue.order)
        assert await here.requests_poll(here.venue.state)
        assert here.view.state == "heard"

    run_story(story)


def test_an_already_subscribed_error_does_not_lose_the_stream() -> None:
    """The venue reports it on the channel `error`; the stream is unaffected."""

    async def story(here: ListenedAccount) -> None:
        assert await here.requests_poll(here.venue.order)
        here.venue.send_soon({"channel": "error", "data": "Already subscribed: {}"})
        await here.time.sleep(1.0)
        assert (here.view.state, here.listener.alerts.texts) == ("heard", ())
        assert await here.requests_poll(here.venue.order)

    run_story(story)


def test_a_stream_that_falls_silent_is_reported_as_stale_and_polls_continue() -> None:
    """The connection stays open and answers no ping: after a minute it is stale; polls return what they did before."""

    async def story(here: ListenedAccount) -> None:
        assert await here.requests_poll(here.venue.order)
        await here.time.sleep(20.0)
        here.venue.fall_silent()
        await here.time.sleep(STALE_AFTER - 30.0)
        assert here.view.state == "heard"
        await here.time.sleep(60.0)
        assert here.view.state == "stale"
        (problem,) = here.listener.alerts.texts
        assert "no sign of life for 60 s; until it delivers again" in problem
        assert len((await here.poll()).positions or ()) == 2

    run_story(story)


def test_a_stream_that_never_delivers_anything_is_never_shown_as_alive() -> None:
    """It is open and sends pings, which is no sign of life of the venue."""

    async def story(here: ListenedAccount) -> None:
        here.venue.fall_silent()
        for _ in range(12):
            await here.time.sleep(5.0)
            assert here.view.state == "opening"
        await here.time.sleep(5.0)
        assert (here.view.state, len(here.venue.sockets)) == ("stale", 1)

    run_story(story)


@pytest.mark.parametrize("what", ["order", "state"])
def test_a_closed_stream_is_reported_and_reconnects(what: str) -> None:
    """Both subscriptions are requested again: later messages wake a poll as before."""

    async def story(here: ListenedAccount) -> None:
        send = getattr(here.venue, what)
        assert await here.requests_poll(send)
        for socket in list(here.venue.sockets):
            await socket.close()
        await here.time.sleep(0.5)
        assert here.view.state == "lost"
        await here.time.sleep(5.0)
        assert await here.requests_poll(send)

    run_story(story)
