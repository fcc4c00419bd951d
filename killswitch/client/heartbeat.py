"""Heartbeats of a bot: the proof, sent from its own loop, that the loop goes on.

    from killswitch.client import heartbeat
    heartbeat("maker", progress=loops)

A file of a heartbeat (`killswitch.heartbeat/v1`) is one JSON object: `format`, `boot` (the id of the machine's boot and
of the namespace of times, or null), `monotonic` (seconds of the clock that counts from that boot), `progress` (a whole
number, or null) and `pid`. It is replaced as a whole. An address gets `POST ADDRESS/NAME` with `{"progress": …}`, and
the token of `KILLSWITCH_TOKEN`.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

FORMAT: Final = "killswitch.heartbeat/v1"
WHERE: Final = "KILLSWITCH_HEARTBEATS"
"""The environment variable with the folders and addresses, separated by spaces."""
TOKEN: Final = "KILLSWITCH_TOKEN"
"""The environment variable with the token that is sent to addresses; none is sent without it."""
REQUEST_TIMEOUT: Final = 5.0
"""Seconds that a request to an address may take."""
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
NAMESPACE: Final = Path("/proc/self/ns/time")

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)


def heartbeat(name: str, *, progress: int | None = None, to: Sequence[str] = ()) -> None:
    """Send the heartbeat `name`; returns at once, whatever becomes of it.

    Call it from the loop that it vouches for, after the work of the loop. `progress`: a counter of the loops; while it
    stays the same, a switch with `progress_timeout` counts the heartbeat as none. Count loops, not orders: a quiet
    market is no dead bot. `to`: absolute folders and addresses (`http://…`); left out, those that
    `KILLSWITCH_HEARTBEATS` has.

    Raises ValueError for a name or a destination that no watcher could know. A heartbeat that cannot be delivered is
    logged under `killswitch.client`, once until one is delivered again: the watcher hears silence, which is right.
    """
    require_name(name)
    where = tuple(to) or tuple(os.environ.get(WHERE, "").split())
    if not where:
        raise ValueError(f"no destination of heartbeats: set {WHERE} to a folder or an address, or pass `to`")
    for each in where:
        require_destination(each)
    _SENDER.put(name, progress, where)


def require_name(name: str) -> None:
    """ValueError unless `name` is one that a switch can declare."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name of a heartbeat: use at most 63 lowercase letters, digits, - and ., beginning and "
            "ending with a letter or digit"
        )


def require_destination(where: str) -> None:
    """ValueError unless `where` is an absolute folder or an http address."""
    if not where.startswith(("/", "http://", "https://")):
        raise ValueError(f"{where!r} is no destination of heartbeats: write an absolute folder, or http(s)://HOST…")


def monotonic_origin() -> str | None:
    """What `monotonic_seconds` count from: this boot, in this namespace of times. None where that is not known."""
    try:
        return f"{BOOT_ID.read_text(encoding='ascii').strip()}/{NAMESPACE.readlink()}"
    except OSError:
        return None


def monotonic_seconds() -> float:
    """Seconds since the machine was started, which two processes can compare; with suspended time, on Linux."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def write_file(folder: str, name: str, progress: int | None, monotonic: float) -> None:
    """Replace the file of a heartbeat. OSError if that fails."""
    boot, pid = monotonic_origin(), os.getpid()
    body = {"format": FORMAT, "boot": boot, "monotonic": monotonic, "progress": progress, "pid": pid}
    temporary = Path(folder) / f".{name}.{pid}.tmp"
    temporary.write_text(json.dumps(body), encoding="ascii")
    temporary.replace(Path(folder) / name)


def post(address: str, name: str, progress: int | None) -> None:
    """Send a heartbeat to an address. OSError if no server takes it."""
    from urllib.request import Request  # takes longer to import than all else here

    body = json.dumps({"progress": progress}).encode()
    headers = {"Content-Type": "application/json"}
    if token := os.environ.get(TOKEN):
        headers["Authorization"] = f"Bearer {token}"
    request = Request(f"{address.rstrip('/')}/{name}", body, headers, method="POST")
    with direct_opener().open(request, timeout=REQUEST_TIMEOUT):
        pass


def direct_opener() -> Any:
    """Opens addresses directly: a redirect would carry the token elsewhere, and a proxy would read it."""
    from urllib.request import HTTPRedirectHandler, ProxyHandler, build_opener

    class Unfollowed(HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            """Follow none: the status of the redirect is the answer, which is an error."""

    return build_opener(ProxyHandler({}), Unfollowed)


def _warn(text: str) -> None:
    import logging  # most bots have it; one that has not pays for it here, and not at its start

    logging.getLogger("killswitch.client").warning(text)


class _Destination:
    """The newest heartbeat of a name for one destination, sent by a thread of its own: one may hang, and no other."""

    def __init__(self, name: str, where: str) -> None:
        self._name = name
        self._where = where
        self._newest: tuple[int | None, float] | None = None
        self._wake = threading.Condition()
        self._is_failing = False
        threading.Thread(target=self._run, name=f"heartbeat {name}", daemon=True).start()

    def put(self, progress: int | None, monotonic: float) -> None:
        with self._wake:
            self._newest = (progress, monotonic)
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                while self._newest is None:
                    self._wake.wait()
                (progress, monotonic), self._newest = self._newest, None
            self._send(progress, monotonic)

    def _send(self, progress: int | None, monotonic: float) -> None:
        try:
            if self._where.startswith("/"):
                write_file(self._where, self._name, progress, monotonic)
            else:
                post(self._where, self._name, progress)
        except Exception as error:  # noqa: BLE001 - a thread of the bot must not die of any answer of a server
            if not self._is_failing:
                _warn(f"the heartbeat {self._name} cannot be delivered to {self._where}: {error}")
            self._is_failing = True
        else:
            if self._is_failing:
                _warn(f"the heartbeat {self._name} is delivered to {self._where} again")
            self._is_failing = False


class _Sender:
    """The destinations of this process; a fork begins with none, because it has no threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._destinations: dict[tuple[str, str], _Destination] = {}

    def put(self, name: str, progress: int | None, where: Sequence[str]) -> None:
        now = monotonic_seconds()
        with self._lock:
            for each in where:
                destination = self._destinations.get((name, each))
                if destination is None:
                    destination = self._destinations[name, each] = _Destination(name, each)
                destination.put(progress, now)


_SENDER = _Sender()


def _after_fork() -> None:
    global _SENDER  # noqa: PLW0603 - the copy of the parent's sender has locks that nobody releases, and no threads
    _SENDER = _Sender()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
