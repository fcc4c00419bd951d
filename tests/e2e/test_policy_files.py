"""Editing and breaking the policies of a live runner, with real processes: what runs is reported, and what is taken."""

from __future__ import annotations

import base64
import json
import signal
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path

from tests.e2e.fork_client import Process
from tests.e2e.processes import POLICY, Site, ksctl, paper, terminate, until
from tests.faults.test_killed_runs import CLOSED, MARKET, check_orders, closed, ends
from tests.faults.test_killed_runs import POLICY as OF_TWO_STAGES

UNMOVING = ("--crash", "7", "--speed", "0")
"""A market that does not move."""


CHANGED, BROKEN = (POLICY.replace("at_least: 2%", text) for text in ("at_least: 3%", "at_laest: 2%"))


@contextmanager
def _paper_site(folder: Path) -> Iterator[tuple[Site, Path]]:
    """A site on a paper venue that does not move, and the file of its policy."""
    with paper(*UNMOVING) as address:
        site = Site(folder, address)
        yield site, site.policies / "policy.yaml"


def _has_run(site: Site) -> str:
    """Run until the files are compared once; the digest of the set that ran."""
    with site.running("--live") as runner:
        until(lambda: _files(site) == "as loaded", "the first run has ticked")
        digest = _digest(site)
        assert terminate(runner)[0] == 0
    return digest


def _files(site: Site) -> str:
    """The state of the files in the JSON of `ksctl status`."""
    found: str = json.loads(ksctl("status", "--store", str(site.store), "--output", "json").stdout)["policy_files"]
    return found


def _digest(site: Site) -> str:
    view = site.status().view
    assert view is not None
    return view.policy_set


def _hung_up(runner: Process) -> str:
    """What the runner answers to SIGHUP, in its log."""
    runner.send_signal(signal.SIGHUP)
    assert runner.stderr is not None
    return next(line for line in runner.stderr if line.startswith("SIGHUP: the policy files are "))


def test_edited_policies_are_taken_at_a_signal_and_broken_ones_are_not(tmp_path: Path) -> None:
    """`status`, its JSON, one notice for each state, and SIGHUP; broken files leave the last good set running (P3)."""
    with _paper_site(tmp_path) as (site, policy), site.running("--live") as runner:
        until(lambda: _files(site) == "as loaded", "the files are those that run")
        running = site.status().view
        assert running is not None

        policy.write_text(CHANGED, encoding="utf-8")
        until(lambda: _files(site) == "changed", "the change is in the status")
        assert "THE FILES DIFFER" in ksctl("status", "--store", str(site.store)).stdout
        assert "are taken" in _hung_up(runner)
        until(lambda: _files(site) == "as loaded", "the files are those that run")
        taken = site.status().view
        assert taken is not None
        assert taken.policy_set != running.policy_set

        policy.write_text(BROKEN, encoding="utf-8")
        assert "policy.yaml:" in _hung_up(runner)
        until(lambda: _files(site) == "broken", "the error is in the status")
        assert "THE FILES DO NOT COMPILE" in ksctl("status", "--store", str(site.store)).stdout
        refused = ksctl("reload", "--store", str(site.store), "--reason", "a test")
        assert refused.returncode == 1
        assert "KS2001" in refused.stderr
        assert _digest(site) == taken.policy_set

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
    with _paper_site(tmp_path) as (site, policy):
        first = _has_run(site)
        policy.write_text(BROKEN, encoding="utf-8")
        with site.running("--live") as runner:
            until(lambda: _files(site) == "broken", "the second run has ticked, and looked at the files")
            status = site.status()
            assert status.view is not None
            assert status.view.policy_set == first
            assert any("goes on with the last good set of the store" in each.text for each in status.notices)
            policy.write_text(CHANGED, encoding="utf-8")
            assert ksctl("reload", "--store", str(site.store), "--reason", "a test").returncode == 0
            assert _digest(site) != first
            assert terminate(runner)[0] == 0


