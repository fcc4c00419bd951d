"""The policy folder of a commit: the blobs of its tree, with the bounds of S5 checked while it is read.

There is no checkout and no archive, so that no link is followed, no attribute applies and nothing is unpacked (S4).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import Struct

from killswitch.model.applied_set import PolicyFile, folder_digest
from killswitch.source.git_objects import ObjectReader, TreeEntry, parse_tree
from killswitch.source.git_problems import GitSourceError
from killswitch.source.git_request import GitLimits

_FOLDERS: Final = ("40000", "040000")
_FILES: Final = ("100644", "100755")
_CACHED_BYTES: Final = 64 << 20
_SUFFIXES: Final = (".yaml", ".yml")
STATEMENT: Final = ".approval"
STATEMENT_BYTES: Final = 64 << 10
UNREADABLE: Final = "unreadable"
"""The digest of the folder of a step on the way that no set could come from: nothing binds to it."""


class FolderEntry(Struct, frozen=True):
    """A file below a folder, by its path relative to it, and its blob."""

    path: str
    id: str


class TreeReader:
    """Reads folders and files of the trees of one clone; blobs that several commits share are read once."""

    def __init__(self, objects: ObjectReader, limits: GitLimits) -> None:
        self._objects = objects
        self._limits = limits
        self._blobs: OrderedDict[str, bytes] = OrderedDict()
        self._cached = 0
        self._digests: dict[str, str] = {}

    def digest(self, tree: str, path: str) -> str:
        """The digest of the policy folder of a tree; `UNREADABLE` for one that no set could come from (S6)."""
        try:
            folder = self._folder(tree, path)
        except GitSourceError as error:
            if error.code in ("KS8012", "KS8013"):
                raise
            return UNREADABLE
        if folder not in self._digests:
            try:
                self._digests[folder] = folder_digest(self._policy_files(folder, path))
            except GitSourceError as error:
                if error.code in ("KS8012", "KS8013"):
                    raise
                self._digests[folder] = UNREADABLE
        return self._digests[folder]

    def policy_files(self, tree: str, path: str) -> tuple[PolicyFile, ...]:
        """Every file below the folder but hidden ones, sorted by path. GitSourceError for shape (KS8020–KS8027) and
        bounds (KS8030–KS8035)."""
        return self._policy_files(self._folder(tree, path), path)

    def file(self, tree: str, path: str, most: int) -> bytes | None:
        """The content of one file; None where there is none. GitSourceError if it is no ordinary file."""
        *folders, name = path.split("/")
        try:
            folder = self._folder(tree, "/".join(folders))
        except GitSourceError as error:
            if error.code == "KS8020":
                return None
            raise
        entry = self._entry(folder, name)
        if entry is None:
            return None
        _check_mode(entry, path)
        if entry.mode in _FOLDERS:
            raise GitSourceError("KS8024", f"{path} is a folder where a file is expected", file=path)
        return self._contents([FolderEntry(path, entry.id)], most)[0]

    def statements(self, tree: str, path: str) -> tuple[bytes, ...]:
        """The files of signed statements in a folder, which need not exist; larger ones are none, and are left out."""
        try:
            folder = self._folder(tree, path)
            found = [each for each in self._listing(folder, path) if each.path.endswith(STATEMENT)]
        except GitSourceError as error:
            if error.code == "KS8020":
                return ()
            raise
        if len(found) > self._limits.statements:
            raise GitSourceError(
                "KS8037", f"{path} holds {len(found):,} statements; {self._limits.statements} are read"
            )
        heads = list(self._objects.heads([each.id for each in found]))
        small = [each for each, head in zip(found, heads, strict=True) if head and head.size <= STATEMENT_BYTES]
        return tuple(self._contents(small, STATEMENT_BYTES))

    def _policy_files(self, folder: str, path: str) -> tuple[PolicyFile, ...]:
        """The files of a folder: its listing first, then sizes, then contents."""
        listed = [each for each in self._listing(folder, path) if not _is_hidden(each.path)]
        documents = sum(each.path.endswith(_SUFFIXES) for each in listed)
        if documents == 0:
            raise GitSourceError("KS8021", f"{path or 'the repository'} contains no .yaml or .yml file")
        if len(listed) > self._limits.documents:
            text = f"{path or 'the repository'} holds {len(listed):,} files; {self._limits.documents:,} are read"
            raise GitSourceError("KS8030", text)
        self._check_sizes(listed, path)
        contents = self._contents(listed, self._limits.file_bytes)
        files = [PolicyFile(each.path, content) for each, content in zip(listed, contents, strict=True)]
        return tuple(sorted(files, key=lambda each: each.path))

    def _check_sizes(self, listed: Sequence[FolderEntry], path: str) -> None:
        total = 0
        for each, head in zip(listed, self._objects.heads([each.id for each in listed]), strict=True):
            total += 0 if head is None else head.size
            if head is not None and head.size > self._limits.file_bytes:
                text = f"{each.path} has {head.size:,} bytes; {self._limits.file_bytes:,} are read"
                raise GitSourceError("KS8031", text, file=_joined(path, each.path))
            if total > self._limits.folder_bytes:
                text = f"{path or 'the repository'} has more than {self._limits.folder_bytes >> 20} MiB in all"
                raise GitSourceError("KS8032", text)

    def _listing(self, folder: str, path: str) -> Iterator[FolderEntry]:
        """Every file below, the names counted while they are read: a nested tree can have more than any disk holds."""
        names = 0
        waiting: list[tuple[str, str, int]] = [(folder, "", 1)]
        while waiting:
            tree, inside, depth = waiting.pop()
            for entry in self._tree(tree, _joined(path, inside)):
                names += 1
                if names > self._limits.entries:
                    text = f"{path or 'the repository'} has more than {self._limits.entries:,} names"
                    raise GitSourceError("KS8034", text)
                below = _joined(inside, entry.name)
                _check_mode(entry, _joined(path, below))
                if entry.mode not in _FOLDERS:
                    yield FolderEntry(below, entry.id)
                elif depth >= self._limits.depth:
                    text = f"{below} is nested deeper than {self._limits.depth} folders"
                    raise GitSourceError("KS8033", text, file=_joined(path, below))
                else:
                    waiting.append((entry.id, below, depth + 1))

    def _folder(self, tree: str, path: str) -> str:
        """The id of the tree of a folder. GitSourceError KS8020 where there is none."""
        passed = ""
        for name in path.split("/") if path else ():
            entry = self._entry(tree, name, passed)
            passed = _joined(passed, name)
            if entry is None:
                raise GitSourceError("KS8020", f"the commit has no folder {path}", file=path)
            _check_mode(entry, passed)
            if entry.mode not in _FOLDERS:
                raise GitSourceError("KS8020", f"{passed} is a file, and no folder", file=passed)
            tree = entry.id
        return tree

    def _entry(self, tree: str, name: str, path: str = "") -> TreeEntry | None:
        return next((each for each in self._tree(tree, path) if each.name == name), None)

    def _tree(self, tree: str, path: str) -> tuple[TreeEntry, ...]:
        content = self._cached_blob(tree)
        if content is None:
            (content,) = self._objects.read([tree], "tree", 4 * self._limits.object_bytes)
            self._keep(tree, content)
        try:
            return parse_tree(tree, content)
        except GitSourceError as error:
            file = _joined(path, error.problem.file or "")
            raise GitSourceError(error.code, error.problem.text, file=file or None) from None

    def _contents(self, entries: Sequence[FolderEntry], most: int) -> list[bytes]:
        missing = list(dict.fromkeys(each.id for each in entries if each.id not in self._blobs))
        fetched = dict(zip(missing, self._objects.read(missing, "blob", most), strict=True))
        contents = [fetched[each.id] if each.id in fetched else self._blobs[each.id] for each in entries]
        for name, content in fetched.items():
            self._keep(name, content)
        return contents

    def _cached_blob(self, name: str) -> bytes | None:
        content = self._blobs.get(name)
        if content is not None:
            self._blobs.move_to_end(name)
        return content

    def _keep(self, name: str, content: bytes) -> None:
        self._blobs[name] = content
        self._cached += len(content)
        while self._cached > _CACHED_BYTES:
            _, dropped = self._blobs.popitem(last=False)
            self._cached -= len(dropped)


def _check_mode(entry: TreeEntry, path: str) -> None:
    """GitSourceError for anything but a folder and an ordinary file."""
    if entry.mode in _FOLDERS or entry.mode in _FILES:
        return
    if entry.mode == "120000":
        raise GitSourceError("KS8022", f"{path} is a symbolic link", file=path)
    if entry.mode == "160000":
        raise GitSourceError("KS8023", f"{path} is a submodule", file=path)
    raise GitSourceError("KS8024", f"{path} has the special mode {entry.mode}", file=path)


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder and name else folder or name
