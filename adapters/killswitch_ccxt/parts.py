"""The parts of a snapshot: their age, how often each is fetched, and what changed between two snapshots."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct

from killswitch.model.snapshot import Position, Side
from killswitch_ccxt.equity import AccountEquity

T = TypeVar("T")
LOOK_BACK = {"fills": 3_600_000, "flows": 86_400_000}
"""Milliseconds before the first snapshot from which on rows are fetched, to include what happened before the start."""
OVERLAP = 180_000
"""Milliseconds by which fetches of rows overlap: venues write rows late, a minute and more in a storm."""
LONGEST_LOOK_BACK = 86_400_000
"""Most milliseconds before the first snapshot from which on rows are fetched, however old the last known row is."""
CLOSED_MARKET_RULES_INTERVAL = 30.0
"""Seconds between two fetches of rules while a held symbol's market is closed: closing waits for the opening."""
MISSING_SYMBOL_RULES_INTERVAL = 60.0
"""Seconds between two fetches of rules because a symbol is not in them."""
KNOWN_ROWS = 20_000
"""Number of row ids that are remembered, so that each row is in one snapshot only."""
KEPT = 4
"""A part is valid for so many of its ages; after that it is unknown."""
LATE_ROWS = 45.0
"""Seconds after a change for which the symbol's fills are fetched: venues write some of them late."""
MOST_SYMBOLS = 20
"""Symbols whose fills one fetch requests, where the venue requires symbols; the others follow."""
RETRY_AFTER = 5.0
"""Seconds after a failed fetch at which the part is due again, if its age is not shorter."""


class SnapshotPart(Struct, Generic[T]):
    """The last value of one part, its time, and when it is due again (seconds of the loop's clock).

    `phase`: the fraction of `every` after which the second fetch is due. Without it, accounts that start together would
    fetch the same parts at the same moment for ever.
    """

    every: float
    phase: float = 1.0
    value: T | None = None
    at: float = float("-inf")
    due: float = float("-inf")
    failure: str | None = None
    """Why the last fetch failed; None if it succeeded."""

    def recent_value(self, now: float) -> T | None:
        """The value, if it is recent enough."""
        return self.value if now - self.at <= KEPT * self.every + RETRY_AFTER else None

    def record(self, value: T, now: float) -> None:
        """Record a value that was requested at `now`."""
        first = self.at == float("-inf")
        self.value, self.at, self.failure = value, now, None
        self.due = now + self.every * (self.phase if first else 1.0)


ReadPart = Callable[[SnapshotPart[Any], Callable[[], Awaitable[Any]]], Awaitable[bool]]
"""Fetches a part, and keeps its old value where that fails; whether it was fetched."""


def phase_of(account: str) -> float:
    """The account's fraction of every age: above 0, at most 1, and the same in every run."""
    return (int.from_bytes(hashlib.sha256(account.encode()).digest()[:4]) + 1) / 2**32


RECENTLY_CLOSED: Final = 300.0
"""Seconds for which the mark of a symbol is fetched after its position is closed."""
ROUNDING: Final = Decimal("1e-10")
"""The share of a wallet below which a difference is rounding: some venues calculate with binary fractions."""
Wallets = Mapping[str, Decimal]


class DetectedChanges(Struct, frozen=True):
    """Symbols whose position changed, and whether a wallet changed."""

    symbols: frozenset[str]
    has_wallet_change: bool


class ChangeDetector:
    """Changes of one account; times in seconds of the loop's clock."""

    def __init__(self) -> None:
        self._sizes: dict[tuple[str, Side], Decimal] | None = None
        self._wallets: Wallets = {}
        self._closed_at: dict[str, float] = {}

    def detect(
        self, account_equity: AccountEquity, positions: tuple[Position, ...], now: float
    ) -> DetectedChanges | None:
        """The changes since the last snapshot; None at the first one."""
        sizes, wallets = {position.key: position.contracts for position in positions}, wallets_of(account_equity)
        before, self._sizes = self._sizes, sizes
        had, self._wallets = self._wallets, wallets
        if before is None:
            return None
        changed = {key[0] for key in sizes.keys() | before.keys() if sizes.get(key) != before.get(key)}
        held = {symbol for symbol, _ in sizes}
        self._closed_at |= dict.fromkeys(changed - held, now)
        self._closed_at = {
            it: at for it, at in self._closed_at.items() if it not in held and now - at <= RECENTLY_CLOSED
        }
        return DetectedChanges(frozenset(changed), _differ(had, wallets))

    def recently_held(self, now: float) -> frozenset[str]:
        """Symbols that are held, or were in the last five minutes."""
        return frozenset(symbol for symbol, _ in self._sizes or ()) | frozenset(self.recently_closed(now))

    def recently_closed(self, now: float) -> tuple[str, ...]:
        """Symbols that were held in the last five minutes and no longer are."""
        return tuple(sorted(symbol for symbol, at in self._closed_at.items() if now - at <= RECENTLY_CLOSED))


def wallets_of(account_equity: AccountEquity) -> Wallets:
    """Asset → amount that prices do not change; the whole account's cash where the balances do not state it."""
    balances = account_equity.balances or ()
    wallets = {balance.asset: balance.wallet for balance in balances if balance.wallet is not None}
    if balances and len(wallets) == len(balances):
        return wallets
    return {} if account_equity.cash is None else {"": account_equity.cash}


def _differ(one: Wallets, other: Wallets) -> bool:
    zero = Decimal(0)
    pairs = ((one.get(asset, zero), other.get(asset, zero)) for asset in one.keys() | other.keys())
    return any(abs(a - b) > ROUNDING * max(abs(a), abs(b)) for a, b in pairs)
