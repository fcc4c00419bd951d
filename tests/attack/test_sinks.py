"""Stalled sinks and names that do not resolve: a crash is closed all the same, and SIGTERM ends the run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.fork_client import Process, begin
from tests.e2e.processes import KSCTL, WAIT_LIMIT, Site, paper, terminate, until
from tests.e2e.test_run import FALLING, full_pipe
from tests.threads import ATTACK


@contextmanager
def attacked(
    site: Site, *options: str, output: int | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """Run an armed runner until its book is closed; after the body, assert that SIGTERM ends it with exit 0."""
    arguments = ["run", *site.place, "--interval", "200ms", "--live", *options]
    stream = subprocess.DEVNULL if output is None else output
    with begin(arguments, stdout=stream, stderr=stream, env={**os.environ, **(environment or {})}) as runner:
        try:
            until(lambda: runner.poll() is not None or site.has_ticked(), "the runner ticks")
            until(lambda: runner.poll() is not None or is_flat(site), "the closing ends flat")
            yield runner
            runner.send_signal(signal.SIGTERM)
            assert runner.wait(WAIT_LIMIT) == 0
        finally:
            runner.kill()
    assert site.venue().positions == ()


def is_flat(site: Site) -> bool:
    view = site.status().view
    return view is not None and any(each.status == "flat" for each in view.closings)


def problems(site: Site) -> str:
    view = site.status().view
    return "" if view is None else "; ".join(view.problems)


def _pipe(path: Path) -> int:
    """An open named pipe that nobody reads."""
    os.mkfifo(path)
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def test_every_sink_stalls_at_once(tmp_path: Path) -> None:
    """Every sink of a run stalls; status lists recording, events and stdout as problems."""
    opened = [_pipe(tmp_path / "seen.jsonl"), *full_pipe()]
    os.mkfifo(tmp_path / "events")  # this one is not even opened
    try:
        with socket.create_server(("127.0.0.1", 0)) as never_answers, paper(*FALLING) as address:
            site = Site(tmp_path, address)
            environment = {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{never_answers.getsockname()[1]}",
                "OTEL_METRIC_EXPORT_INTERVAL": "1000",
            }
            sinks = ("--record", str(tmp_path / "seen.jsonl"), "--events", str(tmp_path / "events"), "--output", "json")
            with attacked(site, *sinks, output=opened[-1], environment=environment):
                sinks = ("snapshots to ", "events to ", "lines to stdout are late or lost")
                until(lambda: all(each in problems(site) for each in sinks), "each of them is a problem")
    finally:
        for each in opened:
            os.close(each)


class DrippingServer:
    """A server on loopback that answers every request with 200, and then sends a byte of the body now and then."""

    def __init__(self) -> None:
        self.requests = 0
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> DrippingServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(2**16)
            self.requests += 1
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while not self._stopped.wait(0.2):
                connection.sendall(b"x")


def test_a_target_whose_answers_drip_gets_every_page_and_is_a_problem(tmp_path: Path) -> None:
    """Each attempt ends although its answer does not: the next page is sent, and so are traces."""
    with DrippingServer() as target, DrippingServer() as collector, paper(*FALLING) as address:
        site = Site(tmp_path, address)
        (site.policies / "route.yaml").write_text(
            "apiVersion: killswitch.dev/v1\nkind: NotificationRoute\nmetadata: {name: all}\n"
            f"spec: {{match: {{}}, targets: [{{apprise: {{url: 'json://{target.address}'}}}}]}}\n",
            encoding="utf-8",
        )
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.address}",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
        }
        with attacked(site, environment=environment):
            until(lambda: target.requests >= 2 and collector.requests >= 2, "what waits behind the first is sent too")
            problem = f"notifications to apprise json://{target.address} are delivered, but its answer did not end"
            until(lambda: problem in problems(site), "the target is a problem by its own name")


HANGING_RESOLVER = """
import socket, time
_real = socket.getaddrinfo
def _hangs(host, *arguments, **more):
    if str(host).endswith(".invalid"):
        time.sleep(100_000)
    return _real(host, *arguments, **more)
