"""Reading of folders that change while they are read: ordinary directories, and mounts of ConfigMaps.

A mount is switched by its link `..data`, so that it is read below what that link names, and read again if the link has
moved. An ordinary directory has no such instant: it counts when two readings agree.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

from msgspec import Struct

from killswitch.model.applied_set import PolicyFile, folder_digest
from killswitch.model.legible import one_line
from killswitch.source.candidate import SourceProblem

MOST_FILES: Final = 2_000
MOST_BYTES: Final = 1 << 20
MOST_IN_ALL: Final = 32 << 20
DEEPEST: Final = 8
MOST_NAMES: Final = 20_000
"""Names that are listed, of whatever kind: a folder may be full of other files."""
MOST_SWITCHES: Final = 5
"""How often a folder is read again because its link has moved."""
DATA: Final = "..data"
"""The link by which a mount of a ConfigMap is switched."""
_POLICY = (".yaml", ".yml", ".md.j2")
_STATEMENT = ".approval"


class FolderContent(Struct, frozen=True):
    """What was read at one instant. `statements`: the signed statements next to the policies, not verified.

    `generation`: the name of the folder that the link of a mount, or of a directory that is switched, leads to.
    """

    files: tuple[PolicyFile, ...]
    digest: str
    statements: tuple[bytes, ...] = ()
    generation: str | None = None

    @property
    def mark(self) -> str:
        """Changes with any byte that was read, also of a statement."""
        return content_mark(self.digest, self.statements)


def content_mark(digest: str, statements: tuple[bytes, ...]) -> str:
    """What identifies a folder with its statements."""
    parts = (digest.encode(), *sorted(sha256(each).digest() for each in statements))
    return sha256(b"".join(parts)).hexdigest()


class FolderProblemError(Exception):
    """A folder that proposes nothing, with the reason."""

    def __init__(self, problem: SourceProblem) -> None:
        super().__init__(problem.text)
        self.problem = problem


class NotYetError(Exception):
    """A folder that is being changed: it is read again at the next poll."""


def read_directory(folder: Path) -> FolderContent:
    """Read an ordinary directory once, or what a link that is switched leads to.

    FolderProblemError, or NotYetError if it changes meanwhile. Links inside it are refused.
    """
    for _ in range(MOST_SWITCHES):
        target = Path(_resolved(folder))
        try:
            content = _read(target, folder, target.name if folder.is_symlink() else None)
        except NotYetError:
            if str(target) == _resolved(folder):
                raise
            continue
        if str(target) == _resolved(folder):
            return content
    raise NotYetError(f"the link {folder} moved {MOST_SWITCHES} times while it was read")


def read_mount(folder: Path) -> FolderContent:
    """Read the mount of a ConfigMap at one generation.

    FolderProblemError, also for a mount that is never switched; NotYetError if it is switched all the time.
    """
    for _ in range(MOST_SWITCHES):
        generation = _generation(folder)
        try:
            content = _read(folder / generation, folder, generation)
        except NotYetError:
            if generation == _generation(folder):
                if not (folder / generation).exists():
                    raise FolderProblemError(_unreadable(folder, f"{DATA} leads to nothing")) from None
                raise
            continue
        if generation == _generation(folder):
            return content
    raise NotYetError(f"the mount {folder} was switched {MOST_SWITCHES} times while it was read")


def _generation(folder: Path) -> str:
    """The name of the folder inside the mount that `..data` leads to."""
    try:
        generation = os.readlink(folder / DATA)  # noqa: PTH115 # the text of the link, which is not to be joined
    except OSError:
        raise FolderProblemError(_no_mount(folder)) from None
    if "/" in generation or generation in (".", "..") or not generation.isprintable():
        text = f"the link {DATA} of {_shown(folder)} leads out of the mount"
        raise FolderProblemError(_shape("KS8223", text, "mount the ConfigMap as a whole"))
    return generation


def _no_mount(folder: Path) -> SourceProblem:
    """Why a folder without the link is no mount of a ConfigMap."""
    if not os.path.lexists(folder):
        return _unreadable(folder, "does not exist")
    try:
        inside = [folder, *sorted(folder.iterdir())[:MOST_FILES]] if folder.is_dir() else [folder]
    except OSError as error:
        return _unreadable(folder, error.strerror or str(error))
    mounts = _mount_points()
    fixed = next((path for path in inside if path.is_file() and os.path.realpath(path) in mounts), None)
    if fixed is not None or not folder.is_dir():
        text = f"{_shown(fixed or folder)} is a file that is mounted by itself (subPath), and is never updated"
        return _shape("KS8224", text, "mount the whole ConfigMap as a folder, without subPath")
    text = f"{_shown(folder)} has no link {DATA}, so that it is no mount of a ConfigMap"
    return _shape("KS8225", text, "name the folder where it is mounted, or declare it as a `directory`")


def _mount_points() -> frozenset[str]:
    """The places where something is mounted, as the kernel lists them; none where it lists nothing."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return frozenset()
    # Spaces and backslashes in a path are octal escapes there.
    places = (line.split(" ")[4] for line in lines if line.count(" ") > 4)
    return frozenset(place.encode("utf-8", "surrogateescape").decode("unicode_escape") for place in places)


