"""A stage that fires in a real run with its server: a ccxt bot that asks is stopped, one that does not is fought."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.bots.desk import PROGRAMS, BotError, SpokenBot, blocks, filled_in, running, until
from tests.bots.environments import environment_of
from tests.e2e.wire_venues import VENUES, Site, World, wire
from tests.wire.server import KEY, SECRET

pytestmark = pytest.mark.bots
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
POLICY: Final = """\
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: loss}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    loss: {signal: equity.loss_from_start, at_least: 5%, on_unknown: hold}
  stages:
    - name: lock
      level: 1
      any: [loss]
      cooldown: 6h
      reset: manual
      on_breach: close
      breach: {ceiling: 50%, cost_per_hour: 5%, pause: 1s}
      actions:
        - lock_trading: {mode: reduce_only}
        - cancel_orders: {kind: entry}
"""
LIMITS: Final = """\
apiVersion: killswitch.dev/v1
kind: Limits
metadata: {name: main}
spec:
  match: {account: main}
  stale_after: 10s
  request_timeout: 1s
  order_size: [{at_most: 1000 USDT}]
"""


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


def free_port() -> int:
    """A port on loopback without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def fight(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fight]:
    """Follow the pages: a run with `--serve`, a token for the bot, and the code of the page."""
    environment = environment_of("ccxt")
    with ExitStack() as stack:
        options = (f"--position={BTC}=2", f"--symbol={ETH}", "--equity=1000")
        world = World(VENUES["binance"], **stack.enter_context(wire("binance", *options)))
        site = Site(folder, world, POLICY, LIMITS, watch=f"['{ETH}']")
        tokens, port = folder / "tokens.json", free_port()
        words = ("--tokens", str(tokens), "--principal", "bot", "--role", "trader", "--scope", "account/main")
        made = world.ksctl("serve", "token", *words)
        assert made.returncode == 0, made.stderr
        run = stack.enter_context(
            site.running("--interval", "1s", "--serve", str(tokens), "--listen", f"127.0.0.1:{port}")
        )
        until(lambda: site.view() is not None or run.has_ended, "the runner ticks")
        assert not run.has_ended, run.stderr
        paths = {f"fapi{what}{version}": f"{world.address}/fapi/{version.lower() or 'v1'}"
                 for what in ("Public", "Private") for version in ("", "V2", "V3")}  # fmt: skip
        inner = {"apiKey": KEY, "secret": SECRET, "enableRateLimit": False, "urls": {"api": paths},
                 "options": {"fetchCurrencies": False}}  # fmt: skip
        lock_file = folder / "locks" / "account__main.json"
        code = filled_in(blocks("ccxt.md")[0].partition("\ntry:")[0], {
            '{"apiKey": KEY, "secret": SECRET, "enableRateLimit": True}': repr(inner),
            "http://127.0.0.1:8600": f"http://127.0.0.1:{port}", "LOCK_FILE": repr(str(lock_file)),
        })  # fmt: skip
        monkeypatch.setenv("BOT_TOKEN", made.stdout.split()[-1])
        code = f"import os\nos.environ['KILLSWITCH_TOKEN'] = os.environ['BOT_TOKEN']\n{code}"
        plain = f"import ccxt\nexchange = ccxt.binanceusdm({inner!r})\n"
        bots = []
        for lines in (code, plain):
            bot = SpokenBot(
                stack.enter_context(running(environment, folder, str(PROGRAMS / "ccxt_bot.py"), lines, "sync"))
            )
            bot.line()
            bots.append(bot)
        yield Fight(world, *bots)


def test_a_bot_that_asks_is_stopped_and_one_that_does_not_is_fought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the limits first, by the lock of the stage then; what the other one opens is closed again and again."""
    with fight(tmp_path, monkeypatch) as desk:
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
