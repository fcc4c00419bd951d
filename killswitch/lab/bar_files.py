"""Files of fetched bars: one CSV file for each symbol, replaced atomically, its coverage, and partial downloads.

In the folder of a market, for a symbol `BTC/USDT:USDT`:

- `BTC_USDT_USDT.csv`: the bars, as `killswitch.lab.bars` reads them. Replaced in one step, never written into.
- `BTC_USDT_USDT.fetched.json`: the origin of the bars, and the times they cover.
- `BTC_USDT_USDT.FROM.part`: the download in progress from that time on. Rows, and after each page the mark `until,MS`:
  everything before that time is complete. Rows after the last mark are torn and ignored.
- `BTC_USDT_USDT.lock`: exists during a fetch; the file of a killed process does not block another fetch.

The process may end after each step: repeating the step writes the same bytes.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from killswitch.gate.files import replace_file
from killswitch.lab.bars import COLUMNS, bar_fault
from killswitch.model.inspection import Bar

HEAD = ",".join(COLUMNS) + "\n"
_MARK = "until,"


class FetchError(Exception):
    """Bars could not be fetched or kept. The message contains the reason and how to continue."""


class BarOrigin(Struct, frozen=True):
    """The origin of bars. `timeframe` as the venue names it, for example `5m`."""

    venue: str
    symbol: str
    timeframe: str
    endpoint: str | None = None


class Coverage(Struct, frozen=True):
    """The content of a file: every bar the venue gave with an open from `begins` to before `ends`, UTC ms."""

    format: str
    whose: BarOrigin
    begins: int
    ends: int
    bars: int

    @property
    def is_doubtful(self) -> bool:
        """Whether an older version wrote it, which treated everything before a page's last bar as complete."""
        return self.format == _DOUBTFUL


COVERAGE_FORMAT = "killswitch.fetched/v2"
_DOUBTFUL = "killswitch.fetched/v1"


def file_stem(symbol: str) -> str:
    """Return the file name of a symbol: `BTC_USDT_USDT` for `BTC/USDT:USDT`."""
    return "".join(each if each.isalnum() or each in "-." else "_" for each in symbol)


