"""A plain ccxt bot, sync and async, with the real package in its own environment, against a venue on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.bots.desk import PROGRAMS, BotError, LockFile, SpokenBot, blocks, filled_in, running
from tests.bots.environments import environment_of
from tests.e2e.wire_venues import VENUES, World, wire
from tests.wire.server import KEY, SECRET

pytestmark = pytest.mark.bots
BTC = "BTC/USDT:USDT"


class Site:
    """A venue with a long position of 2 BTC, a lock file, and the page's bot."""

    def __init__(self, world: World, lock: LockFile, bot: SpokenBot, printed: str = "") -> None:
        """`printed`: what the page's code has printed."""
        self.world, self.lock, self.bot, self.printed = world, lock, bot, printed

    def held(self) -> str | None:
        """Contracts of BTC that are held."""
        return self.world.held().get(f"{BTC} long")

    def refused(self, method: str, *arguments: Any, **named: Any) -> str:
        """The text with which a call is refused, which a bot can catch as ccxt's error; nothing reaches the venue."""
        before = self.world.state()["sent"]
        with pytest.raises(BotError) as caught:
            self.bot(method, *arguments, **named)
        assert {"OrderNotSentError", "PermissionDenied", "BaseError"} <= set(caught.value.kinds), caught.value
        assert self.world.state()["sent"] == before
        return str(caught.value)


@contextmanager
def site_of(folder: Path, kind: str, mode: str = "one_way", *, is_whole: bool = False) -> Iterator[Site]:
    """Follow the page with this exchange on loopback, by the lock file alone.

    `is_whole`: with its order, under a lock; else the bot is made as the page has it, and sends what the test wants.
    """
    environment = environment_of("ccxt")
    lock = LockFile(folder / "account__main.json")
    options = ("--position=BTC/USDT:USDT=2", "--symbol=ETH/USDT:USDT", f"--mode={mode}")
    with wire("binance", *options) as addresses:
        world = World(VENUES["binance"], **addresses)
        paths = {f"fapi{what}{version}": f"{world.address}/fapi/{version.lower() or 'v1'}"
                 for what in ("Public", "Private") for version in ("", "V2", "V3")}  # fmt: skip
        inner = {"apiKey": KEY, "secret": SECRET, "enableRateLimit": False, "urls": {"api": paths},
                 "options": {"fetchCurrencies": False}}  # fmt: skip
        values = {
            '{"apiKey": KEY, "secret": SECRET, "enableRateLimit": True}': repr(inner),
            'OrderPermits("main", gate="http://127.0.0.1:8600", lock_file=LOCK_FILE)':
                f"OrderPermits(lock_file={str(lock.path)!r}, pause_after_lock=1.0)",
        }  # fmt: skip
        if kind == "async":
            values |= {"import ccxt\n": "import ccxt.async_support as ccxt\n"}
        making, _, order = blocks("ccxt.md")[0].partition("\ntry:")
        if is_whole:
            lock.lock()
        code = filled_in(making, values) + (f"\ntry:{order}" if is_whole else "")
        with running(environment, folder, str(PROGRAMS / "ccxt_bot.py"), code, kind) as process:
            bot = SpokenBot(process)
            assert process.stdout is not None
            printed = process.stdout.readline() if is_whole else ""
            expected = "GatedAsyncExchange" if kind == "async" else "GatedExchange"
            assert bot.line() == {"ready": expected}
            yield Site(world, lock, bot, printed)


