"""A stage that fires in a real run with its server: a ccxt bot that asks is stopped, one that does not is fought."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.bots.desk import PROGRAMS, BotError, SpokenBot, blocks, filled_in, running, until
from tests.bots.environments import environment_of
from tests.bots.served import served_account
from tests.e2e.wire_venues import World
from tests.wire.server import KEY, SECRET

pytestmark = pytest.mark.bots
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"


class Fight:
    """A venue with 2 BTC, a run with its server, a bot that asks and one that does not."""

    def __init__(self, world: World, asking: SpokenBot, plain: SpokenBot) -> None:
        self.world, self.asking, self.plain = world, asking, plain

    def asks(self, *arguments: Any) -> str:
        """What the bot that asks gets for an order: `sent`, or the reason of the refusal."""
        try:
            self.asking("create_order", *arguments)
        except BotError as error:
            assert "OrderNotSentError" in error.kinds, error
            return str(error)
        return "sent"

    def sent(self) -> list[list[Any]]:
        """Orders that reached the venue: symbol, side, amount, whether reduce-only."""
        found: list[list[Any]] = self.world.state()["sent"]
        return found


@contextmanager
def fight(folder: Path) -> Iterator[Fight]:
    """Follow the pages: a run with `--serve`, a token for the bot, and the code of the page."""
    environment = environment_of("ccxt")
    with ExitStack() as stack:
        options = (f"--position={BTC}=2", f"--symbol={ETH}", "--equity=1000")
        account = stack.enter_context(served_account(folder, *options, watch=(ETH,)))
        world = account.world
        stack.enter_context(account.running())
        paths = {f"fapi{what}{version}": f"{world.address}/fapi/{version.lower() or 'v1'}"
                 for what in ("Public", "Private") for version in ("", "V2", "V3")}  # fmt: skip
        inner = {"apiKey": KEY, "secret": SECRET, "enableRateLimit": False, "urls": {"api": paths},
                 "options": {"fetchCurrencies": False}}  # fmt: skip
        code = filled_in(blocks("ccxt.md")[0].partition("\ntry:")[0], {
            '{"apiKey": KEY, "secret": SECRET, "enableRateLimit": True}': repr(inner),
            "http://127.0.0.1:8600": account.gate, "LOCK_FILE": repr(str(account.lock_file)),
        })  # fmt: skip
        plain = f"import ccxt\nexchange = ccxt.binanceusdm({inner!r})\n"
        bots = []
        for lines in (code, plain):
            words = (str(PROGRAMS / "ccxt_bot.py"), lines, "sync")
            bot = SpokenBot(stack.enter_context(running(environment, folder, *words, token=account.token)))
            bot.line()
            bots.append(bot)
        yield Fight(world, *bots)


def test_a_bot_that_asks_is_stopped_and_one_that_does_not_is_fought(tmp_path: Path) -> None:
    """By the limits first, by the lock of the stage then; what the other one opens is closed again and again."""
    with fight(tmp_path) as desk:
        until(lambda: desk.asks(BTC, "market", "buy", 0.5) == "sent", "the gate has warmed up, and allows an entry")
        assert desk.sent() == [[BTC, "buy", "0.5", False]]
        assert "order_size" in desk.asks(BTC, "market", "buy", 50)
        desk.plain("create_order", ETH, "limit", "buy", 1, 50)

        desk.world.move("price", symbol=BTC, price="60")  # 100 USDT of 1000 are lost
        until(lambda: "locked" in desk.asks(BTC, "market", "buy", 50), "the stage has locked trading")
        until(lambda: not desk.world.state()["rests"], "the entry of the other bot is cancelled")
        assert "locked" in desk.asks(ETH, "market", "buy", 0.1)
        until(lambda: desk.asks(BTC, "market", "sell", 0.5) == "sent", "a plain exit is proved")
        assert desk.sent()[-1] == [BTC, "sell", "0.5", True], "and sent reduce-only"
        assert desk.asks(BTC, "limit", "sell", 0.5, 70, {"reduceOnly": True}) == "sent"

        closed = [ETH, "sell", "1", True]
        desk.plain("create_order", ETH, "market", "buy", 1)
        until(lambda: desk.sent().count(closed) == 1, "what it opened is closed")
        desk.plain("create_order", ETH, "market", "buy", 1)
        until(lambda: desk.sent().count(closed) == 2, "what it opened again is closed again")
        assert float(desk.world.held()[f"{BTC} long"]) == 2, "and nothing else"
        assert desk.world.state()["rests"], "the target of the bot that asks still rests"
