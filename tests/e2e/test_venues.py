"""Every wire-level venue from the command line: check, snapshot, plan, run, and a level-3 close."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fork_client import begin, finish
from tests.e2e.processes import WAIT_LIMIT, ksctl, until
from tests.e2e.wire_venues import VENUES, World, has_polled, status_of, venue

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


WITHOUT_FEES = ("krakenfutures", "alpaca")
"""Venues that report no fee on loopback: Kraken Futures' lists of fills have none, Alpaca charges none for shares."""


CONTRACT_SIZES = {"mexc": Decimal("0.0001")}
"""Contract sizes other than 1."""
EQUITY = {"mexc": "0.025", "alpaca": "2500"}
"""Start equities other than 250: the fall of the long from 100 to 80 is 16% of them."""


IN_EVERY_RUN = ("bitget", "alpaca")
"""One venue of each adapter; ccxt's one has credentials of three parts. `make test-venues` runs the others."""


@pytest.mark.parametrize(
    "name", [pytest.param(it, marks=() if it in IN_EVERY_RUN else pytest.mark.venues) for it in VENUES]
)
def test_an_account_is_checked_polled_planned_and_closed_from_the_command_line(name: str, tmp_path: Path) -> None:
    """`venues check` trusts it, `snapshot` and `plan` show it, and a fall of 16% closes it at level 3, flat."""
    with venue(VENUES[name], f"--equity={EQUITY.get(name, '250')}") as world:
        policies = _write_policies(world, tmp_path)
        checked = world.ksctl("venues", "check", "--policies", str(policies))
        assert checked.returncode == 0, checked.stdout + checked.stderr
        seen = world.ksctl("snapshot", "main", "--policies", str(policies))
        assert seen.returncode == 0, seen.stderr
        (account,) = json.loads(seen.stdout)["accounts"]
        assert sorted(it["symbol"] for it in account["positions"]) == sorted(VENUES[name].symbols)
        planned = world.ksctl("plan", "--policies", str(policies))
        assert planned.returncode == 0, planned.stderr
        assert world.state()["orders"] == 1, "a command that only reads has sent an order"
        status, err = _run_through_a_fall(world, policies, tmp_path)
        assert status == 0, err
        state = world.state()
        assert (world.held(), state["resting"], state["turned"], state["unspoken"]) == ({}, 0, [], [])
        money = _money(tmp_path / "store.sqlite")
        # 0.05% of 2 contracts at 80 and of 3 at 100.
        fees = None if name in WITHOUT_FEES else Decimal("0.23") * CONTRACT_SIZES.get(name, 1)
        assert (None if money["fees"] is None else Decimal(money["fees"])) == fees, money
        if fees is not None:
            assert money["cost"] is not None, money
            (report,) = (tmp_path / "store.sqlite.incidents").glob("*/report.md")
            shown = "0.23" if name not in CONTRACT_SIZES else "0.00"
            assert f"(fees {shown}, slippage 0.00)" in report.read_text(encoding="utf-8")
        for output in (checked.stdout, checked.stderr, seen.stdout, planned.stdout, err):
            assert not [secret for secret in VENUES[name].secrets.values() if secret in output]


def test_a_close_needs_the_policy_folder_and_the_credentials_only(tmp_path: Path) -> None:
    """On a machine where nothing ever ran: no store, no lock folder, an empty home, in a new interpreter.

    It ends flat, and leaves the record and the lock, so that bots stay out.
    """
    machine = tmp_path / "machine"
    machine.mkdir()
    with venue(VENUES["bitget"], "--equity=250") as world:
        policies = _write_policies(world, tmp_path)
        secrets = {world.access.variable(name): value for name, value in world.access.secrets.items()}
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        arguments = ("--policies", str(policies), "--store", "ks.sqlite", "--reason", "system-failure")
        done = finish(
            ("close", *arguments, "--live", "--yes", "--wait", "1m"), timeout=WAIT_LIMIT, cwd=machine, fresh=True,
            env={**kept, **secrets, "HOME": str(machine / "nobody")},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        state = world.state()
        assert (world.held(), state["turned"], state["unspoken"]) == ({}, [], [])
        assert not [secret for secret in secrets.values() if secret in done.stdout + done.stderr]
    lock = json.loads((machine / "ks.sqlite.locks" / "account__main.json").read_text(encoding="utf-8"))
    assert (lock["locked"], lock["mode"]) == (True, "reduce_only")
    report = ksctl("report", "--store", str(machine / "ks.sqlite"), "--output", "json")
    assert report.returncode == 0, report.stderr
    assert (json.loads(report.stdout)["state"], json.loads(report.stdout)["left"]) == ("closed", [])


def _write_policies(world: World, folder: Path) -> Path:
    policies = folder / "policies"
    policies.mkdir()
    (policies / "policy.yaml").write_text(POLICY, encoding="utf-8")
    document = world.access.account(world.address, world.address_ws)
    (policies / "account.yaml").write_text(document, encoding="utf-8")
    return policies


def _run_through_a_fall(world: World, policies: Path, folder: Path) -> tuple[int, str]:
    """Let the price fall, wait for the close, and stop the runner; its exit code and stderr."""
    store = ("--store", str(folder / "store.sqlite"), "--lock-dir", str(folder / "locks"))
    with (folder / "err.txt").open("w+", encoding="utf-8") as err:
        runner = begin(
            ["run", "--policies", str(policies), *store, "--interval", "1s", "--live", "--output", "json"],
            stdout=subprocess.PIPE, stderr=err, env=world.access.environment(),
        )  # fmt: skip
        try:
            until(lambda: runner.poll() is not None or has_polled(folder / "store.sqlite"), "the runner has polled")
            world.move("price", symbol=world.access.symbols[0], price="80")
            until(lambda: runner.poll() is not None or not world.held(), "the venue is flat")
            until(lambda: runner.poll() is not None or _ended(folder / "store.sqlite"), "the closing ends")
            if world.access.wire not in WITHOUT_FEES:
                at = folder / "store.sqlite"
                until(lambda: runner.poll() is not None or _money(at)["fees"] is not None, "fees are known")
            runner.send_signal(signal.SIGTERM)
            out, _ = runner.communicate(timeout=WAIT_LIMIT)
        except AssertionError as error:
            error.add_note(f"the runner: {(folder / 'err.txt').read_text(encoding='utf-8')}")
            raise
        finally:
            if runner.poll() is None:
                runner.kill()
                runner.communicate()
        err.seek(0)
        stderr = err.read()
    decisions = [json.loads(line) for line in (out or "").splitlines()]
    assert [it["level"] for it in decisions] == [3], stderr + (out or "")
    return runner.returncode, stderr


def _money(store: Path) -> dict[str, Any]:
    """The money section of the close's report."""
    report = ksctl("report", "--store", str(store), "--output", "json")
    assert report.returncode == 0, report.stderr
    found: dict[str, Any] = json.loads(report.stdout)["money"]
    return found


def _ended(store: Path) -> bool:
    """Whether the status in the store shows a close that ended flat."""
    status = status_of(store)
    return status is not None and status.view is not None and any(it.status == "flat" for it in status.view.closings)
