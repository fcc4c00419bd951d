"""Targets of the user's own: plug-ins found by entry point, and callbacks where the program is embedded.

A plug-in is an entry point of the group `killswitch.notification_targets`: a callable without arguments that returns a
function, which is called with each message. It returns when the message is delivered, and raises `NotSentError` (it is
tried again) or `RejectedError` (a fallback gets it at once); whatever else it raises is a failed attempt too. It is
called in a thread of its own, one message at a time, and one call is abandoned after 40 s.

```python
def sms() -> Callable[[Message], None]:
    session = requests.Session()

    def send(message: Message) -> None:
        answer = session.post(GATEWAY, json={"text": message.title, "id": message.id}, timeout=10)
        if answer.status_code == 400:
            raise RejectedError(answer.reason)
        if not answer.ok:
            raise NotSentError(answer.reason)

    return send
```
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Final

from killswitch.incident.notify.message import Message, safe_line
from killswitch.incident.notify.targets import NotSentError, Sender

GROUP: Final = "killswitch.notification_targets"
"""The group of entry points."""
SendMessage = Callable[[Message], None]
"""Delivers one message, or raises."""
_CALLBACKS: Final[dict[str, SendMessage]] = {}


def register_target(name: str, send: SendMessage) -> None:
    """Name a function as a target, for documents with `custom: {name: NAME}`; one of that name is replaced.

    It is for programs that run Killswitch inside them, and goes before an entry point of that name.
    """
    _CALLBACKS[name] = send


def custom_sender(name: str) -> Sender:
    """The sender of a target of the user's own; it is looked up when it is used first."""
    return CustomSender(name)


class CustomSender:
    """Calls the function that a name refers to."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loaded: SendMessage | None = None

    def check(self) -> None:
        """Raise NotSentError if there is no such plug-in, or it cannot be loaded."""
        self._function()

    def send(self, message: Message) -> str | None:
        """Call the function. NotSentError, or whatever else it raises, if the message is not delivered."""
        try:
            self._function()(message)
        except NotSentError:
            raise
        except Exception as error:
            raise NotSentError(safe_line(f"{self._name} failed: {type(error).__name__}: {error}")) from error
        return None

    def _function(self) -> SendMessage:
        if self._name in _CALLBACKS:
            return _CALLBACKS[self._name]
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def _load(self) -> SendMessage:
        found = next(iter(entry_points(group=GROUP, name=self._name)), None)
        if found is None:
            known = ", ".join(sorted(each.name for each in entry_points(group=GROUP))) or "none is installed"
            raise NotSentError(f"no package has the target {self._name} in the group {GROUP}: {known}")
        try:
            function: SendMessage = found.load()()
        except Exception as error:
            why = safe_line(f"{found.value} cannot be loaded: {type(error).__name__}: {error}")
            raise NotSentError(why) from error
        return function
