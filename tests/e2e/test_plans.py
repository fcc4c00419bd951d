"""Saved plans and following a close, with real processes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.e2e.processes import PATIENCE, POLICY, Site, address_of, ksctl, paper, process, stopped, terminate, until

MOVING = ("--crash", "7", "--speed", "600", "--begin-after-readings", "4")
WHY = ("--reason", "operator: desk order")
OUT_OF_REACH = POLICY.replace("at_least: 2%", "at_least: 60%")
"""What the crash and the close itself lose passes 2%: there the policy would decide beside the hand, and rightly."""


def test_a_saved_plan_is_carried_out_once_and_not_on_another_book(tmp_path: Path) -> None:
    """Of two plans of one book the first is done to the letter; the second finds every position gone, and says so."""
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


def test_a_running_close_is_watched_and_an_interrupt_ends_the_watching_only(tmp_path: Path) -> None:
    """Ctrl-C leaves with 130 and one sentence; the runner closes on, and a second watcher sees it through to flat."""
    with process("paper", *MOVING) as venue:
        site = Site(tmp_path, address_of(venue), policy=OUT_OF_REACH)
        with site.running("--live") as runner:
            handed = ksctl("close", "--store", str(site.store), "--reason", "drill", "--wait", "1ms")
            assert "sent to the runner" in handed.stderr
            until(site.decisions, "the runner has decided")
            # A drill sends an order a second, and none is answered until the watcher has been seen to watch.
            watching = process("status", "--watch", "--store", str(site.store), "--output", "json")
            with stopped(venue), watching as watcher:
                assert watcher.stdout is not None
                first = watcher.stdout.readline()
                assert first, watcher.communicate(timeout=PATIENCE)
                shown = json.loads(first)
                assert (shown["format"], shown["positions"]) == ("killswitch.progress/v1", 8)
                watcher.send_signal(signal.SIGINT)
                _, said = watcher.communicate(timeout=PATIENCE)
                assert (watcher.returncode, said) == (130, "stopped watching; the close continues\n")
            until(lambda: any(entry.kind == "finished" for entry in site.journal()), "the runner closes on")
            assert site.venue().positions == ()
            assert terminate(runner)[0] == 0
