"""What moved in an account between two looks at it: money, positions, and symbols that are held no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from killswitch.model.snapshot import Position, Side
from killswitch_ccxt.wealth import Wealth

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
