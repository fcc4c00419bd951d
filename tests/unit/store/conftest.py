"""The connections to SQLite that a store opens, so that a test can limit or watch them as a disk would."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """The connections that stores open from now on."""
    made: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def recorded(at: Any, **options: Any) -> sqlite3.Connection:
        made.append(connect(at, **options))
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", recorded)
    return made
