"""Services that Apprise reaches. The library is imported at the first message, in the thread that sends it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from killswitch.incident.message import Message, plain
from killswitch.incident.targets import NotSentError

TIMEOUT = 10.0
"""Seconds for a connection, and for each answer; after that it is not known whether the message has arrived."""

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

    def send(self, message: Message) -> None:
        """NotSentError with Apprise's own reason if the service did not take it, or did not answer in time."""
        url = self._secret()
        hide = self._discreet(url)
        with _Heard() as heard:
            try:
                taken = self._service(url).notify(
                    title=message.title,
                    body=f"{message.body}\n\nnotification {message.id}",
                    notify_type=_TYPES[message.severity],
                    body_format="text",
                )
            except NotSentError:
                raise
            except Exception as error:  # noqa: BLE001 - a plugin of somebody else may raise anything
                raise NotSentError(plain(hide(f"{type(error).__name__}: {error}"))) from None
        if not taken:
            why = "; ".join(heard.reasons) or "it was not taken, and no reason given"
            raise NotSentError(plain(hide(why)))

    def _service(self, url: str) -> Any:
        if self._made is None or self._made[0] != url:
            self._made = (url, self._instantiated(url))
        return self._made[1]

    def _instantiated(self, url: str) -> Any:
        from apprise import Apprise, AppriseAsset, PersistentStoreMode

        from killswitch.transport.adapters import guard_every_session

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


class _Heard(logging.Filter):
    """What Apprise says in this thread while it is used; nothing of it goes anywhere else.

    A filter, because its words may hold the URL, and would reach whatever handlers others have put on the log.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reasons: list[str] = []
        self._thread = threading.get_ident()
        self._logger = logging.getLogger("apprise")

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
        if record.levelno >= logging.WARNING or said.startswith("Socket Exception"):
            self.reasons.append(said.strip())
        return False
