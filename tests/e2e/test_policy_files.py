"""Editing and breaking the policies of a live runner, with real processes: what runs is reported, and what is taken."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.e2e.fork_client import Process
from tests.e2e.processes import POLICY, Site, ksctl, paper, terminate, until

UNMOVING = ("--crash", "7", "--speed", "0")
"""A market that does not move."""


def _files(site: Site) -> str:
    """The state of the files in the JSON of `ksctl status`."""
    found: str = json.loads(ksctl("status", "--store", str(site.store), "--output", "json").stdout)["policy_files"]
    return found


def _hung_up(runner: Process) -> str:
    """What the runner answers to SIGHUP, in its log."""
    runner.send_signal(signal.SIGHUP)
    assert runner.stderr is not None
    return next(line for line in runner.stderr if line.startswith("SIGHUP: the policy files are "))


def test_edited_policies_are_taken_at_a_signal_and_broken_ones_are_not(tmp_path: Path) -> None:
    """`status`, its JSON, one notice for each state, and SIGHUP; broken files leave the last good set running (P3)."""
    with paper(*UNMOVING) as address:
        site = Site(tmp_path, address)
        policy = site.policies / "policy.yaml"
        with site.running("--live") as runner:
            until(lambda: _files(site) == "as loaded", "the files are those that run")
            running = site.status().view
            assert running is not None

            policy.write_text(POLICY.replace("at_least: 2%", "at_least: 3%"), encoding="utf-8")
            until(lambda: _files(site) == "changed", "the change is in the status")
            assert "THE FILES DIFFER" in ksctl("status", "--store", str(site.store)).stdout
            assert "are taken" in _hung_up(runner)
            until(lambda: _files(site) == "as loaded", "the files are those that run")
            taken = site.status().view
            assert taken is not None
            assert taken.policy_set != running.policy_set

            policy.write_text(POLICY.replace("at_least: 2%", "at_laest: 2%"), encoding="utf-8")
            assert "policy.yaml:" in _hung_up(runner)
            until(lambda: _files(site) == "broken", "the error is in the status")
            assert "THE FILES DO NOT COMPILE" in ksctl("status", "--store", str(site.store)).stdout
            refused = ksctl("reload", "--store", str(site.store), "--reason", "a test")
            assert refused.returncode == 1
            assert "KS2001" in refused.stderr
            assert site.status().view.policy_set == taken.policy_set

            policy.write_text("# the first policies\n" + POLICY, encoding="utf-8")
            answer = ksctl("reload", "--store", str(site.store), "--reason", "a test")
            assert (answer.returncode, answer.stdout.split(":")[0]) == (0, "taken")
            until(lambda: _files(site) == "as loaded", "the files are those that run")
            status = site.status()
            assert status.view is not None
            assert status.view.policy_set == running.policy_set
            begun = [each for each in status.notices if each.text.startswith("the policy files have changed")]
            assert sorted(each.severity for each in begun) == ["page", "warning"], "each state is notified once"
            assert terminate(runner)[0] == 0
