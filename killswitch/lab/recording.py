"""Recordings of snapshots, and the replay of policies over them."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Self

import msgspec
from msgspec.structs import replace

from killswitch.graph.nodes import PolicySet
from killswitch.model.alert import Alerts, alert_if
from killswitch.model.decision import Decision, Notice
from killswitch.model.snapshot import SNAPSHOT_FORMAT, Instrument, Snapshot, decode_snapshot, encode_snapshot
from killswitch.planning.replayed_ticks import ReplayedTicks
from killswitch.telemetry.background_writer import MOST, BackgroundWriter, Compressor

_BUFFER = 1 << 20
_YEARS = (1970, 2500)
"""Outside of these years datetimes overflow when a window is added or a time zone removed."""


class RecordingError(Exception):
    """A recording cannot be read: the file, the line (0 for the file as a whole), and the reason."""

    def __init__(self, path: Path, line: int, text: str) -> None:
        place = f"{path}:{line}" if line else f"{path}"
        super().__init__(f"{place}: {text}")
        self.line = line


def read(path: Path) -> Iterator[Snapshot]:
    """Yield the snapshots of the recording, oldest first, one at a time: memory does not grow with the file.

    RecordingError for a file that cannot be opened or decompressed, a line that is not a snapshot, and a snapshot older
    than the one before it. Blank lines are skipped.
    """
    number = 0
    line = b""
    last: datetime | None = None
    damaged = _damage(path)
    try:
        with _open_to_read(path) as source:
            for number, line in enumerate(source, start=1):
                if line.isspace():
                    continue
                snapshot = decode_snapshot(line)
                at = snapshot.as_of
                if not _YEARS[0] <= at.year < _YEARS[1]:
                    years = f"{_YEARS[0]} to {_YEARS[1]}"
                    raise RecordingError(path, number, f"as_of {at.isoformat()} is outside the years {years}")
                if last is not None and at < last:
                    raise RecordingError(path, number, _out_of_order(at, last))
                last = at
                yield snapshot
    except msgspec.DecodeError as error:
        raise RecordingError(path, number, _not_a_snapshot(line, error)) from error
    except OSError as error:
        raise RecordingError(path, 0, error.strerror or str(error)) from error
    except RecursionError as error:
        raise RecordingError(path, number, "not a snapshot: nested too deeply") from error
    except EOFError as error:
        raise RecordingError(path, number + 1, "the file is cut off inside its compressed data") from error
    except damaged as error:
        raise RecordingError(path, number + 1, f"the compressed data is damaged: {error}") from error


class RecordingWriter:
    """Writes a recording. Each line of a plain file reaches the operating system when `write` returns.

    `append` adds to an existing recording; gzip members and zstd frames may follow each other in one file, and `read`
    reads all of them.
    """

    def __init__(self, path: Path, *, append: bool = False) -> None:
        """OSError if the file cannot be opened for writing."""
        self._file = path.open("ab" if append else "wb")
        compressor = _compressor(path)
        self._compressor = None if compressor is None else compressor()

    def write(self, snapshot: Snapshot) -> None:
        """Append one snapshot."""
        line = encode_snapshot(snapshot) + b"\n"
        self._file.write(line if self._compressor is None else self._compressor.compress(line))
        if self._compressor is None:
            self._file.flush()

    def close(self) -> None:
        """Write what is buffered; a second call does nothing."""
        if self._compressor is not None and not self._file.closed:
            self._file.write(self._compressor.flush())
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class BackgroundRecorder:
    """Records a run in the background: a blocked disk delays no tick.

    Snapshots that do not fit into the queue are dropped, and the next written one has their number.
    """

    def __init__(self, path: Path, *, most: int = MOST) -> None:
        """Append to the file. OSError if it cannot be opened for writing."""
        self._writer = BackgroundWriter(str(path), "snapshots", compressor=_compressor(path), most=most)
        self._missing = 0
        """Dropped snapshots that no line has counted yet."""

    @property
    def problem(self) -> str | None:
        """Why snapshots are missing or delayed; None while they are written."""
        return self._writer.problem

    @property
    def judges(self) -> tuple[str, ...]:
        return ("recording",)

    @property
    def alerts(self) -> Alerts:
        """A page while snapshots are missing or delayed; unknown before the first one of this run is written."""
        unknown = () if self._writer.has_written else ("recording",)
        return alert_if("recording/writer", self.problem) + Alerts(unknown=unknown)

    def write(self, snapshot: Snapshot) -> None:
        """Append one snapshot soon, or drop it."""
        missing = self._missing + self._writer.lost
        lost = self._writer.put(encode_snapshot(replace(snapshot, missing=missing)) + b"\n")
        if lost is not None:
            self._missing += lost - missing  # more may have been dropped since the count

    def close(self) -> bool:
        """Write what is queued, for a few seconds at most; return whether all was written. A second call does
        nothing."""
        return self._writer.close()


def _not_a_snapshot(line: bytes, error: msgspec.DecodeError) -> str:
    text = str(error)
    if "`$.format`" in text:
        return f"not a {SNAPSHOT_FORMAT} snapshot: {text}"
    if not line.endswith(b"\n"):
        return f"the last line is cut off, or is not a snapshot: {text}"
    return f"not a snapshot: {text}"


def _out_of_order(as_of: datetime, before: datetime) -> str:
    order = f"as_of {as_of.isoformat()} is before {before.isoformat()} of the previous line"
    return f"{order}; snapshots must be in order of time"


def _damage(path: Path) -> tuple[type[Exception], ...]:
    """Return the exceptions of reading damaged compressed data."""
    if path.suffix != ".zst":
        return (zlib.error,)
    import zstandard

    return (zstandard.ZstdError,)


def _open_to_read(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.open(path, "rb"), _BUFFER)
    if path.suffix == ".zst":
        import zstandard

        raw = path.open("rb")
        frames = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True, closefd=True)
        return io.BufferedReader(frames, _BUFFER)
    return path.open("rb", buffering=_BUFFER)


def _compressor(path: Path) -> Callable[[], Compressor] | None:
    """Return the compressor for a file name; None for a plain file."""
    if path.suffix == ".gz":
        # No time of writing in the header: the same snapshots make the same file.
        return lambda: zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    if path.suffix == ".zst":
        import zstandard

        return zstandard.ZstdCompressor().compressobj
    return None


def stretch(snapshots: Iterable[Snapshot], begins: datetime, ends: datetime) -> Iterator[Snapshot]:
    """The snapshots from `begins` to `ends`, both included.

    The rules of symbols hold until they are reported again, so that the first snapshot has those from before it. What
    signals remember of earlier snapshots is not part of the stretch: begin it as long before as the longest window.
    """
    rules: dict[str, dict[str, Instrument]] = {}
    is_first = True
    for snapshot in snapshots:
        if snapshot.as_of > ends:
            return
        for account in snapshot.accounts:
            known = rules.setdefault(account.account, {})
            known.update({each.symbol: each for each in account.instruments or ()})
        if snapshot.as_of < begins:
            continue
        if is_first:
            accounts = (replace(it, instruments=tuple(rules[it.account].values())) for it in snapshot.accounts)
            yield replace(snapshot, accounts=tuple(accounts), missing=0)
            is_first = False
        else:
            yield snapshot


def replay(policies: PolicySet, snapshots: Iterable[Snapshot]) -> Iterator[Decision | Notice]:
    """Yield every decision and notice in order, and a warning where the recording lacks snapshots.

    The stage machine proceeds as if every decision had been carried out; positions are those of the recording. Where a
    run fetches prices a second time before a stage acts, those of the next snapshot are used.
    """
    ticks, stream = ReplayedTicks(policies), iter(snapshots)
    following: Snapshot | None = None

    def look() -> Snapshot | None:  # only where it is needed: a damaged line must not keep the decisions before it
        nonlocal following
        following = next(stream, None)
        return following

    while (snapshot := following or next(stream, None)) is not None:
        following = None
        if snapshot.missing:
            yield _missing(snapshot)
        found = ticks.tick(snapshot, look)
        yield from found.notices
        yield from found.decisions


def _missing(snapshot: Snapshot) -> Notice:
    count = "1 snapshot is" if snapshot.missing == 1 else f"{snapshot.missing} snapshots are"
    text = f"{count} missing here: the recording could not be written, and the decisions on them are not shown"
    return Notice(snapshot.as_of, "recording", "recording", "warning", "warning", text)
