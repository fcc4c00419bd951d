"""The parts of an account, each with its own age, and when one is read out of turn.

A purchase takes money and brings shares: once its fill is known, both are explained, and nothing more is asked. What
stays unexplained is asked about again 1, 2, 5, 10 and 20 s after the change, and then at the rows' ordinary age. Where
the allowance does not suffice for all of them, the early ones are left out, for a loss is decided by the late ones;
while something changes with every tick, rows are read each ten seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from killswitch.model.snapshot import Fill

ACCOUNT, ORDERS, MOVES, TRADES, CLOCK, QUOTES, MARKS = 4.0, 12.0, 30.0, 60.0, 60.0, 3.0, 1.0
CALENDAR, ASSETS = 6 * 3600.0, 3600.0
"""Seconds after which each part is read again."""
SAVED: Final = 6.0
OWED: Final = -2.0
"""Requests that may be saved up for parts that were touched, and that may be owed before those have to wait."""


@dataclass(slots=True)
class Part:
    """A part of the account: when it was read, in seconds of the loop, and whether something has touched it since."""

    every: float
    longest: float
    """Seconds after which what was read counts no longer."""
    read_at: float | None = None
    touches: int = 0
    """How often something has touched it, ever."""
    known: int = 0
    """How many of these touches what was read knows of."""
    trouble: str | None = None
    """Why the last reading of it failed."""
    as_of: datetime | None = None
    """Alpaca's time when the question left that was answered last."""

    @property
    def touched(self) -> bool:
        """Whether something has touched it that what was read may not show."""
        return self.touches != self.known

    def touch(self) -> None:
        """Something has moved it."""
        self.touches += 1

    def is_due(self, now: float, *, credit: float = 0.0) -> bool:
        """Whether its time has come; or, where `credit` pays for it, whether it was touched."""
        if self.read_at is None or now - self.read_at >= self.every:
            return True
        return self.touched and credit >= 1.0

    def is_good(self, now: float) -> bool:
        """Whether what was read still counts."""
        return self.read_at is not None and now - self.read_at <= self.longest

    def was_read(self, now: float, asked: int, as_of: datetime | None = None) -> None:
        """An answer came. `asked`: `touches` before the question left; what came after it may not be in the answer."""
        self.read_at, self.known, self.trouble, self.as_of = now, asked, None, as_of


AFTER: Final = (0.0, 0.8, 1.8, 4.8, 9.8, 20.0)
"""Seconds after a change at which rows are read out of turn: a little less than whole ones, since ticks come a second
apart, but for the last, after which rows are known past the change by 20 s."""
ALLOWED: Final = 5.0
"""Requests that this may take at once, beside what is saved up, and as many again in a minute: together about a tenth
of what reading may take."""
KEPT: Final = AFTER[-1] + 5.0
"""Seconds after which a change is no concern any more, whether it was explained or not."""
FEE: Final = Decimal("0.005")
"""The part of a trade that may be kept back as a fee: of coins Alpaca keeps up to 0.25%."""
NOISE: Final = Decimal("0.0005")
"""Of equity: money that need not be explained."""
ZERO: Final = Decimal(0)


class Hurry:
    """What has changed and is not explained, in shares and in money. Times in seconds of the loop."""

    def __init__(self) -> None:
        self._allowance = ALLOWED
        self._counted_at: float | None = None
        self._taken_at = float("-inf")
        self._at: list[float] = []
        self._until = float("-inf")
        self._shares: dict[str, Decimal] = {}
        """Per symbol, signed: changes of what is held less its fills."""
        self._moved: dict[str, Decimal] = {}
        """Per symbol: the sizes of all these changes."""
        self._money = ZERO

    def changed(self, now: float, shares: Mapping[str, Decimal], money: Decimal, equity: Decimal) -> None:
        """What is held has changed by `shares` (signed), and the money by `money`."""
        self._forget_old(now)
        for symbol, amount in shares.items():
            self._moved[symbol] = self._moved.get(symbol, ZERO) + abs(amount)
            self._shares[symbol] = self._shares.get(symbol, ZERO) + amount
        self._money += money
        self._until = now + KEPT
        if not self._explained(equity):
            self._at = [now + after for after in AFTER]

    def filled(self, now: float, fill: Fill) -> None:
        """A fill explains shares, and the money that was paid for them."""
        self._forget_old(now)
        amount = fill.amount if fill.side == "buy" else -fill.amount
        self._shares[fill.symbol] = self._shares.get(fill.symbol, ZERO) - amount
        self._money += amount * fill.price
        self._until = max(self._until, now + KEPT)

    def moved(self, now: float, money: Decimal) -> None:
        """A row of money that moved explains as much."""
        self._forget_old(now)
        self._money -= money
        self._until = max(self._until, now + KEPT)

    def take(self, now: float, equity: Decimal, credit: float, requests: int = 2) -> float | None:
        """What `requests` out of turn now take of `credit`; None where they are not due, or cannot be paid for."""
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
        self._taken_at = now
        self._allowance -= requests - saved
        self._at = [at for at in self._at if at > now]
        return saved

    def _is_early(self, now: float) -> bool:
        """Whether this is neither a first look for ten seconds nor one of the last two."""
        return now < self._at[-1] - AFTER[-1] + AFTER[-2] and now - self._taken_at < AFTER[-2]

    def _left_at_the_end(self, now: float) -> float:
        """What the allowance comes to by the last look if nothing is asked until then."""
        return self._allowance + (self._at[-1] - now) * ALLOWED / 60

    def _explained(self, equity: Decimal) -> bool:
        shares = all(abs(left) <= FEE * self._moved.get(symbol, ZERO) for symbol, left in self._shares.items())
        return shares and abs(self._money) <= NOISE * abs(equity)

    def _forget_old(self, now: float) -> None:
        if now > self._until:
            self._at, self._shares, self._moved, self._money = [], {}, {}, ZERO
