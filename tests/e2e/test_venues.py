"""Every wire-level venue from the command line, as a user would do it: check, look, plan, run, and a level-3 close."""

from __future__ import annotations

import json
import signal
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.forks import begin
from tests.e2e.processes import PATIENCE, ksctl, until
from tests.e2e.wired import REACHED, World, has_read, standing, venue

POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: stop}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    loss: {signal: equity.loss_from_start, at_least: 2%, on_unknown: hold}
    large-loss: {signal: equity.loss_from_start, at_least: 10%, on_unknown: hold}
  stages:
    - name: trim
      level: 1
      any: [loss]
      cooldown: 6h
      reset: manual
      actions: [{close: {side: both, fraction: 50%}}]
    - name: close-everything
      level: 3
      any: [large-loss]
      cooldown: 6h
      reset: manual
      actions:
        - lock_trading: {mode: reduce_only}
        - cancel_orders: {kind: entry}
        - close: {side: both, fraction: 100%}
        - cancel_orders: {kind: all}
"""


TELL_NO_FEE = ("krakenfutures", "alpaca")
"""Venues that name no fee on loopback: Kraken Futures' lists of fills have none, Alpaca takes none of shares."""


SIZES = {"mexc": Decimal("0.0001")}
"""What a contract is of, where it is not one."""
EQUITY = {"mexc": "0.025", "alpaca": "2500"}
"""What an account of ours has at first, where that is not 250: the fall of the long from 100 to 80 is 16% of it."""


IN_EVERY_RUN = ("bitget", "alpaca")
"""One venue of each adapter; ccxt's one has credentials of three parts. The others are asked by `make test-venues`."""


@pytest.mark.parametrize(
    "name", [pytest.param(it, marks=() if it in IN_EVERY_RUN else pytest.mark.venues) for it in REACHED]
)
def test_an_account_is_checked_planned_watched_and_closed_from_the_command_line(name: str, tmp_path: Path) -> None:
    """`venues check` trusts it, `snapshot` and `plan` show it, and a fall of 16% closes it at level 3, flat."""
    with venue(REACHED[name], f"--equity={EQUITY.get(name, '250')}") as world:
        policies = _written(world, tmp_path)
        checked = world.ksctl("venues", "check", "--policies", str(policies))
        assert checked.returncode == 0, checked.stdout + checked.stderr
        seen = world.ksctl("snapshot", "main", "--policies", str(policies))
        assert seen.returncode == 0, seen.stderr
        (account,) = json.loads(seen.stdout)["accounts"]
        assert sorted(it["symbol"] for it in account["positions"]) == sorted(REACHED[name].symbols)
        planned = world.ksctl("plan", "--policies", str(policies))
        assert planned.returncode == 0, planned.stderr
        assert world.state()["orders"] == 1, "looking has sent something"
        status, err = _run_through_a_fall(world, policies, tmp_path)
        assert status == 0, err
        state = world.state()
        assert (world.held(), state["resting"], state["turned"], state["unspoken"]) == ({}, 0, [], [])
        money = _money(tmp_path / "store.sqlite")
        # 0.05% of 2 contracts at 80 and of 3 at 100.
        told = None if name in TELL_NO_FEE else Decimal("0.23") * SIZES.get(name, 1)
        assert (None if money["fees"] is None else Decimal(money["fees"])) == told, money
        if told is not None:
            assert money["cost"] is not None, money
            (report,) = (tmp_path / "store.sqlite.incidents").glob("*/report.md")
            shown = "0.23" if name not in SIZES else "0.00"
            assert f"(fees {shown}, slippage 0.00)" in report.read_text(encoding="utf-8")
        for said in (checked.stdout, checked.stderr, seen.stdout, planned.stdout, err):
            assert not [secret for secret in REACHED[name].secrets.values() if secret in said]


def _written(world: World, folder: Path) -> Path:
    policies = folder / "policies"
    policies.mkdir()
    (policies / "policy.yaml").write_text(POLICY, encoding="utf-8")
    document = world.reached.account(world.address, world.address_ws)
    (policies / "account.yaml").write_text(document, encoding="utf-8")
    return policies


def _run_through_a_fall(world: World, policies: Path, folder: Path) -> tuple[int, str]:
    """The runner's exit code and what it said, after the book is closed and it was asked to stop."""
    store = ("--store", str(folder / "store.sqlite"), "--lock-dir", str(folder / "locks"))
    with (folder / "err.txt").open("w+", encoding="utf-8") as err:
        runner = begin(
            ["run", "--policies", str(policies), *store, "--interval", "1s", "--live", "--output", "json"],
            stdout=subprocess.PIPE, stderr=err, env=world.reached.environment(),
        )  # fmt: skip
        try:
            until(lambda: runner.poll() is not None or has_read(folder / "store.sqlite"), "the runner reads it")
            world.move("price", symbol=world.reached.symbols[0], price="80")
            until(lambda: runner.poll() is not None or not world.held(), "the venue is flat")
            until(lambda: runner.poll() is not None or _ended(folder / "store.sqlite"), "the closing ends")
            if world.reached.wire not in TELL_NO_FEE:
                at = folder / "store.sqlite"
                until(lambda: runner.poll() is not None or _money(at)["fees"] is not None, "fees are known")
            runner.send_signal(signal.SIGTERM)
            out, _ = runner.communicate(timeout=PATIENCE)
        except AssertionError as error:
            error.add_note(f"the runner: {(folder / 'err.txt').read_text(encoding='utf-8')}")
            raise
        finally:
            if runner.poll() is None:
                runner.kill()
                runner.communicate()
        err.seek(0)
        said = err.read()
    decisions = [json.loads(line) for line in (out or "").splitlines()]
    assert [it["level"] for it in decisions] == [3], said + (out or "")
    return runner.returncode, said


def _money(store: Path) -> dict[str, Any]:
    """What the report of the close says of its money."""
    said = ksctl("report", "--store", str(store), "--output", "json")
    assert said.returncode == 0, said.stderr
    found: dict[str, Any] = json.loads(said.stdout)["money"]
    return found


def _ended(store: Path) -> bool:
    """Whether the status of the store says that the last close ended flat."""
    now = standing(store)
    return now is not None and now.view is not None and any(it.status == "flat" for it in now.view.closings)
