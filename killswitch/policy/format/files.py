"""Policy files in the uniform layout: read, compared, and replaced on disk.

A file is replaced at once, and never if somebody has changed or protected it meanwhile.
"""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from difflib import unified_diff
from pathlib import Path
from tempfile import NamedTemporaryFile

from msgspec import Struct

from killswitch.policy.diagnostics.diagnostic import Diagnostic, diagnostic
from killswitch.policy.format.layout import LayoutError, formatted
from killswitch.policy.yaml.files import Report, about_file, texts
from killswitch.policy.yaml.masked_text import MaskedText
from killswitch.policy.yaml.parser import ParseText, parse


class FormattedFile(Struct, frozen=True):
    """A file as it is written, and its text in the uniform layout."""

    written: MaskedText
    text: str

    @property
    def file(self) -> str:
        return self.written.file

    @property
    def is_changed(self) -> bool:
        """Whether the file is not in the uniform layout."""
        return self.text != self.written.text

    def diff(self) -> Iterator[str]:
        """The lines of a unified diff, with secrets masked; a change of line ends alone is one line."""
        before, after = self.written.shown, MaskedText(self.file, self.text).shown
        lines = list(unified_diff(before, after, self.file, f"{self.file} (formatted)", lineterm=""))
        yield from lines or (f"{self.file}: only its line ends change",)


def format_files(paths: Iterable[Path], report: Report, parse_text: ParseText = parse) -> Iterator[FormattedFile]:
    """Every file that can be formatted; `report` gets a diagnostic for any other."""
    for written in texts(paths, report):
        try:
            yield FormattedFile(written, formatted(written.text, parse_text))
        except LayoutError as error:
            for problem in _problems(written, error):
                report(problem)


def _problems(written: MaskedText, error: LayoutError) -> Iterator[Diagnostic]:
    for each in error.problems:
        place, length = written.place(each.span), written.length(each.span)
        yield diagnostic(each.code, place, each.message, each.fix, length=length)
    if not error.problems:
        fix = "write special characters as escapes in double quotes, and each text on one line"
        yield about_file("KS1110", Path(written.file), str(error), fix)


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
