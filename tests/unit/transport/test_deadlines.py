"""Deadlines of requests in threads: nothing is sent once the time is up."""

from __future__ import annotations

import socket
import time

import pytest
import requests

from killswitch.transport.adapters import WatchedAdapter
from killswitch.transport.deadlines import deadline


def test_no_request_is_sent_after_its_deadline() -> None:
    """A request that gets a connection too late is not sent, so it was not executed."""
    with socket.create_server(("127.0.0.1", 0)) as server, requests.Session() as session:
        session.mount("http://", WatchedAdapter())
        with pytest.raises(requests.exceptions.ConnectTimeout), deadline(0.05):
            time.sleep(0.2)  # the time that name resolution may take
            session.post(f"http://127.0.0.1:{server.getsockname()[1]}", timeout=9)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
