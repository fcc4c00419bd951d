"""Exports of the record of a store: segments of JSON Lines, which grow, and tables in CSV and Parquet.

Segments are copies of the store's lines, byte for byte. A torn end, as a crash leaves it, is cut and written again from
the store, and the cut is on record. A file with another history than the store's is never overwritten.
"""

from __future__ import annotations

import csv
import importlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from killswitch.audit.log_files import (
    BODIES,
    SEGMENT_LINES,
    AuditError,
    LineSource,
    keep_body,
    segments_of,
    sole_writer,
    write_start,
)
from killswitch.gate.files import sync_folder
from killswitch.model.legible import harmless_cell
from killswitch.model.record_entry import RecordEntry
from killswitch.record.checkpoint import read_checkpoint
from killswitch.record.line import content_of, digest_of, keys_of, leaf_of, read_head, references_of
from killswitch.store.recorded import StoredLine

COLUMNS: Final = (
    "seq", "at", "kind", "scope", "policy", "policy_set", "commit", "decision", "incident", "stage", "account",
    "symbol", "side", "entry", "client_order_id", "command", "verb", "message", "state", "class", "result",
    "announces", "answers", "late", "leaf", "line",
)  # fmt: skip
"""Columns of a table: keys of a line, its leaf, and the line itself, which has all of them."""
_BATCH: Final = 10_000


class ExportedLog(Struct, frozen=True):
    """What an export has written. `cut`: the torn end that was cut, with its digest."""

    lines: int
    last: int
    segments: int
    cut: tuple[int, str] | None = None


class _Newest(Struct, frozen=True):
    """The newest segment: its lines, the last whole one, and what follows it."""

    path: Path
    lines: int
    last: bytes
    size: int
    torn: bytes

    @property
    def number(self) -> int | None:
        """The number of the last whole line."""
        head = read_head(self.last)
        return None if head is None else head.number

    @property
    def is_ended(self) -> bool:
        """Whether the segment ends with this line, by its name: an export goes on in another one."""
        return self.number is not None and self.path.stem.endswith(f"-to-{self.number:012}")


def sealed_until(folder: Path) -> int:
    """The number of the last line in a segment that no export continues; 0 where there is none. Raises AuditError."""
    newest = _newest(folder) if folder.is_dir() else None
    if newest is None:
        return 0
    first = segments_of(folder)[-1].first
    ended = newest.number if newest.is_ended else None
    return ended if ended is not None else 0 if first is None else first - 1


