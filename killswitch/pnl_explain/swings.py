"""Swings of equity without trades, price moves or transfers.

Some venues report an equity that differs from the sum of its parts and jumps up and down while the wallet and the
positions' profits do not. The difference G = E − Σ w p − Σ profit of positions first counts as profit or loss, since it
may be an unlisted product. Once it has both risen and fallen it is noise, which is excluded from equity up to 1.5 × the
smaller of its greatest rise and its greatest fall; anything beyond is profit or loss. Positions that are polled later
than the equity look like noise, too: they do not show its rise or fall yet. They hide at most a loss of the size that
prices moved both ways before, and only until they show it.
"""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct

from killswitch.model.instant import SECOND
from killswitch.model.snapshot import AccountSnapshot
from killswitch.valuation.account_facts import wallets
from killswitch.valuation.position_measures import ZERO

NOISY_FOR = 600 * SECOND
"""How long an account counts as noisy after a swing."""
BEYOND = Decimal("1.5")
"""The maximum size of a swing of noise relative to earlier ones."""
CORRECTED = 60 * SECOND
"""How far back swings are removed once they are identified as noise."""


class Swing(Struct, frozen=True):
    """A move of equity that its parts do not show."""

    at: int
    amount: Decimal


class Swings(Struct):
    """The swings of one account, as they are stored.

    `level` is G, None if unknown or just changed by a trade. `swung` is its move since the first of the `entries`, and
    `taken` the part of it that is excluded from equity.
    """

    level: Decimal | None = None
    entries: list[Swing] = []
    swung: Decimal = ZERO
    taken: Decimal = ZERO

    def begin(self, account: AccountSnapshot, profit: Decimal | None) -> None:
        """Observe the first snapshot; `profit` is the total profit of its positions."""
        self.level = _level(account, profit)

    def observe(
        self,
        at: int,
        account: AccountSnapshot,
        change: Decimal,
        profit: Decimal | None,
        noise: Decimal,
        *,
        unchanged: bool,
    ) -> tuple[Decimal, list[Swing]]:
        """The part of the last `change` of the account's equity that is noise, and the earlier swings that were.

        `profit`: the total profit of its positions. `unchanged`: nothing was traded and the wallet did not move.
        """
        self._forget_before(at - NOISY_FOR)
        last, self.level = self.level, _level(account, profit)
        if last is None or self.level is None or not unchanged:
            return ZERO, []
        swing = self.level - last
        was_noisy = bool(self._noise_bound())
        own = min(swing, change, key=abs) if swing * change > ZERO else ZERO
        if abs(own) > noise:
            self.entries.append(Swing(at, own))
        if not self.entries:
            return ZERO, []
        before, self.swung = self.swung, self.swung + swing
        bound = self._noise_bound()
        if not bound:
            return ZERO, []
        found = [] if was_noisy else self._noise_swings(at - CORRECTED, max(-bound, min(bound, before)))
        self.taken += sum((it.amount for it in found), ZERO)
        return self._exclude(change, bound), found

    def _noise_swings(self, since: int, amount: Decimal) -> list[Swing]:
        """The swings since `since`, without the newest, that are noise, `amount` in total."""
        earlier = [it for it in self.entries[:-1] if it.at >= since]
        found, taken = [], ZERO
        for it in earlier:
            reached = max(min(ZERO, amount), min(max(ZERO, amount), taken + it.amount))
            found.append(Swing(it.at, amount - taken if it is earlier[-1] else reached - taken))
            taken = reached
        return [it for it in found if it.amount]

    def _exclude(self, change: Decimal, bound: Decimal) -> Decimal:
        """The additional amount to exclude from equity; negative for a fall.

        The excluded amount grows only as far as equity itself moved; otherwise the positions show an earlier move.
        """
        reach = (ZERO, self.taken, self.taken + change)
        wanted = max(-bound, min(bound, self.swung))
        before, self.taken = self.taken, max(min(reach), min(max(reach), wanted))
        return self.taken - before

    def _noise_bound(self) -> Decimal:
        """The bound of noise, by the smaller of the greatest rise and fall; 0 without both."""
        if len(self.entries) < 2:
            return ZERO
        risen = max((it.amount for it in self.entries), default=ZERO)
        fallen = min((it.amount for it in self.entries), default=ZERO)
        return BEYOND * max(min(risen, -fallen), ZERO)

    def _forget_before(self, edge: int) -> None:
        while self.entries and self.entries[0].at < edge:
            del self.entries[0]
            if not self._noise_bound():
                self.swung = self.taken = ZERO  # the excluded amount stays excluded: it is at most the smaller swing


def _level(account: AccountSnapshot, profit: Decimal | None) -> Decimal | None:
    """G; None if a part is unknown, or if the account holds unlisted products."""
    rows = wallets(account)
    if account.complete is False or account.equity is None or profit is None or rows is None:
        return None
    level = account.equity - profit
    for _, wallet, price in rows:
        level -= wallet * price
    return level if level.is_finite() else None
