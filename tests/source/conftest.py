"""Fixtures of git sources: keys once a session, a fresh host and runner for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.source.signed_repositories import Desk, KeyRing


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyRing]:
    """Keys by the name of their owner."""
    # gpg's agent listens on a socket, whose path must be short
    ring = KeyRing(tmp_path_factory.mktemp("k"))
    yield ring
    ring.close()


@pytest.fixture
def desk(tmp_path: Path, keys: KeyRing) -> Desk:
    """A host with an unsigned commit, which is the anchor of a source that trusts Alice and Bob."""
    return Desk(tmp_path, keys)
