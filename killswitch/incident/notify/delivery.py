"""Delivers the messages of the outbox: one thread for each target, independent of the ticks.

Delivery is at least once. A message is marked when its target accepts it. It is sent again, with the same id, only if
the process dies or the target answers too late in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, wait
from datetime import datetime, timedelta
from functools import partial
from time import monotonic

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from killswitch.deadline import DaemonThreadExecutor, NoThreadError
from killswitch.incident.notify.joining import joined, with_end
from killswitch.incident.notify.message import Message, decode_message
from killswitch.incident.notify.targets import NotSentError, RejectedError, Sender, StalledError
from killswitch.model.backoff import Backoff
from killswitch.model.clock import Clock
from killswitch.model.instant import MINUTE, SECOND, from_micros, to_micros
from killswitch.model.store import Delivery, Outbox, OvertakenError, PendingCount, StoreTroubleError
from killswitch.model.tracing import AS_OF, INCIDENT, NO_TRACER, Span, Tracer
from killswitch.render.formats import duration_text, instant
from killswitch.worker import Worker

PAUSES = Backoff(first=1.0, longest=30.0)
"""Seconds after failed attempts with one message, for which the messages behind it wait too."""
TRY_NEXT_AFTER = 8
"""Failed attempts with one message, about two minutes, after which the next message is tried once."""
REFUSED_FOR = MINUTE
"""Microseconds for which a message waits that a target refuses while it accepts others."""
ATTEMPT_WITHIN = 40.0
"""Seconds after which an attempt is abandoned. Every target has shorter timeouts, which a disk need not keep."""
MOST_ABANDONED = 3
"""Abandoned attempts at one time. At this number nothing else is sent to the target until one of them ends."""
ABANDONED_EVERY = 5.0
"""Seconds between two looks at abandoned attempts while nothing else is due."""
PROBLEM_AFTER = 300.0
"""Seconds without a delivery after which a target is reported as a problem."""
SLOW = 1.0
"""Seconds after which an attempt counts as slow: what waits behind it goes out as one message."""
CROWD = 20
"""More messages than this wait only for a target that is slower than they come: they go out as one message."""
IN_TIME = MINUTE
"""Microseconds within which a message is to be delivered."""
FORGET_EVERY = 24 * 3600.0
"""Seconds between two removals of settled messages."""
KEPT_FOR = 30 * 24 * 3600 * SECOND
"""Retention of delivered and abandoned messages in microseconds, so that none is sent twice."""


class DeliveryCounts(Struct, frozen=True):
    """Delivery counts of one target in this run; `pending` as of the last count."""

    pending: int
    delivered: int
    given_up: int
    in_time: int = 0
    """Those delivered within one minute of their decision."""


class TargetDelivery:
    """Delivers to one target: its oldest message first, one at a time, with growing pauses while the target fails.

    A failing target and a refused message look the same at first. After a while the next message is tried. If that one
    is accepted, the first is refused, and retried while others pass it; if not, the target is failing. The store holds
    the queue and when each message is due; this object remembers what was accepted and not yet marked.
    """

    def __init__(
        self, target: str, sender: Sender, outbox: Outbox, clock: Clock, give_up_after: int, tracer: Tracer = NO_TRACER
    ) -> None:
        self.target = target
        self._sender = sender
        self._outbox = outbox
        self._clock = clock
        self._tracer = tracer
        self._give_up_after = give_up_after
        self._forget_at = clock.monotonic() + FORGET_EVERY
        self._unmarked: str | None = None
        self._suspect: str | None = None
        """The message that is skipped once, to see whether it or the target is to blame."""
        self._waiting = PendingCount(0, 0, None)
        self._failing: tuple[float, datetime, str] | None = None
        self._given_up_problem: str | None = None
        self._store_trouble: str | None = None
        self._store_failures = 0
        self._stalled: str | None = None
        """Why the target is a problem immediately, and not only after a while."""
        self._remark: str | None = None
        """What is wrong with a target that accepts messages."""
        self._abandoned: dict[str, Future[str | None]] = {}
        """Abandoned attempts that may still end, by message or batch."""
        self._claimed: dict[str, Delivery] = {}
        """What was claimed and may still end or is looked at, by message or batch; what failed is claimed again."""
        self._is_slow = False
        """Whether the last attempt was slow, or not the first: what waits behind it is sent as one message."""
        self.counts = DeliveryCounts(0, 0, 0)

    def step(self) -> float | None:
        """Make at most one attempt. Return the seconds until the next one, 0 for immediately; None if nothing is
        queued.

        OvertakenError if another runner has taken over.
        """
        try:
            due = self._attempt()
            self._waiting = self._outbox.waiting(self.target)
        except OvertakenError:
            raise
        except StoreTroubleError as error:
            self._store_trouble = f"notifications to {self.target} wait for the store: {error}"
            self._store_failures += 1
            return PAUSES.after(self._store_failures)
        self.counts = replace(self.counts, pending=self._waiting.pending)
        self._store_trouble, self._store_failures = None, 0
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
        refused = self._waiting.refused
        found = {
            "store": self._store_trouble,
            "given-up": self._given_up_problem,
            "stalled": self._stalled and f"notifications to {self.target} stall: {self._stalled}",
            "failing": f"notifications to {self.target} have failed since {instant(failing[1])}: {failing[2]}"
            if is_failing and failing is not None
            else None,
            "remark": self._remark and f"notifications to {self.target} are delivered, but {self._remark}",
            "refused": f"{self.target} refuses {refused} of its notifications and accepts others: {self._waiting.why}"
            if refused
            else None,
        }
        return next(((kind, text) for kind, text in found.items() if text is not None), None)

    @property
    def is_stalled(self) -> bool:
        """Whether the target is known to block its callers."""
        return self._stalled is not None

    def _attempt(self) -> float | None:
        self._mark()
        self._settle_abandoned()
        known = {*self._abandoned, self._suspect, self._unmarked}
        self._claimed = {key: each for key, each in self._claimed.items() if key in known}
        now = to_micros(self._clock.now())
        waited = duration_text(timedelta(microseconds=self._give_up_after))
        reason = f"not tried within {waited}" if self._failing is None else self._failing[2]
        given_up = self._outbox.give_up(self.target, now - self._give_up_after, now, reason)
        if given_up:
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
        """Send the next message if it is due; otherwise return when it is."""
        if len(self._abandoned) >= MOST_ABANDONED:
            return ABANDONED_EVERY
        now = to_micros(self._clock.now())
        hanging = [id_ for key in self._abandoned for id_ in self._ids(key)]
        skipped = hanging if self._suspect is None else [*hanging, *self._ids(self._suspect)]
        together = self._is_slow or self._waiting.pending > CROWD
        delivery = self._outbox.claim(self.target, now, skipped, together=together and self._suspect is None)
        if self._suspect is not None and (delivery is None or delivery.due_at):  # no other message to try
            self._suspect = None
            delivery = self._outbox.claim(self.target, now, hanging, together=together)
        if delivery is not None and not delivery.due_at:
            return self._send(delivery)
        waits = [ABANDONED_EVERY] if self._abandoned else []
        waits += [] if delivery is None else [(delivery.due_at - now) / SECOND]
        return min(waits, default=None)

    def _ids(self, key: str) -> tuple[str, ...]:
        """The ids of the notifications of a batch, or that of a single one."""
        claimed = self._claimed.get(key)
        return (key,) if claimed is None else (claimed.message.id, *(each.id for each in claimed.others))

    def _send(self, delivery: Delivery) -> float:
        key, began = delivery.batch or delivery.message.id, self._clock.monotonic()
        self._claimed[key] = delivery
        try:
            remark = self._send_bounded(delivery)
        except StalledError as error:
            self._stalled = str(error)
            return self._failed(delivery, str(error))
        except (NotSentError, msgspec.DecodeError) as error:
            return self._failed(delivery, str(error), is_rejected=isinstance(error, RejectedError))
        except Exception as error:  # noqa: BLE001 - a defect in one target must not end delivery to the others
            return self._failed(delivery, f"unexpected {type(error).__name__}")
        self._stalled, self._remark = None, remark
        self._is_slow = delivery.attempts > 1 or self._clock.monotonic() - began > SLOW
        self._unmarked = key
        self._mark()
        return 0.0

    def _send_bounded(self, delivery: Delivery) -> str | None:
        """Send as `Sender.send`, in a thread that is abandoned after a timeout so that queued messages can be given
        up."""
        key = delivery.batch or delivery.message.id
        message = message_of(delivery)
        with self._span(message, delivery):
            future = DaemonThreadExecutor().submit(self._sender.send, message)
            if future not in wait([future], ATTEMPT_WITHIN).done:
                self._abandoned[key] = future
                raise StalledError(f"it neither accepted nor refused a message within {ATTEMPT_WITHIN:g} s")
            return future.result()

    def _span(self, message: Message, delivery: Delivery) -> Span:
        """The span of an attempt, in the trace of the tick that the message is of."""
        span = self._tracer.span("notification", {AS_OF: delivery.message.at})
        if message.decision is not None:
            span.set(INCIDENT, message.thread or None)
            span.set("killswitch.decision", message.decision)
        span.set("killswitch.target", self.target)
        span.set("killswitch.notification", message.id)
        span.set("killswitch.notification.event", message.event)
        span.set("killswitch.notification.attempt", delivery.attempts)
        return span

    def _settle_abandoned(self) -> None:
        """Record abandoned attempts that succeeded after all, so that they are not sent again. Others are queued
        again."""
        for id_, future in tuple(self._abandoned.items()):
            if future.done():
                if future.exception() is None:
                    self._delivered(id_)
                    self._stalled = None
                del self._abandoned[id_]

    def _mark(self) -> None:
        """Record the accepted message. Nothing else is sent before that succeeds, so that nothing is sent twice."""
        if self._unmarked is None:
            return
        if self._suspect is not None and self._failing is not None:
            # It is retried immediately: the target may have recovered at this very attempt.
            self._outbox.settle(self._suspect, to_micros(self._clock.now()), self._failing[2], is_refused=True)
        self._delivered(self._unmarked)
        self._unmarked = self._failing = self._given_up_problem = self._suspect = None

    def _delivered(self, message: str) -> None:
        now = to_micros(self._clock.now())
        self._outbox.settle(message, now, None)
        claimed = self._claimed.pop(message, None)
        rows = () if claimed is None else (claimed.message, *claimed.others)
        in_time = sum(now - each.at <= IN_TIME for each in rows)
        counts = self.counts
        self.counts = replace(counts, delivered=counts.delivered + len(rows), in_time=counts.in_time + in_time)

    def _failed(self, delivery: Delivery, why: str, *, is_rejected: bool = False) -> float:
        """Record a failed attempt; return the seconds until the next one."""
        id_, now = delivery.batch or delivery.message.id, to_micros(self._clock.now())
        if delivery.is_refused:
            self._outbox.settle(id_, now, why, due_at=now + REFUSED_FOR, is_refused=True)
            return 0.0
        if self._failing is None:
            self._failing = (self._clock.monotonic(), self._clock.now(), why)
        pause = PAUSES.after(delivery.attempts)
        self._outbox.settle(id_, now, why, due_at=now + round(pause * SECOND), is_rejected=is_rejected)
        if self._suspect is None and delivery.attempts % TRY_NEXT_AFTER == 0:
            self._suspect = id_
            return 0.0
        self._suspect = None
        return pause


def message_of(delivery: Delivery) -> Message:
    """The message of a claimed notification: of a batch one with all of them, of an alert that has ended with its end.

    A batch stays as it is, so that its message has the same id at every attempt.
    """
    rows = (delivery.message, *delivery.others)
    messages = [decode_message(each.body) for each in rows]
    if delivery.batch is not None:
        return joined(messages, delivery.batch)
    return messages[0] if delivery.ended_before is None else with_end(messages[0], from_micros(delivery.ended_before))


class NotificationSender:
    """Delivers to all targets of a run, each in its own thread: a target that hangs delays no other target and no
    tick."""

    def __init__(self, deliveries: Mapping[str, TargetDelivery]) -> None:
        self.deliveries = dict(deliveries)
        self._workers = {
            target: Worker(f"notify {target}", partial(_step, each)) for target, each in deliveries.items()
        }

    def add(self, delivery: TargetDelivery) -> None:
        """Deliver to one more target, in a thread of its own."""
        self._workers[delivery.target] = Worker(f"notify {delivery.target}", partial(_step, delivery))
        self.deliveries[delivery.target] = delivery

    @property
    def problems(self) -> tuple[str, ...]:
        """One message for each target that has a problem."""
        found = (each.problem or self._workers[target].problem for target, each in self.deliveries.items())
        return tuple(problem for problem in found if problem is not None)

    def wake(self) -> None:
        """Announce that messages may be queued, and start the threads that have not been started.

        NoThreadError where a thread cannot be started; the others deliver, and the next call tries again.
        """
        refused: NoThreadError | None = None
        for worker in self._workers.values():
            try:
                worker.wake()
            except NoThreadError as error:
                refused = error
        if refused is not None:
            raise refused

    def drain(self, timeout: float) -> bool:
        """Deliver what targets accept immediately, for at most `timeout` seconds; return whether all threads ended.

        Other messages stay in the outbox for the next run. A target that is known to stall is not waited for.
        """
        for worker in self._workers.values():
            worker.begin_stop()
        deadline = monotonic() + timeout
        ended = [
            worker.stop(0.0 if self.deliveries[target].is_stalled else max(0.0, deadline - monotonic()))
            for target, worker in self._workers.items()
        ]
        return all(ended)


def _step(delivery: TargetDelivery) -> float | None:
    try:
        return delivery.step()
    except OvertakenError:
        return None  # the run is ending; the queue belongs to the next runner