def _resolved(folder: Path) -> str:
    try:
        return os.path.realpath(folder, strict=True)
    except OSError as error:
        raise FolderProblemError(_unreadable(folder, error.strerror or str(error))) from error


def _read(root: Path, named: Path, generation: str | None) -> FolderContent:
    """Read all below `root`, within the bounds, which are checked while reading."""
    files: list[PolicyFile] = []
    statements: list[bytes] = []
    total = 0
    try:
        for path, file in _policy_files(root, named):
            if len(files) + len(statements) >= MOST_FILES:
                text = f"{_shown(named)} holds more than {MOST_FILES} documents"
                raise FolderProblemError(_shape("KS8226", text, "remove what is not needed, or make several sources"))
            content = _content(file, path)
            total += len(content)
            if total > MOST_IN_ALL:
                text = f"the documents of {_shown(named)} are larger than {MOST_IN_ALL >> 20} MiB in all"
                raise FolderProblemError(_shape("KS8228", text, "move data out of the folder of policies"))
            if path.endswith(_STATEMENT):
                statements.append(content)
            else:
                files.append(PolicyFile(path, content))
    except FileNotFoundError as error:
        if not root.exists() and generation is None:
            raise FolderProblemError(_unreadable(named, "does not exist")) from error
        raise NotYetError(f"{one_line(str(error.filename))} vanished while {named} was read") from error
    except OSError as error:
        raise FolderProblemError(_unreadable(named, error.strerror or str(error))) from error
    if not any(file.path.endswith((".yaml", ".yml")) for file in files):
        text = f"{_shown(named)} holds no .yaml or .yml file; an emptied source removes nothing"
        fix = "restore the files; to remove a policy, leave at least one other in the folder"
        raise FolderProblemError(SourceProblem(code="KS8221", text=text, fix=fix, is_page=False, file=str(named)))
    files.sort(key=lambda each: each.path)
    return FolderContent(tuple(files), folder_digest(files), tuple(statements), generation)


def _policy_files(root: Path, named: Path) -> Iterator[tuple[str, Path]]:
    """Path as written and place of each document and statement, as listed; hidden names are left out."""
    left = MOST_NAMES
    folders: list[tuple[str, Path, int]] = [("", root, 1)]
    while folders:
        prefix, folder, depth = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                left -= 1
                if left < 0:
                    text = f"{_shown(named)} holds more than {MOST_NAMES} names"
                    raise FolderProblemError(_shape("KS8226", text, "move other files out of the folder of policies"))
                if entry.name.startswith("."):
                    continue
                path = f"{prefix}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    if depth >= DEEPEST:
                        text = f"{one_line(path)} is more than {DEEPEST} folders deep"
                        raise FolderProblemError(_shape("KS8229", text, "move it up", file=path))
                    folders.append((f"{path}/", Path(entry.path), depth + 1))
                else:
                    _require_plain(entry, path)
                    if path.endswith((*_POLICY, _STATEMENT)):
                        yield path, Path(entry.path)


def _require_plain(entry: os.DirEntry[str], path: str) -> None:
    """FolderProblemError for a link, for what is no regular file, and for a name that no terminal should print."""
    if not path.isprintable():
        text = f"the name {one_line(path)} has a control character, or is not UTF-8"
        raise FolderProblemError(_shape("KS8230", text, "rename the file", file=path))
    if entry.is_symlink():
        text = f"{path} is a link, which could lead out of the folder"
        raise FolderProblemError(_shape("KS8223", text, "put the file itself there", file=path))
    if not entry.is_file(follow_symlinks=False):
        raise FolderProblemError(_shape("KS8223", f"{path} is no regular file", "remove it", file=path))


def _content(file: Path, path: str) -> bytes:
    """The bytes of a file, which was no link when it was opened. OSError if it cannot be read."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW  # a named pipe would wait for a writer
    with open(os.open(file, flags), "rb") as stream:  # noqa: PTH123 # a descriptor is no path
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise FolderProblemError(_shape("KS8223", f"{path} is no regular file", "remove it", file=path))
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        text = f"{path} is larger than {MOST_BYTES >> 20} MiB"
        raise FolderProblemError(_shape("KS8227", text, "split it, or move data out of it", file=path))
    return content


def _unreadable(folder: Path, why: str) -> SourceProblem:
    text = f"{_shown(folder)} cannot be read: {one_line(why)}"
    fix = "check the path, its permissions and its mount; the set in force stays"
    return SourceProblem(code="KS8220", text=text, fix=fix, is_page=False, file=one_line(str(folder)))


def _shape(code: str, text: str, fix: str, *, file: str | None = None) -> SourceProblem:
    return SourceProblem(code=code, text=text, fix=fix, is_page=True, file=None if file is None else one_line(file))


def _shown(path: Path) -> str:
    return one_line(str(path))
