"""Resolves references to secrets when they are needed; their values are never shown."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from concurrent.futures import Future
from errno import EFBIG, EINVAL, ETIMEDOUT
from pathlib import Path

from killswitch.deadline import DaemonThreadExecutor

LARGEST = 64 << 10
"""Bytes. A credential is a line, or a key in PEM."""
READ_WITHIN = 10.0
"""Seconds."""


class CredentialError(Exception):
    """A reference could not be resolved. The message names the reference, never a value."""


class Secret(str):
    """A credential in memory: usable as the text it is, but `repr` (and so logs of records) shows a mask."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret(…)"


def resolve(references: Mapping[str, str], *, account: str) -> dict[str, str]:
    """Name → value of every reference (`env:NAME` or `file:PATH`) of `account`.

    CredentialError names the account, the reference, the cause and the way out.
    """
    values = {}
    for name, reference in references.items():
        try:
            values[name] = resolve_one(reference)
        except CredentialError as error:
            raise CredentialError(f"account {account}, credential {name}: {error}") from None
    return values


def resolve_one(reference: str) -> str:
    """The value of one reference. CredentialError has the cause and the way out."""
    kind, _, target = reference.partition(":")
    if kind == "env" and target:
        return Secret(_from_environment(target))
    if kind == "file" and target:
        return Secret(_from_file(Path(target)))
    # The text itself may be a secret that someone pasted: it is not repeated here.
    raise CredentialError("not a reference; write env:NAME or file:PATH")


def _from_environment(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        state = "empty" if value == "" else "not set"
        raise CredentialError(f"the environment variable {name} is {state}; set it for this process")
    return value


def _from_file(path: Path) -> str:
    try:
        value = _content_in_time(path).decode().strip()
    except UnicodeDecodeError:
        raise CredentialError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise CredentialError(f"cannot read {path} ({error.strerror}); check the path and its permissions") from None
    if not value:
        raise CredentialError(f"{path} is empty")
    return value


_reading: dict[Path, Future[bytes]] = {}
"""Reads under way; a file on a disk that hangs occupies one thread."""


def _content_in_time(path: Path) -> bytes:
    """The content of a small regular file, within `READ_WITHIN` seconds; OSError, also for one that hangs."""
    future = _reading.get(path)
    if future is None or future.done():
        future = _reading[path] = DaemonThreadExecutor().submit(_content, path)
    try:
        return future.result(READ_WITHIN)
    except TimeoutError:
        raise OSError(ETIMEDOUT, f"no answer within {READ_WITHIN:g} s") from None


def _content(path: Path) -> bytes:
    # Non-blocking: opening a named pipe waits for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(EINVAL, "it is not a regular file")
        content = os.read(descriptor, LARGEST + 1)
    finally:
        os.close(descriptor)
    if len(content) > LARGEST:
        raise OSError(EFBIG, f"it is larger than {LARGEST >> 10} KiB")
    return content