def export_segments(
    source: LineSource, folder: Path, *, with_bodies: bool = False, segment_lines: int = SEGMENT_LINES,
    until: int | None = None, ends_segment: bool = False, is_alone: bool = False,
) -> ExportedLog:  # fmt: skip
    """Bring the segments in a folder up to date with a store. Raises AuditError; what was written before stays.

    `with_bodies`: also what lines name by their digest, which a log that has bodies gets in any case. `until`: the
    number of the last line. `ends_segment`: the newest segment ends there, however short it is. `is_alone`: the caller
    is the folder's `sole_writer`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with nullcontext() if is_alone else sole_writer(folder):
            newest = _newest(folder)
            with_bodies = with_bodies or (folder / BODIES).is_dir()
            last = _begun(folder, source) if newest is None else _checked(newest, source)
            cut = None
            if newest is not None and newest.torn:
                os.truncate(newest.path, newest.size)
                cut = (len(newest.torn), digest_of(newest.torn))
            open_one = None if newest is None or newest.is_ended or newest.lines >= segment_lines else newest
            written = _append(source, folder, last + 1, open_one, segment_lines, until, with_bodies=with_bodies)
            if ends_segment:
                _end_segment(folder)
    except OSError as error:
        raise AuditError(f"the log {folder} cannot be written: {error.strerror or error}") from error
    return ExportedLog(written, last + written, len(segments_of(folder)), cut)


def cut_entry(cut: tuple[int, str], at: datetime) -> RecordEntry:
    """The entry about a torn end that was cut: length and digest."""
    size, digest = cut
    return RecordEntry("cut", at, {"size": size, "sha256": digest})


def _newest(folder: Path) -> _Newest | None:
    """The last segment; None in an empty folder. One that begins with half a line is empty."""
    found = segments_of(folder)
    if not found:
        return None
    path, lines, last, size, torn = found[-1].path, 0, b"", 0, b""
    with path.open("rb") as file:
        for raw in file:
            if raw.endswith(b"\n"):
                lines, last, size = lines + 1, raw[:-1], size + len(raw)
            else:
                torn = raw
    return _Newest(path, lines, last, size, torn)


def _end_segment(folder: Path) -> None:
    """End the newest segment: its name has the number of its last line from now on."""
    newest = _newest(folder)
    if newest is not None and newest.number is not None and not newest.is_ended:
        newest.path.rename(newest.path.with_stem(f"{newest.path.stem}-to-{newest.number:012}"))
    sync_folder(folder)


def _begun(folder: Path, source: LineSource) -> int:
    """Begin a log where the store begins, with what is known of lines that retention has removed from it."""
    content = source.record_checkpoint()  # read once: a retention may be at work
    if content is None:
        return 0
    try:
        number = read_checkpoint(content).number
    except ValueError as error:
        raise AuditError(f"the beginning of the record cannot be read ({error}): verify the store") from error
    write_start(folder, content)
    return number


def _checked(newest: _Newest, source: LineSource) -> int:
    """The number of the last line of the files. Raises AuditError where the store has another line there."""
    head, start = read_head(newest.last), source.record_start()
    if head is not None and head.number <= start.number:
        if (head.number, leaf_of(newest.last)) == (start.number, start.leaf):
            return head.number
        raise AuditError(
            f"{newest.path} ends with line {head.number}, and retention has removed the lines up to {start.number} "
            "from the store: export to the archive that the retention names, or to another folder"
        )
    if head is None:
        if newest.lines:
            raise AuditError(f"{newest.path} ends with a line that is none of a record: export to another folder")
        return _before(newest.path)
    stored = next(source.record_lines(head.number, head.number), None)
    if stored is None or stored.text != newest.last:
        has = "no such line" if stored is None else "another line"
        raise AuditError(
            f"{newest.path} ends with line {head.number}, of which the store has {has}: the store was replaced or "
            "restored, or one of both was changed. Verify both with `ksctl audit verify`, and export to another folder"
        )
    return head.number


def _before(empty: Path) -> int:
    """The last number before a segment without a whole line: its name has the first one."""
    digits = empty.stem.rpartition("-")[2]
    if not digits.isdigit():
        raise AuditError(f"{empty} has no line: remove it")
    return int(digits) - 1


def _append(
    source: LineSource, folder: Path, first: int, newest: _Newest | None, most: int, until: int | None, *,
    with_bodies: bool,
) -> int:  # fmt: skip
    """Append the lines from number `first` on; returns how many."""
    written, room = 0, 0 if newest is None else most - newest.lines
    path, batch = None if newest is None else newest.path, []  # type: Path | None, list[bytes]
    for due, line in enumerate(source.record_lines(first, until), start=first):
        if line.number != due and source.record_start().number >= due:
            raise AuditError(f"retention has removed line {due} of the store meanwhile: export to another folder")
        if room == 0:
            _write(path, batch)
            path, batch, room = folder / f"record-{line.number:012}.jsonl", [], most
        batch.append(line.text + b"\n")
        room, written = room - 1, written + 1
        if with_bodies:
            keep_bodies(source, folder, line)
        if len(batch) >= _BATCH:
            _write(path, batch)
            batch = []
    _write(path, batch)
    return written


def _write(path: Path | None, lines: Iterable[bytes]) -> None:
    content = b"".join(lines)
    if path is None or not content:
        return
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def keep_bodies(source: LineSource, folder: Path, line: StoredLine) -> None:
    """Keep what a line names by its digest next to the segments, as far as the store has it. Raises OSError."""
    content = content_of(line.text)
    for digest in () if content is None else references_of(content):
        assert content is not None
        found = source.record_body(digest, content)
        if found is not None:
            keep_body(folder, digest, found)


def table_rows(source: LineSource, first: int = 1) -> Iterator[dict[str, Any]]:
    """The lines as rows with `COLUMNS`; an erasable value is its digest. What a line lacks is None."""
    for line in source.record_lines(first):
        keys = keys_of(line.text) or {}
        row = {name: _cell(keys.get(name)) for name in COLUMNS}
        yield row | {"seq": line.number, "leaf": leaf_of(line.text).hex(), "line": line.text.decode("utf-8", "replace")}


def _cell(value: object) -> object:
    if isinstance(value, Mapping):
        return value.get("salted") or msgspec.json.encode(value).decode()
    return value


def export_csv(source: LineSource, path: Path) -> int:
    """Write the record as CSV (RFC 4180) with a head; returns the number of lines. Raises AuditError.

    A text that a spreadsheet would take for a formula has an apostrophe in front.
    """
    many = 0
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for row in table_rows(source):
                cells = (row[name] for name in COLUMNS)
                writer.writerow(harmless_cell(each) if isinstance(each, str) else each for each in cells)
                many += 1
    except OSError as error:
        raise AuditError(f"cannot write {path}: {error.strerror or error}") from error
    return many


def export_parquet(source: LineSource, path: Path) -> int:
    """Write the record as Parquet; returns the number of lines. Raises AuditError, also without pyarrow."""
    try:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise AuditError("Parquet needs pyarrow: `pip install 'killswitch[market]'`, or export as csv") from None
    types = {"seq": arrow.int64(), "answers": arrow.int64(), "announces": arrow.bool_()}
    schema = arrow.schema([(name, types.get(name, arrow.string())) for name in COLUMNS])
    many, batch = 0, []  # type: int, list[dict[str, Any]]
    try:
        with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
            for row in table_rows(source):
                batch.append({name: _typed(name, value) for name, value in row.items()})
                many += 1
                if len(batch) >= _BATCH:
                    writer.write_table(arrow.Table.from_pylist(batch, schema=schema))
                    batch = []
            writer.write_table(arrow.Table.from_pylist(batch, schema=schema))
    except OSError as error:
        raise AuditError(f"cannot write {path}: {error.strerror or error}") from error
    return many


def _typed(name: str, value: object) -> object:
    return value if value is None or name in ("seq", "answers", "announces") else str(value)
