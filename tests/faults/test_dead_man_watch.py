"""`ksctl deadman watch` with real processes: bots and runners that are killed, paused watchers, disarms."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from killswitch.store.sqlite import open_store
from killswitch.watcher.watch import SwitchView, switch_views
from tests.e2e.fork_client import Process
from tests.e2e.processes import POLICY, Site, ksctl, paper, paused, process, terminate, until

MOVING = ("--crash", "7", "--speed", "600")
"""A market in which orders fill."""
CALM = POLICY.replace("at_least: 2%", "at_least: 99%")
BOT = """
import sys, time
from killswitch.client import heartbeat
loops = 0
while True:
    loops += 1
    heartbeat("maker", progress=loops, to=[sys.argv[1]])
    time.sleep(0.1)
"""


class Watched(Site):
    """A site whose account a watcher closes after a second of silence."""

    def __init__(self, folder: Path, address: str, **changed: object) -> None:
        super().__init__(folder, address, policy=CALM)
        self.beats = folder / "beats"
        self.beats.mkdir()
        self.watcher_store = folder / "watcher.sqlite"
        spec = {
            "accounts": ["main"], "at_venue": False, "watches": "strategy", "beats": "maker",
            "ways": [{"file": str(self.beats)}], "every": "300ms", "timeout": "1s", "check": "200ms", "checks": 2,
            "pending": {"limit": "1h", "then": "page"}, "on_one_way": "page", "on_silence": "close", **changed,
        }  # fmt: skip
        head = {"apiVersion": "killswitch.dev/v1", "kind": "DeadMansSwitch", "metadata": {"name": "maker"}}
        switch = {**head, "spec": spec}
        (self.policies / "switch.yaml").write_text(json.dumps(switch))

    @contextmanager
    def watching(self) -> Iterator[Process]:
        """A live watcher, from its first check on."""
        locks = str(self.folder / "watcher.locks")
        place = ("--policies", str(self.policies), "--store", str(self.watcher_store), "--lock-dir", locks)
        before = self.switch()
        with process("deadman", "watch", *place, "--live", "--unnotified", "--interval", "500ms") as watcher:
            until(lambda: watcher.poll() is not None or self.switch() != before, "the watcher checks")
            assert watcher.poll() is None, watcher.communicate()
            yield watcher

    def switch(self) -> SwitchView | None:
        """The switch as of the watcher's last check."""
        if not self.watcher_store.exists():
            return None
        store = open_store(str(self.watcher_store), read_only=True)
        try:
            return next(iter(switch_views(store)), None)
        finally:
            store.close()

    def phase(self) -> str:
        found = self.switch()
        return "none" if found is None else found.phase

    def command(self, *arguments: str) -> str:
        """The answer of a `ksctl deadman` command on the watcher's store."""
        done = ksctl("deadman", *arguments, "--store", str(self.watcher_store))
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def bot(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A bot whose loop beats ten times a second."""
    with subprocess.Popen([sys.executable, "-c", BOT, str(folder)]) as running:
        try:
            yield running
        finally:
            running.kill()


@contextmanager
def armed(folder: Path, **changed: object) -> Iterator[tuple[Watched, Process, subprocess.Popen[bytes]]]:
    """A site with a position, a watcher that has heard its bot, and the bot."""
    with paper(*MOVING) as address:
        site = Watched(folder, address, **changed)
        with site.watching() as watcher, bot(site.beats) as running:
            until(lambda: site.phase() == "armed", "the switch is armed")
            assert site.venue().positions
            yield site, watcher, running


def flat(site: Site) -> bool:
    """Whether the venue shows no position."""
    return site.venue().positions == ()


def test_w1_a_bot_that_is_killed_is_closed_by_a_process_of_its_own(tmp_path: Path) -> None:
    """The close has the reason `dead-man`; a late heartbeat takes nothing back, and `arm` returns it to service."""
    with armed(tmp_path) as (site, watcher, running):
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
    with armed(tmp_path) as (site, watcher, running):
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


def _progress(site: Watched) -> int:
    return int(json.loads((site.beats / "maker").read_text())["progress"])


def test_a_disarm_holds_for_its_time_and_silence_counts_from_its_end(tmp_path: Path) -> None:
    """A planned restart closes nothing; one that does not come back does."""
    with armed(tmp_path) as (site, _, running):
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
    with paper(*MOVING) as address:
        site = Watched(tmp_path, address, watches="runner", beats="runner", every="300ms", timeout="4s")
        with site.watching(), site.running("--live", "--unnotified", "--heartbeat", str(site.beats)) as runner:
            until(lambda: site.phase() == "armed", "the runner is heard")
            runner.kill()
            until(lambda: flat(site), "the watcher has closed everything")


def test_a_switch_that_was_never_heard_pages_and_closes_nothing(tmp_path: Path) -> None:
    """An old file of the bot arms nothing."""
    with paper(*MOVING) as address:
        site = Watched(tmp_path, address, pending={"limit": "1s", "then": "page"})
        (site.beats / "maker").touch()
        with site.watching() as watcher:
            until(lambda: _alerts(site, "heartbeat/maker/pending"), "it pages")
            assert site.phase() == "pending"
            assert not flat(site)
            assert terminate(watcher)[0] == 0


def _alerts(site: Watched, key: str) -> bool:
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
