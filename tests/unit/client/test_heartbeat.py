"""Heartbeats of a bot: two lines, standard library only, and nothing that delays or stops the bot."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from killswitch.client import heartbeat
from killswitch.client.heartbeat import FORMAT


def until(condition: Callable[[], bool]) -> None:
    """Return once another thread has brought it about."""
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def test_two_lines_leave_a_file_with_the_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the folder from the environment."""
    monkeypatch.setenv("KILLSWITCH_HEARTBEATS", str(tmp_path))
    heartbeat("maker", progress=17)
    path = tmp_path / "maker"
    until(path.exists)
    body = json.loads(path.read_text())
    assert (body["format"], body["progress"], body["pid"]) == (FORMAT, 17, os.getpid())


@pytest.mark.parametrize("name", ["", "Maker", "../maker", "a/b", "-maker", "m" * 64])
def test_a_name_that_no_switch_can_declare_is_an_error(name: str, tmp_path: Path) -> None:
    """At the first call, which is at the start of the bot."""
    with pytest.raises(ValueError, match="no name of a heartbeat"):
        heartbeat(name, to=[str(tmp_path)])


def test_no_destination_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat that goes nowhere would look like a dead bot an hour later."""
    monkeypatch.delenv("KILLSWITCH_HEARTBEATS", raising=False)
    with pytest.raises(ValueError, match="set KILLSWITCH_HEARTBEATS"):
        heartbeat("maker")
    with pytest.raises(ValueError, match="is no destination"):
        heartbeat("maker", to=["beats"])


def test_one_that_cannot_be_delivered_is_logged_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The watcher hears silence, which is right; the bot goes on."""
    folder = tmp_path / "later"
    with caplog.at_level(logging.WARNING, "killswitch.client"):
        heartbeat("lost", to=[str(folder)])
        until(lambda: len(caplog.records) == 1)
        folder.mkdir()
        heartbeat("lost", progress=2, to=[str(folder)])
        until((folder / "lost").exists)
        until(lambda: len(caplog.records) == 2)
    assert "cannot be delivered" in caplog.messages[0]
    assert "again" in caplog.messages[1]


def test_it_imports_nothing_but_the_standard_library() -> None:
    """A bot's environment may forbid what this program depends on: msgspec, pydantic, aiohttp and the rest."""
    code = (
        "import sys; import killswitch.client; "
        "print(sorted(name for name in sys.modules if name.partition('.')[0] not in sys.stdlib_module_names "
        "and not name.startswith(('killswitch', '_', 'encodings'))))"
    )
    found = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    code = "import sys, killswitch.client; print(*(name for name in sys.modules if 'killswitch' in name))"
    loaded = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert set(loaded.stdout.split()) == {
        "killswitch", "killswitch.client", "killswitch.client.gate", "killswitch.client.heartbeat",
    }  # fmt: skip


def test_a_fork_sends_its_own_heartbeats(tmp_path: Path) -> None:
    """A child has no threads of its parent; a bot that daemonises goes on beating."""
    code = (
        "import os, sys, time\n"
        "from killswitch.client import heartbeat\n"
        "heartbeat('parent', to=[sys.argv[1]])\n"
        "if os.fork() == 0:\n"
        "    heartbeat('child', to=[sys.argv[1]])\n"
        "    while not os.path.exists(sys.argv[1] + '/child'): time.sleep(0.01)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
    assert (tmp_path / "child").exists()