socket.getaddrinfo = _hangs
"""


def test_names_that_do_not_resolve_delay_neither_another_venue_nor_the_exit(tmp_path: Path) -> None:
    """Two accounts hang in the DNS look-up of their venue; the third is closed, and the exit waits for no thread."""
    (tmp_path / "resolver").mkdir()
    (tmp_path / "resolver" / "sitecustomize.py").write_text(HANGING_RESOLVER, encoding="utf-8")
    path = os.pathsep.join((str(tmp_path / "resolver"), os.environ.get("PYTHONPATH", "")))
    environment = {"PYTHONPATH": path, "VENUE_KEY": "0123456789", "VENUE_SECRET": "9876543210"}
    with paper(*FALLING) as address:
        site = Site(tmp_path, address)
        accounts = (
            "apiVersion: killswitch.dev/v1\nkind: Account\n"
            f"metadata: {{name: hangs-{number}}}\nspec: {{adapter: ccxt, exchange: binanceusdm, market: swap, "
            f"currency: USDT, endpoint: 'https://venue-{number}.invalid:1', execution: observe, "
            "credentials: {key: env:VENUE_KEY, secret: env:VENUE_SECRET}}\n"
            for number in range(2)
        )
        (site.policies / "hanging.yaml").write_text("---\n".join(accounts), encoding="utf-8")
        with attacked(site, "--read-timeout", "1s", environment=environment):
            view = site.status().view
            assert view is not None
            assert {each.account: each.quality for each in view.accounts} == {
                "main": "ok", "hangs-0": "down", "hangs-1": "down",
            }  # fmt: skip


DEAD_MOUNT = """
import os, threading
from killswitch.policy.yaml import files
files.ANSWERS_WITHIN = 1.0
_stat = os.stat
def _hangs(path, *arguments, **more):
    if str(path).startswith("DEAD"):
        threading.Event().wait()
    return _stat(path, *arguments, **more)
os.stat = _hangs
"""


def test_a_start_with_policies_on_a_dead_mount_fails_with_their_path(tmp_path: Path) -> None:
    """`validate` and `run` fail with a message, and the process ends although one of its threads never does."""
    dead = tmp_path / "dead"
    (tmp_path / "mount").mkdir()
    (tmp_path / "mount" / "sitecustomize.py").write_text(DEAD_MOUNT.replace("DEAD", str(dead)), encoding="utf-8")
    path = os.pathsep.join((str(tmp_path / "mount"), os.environ.get("PYTHONPATH", "")))
    starting = ("run", "--live", "--store", str(tmp_path / "s"), "--policies", str(dead))
    for verb, code in ((("validate", str(dead)), 1), (starting, 69)):
        done = subprocess.run(
            [*KSCTL, *verb],
            check=False,
            env={**os.environ, "PYTHONPATH": path},
            timeout=WAIT_LIMIT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code
        assert f"error KS1001: {dead} did not answer within 1 s" in done.stdout + done.stderr


def test_a_crash_is_closed_and_the_run_exits_0_where_no_thread_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread starts from the first tick on, as at a process limit; SIGTERM still exits 0, without a traceback."""
    (tmp_path / "sitecustomize.py").write_text(ATTACK, encoding="utf-8")
    flag = tmp_path / "no-threads"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.setenv("NO_THREADS", str(flag))
    with paper(*FALLING) as address:
        site = Site(tmp_path, address)
        with site.running("--live") as runner:
            flag.touch()
            until(lambda: runner.poll() is not None or is_flat(site), "the closing ends flat")
            until(lambda: "cannot start a thread" in problems(site), "it is a problem")
            status, _, err = terminate(runner)
        assert status == 0, err
        assert "Traceback" not in err
        assert site.venue().positions == ()
