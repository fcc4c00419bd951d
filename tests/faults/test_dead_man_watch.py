"""`ksctl deadman watch` with real processes: bots and runners that are killed, paused watchers, disarms."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.e2e.processes import (
    FILLING,
    Site,
    WatchedSite,
    armed_switch,
    beating_bot,
    ksctl,
    paper,
    paused,
    process,
    terminate,
    until,
)


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


def test_heartbeats_over_http_are_heard_through_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bot posts to `ksctl serve` with its token, and the watcher asks it with another one."""
    with paper(*FILLING) as address:
        site = WatchedSite(tmp_path, address)
        with site.running("--live", "--unnotified"):
            tokens = tmp_path / "tokens.json"
            for role, name in (("trader", "KILLSWITCH_TOKEN"), ("viewer", "WATCHER_TOKEN")):
                of_whom = ("--principal", f"the {role}", "--role", role, "--scope", "account/main")
                issued = ksctl("serve", "token", "--tokens", str(tokens), *of_whom)
                monkeypatch.setenv(name, issued.stdout.strip())
            with serving(site, tokens) as server:
                beats = f"{server}/v1/heartbeats"
                site.declare(ways=[{"url": beats, "token": "env:WATCHER_TOKEN"}])
                with site.watching(), beating_bot(beats) as running:
                    until(lambda: site.phase() == "armed", "the switch is armed over HTTP")
                    running.kill()
                    until(lambda: flat(site), "the watcher has closed everything")


def test_a_server_that_is_killed_is_started_again_by_its_run(tmp_path: Path) -> None:
    """`ksctl run --serve` keeps it up, and ends it with the run; no tick is missed meanwhile."""
    with paper(*FILLING) as address:
        site, tokens = WatchedSite(tmp_path, address), tmp_path / "tokens.json"
        ksctl(
            "serve", "token", "--tokens", str(tokens), "--principal", "ann", "--role", "viewer", "--scope", "portfolio"
        )
        port = free_port()
        beats = f"http://127.0.0.1:{port}"
        with site.running("--serve", str(tokens), "--listen", f"127.0.0.1:{port}") as runner:
            until(lambda: _answers(beats), "the server answers")
            first = served_by(port)
            os.kill(first, signal.SIGKILL)
            until(lambda: served_by(port) not in (0, first) and _answers(beats), "another server answers")
            assert terminate(runner)[0] == 0
        assert served_by(port) == 0, "it ends with the run"


def free_port() -> int:
    """A port of loopback that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def served_by(port: int) -> int:
    """The id of the `ksctl serve` process on a port; 0 if there is none."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"serve" in command and f"127.0.0.1:{port}".encode() in command and b"run" not in command:
            return int(folder.name)
    return 0


@contextmanager
def serving(site: WatchedSite, tokens: Path) -> Iterator[str]:
    """The address of `ksctl serve` on the runner's store."""
    port = free_port()
    place = ("--store", str(site.store), "--tokens", str(tokens), "--listen", f"127.0.0.1:{port}")
    with process("serve", *place) as server:
        address = f"http://127.0.0.1:{port}"
        until(lambda: server.poll() is not None or _answers(address), "the server answers")
        assert server.poll() is None, server.communicate()
        yield address


def _answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/healthz", timeout=10).status_code == 200
    except requests.ConnectionError:
        return False


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
