"""The parts of a snapshot: how old each is, how often it is read, and what moved between two readings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Generic, TypeVar

from killswitch.model.snapshot import Position, Side
from killswitch_ccxt.equity import Wealth

T = TypeVar("T")
LOOK_BACK = {"fills": 3_600_000, "flows": 86_400_000}
"""Milliseconds before the first reading from which on rows are asked for: what happened while nobody looked."""
OVERLAP = 180_000
"""Milliseconds by which questions for rows overlap: venues write them down late, a minute and more in a storm."""
LONGEST_LOOK_BACK = 86_400_000
"""Milliseconds before the first reading from which on rows are asked for at most, however old the last one is."""
SHUT_RULES = 30.0
"""Seconds between two times that rules are asked for while a market is shut in which something is held: closing waits
for its opening."""
RULES_AGAIN = 60.0
"""Seconds between two times that rules are asked for because a symbol is not in them."""
KNOWN_ROWS = 20_000
"""How many ids of rows are remembered, so that a row is told once."""
KEPT = 4
"""A part is kept for so many of its ages; after that it is unknown."""
LATE_ROWS = 45.0
"""For so many seconds after a movement its symbol's fills are asked for: venues write some of them down late."""
MOST_SYMBOLS = 20
"""Symbols whose fills are asked for in one reading, where the venue wants each named; the others follow."""
AGAIN = 5.0
"""Seconds after which a part whose reading failed is due again, if its age is no less."""


@dataclass(slots=True)
class Part(Generic[T]):
    """What was read last of one thing, when, and when it is due again (seconds of the loop's clock).

    `phase`: the fraction of `every` after which the second reading is due. Accounts that begin together would ask for
    the same parts together for ever, and all of their answers would be here in the same moment.
    """

    every: float
    phase: float = 1.0
    value: T | None = None
    at: float = float("-inf")
    due: float = float("-inf")
    why: str | None = None
    """Why the last reading failed; None if it did not."""

    def known(self, now: float) -> T | None:
        """The value, if it is young enough."""
        return self.value if now - self.at <= KEPT * self.every + AGAIN else None

    def took(self, value: T, now: float) -> None:
        """It was read, by a question that was asked at `now`."""
        first = self.at == float("-inf")
        self.value, self.at, self.why = value, now, None
        self.due = now + self.every * (self.phase if first else 1.0)


def phase_of(account: str) -> float:
    """An account's fraction of every age: above 0, at most 1, and the same in every run."""
    return (int.from_bytes(hashlib.sha256(account.encode()).digest()[:4]) + 1) / 2**32


GONE_FOR: Final = 300.0
"""Seconds for which the mark of a symbol is asked for that is held no more."""
ROUNDING: Final = Decimal("1e-10")
"""The share of a wallet that is no movement: some venues reckon with binary fractions, and round each time anew."""
Wallets = Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class Moved:
    """Symbols whose position changed, and whether a wallet did."""

    symbols: frozenset[str]
    money: bool


class Movement:
    """Of one account; times in seconds of the loop's clock."""

    def __init__(self) -> None:
        self._sizes: dict[tuple[str, Side], Decimal] | None = None
        self._wallets: Wallets = {}
        self._gone: dict[str, float] = {}

    def look(self, wealth: Wealth, positions: tuple[Position, ...], now: float) -> Moved | None:
        """What is another than at the last look; None at the first one."""
        sizes, wallets = {position.key: position.contracts for position in positions}, wallets_of(wealth)
        before, self._sizes = self._sizes, sizes
        had, self._wallets = self._wallets, wallets
        if before is None:
            return None
        changed = {key[0] for key in sizes.keys() | before.keys() if sizes.get(key) != before.get(key)}
        held = {symbol for symbol, _ in sizes}
        self._gone |= dict.fromkeys(changed - held, now)
        self._gone = {it: at for it, at in self._gone.items() if it not in held and now - at <= GONE_FOR}
        return Moved(frozenset(changed), _differ(had, wallets))

    def held_lately(self, now: float) -> frozenset[str]:
        """Symbols that are held, or were in the last five minutes."""
        return frozenset(symbol for symbol, _ in self._sizes or ()) | frozenset(self.gone(now))

    def gone(self, now: float) -> tuple[str, ...]:
        """Symbols that were held in the last five minutes, and are no more."""
        return tuple(sorted(symbol for symbol, at in self._gone.items() if now - at <= GONE_FOR))


def wallets_of(wealth: Wealth) -> Wallets:
    """Asset → amount that prices do not move; the whole account's cash where the balances do not tell."""
    balances = wealth.balances or ()
    told = {balance.asset: balance.wallet for balance in balances if balance.wallet is not None}
    if balances and len(told) == len(balances):
        return told
    return {} if wealth.cash is None else {"": wealth.cash}


def _differ(one: Wallets, other: Wallets) -> bool:
    zero = Decimal(0)
    pairs = ((one.get(asset, zero), other.get(asset, zero)) for asset in one.keys() | other.keys())
    return any(abs(a - b) > ROUNDING * max(abs(a), abs(b)) for a, b in pairs)
