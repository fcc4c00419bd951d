"""The record in files: segments of lines, and the bodies that they name.

A log is a folder with segments (`*.jsonl`), and optionally `bodies/` with what lines name by their digest, and
`kept.json` with what is known of lines that retention has deleted. A single file is a log of one segment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from killswitch.gate.files import replace_file
from killswitch.model.legible import legible
from killswitch.record.anchors import Anchor, FetchedAnchor, OtherRecords
from killswitch.record.checkpoint import Start, read_checkpoint
from killswitch.record.line import LineContent, digest_of, read_head
from killswitch.record.verification import Break, RecordReport, RecordVerifier, in_order
from killswitch.store.record_chain import RecordTip
from killswitch.store.recorded import StoredLine, server_record_of
from killswitch.store.sqlite import open_store

if sys.platform != "win32":
    import fcntl

SEGMENT_LINES: Final = 100_000
"""Lines of a segment: about 40 MB."""
BODIES: Final = "bodies"
KEPT: Final = "kept.json"
_LONGEST: Final = 64 * 1024
"""Bytes of a line that is read: a longer one is cut there, and breaks the chain."""


class AuditError(Exception):
    """A log cannot be read or written; the message names the place, the cause and the way out."""


class NumberedLines(Protocol):
    """What has the lines of a record by their numbers, such as a store, or a log in files."""

    def record_start(self) -> Start: ...

    def record_checkpoint(self) -> bytes | None: ...

    def record_lines(self, first: int = 1, last: int | None = None) -> Iterator[StoredLine]: ...


class LineSource(NumberedLines, Protocol):
    """What also has the end of the record, and what its lines name, such as a store."""

    def record_tip(self) -> RecordTip | None: ...

    def record_body(self, digest: str, content: LineContent) -> bytes | None: ...


class LogSegment(Struct, frozen=True):
    """A file of lines, and the number of its first one; None where it begins with none."""

    path: Path
    first: int | None


def segments_of(log: Path) -> tuple[LogSegment, ...]:
    """The segments of a log in the order of their first numbers. Raises AuditError."""
    try:
        paths = [log] if log.is_file() else [each for each in log.glob("*.jsonl") if each.is_file()]
        if not paths and not log.is_dir():
            raise AuditError(f"there is no log at {log}: name a folder with segments (*.jsonl), or one of them")
        beginnings = {str(path): _first_line(path) for path in paths}
    except OSError as error:
        raise AuditError(f"the log {log} cannot be read: {error.strerror or error}") from error
    heads = {name: read_head(line.rstrip(b"\r\n")) for name, line in beginnings.items()}
    ordered = in_order(list(beginnings.items()))
    return tuple(LogSegment(Path(name), None if (head := heads[name]) is None else head.number) for name in ordered)


def _first_line(path: Path) -> bytes:
    with _opened(path) as file:
        return file.readline(_LONGEST)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A segment, for reading; a link is not followed into another file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        yield file


def raw_lines(path: Path) -> Iterator[bytes]:
    """The lines of a segment, each with its LF. Raises AuditError."""
    try:
        with _opened(path) as file:
            while line := file.readline(_LONGEST):
                yield line
    except OSError as error:
        raise AuditError(f"the segment {path} cannot be read: {error.strerror or error}") from error


def start_of(log: Path) -> Start | None:
    """What is known of lines that were deleted; None where the log has all of them. Raises AuditError."""
    path = log / KEPT
    if not log.is_dir() or not path.exists():
        return None
    try:
        return read_checkpoint(path.read_bytes())
    except (OSError, ValueError) as error:
        raise AuditError(f"{path} cannot be read: {legible(str(error))}") from error


@contextmanager
def sole_writer(log: Path, what: str = "export or retention") -> Iterator[None]:
    """Keep other exports and retentions, or `what` else writes there, out of a folder: two would write lines twice.

    Raises AuditError where one is at work there. A file system without locks keeps nobody out.
    """
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                why = f"another {what} writes to {log}: run this again when it has ended"
                raise AuditError(why) from None
        yield
    finally:
        os.close(descriptor)


def write_start(log: Path, checkpoint: bytes) -> None:
    """Keep the checkpoint of removed lines in `kept.json`. Raises OSError."""
    replace_file(log / KEPT, checkpoint)


def kept_segments(log: Path, start: Start | None) -> tuple[LogSegment, ...]:
    """The segments without those that lie before the beginning: an interrupted removal has left them."""
    found, first = segments_of(log), 1 if start is None else start.number + 1
    ends = (each.first for each in found[1:])  # of the newest there is none, and of an empty folder nothing at all
    return tuple(each for each, end in zip_longest(found, ends) if end is None or end > first)


class LinesOfLog:
    """The whole lines of a log in files; half a line at its end, as a crash leaves it, is none."""

    def __init__(self, log: Path) -> None:
        """`log`: its folder, or one segment. Raises AuditError where there is none."""
        self._log = log
        self._start = start_of(log) or Start()
        segments_of(log)

    def record_start(self) -> Start:
        """Where the log begins: behind the lines that retention has removed from it."""
        return self._start

    def record_checkpoint(self) -> bytes | None:
        """The checkpoint of those lines; None where it has all of them."""
        return None if self._start.digest is None else (self._log / KEPT).read_bytes()

    def record_lines(self, first: int = 1, last: int | None = None) -> Iterator[StoredLine]:
        """The lines from number `first` to `last`. One without a number has that behind the one before: a break."""
        number = self._start.number
        for segment in kept_segments(self._log, self._start):
            for raw in raw_lines(segment.path):
                if not raw.endswith(b"\n"):
                    continue
                text = raw.rstrip(b"\r\n")
                head = read_head(text)
                number = number + 1 if head is None else head.number
                if number >= first and (last is None or number <= last):
                    yield StoredLine(number, text)


def body_in(log: Path) -> Callable[[str, LineContent], bytes | None] | None:
    """A reader of the bodies of a log; None where it has none, so that they cannot be verified."""
    folder = log / BODIES
    if not log.is_dir() or not folder.is_dir():
        return None

    def read(digest: str, _content: LineContent) -> bytes | None:
        try:
            return (folder / digest[:2] / digest).read_bytes() if digest.isalnum() else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise AuditError(f"the body {digest} cannot be read: {error.strerror or error}") from error

    return read


def verify_log(log: Path, anchors: Iterable[FetchedAnchor] = (), *, needs_anchor: bool = False) -> RecordReport:
    """Verify a log in files. Raises AuditError where it cannot be read."""
    start = start_of(log)
    segments = kept_segments(log, start)
    verifier = RecordVerifier(anchors, body_in(log), start, needs_anchor=needs_anchor)
    for number, segment in enumerate(segments, start=1):
        verifier.read(segment.path.name, raw_lines(segment.path), is_newest=number == len(segments))
    return verifier.report()


def verify_source(
    source: LineSource, anchors: Iterable[FetchedAnchor] = (), *, needs_anchor: bool = False, with_bodies: bool = True,
    others: OtherRecords = "possible",
) -> RecordReport:  # fmt: skip
    """Verify the record of a store. `others`: what is known of records with other anchors among these.

    Where retention has removed lines meanwhile, they are no tampering: it is verified again, from its new beginning.
    """
    body, known = source.record_body if with_bodies else None, tuple(anchors)
    while True:
        start, tip = source.record_start(), source.record_tip()
        verifier = RecordVerifier(known, body, start, needs_anchor=needs_anchor, others=others)
        last = 0 if tip is None else tip.number
        verifier.read("store", (line.text + b"\n" for line in source.record_lines(1, last)))
        if source.record_start().number <= start.number:
            return _held_against(tip, verifier.report())


def _held_against(tip: RecordTip | None, report: RecordReport) -> RecordReport:
    """The report with a break where the store's own end of the chain, number and root, is another one."""
    if tip is None or report.breaks or (report.last, report.root) == (tip.number, tip.root.hex()):
        return report
    what = f"the store's own end of the chain is number {tip.number}, root {tip.root.hex()}: lines are not as written"
    return replace(report, breaks=1, first_break=Break("store", report.entries, (report.last or 0) + 1, what))


