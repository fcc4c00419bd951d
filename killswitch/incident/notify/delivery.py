"""Sending what waits in the outbox, a thread for each target, beside the ticks and never in their way.

At least once: a message is marked as soon as its target has taken it. Only if the process dies, or the target
answers too late, between the two is it sent again, with the same id.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future, wait
from dataclasses import replace
from datetime import datetime, timedelta
from time import monotonic

import msgspec

from killswitch.deadline import DaemonThreads, begin
from killswitch.incident.notify.message import decode_message
from killswitch.incident.notify.targets import NotSentError, Sender, StalledError
from killswitch.model.clock import Clock
from killswitch.model.instant import SECOND, to_micros
from killswitch.model.record import Record, record
from killswitch.model.store import Delivery, Outbox, OvertakenError, StoreTroubleError
from killswitch.render.formats import instant, lasting

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds after the first failure of a target, and at most; each pause is twice the one before."""
DOUBT_AFTER = 8
"""Attempts in a row that fail, about two minutes, after which the next message is tried once."""
ASIDE_FOR = 60.0
"""Seconds for which a message rests that a target does not take while it takes others."""
ATTEMPT_WITHIN = 40.0
"""Seconds after which an attempt is left to itself: every target has timeouts below, which a disk need not keep."""
MOST_HANGING = 3
"""Attempts that may be left to themselves at one time. Until one of them ends nothing else is sent to the target."""
TROUBLE_AFTER = 300.0
"""Seconds for which a target may take nothing before that is a problem of its own."""
FORGET_EVERY = 24 * 3600.0
"""Seconds between two times that a run forgets what was settled long ago."""
KEPT_FOR = 30 * 24 * 3600 * SECOND
"""How long what was delivered or given up is remembered, so that it is not told again (microseconds)."""


@record
class Tally(Record):
    """What one target has come to in this run; `pending` as last counted."""

    pending: int
    delivered: int
    given_up: int


