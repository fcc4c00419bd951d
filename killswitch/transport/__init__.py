"""HTTP for every client: answers have a largest size, and a redirect is an error.

`sessions` implements this for aiohttp, `adapters` for requests, `sinks` for libraries that send notifications and
telemetry. A request to a venue is signed and names a key. A client that follows a redirect repeats both to the target,
and treats the target's answer as the venue's.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from killswitch.model.legible import shortened

LARGEST_ANSWER: Final = 64 * 2**20
"""Bytes of an answer, uncompressed. The longest real answers, the rules of all symbols, are a quarter of it."""
MOST_VALUES: Final = 4_000_000
"""Commas and opening brackets of an answer. Parsing `[],[],` takes thirty times the memory of its text, and a minute
for 64 MB of it; the longest real answer, Binance's rules for spot, has about a million."""
LARGEST_MESSAGE: Final = 4 * 2**20
"""Bytes of a message on a stream, uncompressed."""
CHUNK: Final = 2**16
"""Bytes that are read and uncompressed at once."""


class RedirectRefusedError(Exception):
    """The answer was a 3xx status: the status of the request is unknown, and nothing was sent elsewhere."""

    def __init__(self, status: int, location: str | None) -> None:
        super().__init__(f"it answered {status}{_named(location)}; redirects are not followed")
        self.status = status


class AnswerTooLargeError(Exception):
    """The answer is larger than the limit. The rest of it was not read."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the answer is {what}, and was not read to its end")


class Body:
    """The body of an answer, at most `largest` bytes of it."""

    def __init__(self, largest: int, error: type[AnswerTooLargeError] = AnswerTooLargeError) -> None:
        """`error` is the class of error that `add` raises."""
        self._largest = largest
        self._error = error
        self._read = bytearray()
        self._values = 0

    def add(self, chunk: bytes) -> None:
        """Append a chunk. Raises AnswerTooLargeError beyond the limits."""
        self._read += chunk
        self._values += sum(map(chunk.count, (b",", b"[", b"{")))
        if len(self._read) > self._largest:
            raise self._error(f"larger than {self._largest / 2**20:g} MB")
        if self._values > MOST_VALUES:
            raise self._error(f"of more than {MOST_VALUES:,} values")

    def whole(self) -> bytes:
        """The complete body."""
        return bytes(self._read)


def is_redirect(status: int) -> bool:
    """Whether a status is one of 3xx, none of which reports whether a request was carried out."""
    return 300 <= status < 400


def _named(location: str | None) -> str:
    """The target of a redirect, without path and query, which may repeat a signature."""
    try:
        place = urlsplit(location or "").netloc.rpartition("@")[2]
    except ValueError:
        place = ""
    return f" and names {shortened(place, 100)}" if place else ""
