"""Unexplained changes of equity, and how they are resolved.

A change is a transfer, or profit or loss. While it is open, both interpretations are kept. If it was a transfer, every
unit value from the change on is `factor` times too high (too low for a withdrawal), where factor = (equity before +
change) ÷ equity before: issuing units for it would have divided the values by that. Unit values follow equity, so an
open change counts as profit or loss in them; a change settled as a transfer counts as issued units. A later row can
reverse either. Rises and falls never offset each other, except two answers of one venue that are of different moments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from hashlib import blake2b
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.instant import HOUR
from killswitch.model.words import ChangeCause
from killswitch.pnl_explain.classification import (
    SETTLED_AFTER,
    SMALL,
    TRADES_AFTER,
    is_about_amount,
    is_at_about,
)
from killswitch.valuation.position_measures import ZERO

REMEMBER = 48 * HOUR
"""The maximum delay of a row."""
REMEMBER_SLIPS = HOUR
"""How long a small change that counts as profit or loss is kept."""
NEARLY_ALL = Decimal("0.95")
"""The fraction of the equity that vanishes at least together with contracts."""
MOST = 500
"""The maximum number of changes; beyond that, the oldest count as they are."""


class UnexplainedChange(Struct):
    """An unexplained change of `account`, observed `at`, with the previous snapshot at `since`.

    Microseconds. `before` is the scope's equity and `value` its unit value just before it; `peak` the highest unit
    value since the change before it; `equity` the account's. `kind` is its treatment while it is open: `trade` is
    pending, `money` a transfer. `lost`: it counts as profit or loss by now; `moved`: it is settled as a transfer.
    `hurried`: it is one of many falls in a row, which wait for the shorter lag. `unanswered_since`: when the ledger was
    first known to lack its row, or was given up. `suspected`: a lock was written because of it. `in_transit`: a similar
    amount arrived in another account of the scope. `accepted`: an operator has determined what it is, a transfer or,
    with `lost`, profit or loss; it is kept only to match a late row, which changes nothing. `vanished`: contracts
    vanished with it without a fill, and all the money. `may_be_split`: it may be a split of shares. `emptied`: it left
    the scope without money.
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
    vanished: bool = False
    may_be_split: bool = False
    emptied: bool = False
    rate: Decimal = Decimal(1)
    """The rate of the account's currency, of `amount`, to the scope's currency, of `before`."""

    @property
    def id(self) -> str:
        """The name of the change, the same in every scope of its account and over restarts."""
        return "change-" + blake2b(f"{self.account}\0{self.at}".encode(), digest_size=5).hexdigest()

    @property
    def converted_amount(self) -> Decimal:
        """The amount in the scope's currency."""
        return self.amount * self.rate

    @property
    def factor(self) -> float:
        """The divisor of unit values from the change on if it was a transfer; 0 if everything was withdrawn."""
        if self.emptied:
            return 0.0
        return max(0.0, (self.before + float(self.converted_amount)) / self.before) if self.before > 0.0 else 1.0

    @property
    def is_open(self) -> bool:
        """Whether its cause is still open."""
        return not self.lost and not self.moved


Interpretation = Callable[[UnexplainedChange], float]
"""The factor that makes unit values from before a change comparable with those after it."""


class ResolvedChange(Struct, frozen=True):
    """A resolved change: `amount`, in the scope's currency, at `at` was a transfer; values from there on are divided by
    `factor`.

    A `factor` of 0: everything was withdrawn, at the unit value `value`, of the equity `before`. `undone`: it was
    treated as a transfer and was none, so values are multiplied by `factor`.
    """

    at: int
    amount: Decimal
    factor: float
    value: float
    undone: bool = False
    before: float = 0.0


