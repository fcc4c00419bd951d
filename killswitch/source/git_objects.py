"""Objects of a repository as they are: read by id with a size check before, hashed again, and parsed strictly.

One process of `git cat-file` serves all reads of a poll. Nothing of git's own reading of commits is used: no
replacement, graft, attribute or filter can apply to the bytes here, and what does not hash to its id is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from hashlib import sha1
from subprocess import PIPE, Popen
from typing import Final, Literal

from msgspec import Struct

from killswitch.source.git_problems import DamagedCloneError, GitSourceError, is_clean_name, printable

ObjectKind = Literal["commit", "tag", "tree", "blob"]

_IDENT: Final = re.compile(rb"(?P<who>[^<>\0\n]*<[^<>\0\n]*>) (?P<at>\d{1,12}) [+-]\d{4}")
_ID: Final = rb"[0-9a-f]{40}"
_SIGNATURES: Final = (b"gpgsig", b"gpgsig-sha256")
_BEGIN: Final = re.compile(rb"^-----BEGIN [A-Z0-9 ]+-----\r?$", re.MULTILINE)
_CO_AUTHOR: Final = re.compile(r"^co-(?:authored|developed|written)-by:\s*(.+)$", re.IGNORECASE | re.MULTILINE)
_AT_ONCE: Final = 256
"""Requests that are written before the first answer is read: fewer bytes than a pipe holds."""


class ObjectHead(Struct, frozen=True):
    """The kind and size of an object, before its content is read."""

    id: str
    kind: str
    size: int


class RawCommit(Struct, frozen=True, kw_only=True):
    """A commit as written. `payload`: the bytes that its signature signs; `signature`: None if it has none."""

    id: str
    tree: str
    parents: tuple[str, ...]
    claimed: tuple[str, ...]
    """Author, committer and co-authors, as `Name <address>`; nobody verified them (T7)."""
    subject: str
    at: int
    """The later one of the dates of author and committer, in seconds since 1970."""
    payload: bytes
    signature: bytes | None


class RawTag(Struct, frozen=True, kw_only=True):
    """A tag object as written."""

    id: str
    target: str
    target_kind: str
    name: str
    claimed: tuple[str, ...]
    at: int
    payload: bytes
    signature: bytes | None


class TreeEntry(Struct, frozen=True):
    """One name of a folder. `mode`: as written, in octal digits."""

    mode: str
    name: str
    id: str


class ObjectReader:
    """Reads the objects of a clone by their ids, through one process that is started for it."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._process = Popen(  # a list of arguments, no shell
            [*command, "cat-file", "--batch-command"], stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment
        )

    def __enter__(self) -> ObjectReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def heads(self, ids: Sequence[str]) -> Iterator[ObjectHead | None]:
        """Kind and size of each object; None for one that is missing."""
        for first in range(0, len(ids), _AT_ONCE):
            part = ids[first : first + _AT_ONCE]
            self._write("info", part)
            for each in part:
                yield self._head(each)

    def read(self, ids: Sequence[str], kind: ObjectKind, most: int) -> Iterator[bytes]:
        """The content of each object, hashed again. `most`: bytes of one.

        GitSourceError KS8012 for a missing one, KS8027 for another kind, KS8035 for one that is too large;
        DamagedCloneError KS8013 for bytes that are not those of the id.
        """
        for first in range(0, len(ids), _AT_ONCE):
            part = ids[first : first + _AT_ONCE]
            for each, head in zip(part, list(self.heads(part)), strict=True):
                if head is None:
                    raise DamagedCloneError("KS8012", f"the host did not send the {kind} {each}")
                if head.kind != kind:
                    raise GitSourceError("KS8027", f"{each} is a {printable(head.kind)} where a {kind} is expected")
                if head.size > most:
                    raise GitSourceError("KS8035", f"the {kind} {each} has {head.size:,} bytes; {most:,} are read")
            self._write("contents", part)
            for each in part:
                yield self._content(each, kind)

    def _write(self, command: str, ids: Sequence[str]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("".join(f"{command} {each}\n" for each in ids).encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _head(self, wanted: str) -> ObjectHead | None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline(256)
        if line == f"{wanted} missing\n".encode():
            return None
        found = re.fullmatch(rb"(%s) (\w+) (\d+)\n" % _ID, line)
        if found is None or found[1].decode() != wanted:
            raise self._ended()
        return ObjectHead(wanted, found[2].decode(), int(found[3]))

    def _content(self, wanted: str, kind: ObjectKind) -> bytes:
        head = self._head(wanted)
        assert self._process.stdout is not None
        content = b"" if head is None else self._process.stdout.read(head.size)
        if head is None or head.kind != kind or len(content) != head.size or self._process.stdout.read(1) != b"\n":
            raise self._ended()
        if object_id(kind, content) != wanted:
            raise DamagedCloneError("KS8013", f"the bytes of the {kind} {wanted} are not those of its id")
        return content

    def _ended(self) -> DamagedCloneError:
        """The error of a process that no longer answers, as it does at the first damaged object."""
        self._process.kill()
        _, errors = self._process.communicate()
        return DamagedCloneError("KS8013", f"git cannot read an object: {errors[:2_000].decode(errors='replace')}")


def object_id(kind: ObjectKind, content: bytes) -> str:
    """The id of an object: SHA-1 of kind, size and content, in hexadecimal."""
    return sha1(b"%s %d\0" % (kind.encode(), len(content)) + content, usedforsecurity=False).hexdigest()


def parse_commit(commit: str, content: bytes) -> RawCommit:
    """A commit. GitSourceError KS8027 for another form than git writes, KS8111 and KS8112 by their pages."""
    lines, message = _headers(commit, content)
    signed = [line for line in lines if line.partition(b" ")[0] in _SIGNATURES]
    if len(signed) > 1:
        raise GitSourceError("KS8111", f"the commit {commit} carries {len(signed)} signatures", commit=commit)
    named = [(key, value) for key, _, value in (line.partition(b" ") for line in lines)]
    keys = [key for key, _ in named]
    parents = 0
    while keys[1 + parents : 2 + parents] == [b"parent"]:
        parents += 1
    expected = [b"tree", *[b"parent"] * parents, b"author", b"committer"]
    if keys[: len(expected)] != expected or {*keys[len(expected) :]} & {b"tree", b"parent", b"author", b"committer"}:
        raise _malformed("commit", commit)
    ids = [value for _, value in named[: 1 + parents]]
    if not all(re.fullmatch(_ID, each) for each in ids) or len(set(ids[1:])) != parents:
        raise _malformed("commit", commit)
    for key, value in named:
        if key == b"encoding" and value.lower() not in (b"utf-8", b"utf8"):
            raise GitSourceError("KS8112", f"the commit {commit} is written in another encoding", commit=commit)
    author, committer = (_ident("commit", commit, value) for _, value in named[1 + parents : 3 + parents])
    text = _text("commit", commit, message)
    payload = b"".join(line + b"\n" for line in lines if line not in signed) + b"\n" + message
    return RawCommit(
        id=commit,
        tree=ids[0].decode(),
        parents=tuple(each.decode() for each in ids[1:]),
        claimed=tuple(dict.fromkeys((author[0], committer[0], *map(printable, _CO_AUTHOR.findall(text))))),
        subject=printable(text.strip().split("\n", 1)[0], 200),
        at=max(author[1], committer[1]),
        payload=payload,
        signature=_unfolded(signed[0]) if signed else None,
    )


def parse_tag(tag: str, content: bytes) -> RawTag:
    """A tag object. GitSourceError as of `parse_commit`."""
    lines, message = _headers(tag, content, "tag")
    named = [(key, value) for key, _, value in (line.partition(b" ") for line in lines)]
    if [key for key, _ in named] != [b"object", b"type", b"tag", b"tagger"] or not re.fullmatch(_ID, named[0][1]):
        raise _malformed("tag", tag)
    begins = [found.start() for found in _BEGIN.finditer(message)]
    if len(begins) > 1:
        raise GitSourceError("KS8111", f"the tag {tag} carries {len(begins)} signatures", commit=tag)
    at = len(content) - len(message) + begins[0] if begins else len(content)
    who, when = _ident("tag", tag, named[3][1])
    _text("tag", tag, message)
    return RawTag(
        id=tag,
        target=named[0][1].decode(),
        target_kind=printable(named[1][1].decode(errors="replace")),
        name=named[2][1].decode(errors="replace"),
        claimed=(who,),
        at=when,
        payload=content[:at],
        signature=content[at:] if begins else None,
    )


def parse_tree(tree: str, content: bytes) -> tuple[TreeEntry, ...]:
    """The names of a folder, in git's order. GitSourceError KS8025 for a name with a control character or outside of
    UTF-8, KS8026 for one that occurs twice or that no folder can have, KS8027 for another form than git writes."""
    entries: list[TreeEntry] = []
    at = 0
    while at < len(content):
        space, end = content.find(b" ", at, at + 7), content.find(b"\0", at)
        if space < 0 or end < 0 or end + 21 > len(content) or not re.fullmatch(rb"[0-7]{5,6}", content[at:space]):
            raise _malformed("tree", tree)
        try:
            name = content[space + 1 : end].decode()
        except UnicodeDecodeError:
            raise GitSourceError("KS8025", f"the folder {tree} has a name that is not UTF-8") from None
        if not is_clean_name(name):
            raise GitSourceError("KS8025", f"the folder {tree} has a name with a control character", file=name)
        if name in ("", ".", "..") or "/" in name or name.lower() == ".git":
            raise GitSourceError("KS8026", f"the folder {tree} has a name that no folder can have", file=name)
        entries.append(TreeEntry(content[at:space].decode(), name, content[end + 1 : end + 21].hex()))
        at = end + 21
    names = [each.name for each in entries]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise GitSourceError("KS8026", f"the folder {tree} has a name twice", file=twice)
    if entries != sorted(entries, key=_order):
        raise _malformed("tree", tree)
    return tuple(entries)


def _order(entry: TreeEntry) -> bytes:
    """git sorts the name of a folder as if it ended with a slash."""
    return entry.name.encode() + (b"/" if entry.mode in ("40000", "040000") else b"")


def _headers(name: str, content: bytes, kind: str = "commit") -> tuple[list[bytes], bytes]:
    """The header lines, each with its continuation lines, and the message."""
    if b"\0" in content:
        raise GitSourceError("KS8112", f"the {kind} {name} contains a NUL byte", commit=name)
    head, separator, message = content.partition(b"\n\n")
    if not separator:
        raise _malformed(kind, name)
    lines: list[bytes] = []
    for line in head.split(b"\n"):
        if line.startswith(b" ") and lines:
            lines[-1] += b"\n" + line
        else:
            lines.append(line)
    return lines, message


def _unfolded(line: bytes) -> bytes:
    """The value of a header whose lines were continued with a space."""
    return line.partition(b" ")[2].replace(b"\n ", b"\n") + b"\n"


def _ident(kind: str, name: str, value: bytes) -> tuple[str, int]:
    found = _IDENT.fullmatch(value)
    if found is None:
        raise _malformed(kind, name)
    return printable(_text(kind, name, found["who"])), int(found["at"])


def _text(kind: str, name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise GitSourceError("KS8112", f"the {kind} {name} is not written in UTF-8", commit=name) from None


def _malformed(kind: str, name: str) -> GitSourceError:
    return GitSourceError("KS8027", f"the {kind} {name} is not written as git writes one", commit=name)
