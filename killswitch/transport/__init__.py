"""HTTP as every client here speaks it: an answer has a largest size, and a redirect is an error.

`sessions` has it for aiohttp, `adapters` for requests, `sinks` for libraries that tell people and dashboards. A request
to a venue is signed and names a key. A client that follows a redirect repeats both to whoever the answer names, and
takes what that place says for the venue's word.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from killswitch.model.legible import shortened

LARGEST_ANSWER: Final = 64 * 2**20
"""Bytes of an answer, unpacked. The longest that venues really give tell the rules of all symbols: a quarter of it."""
MOST_VALUES: Final = 4_000_000
"""Commas and opening brackets of an answer. What is made of `[],[],` takes thirty times the memory of its text, and a
minute for 64 MB of it; the longest real answer, Binance's rules for spot, has about a million."""
LARGEST_MESSAGE: Final = 4 * 2**20
"""Bytes of a message on a stream, unpacked."""
CHUNK: Final = 2**16
"""Bytes that are read, and unpacked, at once."""


class RedirectRefusedError(Exception):
    """The answer was a status of 3xx: nobody knows what became of the request, and nothing was sent anywhere else."""

    def __init__(self, status: int, location: str | None) -> None:
        super().__init__(f"it answered {status}{_named(location)}; redirects are not followed")
        self.status = status


class AnswerTooLargeError(Exception):
    """The answer is longer than anybody expects. The rest of it was not read."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the answer is {what}, and was not read to its end")


class Body:
    """What has been read of an answer, at most `largest` bytes of it."""

    def __init__(self, largest: int, error: type[AnswerTooLargeError] = AnswerTooLargeError) -> None:
        """`error` is what `add` raises."""
        self._largest = largest
        self._error = error
        self._read = bytearray()
        self._values = 0

    def add(self, chunk: bytes) -> None:
        """AnswerTooLargeError where this is more than anybody expects."""
        self._read += chunk
        self._values += sum(map(chunk.count, (b",", b"[", b"{")))
        if len(self._read) > self._largest:
            raise self._error(f"larger than {self._largest / 2**20:g} MB")
        if self._values > MOST_VALUES:
            raise self._error(f"of more than {MOST_VALUES:,} values")

    def whole(self) -> bytes:
        """All of it."""
        return bytes(self._read)


def is_redirect(status: int) -> bool:
    """Whether a status is one of 3xx. None of them says whether what was asked for is done."""
    return 300 <= status < 400


def _named(location: str | None) -> str:
    """The place that an answer names, without a path or a query: these may repeat a signature."""
    try:
        place = urlsplit(location or "").netloc.rpartition("@")[2]
    except ValueError:
        place = ""
    return f" and names {shortened(place, 100)}" if place else ""
