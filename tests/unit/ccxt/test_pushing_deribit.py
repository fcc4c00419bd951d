"""Deribit's private stream through ccxt's WebSocket side, against a server that speaks as its documents do."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from killswitch.accounts.poll.push_listener import STALE_AFTER
from killswitch.model.venue import Push
from tests.unit.ccxt.speaking import Speaking
from tests.unit.ccxt.venues.test_deribit import LONG, ORDER, Answers
from tests.virtual_time import VirtualTime
from tests.wire.server import KEY, SECRET, Ask, Reply
from tests.wire.stream_listening import ListenedAccount, run_listened_account

ORDERS, PORTFOLIO = "user.orders.any.any.raw", "user.portfolio.any"
CHANNELS: Final = [ORDERS, PORTFOLIO]
PORTFOLIO_OF_ETHER = {
    "currency": "ETH", "equity": 0.0015, "balance": 0.0015, "available_funds": 0.0015, "margin_balance": 0.0015,
    "initial_margin": 0, "maintenance_margin": 0, "total_pl": 0, "portfolio_margining_enabled": False,
}  # fmt: skip


class Deribit(Speaking):
    """Lets a client in a tenth of a second after it asked, and answers whoever asks before that that he is not in."""

    path = "/ws/api/v2"

    def __init__(self, time: VirtualTime) -> None:
        super().__init__(time)
        self._answers = Answers(time)
        self._answers.said["private/get_positions"] = [LONG]
        self.secret = SECRET
        self.unasked: list[str] = []
        """What was asked for before the client was let in."""
        self._in: set[web.WebSocketResponse] = set()

    def answer(self, ask: Ask) -> Reply:
        return self._answers.answer(ask)

    async def hear(self, socket: web.WebSocketResponse, message: dict[str, Any]) -> None:
        async def say(**what: Any) -> None:
            if not socket.closed:
                await socket.send_str(json.dumps({"jsonrpc": "2.0", "id": message["id"], **what, "testnet": False}))

        async def enter() -> None:
            await asyncio.sleep(0.1)
            if self._admits(message["params"]):
                self._in.add(socket)
                await say(result={"access_token": "TOKEN", "token_type": "bearer", "expires_in": 900})
            else:
                await say(error={"code": 13004, "message": "invalid_credentials"})

        if message["method"] == "public/auth":
            asyncio.ensure_future(enter())  # noqa: RUF006 - over in a moment
        elif socket not in self._in:
            self.unasked += message["params"]["channels"]
            await say(error={"code": 13009, "message": "unauthorized"})
        else:
            self.subscribed += message["params"]["channels"]
            await say(result=message["params"]["channels"])

    def _admits(self, param: dict[str, Any]) -> bool:
        signed = f"{param['timestamp']}\n{param['nonce']}\n{param['data']}"
        right = hmac.new(self.secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
        known = (param["grant_type"], param["client_id"]) == ("client_signature", KEY)
        return known and hmac.compare_digest(right, str(param["signature"]))

    def notify(self, channel: str, data: object) -> None:
        self.told({"jsonrpc": "2.0", "method": "subscription", "params": {"channel": channel, "data": data}})


def told(story: Callable[[ListenedAccount], Awaitable[None]]) -> None:
    """Tell it with an account whose stream is listened to."""
    run_listened_account("deribit", Deribit, story, currency="BTC")


def order(here: ListenedAccount) -> None:
    here.venue.notify(ORDERS, ORDER)


def test_orders_and_portfolios_wake_a_reading() -> None:
    """An order, several at once, and the portfolio of a currency that is not the account's."""

    async def story(here: ListenedAccount) -> None:
        assert await here.requests_poll(lambda: order(here))
        assert await here.requests_poll(lambda: here.venue.notify(ORDERS, [ORDER, ORDER | {"order_id": "BTC-2"}]))
        assert await here.requests_poll(lambda: here.venue.notify(PORTFOLIO, PORTFOLIO_OF_ETHER))
        assert (here.view.state, here.listener.problems) == ("heard", ())
        assert sorted(here.venue.subscribed) == CHANNELS

    told(story)


