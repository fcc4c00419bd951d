"""Commands as processes of their own that are forked from one that is warm (`tests.e2e.preloaded`).

Starting an interpreter and importing `ksctl` takes a second of CPU time, ccxt another one; forking takes hundredths.
Where a process is to be begun from nothing (`fresh`, `KILLSWITCH_FRESH=1`, another system than Linux, an environment
that changes what an interpreter loads) it is.
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
LOADING: Final = ("PYTHON", "LD_", "OPENBLAS_")
"""Variables whose names begin like this say what an interpreter loads, and how."""
BEGUN_IN: Final = dict(os.environ)
"""The environment before any test has changed it: that of the warm process."""
FORKS: Final = sys.platform == "linux" and not os.environ.get("KILLSWITCH_FRESH")
DYING: Final = 10.0
"""Seconds that a warm process may take to see that nobody asks any more."""
FORKING: Final = 60.0
"""Seconds that it may take to fork, its own imports included."""

Stream = int | IO[Any] | None


class Forked:
    """A child of the warm process, with that part of `subprocess.Popen` which is needed here."""

    def __init__(self, arguments: Sequence[str], pid: int, told: socket.socket, streams: list[IO[str] | None]) -> None:
        self.args = arguments
        self.pid = pid
        self.returncode: int | None = None
        self.stdin = None
        self.stdout, self.stderr = streams
        self._told = told

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """As `poll`, once it has ended."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it has written to its pipes, once it has ended."""
        waiting = {it.fileno(): it for it in (self.stdout, self.stderr) if it is not None}
        said = dict.fromkeys(waiting.values(), b"")
        while waiting:
            ready, _, _ = select.select(list(waiting), [], [], timeout)
            if not ready:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            for each in ready:
                read = os.read(each, 1 << 16)
                said[waiting[each]] += read
                if not read:
                    waiting.pop(each).close()
        self.wait(timeout)
        out, err = ("" if it is None else said[it].decode() for it in (self.stdout, self.stderr))
        return out, err

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended, even if nobody has been told yet."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()

    def __del__(self) -> None:
        self._told.close()

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], timeout)[0]:
            told = self._told.recv(8)
            assert told, "the warm process has died"
            self.returncode = int.from_bytes(told, "big", signed=True)
            self._told.close()
        return self.returncode


Process = subprocess.Popen[str] | Forked


class Warm:
    """The process that forks, and asking it."""

    def __init__(self) -> None:
        self._asking, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = Lock()
        code = f"from tests.e2e.preloaded import serve; serve({theirs.fileno()})()"
        # A pool of threads that no command needs would be begun with the import of numpy.
        environment = {**BEGUN_IN, "OPENBLAS_NUM_THREADS": "1"}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=REPOSITORY,
                pass_fds=[theirs.fileno()], env=environment,
            )  # fmt: skip
        atexit.register(self._end)

    @property
    def dead(self) -> bool:
        """Whether it can be asked no more."""
        return self._process.poll() is not None

    def fork(self, request: Mapping[str, Any], streams: Sequence[int]) -> tuple[int, socket.socket]:
        """The child's number, and where it is told how it ended. TimeoutError where it is not forked in `FORKING` s:
        the warm process is killed then, lest it do later what nobody waits for any more."""
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            socket.send_fds(self._asking, [json.dumps(request).encode()], [*streams, theirs.fileno()])
        ours.settimeout(FORKING)
        try:
            told = ours.recv(8)
        except TimeoutError:
            ours.close()
            self._process.kill()
            self._process.wait(DYING)
            hung = f"the warm process {self._process.pid} has not forked within {FORKING:g} s"
            raise TimeoutError(f"{hung} for {request['arguments']}") from None
        ours.settimeout(None)
        assert told, f"the warm process {self._process.pid} has died over {request['arguments']}"
        return int.from_bytes(told, "big"), ours

    def _end(self) -> None:
        self._asking.close()
        self._process.wait(DYING)


def _loading(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(LOADING)}


def bare() -> dict[str, str]:
    """An environment with nothing but a path, and what the interpreter was begun with."""
    return {**_loading(BEGUN_IN), "PATH": "/usr/bin:/bin"}


_WARM: list[Warm] = []
"""The one that is asked; empty before the first request."""


def _warm() -> Warm:
    """A new one in the place of one that has died."""
    if not _WARM or _WARM[0].dead:
        _WARM[:] = [Warm()]
    return _WARM[0]


def begin(
    arguments: Sequence[str], *, code: str = KSCTL, stdout: Stream = None, stderr: Stream = None,
    env: Mapping[str, str] | None = None, cwd: Path | None = None, fresh: bool = False,
) -> Process:  # fmt: skip
    """As `subprocess.Popen` of `python -c CODE ARGUMENTS`, text on its pipes, nothing on its stdin.

    `fresh`: in an interpreter that is begun from nothing. What is forked has every module loaded already, and has the
    hash seed of strings of all the others. So that a test says something of imports that are late (while descriptors
    are short, say), or of two processes that must agree though their sets have two orders, it has to ask for this.
    """
    environment = dict(os.environ if env is None else env)
    if fresh or not FORKS or _loading(environment) != _loading(BEGUN_IN):
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, text=True, env=environment, cwd=cwd
        )
    request = {
        "arguments": list(arguments), "environment": environment, "folder": str(cwd or Path.cwd()), "code": code,
    }  # fmt: skip
    read: list[IO[str] | None] = []
    passed, ours = [os.open(os.devnull, os.O_RDWR)], []
    try:
        ours += passed
        for number, stream in ((1, stdout), (2, stderr)):
            if stream == subprocess.PIPE:
                reading, writing = os.pipe()
                read.append(os.fdopen(reading, encoding="utf-8"))
                ours.append(writing)
                passed.append(writing)
                continue
            read.append(None)
            if stream is None:
                passed.append(number)
            elif stream == subprocess.DEVNULL:
                passed.append(passed[0])
            else:
                passed.append(stream if isinstance(stream, int) else stream.fileno())
        pid, told = _warm().fork(request, passed)
    finally:
        for each in ours:
            os.close(each)
    return Forked(arguments, pid, told, read)


def finish(
    arguments: Sequence[str], *, timeout: float, code: str = KSCTL, env: Mapping[str, str] | None = None,
    cwd: Path | None = None, fresh: bool = False,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """One command, run to its end, with what it said; killed where it takes longer. `fresh`: as in `begin`."""
    with TemporaryFile() as out, TemporaryFile() as err:
        with begin(arguments, code=code, stdout=out, stderr=err, env=env, cwd=cwd, fresh=fresh) as process:
            try:
                process.wait(timeout)
            finally:
                process.kill()
        said = []
        for each in (out, err):
            each.seek(0)
            said.append(each.read().decode())
    assert process.returncode is not None
    return subprocess.CompletedProcess(arguments, process.returncode, *said)
