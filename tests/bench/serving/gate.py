"""The gate over HTTP on loopback: checks a second on one core, the latency of one, and what a flood costs a tick.

The server is `ksctl serve` as users start it, on one core of its own; the client is this process, by plain sockets,
so that nothing of a client library is measured. The view is written anew every second, as a run does.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec.structs import replace

from killswitch.gate.files import replace_file
from killswitch.limits.view import GateView, ReadTimes, encode_gate_view
from killswitch.runner.locks.gate_view import gate_view_file
from killswitch.server.access import TokenFile, issue, write_tokens
from killswitch.store.sqlite import open_store
from tests.bench.measure import Measure
from tests.bench.tick import machine_tail, seen

CHECKS, CONNECTIONS, ROUNDS = 8_000, 4, 4_000
PER_SECOND, P99_MS, TICK_LATE_MS = 2_000.0, 5.0, 10.0
CROWD, TICKS = 200, 400


def fresh() -> GateView:
    """The view of 50 positions, 50 orders and 100 limits, read now, whose bots send at once."""
    now = datetime.now(UTC)
    shown = seen()
    (account,) = shown.accounts
    assert account.limits is not None and account.day is not None
    rule = replace(account.limits, valid_for=50_000, request_timeout=50_000)
    began = now - timedelta(milliseconds=5)
    state = replace(
        account.state, observed_at=now, marked_at=None, positions_as_of=now, orders_as_of=now,
        positions=tuple(replace(each, mark_at=None) for each in account.state.positions or ()),
        watched=tuple(replace(each, at=now) for each in account.state.watched or ()),
    )  # fmt: skip
    day = replace(account.day, day=f"{now:%Y-%m-%d}", turned_at=began)
    reads = ReadTimes(began, began, None)
    return replace(
        shown, as_of=now, run_started_at=now - timedelta(hours=1),
        accounts=(replace(account, state=state, reads=reads, limits=rule, day=day),),
    )  # fmt: skip


class Served:
    """A server with its store, and the view that is kept fresh."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "ks.sqlite"
        open_store(str(self.store)).close()
        self.token, record = issue("maker", "trader", ("account/main",), datetime.now(UTC), None)
        write_tokens(folder / "tokens.json", TokenFile((record,)))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.pid = 0
        self._stopping = threading.Event()
        self._tokens = folder / "tokens.json"

    @contextmanager
    def running(self) -> Iterator[None]:
        keeper = threading.Thread(target=self._keep)
        keeper.start()
        command = (
            sys.executable, "-c", "from killswitch.cli import main; main()", "serve", "--store", str(self.store),
            "--tokens", str(self._tokens), "--listen", f"127.0.0.1:{self.port}",
        )  # fmt: skip
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self.pid = process.pid
        try:
            os.sched_setaffinity(process.pid, {sorted(os.sched_getaffinity(0))[-1]})
            self._await()
            yield
        finally:
            process.terminate()
            process.wait()
            self._stopping.set()
            keeper.join()

    def _keep(self) -> None:
        while True:
            replace_file(gate_view_file(str(self.store)), encode_gate_view(fresh()))
            if self._stopping.wait(1.0):
                return

    def _await(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with self.connect() as connection:
                    answer = self.ask(connection, "first")
                    if b'"allowed":true' in answer:
                        return
            except OSError:
                pass
            time.sleep(0.1)
        raise TimeoutError("the gate allows nothing")

    def connect(self) -> socket.socket:
        found = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return found

    def question(self, name: str, amount: str = "1") -> bytes:
        """A whole request: an entry of `amount` contracts at the mark."""
        body = (
            f'{{"id":"{name}","account":"main","orders":[{{"symbol":"C7/USDT:USDT","side":"buy","amount":"{amount}",'
            '"unit":"contracts","type":"limit","price":"100"}]}'
        ).encode()  # fmt: skip
        head = (
            f"POST /v1/pretrade HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def ask(self, connection: socket.socket, name: str, amount: str = "1") -> bytes:
        """The body of the answer; OSError if it is none of status 200."""
        connection.sendall(self.question(name, amount))
        return answer_of(connection)


def answer_of(connection: socket.socket) -> bytes:
    """The body of one answer; OSError if its status is not 200."""
    found = b""
    while b"\r\n\r\n" not in found:
        part = connection.recv(65536)
        if not part:
            raise OSError("the server has ended the connection")
        found += part
    head, _, body = found.partition(b"\r\n\r\n")
    length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))[15:])
    while len(body) < length:
        body += connection.recv(65536)
    if b" 200 " not in head[:15]:
        raise OSError(f"{head[:30]!r} {body[:200]!r}")
    return body


