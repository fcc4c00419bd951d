"""hummingbot as installed: its Binance connector, a strategy and executors, against a venue on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.bots.desk import PROGRAMS, LockFile, SpokenBot, blocks, filled_in, running, until
from tests.bots.environments import environment_of
from tests.bots.served import served_account
from tests.e2e.wire_venues import VENUES, World, wire
from tests.wire.server import KEY, SECRET

pytestmark = pytest.mark.bots
BTC: Final = "BTC/USDT:USDT"
FIRST: Final = [BTC, "buy", "2.000", False]


class Strategy:
    """A strategy at a venue."""

    def __init__(self, world: World, bot: SpokenBot) -> None:
        self.world, self.bot = world, bot

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

    def outcome(self, method: str, amount: str, action: str) -> str:
        """What became of a market order: `FILLED` or `FAILED`."""
        name = self.bot(method, amount, action)
        return until(lambda: ends if (ends := self.bot("orders").get(name)) in ("FILLED", "FAILED") else "", name)


class LockedStrategy(Strategy):
    """A strategy, and the lock file of the test that it reads."""

    def __init__(self, world: World, bot: SpokenBot, lock: LockFile) -> None:
        super().__init__(world, bot)
        self.lock = lock


SHOWN_LOCK: Final = '"/var/lib/killswitch/ks.sqlite.locks/account__main.json"'


@contextmanager
def strategy(folder: Path, kind: str = "gate", pause: str = "3600") -> Iterator[LockedStrategy]:
    """Follow the page by the lock file alone, at a venue of the test."""
    lock = LockFile(folder / "account__main.json")
    code = filled_in(blocks("hummingbot.md")[0], {
        f"lock_file={SHOWN_LOCK}": f"lock_file={str(lock.path)!r}, pause_after_lock={pause}", "    ...\n": "",
    })  # fmt: skip
    with wire("binance", f"--symbol={BTC}") as addresses:
        world = World(VENUES["binance"], **addresses)
        with started(folder, world, code, kind) as bot:
            yield LockedStrategy(world, bot, lock)


@contextmanager
def started(folder: Path, world: World, code: str, kind: str = "gate", token: str | None = None) -> Iterator[SpokenBot]:
    """The page's class in hummingbot; its output to stderr is in `log`."""
    words = [str(PROGRAMS / "hummingbot_bot.py"), code, world.address, KEY, SECRET, kind]
    environment = environment_of("hummingbot")
    with (
        (folder / "log").open("w") as log,
        running(environment, folder, *words, errors=log, token=token) as process,
    ):
        bot = SpokenBot(process)
        assert bot.line() == {"ready": "MyStrategy" if kind == "gate" else "StrategyV2Base"}
        yield bot


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


@pytest.mark.parametrize(("kind", "placed", "status"), [("gate", 1, "TERMINATED"), ("bare", 2, "RUNNING")])
def test_an_executor_that_waits_for_its_entry_is_stopped_and_does_not_try_again(
    tmp_path: Path, kind: str, placed: int, status: str
) -> None:
    """An executor places another order where its first one is cancelled: without the gate it does."""
    with strategy(tmp_path, kind) as desk:
        desk.bot("executor", "BUY", "1", "OPEN", "50")
        until(lambda: desk.world.state()["rests"], "its entry rests")
        desk.lock.lock()
        if kind == "bare":
            desk.bot("cancel_all")
        desk.wait_for("CANCELED", 1)
        until(lambda: len(desk.sent()) == placed, "it has tried again, or not")
        until(lambda: [name for name, _ in desk.bot("executors")] == [status], f"it is {status}")
        desk.bot("wait", 3)
        assert len(desk.sent()) == placed
        assert "FAILED" not in desk.states(), "nor has it put an order that was refused"


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


def test_by_the_gate_entries_stop_at_a_limit_at_a_stage_and_without_the_gate_and_exits_pass(tmp_path: Path) -> None:
    """Real orders, and a real run with its server: the log has the reason of each order that fails."""
    with served_account(tmp_path, "--equity=1000", f"--symbol={BTC}", watch=(BTC,)) as account:
        first, asking = blocks("hummingbot.md")[:2]
        shown = {SHOWN_LOCK: repr(str(account.lock_file)), "http://127.0.0.1:8600": account.gate, "    ...\n": ""}
        code = first.partition("\n\nclass")[0] + "\n\n\n" + filled_in(asking, shown)
        with account.running_apart(), started(tmp_path, account.world, code, token=account.token) as bot:
            desk = Strategy(account.world, bot)

            def require_failed(amount: str, reason: str) -> None:
                before = desk.sent()
                assert desk.outcome("buy", amount, "OPEN") == "FAILED"
                assert desk.sent() == before
                assert reason in (tmp_path / "log").read_text()

            until(lambda: desk.outcome("buy", "1", "OPEN") == "FILLED", "the gate has warmed up, and allows an entry")
            require_failed("4", "above the limit of 300.00 USDT")
            account.lose_gate()
            require_failed("1", "the gate gives no verdict")
            account.require_open()
            desk.bot("executor", "BUY", "1", "OPEN")
            assert desk.bot("executors") == [], "none is created"
            assert desk.outcome("sell", "0.4", "CLOSE") == "FILLED"
            assert desk.sent() == [[BTC, "buy", "1.000", False], [BTC, "sell", "0.400", True]]

            account.bring_gate()
            until(lambda: desk.outcome("connector_buy", "1", "OPEN") == "FILLED", "it enters again")
            account.world.move("price", symbol=BTC, price="50")  # 80 USDT of 1000 are lost
            until(lambda: account.mode() == "reduce_only", "the stage has locked trading")
            require_failed("1", "is locked: loss: loss")
            desk.bot("executor", "BUY", "1", "OPEN")
            assert desk.bot("executors") == []
            assert desk.outcome("sell", "0.5", "CLOSE") == "FILLED"
            account.lose_gate()
            assert desk.outcome("connector_sell", "0.5", "CLOSE") == "FILLED", "by the lock file alone"
            assert desk.world.held() == {f"{BTC} long": "0.600"}