class BarFile(Struct, frozen=True):
    """The file of one symbol in one folder."""

    folder: Path
    origin: BarOrigin

    @property
    def path(self) -> Path:
        """The file of the bars."""
        return self._path_with("csv")

    @property
    def _coverage_at(self) -> Path:
        return self._path_with("fetched.json")

    def _path_with(self, suffix: str) -> Path:
        return self.folder / f"{file_stem(self.origin.symbol)}.{suffix}"

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Lock the symbol in this folder for the whole fetch; FetchError where another process has the lock.

        The lock covers the whole fetch, because its result is built from what was there at its beginning.
        """
        path = self._path_with("lock")
        with _locked(path):
            try:
                yield
            finally:
                path.unlink()

    def coverage(self) -> Coverage | None:
        """Return the coverage; None for no file. FetchError for a file of another origin, or a changed one."""
        if not self._coverage_at.exists():
            if self.path.exists():
                if not self._parts():
                    raise FetchError(f"{self.path} exists and was not fetched by this command: choose another --out")
                # A part shows that the file was made from it just before the process ended. The file is made
                # again, with its coverage.
                self.path.unlink()
            return None
        try:
            found = msgspec.json.decode(self._coverage_at.read_bytes(), type=Coverage)
        except msgspec.DecodeError as error:
            raise FetchError(f"{self._coverage_at}: {error}; remove it and {self.path.name} to fetch again") from error
        if found.format not in (COVERAGE_FORMAT, _DOUBTFUL):
            raise FetchError(
                f"{self._coverage_at} is of another version ({found.format}): continue with that version, or choose "
                "another --out"
            )
        if found.whose != self.origin:
            was = f"{found.whose.symbol} of {found.whose.venue}, {found.whose.timeframe}"
            if found.whose.endpoint != self.origin.endpoint:
                was += f", from {found.whose.endpoint or 'the venue itself'}"
            raise FetchError(f"{self.path} holds {was}: choose another --out")
        if not self.path.exists():
            self._coverage_at.unlink()
            return None
        for begins, part in self._parts():
            if found.begins <= begins < found.ends and not found.is_doubtful:
                # merged already, and left behind when the process ended
                part.unlink()
        return found

    def _parts(self) -> list[tuple[int, Path]]:
        """Return (start, file) of every partial download of this symbol."""
        name = file_stem(self.origin.symbol)
        middles = [(path.name[len(name) + 1 : -len(".part")], path) for path in self.folder.glob(f"{name}.*.part")]
        return [(int(middle), path) for middle, path in middles if middle.isdigit()]

    def part(self, begins: int) -> PartialDownload:
        """Return the partial download that begins at `begins`."""
        return PartialDownload(self._path_with(f"{begins}.part"), self.origin)

    def merge(self, part: PartialDownload, begins: int, ends: int, before: Coverage | None) -> Coverage:
        """Merge the bars of the part from `begins` to `ends` into the adjoining file, and remove the part.

        Of a file with doubtful coverage, only the bars in the newly fetched span are kept.
        """
        kept = [] if before is None else [row for row in self._rows() if before.begins <= row[0] < before.ends]
        if before is not None and len(kept) != before.bars:
            raise FetchError(
                f"{self.path} was changed since it was fetched ({len(kept)} bars, not {before.bars}): "
                "remove it to fetch again"
            )
        rows = dict(kept) | {ts: row for ts, row in part.rows() if begins <= ts < ends}
        if before is not None and before.is_doubtful:
            rows = {ts: row for ts, row in rows.items() if begins <= ts < ends}
        elif before is not None:
            begins, ends = min(begins, before.begins), max(ends, before.ends)
        found = Coverage(COVERAGE_FORMAT, self.origin, begins, ends, len(rows))
        replace_file(self.path, (HEAD + "".join(rows[ts] for ts in sorted(rows))).encode())
        replace_file(self._coverage_at, msgspec.json.format(msgspec.json.encode(found)) + b"\n")
        part.path.unlink()
        return found

    def opened(self) -> Sequence[int]:
        """Return when the existing bars open, UTC ms, rising."""
        return [ts for ts, _ in self._rows()] if self.path.exists() else []

    def _rows(self) -> list[tuple[int, str]]:
        with self.path.open(encoding="utf-8", newline="") as source:
            next(source, None)
            return [(int(line.partition(",")[0]), line) for line in source]


class PartialDownload:
    """A partial download: bars of one symbol from one time on, in the order of arrival."""

    def __init__(self, path: Path, origin: BarOrigin) -> None:
        self.path = path
        self._origin = origin
        self._file: IO[bytes] | None = None

    def open(self, begins: int) -> int:
        """Cut off torn rows; return the time before which everything is complete, UTC ms.

        FetchError for a part of another origin.
        """
        self._file = file = self.path.open("a+b")
        file.seek(0)
        head = _head(self._origin)
        first = file.readline()
        if first != head:
            # An older version wrote a head without a format: its marks are as doubtful as its coverage.
            if first.endswith(b"\n") and first != msgspec.json.encode(self._origin) + b"\n":
                self.close()
                raise FetchError(f"{self.path} belongs to another fetch: remove it, or choose another --out")
            file.truncate(0)
            self._write(head)
            return begins
        complete, until = file.tell(), begins
        for line in file:
            if not line.endswith(b"\n"):
                break
            if line.startswith(_MARK.encode()):
                until, complete = int(line[len(_MARK) :]), file.tell()
        file.truncate(complete)
        return until

    def add(self, bars: Iterable[Bar], until: int) -> None:
        """Append a page, and mark everything before `until` as complete. Durable when this returns."""
        self._write("".join([*map(_row, bars), f"{_MARK}{until}\n"]).encode())

    def rows(self) -> Iterator[tuple[int, str]]:
        """Yield (when the bar opened, its line) of the complete pages."""
        page: list[tuple[int, str]] = []
        with self.path.open(encoding="utf-8", newline="") as source:
            next(source, None)
            for line in source:
                if not line.endswith("\n"):
                    return
                if line.startswith(_MARK):
                    yield from page
                    page = []
                else:
                    page.append((int(line.partition(",")[0]), line))

    def is_empty(self) -> bool:
        """Whether it exists and contains nothing that a further fetch could continue from."""
        if not self.path.exists():
            return False
        with self.path.open("rb") as source:
            source.readline()
            return not any(line.startswith(_MARK.encode()) and line.endswith(b"\n") for line in source)

    def close(self) -> None:
        """Close the file; added rows are durable already."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, content: bytes) -> None:
        assert self._file is not None  # opened by the caller
        self._file.write(content)
        self._file.flush()
        os.fsync(self._file.fileno())


def invalid_bar_reason(bar: Bar) -> str | None:
    """Return why a backtest cannot use this bar, or None."""
    numbers = (bar.open, bar.high, bar.low, bar.close, bar.volume)
    try:
        return bar_fault(*numbers) if all(value.is_finite() for value in numbers) else "a value is not a number"
    except (InvalidOperation, AttributeError, TypeError):
        return "a value is missing"


def _locked(path: Path) -> IO[bytes]:
    """Open and lock the lock file until it is closed. FetchError where another process has the lock."""
    while True:
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        except BlockingIOError as error:
            file.close()
            bars = path.with_suffix(".csv")
            raise FetchError(f"{bars}: another process is fetching into it; wait until it ends") from error
        file.close()  # its owner has removed it: the next file of this name is another one


def _row(bar: Bar) -> str:
    numbers: tuple[Decimal, ...] = (bar.open, bar.high, bar.low, bar.close, bar.volume)
    return ",".join([str(bar.ts), *(f"{each:f}" for each in numbers)]) + "\n"


def _head(origin: BarOrigin) -> bytes:
    return msgspec.json.encode({"format": COVERAGE_FORMAT, "whose": origin}) + b"\n"
