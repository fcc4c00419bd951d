"""Timing parameters of closing, in seconds of the injected clock unless stated otherwise."""

from __future__ import annotations

from msgspec import Struct

from killswitch.model.backoff import Backoff


class ClosingPace(Struct, frozen=True):
    """The timing parameters of closing. Each bounds harm; none of them is a rate limit."""

    fruitless_attempts: int = 8
    """Orders in a row without a fill after which a position is given up and reported."""
    first_wait: float = 0.5
    """Wait after an attempt without a fill; doubled after each further one."""
    longest_wait: float = 30.0
    """Upper bound of that doubling."""
    absence_after: float = 2.0
    """Minimum age of an order before the answer "no such order" is accepted: a query may overtake the request."""
    first_validity: float = 3.0
    """Validity of an order, where the venue accepts one in the request. Doubled each time that the venue rejects an
    order as expired, so that a slow venue does not reject its orders for ever."""
    longest_validity: float = 24.0
    """Upper bound of that doubling."""
    assumed_validity: float = 60.0
    """Assumed time for which a request may still be carried out, where the venue declares no bound."""
    validity_margin: float = 1.5
    """Additional wait until an absence is accepted: clocks may differ by a second, and an order accepted at the last
    moment may appear half a second later."""
    confirm_after: float = 5.0
    """How long the venue must show more than our fills have left before that is accepted."""
    confirm_snapshots: int = 3
    """Number of snapshots in a row that must show it. Both bounds also apply to an unexplained empty book."""
    poll_interval: float = 1.0
    """Interval between passes that changed nothing, and the longest interval between two queries of an order."""
    idle_poll_interval: float = 10.0
    """Interval between two account polls while orders wait only for budget or for their scheduled time."""
    first_query_interval: float = 0.1
    """Wait before an order of unknown status is queried again; doubled each time, up to `poll_interval`."""
    query_after: float = 1.5
    """Real seconds after which an unanswered order is queried while its request still runs."""
    halted_query_interval: float = 20.0
    """Interval between two queries of orders that rest in a halted market, for all orders of an account together, and
    between two cancel requests for one of them. Nothing can fill before the market opens, which snapshots show. Three
    queries a minute, however many orders wait, leave budget for polls."""
    longest_closed_wait: float = 300.0
    """Longest wait after `market_closed` where no snapshot shows the market's state. Each attempt writes two journal
    entries, so there are at most twelve attempts an hour."""
    longest_sleep: float = 0.1
    """Longest time for which one call of `advance` waits for the next pass to be due."""
    request_timeout: float = 10.0
    """Longest request timeout, in real seconds."""
    shortest_timeout: float = 1.0
    """Shortest request timeout, in real seconds, however fast the venue answers."""
    cancel_timeout: float = 2.0
    """Timeout of a cancel request, in real seconds; short, because closing waits for it."""
    notify_after: float = 30.0
    """How long an order of ours may be open or of unknown status before an operator is notified."""
    longest_resting: float = 5.0
    """How long an order of ours may rest before it is cancelled and replaced."""
    abandon_after: float = 600.0
    """How long an order of unknown status is queried before it is abandoned and an operator is paged."""
    longest_unprotected: float = 10.0
    """How long a position may be unprotected before its protective orders are restored, closed or not."""
    longest_snapshot_age: float = 1.0
    """Maximum age of the runner's snapshot on which its decisions are closed."""
    position_lag: float = 15.0
    """How long a venue's positions may lag behind our last order, or behind a close that has ended."""
    longest_decision_age: float = 10.0
    """Maximum age of a decision whose own snapshot replaces a poll that fails now."""

    def wait_after(self, fruitless: int, *, closed: bool = False) -> float:
        """Seconds to wait after the `fruitless`th attempt in a row without a fill.

        `closed`: the market is reported closed, and no snapshot shows when it opens.
        """
        longest = max(self.longest_wait, self.longest_closed_wait) if closed else self.longest_wait
        return Backoff(self.first_wait, longest).after(fruitless)


PACE = ClosingPace()
