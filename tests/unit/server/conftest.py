"""A server on loopback over a store that a run has left."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import uvicorn

from killswitch.server.access import Role, TokenFile, TokenRecord, issue, write_tokens
from killswitch.server.app import ServerFile, ServerSettings, create_app
from killswitch.server.connections import ConnectionTable, ConnectionTimes, ListenSettings, uvicorn_config
from killswitch.server.guard import App, Receive, Scope, Send
from killswitch.server.rates import ServerCounters
from killswitch.server.server_record import ServerRecord
from killswitch.store.command_spool import CommandSpool, spool_of
from killswitch.store.sqlite import open_store

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
ROLES: tuple[Role, ...] = ("viewer", "trader", "risk", "admin")


class Served:
    """A running server: its address, its tokens by role, and its spool."""

    def __init__(
        self, store: Path, folder: Path, file: ServerFile | None = None, times: ConnectionTimes | None = None
    ) -> None:
        self.tokens: dict[str, str] = {}
        records: list[TokenRecord] = []
        for role in ROLES:
            for scope in ("portfolio", "account/main"):
                secret, record = issue(f"{role} of {scope}", role, (scope,), CREATED, None)
                self.tokens[f"{role} {scope}"] = secret
                records.append(record)
        self.tokens_at = folder / "tokens.json"
        write_tokens(self.tokens_at, TokenFile(tuple(records)))
        self.spool = CommandSpool(spool_of(store))
        self.spool.prepare()
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        self.counters = ServerCounters()
        settings = ServerSettings(store, self.tokens_at, (self.host,), file or ServerFile())
        table = ConnectionTable(self.counters, times)
        self.held = 0
        """Requests that wait at `/held`."""
        self._release = threading.Event()
        self.record = ServerRecord(store, lambda: datetime.now(UTC), time.monotonic, self.counters)
        app = self._holding(create_app(settings, self.counters, record=self.record))
        self._server = uvicorn.Server(uvicorn_config(app, ListenSettings("127.0.0.1", 0), table, "error"))
        self._thread = threading.Thread(target=self._server.run, args=([listener],), daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)

    def _holding(self, inner: App) -> App:
        """The application with a path whose requests wait until a test lets them go."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope.get("path") == "/held":
                self.held += 1
                await asyncio.to_thread(self._release.wait)
            await inner(scope, receive, send)

        return app

    def release(self) -> None:
        """Let the requests at `/held` go on."""
        self._release.set()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    def ask(self, method: str, path: str, who: str | None = None, **more: Any) -> requests.Response:
        """The answer to a request with the token of `who`, as in `trader account/main`."""
        headers = dict(more.pop("headers", {}))
        if who is not None:
            headers["Authorization"] = f"Bearer {self.tokens[who]}"
        return requests.request(method, f"http://{self.host}{path}", headers=headers, timeout=30, **more)

    def give(self, who: str, key: str, **command: Any) -> requests.Response:
        """The answer to a command."""
        return self.ask("POST", "/v1/commands", who, json=command, headers={"Idempotency-Key": key})


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    """An empty store."""
    path = tmp_path / "ks.sqlite"
    open_store(str(path)).close()
    return path


@pytest.fixture(autouse=True)
def whole_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are read whole: a test of notifications in this process may have had those of `requests` cut off."""
    monkeypatch.setattr(requests.sessions, "HTTPAdapter", requests.adapters.HTTPAdapter)


@pytest.fixture
def served(store_path: Path, tmp_path: Path) -> Iterator[Served]:
    server = Served(store_path, tmp_path)
    try:
        yield server
    finally:
        server.stop()
