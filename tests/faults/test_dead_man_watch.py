"""`ksctl deadman watch` with real processes: bots and runners that are killed, paused watchers, disarms."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from tests.e2e.processes import FILLING, Site, WatchedSite, armed_switch, ksctl, paper, paused, terminate, until


def flat(site: Site) -> bool:
    """Whether the venue shows no position."""
    return site.venue().positions == ()


def test_w1_a_bot_that_is_killed_is_closed_by_a_process_of_its_own(tmp_path: Path) -> None:
    """The close has the reason `dead-man`; a late heartbeat takes nothing back, and `arm` returns it to service."""
    with armed_switch(tmp_path) as (site, watcher, running):
        running.send_signal(signal.SIGKILL)
        running.wait()
        until(lambda: flat(site), "the watcher has closed everything")
        assert site.phase() == "fired"
        late = ksctl("deadman", "heartbeat", "maker", "--to", str(site.beats), "--progress", "999999")
        assert late.returncode == 0, late.stderr
        until(lambda: (it := site.switch()) is not None and it.progress == 999999, "the late heartbeat was read")
        assert site.phase() == "fired"
        assert "FIRED" in site.command("status")
        assert "maker is " in site.command("arm", "maker", "--reason", "bot repaired")
        until(lambda: site.phase() == "pending", "the switch waits to be heard again")
        assert terminate(watcher)[0] == 0
    history = ksctl("history", "--store", str(site.watcher_store), "--output", "json").stdout
    decision = json.loads(history.splitlines()[0])["decision"]
    assert (decision["cause"], decision["author"]) == ("dead-man", "switch maker")


def test_a_watcher_that_was_stopped_does_not_take_its_own_pause_for_silence(tmp_path: Path) -> None:
    """It is frozen for many timeouts while the bot goes on; then the bot dies, and it fires."""
    with armed_switch(tmp_path) as (site, watcher, running):
        before = site.switch()
        assert before is not None
        with paused(watcher):
            until(lambda: (site.beats / "maker").read_text() and _progress(site) > (before.progress or 0) + 50,
                  "the bot goes on for five timeouts")  # fmt: skip
        until(lambda: (it := site.switch()) is not None and (it.progress or 0) > (before.progress or 0) + 50,
              "the watcher hears again")  # fmt: skip
        assert site.phase() == "armed"
        assert not flat(site)
        running.kill()
        until(lambda: flat(site), "the watcher has closed everything")


def _progress(site: WatchedSite) -> int:
    return int(json.loads((site.beats / "maker").read_text())["progress"])


def test_a_disarm_holds_for_its_time_and_silence_counts_from_its_end(tmp_path: Path) -> None:
    """A planned restart closes nothing; one that does not come back does."""
    with armed_switch(tmp_path) as (site, _, running):
        assert "maker is disarmed" in site.command("disarm", "maker", "--for", "8s", "--reason", "restart")
        running.kill()
        running.wait()
        last = _progress(site)
        until(lambda: (it := site.switch()) is not None and it.progress == last and (it.age or 0) > 3.0,
              "the bot is silent for three timeouts")  # fmt: skip
        assert site.phase() == "disarmed"
        assert not flat(site)
        until(lambda: flat(site), "the disarm has expired, and the watcher has closed everything")


def test_a_runner_that_is_killed_is_closed_by_its_watcher(tmp_path: Path) -> None:
    """The runner beats after each committed tick; nobody else does when it is dead."""
    with paper(*FILLING) as address:
        site = WatchedSite(tmp_path, address, watches="runner", beats="runner", every="300ms", timeout="4s")
        with site.watching(), site.running("--live", "--unnotified", "--heartbeat", str(site.beats)) as runner:
            until(lambda: site.phase() == "armed", "the runner is heard")
            runner.kill()
            until(lambda: flat(site), "the watcher has closed everything")


def test_a_switch_that_was_never_heard_pages_and_closes_nothing(tmp_path: Path) -> None:
    """An old file of the bot arms nothing."""
    with paper(*FILLING) as address:
        site = WatchedSite(tmp_path, address, pending={"limit": "1s", "then": "page"})
        (site.beats / "maker").touch()
        with site.watching() as watcher:
            until(lambda: _alerts(site, "heartbeat/maker/pending"), "it pages")
            assert site.phase() == "pending"
            assert not flat(site)
            assert terminate(watcher)[0] == 0


def _alerts(site: WatchedSite, key: str) -> bool:
    shown = ksctl("status", "--store", str(site.watcher_store), "--output", "json")
    return key in {each["key"] for each in json.loads(shown.stdout)["active_alerts"]}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("arm", "maker", "--reason", "x"), "is not the store of a watcher|no switch maker|there is no store"),
        (("disarm", "maker", "--for", "8d", "--reason", "x"), "at most 7 days"),
        (("heartbeat", "maker"), "name the store of a runner with --store, or a way of a watcher with --to"),
        (("heartbeat", "Maker", "--to", "/tmp"), "is no name of a heartbeat"),
        (("heartbeat", "maker", "--to", "beats"), "is no destination of heartbeats"),
        (("heartbeat", "maker", "--to", "/nowhere/at/all"), "cannot be delivered to /nowhere/at/all"),
    ],
)
def test_bad_input_is_refused_with_the_way_out(tmp_path: Path, arguments: tuple[str, ...], why: str) -> None:
    """Never a traceback."""
    place = () if arguments[0] == "heartbeat" else ("--store", str(tmp_path / "none.sqlite"))
    done = ksctl("deadman", *arguments, *place)
    assert done.returncode in (1, 64)
    assert re.search(why, " ".join(done.stderr.split()))
    assert "Traceback" not in done.stderr
