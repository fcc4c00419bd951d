"""Services that Apprise reaches. The library is imported at the first message, in the thread that sends it."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from killswitch.incident.notify.message import Message, fitted, plain
from killswitch.incident.notify.targets import NotSentError, StalledError

TIMEOUT = 10.0
"""Seconds for a request, from the connection to its status; after that it is not known whether it has arrived."""
ATTEMPT = 25.0
"""Seconds for all requests of one message: a service may be asked for each of its channels, or have to log in."""

_AROUND_A_TITLE = 32
"""Characters that Apprise puts round a title in a text: a line's end, or the marks of a heading."""
_OF_A_CONNECTION = "Socket Exception"
_LINE_BREAK, _MARKS = "<br/>", "\\`*_[]#|~"

_TYPES = {"info": "info", "warning": "warning", "page": "failure"}


class AppriseSender:
    """One Apprise URL, looked up anew for every message, so that a secret may be put right while a run goes on.

    `secret` gives the URL, or raises NotSentError; `discreet` makes of it what takes it, and its parts, out of texts.
    """

    def __init__(
        self, reference: str, secret: Callable[[], str], discreet: Callable[[str], Callable[[str], str]]
    ) -> None:
        self._reference = reference
        self._secret = secret
        self._discreet = discreet
        self._made: tuple[str, Any] | None = None

    def check(self) -> None:
        """NotSentError if the URL cannot be looked up, or Apprise does not understand it."""
        url = self._secret()
        with _Heard():
            self._service(url)

    def send(self, message: Message) -> str | None:
        """NotSentError with the reason if the service did not take it, StalledError if it did not answer in time.

        What a service answers with is judged by Apprise, which goes by its status; an answer that has no end is left,
        and said.
        """
        from killswitch.transport.sinks import attempt

        url = self._secret()
        hide = self._discreet(url)
        with attempt(ATTEMPT) as tried, _Heard() as heard:
            try:
                service = self._service(url)
                taken = service.notify(
                    title=message.title,
                    body=fitted(message, *_room(service[0], message.title)),
                    notify_type=_TYPES[message.severity],
                    body_format="text",
                )
            except NotSentError:
                raise
            except Exception as error:  # noqa: BLE001 - a plugin of somebody else may raise anything
                heard.reasons.append(f"{type(error).__name__}: {error}")
                taken = False
        if not taken:
            # The innermost cause first: what comes after it may be cut off.
            causes = heard.reasons if tried.why is None else [tried.why, *heard.failures]
            why = plain(hide("; ".join(causes) or "it was not taken, and no reason given"))
            raise StalledError(why) if tried.is_stalled else NotSentError(why)
        return tried.remark

    def _service(self, url: str) -> Any:
        if self._made is None or self._made[0] != url:
            self._made = (url, self._instantiated(url))
        return self._made[1]

    def _instantiated(self, url: str) -> Any:
        from apprise import Apprise, AppriseAsset, PersistentStoreMode

        from killswitch.transport.sinks import guard_every_session

        guard_every_session()
        # In this thread: in Apprise's own pool a service that hangs would hold up the others, and the process's end.
        asset = AppriseAsset(
            app_id="Killswitch", app_desc="Killswitch", app_url="", async_mode=False, service_timeout=0,
            storage_mode=PersistentStoreMode.MEMORY,
        )  # fmt: skip
        service = Apprise(asset=asset)
        if not service.add(url) or len(service) != 1:
            raise NotSentError(f"{plain(self._reference)} does not refer to one URL that Apprise understands")
        for plugin in service:
            plugin.socket_connect_timeout = plugin.socket_read_timeout = TIMEOUT
        return service


def _room(service: Any, title: str) -> tuple[int, Callable[[str], int]]:
    """How long a text may be beside its title, and how the service counts. No end where its URL says what to cut.

    A title is counted in every case: many services have none, and are sent it as the first line of the text.
    """
    if service.overflow_mode != "upstream":
        return sys.maxsize, len
    return service.body_maxlen - len(title) - _AROUND_A_TITLE, len if service.resolve_format(
        "text"
    ) == "text" else _as_markup


def _as_markup(text: str) -> int:
    """Characters of a text when Apprise has made HTML or Markdown of it, or a few more."""
    return len(escape(text)) + len(_LINE_BREAK) * text.count("\n") + sum(map(text.count, _MARKS))


class _Heard(logging.Filter):
    """What Apprise says in this thread while it is used; nothing of it goes anywhere else.

    A filter, because its words may hold the URL, and would reach whatever handlers others have put on the log.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reasons: list[str] = []
        self._thread = threading.get_ident()
        self._logger = logging.getLogger("apprise")

    @property
    def failures(self) -> Sequence[str]:
        """The same without what a library said of a connection, in which the cause is the last of many words."""
        return [each for each in self.reasons if not each.startswith(_OF_A_CONNECTION)]

    def __enter__(self) -> _Heard:
        self._logger.setLevel(logging.DEBUG)
        self._logger.addFilter(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep warnings, and the one debug line that says why a connection failed; let nothing of this thread by."""
        if record.thread != self._thread:
            return True
        said = record.getMessage()
        if record.levelno >= logging.WARNING or said.startswith(_OF_A_CONNECTION):
            self.reasons.append(said.strip())
        return False
