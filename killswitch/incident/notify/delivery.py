"""Delivers the messages of the outbox: one thread for each target, independent of the ticks.

Delivery is at least once. A message is marked when its target accepts it. It is sent again, with the same id, only if
the process dies or the target answers too late in between.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future, wait
from dataclasses import replace
from datetime import datetime, timedelta
from time import monotonic

import msgspec

from killswitch.deadline import DaemonThreadExecutor, start_thread
from killswitch.incident.notify.message import decode_message
from killswitch.incident.notify.targets import NotSentError, Sender, StalledError
from killswitch.model.clock import Clock
from killswitch.model.instant import SECOND, to_micros
from killswitch.model.record import Record, record
from killswitch.model.store import Delivery, Outbox, OvertakenError, StoreTroubleError
from killswitch.render.formats import duration_text, instant

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""The pause in seconds after the first failure of a target, and the longest pause; each is twice the previous one."""
TRY_NEXT_AFTER = 8
"""Failed attempts in a row, about two minutes, after which the next message is tried once."""
SET_ASIDE_FOR = 60.0
"""Seconds for which a message is set aside that a target refuses while it accepts others."""
ATTEMPT_WITHIN = 40.0
"""Seconds after which an attempt is abandoned. Every target has shorter timeouts, which a disk need not keep."""
MOST_ABANDONED = 3
"""Abandoned attempts at one time. At this number nothing else is sent to the target until one of them ends."""
PROBLEM_AFTER = 300.0
"""Seconds without a delivery after which a target is reported as a problem."""
FORGET_EVERY = 24 * 3600.0
"""Seconds between two removals of settled messages."""
KEPT_FOR = 30 * 24 * 3600 * SECOND
"""Retention of delivered and abandoned messages in microseconds, so that none is sent twice."""


@record
class DeliveryCounts(Record):
    """Delivery counts of one target in this run; `pending` as of the last count."""

    pending: int
    delivered: int
    given_up: int


