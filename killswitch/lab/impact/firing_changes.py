"""What differs between the firings of two policy sets over one span: earlier, later, no more, new, and how much closes.

The n-th firing of a stage in a scope is compared with the n-th of the other set. Nothing here gives a verdict: a span
is one history, and a proof is about all of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import zip_longest
from typing import Literal, TypeVar

from msgspec import Struct

from killswitch.lab.outcome import BacktestFiring, Run
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Instant

ZERO = Decimal(0)
FiringWord = Literal["earlier", "later", "no more", "new", "closes more", "closes less", "the same"]
"""What became of a firing of the base; `new` is a firing of the head alone."""
StageName = tuple[str, str, str]
"""(policy, scope, stage)."""


class ComparedFiring(Struct, frozen=True):
    """One firing in base and head; None where it did not fire. `closed`: notional at the average price of the fills.

    `was_smaller`: whether by the time of the base's firing the head had closed more of the scope than the base;
    None where that explains nothing.
    """

    policy: str
    scope: str
    stage: str
    level: int
    word: FiringWord
    base_at: Instant | None
    head_at: Instant | None
    base_closed: Decimal | None = None
    head_closed: Decimal | None = None
    was_smaller: bool | None = None

    @property
    def moved(self) -> timedelta | None:
        """How much later the head fires; below zero is earlier."""
        return None if self.base_at is None or self.head_at is None else self.head_at - self.base_at


def compared_firings(base: Run, head: Run) -> tuple[ComparedFiring, ...]:
    """The firings of two backtests of one book through one market, in the order of their times."""
    before, after = ([(_stage_of(each), each) for each in run.firings] for run in (base, head))
    found = (_compared(name, one, other, base, head) for name, one, other in _paired(before, after))
    return tuple(sorted(found, key=_at))


def _stage_of(fired: BacktestFiring | Decision) -> StageName:
    return fired.policy, fired.scope, fired.stage or ""


F = TypeVar("F", BacktestFiring, Decision)


def _paired(
    base: Iterable[tuple[StageName, F]], head: Iterable[tuple[StageName, F]]
) -> Iterator[tuple[StageName, F | None, F | None]]:
    """The n-th firing of each stage in the base with the n-th in the head."""
    by_stage: defaultdict[StageName, tuple[list[F], list[F]]] = defaultdict(lambda: ([], []))
    for side, fired in enumerate((base, head)):
        for name, each in fired:
            by_stage[name][side].append(each)
    for name, (before, after) in sorted(by_stage.items()):
        yield from ((name, one, other) for one, other in zip_longest(before, after))


def _compared(
    name: StageName, one: BacktestFiring | None, other: BacktestFiring | None, base: Run, head: Run
) -> ComparedFiring:
    base_closed = None if one is None else _notional(one)
    head_closed = None if other is None else _notional(other)
    word = _difference_of(None if one is None else one.at, None if other is None else other.at)
    if word == "the same" and base_closed is not None and head_closed is not None and base_closed != head_closed:
        word = "closes more" if head_closed > base_closed else "closes less"
    was_smaller = None
    if one is not None and word in ("no more", "later", "closes less"):
        was_smaller = _has_closed_more(head, base, name[1], one.at)
    fired = other if one is None else one
    return ComparedFiring(
        *name, 0 if fired is None else fired.level, word, None if one is None else one.at,
        None if other is None else other.at, base_closed, head_closed, was_smaller,
    )  # fmt: skip


def _notional(firing: BacktestFiring) -> Decimal:
    return sum((each.notional for each in firing.closed), ZERO)


def _has_closed_more(head: Run, base: Run, scope: str, at: datetime) -> bool:
    """Whether the head has closed more of any position of the scope before that time."""
    ours, theirs = _closed_before(base, scope, at), _closed_before(head, scope, at)
    return any(contracts > ours.get(position, ZERO) for position, contracts in theirs.items())


def _closed_before(run: Run, scope: str, at: datetime) -> dict[tuple[str, str, str], Decimal]:
    """Contracts that firings and liquidations have closed before a time, by position; of all accounts where the scope
    is not one of a single account."""
    account = scope.removeprefix("account/") if scope.startswith("account/") else None
    found: dict[tuple[str, str, str], Decimal] = defaultdict(Decimal)
    for firing in run.firings:
        for each in firing.closed if firing.at < at else ():
            if account in (None, each.account):
                found[each.account, each.symbol, each.side] += each.contracts
    for one in run.liquidations:
        if one.at < at and account in (None, one.account):
            found[one.account, one.symbol, one.side] += one.contracts
    return found


def _at(firing: ComparedFiring) -> tuple[datetime, StageName]:
    at = firing.base_at or firing.head_at
    assert at is not None  # one of them has fired
    return at, (firing.policy, firing.scope, firing.stage)


def compared_decisions(base: Iterable[Decision], head: Iterable[Decision]) -> tuple[ComparedFiring, ...]:
    """The decisions of stages over one recording. Its equity is that of the base, so nothing is stated of amounts."""
    before, after = ([(_stage_of(each), each) for each in side if _is_firing(each)] for side in (base, head))
    found = []
    for name, one, other in _paired(before, after):
        base_at, head_at = (None if each is None else each.as_of for each in (one, other))
        fired = one or other
        level = 0 if fired is None else fired.level
        found.append(ComparedFiring(*name, level, _difference_of(base_at, head_at), base_at, head_at))
    return tuple(sorted(found, key=_at))


def _is_firing(decision: Decision) -> bool:
    return decision.kind is None and decision.stage is not None


def _difference_of(base_at: datetime | None, head_at: datetime | None) -> FiringWord:
    if base_at is None or head_at is None:
        return "new" if base_at is None else "no more"
    if base_at == head_at:
        return "the same"
    return "earlier" if head_at < base_at else "later"
