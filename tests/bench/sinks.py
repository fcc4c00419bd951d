"""Lateness of a tick while every sink of a run stalls: recording, events, stdout, stderr, traces, metrics, locks."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.bench.measure import Measure
from tests.e2e.processes import KSCTL, Site, paper
from tests.e2e.test_run import full_pipe

INTERVAL: Final = 0.2
SECONDS: Final = 20.0
LATE: Final = 0.1
"""Permitted seconds of a tick beyond its interval."""


def measures() -> Iterator[Measure]:
    """The longest time between two ticks of a run that closes a crash, with stalled sinks and without."""
    undisturbed = _longest({}, (), None)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for name in ("seen.jsonl", "events"):
            os.mkfifo(Path(folder) / name)
        unread = os.open(Path(folder) / "seen.jsonl", os.O_RDONLY | os.O_NONBLOCK)
        stack.callback(os.close, unread)
        read_end, write_end = full_pipe()
        stack.callback(os.close, read_end)
        stack.callback(os.close, write_end)
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        }
        options = ("--record", f"{folder}/seen.jsonl", "--events", f"{folder}/events", "--output", "json")
        stalled = _longest(environment, options, write_end)
    print(
        f"longest time between ticks at an interval of {INTERVAL:g} s: {undisturbed:.3f} s undisturbed, {stalled:.3f} s"
    )
    yield Measure("every sink stalls: the latest tick", (stalled - INTERVAL) * 1000, LATE * 1000, "allowed", 1.0)


def _longest(environment: Mapping[str, str], options: Sequence[str], output: int | None) -> float:
    """The longest time between two ticks in a run of `SECONDS`."""
    with tempfile.TemporaryDirectory() as folder, paper("--crash", "7", "--skip", "238", "--speed", "60") as address:
        site = Site(Path(folder), address)
        (site.locks).mkdir()
        os.mkfifo(site.locks / "account__main.json")
        command = [
            *KSCTL,
            "run",
            *site.place,
            "--interval",
            f"{INTERVAL * 1000:g}ms",
            "--live",
            "--unnotified",
            *options,
        ]
        stream = subprocess.DEVNULL if output is None else output
        with subprocess.Popen(command, stdout=stream, stderr=stream, env={**os.environ, **environment}) as runner:
            try:
                intervals = list(_tick_intervals(site, time.monotonic() + SECONDS))
            finally:
                runner.terminate()
                runner.wait(60)
        if site.venue().positions:
            raise AssertionError("the crash was not closed")
    return max(intervals)


def _tick_intervals(site: Site, until: float) -> Iterator[float]:
    """Poll the status for the time between the runner's last ticks."""
    while time.monotonic() < until:
        if site.store.exists() and (view := site.status().view) is not None and view.apart is not None:
            yield view.apart
        time.sleep(0.5)
