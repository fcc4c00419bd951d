"""Stores with notifications in the outbox, for tests of sending."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import convert

from killswitch.incident.notify.delivery import TargetDelivery
from killswitch.incident.notify.message import Message, encode_message
from killswitch.incident.notify.targets import NotSentError, Sender
from killswitch.lab.rehearsal import VirtualClock
from killswitch.model.instant import HOUR, to_micros
from killswitch.model.store import Outgoing, TickRecord
from killswitch.store.sql import SqlStore

START = datetime(2021, 5, 19, 12, 0, tzinfo=UTC)


def message(name: str, at: datetime = START, **more: str) -> Message:
    words = {"event": "fired", "severity": "page", "policy": "p", "title": f"[page] {name}", "body": f"body of {name}"}
    return convert({"id": name, "at": at, "scope": "account/main", "level": 1, **words, **more}, Message)


def waiting(store: SqlStore, names: Sequence[str], target: str = "t", at: datetime = START, **more: str) -> None:
    """Commit one tick that leaves these messages for `target`."""
    messages = tuple(
        Outgoing(name, to_micros(at), "desk", target, encode_message(message(name, at, **more))) for name in names
    )
    store.commit_tick(TickRecord(at, "sha256:0", (), (), (), (), (), None, (), 0, messages))


class Scripted:
    """A target that accepts messages, or fails with `error` while it is set; it never accepts those in `never`."""

    def __init__(self, error: str | None = None) -> None:
        self.error = error
        self.never: set[str] = set()
        self.attempts: list[str] = []
        self.taken: list[str] = []

    def send(self, message: Message) -> None:
        ids = message.members or (message.id,)
        self.attempts += ids
        if self.error is not None:
            raise NotSentError(self.error)
        if not self.never.isdisjoint(ids):
            raise NotSentError("too long for me")
        self.taken += ids


def lane(
    store: SqlStore, sender: Sender, clock: VirtualClock, *, target: str = "t", give_up_after: int = HOUR
) -> TargetDelivery:
    return TargetDelivery(target, sender, store, clock, give_up_after)


async def through(lane: TargetDelivery, clock: VirtualClock, seconds: float) -> None:
    """Run the lane for `seconds` of the clock's time, or until nothing waits."""
    until = clock.monotonic() + seconds
    while clock.monotonic() < until:
        due = lane.step()
        if due is None:
            return
        await clock.sleep(due)
