"""Circuit breaker of a venue: closed, open, and half-open by time.

It cannot stay open by itself: the time of its next probe is set once, by the failure that opened it, and nothing that
happens while it is open moves it; a probe without a reported outcome is given up after a while. Account polls do not
ask the breaker but report their outcome, so that every poll is a probe, too.
"""

from __future__ import annotations

import math
from typing import Literal

from killswitch.model.backoff import Backoff


class Breaker:
    """The circuit breaker of one venue. Times are monotonic seconds of the caller's clock."""

    def __init__(self, failures: int = 5, first_wait: float = 1.0, longest: float = 30.0) -> None:
        """Open after `failures` in a row, for `first_wait` seconds, doubled up to `longest` by failed probes.

        ValueError if it could never close, or never open.
        """
        if failures < 1 or not 0 < first_wait <= longest < math.inf:
            raise ValueError(f"invalid breaker: {failures} failures, {first_wait} s to {longest} s")
        self._failures = failures
        self._waits = Backoff(first_wait, longest)
        self._in_a_row = 0
        self._openings = 0
        """How often it has opened since it was last closed."""
        self._probe_until: float | None = None
        self.state: Literal["closed", "open", "half_open"] = "closed"
        """`half_open`: one probe is in flight, and nothing else may be sent until its outcome is reported."""
        self.probe_at = -math.inf
        """When, while it is open, the next probe may be sent. In the past while it is closed."""

    def wait(self, now: float) -> float:
        """Seconds until `allows` returns True, at the latest; 0.0 if it would now. Uses up no probe."""
        if self.state == "closed":
            return 0.0
        until = self.probe_at if self._probe_until is None else self._probe_until
        return min(max(until - now, 0.0), self._waits.longest)  # rounding may make it a little more

    def allows(self, now: float) -> bool:
        """Whether an order may be sent now. While it is open, a True is the probe: one at a time, and none too early.

        A probe without a reported outcome is given up `longest` seconds later, and another may be sent.
        """
        if self.state == "closed":
            return True
        if self.wait(now) > 0.0:
            return False
        self.state = "half_open"
        self._probe_until = now + self._waits.longest
        return True

    def unused(self, now: float) -> None:
        """Record that the probe was not sent, or that its outcome does not matter: another may be sent at once."""
        if self.state == "half_open":
            self.state = "open"
            self._probe_until = None
            self.probe_at = min(self.probe_at, now)

    def succeeded(self, now: float) -> None:
        """Record that the venue answered a request, whatever the answer."""
        self.state = "closed"
        self._in_a_row = self._openings = 0
        self._probe_until = None
        self.probe_at = min(self.probe_at, now)

    def failed(self, now: float) -> None:
        """Record that the venue could not be reached or did not answer.

        While it is open this changes nothing, since those requests were sent before; a failed probe opens it for
        longer.
        """
        self._in_a_row += 1
        if self.state == "half_open" or (self.state == "closed" and self._in_a_row >= self._failures):
            self.state = "open"
            self._probe_until = None
            self._openings += 1
            self.probe_at = now + self._waits.after(self._openings)