def server_tip(store: Path) -> Anchor | None:
    """The end of the chain of the servers of a store; None where none has recorded anything. Raises StoreError."""
    path = server_record_of(store)
    if not path.exists():
        return None
    with closing(open_store(str(path), read_only=True)) as found:
        tip = found.record_tip()
    return None if tip is None else Anchor(tip.chain, tip.number, tip.root.hex())


def verify_both(
    store: Path, source: LineSource, anchors: Iterable[FetchedAnchor], *, needs_anchor: bool, with_bodies: bool
) -> tuple[RecordReport, RecordReport | None]:
    """Verify the record of a store, and that of its servers; None where none has recorded anything.

    An anchor is held against the chain that it names. Where both records are here, one of any other chain contradicts
    that of the store: one of both was written again. Raises StoreError.
    """
    tip, found = server_tip(store), tuple(anchors)
    ours = tuple(each for each in found if tip is None or each.anchor.chain != tip.chain)
    others: OtherRecords = "expected" if tip is None else "known"
    report = verify_source(source, ours, needs_anchor=needs_anchor, with_bodies=with_bodies, others=others)
    if tip is None:
        return report, None
    theirs = [each for each in found if each.anchor.chain == tip.chain]
    with closing(open_store(str(server_record_of(store)), read_only=True)) as server:
        return report, verify_source(server, theirs, needs_anchor=needs_anchor, with_bodies=with_bodies)


def keep_body(log: Path, digest: str, content: bytes) -> None:
    """Keep a body next to the segments, unless it is there. Raises OSError."""
    path = log / BODIES / digest[:2] / digest
    if digest_of(content) == digest and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
