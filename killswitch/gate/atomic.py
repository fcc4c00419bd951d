"""Replacing a file so that every reader, and every crash, finds the old one or the new one, whole."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_PREFIX, _SUFFIX = ".killswitch-", ".tmp"
ABANDONED = 60.0
"""Seconds after which a temporary file is one that a killed writer left."""


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, sync it, rename it over `path`, and sync the folder; OSError if it fails.

    The temporary name cannot be guessed, so nothing that others put into the folder is opened or written through,
    and two writers do not share it. It is the owner's alone until it is whole; then the umask decides who reads it.
    """
    temporary = path.with_name(f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}")
    descriptor = os.open(temporary, _CREATE, 0o644)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 # a descriptor is no path
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            os.fchmod(descriptor, 0o600)
            file.write(content)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one that a writer has not renamed yet."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


def remove_abandoned(temporary: Iterable[Path], now: float) -> None:
    """Remove those of killed writers. `now` in Unix seconds; what cannot be removed stays."""
    for each in temporary:
        with suppress(OSError):
            if now - each.lstat().st_mtime > ABANDONED:
                each.unlink()


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
