"""Discovery and reading of policy files."""

from __future__ import annotations

import os
import stat
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from killswitch.deadline import DeadlineError, call_within
from killswitch.model.applied_set import PolicyFile
from killswitch.policy.diagnostics.diagnostic import Diagnostic, diagnostic
from killswitch.policy.yaml.masked_text import MaskedText
from killswitch.policy.yaml.parser import TextSpan

LARGEST = 1 << 20
"""The maximum size of a policy file in bytes. Policies are read by people; a larger file is something else."""

ANSWERS_WITHIN = 30.0
"""Seconds to read one path. A folder of policies takes far less; a dead mount never answers."""

Report = Callable[[Diagnostic], None]

_SUFFIXES = (".yaml", ".yml")
_NO_FILE = "contains no .yaml or .yml file", "name the folder that contains the policies"


def texts(paths: Iterable[Path], report: Report) -> Iterator[MaskedText]:
    """The texts of every `*.yaml` and `*.yml` below `paths`, in the order of their names, each once; hidden files are
    skipped."""
    seen: set[Path] = set()
    for path in paths:
        try:
            found, problems = call_within(ANSWERS_WITHIN, str(path), partial(_read_below, path))
        except DeadlineError as error:
            report(about_file("KS1001", path, str(error).removeprefix(f"{path} "), "check that its mount is alive"))
            continue
        for problem in problems:
            report(problem)
        for real, written in found:
            if real not in seen:
                seen.add(real)
                yield written


def given_texts(files: Iterable[PolicyFile], report: Report) -> Iterator[MaskedText]:
    """The texts of files in memory, as `texts` reads a folder that holds them; places name their paths as written."""
    is_empty = True
    for file in sorted(files, key=lambda each: each.path):
        parts = PurePosixPath(file.path).parts
        if not file.path.endswith(_SUFFIXES) or any(part.startswith(".") for part in parts):
            continue
        is_empty = False
        try:
            yield _decoded(Path(file.path), file.content)
        except _FileRejectedError as error:
            report(error.problem)
    if is_empty:
        report(about_file("KS1002", Path(), *_NO_FILE))


class _FileRejectedError(Exception):
    """A file or folder that cannot be used; `problem` is the diagnostic."""

    def __init__(self, problem: Diagnostic) -> None:
        super().__init__(problem.message)
        self.problem = problem


_MOST_SWITCHES = 5
"""How often a mount is read again because it was switched meanwhile."""


def _read_below(path: Path) -> tuple[list[tuple[Path, MaskedText]], list[Diagnostic]]:
    """The texts at or below a path, each with its resolved path, and the problems of files that cannot be read.

    The mount of a ConfigMap is read at one generation: file by file through its links, two would be mixed.
    """
    for _ in range(_MOST_SWITCHES):
        mount = _mounted(path)
        result = _read_once(path, mount)
        if mount == _mounted(path):
            return result
    fix = "try again; something switches the mount all the time"
    return [], [about_file("KS1001", path, f"was switched {_MOST_SWITCHES} times while it was read", fix)]


def _mounted(path: Path) -> Path | None:
    """The folder that the link `..data` of a mount leads to; None if the path is no mount."""
    try:
        data = path / "..data"
        return data.resolve() if data.is_symlink() else None
    except (OSError, RuntimeError):
        return None


def _read_once(path: Path, mount: Path | None) -> tuple[list[tuple[Path, MaskedText]], list[Diagnostic]]:
    found: list[tuple[Path, MaskedText]] = []
    problems: list[Diagnostic] = []
    try:
        for file in _files(path, mount, problems):
            place = file if mount is None or not file.is_relative_to(mount) else path / file.relative_to(mount)
            try:
                found.append((file.resolve(), _read(file, place)))
            except _FAILURES as error:
                problems.append(_problem(place, error))
    except _FAILURES as error:
        problems.append(_problem(path, error))
    return found, problems


_FAILURES = (_FileRejectedError, OSError, RuntimeError)
"""`Path` raises a RuntimeError for links that lead in a circle."""


def _problem(path: Path, error: _FileRejectedError | OSError | RuntimeError) -> Diagnostic:
    if isinstance(error, _FileRejectedError):
        return error.problem
    why = error.strerror if isinstance(error, OSError) else error
    return about_file("KS1001", path, f"cannot be read: {why}", "check the path and its permissions")


def _files(path: Path, mount: Path | None, problems: list[Diagnostic]) -> list[Path]:
    """The YAML files at or below a path; a folder that cannot be read is a problem, because it may hold policies.

    So is a link to a folder, except those of a mount, whose files are those below `mount`.
    """
    if not path.is_dir():
        return [path]
    found: list[Path] = []

    def unreadable(error: OSError) -> None:
        problems.append(_problem(Path(error.filename), error))

    for root in (path,) if mount is None else (mount, path):
        for folder, below, names in os.walk(root, onerror=unreadable):
            below[:] = [name for name in below if not name.startswith(".")]
            linked = [name for name in below if Path(folder, name).is_symlink()]
            problems += [_linked(Path(folder, name)) for name in linked if not _is_of(Path(folder, name), mount)]
            files = [Path(folder, name) for name in names if not name.startswith(".")]
            is_second = mount is not None and root == path
            found += [
                file
                for file in files
                if file.suffix in _SUFFIXES and not file.is_dir() and not (is_second and _is_of(file, mount))
            ]
    found.sort()
    if not found and not problems:
        raise _FileRejectedError(about_file("KS1002", path, *_NO_FILE))
    return found


def _is_of(link: Path, mount: Path | None) -> bool:
    """Whether it is a link into the mount, which is read as a whole."""
    return mount is not None and link.is_symlink() and link.resolve().is_relative_to(mount)


def _linked(folder: Path) -> Diagnostic:
    fix = "move the files there, or name the folder that it leads to with another --policies"
    return about_file("KS1007", folder, "is a link to a folder, whose policies would be left out", fix)


def _read(file: Path, place: Path) -> MaskedText:
    """The text of a file. `place`: its path as people know it."""
    # Non-blocking: opening a named pipe would wait for a writer.
    with open(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as stream:  # noqa: PTH123 # a descriptor is no path
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise _FileRejectedError(
                about_file("KS1001", place, "is not a regular file", "name a YAML file or a folder")
            )
        content = stream.read(LARGEST + 1)
    return _decoded(place, content)


def _decoded(file: Path, content: bytes) -> MaskedText:
    """The text of a file; _FileRejectedError if it is too large or not UTF-8."""
    if len(content) > LARGEST:
        fix = "split it into several files; if it is data, move it out of the policy folder"
        raise _FileRejectedError(about_file("KS1003", file, f"is larger than {LARGEST >> 20} MiB", fix))
    content = content.removeprefix(BOM_UTF8)
    try:
        return MaskedText(str(file), content.decode())
    except UnicodeDecodeError as error:
        raise _FileRejectedError(_not_utf8(file, content, error.start)) from None


def _not_utf8(file: Path, content: bytes, broken: int) -> Diagnostic:
    """The diagnostic of the invalid byte at `broken`."""
    before = MaskedText(str(file), content[:broken].decode(errors="replace"))
    line, column = len(before.lines) - 1, len(before.lines[-1])
    place = before.place(TextSpan(line, column, line, column + 1))
    return diagnostic("KS1004", place, f"byte 0x{content[broken]:02X} is not UTF-8", "save the file as UTF-8")


def about_file(code: str, path: Path, message: str, fix: str) -> Diagnostic:
    """A problem with a file or folder as a whole."""
    return Diagnostic(code, "error", f"{path} {message}", fix, str(path), 1, 1, 1, "")
