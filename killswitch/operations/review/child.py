"""The process of a review: `python -m killswitch.operations.review.child` reads a ReviewRequest and writes a Review.

Both are JSON, on standard input and output. Whatever ends the process without an answer is no verdict: the change then
needs what a loosening needs, and the set in force stays.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from time import perf_counter
from typing import IO

import msgspec

from killswitch.model.legible import one_line
from killswitch.source.candidate import Review, ReviewRequest, SourceProblem
from killswitch.source.limited_process import LimitedProcessError, ProcessLimits, python_module, run_limited
from killswitch.source.trust_file import TrustFileError, parse_trust

MODULE = "killswitch.operations.review.child"
MEMORY = 3 << 30
"""Bytes of address space, most of which the prover may need."""
LARGEST_FILE = 64 << 20
LARGEST_ANSWER = 16 << 20
MARGIN = 60.0
"""Seconds that a review may take besides its proof: compiling, scenarios, signatures."""


def reviewed(request: ReviewRequest, command: Sequence[str] | None = None, margin: float = MARGIN) -> Review:
    """The review of a request, made in a process of its own with limits, killed with its group (P1). Never raises.

    `command`: another program in place of this module. `margin`: seconds besides those of the proof.
    """
    program, environment = python_module(MODULE)
    limits = ProcessLimits(
        seconds=request.seconds + margin, memory_bytes=MEMORY, file_bytes=LARGEST_FILE, output_bytes=LARGEST_ANSWER
    )
    try:
        answer = run_limited(command or program, msgspec.json.encode(request), limits, environment)
        return msgspec.json.decode(answer, type=Review)
    except LimitedProcessError as error:
        return unfinished(f"the review gave no answer: {error}")
    except msgspec.DecodeError as error:
        return unfinished(f"the review gave no answer that can be read: {error}")


def unfinished(text: str) -> Review:
    """The review of which nothing is known: no verdict, and a problem that keeps the set in force."""
    fix = "make the change smaller, or propose it in several steps; the set in force stays"
    problem = SourceProblem(code="KS8322", text=one_line(text)[:400], fix=fix, is_page=False)
    return Review(verdict="UNDECIDED", why=(f"UNDECIDED: {problem.text}",), problems=(problem,), approvals_needed=1)


def serve(source: IO[bytes], out: IO[bytes]) -> None:
    """Read one request, review it, and write the answer."""
    try:
        request = msgspec.json.decode(source.read(), type=ReviewRequest)
    except msgspec.DecodeError as error:
        review = unfinished(f"the request cannot be read: {error}")
    else:
        review = _answer(request)
    out.write(msgspec.json.encode(review))


def _answer(request: ReviewRequest) -> Review:
    from killswitch.operations.review.reviewing import review
    from killswitch.store.errors import StoreError

    try:
        trust = None if request.trust is None else parse_trust(request.trust, "trust file")
    except TrustFileError as error:
        return unfinished(f"the trust file of the set in force cannot be read: {error}")
    try:
        return review(request, trust, perf_counter)
    except StoreError as error:
        return unfinished(f"the store of the runner cannot be read: {error}")
    except (MemoryError, RecursionError) as error:
        return unfinished(f"the review needs more than it may use ({type(error).__name__})")


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
