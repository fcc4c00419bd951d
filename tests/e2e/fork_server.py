"""A process that has imported what most commands need, and forks a child for each request.

A child equals a new interpreter without the second of imports: its environment, folder, arguments and streams are those
of the request, and it ends as an interpreter ends. It inherits no thread and no event loop, which is checked before the
first request. `tests.e2e.fork_client` sends the requests.
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
    # The OpenTelemetry SDK reads its settings from the environment when it is imported.
    "killswitch.telemetry.exporting", "killswitch.telemetry.metrics", "killswitch.telemetry.provider",
    # Modules that no command of these tests needs, and modules that are slow to import.
    "killswitch.render", "killswitch.cli.lab.backtest", "killswitch.cli.lab.demo", "killswitch.cli.lab.market",
    "killswitch.conformance", "killswitch.lab",
)  # fmt: skip
EXTRA_MODULES: Final = (
    "killswitch.lab.book", "killswitch.lab.crash", "killswitch.lab.feed", "killswitch.lab.recording",
    "killswitch_paper.server", "ccxt", "ccxt.async_support", "ccxt.pro", "aiohttp.web", "tests.wire.__main__",
)  # fmt: skip
PACKAGES: Final = ("killswitch", "killswitch_ccxt", "killswitch_alpaca", "killswitch_paper")


def serve(descriptor: int) -> Callable[[], Any]:
    """Fork for each request until the socket is closed. In a child: return what the child runs."""
    requests = socket.socket(fileno=descriptor)
    for name in (*(name for package in PACKAGES for name in _modules(package)), *EXTRA_MODULES):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # no collection in a child visits these objects again
    tasks = Path("/proc/self/task")
    assert len(list(tasks.iterdir())) == 1, "a process with threads is not to be forked"
    wake_writer, wake_reader = socket.socketpair()
    wake_writer.setblocking(False)
    wake_reader.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_writer.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([requests, wake_reader], [], [])
        if wake_reader in ready:
            wake_reader.recv(LARGEST)
        _reap(children)
        if requests not in ready:
            continue
        request, descriptors, _, _ = socket.recv_fds(requests, LARGEST, 4)
        if not request:
            sys.exit()
        exit_socket = socket.socket(fileno=descriptors.pop())
        child = os.fork()
        if not child:
            return _become(json.loads(request), descriptors)
        for each in descriptors:
            os.close(each)
        children[child] = exit_socket
        exit_socket.sendall(child.to_bytes(8, "big"))


def _modules(name: str) -> Iterator[str]:
    """The package and its modules, except those in `LEFT_OUT`."""
    if name.startswith(LEFT_OUT):
        return
    yield name
    for found in pkgutil.iter_modules(getattr(importlib.import_module(name), "__path__", ())):
        yield from _modules(f"{name}.{found.name}")


def _reap(children: dict[int, socket.socket]) -> None:
    """Send the exit code of each child that has ended."""
    while children:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            return
        exit_socket = children.pop(child)
        with exit_socket, suppress(OSError):  # the requester may be gone
            exit_socket.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))


def _become(request: dict[str, Any], descriptors: list[int]) -> Callable[[], Any]:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream, descriptor in enumerate(descriptors):
        os.dup2(descriptor, stream)
    os.closerange(3, 4096)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = ["-c", *request["arguments"]]
    return lambda: exec(compile(request["code"], "<string>", "exec"), sys.modules["__main__"].__dict__)