class Lane:
    """One target: its oldest message first, one at a time, with growing pauses while it takes nothing.

    A target that takes nothing and a message that is not taken look the same at first. After a while the next message
    is tried: if that one is taken, the first is put aside, and asked for again now and then; if not, it was the target.
    The store holds what waits; what was taken and not yet marked, and what is put aside, is remembered here.
    """

    def __init__(self, target: str, sender: Sender, outbox: Outbox, clock: Clock, give_up_after: int) -> None:
        self.target = target
        self._sender = sender
        self._outbox = outbox
        self._clock = clock
        self._give_up_after = give_up_after
        self._not_before = clock.monotonic()
        self._forget_at = clock.monotonic() + FORGET_EVERY
        self._pause = FIRST_PAUSE
        self._unmarked: str | None = None
        self._in_vain = 0
        self._suspect: str | None = None
        """The message that the next one is tried instead of, to see which of them is to blame."""
        self._aside: dict[str, tuple[float, str]] = {}
        """Messages that are not taken while others are: until when they rest, and why."""
        self._failing: tuple[float, datetime, str] | None = None
        self._lost: str | None = None
        self._store_trouble: str | None = None
        self._stalled: str | None = None
        """Why the target is a problem at once, and not only after a while."""
        self._remark: str | None = None
        """What is wrong with a target that takes what it is sent."""
        self._hanging: dict[str, Future[str | None]] = {}
        """Messages whose attempts were left to themselves."""
        self.tally = Tally(0, 0, 0)

    def step(self) -> float | None:
        """At most one attempt. Seconds until the next one is due, 0 for at once; None: nothing waits.

        OvertakenError if another runner has taken over.
        """
        left = self._not_before - self._clock.monotonic()
        if left > 0:
            return left
        try:
            due = self._attempt()
            self.tally = replace(self.tally, pending=self._outbox.waiting(self.target))
            self._store_trouble = None
        except OvertakenError:
            raise
        except StoreTroubleError as error:
            self._store_trouble = f"notifications to {self.target} wait for the store: {error}"
            return self._later()
        return due

    @property
    def problem(self) -> str | None:
        """What a person should know: a target that takes nothing for long, and what was given up because of it."""
        failing = self._failing
        if self._store_trouble is not None or self._lost is not None:
            return self._store_trouble or self._lost
        if self._stalled is not None:
            return f"notifications to {self.target} stall: {self._stalled}"
        if failing is not None and self._clock.monotonic() - failing[0] >= TROUBLE_AFTER:
            return f"notifications to {self.target} are not taken since {instant(failing[1])}: {failing[2]}"
        if self._remark is not None:
            return f"notifications to {self.target} are taken, but {self._remark}"
        for _, why in self._aside.values():
            return f"{len(self._aside)} of the notifications to {self.target} are not taken while others are: {why}"
        return None

    @property
    def is_stalled(self) -> bool:
        """Whether the target is known to keep who waits for it waiting."""
        return self._stalled is not None

    def _attempt(self) -> float | None:
        self._mark()
        self._settle_what_hung()
        now = to_micros(self._clock.now())
        waited = lasting(timedelta(microseconds=self._give_up_after))
        reason = f"not tried within {waited}" if self._failing is None else self._failing[2]
        given_up = self._outbox.give_up(self.target, now - self._give_up_after, now, reason)
        if given_up:
            self._aside.clear()  # whoever of them still waits is met again
            why = "" if self._failing is None else f": {reason}"
            self._lost = (
                f"notifications to {self.target} were given up, because it took nothing for {waited}{why}; "
                "`ksctl status` counts them"
            )
            self.tally = replace(self.tally, given_up=self.tally.given_up + given_up)
        if self._clock.monotonic() >= self._forget_at:
            self._forget_at = self._clock.monotonic() + FORGET_EVERY
            self._outbox.forget(now - KEPT_FOR)
        return self._next()

    def _next(self) -> float | None:
        """Send the oldest message that does not rest; of what rests, when it is due."""
        clock = self._clock.monotonic()
        if len(self._hanging) >= MOST_HANGING:
            return self._later()
        resting = {id_: until for id_, (until, _) in self._aside.items() if until > clock}
        passed = [*resting, *self._hanging]
        besides = [*passed, self._suspect] if self._suspect is not None else passed
        delivery = self._outbox.claim(self.target, besides)
        if delivery is None and self._suspect is not None:  # there is no other to try
            self._suspect = None
            delivery = self._outbox.claim(self.target, passed)
        if delivery is not None:
            return self._send(delivery)
        if self._hanging:
            return self._later()
        return min(resting.values()) - clock if resting else None

    def _send(self, delivery: Delivery) -> float:
        try:
            remark = self._bounded(delivery)
        except StalledError as error:
            self._stalled = str(error)
            return self._failed(delivery, str(error))
        except (NotSentError, msgspec.DecodeError) as error:
            return self._failed(delivery, str(error))
        except Exception as error:  # noqa: BLE001 - a defect in one target must not end the telling of the others
            return self._failed(delivery, f"unexpected {type(error).__name__}")
        self._stalled, self._remark = None, remark
        self._unmarked = delivery.message.id
        self._aside.pop(delivery.message.id, None)
        if self._suspect is not None and self._failing is not None:
            # It is asked for once more at once: the target may have come back at this very attempt.
            self._aside[self._suspect] = (self._clock.monotonic(), self._failing[2])
        self._pause, self._failing, self._lost, self._in_vain, self._suspect = FIRST_PAUSE, None, None, 0, None
        self._mark()
        return 0.0

    def _bounded(self, delivery: Delivery) -> str | None:
        """As `Sender.send`, in a thread that is left to itself after a while: what waits must be given up in time."""
        message = decode_message(delivery.message.body)
        future = DaemonThreads().submit(self._sender.send, message)
        if future not in wait([future], ATTEMPT_WITHIN).done:
            self._hanging[message.id] = future
            raise StalledError(f"within {ATTEMPT_WITHIN:g} s it neither took nor refused a message")
        return future.result()

    def _settle_what_hung(self) -> None:
        """Write down what was taken after all: it is not sent again. What was not waits for its turn again."""
        for id_, future in tuple(self._hanging.items()):
            if future.done():
                if future.exception() is None:
                    self._delivered(id_)
                    self._stalled, self._pause = None, FIRST_PAUSE
                del self._hanging[id_]

    def _put_aside(self, message: str, why: str) -> None:
        self._aside[message] = (self._clock.monotonic() + ASIDE_FOR, why)

    def _mark(self) -> None:
        """Write down what was taken. Until that has worked nothing else is sent, so that nothing is sent twice."""
        if self._unmarked is not None:
            self._delivered(self._unmarked)
            self._unmarked = None

    def _delivered(self, message: str) -> None:
        self._outbox.settle(message, to_micros(self._clock.now()), None)
        self.tally = replace(self.tally, delivered=self.tally.delivered + 1)

    def _failed(self, delivery: Delivery, why: str) -> float:
        """Write down that an attempt failed; seconds until the next."""
        id_ = delivery.message.id
        self._outbox.settle(id_, to_micros(self._clock.now()), why)
        if id_ in self._aside:
            self._put_aside(id_, why)
            return 0.0
        if self._failing is None:
            self._failing = (self._clock.monotonic(), self._clock.now(), why)
        self._in_vain += 1
        self._suspect = id_ if self._suspect is None and self._in_vain % DOUBT_AFTER == 0 else None
        return self._later()

    def _later(self) -> float:
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        self._not_before = self._clock.monotonic() + pause
        return pause


class Sending:
    """All targets of a run, each in a thread of its own: one that hangs or is down holds up no other, and no tick."""

    def __init__(self, lanes: Mapping[str, Lane]) -> None:
        self.lanes = lanes
        self._wakes = {target: threading.Event() for target in lanes}
        self._stopping = threading.Event()
        self._abandoned = threading.Event()
        self._threads: dict[str, threading.Thread] = {}

    def wake(self) -> None:
        """There may be something new to send. Starts the threads that do not run yet.

        NoThreadError where one cannot be; the others send, and it is tried again at the next call.
        """
        for event in self._wakes.values():
            event.set()
        for target in self.lanes.keys() - self._threads.keys():
            thread = threading.Thread(
                target=self._work, args=(self.lanes[target],), name=f"notify {target}", daemon=True
            )
            begin(thread)
            self._threads[target] = thread

    def rest(self, patience: float) -> bool:
        """Let every target take what it takes at once, for at most `patience` seconds; whether all threads have ended.

        What is left waits in the outbox for the next run. A target that is known to stall is not waited for.
        """
        self._stopping.set()
        for event in self._wakes.values():
            event.set()
        deadline = monotonic() + patience
        for target, thread in self._threads.items():
            thread.join(0.0 if self.lanes[target].is_stalled else max(0.0, deadline - monotonic()))
        self._abandoned.set()
        return not any(thread.is_alive() for thread in self._threads.values())

    def _work(self, lane: Lane) -> None:
        wake = self._wakes[lane.target]
        while not self._abandoned.is_set():
            wake.clear()
            stopping = self._stopping.is_set()
            try:
                due = lane.step()
            except OvertakenError:
                return  # the run ends of itself; what waits is the next runner's
            if due != 0 and stopping:
                return
            if due is None or due > 0:
                wake.wait(due)
