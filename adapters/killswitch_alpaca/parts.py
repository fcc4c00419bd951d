"""The parts of an account, each with its own age, and when one is read out of turn.

A purchase takes money and adds shares: once its fill is known, both changes are explained. For an unexplained change,
rows are read at once, 1, 2, 5, 10 and 20 s later, and then at the ordinary interval. Where the allowance does not
suffice, the early reads are left out, because the late ones decide about a loss; while something changes with every
tick, rows are read every ten seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final

from msgspec import Struct

from killswitch.model.snapshot import Fill

ACCOUNT, ORDERS, MOVES, TRADES, CLOCK, QUOTES, MARKS, WATCH = 4.0, 12.0, 30.0, 60.0, 60.0, 3.0, 1.0, 10.0
CALENDAR, ASSETS = 6 * 3600.0, 3600.0
"""Seconds after which each part is read again."""
SAVED: Final = 6.0
OWED: Final = -2.0
"""Requests that may be saved up for touched parts, and that may be owed before those have to wait."""


class SnapshotPart(Struct):
    """A part of the account: when it was read, in seconds of the loop, and whether an event has touched it since."""

    every: float
    longest: float
    """Seconds after which the value is too old to use."""
    read_at: float | None = None
    touches: int = 0
    """Number of events that have touched it."""
    known: int = 0
    """Number of these events that the value includes."""
    failure: str | None = None
    """Why the last read failed."""
    as_of: datetime | None = None
    """Alpaca's time at which the last answered request was sent."""

    def touch(self) -> None:
        """Record an event that changes it."""
        self.touches += 1

    def is_due(self, now: float, *, credit: float = 0.0) -> bool:
        """Whether its interval has passed; or, where `credit` pays for it, whether it was touched."""
        if self.read_at is None or now - self.read_at >= self.every:
            return True
        return self.touches != self.known and credit >= 1.0

    def is_usable(self, now: float) -> bool:
        """Whether the value is recent enough to use."""
        return self.read_at is not None and now - self.read_at <= self.longest

    def was_read(self, now: float, touches_before: int, as_of: datetime | None = None) -> None:
        """Record an answer. `touches_before`: `touches` before the request; later events may not be in the answer."""
        self.read_at, self.known, self.failure, self.as_of = now, touches_before, None, as_of


AFTER: Final = (0.0, 0.8, 1.8, 4.8, 9.8, 20.0)
"""Seconds after a change at which rows are read out of turn. All but the last are slightly less than whole seconds,
since ticks are a second apart; after the last, rows are known to 20 s past the change."""
ALLOWED: Final = 5.0
"""Requests that may be used at once, besides the saved ones, and again in each minute: about a tenth of all reads."""
KEPT: Final = AFTER[-1] + 5.0
"""Seconds after which a change is dropped, explained or not."""
FEE: Final = Decimal("0.005")
"""Fraction of a trade that may be withheld as a fee: for coins Alpaca withholds up to 0.25%."""
NOISE: Final = Decimal("0.0005")
"""Fraction of equity that need not be explained."""
ZERO: Final = Decimal(0)


class OutOfTurnReads:
    """Unexplained changes, in shares and in money. Times in seconds of the loop."""

    def __init__(self) -> None:
        self._allowance = ALLOWED
        self._counted_at: float | None = None
        self._reserved_at = float("-inf")
        self._at: list[float] = []
        self._until = float("-inf")
        self._shares: dict[str, Decimal] = {}
        """Signed change of each symbol's holdings less its fills."""
        self._turnover: dict[str, Decimal] = {}
        """Total size of these changes by symbol."""
        self._money = ZERO

    def record_change(self, now: float, shares: Mapping[str, Decimal], money: Decimal, equity: Decimal) -> None:
        """Record a change of holdings by `shares` (signed), and of money by `money`."""
        self._forget_old(now)
        for symbol, amount in shares.items():
            self._turnover[symbol] = self._turnover.get(symbol, ZERO) + abs(amount)
            self._shares[symbol] = self._shares.get(symbol, ZERO) + amount
        self._money += money
        self._until = now + KEPT
        if not self._explained(equity):
            self._at = [now + after for after in AFTER]

    def record_fill(self, now: float, fill: Fill) -> None:
        """Record a fill, which explains shares and the money paid for them."""
        self._forget_old(now)
        amount = fill.amount if fill.side == "buy" else -fill.amount
        self._shares[fill.symbol] = self._shares.get(fill.symbol, ZERO) - amount
        self._money += amount * fill.price
        self._until = max(self._until, now + KEPT)

    def record_flow(self, now: float, money: Decimal) -> None:
        """Record a flow, which explains as much money."""
        self._forget_old(now)
        self._money -= money
        self._until = max(self._until, now + KEPT)

    def reserve(self, now: float, equity: Decimal, credit: float, requests: int = 2) -> float | None:
        """Reserve `requests` out of turn; returns what they use of `credit`, None where they are not due or not
        affordable."""
        elapsed = 0.0 if self._counted_at is None else now - self._counted_at
        self._allowance, self._counted_at = min(ALLOWED, self._allowance + elapsed * ALLOWED / 60), now
        self._forget_old(now)
        if not self._at or self._at[0] > now:
            return None
        if self._explained(equity):
            self._at = []
            return None
        saved = min(max(0.0, credit), float(requests))
        if requests - saved > self._allowance:
            return None
        if saved < requests and self._is_early(now) and self._left_at_the_end(now) + saved < 3 * requests:
            return None
        self._reserved_at = now
        self._allowance -= requests - saved
        self._at = [at for at in self._at if at > now]
        return saved

    def _is_early(self, now: float) -> bool:
        """Whether this is neither the first read for ten seconds nor one of the last two."""
        return now < self._at[-1] - AFTER[-1] + AFTER[-2] and now - self._reserved_at < AFTER[-2]

    def _left_at_the_end(self, now: float) -> float:
        """The allowance at the time of the last read if nothing is used until then."""
        return self._allowance + (self._at[-1] - now) * ALLOWED / 60

    def _explained(self, equity: Decimal) -> bool:
        shares = all(abs(left) <= FEE * self._turnover.get(symbol, ZERO) for symbol, left in self._shares.items())
        return shares and abs(self._money) <= NOISE * abs(equity)

    def _forget_old(self, now: float) -> None:
        if now > self._until:
            self._at, self._shares, self._turnover, self._money = [], {}, {}, ZERO
