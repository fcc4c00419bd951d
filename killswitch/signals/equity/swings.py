"""Equity that swings without trades, prices or money that moves.

Some venues give an equity that its parts do not add up to, and that jumps up and down while the wallet and the
positions' profits do not. What the parts do not show, G = E − Σ w p − Σ profit of positions, is profit or loss at
first: it may be a product that is not listed. Once it has both risen and fallen it is noise, and equity counts without
it: up to one and a half times the smaller of its greatest rise and its greatest fall, for what goes beyond is profit or
loss. Positions that are read later than the worth look like noise too: a rise or fall of the equity that they do not
show yet. They hide no more of a loss than prices moved both ways before it, and only until they show it.
"""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct

from killswitch.model.instant import SECOND
from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot
from killswitch.signals.position import ZERO

NOISY_FOR = 600 * SECOND
"""How long an account counts as noisy after its last swing."""
BEYOND = Decimal("1.5")
"""The next swing of noise may be greater than those before it by so much."""
CORRECTED = 60 * SECOND
"""How far back swings are taken out again once they are found to be noise."""


class Swing(Struct, frozen=True):
    """By how much equity moved in a way that its parts do not show."""

    at: int
    amount: Decimal


class Swings(Struct):
    """The swings of one account, as they are stored.

    `level` is G, None where it is not known or has just been moved by a trade. `swung` is how far it has moved since
    the first of the `entries`, and `taken` how much of that equity counts without.
    """

    level: Decimal | None = None
    entries: list[Swing] = []
    swung: Decimal = ZERO
    taken: Decimal = ZERO

    def begin(self, account: AccountSnapshot, profit: Decimal | None) -> None:
        """Take the first snapshot; `profit`: that of its positions together."""
        self.level = _level(account, profit)

    def observe(
        self, at: int, account: AccountSnapshot, change: Decimal, profit: Decimal | None, noise: Decimal, *, still: bool
    ) -> tuple[Decimal, list[Swing]]:
        """What of the last `change` of the account's equity is noise, and which earlier swings were.

        `profit`: that of its positions together. `still`: nothing was traded and the wallet did not move.
        """
        self._forget_before(at - NOISY_FOR)
        last, self.level = self.level, _level(account, profit)
        if last is None or self.level is None or not still:
            return ZERO, []
        swing = self.level - last
        was_noisy = bool(self._both_ways())
        own = min(swing, change, key=abs) if swing * change > ZERO else ZERO
        if abs(own) > noise:
            self.entries.append(Swing(at, own))
        if not self.entries:
            return ZERO, []
        before, self.swung = self.swung, self.swung + swing
        bound = self._both_ways()
        if not bound:
            return ZERO, []
        found = [] if was_noisy else self._found(at - CORRECTED, max(-bound, min(bound, before)))
        self.taken += sum((it.amount for it in found), ZERO)
        return self._take(change, bound), found

    def _found(self, since: int, amount: Decimal) -> list[Swing]:
        """What of the swings before the newest, `since` then, is noise: `amount` together."""
        earlier = [it for it in self.entries[:-1] if it.at >= since]
        found, taken = [], ZERO
        for it in earlier:
            reached = max(min(ZERO, amount), min(max(ZERO, amount), taken + it.amount))
            found.append(Swing(it.at, amount - taken if it is earlier[-1] else reached - taken))
            taken = reached
        return [it for it in found if it.amount]

    def _take(self, change: Decimal, bound: Decimal) -> Decimal:
        """How much more is to be taken out; below zero what is to be given back of a rise, and taken of a fall.

        More than before only as far as equity itself moved so: else it is the positions that show what it did before.
        """
        reach = (ZERO, self.taken, self.taken + change)
        wanted = max(-bound, min(bound, self.swung))
        before, self.taken = self.taken, max(min(reach), min(max(reach), wanted))
        return self.taken - before

    def _both_ways(self) -> Decimal:
        """How far noise may go, by the smaller of the greatest rise and fall; 0 while there were not both."""
        if len(self.entries) < 2:
            return ZERO
        risen = max((it.amount for it in self.entries), default=ZERO)
        fallen = min((it.amount for it in self.entries), default=ZERO)
        return BEYOND * max(min(risen, -fallen), ZERO)

    def _forget_before(self, edge: int) -> None:
        while self.entries and self.entries[0].at < edge:
            del self.entries[0]
            if not self._both_ways():
                self.swung = self.taken = ZERO  # what was taken out stays so: it is no more than swung both ways


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
