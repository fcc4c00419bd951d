"""Deribit's private stream through ccxt's WebSocket client, against a server that follows Deribit's documentation."""

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
from tests.unit.ccxt.streaming_venue import StreamingVenue
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


class Deribit(StreamingVenue):
    """Authenticates a client a tenth of a second after its request, and rejects subscriptions before that."""

    path = "/ws/api/v2"

    def __init__(self, time: VirtualTime) -> None:
        super().__init__(time)
        self._answers = Answers(time)
        self._answers.results["private/get_positions"] = [LONG]
        self.secret = SECRET
        self.premature: list[str] = []
        """Channels that were requested before the client was authenticated."""
        self._authenticated: set[web.WebSocketResponse] = set()

    def answer(self, ask: Ask) -> Reply:
        return self._answers.answer(ask)

    async def receive(self, socket: web.WebSocketResponse, message: dict[str, Any]) -> None:
        async def respond(**what: Any) -> None:
            if not socket.closed:
                await socket.send_str(json.dumps({"jsonrpc": "2.0", "id": message["id"], **what, "testnet": False}))

        async def authenticate() -> None:
            await asyncio.sleep(0.1)
            if self._admits(message["params"]):
                self._authenticated.add(socket)
                await respond(result={"access_token": "TOKEN", "token_type": "bearer", "expires_in": 900})
            else:
                await respond(error={"code": 13004, "message": "invalid_credentials"})

        if message["method"] == "public/auth":
            asyncio.ensure_future(authenticate())  # noqa: RUF006 - over in a moment
        elif socket not in self._authenticated:
            self.premature += message["params"]["channels"]
            await respond(error={"code": 13009, "message": "unauthorized"})
        else:
            self.subscribed += message["params"]["channels"]
            await respond(result=message["params"]["channels"])

    def _admits(self, param: dict[str, Any]) -> bool:
        signed = f"{param['timestamp']}\n{param['nonce']}\n{param['data']}"
        expected = hmac.new(self.secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
        is_known = (param["grant_type"], param["client_id"]) == ("client_signature", KEY)
        return is_known and hmac.compare_digest(expected, str(param["signature"]))

    def notify(self, channel: str, data: object) -> None:
        self.send_soon({"jsonrpc": "2.0", "method": "subscription", "params": {"channel": channel, "data": data}})


def run_story(story: Callable[[ListenedAccount], Awaitable[None]]) -> None:
    """Run a story with an account whose stream the runner's listener follows."""
    run_listened_account("deribit", Deribit, story, currency="BTC")


def order(here: ListenedAccount) -> None:
    here.venue.notify(ORDERS, ORDER)


def test_orders_and_portfolios_wake_a_poll() -> None:
    """One order, several at once, and the portfolio of a currency that is not the account's."""

    async def story(here: ListenedAccount) -> None:
        assert await here.requests_poll(lambda: order(here))
        assert await here.requests_poll(lambda: here.venue.notify(ORDERS, [ORDER, ORDER | {"order_id": "BTC-2"}]))
        assert await here.requests_poll(lambda: here.venue.notify(PORTFOLIO, PORTFOLIO_OF_ETHER))
        assert (here.view.state, here.listener.alerts.texts) == ("heard", ())
        assert sorted(here.venue.subscribed) == CHANNELS

    run_story(story)


def test_each_message_has_the_kind_of_its_channel() -> None:
    """An order as `orders`, a portfolio as `balance`."""

    async def story(here: ListenedAccount) -> None:
        pushes: list[Push] = []
        listening = asyncio.ensure_future(here.account.listen(pushes.append))
        await here.time.sleep(3.0)
        assert "lost" not in {it.kind for it in pushes}
        for channel, data, kind in ((ORDERS, ORDER, "orders"), (PORTFOLIO, PORTFOLIO_OF_ETHER, "balance")):
            pushes.clear()
            here.venue.notify(channel, data)
            await here.time.sleep(1.0)
            assert {it.kind for it in pushes} - {"alive"} == {kind}
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

    run_story(story)


def test_nothing_is_subscribed_before_authentication() -> None:
    """Two streams share one authentication; the second waits until the first is authenticated."""

    async def story(here: ListenedAccount) -> None:
        await here.time.sleep(10.0)
        assert (here.venue.premature, sorted(here.venue.subscribed)) == ([], CHANNELS)
        assert len(here.venue.sockets) == 1

    run_story(story)


def test_a_rejected_signature_is_reported_and_retried() -> None:
    """Meanwhile the stream is never shown as alive; once the venue accepts the signature, it delivers."""

    async def story(here: ListenedAccount) -> None:
        here.venue.secret = "ANOTHER"
        await here.time.sleep(90.0)
        assert here.view.state == "lost"
        (problem,) = here.listener.alerts.texts
        assert "the venue rejects the credentials" in problem
        assert "13004 invalid_credentials" in problem
        here.venue.secret = SECRET
        await here.time.sleep(120.0)
        assert await here.requests_poll(lambda: order(here))
        assert here.view.state == "heard"

    run_story(story)


def test_an_error_on_the_stream_is_reported_and_the_stream_restarted() -> None:
    """ccxt fails on it and would silently stop reading the connection."""

    async def story(here: ListenedAccount) -> None:
        assert await here.requests_poll(lambda: order(here))
        (old,) = here.venue.sockets
        here.venue.send_soon({"jsonrpc": "2.0", "id": 7, "error": {"code": 11051, "message": "system_maintenance"}})
        await here.time.sleep(0.5)
        assert here.view.state == "lost"
        assert "11051 system_maintenance" in (here.view.why or "")
        await here.time.sleep(10.0)
        assert old not in here.venue.sockets
        assert await here.requests_poll(lambda: order(here))

    run_story(story)


def test_a_message_that_ccxt_cannot_parse_is_reported_and_the_stream_restarted() -> None:
    """The message is of a kind that ccxt does not know."""

    async def story(here: ListenedAccount) -> None:
        assert await here.requests_poll(lambda: order(here))
        here.venue.notify("rfq.any", {})
        await here.time.sleep(0.5)
        assert here.view.state == "lost"
        await here.time.sleep(10.0)
        assert await here.requests_poll(lambda: order(here))

    run_story(story)


def test_a_stream_that_falls_silent_is_reported_as_stale_and_polls_continue() -> None:
    """The connection stays open and answers no ping: after a minute it is stale; polls return what they did before."""

    async def story(here: ListenedAccount) -> None:
        assert await here.requests_poll(lambda: order(here))
        await here.time.sleep(20.0)
        here.venue.fall_silent()
        await here.time.sleep(STALE_AFTER - 30.0)
        assert here.view.state == "heard"
        await here.time.sleep(60.0)
        assert here.view.state == "stale"
        (problem,) = here.listener.alerts.texts
        assert "no sign of life for 60 s; until it delivers again" in problem
        assert [it.contracts for it in (await here.poll()).positions or ()] == [5000]

    run_story(story)


def test_a_closed_stream_is_reported_and_reconnects() -> None:
    """It authenticates again: later messages wake a poll as before."""

    async def story(here: ListenedAccount) -> None:
        assert await here.requests_poll(lambda: order(here))
        for socket in list(here.venue.sockets):
            await socket.close()
        await here.time.sleep(0.5)
        assert here.view.state == "lost"
        await here.time.sleep(5.0)
        assert sorted(here.venue.subscribed) == CHANNELS
        assert await here.requests_poll(lambda: order(here))

    run_story(story)
