"""The fallbacks of urgent messages: who gets one that its target has not accepted in time, or has refused.

The first target has ten seconds, and each hop after it as long again; a definite refusal is answered at once. Whoever
was tried before is still tried, and gets the message too, with the same `id`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from killswitch.incident.notify.page_threads import digest
from killswitch.incident.notify.routing import HOP_AFTER
from killswitch.model.clock import Clock
from killswitch.model.instant import SECOND, to_micros
from killswitch.model.store import Outbox, Outgoing, OvertakenError, StoreTroubleError

LOOKS_EVERY: Final = 1.0
"""Seconds between two looks at what waits, while a message has a further hop."""
LATEST: Final = 1 << 62
"""After every instant (microseconds)."""


class Fallbacks:
    """Moves messages to their next hop. One thread calls `step`; the others deliver."""

    def __init__(self, outbox: Outbox, clock: Clock, wake: Callable[[], None]) -> None:
        """`wake` announces that notifications were added. What an earlier run has left gets its ten seconds of this
        run too: it was not tried meanwhile."""
        self._outbox = outbox
        self._clock = clock
        self._wake = wake
        self._began = clock.monotonic()
        self.unreached = 0
        """The number of urgent messages that no hop has accepted in its time."""
        self.trouble: str | None = None
        """Why the store could not be asked; None if it could."""

    def step(self) -> float | None:
        """Move what is due. Return the seconds until the next look; None while no message has a further hop."""
        waits = HOP_AFTER / SECOND - (self._clock.monotonic() - self._began)
        if waits > 0:
            return waits
        now = to_micros(self._clock.now())
        try:
            pending = self._outbox.overdue(LATEST)
            due = [each for each in pending if each.hop_at <= now]
            for each in due:
                self._outbox.fall_back(each.id, tuple(next_hop(each, now)))
            self.unreached = self._outbox.unreached(now)
        except OvertakenError:
            return None  # the run is ending; the queue belongs to the next runner
        except StoreTroubleError as error:
            self.trouble = f"fallbacks of notifications wait for the store: {error}"
            return LOOKS_EVERY
        self.trouble = None
        if due:
            self._wake()
        return LOOKS_EVERY if pending or self.unreached else None


def next_hop(message: Outgoing, now: int) -> Iterator[Outgoing]:
    """The notifications of the next hop of a message, with the hops after it; the message and its id are the same."""
    first, *rest = message.hops
    for number, target in enumerate(first):
        yield Outgoing(
            digest(message.id, target), message.at, message.route, target, message.body, message.alert,
            message.is_end, tuple(rest) if number == 0 else (), now + HOP_AFTER,
        )  # fmt: skip
