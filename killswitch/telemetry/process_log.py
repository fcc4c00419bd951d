"""The log of a process as JSON: one line for each event, with what it is about, made by structlog.

It has what `ksctl run` and `ksctl serve` otherwise print on stderr for people, and what libraries log, warn about and
print there. Nothing else of the program imports structlog, which takes a tenth of a second.
"""

from __future__ import annotations

import atexit
import io
import logging
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from json import dumps
from math import isfinite
from threading import Lock
from types import TracebackType
from typing import Any, Final, Literal, TextIO

import structlog

from killswitch.model.legible import legible
from killswitch.telemetry.library_output import without_credentials, without_paths

LogFormat = Literal["text", "json"]
LogLevel = Literal["info", "warning", "error", "critical"]
_KEY_BEGINS: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?!.*-----END )")
_KEY_GOES_ON: Final = re.compile(
    r"\s*(?:[A-Za-z0-9+/=]*|(?:Proc-Type|DEK-Info): .*|-----END [A-Z ]*PRIVATE KEY-----.*)\s*"
)
"""A line of a private key that is printed line by line: base64, a header or nothing, or its end."""
MOST: Final = 20_000
"""Characters of one text: a longer one is cut, so that a line stays one write."""
OWN_FIELDS: Final = ("timestamp", "level", "event", "logger")

Event = MutableMapping[str, Any]


class ProcessLog:
    """Writes events to one stream. Thread-safe; a value that is no text or number is written as its text."""

    def __init__(self, stream: TextIO) -> None:
        self._hide: Callable[[str], str] = _unchanged
        own: list[Any] = [
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
        ]
        last: list[Any] = [self._redacted, structlog.processors.JSONRenderer(_line)]
        self._logger: Any = structlog.wrap_logger(
            structlog.PrintLogger(stream), processors=[*own, *last], wrapper_class=structlog.BoundLogger
        )
        self._formatter = structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *own, _without_paths],
        )
        self._stream = stream

    def hide(self, hide: Callable[[str], str]) -> None:
        """From now on also redact what `hide` replaces in a text: the credentials of the accounts."""
        self._hide = hide

    def write(self, text: str, level: LogLevel = "info", **about: object) -> None:
        """Write one event. `about`: what it is about; None is unknown, and leaves the field out."""
        known = {name: value for name, value in about.items() if value is not None}
        getattr(self._logger, level)(text, **known)

    def failed(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Write an error that ends the process, with its traceback, in one line."""
        self.write(f"{kind.__name__}: {error}", "critical", exc_info=(kind, error, trace))

    def handler(self) -> logging.Handler:
        """What makes records of `logging` events of this log."""
        handler = logging.StreamHandler(self._stream)
        handler.setFormatter(self._formatter)
        return handler

    def take_over(self) -> None:
        """Let everything else that this process logs or prints on stderr become events of this log."""
        logging.getLogger().addHandler(self.handler())
        logging.getLogger("killswitch").setLevel(logging.INFO)
        logging.captureWarnings(capture=True)
        lines = LoggedLines(self)
        sys.stderr = lines
        sys.excepthook = self.failed
        atexit.register(lines.finish)

    def _redacted(self, _logger: object, _method: str, event: Event) -> Event:
        return {name: self._without_secrets(value) for name, value in event.items()}

    def _without_secrets(self, value: object) -> object:
        if isinstance(value, str):
            text = without_credentials(self._hide(legible(value)))
            return text if len(text) <= MOST else f"{text[:MOST]}…"
        if value is None or isinstance(value, bool | int) or (isinstance(value, float) and isfinite(value)):
            return value
        if isinstance(value, Mapping):
            return {str(self._without_secrets(str(name))): self._without_secrets(it) for name, it in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._without_secrets(it) for it in value]
        return self._without_secrets(str(value))


def _without_paths(_logger: object, _method: str, event: Event) -> Event:
    """A library's event with the hosts of addresses alone: the path of a web hook is its credential, and a query may
    have a signature. A client logs both where a service answers with a header that is none."""
    if str(event.get("logger", "")).partition(".")[0] == "killswitch":
        return event
    return {name: without_paths(value) if isinstance(value, str) else value for name, value in event.items()}


def _unchanged(text: str) -> str:
    return text


def _line(event: Event, **_: object) -> str:
    """One line of JSON in ASCII: no control character, no line break, no direction mark reaches a terminal."""
    first = {name: event[name] for name in OWN_FIELDS if name in event}
    return dumps({**first, **event}, allow_nan=False, default=str)


class LoggedLines(io.TextIOBase):
    """A stream whose lines become events: what is printed past the log is still one event a line."""

    errors = "backslashreplace"
    encoding = "utf-8"

    def __init__(self, log: ProcessLog) -> None:
        self._log = log
        self._lock = Lock()
        self._begun = ""
        self._is_in_key = False

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        with self._lock:
            *lines, self._begun = (self._begun + text).split("\n")
            shown = [line for line in lines if line.strip() and not self._is_of_key(line)]
        for line in shown:
            self._log.write(line, "warning", logger="stderr")
        return len(text)

    def _is_of_key(self, line: str) -> bool:
        """Whether a line goes on with a private key, whose first line is shown with the key hidden."""
        goes_on = self._is_in_key and _KEY_GOES_ON.fullmatch(line) is not None
        self._is_in_key = (goes_on and "-----END " not in line) or _KEY_BEGINS.search(line) is not None
        return goes_on

    def finish(self) -> None:
        """Write what has no line end."""
        self.write("\n")
