"""Starts commands as processes that a preloaded process forks (`tests.e2e.fork_server`).

Starting an interpreter and importing `ksctl` takes a second of CPU time, ccxt another one; forking takes hundredths.
A new interpreter is started where one is requested (`fresh`, `KILLSWITCH_FRESH=1`), on systems other than Linux, and
for an environment that changes what an interpreter loads.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from types import TracebackType
from typing import IO, Any, Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
KSCTL: Final = "from killswitch.cli import main; main()"
LOADER_PREFIXES: Final = ("PYTHON", "LD_", "OPENBLAS_")
"""Prefixes of the environment variables that change what an interpreter loads, and how."""
INITIAL_ENVIRONMENT: Final = dict(os.environ)
"""The environment before any test has changed it: that of the fork server."""
CAN_FORK: Final = sys.platform == "linux" and not os.environ.get("KILLSWITCH_FRESH")
EXIT_LIMIT: Final = 10.0
"""Seconds within which the fork server exits once its request socket is closed."""
FORK_LIMIT: Final = 60.0
"""Seconds within which it forks, its own imports included."""

Stream = int | IO[Any] | None


class ForkedProcess:
    """A child of the fork server, with the part of `subprocess.Popen` that the tests use."""

    def __init__(
        self, arguments: Sequence[str], pid: int, exit_socket: socket.socket, streams: list[IO[str] | None]
    ) -> None:
        self.args = arguments
        self.pid = pid
        self.returncode: int | None = None
        self.stdin = None
        self.stdout, self.stderr = streams
        self._exit_socket = exit_socket

    def poll(self) -> int | None:
        """The exit code, or minus the signal that ended the process; None while it runs."""
        return self._exit_code(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the process has ended; the exit code as from `poll`."""
        code = self._exit_code(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait until the process has ended; what it wrote to its pipes."""
        open_pipes = {it.fileno(): it for it in (self.stdout, self.stderr) if it is not None}
        written = dict.fromkeys(open_pipes.values(), b"")
        while open_pipes:
            ready, _, _ = select.select(list(open_pipes), [], [], timeout)
            if not ready:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            for each in ready:
                read = os.read(each, 1 << 16)
                written[open_pipes[each]] += read
                if not read:
                    open_pipes.pop(each).close()
        self.wait(timeout)
        out, err = ("" if it is None else written[it].decode() for it in (self.stdout, self.stderr))
        return out, err

    def send_signal(self, number: int) -> None:
        """Send a signal; a process that has ended gets none, even before its exit code was read."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> ForkedProcess:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()

    def __del__(self) -> None:
        self._exit_socket.close()

    def _exit_code(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._exit_socket], [], [], timeout)[0]:
            code = self._exit_socket.recv(8)
            assert code, "the fork server has died"
            self.returncode = int.from_bytes(code, "big", signed=True)
            self._exit_socket.close()
        return self.returncode


Process = subprocess.Popen[str] | ForkedProcess