def test_each_is_told_as_what_it_is() -> None:
    """An order as `orders`, a portfolio as `balance`."""

    async def story(here: ListenedAccount) -> None:
        heard: list[Push] = []
        listening = asyncio.ensure_future(here.account.listen(heard.append))
        await here.time.sleep(3.0)
        assert "lost" not in {it.kind for it in heard}
        for channel, data, kind in ((ORDERS, ORDER, "orders"), (PORTFOLIO, PORTFOLIO_OF_ETHER, "balance")):
            heard.clear()
            here.venue.notify(channel, data)
            await here.time.sleep(1.0)
            assert {it.kind for it in heard} - {"alive"} == {kind}
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

    told(story)


def test_nothing_is_asked_for_before_the_venue_has_let_it_in() -> None:
    """Two streams share one way in; the second waits until the first is through."""

    async def story(here: ListenedAccount) -> None:
        await here.time.sleep(10.0)
        assert (here.venue.unasked, sorted(here.venue.subscribed)) == ([], CHANNELS)
        assert len(here.venue.sockets) == 1

    told(story)


def test_a_signature_that_the_venue_refuses_is_said_and_tried_again() -> None:
    """It never looks alive meanwhile; as soon as the venue takes the signature, the stream is heard."""

    async def story(here: ListenedAccount) -> None:
        here.venue.secret = "ANOTHER"
        await here.time.sleep(90.0)
        assert here.view.state == "lost"
        (problem,) = here.listener.problems
        assert "the venue rejects the credentials" in problem
        assert "13004 invalid_credentials" in problem
        here.venue.secret = SECRET
        await here.time.sleep(120.0)
        assert await here.requests_poll(lambda: order(here))
        assert here.view.state == "heard"

    told(story)


def test_an_error_on_the_stream_is_told_and_the_stream_begun_again() -> None:
    """ccxt stumbles over it and would read the connection no further, without a word."""

    async def story(here: ListenedAccount) -> None:
        assert await here.requests_poll(lambda: order(here))
        (old,) = here.venue.sockets
        here.venue.told({"jsonrpc": "2.0", "id": 7, "error": {"code": 11051, "message": "system_maintenance"}})
        await here.time.sleep(0.5)
        assert here.view.state == "lost"
        assert "11051 system_maintenance" in (here.view.why or "")
        await here.time.sleep(10.0)
        assert old not in here.venue.sockets
        assert await here.requests_poll(lambda: order(here))

    told(story)


def test_what_ccxt_cannot_read_is_told_and_the_stream_begun_again() -> None:
    """A message of a kind that it does not know."""

    async def story(here: ListenedAccount) -> None:
        assert await here.requests_poll(lambda: order(here))
        here.venue.notify("rfq.any", {})
        await here.time.sleep(0.5)
        assert here.view.state == "lost"
        await here.time.sleep(10.0)
        assert await here.requests_poll(lambda: order(here))

    told(story)


def test_a_stream_that_falls_silent_is_told_as_stale_and_the_polls_go_on() -> None:
    """The connection stays and answers no ping: after a minute it is stale, and what is read is as good as before."""

    async def story(here: ListenedAccount) -> None:
        assert await here.requests_poll(lambda: order(here))
        await here.time.sleep(20.0)
        here.venue.fall_silent()
        await here.time.sleep(STALE_AFTER - 30.0)
        assert here.view.state == "heard"
        await here.time.sleep(60.0)
        assert here.view.state == "stale"
        (problem,) = here.listener.problems
        assert "no sign of life for 60 s; until it delivers again" in problem
        assert [it.contracts for it in (await here.poll()).positions or ()] == [5000]

    told(story)


def test_a_stream_that_is_cut_is_told_and_comes_back() -> None:
    """It enters again: what happens after that wakes a reading as before."""

    async def story(here: ListenedAccount) -> None:
        assert await here.requests_poll(lambda: order(here))
        for socket in list(here.venue.sockets):
            await socket.close()
        await here.time.sleep(0.5)
        assert here.view.state == "lost"
        await here.time.sleep(5.0)
        assert sorted(here.venue.subscribed) == CHANNELS
        assert await here.requests_poll(lambda: order(here))

    told(story)
