"""The ways on which heartbeats arrive, each read by a thread of its own: one that hangs delays no check."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Final, Protocol
from urllib.error import HTTPError
from urllib.request import Request

import msgspec
from msgspec import Struct

from killswitch.accounts.credentials import CredentialError, resolve_one
from killswitch.client.heartbeat import FORMAT, REQUEST_TIMEOUT, direct_opener, monotonic_origin
from killswitch.engine.silence import Beat, WayAnswer
from killswitch.graph.nodes import HeartbeatWay, SilenceRule
from killswitch.model.instant import SECOND
from killswitch.model.legible import legible, one_line

LONGEST_FILE: Final = 4096
"""Bytes of a file or an answer that are read; a heartbeat has about 150."""
READS_PER_CHECK: Final = 4
"""How often a way is read between two checks."""
LONGEST_READ: Final = 2 * REQUEST_TIMEOUT
"""Seconds after which a read that has not ended counts as an error."""


class HeartbeatFile(Struct, frozen=True):
    """The content of a heartbeat's file, as `killswitch.client` writes it."""

    format: str
    boot: str | None
    monotonic: float
    progress: int | None = None


class HeartbeatAge(Struct, frozen=True):
    """The answer of an address: seconds since the server received the newest heartbeat, and its progress."""

    age: float
    progress: int | None = None


class HeartbeatReader(Protocol):
    """Reads the newest heartbeat on one way."""

    def read(self, now: float) -> Beat | None:
        """The newest heartbeat, dated in seconds of the watcher's clock; None if there was never one.

        OSError and ValueError if that is unknown.
        """
        ...


class FileReader:
    """Reads the file of a heartbeat.

    One without our content, as `touch` leaves it, is dated by the read that sees it first.
    """

    def __init__(self, folder: str, name: str) -> None:
        self._folder = Path(folder)
        self._path = self._folder / name
        self._boot = monotonic_origin()
        self._seen: tuple[int, int, int] | None = None
        self._read_at: float | None = None
        self._beat: Beat | None = None

    def read(self, now: float) -> Beat | None:
        """As `HeartbeatReader.read`. A heartbeat of this boot is dated by its own stamp.

        Any other is dated by the read that sees it first, and the file as the first read finds it by no time at all: it
        may be of last week.
        """
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            self._folder.stat()  # a folder that is gone is an error, and no silence
            self._read_at = now
            return self._beat
        changed = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        if changed != self._seen:
            content = self._content()
            stamped = (
                content if content is not None and content.boot is not None and content.boot == self._boot else None
            )
            if stamped is not None:
                self._beat = Beat(min(stamped.monotonic, now), stamped.progress)
            elif self._read_at is not None:
                self._beat = Beat(now, None if content is None else content.progress)
            self._seen = changed
        self._read_at = now
        return self._beat

    def _content(self) -> HeartbeatFile | None:
        with self._path.open("rb") as file:
            text = file.read(LONGEST_FILE)
        try:
            found = _FILE.decode(text)
        except msgspec.MsgspecError:
            return None
        return found if found.format == FORMAT else None


class AddressReader:
    """Asks an address for the age of a heartbeat; 404 is the answer that there was never one."""

    def __init__(self, address: str, name: str, token: str | None = None) -> None:
        """`token`: a reference; it is read at each request, so that a new one needs no restart."""
        self._url = f"{address.rstrip('/')}/{name}"
        self._token = token

    def read(self, now: float) -> Beat | None:
        """As `HeartbeatReader.read`; the age counts from before the request, which is never too young."""
        headers = {"Accept": "application/json"}
        if self._token is not None:
            try:
                headers["Authorization"] = f"Bearer {resolve_one(self._token)}"
            except CredentialError as error:
                raise ValueError(f"its token: {error}") from error
        request = Request(self._url, headers=headers)
        try:
            with direct_opener().open(request, timeout=REQUEST_TIMEOUT) as answer:
                text = answer.read(LONGEST_FILE)
        except HTTPError as error:
            if error.code == 404:
                return None
            raise
        try:
            found = _AGE.decode(text)
        except msgspec.MsgspecError as error:
            raise ValueError(f"the answer is not that of a server of heartbeats: {error}") from error
        if not found.age >= 0:
            raise ValueError(f"the age of a heartbeat is {found.age}")
        return Beat(now - found.age, found.progress)


_FILE = msgspec.json.Decoder(HeartbeatFile)
_AGE = msgspec.json.Decoder(HeartbeatAge)


class WayListener:
    """Reads one way again and again in a thread, and has its newest answer."""

    def __init__(self, reader: HeartbeatReader, pause: float, monotonic: Callable[[], float]) -> None:
        """`pause`: seconds between two reads."""
        self._reader = reader
        self._pause = pause
        self._monotonic = monotonic
        self._answer: WayAnswer | None = None
        self._began: float | None = None
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin to read."""
        threading.Thread(target=self._run, name="heartbeats", daemon=True).start()

    def stop(self) -> None:
        """Stop after the read that is under way, without waiting for it."""
        self._stopped.set()

    def answer(self, now: float) -> WayAnswer | None:
        """The newest answer; an error while a read takes too long; None before the first."""
        began, answer = self._began, self._answer
        if began is not None and now - began > LONGEST_READ:
            beat = None if answer is None else answer.beat
            return WayAnswer(now, beat, f"no answer for {now - began:.0f} s")
        return answer

    def read(self) -> None:
        """Read once."""
        self._began = began = self._monotonic()
        last = None if self._answer is None else self._answer.beat
        try:
            answer = WayAnswer(began, self._reader.read(began))
        except (OSError, ValueError, HTTPException) as error:
            answer = WayAnswer(began, last, one_line(legible(str(error))))
        self._answer, self._began = answer, None

    def _run(self) -> None:
        while not self._stopped.is_set():
            self.read()
            self._stopped.wait(self._pause)


def listeners(rule: SilenceRule, monotonic: Callable[[], float]) -> Mapping[str, WayListener]:
    """A listener for each way of a switch, by the text of the way."""
    pause = rule.check / SECOND / READS_PER_CHECK
    return {way.at: WayListener(_reader(way, rule.beats), pause, monotonic) for way in rule.ways}


def _reader(way: HeartbeatWay, name: str) -> HeartbeatReader:
    return FileReader(way.at, name) if way.form == "file" else AddressReader(way.at, name, way.token)
