"""Hyperliquid's stream through ccxt's WebSocket side, against a server that speaks as its documents do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import pytest
from aiohttp import web

from killswitch.accounts.poll.push_listener import STALE_AFTER
from killswitch.model.venue import Push
from tests.unit.ccxt.speaking import Speaking
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


class Hyperliquid(Speaking):
    """Knows one account, and says what is wrong with what it does not take on the channel `error`."""

    path = "/ws"

    def __init__(self, time: VirtualTime, user: str = MASTER) -> None:
        super().__init__(time)
        self._user = user.lower()
        self.full = False
        """Whether it takes no subscription now."""
        self._told: Mapping[str, Any] = {
            "metaAndAssetCtxs": META, "clearinghouseState": STATE, "userAbstraction": "default",
            "exchangeStatus": {"time": 1, "specialStatuses": None},
        }  # fmt: skip

    def answer(self, ask: Ask) -> Reply:
        return Reply(json.dumps(self._told.get(str(ask.params["type"]), [])))

    async def hear(self, socket: web.WebSocketResponse, message: dict[str, Any]) -> None:
        if message["method"] == "ping":
            await socket.send_str(json.dumps({"channel": "pong"}))
            return
        asked = message["subscription"]
        if self.full or asked["type"] in self.subscribed:
            wrong = "Cannot track more than 10 total users." if self.full else f"Already subscribed: {asked}"
            await socket.send_str(json.dumps({"channel": "error", "data": wrong}))
            return
        await socket.send_str(json.dumps({"channel": "subscriptionResponse", "data": message}))
        if asked["user"].lower() == self._user:
            self.subscribed.append(asked["type"])

    def order(self) -> None:
        if "orderUpdates" in self.subscribed:
            self.told({"channel": "orderUpdates", "data": [ORDER]})

    def state(self) -> None:
        if "clearinghouseState" in self.subscribed:
            data = {"dex": "", "user": self._user, "clearinghouseState": STATE}
            self.told({"channel": "clearinghouseState", "data": data})


def told(
    story: Callable[[ListenedAccount], Awaitable[None]],
    made: Callable[[VirtualTime], Hyperliquid] = Hyperliquid,
    **options: object,
) -> None:
    """Tell it with an account whose stream is listened to."""
    keys = {"wallet_address": MASTER, "private_key": PRIVATE}
    run_listened_account("hyperliquid", made, story, currency="USDC", credentials=keys, options=options)


def test_orders_and_positions_wake_a_reading() -> None:
    """What becomes of an order, and the state of the account with its positions."""

    async def story(here: ListenedAccount) -> None:
        assert await here.requests_poll(here.venue.order)
        assert await here.requests_poll(here.venue.state)
        assert (here.view.state, here.listener.problems) == ("heard", ())
        assert sorted(here.venue.subscribed) == TYPES

    told(story)


def test_each_is_told_as_what_it_is() -> None:
    """An order as `orders`, the state as `positions`."""

    async def story(here: ListenedAccount) -> None:
        heard: list[Push] = []
        listening = asyncio.ensure_future(here.account.listen(heard.append))
        await here.time.sleep(3.0)
        for deed, kind in ((here.venue.order, "orders"), (here.venue.state, "positions")):
            heard.clear()
            deed()
            await here.time.sleep(1.0)
            assert {it.kind for it in heard} - {"alive"} == {kind}
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

    told(story)


def test_a_vault_is_heard_and_not_the_wallet_that_trades_for_it() -> None:
    """The stream is asked for with the vault's address, as all else is."""

    async def story(here: ListenedAccount) -> None:
        assert await here.requests_poll(here.venue.order)
        assert await here.requests_poll(here.venue.state)

    told(story, lambda time: Hyperliquid(time, VAULT), vault=VAULT)


def test_a_subscription_that_is_refused_is_told_and_asked_for_again() -> None:
    """ccxt would take it for subscribed to, and hear nothing for ever while pings are answered."""

    async def story(here: ListenedAccount) -> None:
        here.venue.full = True
        await here.time.sleep(90.0)
        assert here.view.state == "lost"
        (problem,) = here.listener.problems
        assert "Hyperliquid refuses a request on the stream: Cannot track more than 10 total users." in problem
        here.venue.full = False
        await here.time.sleep(120.0)
        assert await here.requests_poll(here.venue.order)
        assert await here.requests_poll(here.venue.state)
        assert here.view.state == "heard"

    told(story)


def test_being_told_that_it_is_subscribed_already_loses_nothing() -> None:
    """The venue says so on the channel of errors; the stream stands."""

    async def story(here: ListenedAccount) -> None:
        assert await here.requests_poll(here.venue.order)
        here.venue.told({"channel": "error", "data": "Already subscribed: {}"})
        await here.time.sleep(1.0)
        assert (here.view.state, here.listener.problems) == ("heard", ())
        assert await here.requests_poll(here.venue.order)

    told(story)


def test_a_stream_that_falls_silent_is_told_as_stale_and_the_polls_go_on() -> None:
    """The connection stays and answers no ping: after a minute it is stale, and what is read is as good as before."""

    async def story(here: ListenedAccount) -> None:
        assert await here.requests_poll(here.venue.order)
        await here.time.sleep(20.0)
        here.venue.fall_silent()
        await here.time.sleep(STALE_AFTER - 30.0)
        assert here.view.state == "heard"
        await here.time.sleep(60.0)
        assert here.view.state == "stale"
        (problem,) = here.listener.problems
        assert "no sign of life for 60 s; until it delivers again" in problem
        assert len((await here.poll()).positions or ()) == 2

    told(story)


def test_a_stream_that_never_says_anything_is_never_heard() -> None:
    """It is open, and pings leave: that is no sign of life of the venue."""

    async def story(here: ListenedAccount) -> None:
        here.venue.fall_silent()
        for _ in range(12):
            await here.time.sleep(5.0)
            assert here.view.state == "opening"
        await here.time.sleep(5.0)
        assert (here.view.state, len(here.venue.sockets)) == ("stale", 1)

    told(story)


@pytest.mark.parametrize("what", ["order", "state"])
def test_a_stream_that_is_cut_is_told_and_comes_back(what: str) -> None:
    """Both subscriptions are asked for again: what happens after that wakes a reading as before."""

    async def story(here: ListenedAccount) -> None:
        deed = getattr(here.venue, what)
        assert await here.requests_poll(deed)
        for socket in list(here.venue.sockets):
            await socket.close()
        await here.time.sleep(0.5)
        assert here.view.state == "lost"
        await here.time.sleep(5.0)
        assert await here.requests_poll(deed)

    told(story)
