"""A nautilus_trader strategy with the real package: in a backtest, and in a live node with a sandbox for orders."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from tests.bots.desk import PROGRAMS, WAIT_LIMIT, blocks, filled_in
from tests.bots.environments import environment_of

pytestmark = pytest.mark.bots
OPENING: Final = {
    "add", "open where flat", "open short where flat", "flip", "bracket 0", "bracket 1", "bracket 2",
    "plain sale beyond what rests", "twap",
}  # fmt: skip
"""Orders of the schedule that open or add while trading is locked; of a TWAP the part that is left."""
EXITS: Final = {"reduce-only", "plain sale within"}
RESTING: Final = {"resting entry", "resized", "emulated", "emulated and resting"}


def run(folder: Path, program: str, *arguments: str) -> dict[str, Any]:
    """What a program prints last, with the page's own class and a lock file."""
    environment = environment_of("nautilus")
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


def test_without_the_gate_the_schedule_opens_by_every_road(tmp_path: Path) -> None:
    """What the other tests then stop: if a road is closed by nautilus_trader itself, they would prove nothing."""
    found = run(tmp_path, "nautilus_backtest.py", str(tmp_path / "lock.json"), "bare")
    opening = OPENING - {"bracket 1", "bracket 2"} | {"emulated", *(f"after {number}" for number in range(5))}
    assert opening <= names_with(found, "FILLED")
    assert {"bracket 1", "bracket 2"} <= names_with(found, "ACCEPTED")
    assert found["resized to"] == "9.000"


def test_in_a_backtest_nothing_opens_while_locked_and_exits_pass(tmp_path: Path) -> None:
    """Strategies, lists, brackets, algorithms, re-sizings; what rests or is emulated is cancelled, stops stay."""
    found = run(tmp_path, "nautilus_backtest.py", str(tmp_path / "lock.json"), "gate")
    require_stopped(found)
    assert names_with(found, "CANCELED") >= RESTING
    assert [status for status, _ in found["children"]] == ["FILLED", "DENIED"]


def test_an_emulated_order_that_triggers_while_locked_is_denied(tmp_path: Path) -> None:
    """Also where nothing that rests is cancelled."""
    found = run(tmp_path, "nautilus_backtest.py", str(tmp_path / "lock.json"), "late")
    require_stopped(found)
    assert found["status"]["emulated"] == "DENIED"
    assert found["status"]["resting entry"] == "ACCEPTED"


def test_a_defect_in_the_class_is_no_consent_and_stops_no_bounded_exit(tmp_path: Path) -> None:
    """A plain order cannot be judged then; a reduce-only one is bounded by the venue."""
    found = run(tmp_path, "nautilus_backtest.py", str(tmp_path / "lock.json"), "broken")
    assert found["status"]["opened"] == "DENIED"
    assert not names_with(found, "FILLED") - {"reduce-only"}
    assert found["status"]["target"] != "DENIED"


def test_in_a_live_node_nothing_opens_while_locked_and_exits_pass(tmp_path: Path) -> None:
    """By the page's own lines; commands wait in the queue of a live engine."""
    lines = filled_in(blocks("nautilus.md")[1], {"node.kernel.exec_engine": "node.kernel.exec_engine"})
    found = run(tmp_path, "nautilus_node.py", lines, str(tmp_path / "lock.json"))
    require_stopped(found)
    assert names_with(found, "CANCELED") >= RESTING
    assert found["children"] == ["FILLED", "DENIED"]
