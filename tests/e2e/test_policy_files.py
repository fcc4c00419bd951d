"""Editing and breaking the policies of a live runner, with real processes: what runs is reported, and what is taken."""

from __future__ import annotations

import base64
import json
import signal
import sqlite3
from contextlib import closing
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


def test_a_start_with_broken_files_runs_the_last_good_set_of_the_store(tmp_path: Path) -> None:
    """P3: it pages and does not exit; the files that are corrected meanwhile are taken at a request."""
    with paper(*UNMOVING) as address:
        site = Site(tmp_path, address)
        policy = site.policies / "policy.yaml"
        with site.running("--live") as runner:
            until(lambda: _files(site) == "as loaded", "the first run has ticked")
            first = site.status().view
            assert first is not None
            assert terminate(runner)[0] == 0
        policy.write_text(POLICY.replace("at_least: 2%", "at_laest: 2%"), encoding="utf-8")
        with site.running("--live") as runner:
            until(lambda: _files(site) == "broken", "the second run has ticked, and looked at the files")
            status = site.status()
            assert status.view is not None
            assert status.view.policy_set == first.policy_set
            assert any("goes on with the last good set of the store" in each.text for each in status.notices)
            policy.write_text(POLICY.replace("at_least: 2%", "at_least: 3%"), encoding="utf-8")
            assert ksctl("reload", "--store", str(site.store), "--reason", "a test").returncode == 0
            assert site.status().view.policy_set != first.policy_set
            assert terminate(runner)[0] == 0


def test_a_program_that_does_not_compile_the_last_good_set_runs_on_watching(tmp_path: Path) -> None:
    """P3: no policy is in force, which status says and a page; the accounts are read, and the run does not exit."""
    with paper(*UNMOVING) as address:
        site = Site(tmp_path, address)
        policy = site.policies / "policy.yaml"
        with site.running("--live") as runner:
            until(lambda: _files(site) == "as loaded", "the first run has ticked")
            assert terminate(runner)[0] == 0
        _make_unreadable(site.store)
        policy.write_text(POLICY.replace("at_least: 2%", "at_laest: 2%"), encoding="utf-8")
        with site.running("--live") as runner:
            until(lambda: _files(site) == "broken", "the second run has ticked, and looked at the files")
            assert "NO POLICY IN FORCE" in ksctl("status", "--store", str(site.store)).stdout
            status = site.status()
            assert status.view is not None
            assert [each.quality for each in status.view.accounts] == ["ok"]
            assert any(each.severity == "page" and "NO POLICY" in each.text for each in status.notices)
            assert terminate(runner)[0] == 0


def _make_unreadable(store: Path) -> None:
    """The stored set as of a program whose policies this one cannot read."""
    with closing(sqlite3.connect(store)) as database:
        ((files,),) = database.execute("SELECT files FROM policy_sets").fetchall()
        kept = json.loads(files)
        for each in kept:
            text = base64.b64decode(each["content"]).replace(b"equity.", b"equity.of_another_program_")
            each["content"] = base64.b64encode(text).decode()
        altered = json.dumps(kept).encode()
        database.execute("UPDATE policy_sets SET files = ?", (altered,))
        database.commit()