def measures() -> Iterator[Measure]:
    """Checks a second, the latency of one, and ticks next to a server under attack."""
    with TemporaryDirectory() as folder:
        served = Served(Path(folder))
        with served.running():
            rate = _rate(served)
            yield Measure("seconds for 2,000 checks on one core", PER_SECOND / rate, 1.0, "promised", 1.0, unit="s")
            found = sorted(_latencies(served))
            median, p99 = statistics.median(found), found[len(found) * 99 // 100]
            machine = max(0.0, min(machine_tail(median * 1000) / 1000, p99 - median))
            yield Measure("a check in the median", median, P99_MS, "5 ms", None)
            yield Measure("its p99", p99, P99_MS, "promised", 1.0, machine=machine)
            alone = _ticks(served.store)
            with _attack(served):
                attacked = _ticks(served.store)
            with _stopped(served):
                stuck = _ticks(served.store)
        for name, late in (("under attack", attacked), ("stuck", stuck)):
            added = max(0.0, late - alone)
            yield Measure(f"what a server {name} adds to a tick's p99", added, TICK_LATE_MS, "promised", 1.0)


def _rate(served: Served) -> float:
    """Checks a second, of entries that the last limit denies: all of them are compared."""
    share = CHECKS // CONNECTIONS

    def ask(number: int) -> None:
        with served.connect() as connection:
            for index in range(share):
                served.ask(connection, f"r{number}-{index}", "9999999")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CONNECTIONS)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return CHECKS / (time.perf_counter() - begun)


def _latencies(served: Served) -> Iterator[float]:
    """Milliseconds of each check, one after the other, every other one of an entry that is allowed."""
    with served.connect() as connection:
        for index in range(ROUNDS):
            amount = "0.001" if index % 2 else "9999999"
            begun = time.perf_counter_ns()
            served.ask(connection, f"l{index}", amount)
            yield (time.perf_counter_ns() - begun) / 1e6


def _ticks(path: Path) -> float:
    """The p99 in milliseconds of a commit of a tick's size on the store that the server reads."""
    store = open_store(str(path))
    try:
        found = []
        for number in range(TICKS):
            begun = time.perf_counter_ns()
            store.put_live("bench", b"x" * 20_000 + str(number).encode())
            found.append((time.perf_counter_ns() - begun) / 1e6)
            time.sleep(0.005)
    finally:
        store.close()
    return sorted(found)[len(found) * 99 // 100]


@contextmanager
def _attack(served: Served) -> Iterator[None]:
    """Connections that ask without a token as fast as they can, from a process of its own."""
    code = (
        "import socket,sys\n"
        "port,crowd=int(sys.argv[1]),int(sys.argv[2])\n"
        "idle=[socket.create_connection(('127.0.0.1',port)) for _ in range(crowd)]\n"
        "print('ready',flush=True)\n"
        "while True:\n"
        "  try:\n"
        "    with socket.create_connection(('127.0.0.1',port)) as c:\n"
        "      c.sendall(b'GET /v1/status HTTP/1.1\\r\\nHost: 127.0.0.1:%d\\r\\n\\r\\n'%port); c.recv(4096)\n"
        "  except OSError: pass\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(served.port), str(CROWD)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def _stopped(served: Served) -> Iterator[None]:
    """A server that does not run any more and still holds its connections, its files and its place in the store."""
    with served.connect() as connection:
        connection.sendall(served.question("half"))
        os.kill(served.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(served.pid, signal.SIGCONT)