def test_a_program_that_does_not_compile_the_last_good_set_runs_on_watching(tmp_path: Path) -> None:
    """P3: no policy is in force, which status says and a page; the accounts are read, and the run does not exit."""
    with _paper_site(tmp_path) as (site, policy):
        _has_run(site)
        _make_unreadable(site.store)
        policy.write_text(BROKEN, encoding="utf-8")
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
        kept = json.loads(zlib.decompress(files))
        for each in kept:
            text = base64.b64decode(each["content"]).replace(b"equity.", b"equity.of_another_program_")
            each["content"] = base64.b64encode(text).decode()
        altered = zlib.compress(json.dumps(kept).encode())
        database.execute("UPDATE policy_sets SET files = ?", (altered,))
        database.commit()


# In the middle of a close


SLOW = """---
apiVersion: killswitch.dev/v1
kind: Unwinding
metadata: {name: slow}
spec: {max_orders_per_minute: 20, ladder: [{order: market, tries: 2}]}
"""
"""An order in three seconds, so that several sets are taken between two of them."""
PACED = OF_TWO_STAGES.replace("fraction: 100%", "fraction: 100%, unwinding: slow") + SLOW
EDITS = (
    ("cooldown: 6h", "cooldown: 2h"),
    ("level: 2", "level: 5"),
    ("at_least: 2%", "at_least: 9%"),
    ("fraction: 100%", "fraction: 20%"),
    ("{lock_trading: {mode: reduce_only}}, ", ""),
    ("name: close-everything", "name: flatten\n      formerly: close-everything"),
)
"""Each on top of those before it: looser, renumbered, smaller, without its lock, and under another name."""


def is_closing(site: Site) -> bool:
    """Whether an order of the last stage has been sent."""
    ids = {each.id for each in site.decisions() if each.stage == CLOSED}
    return any(each.kind == "sending" and each.decision in ids for each in site.journal())


def check_closed_once(site: Site, runner: Process, held: Mapping[str, Decimal]) -> list[str | None]:
    """Wait for the end of the close: each position of `held` was closed once and whole. The stages that fired."""
    until(lambda: runner.poll() is not None or CLOSED in ends(site), "the closing ends")
    status, _, err = terminate(runner)
    assert status == 0, err
    assert site.venue().positions == ()
    check_orders(site)
    fired = [each.stage for each in reversed(site.decisions()) if each.kind is None]
    assert ends(site) == dict.fromkeys(fired, "flat")
    assert closed(site) == held
    return fired


def test_reloads_in_the_middle_of_a_close_delay_lose_and_repeat_no_order(tmp_path: Path) -> None:
    """R1: each position is closed once and whole, by orders that are sent once; the lock and the latch stay."""
    with paper(*MARKET) as address:
        site = Site(tmp_path, address, policy=PACED)
        held = {each.symbol: each.contracts for each in site.venue().positions or ()}
        policy, text = site.policies / "policy.yaml", PACED
        with site.running("--live") as runner:
            until(lambda: is_closing(site), "the close of everything is under way")
            during = []
            for edit in EDITS:
                assert edit[0] in text
                text = text.replace(*edit)
                policy.write_text(text, encoding="utf-8")
                answer = ksctl("reload", "--store", str(site.store), "--reason", "a test", "--output", "json")
                assert json.loads(answer.stdout)["status"] == "taken", answer.stdout + answer.stderr
                during.append(CLOSED not in ends(site))
            assert any(during), "some of the sets were taken while the close went on"
            fired = check_closed_once(site, runner, held)
        assert fired == [*(["halve"] if "halve" in fired else []), CLOSED], "nothing fires a second time"
        view = site.status().view
        assert view is not None
        assert [(each.stage, each.level) for each in view.machines] == [("flatten", 5)]
        lock = json.loads((site.locks / "account__main.json").read_text(encoding="utf-8"))
        assert (lock["locked"], lock["mode"]) == (True, "reduce_only")
