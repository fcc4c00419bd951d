"""hummingbot as installed: its Binance connector, a strategy and executors, against a venue on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.bots.desk import PROGRAMS, LockFile, SpokenBot, blocks, filled_in, running, until
from tests.bots.environments import environment_of
from tests.e2e.wire_venues import VENUES, World, wire
from tests.wire.server import KEY, SECRET

pytestmark = pytest.mark.bots
BTC: Final = "BTC/USDT:USDT"
FIRST: Final = [BTC, "buy", "2.000", False]


class Strategy:
    """A strategy at a venue, and the lock file that it reads."""

    def __init__(self, world: World, lock: LockFile, bot: SpokenBot) -> None:
        self.world, self.lock, self.bot = world, lock, bot

    def sent(self) -> list[list[Any]]:
        """Orders that reached the venue: symbol, side, amount, whether reduce-only."""
        found: list[list[Any]] = self.world.state()["sent"]
        return found

    def states(self) -> list[str]:
        """The states of the connector's orders."""
        return list(self.bot("orders").values())

    def wait_for(self, state: str, number: int) -> None:
        """Wait until so many orders of the connector have a state."""
        until(lambda: self.states().count(state) >= number, f"{number} orders are {state}")


@contextmanager
def strategy(folder: Path, kind: str = "gate", pause: str = "3600") -> Iterator[Strategy]:
    """Follow the page, with the lock file and the venue of the test."""
    environment = environment_of("hummingbot")
    lock = LockFile(folder / "account__main.json")
    shown = 'lock_file="/var/lib/killswitch/ks.sqlite.locks/account__main.json"'
    code = filled_in(blocks("hummingbot.md")[0], {
        shown: f"lock_file={str(lock.path)!r}, pause_after_lock={pause}", "    ...\n": "",
    })  # fmt: skip
    with wire("binance", f"--symbol={BTC}") as addresses, (folder / "log").open("w") as log:
        world = World(VENUES["binance"], **addresses)
        words = [str(PROGRAMS / "hummingbot_bot.py"), code, world.address, KEY, SECRET, kind]
        with running(environment, folder, *words, errors=log) as process:
            bot = SpokenBot(process)
            assert bot.line() == {"ready": "MyStrategy" if kind == "gate" else "StrategyV2Base"}
            yield Strategy(world, lock, bot)


def test_no_road_of_hummingbot_opens_anything_while_locked_and_closes_pass(tmp_path: Path) -> None:
    """The strategy's and the connector's own calls, what rests, and executors; a close arrives reduce-only."""
    with strategy(tmp_path) as desk:
        desk.bot("buy", "2", "OPEN")
        desk.wait_for("FILLED", 1)
        desk.bot("buy", "1", "OPEN", "50")
        desk.wait_for("OPEN", 1)
        desk.lock.lock()
        desk.wait_for("CANCELED", 1)
        for call in ("buy", "sell", "connector_buy", "connector_sell"):
            desk.bot(call, "1", "OPEN")
        desk.wait_for("FAILED", 4)
        desk.bot("executor", "BUY", "1", "OPEN")
        assert desk.bot("executors") == [], "none is created"
        desk.bot("sell", "0.5", "CLOSE")
        desk.wait_for("FILLED", 2)
        desk.bot("executor", "SELL", "0.5", "CLOSE")
        desk.wait_for("FILLED", 3)
        assert desk.sent() == [
            FIRST, [BTC, "buy", "1.000", False], [BTC, "sell", "0.500", True], [BTC, "sell", "0.500", True],
        ]  # fmt: skip
        assert desk.world.held() == {f"{BTC} long": "1.000"}
        desk.lock.lock("all")
        desk.bot("sell", "1", "CLOSE")
        desk.wait_for("FAILED", 5)


def test_after_the_lock_executors_send_no_burst(tmp_path: Path) -> None:
    """Five that asked while locked, and five in the moment after it: one order."""
    with strategy(tmp_path) as desk:
        desk.lock.lock()
        for _ in range(5):
            desk.bot("executor", "BUY", "1", "OPEN")
        desk.bot("buy", "1", "OPEN")
        desk.wait_for("FAILED", 1)
        assert desk.sent() == []
        desk.lock.open()
        for _ in range(5):
            desk.bot("executor", "BUY", "1", "OPEN")
        desk.wait_for("FILLED", 1)
        failed = desk.states().count("FAILED")
        desk.wait_for("FAILED", failed + 4)
        assert desk.sent() == [[BTC, "buy", "1.000", False]]


def test_without_the_gate_each_of_these_roads_opens(tmp_path: Path) -> None:
    """What the other tests stop: else they would prove nothing."""
    with strategy(tmp_path, "bare") as desk:
        desk.lock.lock()
        desk.bot("buy", "2", "OPEN")
        desk.wait_for("FILLED", 1)
        desk.bot("connector_buy", "1", "OPEN")
        desk.bot("executor", "BUY", "1", "OPEN")
        desk.wait_for("FILLED", 3)
        assert desk.world.held() == {f"{BTC} long": "4.000"}
