"""Parsed texts, kept on disk by their content, for the verbs of a desk: parsing is most of the time of `validate`.

A text that has been parsed before, by the same parser, is not parsed again; nothing else is kept, so that what is
checked and compiled is always this release's. A file that is damaged or of another parser is ignored, and a text with
something that may be a secret is not kept. A run never reads this folder: what acts comes from the files alone.
"""

from __future__ import annotations

import multiprocessing
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec

from killswitch.policy.yaml import parser
from killswitch.policy.yaml.masked_text import MaskedText
from killswitch.policy.yaml.parser import DocumentRoot, Node, TextSpan, YamlProblem

MOST_KEPT: Final = 5_000
"""Parsed texts that are kept; beyond that the oldest half is removed."""

PARALLEL_FROM: Final = 300_000
"""Characters to parse from which on two processes are faster than one: each starts in the time of some 80,000."""
MOST_PROCESSES: Final = 4

_Note = Callable[[YamlProblem], None]
_PLAIN, _REFUSED = 1, 2


class ParsedTexts:
    """The parsed texts in a folder, which is made if it does not exist."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._is_usable = _is_own(folder)
        self._parser = _parser_version()
        self._is_full = False
        self._ahead: dict[str, bytes] = {}
        """Text → what another process has parsed."""

    def parse_ahead(self, texts: Iterable[str]) -> None:
        """Parse texts that are not kept, in several processes where they are long enough for it."""
        missing = [text for text in dict.fromkeys(texts) if not (self._is_usable and self._file(text).exists())]
        processes = min(MOST_PROCESSES, os.cpu_count() or 1)
        if processes > 1 and sum(map(len, missing)) >= PARALLEL_FROM:
            self._ahead = _parsed_by(processes, missing)

    def _file(self, text: str) -> Path:
        return self._folder / sha256(f"{self._parser}\n{text}".encode()).hexdigest()

    def parse(self, text: str, note: _Note) -> list[DocumentRoot]:
        """As `parser.parse`: the documents of a text, with its problems passed on."""
        known = _read(self._file(text)) if self._is_usable else None
        if known is not None:
            roots, problems = known
        else:
            roots, problems = decoded(self._ahead.pop(text)) if text in self._ahead else _parsed(text)
            if self._is_usable and not _may_hold_a_secret(text):
                self._keep(self._file(text), encoded(roots, problems))
        for each in problems:
            note(each)
        return roots

    def _keep(self, file: Path, content: bytes) -> None:
        """Write a parsed text at once, so that no reader sees half of it; without a place for it, nothing is kept."""
        copy = file.with_suffix(f".{os.getpid()}")
        try:
            copy.write_bytes(content)
            copy.replace(file)
            if not self._is_full:
                self._is_full = True
                self._trim()
        except OSError:
            self._is_usable = False  # a full or read-only disk only makes the next run slower

    def _trim(self) -> None:
        files = list(self._folder.iterdir())
        if len(files) > MOST_KEPT:
            for each in sorted(files, key=lambda file: file.stat().st_mtime)[: len(files) // 2]:
                each.unlink(missing_ok=True)


def _parsed(text: str) -> tuple[list[DocumentRoot], list[YamlProblem]]:
    problems: list[YamlProblem] = []
    return parser.parse(text, problems.append), problems


def _parsed_by(processes: int, texts: Sequence[str]) -> dict[str, bytes]:
    """What so many processes parse of the texts; what a process that ended has not parsed is left out."""
    # spawned: a fork while another thread holds a lock would hang
    size = -(-len(texts) // (processes * 4))
    parts = [texts[at : at + size] for at in range(0, len(texts), size)]
    found: dict[str, bytes] = {}
    try:
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            for part, parsed in zip(parts, pool.map(_encoded_all, parts), strict=True):
                found.update(zip(part, parsed, strict=True))
    except (BrokenProcessPool, OSError):
        pass  # no process can be started here, or one was killed: the rest is parsed in this one
    return found


def _encoded_all(texts: Sequence[str]) -> list[bytes]:
    return [encoded(*_parsed(text)) for text in texts]


def _may_hold_a_secret(text: str) -> bool:
    """Whether something in the text would be masked: a secret that was written by mistake has no second place."""
    written = MaskedText("", text)
    return list(written.shown) != list(written.lines)


def cache_folder() -> Path:
    """`KSCTL_CACHE`, or `killswitch/parsed` in the user's folder of caches (XDG Base Directory Specification)."""
    chosen = os.environ.get("KSCTL_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path("~/.cache").expanduser()) / "killswitch" / "parsed"


def _is_own(folder: Path) -> bool:
    """Whether the folder is there, and only this user may write in it: whoever writes in it decides what is checked."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except (OSError, RuntimeError):
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _parser_version() -> str:
    """What a parsed text depends on besides the text: the code of the parser and of this module, and the library."""
    code = b"".join(Path(file).read_bytes() for file in (parser.__file__, __file__))
    return f"{sha256(code).hexdigest()} {version('ruamel.yaml')}"


def _read(file: Path) -> tuple[list[DocumentRoot], list[YamlProblem]] | None:
    try:
        return decoded(file.read_bytes())
    except (OSError, ValueError, TypeError, IndexError):
        return None  # not there, or damaged: the text is parsed


def encoded(roots: list[DocumentRoot], problems: list[YamlProblem]) -> bytes:
    """The result of parsing as bytes, with a checksum before them."""
    nodes = [(root.sound, _plain(root.node)) for root in roots]
    found = [(each.code, _numbers(each.span), each.message, each.fix) for each in problems]
    content = msgspec.msgpack.encode((nodes, found))
    return sha256(content).digest() + content


def decoded(content: bytes) -> tuple[list[DocumentRoot], list[YamlProblem]]:
    """The result of parsing. ValueError for bytes that are not what `encoded` made."""
    if sha256(content[32:]).digest() != content[:32]:
        raise ValueError("the checksum is not that of the content")
    nodes, found = msgspec.msgpack.decode(content[32:])
    roots = [DocumentRoot(_node(node), sound) for sound, node in nodes]
    return roots, [YamlProblem(code, TextSpan(*span), message, fix) for code, span, message, fix in found]


def _numbers(span: TextSpan) -> tuple[int, int, int, int]:
    return span.line, span.column, span.end_line, span.end_column


def _plain(node: Node) -> tuple[object, ...]:
    """A node as plain values; its keys are the texts of their nodes."""
    flags = (_PLAIN if node.plain else 0) | (_REFUSED if node.refused else 0)
    pairs = None if node.pairs is None else [(name, _plain(key), _plain(it)) for name, (key, it) in node.pairs.items()]
    items = None if node.items is None else [_plain(each) for each in node.items]
    return (*_numbers(node.span), flags, node.text, pairs, items)


def _node(plain: Any) -> Node:
    line, column, end_line, end_column, flags, text, pairs, items = plain
    node = Node(TextSpan(line, column, end_line, end_column), text, bool(flags & _PLAIN))
    node.refused = bool(flags & _REFUSED)
    if pairs is not None:
        node.pairs = {name: (_node(key), _node(value)) for name, key, value in pairs}
    elif items is not None:
        node.items = [_node(each) for each in items]
    return node
