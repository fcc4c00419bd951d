"""The process of a review: `python -m killswitch.operations.review.child` reads a ReviewRequest and writes a Review.

Both are JSON, on standard input and output. The process limits itself before it reads a byte, and its parent kills it
with its group. Whatever ends it is no verdict: the change then needs what a loosening needs.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import IO

import msgspec
from msgspec import Struct

from killswitch.source.candidate import SourceProblem
from killswitch.source.review import Review, ReviewRequest
from killswitch.source.trust import Trust

MODULE = "killswitch.operations.review.child"
MEMORY = 3 << 30
"""Bytes of address space."""
LARGEST_REQUEST = 256 << 20
MARGIN = 60.0
"""Seconds that a review may take besides its proof: compiling, scenarios, signatures."""
_LIMITS = {
    resource.RLIMIT_AS: MEMORY, resource.RLIMIT_FSIZE: 64 << 20, resource.RLIMIT_NOFILE: 256, resource.RLIMIT_CORE: 0,
    resource.RLIMIT_NPROC: 4096,
}  # fmt: skip


class ReviewProcess(Struct, frozen=True):
    """How the process is started: its command and its environment, in which no secret of the runner is."""

    command: tuple[str, ...]
    environment: dict[str, str]


def review_process() -> ReviewProcess:
    """The process that reviews. It looks for modules where this one does, and never in its working folder."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    environment = {**kept, "LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    return ReviewProcess((sys.executable, "-P", "-m", MODULE), environment)


def reviewed(request: ReviewRequest, process: ReviewProcess | None = None, margin: float = MARGIN) -> Review:
    """The review of a request, made in a process of its own. Never raises for what happens there.

    `margin`: seconds that it may take besides those of its proof.
    """
    process = process or review_process()
    within = request.seconds + margin
    with TemporaryDirectory(prefix="killswitch-review-") as folder:
        environment = {**process.environment, "HOME": folder, "TMPDIR": folder}
        try:
            child = subprocess.Popen(
                process.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder,
                env=environment, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return unfinished(f"the process of the review cannot be started: {error.strerror}")
        try:
            out, _ = child.communicate(msgspec.json.encode(request), timeout=within)
        except subprocess.TimeoutExpired:
            return unfinished(f"the review did not end within {within:g} s")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.communicate()  # closes its pipes, which nobody of the group holds any more
    try:
        return msgspec.json.decode(out, type=Review)
    except msgspec.DecodeError:
        ended = child.returncode
        how = f"signal {-ended}" if ended < 0 else f"exit status {ended}"
        return unfinished(f"the process of the review ended without an answer ({how})")


def unfinished(text: str) -> Review:
    """The review of which nothing is known: no verdict, and a problem that keeps the set in force."""
    fix = "make the change smaller, or propose it in several steps"
    problem = SourceProblem(code="KS8322", text=text, fix=fix, is_page=False)
    return Review(verdict="UNDECIDED", why=(f"UNDECIDED: {text}",), problems=(problem,), approvals_needed=1)


def limit_this_process(seconds: float) -> None:
    """Bound memory, files, processes and processor time of this process, and of those that it starts."""
    for limit, value in {**_LIMITS, resource.RLIMIT_CPU: int(seconds + MARGIN) + 1}.items():
        _, hard = resource.getrlimit(limit)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (most, most))


def serve(source: IO[bytes], out: IO[bytes]) -> None:
    """Read one request, review it, and write the answer."""
    try:
        request = msgspec.json.decode(source.read(LARGEST_REQUEST), type=ReviewRequest)
    except msgspec.DecodeError as error:
        out.write(msgspec.json.encode(unfinished(f"the request cannot be read: {error}")))
        return
    limit_this_process(request.seconds)
    out.write(msgspec.json.encode(_answer(request)))


def _answer(request: ReviewRequest) -> Review:
    from killswitch.operations.review.reviewing import review

    try:
        return review(request, None if request.trust is None else _trust(request.trust), perf_counter)
    except (MemoryError, RecursionError) as error:
        return unfinished(f"the review needs more than it may use ({type(error).__name__})")


def _trust(content: bytes) -> Trust:
    trust: Trust = import_module("killswitch.source.trust_file").parse_trust(content, "trust")
    return trust


if __name__ == "__main__":
    limit_this_process(3600.0)
    serve(sys.stdin.buffer, sys.stdout.buffer)
