"""Messages that are one: of one tick, of one group, or of what waited while a target was slow or down."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from killswitch.incident.notify.message import LONGEST_LINE, Message
from killswitch.model.legible import shortened
from killswitch.render.formats import count_of, instant

if TYPE_CHECKING:
    from killswitch.model.snapshot import Instant
    from killswitch.model.words import Severity

MOST_IN_FULL: Final = 3
"""Of so many messages each is shown with its whole text; of more, each has one line, and the gravest its text."""
_GRAVITY: Final[dict[Severity, int]] = {"info": 0, "warning": 1, "page": 2}
_SENT_AGAIN: Final = {
    "repeat": "still so, nothing has changed",
    "reminder": "still latched: nobody has reset it",
    "escalation": "nobody has acknowledged it",
}


def joined(messages: Sequence[Message], id_: str) -> Message:
    """One message of several, with the severity of the gravest and a line for each; a single one is itself.

    `members` has the ids of all of them, so that a receiver that got one before recognises it.
    """
    if len(messages) == 1:
        return messages[0]
    gravest = max(messages, key=lambda message: _GRAVITY[message.severity])
    count = sum(message.count for message in messages)
    whole = [f"{_title(message)}\n{message.body}" for message in messages]
    if len(messages) > MOST_IN_FULL:
        lines = [line for message in messages for line in _lines(message)]
        whole = ["\n".join(lines), f"{_title(gravest)}\n{gravest.body}"]
    return replace(
        gravest, id=id_, at=max(message.at for message in messages), title=_joined_title(messages, gravest, count),
        body="\n\n".join(whole), count=count, members=tuple(_members(messages)), thread=_thread(messages),
        ended_at=None, key=_key(messages, id_), resolves=tuple(dict.fromkeys(_resolved(messages))),
    )  # fmt: skip


def _title(message: Message) -> str:
    return message.title.partition("] ")[2] or message.title


def _lines(message: Message) -> list[str]:
    """The line of a message, and those of the messages that it joins."""
    if not message.members:
        return [_title(message)]
    return [_title(message), *message.body.partition("\n\n")[0].split("\n")]


def _joined_title(messages: Sequence[Message], gravest: Message, count: int) -> str:
    fired = sum(message.event == "fired" for message in messages)
    what = f"{count} stages have fired" if fired == len(messages) else f"{count_of(count, 'message')}"
    return shortened(f"[{gravest.severity}] {what}; {_title(gravest)}", LONGEST_LINE)


def _members(messages: Iterable[Message]) -> Iterable[str]:
    for message in messages:
        yield from message.members or (message.id,)


def _thread(messages: Sequence[Message]) -> str:
    threads = {message.thread for message in messages}
    return threads.pop() if len(threads) == 1 else ""


def _key(messages: Sequence[Message], id_: str) -> str:
    """The key of all of them, if they have one; none of ends alone; else the id of the whole, which rings by itself."""
    keys = {message.key for message in messages}
    return keys.pop() if len(keys) == 1 else id_


def _resolved(messages: Iterable[Message]) -> Iterable[str]:
    for message in messages:
        yield from message.resolves


def sent_again(message: Message, purpose: str, id_: str) -> Message:
    """The message as it is repeated, reminded of or escalated, which its title and first line say."""
    severity = f"[{message.severity}] "
    title = shortened(f"{severity}{purpose}: {_title(message)}", LONGEST_LINE)
    body = f"{_SENT_AGAIN[purpose]}\n{message.body}"
    # Without the key of the first one: a pager would take it for an update of what somebody has acknowledged.
    return replace(message, id=id_, title=title, body=body, purpose=purpose, key="")


def with_end(message: Message, at: Instant) -> Message:
    """The message with when its alert ended, which was before it was sent."""
    return replace(message, ended_at=at, body=f"ended at {instant(at)}, before this could be sent\n{message.body}")
