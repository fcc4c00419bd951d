"""Changes of equity that no row and no price accounts for, and what becomes of them.

A change is money that moved or profit or loss. While that is open both readings are kept. If it was money that moved,
every unit value from the change on is `factor` times too high (too low for money taken out), where
factor = (equity before + change) ÷ equity before: that is what issuing units for it would have divided them by.

Values follow equity, so that an open change is in them as profit or loss; one that is settled as money that moved is
in them as issued units. Either is undone where a row comes that says otherwise. Rises and falls never cancel each other
out, but for two answers of one venue that are not of one moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.instant import HOUR
from killswitch.signals.equity.loss_or_flow import SMALL, TRADES_AFTER, is_about, is_amount
from killswitch.signals.position import ZERO

REMEMBER = 48 * HOUR
"""How long a row may be late."""
REMEMBER_SLIPS = HOUR
"""How long one that counts as profit or loss is remembered where it was small."""
MOST = 500
"""Changes kept apart at a time; beyond that the oldest count as what they seem."""


class Change(Struct):
    """One unexplained change of `account`, which appeared `at`, the account having been read before at `since`.

    Microseconds. `before` is the scope's equity and `value` its unit value just before it; `peak` the highest unit
    value since the change before it; `equity` the account's. `kind` is what it is taken for while it is open: `trade`
    is pending, `money` a flow. `lost`: it counts as profit or loss by now; `moved`: it was settled as money that moved.
    `hurried`: it is one of many falls in a row, which wait for the shorter lag. `unanswered_since`: when the
    ledger was first known to lack its row, or was given up on. `suspected`: a lock was written on suspicion of it.
    `in_transit`: about as much arrived in another account of the scope. `accepted`: an operator has accepted that
    it moved; it is kept only for a late row to be held against it.
    """

    at: int
    amount: Decimal
    before: float
    value: float
    peak: float
    lost: bool = False
    account: str = ""
    since: int = 0
    equity: Decimal = ZERO
    slack: Decimal = ZERO
    kind: Literal["trade", "money"] = "money"
    moved: bool = False
    unanswered_since: int | None = None
    hurried: bool = False
    suspected: bool = False
    in_transit: bool = False
    accepted: bool = False
    rate: Decimal = Decimal(1)
    """One unit of the account's currency, which `amount` is in, in the scope's currency, which `before` is in."""

    @property
    def worth(self) -> Decimal:
        """The amount in the scope's currency."""
        return self.amount * self.rate

    @property
    def factor(self) -> float:
        """What unit values from the change on would be divided by if it was a flow; 0 if all was taken out."""
        return max(0.0, (self.before + float(self.worth)) / self.before) if self.before > 0.0 else 1.0

    @property
    def is_open(self) -> bool:
        """Whether it may still be either."""
        return not self.lost and not self.moved


Reading = Callable[[Change], float]
"""By what unit values from before a change are to be multiplied to stand beside those after it."""


class Resolved(Struct, frozen=True):
    """`worth`, in the scope's currency, of the change that appeared `at` was a flow: divide by `factor` from there on.

    A `factor` of 0: all was taken out, at the unit value `value`. `undone`: it was taken for a flow and was none, and
    `factor` is to be multiplied by.
    """

    at: int
    worth: Decimal
    factor: float
    value: float
    undone: bool = False
    before: float = 0.0