@pytest.fixture(params=["sync", "async"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """The page followed with each of the two interfaces."""
    with site_of(tmp_path, request.param) as made:
        yield made


def test_no_road_of_ccxt_opens_anything_while_locked_and_exits_pass(site: Site) -> None:
    """Under both spellings, as a list, as a change of an order, by a helper, by a raw endpoint and a socket."""
    bot = site.bot
    bot("create_order", BTC, "market", "buy", 1)
    entry = bot("create_order", BTC, "limit", "buy", 1, 90)
    leaving = bot("create_order", BTC, "limit", "sell", 1, 120, {"reduceOnly": True})
    assert site.held() == "3"
    site.lock.lock()
    orders = [{"symbol": BTC, "type": "market", "side": "buy", "amount": 1}]
    leaving_list = [{"symbol": BTC, "type": "market", "side": "sell", "amount": 0.5, "params": {"reduceOnly": True}}]
    assert "locked" in site.refused("create_order", BTC, "market", "buy", 1)
    site.refused("createOrder", BTC, "market", "buy", 1)
    site.refused("create_orders", orders)
    site.refused("createOrders", [*leaving_list, *orders])
    site.refused("edit_order", entry["id"], BTC, "limit", "buy", 1, 95)
    site.refused("editOrder", entry["id"], BTC, "limit", "buy", 1, 95, {"reduceOnly": True})
    site.refused("create_limit_buy_order", BTC, 1, 90)
    site.refused("createMarketBuyOrder", BTC, 1)
    raw = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "1"}
    for method in ("fapiPrivatePostOrder", "fapiprivate_post_order"):
        assert "not known to be harmless" in site.refused(method, raw)
    site.refused("request", "order", "fapiPrivate", "POST", raw)
    for method in ("create_order_ws", "edit_orders", "create_twap_order", "close_position", "create_stop_order"):
        site.refused(method, BTC, "market", "buy", 1)
    assert "reduce-only" in site.refused("create_order", BTC, "market", "sell", 1), "a plain sale may open a short"

    bot("create_order", BTC, "market", "sell", 1, None, {"reduceOnly": True})
    bot("create_orders", leaving_list)
    bot("create_order", BTC, "market", "sell", 0.5, None, {"reduceOnly": True, "stopLossPrice": 80})
    bot("edit_order", leaving["id"], BTC, "limit", "sell", 1, 110)
    assert site.held() == "1.5"
    assert all(flag for *_, flag in site.world.state()["sent"][3:]), "each exit arrived with the flag"
    bot("cancel_order", entry["id"], BTC)
    site.lock.lock("all")
    site.refused("create_order", BTC, "market", "sell", 1, None, {"reduceOnly": True})


def test_the_whole_code_of_the_page_prints_why_its_order_is_not_sent(tmp_path: Path) -> None:
    """Nothing of it left out."""
    with site_of(tmp_path, "sync", is_whole=True) as site:
        assert site.held() == "2"
        assert site.world.state()["sent"] == []
        assert site.printed.startswith("not sent by create_order: locked: the lock file says reduce_only")


def test_reads_pass_and_after_the_lock_there_is_no_burst(site: Site) -> None:
    """A bot that tries ten times in the second after the lock has one order at the venue."""
    site.lock.lock()
    assert site.bot("fetch_positions")
    assert site.bot("fetchTicker", BTC)["last"]
    for _ in range(3):
        site.refused("create_order", BTC, "market", "buy", 0.1)
    sent = len(site.world.state()["sent"])
    site.lock.open()
    passed = 0
    for _ in range(10):
        try:
            site.bot("create_order", BTC, "market", "buy", 0.1)
            passed += 1
        except BotError as error:
            assert "way_back" in str(error)
    assert len(site.world.state()["sent"]) == sent + passed
    assert 1 <= passed <= 3


def test_in_hedge_mode_the_closing_side_is_the_exit(tmp_path: Path) -> None:
    """The venue refuses the flag there, and the proxy sends none."""
    with site_of(tmp_path, "sync", "hedge") as site:
        site.lock.lock()
        site.refused("create_order", BTC, "market", "buy", 1, None, {"positionSide": "LONG"})
        site.refused("create_order", BTC, "market", "sell", 1, None, {"positionSide": "SHORT"})
        site.bot("create_order", BTC, "market", "sell", 1, None, {"positionSide": "LONG"})
        assert site.held() == "1"
