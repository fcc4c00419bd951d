"""A webhook receiver on loopback that can be down, refuse, or accept a request and never answer."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

ID = re.compile(r"notification ([0-9a-zA-Z-]+)$")


DRIPPING = {
    "status": b"HTTP/1.1 200 OK\r\nX: ",
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\nConnection: close\r\n\r\n",
}


def free_port() -> int:
    """A port on which nothing listens now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Webhook:
    """The received requests, as JSON. `refusals`: how many of the next requests are answered with 500."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.bodies: list[dict[str, Any]] = []
        self.refused = 0
        self.refusals = 0
        self.silent = False
        self.redirect: str | None = None
        """Where the next requests are sent on to, by 307."""
        self.endless = False
        """Whether the answer to a request that was taken has no end."""
        self.drips: Literal["status", "body"] | None = None
        """What of its answers comes byte by byte, and has no end."""
        self.released = threading.Event()

    @property
    def ids(self) -> list[str]:
        """Ids of the messages, in the order of arrival."""
        found = [ID.search(body["message"]) for body in self.bodies]
        return [match[1] for match in found if match]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listens until the end; every request has been processed then."""
        server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            self.released.set()
            server.shutdown()
            thread.join()
            server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if webhook.refusals > 0:
                    webhook.refusals -= 1
                    webhook.refused += 1
                    self.send_error(500)
                    return
                if webhook.redirect is not None:
                    self.send_response(307)
                    self.send_header("Location", webhook.redirect)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                webhook.bodies.append(body)
                if webhook.silent:
                    webhook.released.wait()
                    self.close_connection = True
                    return
                if webhook.drips is not None:
                    self.wfile.write(DRIPPING[webhook.drips])
                    self.close_connection = True
                    with suppress(OSError):
                        while not webhook.released.wait(0.02):
                            self.wfile.write(b"x")
                    return
                self.send_response(200)
                if not webhook.endless:
                    self.send_header("Content-Length", "0")
                self.end_headers()
                with suppress(OSError):
                    while webhook.endless:
                        self.wfile.write(bytes(2**20))

            def log_message(self, *_: object) -> None:
                pass

        return Handler
