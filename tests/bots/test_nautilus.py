"""A nautilus_trader strategy with the real package: in a backtest, and in a live node with a sandbox for orders."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.bots.desk import PROGRAMS, WAIT_LIMIT, SpokenBot, blocks, filled_in, running, until
from tests.bots.environments import BotEnvironment, environment_of
from tests.bots.served import ServedAccount, served_account

pytestmark = pytest.mark.bots
OPENING: Final = {
    "add", "open where flat", "open short where flat", "flip", "bracket 0", "bracket 1", "bracket 2",
    "plain sale beyond what rests", "twap",
}  # fmt: skip
"""Orders of the schedule that open or add while trading is locked; of a TWAP the part that is left."""
EXITS: Final = {"reduce-only", "plain sale within"}
RESTING: Final = {"resting entry", "resized", "emulated", "emulated and resting"}


@pytest.fixture(params=["nautilus", "nautilus-3.11"])
def environment(request: pytest.FixtureRequest) -> BotEnvironment:
    """The newest version, and the newest one for Python 3.11."""
    return environment_of(request.param)


def run(environment: BotEnvironment, folder: Path, program: str, *arguments: str) -> dict[str, Any]:
    """What a program prints last, with the page's own class and a lock file."""
    command = [str(environment.python), str(PROGRAMS / program), blocks("nautilus.md")[0], *arguments]
    done = subprocess.run(command, cwd=folder, env=environment.variables(), capture_output=True, text=True,
                          timeout=WAIT_LIMIT, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def names_with(found: dict[str, Any], status: str) -> set[str]:
    """The names of the orders that ended so."""
    return {name for name, each in found["status"].items() if each == status}


def require_stopped(found: dict[str, Any]) -> None:
    """Nothing that opens was executed while locked, exits were, and no burst came after it."""
    assert names_with(found, "DENIED") >= OPENING
    assert names_with(found, "FILLED") == {"opened", "after 0"} | EXITS
    assert found["resized to"] == "1.000"
    assert found["eth"] == "0"
    assert found["net before unlock"] == "0", "the position was closed while locked"
    assert {"target", "plain stop"} <= set(found["kept"])
    assert found["held"] == "1.000", "one of five entries after the lock"


def test_without_the_gate_the_schedule_opens_by_every_road(tmp_path: Path, environment: BotEnvironment) -> None:
    """What the other tests then stop: if a road is closed by nautilus_trader itself, they would prove nothing."""
    found = run(environment, tmp_path, "nautilus_backtest.py", str(tmp_path / "lock.json"), "bare")
    opening = OPENING - {"bracket 1", "bracket 2"} | {"emulated", *(f"after {number}" for number in range(5))}
    assert opening <= names_with(found, "FILLED")
    assert {"bracket 1", "bracket 2"} <= names_with(found, "ACCEPTED")
    assert found["resized to"] == "9.000"


def test_in_a_backtest_nothing_opens_while_locked_and_exits_pass(tmp_path: Path, environment: BotEnvironment) -> None:
    """Strategies, lists, brackets, algorithms, re-sizings; what rests or is emulated is cancelled, stops stay."""
    found = run(environment, tmp_path, "nautilus_backtest.py", str(tmp_path / "lock.json"), "gate")
    require_stopped(found)
    assert names_with(found, "CANCELED") >= RESTING
    assert [status for status, _ in found["children"]] == ["FILLED", "DENIED"]


def test_an_emulated_order_that_triggers_while_locked_is_denied(tmp_path: Path, environment: BotEnvironment) -> None:
    """Also where nothing that rests is cancelled."""
    found = run(environment, tmp_path, "nautilus_backtest.py", str(tmp_path / "lock.json"), "late")
    require_stopped(found)
    assert found["status"]["emulated"] == "DENIED"
    assert found["status"]["resting entry"] == "ACCEPTED"


def test_a_defect_in_the_class_is_no_consent_and_stops_no_bounded_exit(
    tmp_path: Path, environment: BotEnvironment
) -> None:
    """A plain order cannot be judged then; a reduce-only one is bounded by the venue."""
    found = run(environment, tmp_path, "nautilus_backtest.py", str(tmp_path / "lock.json"), "broken")
    assert found["status"]["opened"] == "DENIED"
    assert not names_with(found, "FILLED") - {"reduce-only"}
    assert found["status"]["target"] != "DENIED"


def test_in_a_live_node_nothing_opens_while_locked_and_exits_pass(tmp_path: Path, environment: BotEnvironment) -> None:
    """By the page's own lines; commands wait in the queue of a live engine."""
    lines = filled_in(blocks("nautilus.md")[1], {"node.kernel.exec_engine": "node.kernel.exec_engine"})
    found = run(environment, tmp_path, "nautilus_node.py", lines, str(tmp_path / "lock.json"))
    require_stopped(found)
    assert names_with(found, "CANCELED") >= RESTING
    assert found["children"] == ["FILLED", "DENIED"]


class AskingNode:
    """A node that asks a real gate, and the account whose venue executes what it fills."""

    def __init__(self, account: ServedAccount, bot: SpokenBot) -> None:
        self.account, self.bot = account, bot

    def outcome(self, side: str, amount: str, *, reduce_only: bool = False) -> str:
        """What became of a market order of BTC: `FILLED`, or the reason with which it was denied."""
        return self.end_of(self.bot("market", "BTC", side, amount, reduce_only))

    def end_of(self, name: str) -> str:
        """Wait for the end of an order: its status, or the reason of the denial."""
        until(lambda: self.bot("status", name)[0] in ("FILLED", "DENIED", "CANCELED"), f"{name} ends")
        status, reason = self.bot("status", name)
        return str(status if reason is None else reason)

    def held(self) -> dict[str, str]:
        """What the venue holds."""
        return self.account.world.held()


@contextmanager
def asking_node(folder: Path, environment: BotEnvironment) -> Iterator[AskingNode]:
    """Follow the page with a run, a server, a token and a node."""
    symbols = ("BTC/USDT:USDT", "ETH/USDT:USDT")
    options = ("--equity=1000", *(f"--symbol={each}" for each in symbols))
    with served_account(folder, *options, watch=symbols) as account, account.running_apart():
        lines = filled_in(blocks("nautilus.md")[2], {"http://127.0.0.1:8600": account.gate})
        words = (blocks("nautilus.md")[0], lines, str(account.lock_file), account.world.control)
        with (folder / "log").open("w") as log:
            program = str(PROGRAMS / "nautilus_spoken.py")
            with running(environment, folder, program, *words, errors=log, token=account.token) as process:
                bot = SpokenBot(process)
                assert bot.line() == {"ready": "Spoken"}
                yield AskingNode(account, bot)


def test_by_the_gate_entries_stop_at_a_limit_at_a_stage_and_without_the_gate_and_exits_pass(
    tmp_path: Path, environment: BotEnvironment
) -> None:
    """A live node and a real run with its server: each denied order has the reason, and the log has it, too."""
    with asking_node(tmp_path, environment) as node:
        until(lambda: node.outcome("BUY", "1") == "FILLED", "the gate has warmed up, and allows an entry")
        assert "above the limit of 300.00 USDT" in node.outcome("BUY", "4")
        assert "above the limit of 300.00 USDT" in (tmp_path / "log").read_text()

        waiting = node.bot("emulated", "BTC", "BUY", "1", 110)
        node.account.lose_gate()
        assert "the gate gives no verdict" in node.outcome("BUY", "1")
        node.account.require_open()
        assert node.end_of(waiting) == "CANCELED", "an entry that the node watches is cancelled"
        assert node.outcome("SELL", "0.2", reduce_only=True) == "FILLED"
        assert node.outcome("SELL", "0.2") == "FILLED", "a plain exit within the position"
        assert "the gate gives no verdict" in node.outcome("SELL", "2"), "a flip"
        assert node.held() == {"BTC/USDT:USDT long": "0.600"}

        node.account.bring_gate()
        until(lambda: node.outcome("BUY", "1") == "FILLED", "it enters again")
        node.account.world.move("price", symbol="BTC/USDT:USDT", price="50")  # 80 USDT of 1000 are lost
        until(lambda: node.account.mode() == "reduce_only", "the stage has locked trading")
        assert "is locked: loss: loss" in node.outcome("BUY", "1"), "the policy and its trigger"
        until(lambda: node.outcome("SELL", "0.5") == "FILLED", "a plain exit is proved")
        node.account.lose_gate()
        assert node.outcome("SELL", "0.5", reduce_only=True) == "FILLED", "by the lock file alone"
        assert node.held() == {"BTC/USDT:USDT long": "0.600"}
