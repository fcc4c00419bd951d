"""Replaces policy files on disk: at once, and never one that somebody has changed or protected meanwhile."""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from pathlib import Path
from tempfile import NamedTemporaryFile

from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.format.layout import FormattedFile
from killswitch.policy.yaml.files import about_file


def write_formatted(formatted: FormattedFile) -> Diagnostic | None:
    """Write a file in its uniform layout; the problem if it must not be replaced."""
    try:
        replace_file(Path(formatted.file), formatted.written.text, formatted.text)
    except WriteRefusedError as refused:
        return about_file("KS1006", Path(formatted.file), str(refused), refused.fix)
    return None


class WriteRefusedError(Exception):
    """A file that must not be replaced; the text says why, and `fix` what to do."""

    def __init__(self, why: str, fix: str) -> None:
        super().__init__(why)
        self.fix = fix


def replace_file(path: Path, before: str, text: str) -> None:
    """Replace the content of a file at once, so that no reader sees half of it; a link stays a link.

    `before`: what was read. WriteRefusedError if the file is read-only, has changed since, or cannot be written.
    """
    try:
        real = path.resolve()
        if require_writable(real, before) == text:
            return  # another run has written the same
        found = real.stat()
        with NamedTemporaryFile("wb", dir=real.parent, prefix=f".{real.name}.", delete=False) as file:
            copy = Path(file.name)
            try:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
                if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
                    os.chown(copy, found.st_uid, found.st_gid)
                copy.chmod(found.st_mode & 0o7777)
                copy.replace(real)
            except BaseException:
                copy.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise WriteRefusedError(f"cannot be written: {error.strerror or error}", "check its permissions") from error


def require_writable(path: Path, before: str) -> str:
    """The present text of a file; WriteRefusedError if the file is read-only, or is no longer as it was read."""
    mode = path.stat().st_mode
    if not mode & 0o222 or not os.access(path, os.W_OK):
        raise WriteRefusedError("is read-only", "make it writable, or leave it out")
    now = path.read_bytes().removeprefix(BOM_UTF8).decode(errors="replace")
    if now != before:
        raise WriteRefusedError("has changed since it was read", "run the command again")
    return now
