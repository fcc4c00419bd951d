"""Fetched bars on disk: one CSV file a symbol that is only ever whole, what it covers, and parts under way.

In the folder of a market, for a symbol `BTC/USDT:USDT`:

- `BTC_USDT_USDT.csv`: the bars, as `killswitch.lab.bars` reads them. Put there in one step, never written into.
- `BTC_USDT_USDT.fetched.json`: whose bars these are and which times they cover.
- `BTC_USDT_USDT.FROM.part`: what is being fetched from there on. Rows, and after each page the mark `until,MS`, which
  says that everything before it is there. What follows the last mark is torn, and counts for nothing.
- `BTC_USDT_USDT.lock`: there while a fetch is at it; one that a killed process left behind holds nobody up.

Each step may be the last of the process: what is done again after it comes to the same bytes.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
    """Bars could not be fetched or kept. The message says why, and how to go on."""


class Whose(Struct, frozen=True):
    """Whose bars they are. `timeframe` as the venue calls it, as in `5m`."""

    venue: str
    symbol: str
    timeframe: str
    endpoint: str | None = None


class Coverage(Struct, frozen=True):
    """What a file holds: every bar that the venue gave of those opening from `begins` to before `ends`, UTC ms."""

    format: str
    whose: Whose
    begins: int
    ends: int
    bars: int

    @property
    def doubtful(self) -> bool:
        """Whether it is by an older version, which took all before a page's last bar for given, however far off."""
        return self.format == _DOUBTFUL


COVERAGE_FORMAT = "killswitch.fetched/v2"
_DOUBTFUL = "killswitch.fetched/v1"


def stem(symbol: str) -> str:
    """The name of a symbol's file: `BTC_USDT_USDT` for `BTC/USDT:USDT`."""
    return "".join(each if each.isalnum() or each in "-." else "_" for each in symbol)


