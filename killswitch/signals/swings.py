"""Equity that swings without trades, prices or money that moves.

Some venues give an equity that its parts do not add up to, and that jumps up and down while the wallet and the
positions' profits do not. What the parts do not show, G = E − Σ w p − Σ profit of positions, is profit or loss at
first: it may be a product that is not listed. Once it has both risen and fallen it is noise, and equity counts without
it.
"""

from __future__ import annotations

from collections import deque
from decimal import Decimal

from msgspec import Struct

from killswitch.model.instant import SECOND
from killswitch.model.snapshot import AccountSnapshot
from killswitch.signals.position import ZERO
from killswitch.signals.soundness import sane

NOISY_FOR = 600 * SECOND
"""How long an account counts as noisy after its last swing."""
CORRECTED = 60 * SECOND
"""How far back swings are taken out again once they are found to be noise."""


class Swing(Struct, frozen=True):
    """By how much what the parts do not show has changed."""

    at: int
    amount: Decimal


class Swings:
    """One account's. `level` is G, None where it is not known or has just been moved by a trade."""

    def __init__(self, level: Decimal | None = None, entries: list[Swing] | None = None) -> None:
        self.level = level
        self._entries = deque(entries or ())

    @property
    def entries(self) -> list[Swing]:
        """The swings of the last ten minutes, oldest first."""
        return list(self._entries)

    def begin(self, account: AccountSnapshot, profit: Decimal | None) -> None:
        """Take the first snapshot; `profit`: that of its positions together."""
        self.level = _level(account, profit)

    def observe(
        self, at: int, account: AccountSnapshot, profit: Decimal | None, noise: Decimal, *, still: bool
    ) -> tuple[Decimal, list[Swing]]:
        """What of the last change of the account's equity is noise, and which earlier swings were.

        `profit`: that of its positions together. `still`: nothing was traded and the wallet did not move.
        """
        while self._entries and self._entries[0].at < at - NOISY_FOR:
            self._entries.popleft()
        last, self.level = self.level, _level(account, profit)
        if last is None or self.level is None or not still:
            return ZERO, []
        swing = self.level - last
        was_noisy = self._is_noisy
        if abs(swing) > noise:
            self._entries.append(Swing(at, swing))
        if not self._is_noisy:
            return ZERO, []
        return swing, [] if was_noisy else [it for it in self.entries[:-1] if it.at >= at - CORRECTED]

    @property
    def _is_noisy(self) -> bool:
        if len(self._entries) < 2:
            return False
        return any(it.amount > ZERO for it in self._entries) and any(it.amount < ZERO for it in self._entries)


def _level(account: AccountSnapshot, profit: Decimal | None) -> Decimal | None:
    """G; None where a part is not given, or the account says that it holds what is not listed."""
    if account.complete is False or account.equity is None or account.unrealized is None:
        return None
    if profit is None or not account.balances:
        return None
    level = account.equity - profit
    for balance in account.balances:
        price = Decimal(1) if balance.asset == account.currency else balance.price
        if balance.wallet is None or price is None or not (sane(balance.wallet) and sane(price)):
            return None
        level -= balance.wallet * price
    return level if level.is_finite() else None
