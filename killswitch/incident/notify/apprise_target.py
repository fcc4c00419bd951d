"""Notification target for services that Apprise reaches. Apprise is imported at the first message, in its sender's
thread."""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from html import escape
from typing import Any

from killswitch.incident.notify.message import Message, fit_message, safe_line
from killswitch.incident.notify.targets import NotSentError, RejectedError, StalledError

TIMEOUT = 10.0
"""The timeout of one request in seconds, from connecting to its status; after it, arrival is unknown."""
ATTEMPT = 25.0
"""The timeout of one message in seconds. A service may need a request for each channel, or a login."""

_TITLE_MARKUP = 32
"""Characters that Apprise adds around a title inside a text: a line break or heading marks."""
_CONNECTION_ERROR = "Socket Exception"
_LINE_BREAK, _MARKS = "<br/>", "\\`*_[]#|~"

_TYPES = {"info": "info", "warning": "warning", "page": "failure"}


_REJECTED = re.compile(r"error=4(?!08|25|29)\d\d")
"""An answer that says that the request itself is wrong: not one about time or the number of requests."""


class AppriseSender:
    """Sends to one Apprise URL, which is looked up for every message so that a corrected secret takes effect during a
    run.

    `secret` returns the URL or raises NotSentError. `redactor_of` returns, for a URL, a function that redacts the URL
    and its parts from texts.
    """

    def __init__(
        self, reference: str, secret: Callable[[], str], redactor_of: Callable[[str], Callable[[str], str]]
    ) -> None:
        self.reference = reference
        self.secret = secret
        self.redactor_of = redactor_of
        self._cached: tuple[str, Any] | None = None

    def check(self) -> None:
        """Raise NotSentError if the URL cannot be looked up or Apprise does not understand it."""
        url = self.secret()
        with _CapturedLog():
            self._service(url)

    def send(self, message: Message) -> str | None:
        """Send one message.

        Raise NotSentError with the reason if the service refuses it, StalledError if it does not answer in time.
        Apprise goes by the status of an answer. Return a remark if the answer had no end and was abandoned.
        """
        from killswitch.transport.sinks import delivery_attempt

        url = self.secret()
        hide = self.redactor_of(url)
        with delivery_attempt(ATTEMPT) as attempt, _CapturedLog() as log:
            try:
                service = self._service(url)
                is_accepted = all(
                    each.notify(
                        title=message.title,
                        body=fit_message(message, *_room(service[0], message.title)),
                        notify_type=_TYPES[message.severity],
                        body_format="text",
                    )
                    for each in _calls(service[0], message)
                )
            except NotSentError:
                raise
            except Exception as error:  # noqa: BLE001 - a plugin of somebody else may raise anything
                log.reasons.append(f"{type(error).__name__}: {error}")
                is_accepted = False
        if not is_accepted:
            # The innermost cause first: the rest may be cut off.
            causes = log.reasons if attempt.why is None else [attempt.why, *log.failures]
            why = safe_line(hide("; ".join(causes) or "the service refused the message and gave no reason"))
            if attempt.is_stalled:
                raise StalledError(why)
            raise RejectedError(why) if _REJECTED.search("; ".join(log.reasons)) else NotSentError(why)
        return attempt.remark

    def _service(self, url: str) -> Any:
        if self._cached is None or self._cached[0] != url:
            self._cached = (url, self._instantiate(url))
        return self._cached[1]

    def _instantiate(self, url: str) -> Any:
        from apprise import Apprise, AppriseAsset, PersistentStoreMode

        from killswitch.transport.sinks import guard_every_session

        guard_every_session()
        # In this thread: in Apprise's own pool a service that hangs would delay the others and the end of the process.
        asset = AppriseAsset(
            app_id="Killswitch", app_desc="Killswitch", app_url="", async_mode=False, service_timeout=0,
            storage_mode=PersistentStoreMode.MEMORY,
        )  # fmt: skip
        service = Apprise(asset=asset)
        if not service.add(url) or len(service) != 1:
            raise NotSentError(f"{safe_line(self.reference)} does not refer to one URL that Apprise understands")
        for plugin in service:
            plugin.socket_connect_timeout = plugin.socket_read_timeout = TIMEOUT
        return service


_ENDS = ("resolve", "close")
"""What Apprise calls the action of a pager that ends the page of a key."""


def _calls(plugin: Any, message: Message) -> Iterator[Any]:
    """Yield the service as it is called for a message: once, and of a pager once for each page that the message ends.

    A pager is given the key of the message; without one, Apprise takes a key that several messages may share, and a
    page that adds to an open one wakes nobody. A URL with a key of its own keeps it. A copy for each call: an attempt
    that was abandoned may still use the service.
    """
    if getattr(plugin, "dedup", "") is not None:
        yield plugin
        return
    values = plugin.template_args.get("action", {}).get("values", ())
    end = next((each for each in _ENDS if each in values), None)
    if message.key or not message.resolves or end is None:
        yield _keyed(plugin, message.key or message.id, plugin.action)
    if end is not None:
        yield from (_keyed(plugin, key, end) for key in message.resolves)


def _keyed(plugin: Any, key: str, action: str) -> Any:
    found = copy(plugin)
    found.dedup, found.action = key, action
    return found


def _room(service: Any, title: str) -> tuple[int, Callable[[str], int]]:
    """Return the length limit of a text next to its title, and how the service counts. No limit if its URL selects an
    overflow mode.

    The title always counts, because many services have none and receive it as the first line of the text.
    """
    if service.overflow_mode != "upstream":
        return sys.maxsize, len
    measure = len if service.resolve_format("text") == "text" else _as_markup
    return service.body_maxlen - len(title) - _TITLE_MARKUP, measure


def _as_markup(text: str) -> int:
    """Return the length of a text, or slightly more, after Apprise has converted it to HTML or Markdown."""
    return len(escape(text)) + len(_LINE_BREAK) * text.count("\n") + sum(map(text.count, _MARKS))


class _CapturedLog(logging.Filter):
    """Captures the log records of Apprise in this thread, and lets none of them pass.

    It is a filter, because the records may contain the URL and would reach every handler on the log.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reasons: list[str] = []
        self._thread = threading.get_ident()
        self._logger = logging.getLogger("apprise")

    @property
    def failures(self) -> Sequence[str]:
        """The reasons without connection errors that a library logged, whose cause is at the end of a long text."""
        return [each for each in self.reasons if not each.startswith(_CONNECTION_ERROR)]

    def __enter__(self) -> _CapturedLog:
        self._logger.setLevel(logging.DEBUG)
        self._logger.addFilter(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep warnings and the debug line that explains a failed connection; block every record of this thread."""
        if record.thread != self._thread:
            return True
        text = record.getMessage()
        if record.levelno >= logging.WARNING or text.startswith(_CONNECTION_ERROR):
            self.reasons.append(text.strip())
        return False
