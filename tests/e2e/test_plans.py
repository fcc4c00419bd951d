"""Saved plans, and watching a close, with real processes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.e2e.processes import POLICY, WAIT_LIMIT, Site, address_of, ksctl, paper, paused, process, terminate, until

MOVING = ("--crash", "7", "--speed", "600", "--begin-after-readings", "4")
WHY = ("--reason", "operator: desk order")
OUT_OF_REACH = POLICY.replace("at_least: 2%", "at_least: 60%")
"""The crash and the close lose more than 2%: at that threshold the policy would rightly fire in addition to the
operator command."""


def test_a_saved_plan_is_applied_once_and_refused_on_a_changed_book(tmp_path: Path) -> None:
    """Of two plans of one book the first is applied exactly; the second is refused: every position has vanished."""
    with paper(*MOVING) as address:
        site = Site(tmp_path, address, policy=OUT_OF_REACH)
        assert ksctl("run", *site.place, "--ticks", "1").returncode == 0
        first, second = tmp_path / "first.json", tmp_path / "second.json"
        for plan in (first, second):
            saved = ksctl("close", *site.place, *WHY, "--dry-run", "--out", str(plan), fresh=True)
            assert saved.returncode == 0, saved.stderr
        held = {position.symbol for position in site.venue().positions or ()}
        done = ksctl("apply", str(first), *site.place, "--live", "--wait", "1m", fresh=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert site.venue().positions == ()
        (decision,) = site.decisions()
        planned = json.loads(first.read_text(encoding="utf-8"))
        assert decision.reason == f"plan {planned['digest'][:19]}: desk order"
        assert [f"{each.contracts:f}" for each in decision.intents] == [
            each["contracts"] for each in planned["decisions"][0]["intents"]
        ]
        again = ksctl("apply", str(first), *site.place, "--live")
        assert (again.returncode, f"as decision {decision.id}" in again.stderr) == (1, True)
        other = ksctl("apply", str(second), *site.place, "--live", fresh=True)
        assert other.returncode == 1
        assert held == {symbol for symbol in held if f"{symbol} " in other.stdout}
        assert other.stdout.count("has vanished") == len(held) == 8
        assert len(site.decisions()) == 1


def test_an_interrupt_of_status_watch_ends_the_watch_and_not_the_close(tmp_path: Path) -> None:
    """Ctrl-C exits 130 with one sentence; the runner completes the close to flat."""
    with process("paper", *MOVING) as venue:
        site = Site(tmp_path, address_of(venue), policy=OUT_OF_REACH)
        with site.running("--live") as runner:
            sent = ksctl("close", "--store", str(site.store), "--reason", "drill", "--wait", "1ms")
            assert "sent to the runner" in sent.stderr
            until(site.decisions, "the runner has decided")
            # A drill sends an order a second; the paused venue answers none until the watch has printed its first line.
            watching = process("status", "--watch", "--store", str(site.store), "--output", "json")
            with paused(venue), watching as watcher:
                assert watcher.stdout is not None
                first = watcher.stdout.readline()
                assert first, watcher.communicate(timeout=WAIT_LIMIT)
                shown = json.loads(first)
                assert (shown["format"], shown["positions"]) == ("killswitch.progress/v1", 8)
                watcher.send_signal(signal.SIGINT)
                _, stderr = watcher.communicate(timeout=WAIT_LIMIT)
                assert (watcher.returncode, stderr) == (130, "stopped watching; closing is not affected\n")
            until(
                lambda: any(entry.kind == "finished" and entry.account for entry in site.journal()),
                "the runner completes the close",
            )
            assert site.venue().positions == ()
            assert terminate(runner)[0] == 0
