"""How patient closing is. Seconds of the clock that it was given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """The numbers of closing; each is a bound on harm, and none of them a rate budget."""

    fruitless_attempts: int = 8
    """Orders in a row that fill nothing, after which a position is given up and reported."""
    first_wait: float = 0.5
    """After a fruitless attempt; doubled after each further one."""
    longest_wait: float = 30.0
    absence_after: float = 2.0
    """"No such order" is believed no sooner after sending: a request may overtake the question."""
    first_validity: float = 3.0
    """Seconds for which an order is valid, where the venue lets a request say it. Doubled each time that the venue says
    that they were up, so that a slow venue is not refused its orders for ever."""
    longest_validity: float = 24.0
    """The most that this is doubled to."""
    unbounded_validity: float = 60.0
    """For how long a request may be carried out, as far as anybody can say, where its venue names no bound."""
    after_validity: float = 1.5
    """Seconds more until an absence is believed: the two clocks may differ by one, and an order that was taken at the
    last moment may show half a second later."""
    doubt_for: float = 5.0
    """For how long the venue must show more than our fills have left before that is believed."""
    doubt_reads: int = 3
    """And in how many readings in a row. The same for an empty book that nothing explains."""
    poll: float = 1.0
    """Between passes that changed nothing."""
    look_again: float = 10.0
    """Between two looks at the account while orders wait for nothing but room or their time."""
    ask_again: float = 0.1
    """Before an order of unknown fate is asked about again; doubled each time, up to `poll`."""
    ask_after: float = 1.5
    """Real seconds after which an order without an answer is asked about while its request still runs."""
    ask_halted: float = 20.0
    """Between two questions about orders that rest while their market is halted, all of an account's together, and
    between two calls to cancel one of them.

    Nothing can fill before the opening, of which readings tell. Three questions a minute, however many orders wait,
    leave readings their room."""
    longest_closed: float = 300.0
    """The longest wait after `market_closed` where no reading tells whether the market is open: two entries each time,
    so twelve times an hour at the most."""
    breath: float = 0.1
    """The longest that one pass waits for the next to be due."""
    request_timeout: float = 10.0
    """Real seconds that a request may take, at most, before its answer counts as missing."""
    least_timeout: float = 1.0
    """And at least, however fast the venue has been answering."""
    cancel_timeout: float = 2.0
    """The same for a request to cancel, for which closing waits."""
    resting_for: float = 30.0
    """How long an order of ours may be open or of unknown fate before a person is told."""
    rest_at_most: float = 5.0
    """How long an order of ours may rest before it is cancelled, and another is sent in its place."""
    asked_for: float = 600.0
    """How long an order of unknown fate is asked about before that is given up, and a person paged."""
    unprotected_for: float = 10.0
    """How long a position may be without its protective orders before they are put back, closed or not."""
    given_for: float = 1.0
    """How old the reading of a tick may be that its decisions are closed on."""
    lags_for: float = 15.0
    """How long a venue's positions may show what was there before our last order, or a close that has ended."""
    fresh_for: float = 10.0
    """How old a decision may be whose own reading stands in for one that fails now."""

    def wait_after(self, fruitless: int, *, closed: bool = False) -> float:
        """How long to wait after the `fruitless`th attempt in a row that filled nothing.

        `closed`: the market was said to be closed, and nothing tells when it opens.
        """
        if fruitless <= 0:
            return 0.0
        longest = max(self.longest_wait, self.longest_closed) if closed else self.longest_wait
        return min(longest, self.first_wait * 2.0 ** min(fruitless - 1, 30))


PACE = Pace()
