"""Listens to the venues' private streams. A push triggers a poll; it never replaces one, and silence proves nothing.

Polling continues whatever a stream does. A stream that is lost, or that gives no sign of life for `STALE_AFTER`, is
reported once as a warning, and once more when it has been delivering for `STEADY_AFTER`; only an account that cannot be
polled is paged. A stream that ends is reopened after growing pauses, except where the venue refuses the credentials.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from msgspec import Struct

from killswitch.accounts.arming import ArmedAccount
from killswitch.execution.response_timeouts import is_task_cancelled
from killswitch.model.alert import Alert, Alerts, together
from killswitch.model.backoff import Backoff
from killswitch.model.clock import Clock
from killswitch.model.legible import legible
from killswitch.model.venue import CredentialsRefusedError, Listen, Push

STALE_AFTER = 60.0
"""Seconds without any sign of life after which a stream is stale: venues ping at least every three minutes, and
adapters ping them every twenty to thirty seconds."""
STEADY_AFTER = 60.0
"""Seconds for which a stream must deliver again before its next failure is reported: flapping is reported once."""
PAUSES = Backoff(first=1.0, longest=300.0)
"""Seconds of real time before a stream that has ended so often in a row is reopened."""

WITHOUT = "the account is polled at the interval only"
"""The consequence for the account; whether the polls succeed is reported separately."""

CLOSE_TIMEOUT = 5.0
"""Seconds of real time that a cancelled stream has to close before another one is opened."""

StreamState = Literal["opening", "heard", "stale", "lost", "ended"]
_WAKING = frozenset({"positions", "orders", "balance"})


class StreamView(Struct, frozen=True):
    """One account's stream as `status` shows it. `why`: the cause of a present or recent failure."""

    account: str
    state: StreamState
    heard_at: datetime | None = None
    why: str | None = None


class Stream:
    """The state of one account's stream, by the seconds of the runner's clock."""

    def __init__(self, account: str, clock: Clock) -> None:
        self.account = account
        self._clock = clock
        self._begun = clock.monotonic()
        self._last_push: float | None = None
        self._last_push_at: datetime | None = None
        self._steady_since: float | None = None
        self._lost: str | None = None
        self._ended: str | None = None
        self._reported: str | None = None
        self._reported_why: str | None = None

    def record_push(self) -> None:
        """Record a sign of life."""
        now = self._clock.monotonic()
        self._note()
        if self.state != "heard":
            self._steady_since = now
        self._last_push, self._last_push_at, self._lost = now, self._clock.now(), None

    def record_loss(self, why: str) -> None:
        """Record that the stream is down. The first reason of several channels is kept."""
        self._lost = self._lost or legible(why)
        self._note()

    def record_end(self, why: str) -> None:
        """Record that the stream is closed for the rest of the run."""
        self._ended = legible(why)

    @property
    def state(self) -> StreamState:
        if self._ended is not None:
            return "ended"
        if self._lost is not None:
            return "lost"
        if self._clock.monotonic() - (self._begun if self._last_push is None else self._last_push) > STALE_AFTER:
            return "stale"
        return "opening" if self._last_push is None else "heard"

    @property
    def view(self) -> StreamView:
        return StreamView(self.account, self.state, self._last_push_at, self._ended or self._reported_why or self._lost)

    @property
    def problem(self) -> str | None:
        """Why the stream is unreliable, unchanged until it is over; None if it delivers."""
        if self._ended is not None:
            self._reported = (
                f"the stream of account {self.account} is closed for this run: {self._ended}; from now on {WITHOUT}"
            )
        elif self.state in ("lost", "stale"):
            self._note()
        elif self._reported is not None and self._is_steady():
            self._reported = self._reported_why = None
        return self._reported

    @property
    def alerts(self) -> Alerts:
        """The warning about the stream, if it does not deliver."""
        key, text = f"stream/{self.account}", self.problem
        if text is None:
            return Alerts(unknown=(key,) if self.state == "opening" else ())
        over, outage = f"the stream of account {self.account} delivers again", f"outage/{self.account}"
        return Alerts((Alert(key, "warning", text, over=over, part_of=(outage,)),))

    def _note(self) -> None:
        """Remember the current problem: it is reported even if it is over before the next tick."""
        if self._reported is None and self.state in ("lost", "stale"):
            why = self._reported_why = self._lost or f"no sign of life for {STALE_AFTER:g} s"
            self._reported = (
                f"the stream of account {self.account} is unreliable: {why}; until it delivers again {WITHOUT}"
            )

    def _is_steady(self) -> bool:
        since = self._steady_since
        return self.state == "heard" and since is not None and self._clock.monotonic() - since >= STEADY_AFTER


