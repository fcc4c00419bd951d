"""A kill -9 around sending loses no message, and repeats at most the one that was being sent, with its id."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from killswitch.incident.notify.targets import FileSender
from killswitch.lab.rehearsal import VirtualClock
from killswitch.store.sqlite import open_store
from tests.outboxes import START, lane, waiting


@pytest.mark.parametrize(
    ("moment", "arrived"),
    [
        ("enqueued", ["m1", "m2", "m3"]),
        ("claimed", ["m1", "m2", "m3"]),
        ("sent", ["m1", "m2", "m2", "m3"]),
    ],
)
def test_a_kill_around_sending_loses_nothing(moment: str, arrived: list[str], repository: Path, tmp_path: Path) -> None:
    """Between enqueueing and sending nothing is repeated; between sending and marking that one message is.

    The next runner enqueues the same messages again, as one does that has not seen its predecessor's end.
    """
    killed = subprocess.run(
        [sys.executable, "-m", "tests.faults.killed_notifier", tmp_path, moment],
        cwd=repository, env={**os.environ, "PYTHONPATH": str(repository)}, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    store = open_store(str(tmp_path / "store.sqlite"))
    waiting(store, ["m1", "m2", "m3"])
    work = lane(store, FileSender(str(tmp_path / "n.jsonl")), VirtualClock(START))
    while work.step() == 0:
        pass
    found = [json.loads(line)["id"] for line in (tmp_path / "n.jsonl").read_text(encoding="utf-8").splitlines()]
    assert found == arrived
    assert {each.state for each in store.deliveries(10)} == {"delivered"}
    second = next(each for each in store.deliveries(10) if each.message.id == "m2")
    assert second.attempts == (1 if moment == "enqueued" else 2), "an attempt is counted before it is made"
    store.close()