@dataclass(frozen=True, slots=True)
class BarFile:
    """The file of one symbol in one folder."""

    folder: Path
    whose: Whose

    @property
    def path(self) -> Path:
        """The bars."""
        return self.folder / f"{stem(self.whose.symbol)}.csv"

    @property
    def _coverage_at(self) -> Path:
        return self.folder / f"{stem(self.whose.symbol)}.fetched.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else fetches this symbol into this folder meanwhile. FetchError where somebody does.

        For all of a fetch: what it puts in place is made of what was there when it began.
        """
        path = self.folder / f"{stem(self.whose.symbol)}.lock"
        with _locked(path):
            try:
                yield
            finally:
                path.unlink()

    def covered(self) -> Coverage | None:
        """What is there; None for nothing. FetchError for a file of another origin, or one that was changed."""
        if not self._coverage_at.exists():
            if self.path.exists():
                if not self._parts():
                    raise FetchError(f"{self.path} is there and was not fetched by this command: choose another --out")
                # With a part of ours beside it, it was put there out of that a moment before the process ended. It is
                # made anew: if it stayed and the part did not, nobody would know it for ours.
                self.path.unlink()
            return None
        try:
            found = msgspec.json.decode(self._coverage_at.read_bytes(), type=Coverage)
        except msgspec.DecodeError as error:
            raise FetchError(f"{self._coverage_at}: {error}; remove it and {self.path.name} to fetch anew") from error
        if found.format not in (COVERAGE_FORMAT, _DOUBTFUL):
            raise FetchError(
                f"{self._coverage_at} is of another version ({found.format}): go on with that, or choose another --out"
            )
        if found.whose != self.whose:
            was = f"{found.whose.symbol} of {found.whose.venue}, {found.whose.timeframe}"
            if found.whose.endpoint != self.whose.endpoint:
                was += f", from {found.whose.endpoint or 'the venue itself'}"
            raise FetchError(f"{self.path} holds {was}: choose another --out")
        if not self.path.exists():
            self._coverage_at.unlink()
            return None
        for begins, part in self._parts():
            if found.begins <= begins < found.ends and not found.doubtful:
                # taken already, and left there by an end in between
                part.unlink()
        return found

    def _parts(self) -> list[tuple[int, Path]]:
        """(from when on, file) of every part of this symbol."""
        name = stem(self.whose.symbol)
        middles = [(path.name[len(name) + 1 : -len(".part")], path) for path in self.folder.glob(f"{name}.*.part")]
        return [(int(middle), path) for middle, path in middles if middle.isdigit()]

    def part(self, begins: int) -> Part:
        """What is fetched from `begins` on."""
        return Part(self.folder / f"{stem(self.whose.symbol)}.{begins}.part", self.whose)

    def take(self, part: Part, begins: int, ends: int, before: Coverage | None) -> Coverage:
        """Put what the part holds of `begins` to `ends` with what is there, which it joins; the part is gone then.

        Of what is there by a doubtful word only the bars stay, of the span that was fetched anew.
        """
        kept = self._rows(before.begins, before.ends) if before is not None else []
        if before is not None and len(kept) != before.bars:
            raise FetchError(
                f"{self.path} was changed since it was fetched ({len(kept)} bars, not {before.bars}): "
                "remove it to fetch anew"
            )
        rows = dict(kept) | {ts: row for ts, row in part.rows() if begins <= ts < ends}
        if before is not None and before.doubtful:
            rows = {ts: row for ts, row in rows.items() if begins <= ts < ends}
            before = None
        found = Coverage(
            COVERAGE_FORMAT,
            self.whose,
            begins if before is None else min(begins, before.begins),
            ends if before is None else max(ends, before.ends),
            len(rows),
        )
        replace_file(self.path, (HEAD + "".join(rows[ts] for ts in sorted(rows))).encode())
        replace_file(self._coverage_at, msgspec.json.format(msgspec.json.encode(found)) + b"\n")
        part.path.unlink()
        return found

    def opened(self) -> Sequence[int]:
        """When the bars that are there open, UTC ms, rising."""
        return [ts for ts, _ in self._rows(None, None)] if self.path.exists() else []

    def _rows(self, begins: int | None, ends: int | None) -> list[tuple[int, str]]:
        with self.path.open(encoding="utf-8", newline="") as source:
            next(source, None)
            rows = [(int(line.partition(",")[0]), line) for line in source]
        return [(ts, row) for ts, row in rows if (begins is None or ts >= begins) and (ends is None or ts < ends)]


class Part:
    """Bars of one symbol from one time on, as they come."""

    def __init__(self, path: Path, whose: Whose) -> None:
        self.path = path
        self._whose = whose
        self._file: IO[bytes] | None = None

    def open(self, begins: int) -> int:
        """Cut off what is torn; the time before which everything is there, UTC ms.

        FetchError for a part of another origin.
        """
        self._file = file = self.path.open("a+b")
        file.seek(0)
        head = _head(self._whose)
        first = file.readline()
        if first != head:
            if first.endswith(b"\n") and first != _doubtful_head(self._whose):
                self.close()
                raise FetchError(f"{self.path} is of another fetch: remove it, or choose another --out")
            file.truncate(0)
            self._write(head)
            return begins
        whole, until = file.tell(), begins
        for line in file:
            if not line.endswith(b"\n"):
                break
            if line.startswith(_MARK.encode()):
                until, whole = int(line[len(_MARK) :]), file.tell()
        file.truncate(whole)
        return until

    def add(self, bars: Iterable[Bar], until: int) -> None:
        """Keep a page, and that everything before `until` is there now. Durable when this returns."""
        self._write("".join([*map(_row, bars), f"{_MARK}{until}\n"]).encode())

    def rows(self) -> Iterator[tuple[int, str]]:
        """(when the bar opened, its line), of what is whole."""
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

    def is_bare(self) -> bool:
        """Whether it is there and holds nothing that a further fetch could go on from."""
        if not self.path.exists():
            return False
        with self.path.open("rb") as source:
            source.readline()
            return not any(line.startswith(_MARK.encode()) and line.endswith(b"\n") for line in source)

    def close(self) -> None:
        """What was added is there already."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, content: bytes) -> None:
        assert self._file is not None  # opened by the caller
        self._file.write(content)
        self._file.flush()
        os.fsync(self._file.fileno())


def unsound(bar: Bar) -> str | None:
    """Why this is no bar that a backtest can use, or None."""
    numbers = (bar.open, bar.high, bar.low, bar.close, bar.volume)
    try:
        return bar_fault(*numbers) if all(value.is_finite() for value in numbers) else "a value is not a number"
    except (InvalidOperation, AttributeError, TypeError):
        return "a value is missing"


def _locked(path: Path) -> IO[bytes]:
    """The lock file, locked until it is closed. FetchError where another has it."""
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
            raise FetchError(
                f"{path.with_suffix('.csv')}: another process is fetching into it; wait for its end"
            ) from error
        file.close()  # whoever had it has removed it in between: the next one is another file


def _row(bar: Bar) -> str:
    numbers: tuple[Decimal, ...] = (bar.open, bar.high, bar.low, bar.close, bar.volume)
    return ",".join([str(bar.ts), *(f"{each:f}" for each in numbers)]) + "\n"


def _head(whose: Whose) -> bytes:
    return msgspec.json.encode({"format": COVERAGE_FORMAT, "whose": whose}) + b"\n"


def _doubtful_head(whose: Whose) -> bytes:
    """That of a part by an older version, whose marks are as doubtful as its coverage: it begins anew."""
    return msgspec.json.encode(whose) + b"\n"
