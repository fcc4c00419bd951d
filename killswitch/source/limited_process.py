"""A child process with limits on time, memory, files, processes and output, ended with everything that it started (P1).

What a source sends is read and judged in such a process, so that nothing in it can take the runner's memory or time.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import Popen
from time import monotonic, sleep
from typing import Final

from msgspec import Struct

_LOOK_EVERY: Final = 0.01
_ERRORS: Final = 4_096
_WAITS_FOR_ITS_LIMITS: Final = ("/bin/sh", "-c", 'kill -STOP $$ && exec "$0" "$@"')
"""Stops itself before it becomes the command, which could do all of its work before its limits are set."""


class ProcessLimits(Struct, frozen=True, kw_only=True):
    """Limits of a child and of what it starts. `processes`: how many more than the user runs when it begins."""

    seconds: float
    memory_bytes: int = 2 << 30
    file_bytes: int = 256 << 20
    processes: int = 64
    open_files: int = 256
    output_bytes: int = 128 << 20


class LimitedProcessError(Exception):
    """The child gave no result. `is_late`: it was ended because its time was over."""

    def __init__(self, text: str, *, is_late: bool = False) -> None:
        super().__init__(text)
        self.is_late = is_late


def run_limited(command: Sequence[str], stdin: bytes, limits: ProcessLimits, environment: Mapping[str, str]) -> bytes:
    """Run a command in a process group of its own and return its output. LimitedProcessError if there is none.

    The group is killed in any case, also when the command has ended: nothing that it started lives on. Input and output
    are memory files, so that neither side waits for the other.
    """
    with _MemoryFile(stdin) as given, _MemoryFile(b"") as output, _MemoryFile(b"") as errors:
        try:
            process = Popen(  # a list of arguments, and a shell only for the words above
                (*_WAITS_FOR_ITS_LIMITS, *command), stdin=given.descriptor, stdout=output.descriptor,
                stderr=errors.descriptor, env=dict(environment), start_new_session=True, close_fds=True,
            )  # fmt: skip
        except OSError as error:
            raise LimitedProcessError(f"the process cannot be started: {error.strerror}") from None
        try:
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            _limit(process.pid, limits)
            os.kill(process.pid, signal.SIGCONT)
            is_late = not _ends_within(process.pid, limits.seconds)
        finally:
            # not waited for yet, so that the number still belongs to this group
            _end_group(process.pid)
            status = process.wait()
        if is_late:
            raise LimitedProcessError(f"it did not end within {limits.seconds:g} s", is_late=True)
        if status != 0:
            last = errors.read(_ERRORS).decode(errors="replace").strip().splitlines()[-1:]
            raise LimitedProcessError(f"it ended with {status}: {''.join(last) or 'no message'}")
        if output.size > limits.output_bytes:
            raise LimitedProcessError(f"it answered with {output.size:,} bytes, more than {limits.output_bytes:,}")
        return output.read(output.size)


def python_module(module: str) -> tuple[list[str], dict[str, str]]:
    """The command and the environment that run a module of this program, without the environment of this process.

    The working directory is not searched for modules.
    """
    here = str(Path(__file__).parents[2])
    kept = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each and each != here]
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": os.pathsep.join([here, *kept]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }
    return [sys.executable, "-P", "-m", module], environment


def _limit(pid: int, limits: ProcessLimits) -> None:
    """Set the limits of a process that has not begun; what it starts inherits them."""
    each = {
        resource.RLIMIT_AS: limits.memory_bytes,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_CPU: int(limits.seconds) + 1,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: _tasks_of_user() + limits.processes,
    }
    for number, wanted in each.items():
        try:
            _, hard = resource.prlimit(pid, number)
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.prlimit(pid, number, (most, most))
        except ProcessLookupError:
            return  # it has ended already
        except (OSError, ValueError) as error:
            raise LimitedProcessError(f"the limits of the process cannot be set: {error}") from None


def _tasks_of_user() -> int:
    """Processes and threads of this user, which the system's limit counts together."""
    found = 0
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and folder.stat().st_uid == os.geteuid():
                found += sum(1 for _ in (folder / "task").iterdir())
        except OSError:
            continue  # it has ended
    return found


def _ends_within(pid: int, seconds: float) -> bool:
    until = monotonic() + seconds
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if monotonic() >= until:
            return False
        sleep(_LOOK_EVERY)
    return True


def _end_group(pid: int) -> None:
    with suppress(ProcessLookupError):  # nothing of it is left
        os.killpg(pid, signal.SIGKILL)


class _MemoryFile:
    """A file in memory, without a name."""

    def __init__(self, content: bytes) -> None:
        self.descriptor = os.memfd_create("limited", os.MFD_CLOEXEC)
        view = memoryview(content)
        while view:
            view = view[os.write(self.descriptor, view) :]
        os.lseek(self.descriptor, 0, os.SEEK_SET)

    @property
    def size(self) -> int:
        """Bytes in it."""
        return os.fstat(self.descriptor).st_size

    def read(self, most: int) -> bytes:
        """The first bytes of it."""
        content = bytearray()
        while len(content) < most and (part := os.pread(self.descriptor, min(most, 1 << 20), len(content))):
            content += part
        return bytes(content[:most])

    def __enter__(self) -> _MemoryFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)
