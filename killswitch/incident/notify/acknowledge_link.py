"""Links to the page on which a firing is acknowledged, and the seals that make them.

A link names an incident and carries the seal of its id. It is no token: opening it changes nothing, and all that it
allows is to acknowledge that incident. The page seals the number of the newest firing that it shows, so that nothing
later is acknowledged by it. The key of the seals is a file next to the store, which the runner and the server read.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from msgspec import Struct

KEY_BYTES: Final = 32
SEAL_LENGTH: Final = 32
"""Hexadecimal digits of a seal: 128 bits."""
PAGE: Final = "/ack/"
"""The path of the page, before the sealed id."""


def key_file(store_at: str) -> Path:
    """The file with the key of the seals of a store, by its path or `sqlite:///` URL."""
    return Path(store_at.removeprefix("sqlite:///") + ".ack-key")


def read_key(store_at: str) -> bytes:
    """The key of the seals; it is made where there is none. OSError if it can be neither read nor made."""
    path = key_file(store_at)
    with suppress(FileExistsError):
        # Whole before it has its name: another process may read it at any time. What a killed one has left is not met.
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if not path.exists():
                os.write(descriptor, secrets.token_bytes(KEY_BYTES))
                os.fsync(descriptor)
                os.link(fresh, path)
        finally:
            os.close(descriptor)
            fresh.unlink()
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise OSError(None, f"{path} has {len(key)} bytes, and a key has {KEY_BYTES}: remove the file")
    return key


class Seals(Struct, frozen=True):
    """Makes and compares seals. `key` is read when it is needed, because a file may come later than its reader."""

    key: Callable[[], bytes]

    def seal(self, *parts: str) -> str:
        """The seal of some texts."""
        return hmac.new(self.key(), "\x00".join(parts).encode(), sha256).hexdigest()[:SEAL_LENGTH]

    def is_seal(self, given: str, *parts: str) -> bool:
        """Whether this is the seal of the texts; its time does not depend on how much of it is right."""
        return hmac.compare_digest(given.encode(), self.seal(*parts).encode())

    def sealed_id(self, about: str) -> str:
        """The last part of the path of a link: the id of a decision or an incident, and its seal."""
        return f"{about}-{self.seal('page', about)}"

    def about(self, sealed_id: str) -> str | None:
        """The id of a link; None if it is none of ours."""
        about, _, seal = sealed_id.rpartition("-")
        return about if about and self.is_seal(seal, "page", about) else None


def seals_of(store_at: str) -> Seals:
    """The seals of a store."""
    return Seals(lambda: read_key(store_at))


def link(pages_at: str, seals: Seals, about: str) -> str | None:
    """The address of the page of an incident; None if the key cannot be read or made."""
    try:
        return f"{pages_at.rstrip('/')}{PAGE}{seals.sealed_id(about)}"
    except OSError:
        return None
