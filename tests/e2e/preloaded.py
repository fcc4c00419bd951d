"""A process that has imported what most commands need, and forks a child for each one that it is asked for.

A child is what an interpreter of its own would be, without the second of imports: its environment, folder, arguments
and streams are those of the request, and it ends as the interpreter ends. It has no thread and no event loop to
inherit, which is looked at before the first request. `tests.e2e.forks` asks.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

LARGEST: Final = 1 << 18
"""Bytes of a request: arguments and environment."""
LEFT_OUT: Final = (
    # Settings of the OpenTelemetry SDK are read from the environment when it is imported.
    "killswitch.telemetry.exporting", "killswitch.telemetry.metrics", "killswitch.telemetry.provider",
    # What no command of these tests needs, and what is slow to import.
    "killswitch.render", "killswitch.cli.lab.backtest", "killswitch.cli.lab.demo", "killswitch.cli.lab.market",
    "killswitch.conformance", "killswitch.lab",
)  # fmt: skip
BESIDE: Final = (
    "killswitch.lab.book", "killswitch.lab.crash", "killswitch.lab.feed", "killswitch.lab.recording",
    "killswitch_paper.server", "ccxt", "ccxt.async_support", "ccxt.pro", "aiohttp.web", "tests.wire.__main__",
)  # fmt: skip
ROOMS: Final = ("killswitch", "killswitch_ccxt", "killswitch_alpaca", "killswitch_paper")


def serve(descriptor: int) -> Callable[[], Any]:
    """Fork until nobody asks any more. In a child: return what it is to do."""
    asking = socket.socket(fileno=descriptor)
    for name in (*(name for room in ROOMS for name in _modules(room)), *BESIDE):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # no child goes through all that again
    tasks = Path("/proc/self/task")
    assert len(list(tasks.iterdir())) == 1, "a process with threads is not to be forked"
    waking, woken = socket.socketpair()
    waking.setblocking(False)
    woken.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([asking, woken], [], [])
        if woken in ready:
            woken.recv(LARGEST)
        _reap(children)
        if asking not in ready:
            continue
        asked, descriptors, _, _ = socket.recv_fds(asking, LARGEST, 4)
        if not asked:
            sys.exit()
        told = socket.socket(fileno=descriptors.pop())
        child = os.fork()
        if not child:
            return _become(json.loads(asked), descriptors)
        for each in descriptors:
            os.close(each)
        children[child] = told
        told.sendall(child.to_bytes(8, "big"))


def _modules(name: str) -> Iterator[str]:
    """A package and what is in it."""
    if name.startswith(LEFT_OUT):
        return
    yield name
    for found in pkgutil.iter_modules(getattr(importlib.import_module(name), "__path__", ())):
        yield from _modules(f"{name}.{found.name}")


def _reap(children: dict[int, socket.socket]) -> None:
    """Tell how each child that has ended did."""
    while children:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            return
        told = children.pop(child)
        with told, suppress(OSError):  # perhaps nobody wants to know any more
            told.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))


def _become(asked: dict[str, Any], descriptors: list[int]) -> Callable[[], Any]:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream, descriptor in enumerate(descriptors):
        os.dup2(descriptor, stream)
    os.closerange(3, 4096)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    sys.argv = ["-c", *asked["arguments"]]
    return lambda: exec(compile(asked["code"], "<string>", "exec"), sys.modules["__main__"].__dict__)