class Changes:
    """The changes that are open or may still be explained, oldest first, and the peaks of the times between them."""

    def __init__(self, changes: Iterable[Change] = (), peak: float = 0.0) -> None:
        """`peak` is the highest unit value since the newest change."""
        self.all: list[Change] = list(changes)
        self.peak = peak

    @property
    def open(self) -> list[Change]:
        """Those that count as neither yet."""
        return [change for change in self.all if change.is_open]

    @property
    def unexplained(self) -> list[Change]:
        """Those that no row, no price, no trade and no operator has explained."""
        return [change for change in self.all if not (change.lost or change.accepted)]

    @property
    def sum(self) -> Decimal:
        """What is unexplained now; below zero for a fall."""
        return sum((change.worth for change in self.unexplained), ZERO)

    def appear(self, change: Change) -> None:
        """Enter a change that nothing explains; its `peak` is taken from here."""
        change.peak = self.peak
        self.all.append(change)
        self.peak = 0.0

    def has(self, account: str, row: Decimal, row_at: int, noise: Decimal) -> bool:
        """Whether a change of the row's own time and amount is remembered, which may be what the row tells of."""
        own = (each for each in self.all if each.account == account)
        return any(is_about(row_at, each.since, each.at) and is_amount(row, each.amount, noise) for each in own)

    def explain(
        self, account: str, row: Decimal, row_at: int, noise: Decimal, *, moved: bool
    ) -> tuple[list[Resolved], Decimal]:
        """Hold a late row against the account's changes of its sign; what of them it explains, and what is left of it.

        Changes of the row's own time come first, then one of its very amount. `moved`: the row is a flow; otherwise it
        is profit or loss.
        """
        own = [each for each in self.all if each.account == account and (each.amount > ZERO) == (row > ZERO)]
        timely = [each for each in own if is_about(row_at, each.since, each.at)]
        exact = [each for each in own if each not in timely and is_amount(row, each.amount, noise)]
        resolved: list[Resolved] = []
        for change in (*sorted(timely, key=lambda it: not is_amount(row, it.amount, noise)), *exact[:1]):
            if row == ZERO:
                break
            whole = is_amount(row, change.amount, noise)
            part = change.amount if whole else min(change.amount, row, key=abs)
            row = ZERO if whole else row - part
            found = self._explained(change, part, moved=moved)
            if found is not None:
                resolved.append(found)
        return resolved, row

    def _explained(self, change: Change, part: Decimal, *, moved: bool) -> Resolved | None:
        """Take `part` off the change; how values are to be corrected for it, or None where they hold it already."""
        before = change.factor
        change.amount -= part
        factor = before / change.factor if change.factor > 0.0 else before
        found = None
        if moved and change.moved:  # values hold it as issued units already
            found = Resolved(change.at, part * change.rate, 1.0, change.value)
        elif moved:
            self._divide_after(change, factor)
            found = Resolved(change.at, part * change.rate, factor, change.value)
        elif change.moved and not change.accepted:
            self._divide_after(change, 1.0 / factor if factor > 0.0 else 0.0)
            found = Resolved(change.at, part * change.rate, factor, change.value, undone=True, before=change.before)
        if change.amount == ZERO:
            self._forget(change)
        return found

    def fill(self, account: str, at: int, effect: Decimal) -> list[Resolved]:
        """Take what late fills made of a trade, which positions showed `at`, off the change that appeared with it.

        Where the trade made more than the change, something else made the difference, of the other sign: it is open.
        """
        own = [each for each in self.all if each.account == account and at <= each.at <= at + TRADES_AFTER]
        if not own:
            return []
        change = own[0]
        if change.amount * effect <= ZERO:
            change.amount -= ZERO if change.moved else effect
            return []
        beyond = effect - change.amount
        if beyond * effect <= ZERO:
            found = self._explained(change, effect, moved=False)
            return [] if found is None else [found]
        resolved = [self.reopen(change)] if change.moved and not change.accepted else []
        change.amount, change.kind, change.lost = -beyond, "money", False
        return resolved

    def settle_as_flow(self, change: Change) -> Resolved:
        """An open change counts as money that moved from now on."""
        change.moved = True
        self._divide_after(change, change.factor)
        return Resolved(change.at, change.worth, change.factor, change.value)

    def reopen(self, change: Change) -> Resolved:
        """A change that was settled as money that moved may be profit or loss after all."""
        change.moved = False
        factor = change.factor
        self._divide_after(change, 1.0 / factor if factor > 0.0 else 0.0)
        return Resolved(change.at, change.worth, factor, change.value, undone=True, before=change.before)

    def net(self, change: Change, within: int) -> None:
        """Count an open, pending change, and those of the other sign shortly before it, as profit and loss alike."""
        for other in self.open:
            if change.amount == ZERO or other is change or not _are_opposite(change, other, within):
                continue
            part = min(abs(change.amount), abs(other.amount))
            for each in (other, change):
                self._count(each, part if each.amount > ZERO else -part)

    def _count(self, change: Change, part: Decimal) -> None:
        """Let `part` of a change count as profit or loss; the rest stays open beside it."""
        if part == change.amount:
            change.lost = True
            return
        place = self.all.index(change)
        before = change.before + float(part * change.rate)
        rest = replace(change, amount=change.amount - part, before=before, peak=0.0)
        change.amount, change.lost = part, True
        self.all.insert(place + 1, rest)

    def expire(self, now: int) -> None:
        """Let go of what no row will explain any more, and of small slips sooner."""
        for change in [each for each in self.all if each.lost and now - each.at > REMEMBER_SLIPS and _is_small(each)]:
            self._forget(change)
        while self.all and (now - self.all[0].at > REMEMBER or len(self.all) > MOST):
            self._forget(self.all[0])

    def highest(self, reading: Reading) -> float:
        """The highest unit value ever, as it would be in the reading, in terms of the present value."""
        scale, best = 1.0, self.peak
        for change in reversed(self.all):
            scale *= reading(change) if change.is_open else 1.0
            best = max(best, change.peak * scale)
        return best

    def accept_until(self, at: int) -> list[Resolved]:
        """An operator accepted what had appeared by then and nothing explains: it counts as money that moved for good.

        It is remembered all the same: its row may come later, and must not be taken for more of it.
        """
        found = [self.settle_as_flow(change) for change in self.open if change.at <= at]
        for change in self.all:
            change.accepted = change.accepted or (change.moved and change.at <= at)
        return found

    def accept(self, value: float) -> None:
        """An operator accepted the loss: what was before is no peak any more."""
        for change in self.all:
            change.peak = 0.0
        self.peak = value

    def _divide_after(self, change: Change, factor: float) -> None:
        if factor > 0.0:
            for later in self.all[self.all.index(change) + 1 :]:
                later.peak /= factor
            self.peak /= factor

    def _forget(self, change: Change) -> None:
        """Its time becomes one with the next."""
        place = self.all.index(change)
        del self.all[place]
        if place < len(self.all):
            self.all[place].peak = max(self.all[place].peak, change.peak)
        else:
            self.peak = max(self.peak, change.peak)


def _is_small(change: Change) -> bool:
    return abs(change.amount) <= SMALL * change.equity


def _are_opposite(one: Change, other: Change, within: int) -> bool:
    pending = one.kind == other.kind == "trade" and one.account == other.account
    return pending and (one.amount > ZERO) != (other.amount > ZERO) and abs(one.at - other.at) <= within


def optimistic(change: Change) -> float:
    """The reading of the smallest drawdown: falls were flows, rises were gains; money that moved is a flow."""
    return change.factor if change.kind == "money" else min(1.0, change.factor)


def pessimistic(change: Change) -> float:
    """The reading of the greatest drawdown of what is pending: rises were flows, falls were losses."""
    return change.factor if change.kind == "money" else max(1.0, change.factor)


def suspicious(change: Change) -> float:
    """The reading that goes by the worst of every open change: every fall was a loss, and every rise a flow."""
    return max(1.0, change.factor)
