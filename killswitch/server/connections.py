"""Connections: how many there are, how long a client may take to send and to read, and the server that holds them.

A client that sends its headers byte by byte, or reads no answer, is cut off. When every place is taken, a connection
on which no whole request waits gives up its place to a new one, of the address that holds the most: a thousand idle
connections keep nobody out. When requests wait on all of them, a few places are left for operator commands.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import uvicorn
from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from killswitch.server.guard import App, problem_head
from killswitch.server.rates import ServerCounters

MOST: Final = 256
"""Connections with any request."""
FOR_COMMANDS: Final = 32
"""Further ones, whose request is answered only if it is an operator command."""
LARGEST_HEADERS: Final = 16 << 10
"""Bytes of the first line and the headers of a request."""
COMMANDS: Final = "/v1/commands"
SWITCH_INTERVAL: Final = 0.0005
"""Seconds after which a thread lets another one run."""
STOP_WITHIN: Final = 3
"""Seconds that a clean stop waits for answers and streams under way."""


class ConnectionTimes(Struct, frozen=True):
    """Seconds that a client may take for its headers, then for its body, to read, and between two requests."""

    headers: float = 5.0
    body: float = 10.0
    reading: float = 30.0
    idle: float = 10.0


class ConnectionTable:
    """The connections of one server. All calls come from its loop."""

    def __init__(self, counters: ServerCounters, times: ConnectionTimes | None = None, most: int = MOST) -> None:
        self.times = times or ConnectionTimes()
        self.counters = counters
        self._most = most
        self._all: OrderedDict[BoundedProtocol, str] = OrderedDict()
        """Connection → its address, the oldest first."""
        counters.gauges["connections"] = lambda: float(len(self._all))

    def enter(self, connection: BoundedProtocol, address: str) -> bool:
        """Count a new connection; false if there is no place for it at all."""
        if len(self._all) >= self._most:
            self._evict()
        if len(self._all) >= self._most + FOR_COMMANDS:
            self.counters.count("refused_connections", "full")
            return False
        self._all[connection] = address
        return True

    def leave(self, connection: BoundedProtocol) -> None:
        """Forget a connection that is over."""
        self._all.pop(connection, None)

    @property
    def is_full(self) -> bool:
        """Whether only operator commands are answered."""
        return len(self._all) > self._most

    def _evict(self) -> None:
        """Close the connection without a whole request that is the oldest of the address which has the most of them."""
        idle = [(each, address) for each, address in self._all.items() if not each.is_busy]
        if not idle:
            return
        crowd = Counter(address for _, address in idle).most_common(1)[0][0]
        chosen = next(each for each, address in idle if address == crowd)
        self.counters.count("closed_connections", "idle")
        chosen.close()


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits of time, of headers and of connections."""

    table: ConnectionTable

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Begin to wait for headers, or end at once where there is no place."""
        super().connection_made(transport)
        self.is_busy = False
        """Whether a whole request waits for its answer."""
        self.is_receiving = False
        """Whether the headers of a request are there, and its body is not."""
        self._is_refused = False
        self._timer: asyncio.TimerHandle | None = None
        self._slow: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        if not self.table.enter(self, self.client[0] if self.client else ""):
            transport.abort()
            return
        self._wait(self.table.times.headers, "slow headers")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.table.leave(self)
        self._end_wait()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass on what the client sends, unless its headers are too long."""
        if self._is_refused:
            return
        if not self.is_receiving and not self.is_busy:
            self._header_bytes += len(data)
            if self._timer is None:
                self._wait(self.table.times.headers, "slow headers")
        super().data_received(data)
        if not self.is_receiving and not self.is_busy and self._header_bytes > LARGEST_HEADERS:
            self._refuse(431, "Request Header Fields Too Large", f"headers have at most {LARGEST_HEADERS} bytes")

    def on_headers_complete(self) -> None:
        """Begin to wait for the body, unless every place is taken and this is no command."""
        if sum(len(name) + len(value) for name, value in self.headers) + len(self.url) > LARGEST_HEADERS:
            self._refuse(431, "Request Header Fields Too Large", f"headers have at most {LARGEST_HEADERS} bytes")
            return
        if self.table.is_full and not self.url.partition(b"?")[0].endswith(COMMANDS.encode()):
            self.table.counters.count("refused_connections", "busy")
            self._refuse(503, "Service Unavailable", "every connection is in use: only operator commands are served")
            return
        self.is_receiving = True
        self._wait(self.table.times.body, "slow body")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass it on, unless its request was refused."""
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole: its answer takes as long as its route needs."""
        if self._is_refused:
            return
        self._end_wait()
        self.is_receiving, self.is_busy, self._header_bytes = False, True, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self.is_busy = False
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client does not read: give it a while."""
        super().pause_writing()
        self._slow = self.loop.call_later(self.table.times.reading, self._expire, "slow reader")

    def resume_writing(self) -> None:
        """It reads again."""
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
        super().resume_writing()

    def close(self) -> None:
        """End the connection, whatever it waits for."""
        self.table.leave(self)
        if not self.transport.is_closing():
            self.transport.abort()

    def _wait(self, seconds: float, why: str) -> None:
        self._end_wait()
        self._timer = self.loop.call_later(seconds, self._expire, why)

    def _end_wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self, why: str) -> None:
        self.table.counters.count("closed_connections", why.replace(" ", "_"))
        self.close()

    def _refuse(self, status: int, title: str, detail: str) -> None:
        """Answer before any application, and end the connection."""
        if self._is_refused:
            return
        self._is_refused = True
        self._end_wait()
        self.transport.write(problem_head(status, title, detail))
        self.transport.close()


class ListenSettings(Struct, frozen=True):
    """Where a server listens, and its certificate, if it has one."""

    address: str
    port: int
    certificate: Path | None = None
    key: Path | None = None


def uvicorn_config(
    app: App, listen: ListenSettings, table: ConnectionTable, log_level: Literal["warning", "error"] = "warning"
) -> uvicorn.Config:
    """The configuration of the server, the same for `ksctl serve` and for tests."""
    bounded = type("BoundedProtocolOfTable", (BoundedProtocol,), {"table": table})
    more: dict[str, Any] = {} if listen.certificate is None else {
        "ssl_certfile": str(listen.certificate), "ssl_keyfile": None if listen.key is None else str(listen.key),
    }  # fmt: skip
    if logging.getLogger().handlers:
        more["log_config"] = None  # the process has a log, which has those of libraries too
    return uvicorn.Config(
        app, host=listen.address, port=listen.port, http=bounded, ws="none", log_level=log_level, access_log=False,
        server_header=False, date_header=False, proxy_headers=False, lifespan="off",
        timeout_keep_alive=int(table.times.idle), timeout_graceful_shutdown=STOP_WITHIN, loop="asyncio", **more,
    )  # fmt: skip


def listening_sockets(listen: ListenSettings) -> list[socket.socket]:
    """A socket for every address of the name. Raises OSError, such as for a port that is in use."""
    found = socket.getaddrinfo(listen.address, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    with ExitStack() as failed:
        sockets: list[socket.socket] = []
        for family, at in dict.fromkeys((family, at) for family, _, _, _, at in found):
            with _without_ipv6(family):
                sockets.append(failed.enter_context(socket.create_server(at, family=family)))
        failed.pop_all()
    return sockets


@contextmanager
def _without_ipv6(family: int) -> Iterator[None]:
    """Leave an address out that the kernel has no family for: `localhost` has one of each."""
    try:
        yield
    except OSError as error:
        if family != socket.AF_INET6 or error.errno != errno.EAFNOSUPPORT:
            raise


def loaded_server(app: App, listen: ListenSettings, counters: ServerCounters) -> uvicorn.Server:
    """The server, with its certificate read. Raises OSError where that or its key cannot be used."""
    config = uvicorn_config(app, listen, ConnectionTable(counters))
    config.load()
    return uvicorn.Server(config)


def run_server(server: uvicorn.Server, sockets: list[socket.socket], *, ends_with_stdin: bool) -> None:
    """Serve until a signal ends it, or, with `ends_with_stdin`, as soon as stdin ends.

    A run holds the other end of that pipe, which the system closes when the run ends, also by SIGKILL: a server that it
    leaves behind would go on answering by a view that nobody writes, and keep the port from the next run.
    """
    # A read in a thread must not keep the gate waiting for the five milliseconds that Python gives it.
    sys.setswitchinterval(SWITCH_INTERVAL)
    if ends_with_stdin:
        threading.Thread(target=_end_with_stdin, args=(server,), name="parent", daemon=True).start()
    server.run(sockets)


def _end_with_stdin(server: uvicorn.Server) -> None:
    """Wait for the end of stdin, then end the server: cleanly, or at once if it hangs."""
    while os.read(0, 1024):
        pass
    server.should_exit = True
    time.sleep(STOP_WITHIN + 1)
    os._exit(1)
