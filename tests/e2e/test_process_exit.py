"""`exit_process` with real processes: the exit code, the venue then, the restart, and commands without a run."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.processes import POLICY, WAIT_LIMIT, Site, ksctl, paper, terminate, until
from tests.e2e.test_run import CRASHING, UNMOVING

EXITING = POLICY.replace("        - close:", "        - exit_process: {}\n        - close:")
AT_ONCE = EXITING.replace("match: {}", "match: {currency: USDT}").replace(
    "{signal: equity.loss_from_start, at_least: 2%,", "{signal: equity.value, above: 1 USDT,"
)
"""Fires at the first tick."""


def test_a_run_exits_with_1_once_the_venue_is_flat_and_its_restart_runs_on(tmp_path: Path) -> None:
    """The events and the status name the reason; the second run has the same latch, and ends by its ticks with 0."""
    with paper(*CRASHING) as address:
        site = Site(tmp_path, address, policy=EXITING)
        events = tmp_path / "events.jsonl"
        with site.running("--live", "--events", str(events), "--record", str(tmp_path / "seen.jsonl")) as runner:
            _, err = runner.communicate(timeout=WAIT_LIMIT)
        assert runner.returncode == 1, err
        assert site.venue().positions == ()
        (decision,) = site.decisions()
        reason = (
            "stage close-everything of stop on account/main exits the process, and no close is in progress "
            f"(decision {decision.id})"
        )
        assert reason in err
        last = json.loads(events.read_text(encoding="utf-8").splitlines()[-1])
        assert (last["kind"], last["why"], last["unfinished"]) == ("shutdown", reason, [])
        assert f"Ended   exit code 1: {reason}" in ksctl("status", "--store", str(site.store)).stdout
        report = ksctl("report", "--store", str(site.store)).stdout
        assert "process_exit: exited" in report
        recording = ("--snapshots", str(tmp_path / "seen.jsonl"), "--output", "json")
        replayed = ksctl("replay", "--policies", str(site.policies), *recording)
        (printed,) = [json.loads(line) for line in replayed.stdout.splitlines()]
        assert (replayed.returncode, printed["id"]) == (0, decision.id)
        assert printed["effects"] == [{"kind": "process_exit"}]
        again = ksctl("run", *site.place, "--live", "--interval", "100ms", "--ticks", "5")
        assert again.returncode == 0, again.stderr
        assert "Ended" not in ksctl("status", "--store", str(site.store)).stdout
        assert [entry.data.get("status") for entry in site.journal() if entry.data.get("effect")] == [None, "exited"]


def test_sigterm_before_the_close_has_ended_exits_with_0(tmp_path: Path) -> None:
    """Nothing trades at the venue, so that the close never ends: no run exits with 1, and the exit stays pending."""
    with paper(*UNMOVING) as address:
        site = Site(tmp_path, address, policy=AT_ONCE)
        pending = "exit the process with code 1 once no close is in progress, by stop on account/main"
        with site.running("--live") as runner:
            until(lambda: "sending" in {entry.kind for entry in site.journal()}, "an order is sent")
            until(lambda: pending in ksctl("status", "--store", str(site.store)).stdout, "the exit waits")
            assert "waits for the close on account main" in ksctl("status", "--store", str(site.store)).stdout
            status, _, err = terminate(runner)
        assert status == 0, err
        assert "waits for the next run" in ksctl("status", "--store", str(site.store)).stdout
        again = ksctl("run", *site.place, "--live", "--interval", "100ms", "--ticks", "5")
        assert again.returncode == 0, again.stderr
        assert [entry.data.get("status") for entry in site.journal() if entry.data.get("effect")] == [None]


def test_an_observing_run_exits_with_0(tmp_path: Path) -> None:
    """The stage fires and is only recorded: the run goes on until SIGTERM."""
    with paper(*UNMOVING) as address:
        site = Site(tmp_path, address, policy=AT_ONCE)
        with site.running() as runner:
            until(site.decisions, "the stage fires")
            status, _, err = terminate(runner)
        assert (status, site.journal()) == (0, []), err


def test_a_command_without_a_run_exits_with_its_own_code(tmp_path: Path) -> None:
    """Its tick fires the stage and closes; nothing exits, also not the next run."""
    with paper("--crash", "7", "--speed", "600", "--begin-after-readings", "2") as address:
        site = Site(tmp_path, address)
        assert ksctl("run", *site.place, "--ticks", "1").returncode == 0
        (site.policies / "policy.yaml").write_text(AT_ONCE, encoding="utf-8")
        done = ksctl("close", *site.place, "--live", "--reason", "operator: drill", "--wait", "60s")
        assert done.returncode == 0, done.stderr
        assert "no run is alive that `exit_process` could end" in done.stderr
        assert site.venue().positions == ()
        again = ksctl("run", *site.place, "--live", "--interval", "100ms", "--ticks", "5")
        assert again.returncode == 0, again.stderr
        assert [entry.data.get("status") for entry in site.journal() if entry.data.get("effect")] == [None, "no_run"]
