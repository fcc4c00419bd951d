"""The merge of locks: it does not depend on the order, is never weaker than a part, and locks nothing else.

What a lock locks is computed here place by place, from the locks as they were ordered.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import product
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from killswitch.gate.changes import FAR_FUTURE, LockRecord, Stamp
from killswitch.gate.lock_merge import in_force, joined, tightens, union_of, without_ended_parts
from killswitch.gate.lock_reader import LockVerdict
from killswitch.model.effects import Lock, LockOrder, merge_effects
from killswitch.model.lock_parts import merged_parts
from killswitch.model.snapshot import LockPart, Side
from killswitch.model.words import LockMode

NOW = datetime(2021, 5, 19, 12, 0, tzinfo=UTC)
STAMP = Stamp(NOW, 1, NOW.timestamp() + 15)
SYMBOLS = ("BTC_USDT", "ETH_USDT", "XRP_USDT")
PLACES: list[tuple[Side, str]] = list(product(get_args(Side), SYMBOLS))
STRICTNESS: dict[LockMode | None, int] = {None: 0, "reduce_only": 1, "all": 2}

modes: st.SearchStrategy[LockMode] = st.sampled_from(get_args(LockMode))
symbol_sets = st.none() | st.sets(st.sampled_from(SYMBOLS), min_size=1).map(tuple)
parts = st.builds(
    LockPart,
    modes,
    st.none() | st.integers(1, 60).map(lambda minutes: NOW + timedelta(minutes=minutes)),
    st.none() | st.sampled_from(get_args(Side)),
    symbol_sets,
)


def strictness(locks: Iterable[LockPart], side: Side, symbol: str, at: datetime) -> int:
    """How strictly the locks, each taken by itself, lock the place at an instant: 0 free, 1 reduce only, 2 all."""
    return max(
        (
            STRICTNESS[lock.mode]
            for lock in locks
            if (lock.until is None or at < lock.until)
            and lock.side in (None, side)
            and (lock.symbols is None or symbol in lock.symbols)
        ),
        default=0,
    )


def record(*locks: LockPart, scope: str = "account/main") -> LockRecord:
    """A lock file with these parts."""
    order = LockOrder.of(scope, locks)
    until = (order.until or FAR_FUTURE).timestamp()
    return STAMP.lock(scope, "fell", {"decision": "d"}, until=until, mode=order.mode, only=order.only)


def read(lock: LockRecord, side: Side, symbol: str, at: datetime) -> int:
    """How strictly a reader of the further field sees the place, after the runner's turn at this instant."""
    if not in_force(lock, at):
        return 0
    left = without_ended_parts(lock, at)
    return STRICTNESS[LockVerdict(True, left.mode, "", left.only).mode_at(side, symbol)]


@given(st.lists(parts, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_merge_does_not_depend_on_the_order(locks: list[LockPart], chance: random.Random) -> None:
    """Any order and any grouping of the same locks gives the same order and the same file."""
    shuffled = chance.sample(locks, len(locks))
    assert LockOrder.of("account/main", locks) == LockOrder.of("account/main", shuffled)
    assert reduce(joined, map(record, locks)) == reduce(joined, map(record, shuffled))
    cut = chance.randrange(len(locks) + 1)
    grouped = [record(*group) for group in (shuffled[:cut], shuffled[cut:]) if group]
    assert reduce(joined, grouped) == reduce(joined, map(record, locks))
    effects = [Lock(LockOrder.of("account/main", [each])) for each in shuffled]
    assert merge_effects(effects) == (Lock(LockOrder.of("account/main", locks)),)


@given(st.lists(parts, min_size=1, max_size=6), st.integers(0, 60))
def test_the_merge_is_never_weaker_than_a_part(locks: list[LockPart], minutes: int) -> None:
    """Whatever one of the locks locks at an instant, the file of all of them locks, as strictly."""
    at = NOW + timedelta(minutes=minutes)
    merged = reduce(joined, map(record, locks))
    for side, symbol in PLACES:
        assert read(merged, side, symbol, at) >= strictness(locks, side, symbol, at)


@given(st.lists(parts, min_size=1, max_size=6))
def test_the_merge_locks_nothing_that_no_part_locks(locks: list[LockPart]) -> None:
    """A place that none of the locks reaches stays open for readers of the further field."""
    merged = reduce(joined, map(record, locks))
    for side, symbol in PLACES:
        if not strictness(locks, side, symbol, NOW):
            assert read(merged, side, symbol, NOW) == 0


@given(st.lists(parts, min_size=1, max_size=6))
def test_readers_of_today_see_the_strictest_and_the_latest(locks: list[LockPart]) -> None:
    """`mode` and `expires_ts` of the file are the strictest mode and the latest end of all parts."""
    merged = reduce(joined, map(record, locks))
    assert merged.locked
    assert merged.mode == ("all" if any(lock.mode == "all" for lock in locks) else "reduce_only")
    ends = [FAR_FUTURE if lock.until is None else lock.until for lock in locks]
    assert merged.expires_ts == max(ends).timestamp()


@given(st.lists(parts, min_size=1, max_size=4), st.lists(parts, min_size=1, max_size=4))
def test_a_lock_is_only_replaced_without_the_guard_by_one_that_opens_nothing(
    before: list[LockPart], after: list[LockPart]
) -> None:
    """`tightens` is false wherever the new file would lock a place less, or for a shorter time.

    The files are compared, which may lock more than their parts: those of one side and symbols are one in a file.
    """
    found, requested = record(*before), record(*after)
    if not tightens(found, requested, NOW):
        return
    for side, symbol in PLACES:
        for minutes in (0, 15, 30, 45, 59):
            at = NOW + timedelta(minutes=minutes)
            assert read(requested, side, symbol, at) >= read(found, side, symbol, at)


@given(st.lists(parts, min_size=1, max_size=6))
def test_the_union_is_the_sum_of_the_scopes(locks: list[LockPart]) -> None:
    """Of scopes with a lock each, the union locks what any of them locks; a symbol's scope is that symbol alone."""
    scopes = ["account/a", "account/b", "symbol/BTC_USDT"]
    held = [(scopes[number % 3], lock) for number, lock in enumerate(locks)]
    union = union_of([record(lock, scope=scope) for scope, lock in held], STAMP)
    assert union.locked
    for side, symbol in PLACES:
        seen = [lock for scope, lock in held if scope != "symbol/BTC_USDT" or symbol == "BTC_USDT"]
        assert read(union, side, symbol, NOW) >= strictness(seen, side, symbol, NOW)


def test_locks_of_the_same_part_merge_to_the_strictest_and_latest() -> None:
    """As two locks of one scope always did."""
    early, late = NOW + timedelta(minutes=1), NOW + timedelta(minutes=2)
    assert merged_parts([LockPart("all", early, "long"), LockPart("reduce_only", late, "long")]) == (
        LockPart("all", late, "long"),
    )