class UnexplainedChanges:
    """The changes that are open or may still be explained, oldest first, with the peak unit value between them."""

    def __init__(self, changes: Iterable[UnexplainedChange] = (), peak: float = 0.0, peak_at: int = 0) -> None:
        """`peak` is the highest unit value since the newest change, observed at `peak_at` (microseconds)."""
        self.all: list[UnexplainedChange] = list(changes)
        self.peak = peak
        self.peak_at = peak_at

    @property
    def open(self) -> list[UnexplainedChange]:
        """The changes whose cause is open."""
        return [change for change in self.all if change.is_open]

    def suspects(self, now: int) -> list[UnexplainedChange]:
        """The changes that may still be losses: the open ones, and those that emptied the scope a short time ago."""
        return [it for it in self.all if it.is_open or (it.moved and it.emptied and now - it.at < SETTLED_AFTER)]

    @property
    def unexplained(self) -> list[UnexplainedChange]:
        """The changes that no row, price, trade or operator has explained."""
        return [change for change in self.all if not (change.lost or change.accepted)]

    @property
    def sum(self) -> Decimal:
        """The sum of unexplained changes; negative for a fall."""
        return sum((change.converted_amount for change in self.unexplained), ZERO)

    def add(self, change: UnexplainedChange) -> None:
        """Add an unexplained change, and set its `peak`."""
        change.peak = self.peak
        self.all.append(change)
        self.peak = 0.0

    def observe_peak(self, value: float, at: int) -> None:
        """Add a unit value observed `at`."""
        if value >= self.peak:
            self.peak, self.peak_at = value, at

    def divide_peaks_since(self, at: int, factor: float) -> None:
        """Divide the peaks observed since `at`, after units were issued for a transfer that is none of the changes."""
        before = None
        for change in self.all:
            if before is not None and before.at >= at:
                change.peak /= factor
            before = change
        if self.peak_at >= at:
            self.peak /= factor

    def mark_vanished(self, account: str, at: int) -> None:
        """Mark the falls shortly before `at`, when the contracts of an account vanished as its money had."""
        for change in self.all:
            if change.account == account and at - change.at <= TRADES_AFTER and change.amount < ZERO:
                change.vanished = change.vanished or -change.amount >= NEARLY_ALL * change.equity

    def settle_splits(self, account: str) -> None:
        """Count the open changes of an account that may be splits as what its prices made, after a corporate action."""
        for change in self.open:
            if change.account == account and change.may_be_split:
                change.lost = True

    def has_match(self, account: str, row: Decimal, at: int, noise: Decimal) -> bool:
        """Whether a change with about the time and amount of the row is kept, which the row may explain."""
        own = (each for each in self.all if each.account == account)
        return any(is_at_about(at, each.since, each.at) and is_about_amount(row, each.amount, noise) for each in own)

    def explain(
        self, account: str, row: Decimal, at: int, noise: Decimal, *, moved: bool
    ) -> tuple[list[ResolvedChange], Decimal]:
        """Match a late row with the account's changes of the same sign; returns the resolved parts and the rest of the
        row.

        Changes at the time of the row come first, then one of about its amount. `moved`: the row is a transfer;
        otherwise it is profit or loss.
        """
        own = [each for each in self.all if each.account == account and (each.amount > ZERO) == (row > ZERO)]
        timely = [each for each in own if is_at_about(at, each.since, each.at)]
        exact = [each for each in own if each not in timely and is_about_amount(row, each.amount, noise)]
        resolved: list[ResolvedChange] = []
        for change in (*sorted(timely, key=lambda it: not is_about_amount(row, it.amount, noise)), *exact[:1]):
            if row == ZERO:
                break
            is_match = is_about_amount(row, change.amount, noise)
            # What counts as profit or loss stays one, apart from the row; a transfer is the whole change.
            part = (row if change.lost else change.amount) if is_match else min(change.amount, row, key=abs)
            row = ZERO if is_match else row - part
            found = self._explained(change, part, moved=moved)
            if found is not None:
                resolved.append(found)
        return resolved, row

    def _explained(self, change: UnexplainedChange, part: Decimal, *, moved: bool) -> ResolvedChange | None:
        """Subtract `part` from the change; returns the correction of values, or None if they include it already."""
        before, equity, scope_amount = change.factor, change.before, part * change.rate
        change.amount -= part
        if change.emptied:
            factor = self._part_of_emptying(change, scope_amount)
            change.value *= 1.0 if moved or not factor else factor  # what was lost, was lost before the rest left
        else:
            factor = before / change.factor if change.factor > 0.0 else before
        found = None
        if moved and change.moved:  # values include it as issued units already
            found = ResolvedChange(change.at, scope_amount, 1.0, change.value)
        elif moved and not change.accepted:
            self._divide_after(change, factor)
            found = ResolvedChange(change.at, scope_amount, factor, change.value, before=equity)
        elif change.moved and not change.accepted:
            self._divide_after(change, 1.0 / factor if factor > 0.0 else 0.0)
            found = ResolvedChange(change.at, scope_amount, factor, change.value, undone=True, before=equity)
        if change.amount == ZERO:
            self._forget(change)
        return found

    @staticmethod
    def _part_of_emptying(change: UnexplainedChange, part: Decimal) -> float:
        """The factor of a part of a change that emptied the scope: of the equity before it, 0 for the whole."""
        if change.amount == ZERO or change.before <= 0.0:
            return 0.0
        left = max(0.0, change.before + float(part))
        factor = left / change.before
        change.before = left
        return factor

    def match_late_fill(self, account: str, at: int, effect: Decimal) -> list[ResolvedChange]:
        """Subtract the effect of late fills of a trade, which positions showed `at`, from the change observed with it.

        If the trade made more than the change, the difference, of the opposite sign, has another cause and is open.
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
        change.amount, change.kind, change.lost = -beyond, "money", change.lost and change.accepted
        return resolved

    def settle_as_flow(self, change: UnexplainedChange) -> ResolvedChange:
        """Settle an open change as a transfer."""
        change.moved = True
        self._divide_after(change, change.factor)
        return ResolvedChange(change.at, change.converted_amount, change.factor, change.value, before=change.before)

    def reopen(self, change: UnexplainedChange) -> ResolvedChange:
        """Reopen a change that was settled as a transfer."""
        change.moved = False
        factor = change.factor
        self._divide_after(change, 1.0 / factor if factor > 0.0 else 0.0)
        return ResolvedChange(
            change.at, change.converted_amount, factor, change.value, undone=True, before=change.before
        )

    def net(self, change: UnexplainedChange, within: int) -> None:
        """Count an open, pending change, and changes of the opposite sign shortly before it, as profit and loss."""
        for other in self.open:
            if change.amount == ZERO or other is change or not _are_opposite(change, other, within):
                continue
            part = min(abs(change.amount), abs(other.amount))
            for each in (other, change):
                self._count_as_loss(each, part if each.amount > ZERO else -part)

    def _count_as_loss(self, change: UnexplainedChange, part: Decimal) -> None:
        """Count `part` of a change as profit or loss; the rest becomes a separate open change."""
        if part == change.amount:
            change.lost = True
            return
        place = self.all.index(change)
        before = change.before + float(part * change.rate)
        rest = replace(change, amount=change.amount - part, before=before, peak=0.0, lost=False)
        change.amount, change.lost = part, True
        self.all.insert(place + 1, rest)

    def expire(self, now: int) -> None:
        """Drop changes that no row can explain any more, and small slips sooner."""
        for change in [each for each in self.all if each.lost and now - each.at > REMEMBER_SLIPS and _is_small(each)]:
            self._forget(change)
        while self.all and (now - self.all[0].at > REMEMBER or len(self.all) > MOST):
            self._forget(self.all[0])

    def emptying(self, interpretation: Interpretation) -> UnexplainedChange | None:
        """The newest open change that took everything by the interpretation; None without one.

        The unit value is then still that just before it, and nothing after it counts.
        """
        return next((it for it in reversed(self.all) if it.is_open and it.emptied and not interpretation(it)), None)

    def highest(self, interpretation: Interpretation) -> float:
        """The highest unit value ever, by one interpretation of open changes, comparable with the current value."""
        emptying = self.emptying(interpretation)
        scale, best = 1.0, self.peak
        for change in reversed(self.all):
            if change is emptying:
                scale, best = 1.0, change.peak
                continue
            scale *= interpretation(change) if change.is_open else 1.0
            best = max(best, change.peak * scale)
        return best

    def accept_until(self, at: int) -> list[ResolvedChange]:
        """Settle the unexplained changes up to `at` finally as transfers, after an operator accepted them.

        They are kept, so that a later row matches them and does not count again.
        """
        found = [self.settle_as_flow(change) for change in self.open if change.at <= at]
        for change in self.all:
            change.accepted = change.accepted or (change.moved and change.at <= at)
        return found

    def find(self, id_: str) -> UnexplainedChange | None:
        """The change of this id; of one that was netted in part, what is left of it."""
        return next((change for change in reversed(self.all) if change.id == id_), None)

    def restate(self, change: UnexplainedChange, cause: ChangeCause) -> list[ResolvedChange]:
        """Settle a change finally, as an operator knows its cause, whatever it counted as before.

        It is kept, so that a later row matches it and changes nothing.
        """
        change.accepted = True
        if cause == "loss":
            resolved = [self.reopen(change)] if change.moved else []
            change.lost = True
            return resolved
        change.lost = False
        return [] if change.moved else [self.settle_as_flow(change)]

    def newest(self, most: int) -> list[UnexplainedChange]:
        """The newest `most` changes, newest first, without slips that are no more than noise."""
        return [change for change in reversed(self.all) if not (change.lost and _is_small(change))][:most]

    def accept(self, value: float, at: int) -> None:
        """Forget peaks before `at`, after an operator accepted the loss."""
        for change in self.all:
            change.peak = 0.0
        self.peak, self.peak_at = value, at

    def _divide_after(self, change: UnexplainedChange, factor: float) -> None:
        if factor == 0.0 and change.emptied:  # what comes after it buys units at its value, as if nothing were open
            for later in self.all[self.all.index(change) + 1 :]:
                later.before, later.moved, later.peak = 0.0, later.moved or not later.lost, change.value
            self.peak = change.value
        elif factor > 0.0:
            for later in self.all[self.all.index(change) + 1 :]:
                later.peak /= factor
            self.peak /= factor

    def _forget(self, change: UnexplainedChange) -> None:
        """Remove a change, and merge its peak into the next one."""
        place = self.all.index(change)
        del self.all[place]
        if place < len(self.all):
            self.all[place].peak = max(self.all[place].peak, change.peak)
        elif change.peak >= self.peak:
            self.peak, self.peak_at = change.peak, change.since


def _is_small(change: UnexplainedChange) -> bool:
    return abs(change.amount) <= SMALL * change.equity


def _are_opposite(one: UnexplainedChange, other: UnexplainedChange, within: int) -> bool:
    pending = one.kind == other.kind == "trade" and one.account == other.account
    return pending and (one.amount > ZERO) != (other.amount > ZERO) and abs(one.at - other.at) <= within


def optimistic(change: UnexplainedChange) -> float:
    """The interpretation with the smallest drawdown: falls were transfers, rises were gains."""
    return change.factor if change.kind == "money" else min(1.0, change.factor)


def pessimistic(change: UnexplainedChange) -> float:
    """The interpretation of pending changes with the greatest drawdown: rises were transfers, falls were losses."""
    return change.factor if change.kind == "money" else max(1.0, change.factor)


def suspicious(change: UnexplainedChange) -> float:
    """The worst interpretation of every open change: every fall was a loss, and every rise a transfer."""
    return max(1.0, change.factor)
