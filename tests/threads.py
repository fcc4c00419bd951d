"""A process that cannot start another thread, as at the process limit of a container."""

from __future__ import annotations

import threading

import pytest

ATTACK = """
import os, threading
start = threading.Thread.start
def refused(thread):
    if os.path.exists(os.environ["NO_THREADS"]):
        raise RuntimeError("can't start new thread")
    return start(thread)
threading.Thread.start = refused
"""
"""A `sitecustomize` that refuses every thread while the file that NO_THREADS names is there."""


class NoThreads:
    """From `begin` to `end`, the system refuses to start a thread."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._start = threading.Thread.start

    def begin(self) -> None:
        def refused(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        self._patch.setattr(threading.Thread, "start", refused)

    def end(self) -> None:
        self._patch.setattr(threading.Thread, "start", self._start)