class TargetDelivery:
    """Delivers to one target: its oldest message first, one at a time, with growing pauses while the target fails.

    A failing target and a refused message look the same at first. After a while the next message is tried. If that one
    is accepted, the first is set aside and retried later; if not, the target is failing. The store holds the queue;
    this object remembers what was accepted and not yet marked, and what is set aside.
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
        self._failures_in_row = 0
        self._suspect: str | None = None
        """The message that is skipped once, to see whether it or the target is to blame."""
        self._set_aside: dict[str, tuple[float, str]] = {}
        """Messages refused while others are accepted: until when each is set aside, and why."""
        self._failing: tuple[float, datetime, str] | None = None
        self._given_up_problem: str | None = None
        self._store_trouble: str | None = None
        self._stalled: str | None = None
        """Why the target is a problem immediately, and not only after a while."""
        self._remark: str | None = None
        """What is wrong with a target that accepts messages."""
        self._abandoned: dict[str, Future[str | None]] = {}
        """Abandoned attempts that may still end, by message."""
        self.counts = DeliveryCounts(0, 0, 0)

    def step(self) -> float | None:
        """Make at most one attempt. Return the seconds until the next one, 0 for immediately; None if nothing is
        queued.

        OvertakenError if another runner has taken over.
        """
        left = self._not_before - self._clock.monotonic()
        if left > 0:
            return left
        try:
            due = self._attempt()
            self.counts = replace(self.counts, pending=self._outbox.waiting(self.target))
            self._store_trouble = None
        except OvertakenError:
            raise
        except StoreTroubleError as error:
            self._store_trouble = f"notifications to {self.target} wait for the store: {error}"
            return self._back_off()
        return due

    @property
    def problem(self) -> str | None:
        """The problem to report: a target that has failed for long, and what was given up because of it."""
        found = self.fault
        return None if found is None else found[1]

    @property
    def fault(self) -> tuple[str, str] | None:
        """The kind of the problem to report, and its text; the first of several."""
        failing = self._failing
        is_failing = failing is not None and self._clock.monotonic() - failing[0] >= PROBLEM_AFTER
        refused = next((why for _, why in self._set_aside.values()), None)
        found = {
            "store": self._store_trouble,
            "given-up": self._given_up_problem,
            "stalled": self._stalled and f"notifications to {self.target} stall: {self._stalled}",
            "failing": f"notifications to {self.target} have failed since {instant(failing[1])}: {failing[2]}"
            if is_failing and failing is not None
            else None,
            "remark": self._remark and f"notifications to {self.target} are delivered, but {self._remark}",
            "refused": refused
            and f"{self.target} refuses {len(self._set_aside)} of its notifications and accepts others: {refused}",
        }
        return next(((kind, text) for kind, text in found.items() if text is not None), None)

    @property
    def is_stalled(self) -> bool:
        """Whether the target is known to block its callers."""
        return self._stalled is not None

    def _attempt(self) -> float | None:
        self._mark()
        self._settle_abandoned()
        now = to_micros(self._clock.now())
        waited = duration_text(timedelta(microseconds=self._give_up_after))
        reason = f"not tried within {waited}" if self._failing is None else self._failing[2]
        given_up = self._outbox.give_up(self.target, now - self._give_up_after, now, reason)
        if given_up:
            self._set_aside.clear()  # messages still queued are tried again
            why = "" if self._failing is None else f": {reason}"
            self._given_up_problem = (
                f"notifications to {self.target} were given up, because it accepted none for {waited}{why}; "
                "`ksctl status` counts them"
            )
            self.counts = replace(self.counts, given_up=self.counts.given_up + given_up)
        if self._clock.monotonic() >= self._forget_at:
            self._forget_at = self._clock.monotonic() + FORGET_EVERY
            self._outbox.forget(now - KEPT_FOR)
        return self._next()

    def _next(self) -> float | None:
        """Send the oldest message that is not set aside; otherwise return when the first of them is due."""
        clock = self._clock.monotonic()
        if len(self._abandoned) >= MOST_ABANDONED:
            return self._back_off()
        set_aside = {id_: until for id_, (until, _) in self._set_aside.items() if until > clock}
        skipped = [*set_aside, *self._abandoned]
        excluded = [*skipped, self._suspect] if self._suspect is not None else skipped
        delivery = self._outbox.claim(self.target, excluded)
        if delivery is None and self._suspect is not None:  # no other message to try
            self._suspect = None
            delivery = self._outbox.claim(self.target, skipped)
        if delivery is not None:
            return self._send(delivery)
        if self._abandoned:
            return self._back_off()
        return min(set_aside.values()) - clock if set_aside else None

    def _send(self, delivery: Delivery) -> float:
        try:
            remark = self._send_bounded(delivery)
        except StalledError as error:
            self._stalled = str(error)
            return self._failed(delivery, str(error))
        except (NotSentError, msgspec.DecodeError) as error:
            return self._failed(delivery, str(error))
        except Exception as error:  # noqa: BLE001 - a defect in one target must not end delivery to the others
            return self._failed(delivery, f"unexpected {type(error).__name__}")
        self._stalled, self._remark = None, remark
        self._unmarked = delivery.message.id
        self._set_aside.pop(delivery.message.id, None)
        if self._suspect is not None and self._failing is not None:
            # It is retried immediately: the target may have recovered at this very attempt.
            self._set_aside[self._suspect] = (self._clock.monotonic(), self._failing[2])
        self._pause, self._failures_in_row = FIRST_PAUSE, 0
        self._failing = self._given_up_problem = self._suspect = None
        self._mark()
        return 0.0

    def _send_bounded(self, delivery: Delivery) -> str | None:
        """Send as `Sender.send`, in a thread that is abandoned after a timeout so that queued messages can be given
        up."""
        message = decode_message(delivery.message.body)
        future = DaemonThreadExecutor().submit(self._sender.send, message)
        if future not in wait([future], ATTEMPT_WITHIN).done:
            self._abandoned[message.id] = future
            raise StalledError(f"it neither accepted nor refused a message within {ATTEMPT_WITHIN:g} s")
        return future.result()

    def _settle_abandoned(self) -> None:
        """Record abandoned attempts that succeeded after all, so that they are not sent again. Others are queued
        again."""
        for id_, future in tuple(self._abandoned.items()):
            if future.done():
                if future.exception() is None:
                    self._delivered(id_)
                    self._stalled, self._pause = None, FIRST_PAUSE
                del self._abandoned[id_]

    def _mark(self) -> None:
        """Record the accepted message. Nothing else is sent before that succeeds, so that nothing is sent twice."""
        if self._unmarked is not None:
            self._delivered(self._unmarked)
            self._unmarked = None

    def _delivered(self, message: str) -> None:
        self._outbox.settle(message, to_micros(self._clock.now()), None)
        self.counts = replace(self.counts, delivered=self.counts.delivered + 1)

    def _failed(self, delivery: Delivery, why: str) -> float:
        """Record a failed attempt; return the seconds until the next one."""
        id_ = delivery.message.id
        self._outbox.settle(id_, to_micros(self._clock.now()), why)
        if id_ in self._set_aside:
            self._set_aside[id_] = (self._clock.monotonic() + SET_ASIDE_FOR, why)
            return 0.0
        if self._failing is None:
            self._failing = (self._clock.monotonic(), self._clock.now(), why)
        self._failures_in_row += 1
        self._suspect = id_ if self._suspect is None and self._failures_in_row % TRY_NEXT_AFTER == 0 else None
        return self._back_off()

    def _back_off(self) -> float:
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        self._not_before = self._clock.monotonic() + pause
        return pause


class NotificationSender:
    """Delivers to all targets of a run, each in its own thread: a target that hangs delays no other target and no
    tick."""

    def __init__(self, deliveries: Mapping[str, TargetDelivery]) -> None:
        self.deliveries = deliveries
        self._wakes = {target: threading.Event() for target in deliveries}
        self._stopping = threading.Event()
        self._abandoned = threading.Event()
        self._threads: dict[str, threading.Thread] = {}

    def wake(self) -> None:
        """Announce that messages may be queued, and start the threads that have not been started.

        NoThreadError where a thread cannot be started; the others deliver, and the next call tries again.
        """
        for event in self._wakes.values():
            event.set()
        for target in self.deliveries.keys() - self._threads.keys():
            thread = threading.Thread(target=self._deliver, args=(target,), name=f"notify {target}", daemon=True)
            start_thread(thread)
            self._threads[target] = thread

    def drain(self, timeout: float) -> bool:
        """Deliver what targets accept immediately, for at most `timeout` seconds; return whether all threads ended.

        Other messages stay in the outbox for the next run. A target that is known to stall is not waited for.
        """
        self._stopping.set()
        for event in self._wakes.values():
            event.set()
        deadline = monotonic() + timeout
        for target, thread in self._threads.items():
            thread.join(0.0 if self.deliveries[target].is_stalled else max(0.0, deadline - monotonic()))
        self._abandoned.set()
        return not any(thread.is_alive() for thread in self._threads.values())

    def _deliver(self, target: str) -> None:
        delivery, wake = self.deliveries[target], self._wakes[target]
        while not self._abandoned.is_set():
            wake.clear()
            stopping = self._stopping.is_set()
            try:
                due = delivery.step()
            except OvertakenError:
                return  # the run is ending; the queue belongs to the next runner
            if due != 0 and stopping:
                return
            if due is None or due > 0:
                wake.wait(due)
