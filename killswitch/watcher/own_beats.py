"""The heartbeats of a runner itself: a committed tick is the only sign of its health."""

from __future__ import annotations

import threading
from typing import Final

from killswitch.client.heartbeat import REQUEST_TIMEOUT, heartbeat, monotonic_seconds
from killswitch.model.alert import Alerts, alert_if
from killswitch.runner.observers import TickReport

NAME: Final = "runner"
"""The name of the heartbeat of a runner."""
EVERY: Final = 1.0
"""Seconds between two heartbeats, at least."""
PING_EVERY: Final = 10.0
"""Seconds between two requests to an outgoing address, at least: services count them."""


class RunnerHeartbeat:
    """An observer that sends a heartbeat after each committed tick, with the number of ticks as its progress.

    It is notified after the tick has acted, and threads of the sender do the rest: a disk or a server that hangs delays
    no tick, and a tick that hangs sends nothing.
    """

    def __init__(self, destinations: tuple[str, ...], ping: str | None) -> None:
        """`ping`: an address that is requested as it is, of a service that notices when requests end."""
        self._destinations = destinations
        self._ping = None if ping is None else Ping(ping)
        self._ticks = 0
        self._sent: float | None = None

    def ticked(self, report: TickReport) -> None:
        """Send a heartbeat, if the last one is old enough."""
        self._ticks += report.snapshot.scheduled
        now = monotonic_seconds()
        if self._sent is None or now - self._sent >= EVERY:
            self._sent = now
            if self._destinations:
                heartbeat(NAME, progress=self._ticks, to=self._destinations)
            if self._ping is not None:
                self._ping.request(now)

    @property
    def judges(self) -> tuple[str, ...]:
        return ("ping",)

    @property
    def alerts(self) -> Alerts:
        """A warning page while the outgoing address takes no request."""
        return alert_if("ping/failed", None if self._ping is None else self._ping.problem)


class Ping:
    """Requests an address from a thread of its own; one request at a time."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._wake = threading.Event()
        self._requested: float | None = None
        self.problem: str | None = None
        threading.Thread(target=self._run, name="heartbeat address", daemon=True).start()

    def request(self, now: float) -> None:
        """Request it, unless it was requested a moment ago."""
        if self._requested is None or now - self._requested >= PING_EVERY:
            self._requested = now
            self._wake.set()

    def _run(self) -> None:
        from http.client import HTTPException
        from urllib.request import Request, urlopen

        while True:
            self._wake.wait()
            self._wake.clear()
            try:
                with urlopen(Request(self._address), timeout=REQUEST_TIMEOUT):
                    self.problem = None
            except (OSError, ValueError, HTTPException) as error:
                # The address may hold a token, so that no message repeats it.
                self.problem = f"the outgoing heartbeat address takes no request: {type(error).__name__}"
