"""The server of a run as a child process: started next to the run, started again when it ends, stopped with it.

It may die, hang or be killed for its memory, and no tick is later for it. A thread waits for its end; the run reports
one that does not stay up.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from killswitch.model.alert import Alerts, alert_if
from killswitch.model.backoff import Backoff
from killswitch.runner.observers import TickReport

PAUSES: Final = Backoff(1.0, 60.0)
"""Seconds before it is started again."""
POLL: Final = 0.1
"""Seconds between two looks for the store, which the run creates."""
STABLE_AFTER: Final = 60.0
"""Seconds after which a server counts as up, and the pauses begin again."""
STOP_WITHIN: Final = 5.0
"""Seconds that a clean stop waits for it, before it is killed."""


class ServerProcess:
    """An observer of a run that keeps `ksctl serve` up."""

    def __init__(self, options: Sequence[str], store: Path) -> None:
        """`options`: those of `ksctl serve`. `store`: it is started once this file is there."""
        self._store = store
        self._command = (  # with -P: no file of the folder in which the run was started is a module of the program
            sys.executable, "-P", "-c", "from killswitch.cli import main; main()", "serve", "--ends-with-stdin",
            *options,
        )  # fmt: skip
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._problem: str | None = None
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)

    def start(self) -> None:
        """Start it, and keep it up."""
        self._thread.start()

    def stop(self) -> None:
        """End it, and wait for a moment."""
        self._stopping.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join(STOP_WITHIN)

    def _run(self) -> None:
        failures = 0
        while not self._store.exists() and not self._stopping.wait(POLL):
            pass
        while not self._stopping.is_set():
            begun = time.monotonic()
            try:
                # Nothing is ever written: the pipe ends with this process, however that ends, and the server with it.
                self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE)
            except OSError as error:
                ended = f"cannot be started: {error.strerror}"
            else:
                code = self._wait(self._process)
                ended = f"has ended with code {code}"
            if self._stopping.is_set():
                return
            failures = 1 if time.monotonic() - begun >= STABLE_AFTER else failures + 1
            pause = PAUSES.after(failures)
            self._problem = f"the server {ended}, and is started again in {pause:.0f} s: see its messages on stderr"
            self._stopping.wait(pause)

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for its end; it counts as up after a while."""
        try:
            code = process.wait(STABLE_AFTER)
        except subprocess.TimeoutExpired:
            self._problem = None
            code = process.wait()
        return code

    def ticked(self, _report: TickReport) -> None:
        """It needs nothing of a tick."""

    @property
    def judges(self) -> tuple[str, ...]:
        return ("server",)

    @property
    def alerts(self) -> Alerts:
        """A page while it does not stay up."""
        return alert_if("server/down", self._problem)