class ForkServer:
    """The process that forks, and the socket for requests to it."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = Lock()
        code = f"from tests.e2e.fork_server import serve; serve({theirs.fileno()})()"
        # Importing numpy would start a pool of threads that no command needs.
        environment = {**INITIAL_ENVIRONMENT, "OPENBLAS_NUM_THREADS": "1"}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=REPOSITORY,
                pass_fds=[theirs.fileno()], env=environment,
            )  # fmt: skip
        atexit.register(self._stop)

    @property
    def is_dead(self) -> bool:
        """Whether the server has ended and takes no more requests."""
        return self._process.poll() is not None

    def fork(self, request: Mapping[str, Any], streams: Sequence[int]) -> tuple[int, socket.socket]:
        """Fork a child: its process id, and the socket on which its exit code arrives.

        TimeoutError where it is not forked within `FORK_LIMIT` s; the server is killed then, so that it does not fork
        later a child that nobody waits for.
        """
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            socket.send_fds(self._requests, [json.dumps(request).encode()], [*streams, theirs.fileno()])
        ours.settimeout(FORK_LIMIT)
        try:
            answer = ours.recv(8)
        except TimeoutError:
            ours.close()
            self._process.kill()
            self._process.wait(EXIT_LIMIT)
            hung = f"the fork server {self._process.pid} has not forked within {FORK_LIMIT:g} s"
            raise TimeoutError(f"{hung} for {request['arguments']}") from None
        ours.settimeout(None)
        assert answer, f"the fork server {self._process.pid} has died over {request['arguments']}"
        return int.from_bytes(answer, "big"), ours

    def _stop(self) -> None:
        self._requests.close()
        self._process.wait(EXIT_LIMIT)


def _loader_variables(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(LOADER_PREFIXES)}


def minimal_environment() -> dict[str, str]:
    """An environment with nothing but a path, and the loader variables of the test process."""
    return {**_loader_variables(INITIAL_ENVIRONMENT), "PATH": "/usr/bin:/bin"}


_SERVERS: list[ForkServer] = []
"""The running fork server; empty before the first request."""


def _running_server() -> ForkServer:
    """The fork server; a new one replaces one that has died."""
    if not _SERVERS or _SERVERS[0].is_dead:
        _SERVERS[:] = [ForkServer()]
    return _SERVERS[0]


def begin(
    arguments: Sequence[str], *, code: str = KSCTL, stdout: Stream = None, stderr: Stream = None,
    env: Mapping[str, str] | None = None, cwd: Path | None = None, fresh: bool = False,
) -> Process:  # fmt: skip
    """Start `python -c CODE ARGUMENTS` as `subprocess.Popen` does, with text on its pipes and nothing on its stdin.

    `fresh`: in a new interpreter. A forked process has every module loaded already, and shares the hash seed of strings
    with all the others. A test of late imports (while descriptors are short, say), or of two processes that must agree
    although their sets have two orders, must set it.
    """
    environment = dict(os.environ if env is None else env)
    if fresh or not CAN_FORK or _loader_variables(environment) != _loader_variables(INITIAL_ENVIRONMENT):
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, text=True, env=environment, cwd=cwd
        )
    request = {
        "arguments": list(arguments), "environment": environment, "folder": str(cwd or Path.cwd()), "code": code,
    }  # fmt: skip
    pipes: list[IO[str] | None] = []
    passed, ours = [os.open(os.devnull, os.O_RDWR)], []
    try:
        ours += passed
        for number, stream in ((1, stdout), (2, stderr)):
            if stream == subprocess.PIPE:
                read_end, write_end = os.pipe()
                pipes.append(os.fdopen(read_end, encoding="utf-8"))
                ours.append(write_end)
                passed.append(write_end)
                continue
            pipes.append(None)
            if stream is None:
                passed.append(number)
            elif stream == subprocess.DEVNULL:
                passed.append(passed[0])
            else:
                passed.append(stream if isinstance(stream, int) else stream.fileno())
        pid, exit_socket = _running_server().fork(request, passed)
    finally:
        for each in ours:
            os.close(each)
    return ForkedProcess(arguments, pid, exit_socket, pipes)


def finish(
    arguments: Sequence[str], *, timeout: float, code: str = KSCTL, env: Mapping[str, str] | None = None,
    cwd: Path | None = None, fresh: bool = False,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run one command to its end and return its output; kill it after `timeout`. `fresh`: as in `begin`."""
    with TemporaryFile() as out, TemporaryFile() as err:
        with begin(arguments, code=code, stdout=out, stderr=err, env=env, cwd=cwd, fresh=fresh) as process:
            try:
                process.wait(timeout)
            finally:
                process.kill()
        outputs = []
        for each in (out, err):
            each.seek(0)
            outputs.append(each.read().decode())
    assert process.returncode is not None
    return subprocess.CompletedProcess(arguments, process.returncode, *outputs)