class PushListener:
    """One task for each account whose adapter offers a private stream."""

    def __init__(self, accounts: Mapping[str, ArmedAccount], clock: Clock) -> None:
        self._listens = {name: listen for name, it in accounts.items() if (listen := it.adapter.listen) is not None}
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._reopened_at: dict[str, float] = {}
        self._streams: dict[str, Stream] = {}
        self.pushed: dict[str, None] = {}
        """Accounts with a push for which no poll has begun yet, oldest first."""
        self.bell = asyncio.Event()
        """Set by a push that calls for a poll."""

    def start(self) -> None:
        """Open the streams, without waiting for them."""
        for name, listen in self._listens.items():
            stream = self._streams[name] = Stream(name, self._clock)
            self._tasks[name] = asyncio.create_task(self._listen(stream, listen), name=f"stream of {name}")

    def reopen(self, name: str) -> None:
        """Reopen the stream of an account that can be polled again, without waiting for the end of its pause.

        At most once in `STEADY_AFTER`, so that there is a pause for a flapping venue.
        """
        stream, now = self._streams.get(name), self._clock.monotonic()
        is_recent = now - self._reopened_at.get(name, -math.inf) < STEADY_AFTER
        if stream is None or is_recent or stream.state not in ("lost", "stale"):
            return
        self._reopened_at[name] = now
        before = self._tasks[name]
        before.cancel()
        reopened = self._listen(stream, self._listens[name], after=before)
        self._tasks[name] = asyncio.create_task(reopened, name=f"stream of {name}")

    @property
    def judges(self) -> tuple[str, ...]:
        return tuple(f"stream/{name}" for name in self._streams)

    @property
    def alerts(self) -> Alerts:
        """A warning for each stream that does not deliver; unknown while it is being opened."""
        return together(stream.alerts for stream in self._streams.values())

    @property
    def views(self) -> tuple[StreamView, ...]:
        return tuple(stream.view for stream in self._streams.values())

    async def stop(self, within: float) -> None:
        """Close the streams, in at most `within` seconds of real time."""
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=within)

    async def _listen(self, stream: Stream, listen: Listen, *, after: asyncio.Task[None] | None = None) -> None:
        """Listen until cancelled. `after`: a cancelled task that must have closed its connection first."""
        if after is not None:
            await asyncio.wait((after,), timeout=CLOSE_TIMEOUT)
        ends = 0
        while True:
            has_pushed = False

            def receive(push: Push) -> None:
                nonlocal has_pushed
                has_pushed = has_pushed or push.kind != "lost"
                self._receive(stream, push)

            try:
                await listen(receive)
            except asyncio.CancelledError:
                if is_task_cancelled():
                    raise
                why = "the adapter cancelled its own stream"
            except CredentialsRefusedError as error:
                stream.record_end(str(error) or type(error).__name__)
                return
            except Exception as error:  # noqa: BLE001 - whatever an adapter raises ends its stream, never the run
                why = str(error) or type(error).__name__
            else:
                why = "the adapter has closed the stream"
            stream.record_loss(f"{why}; it is reopened after pauses of up to {PAUSES.longest / 60:g} minutes")
            ends = 1 if has_pushed else ends + 1
            await asyncio.sleep(PAUSES.after(ends))

    def _receive(self, stream: Stream, push: Push) -> None:
        if push.kind == "lost":
            stream.record_loss(push.why or "no reason given")
            return
        stream.record_push()
        if push.kind in _WAKING:
            self.pushed[stream.account] = None
            self.bell.set()
