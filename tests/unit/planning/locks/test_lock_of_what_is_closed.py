"""`lock_trading: {positions: closed}`: a lock of each symbol and side that the stage closes, and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision
from killswitch.model.snapshot import LockPart, Position, Snapshot, WrittenLock
from killswitch.planning.actions.lock_trading import selected_parts
from killswitch.planning.interpreter import Interpreter
from tests.backtests import written
from tests.worlds import account, after, fill, position, rules, snapshot

END = after(hours=7)


def policies(lock: str = "positions: closed", close: str = "side: both, top: 2, fraction: 100%") -> PolicySet:
    return written(f"""
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: bleed}}
spec:
  mode: enforce
  scope: {{each: account, match: {{}}}}
  max_gap: 2h
  triggers: {{fall: {{signal: equity.drawdown, window: 1h, at_least: 5%, on_unknown: hold}}}}
  stages:
    - name: cut
      level: 1
      any: [fall]
      cooldown: 6h
      reset: manual
      actions: [{{lock_trading: {{mode: reduce_only, {lock}, for: 6h}}}}, {{close: {{{close}}}}}]
      on_breach: close
      breach: {{ceiling: 50%, cost_per_hour: 5%}}
""")


def book(at: datetime, *held: Position, equity: str = "100000", **more: Any) -> Snapshot:
    known = [rules(symbol) for symbol in ("A", "B", "C")]
    return snapshot(at, account(equity, held, observed_at=at, instruments=known, position_mode="one_way", **more))


def leg(symbol: str, side: str, profit: str, contracts: str = "10") -> Position:
    return position(symbol, side, profit, contracts=contracts, notional="10000", mark_price="1000")


def fired(found: PolicySet) -> tuple[Interpreter, Decision]:
    """The decision when A, a long, has lost 4,000, B, a short, 3,000, and C nothing, after an hour."""
    interpreter = Interpreter(found)
    interpreter.tick(book(after(), leg("A", "long", "0"), leg("B", "short", "0"), leg("C", "long", "0")))
    lost = (leg("A", "long", "-4000"), leg("B", "short", "-3000"), leg("C", "long", "0"))
    (decision,) = interpreter.tick(book(after(hours=1), *lost, equity="93000")).decisions
    return interpreter, decision


@pytest.mark.parametrize(
    ("lock", "close", "only"),
    [
        ("positions: closed", "side: both, top: 2, fraction: 100%", {("long", ("A",)), ("short", ("B",))}),
        ("positions: closed", "side: long, fraction: 100%", {("long", ("A", "C"))}),
        ("positions: closed, side: short", "side: both, fraction: 100%", {("short", ("B",))}),
        ("side: long", "side: both, fraction: 100%", {("long", None)}),
    ],
    ids=["two sides", "two symbols", "narrowed", "not of what is closed"],
)
def test_the_lock_reaches_each_symbol_on_the_side_that_is_closed(
    lock: str, close: str, only: set[tuple[str, tuple[str, ...] | None]]
) -> None:
    """In parts with the end of the lock; C was not among the two worst."""
    _, decision = fired(policies(lock, close))
    assert decision.lock is not None
    assert {(part.side, part.symbols) for part in decision.lock.only} == only
    assert {part.until for part in decision.lock.parts} == {END}


def test_only_what_others_open_of_a_closed_symbol_and_side_is_closed_again() -> None:
    """Under the lock others open A long and B short again, and enlarge C; an hour later they have A short and B long.

    The first two are taken back, and the rest is left alone."""
    interpreter, decision = fired(policies())
    assert decision.lock is not None
    lock = WrittenLock(
        decision.id, "bleed", "account/main", decision.as_of, ("main",), stage="cut", only=decision.lock.only
    )

    def look(minute: int, *held: Position, traded: Sequence[tuple[str, str]] = ()) -> list[tuple[str, str, str]]:
        at = after(hours=1, minutes=minute)
        fills = tuple(fill(f"{minute}{symbol}", at, symbol, side, "5", "1000") for symbol, side in traded)
        seen = replace(book(at, *held, equity="93000", fills=fills), locks=(lock,))
        made = interpreter.tick(seen).decisions
        return sorted((i.symbol, i.position_side, str(i.contracts)) for each in made for i in each.intents)

    assert look(1, leg("C", "long", "0")) == []
    opened = leg("A", "long", "0", "5"), leg("B", "short", "0", "5"), leg("C", "long", "0", "15")
    found = look(2, *opened, traded=[("A", "buy"), ("B", "sell"), ("C", "buy")])
    assert found == [("A", "long", "5"), ("B", "short", "5")]
    others = leg("A", "short", "0", "5"), leg("B", "long", "0", "5"), leg("C", "long", "0", "20")
    assert look(60, *others, traded=[("A", "sell"), ("A", "sell"), ("B", "buy"), ("B", "buy"), ("C", "buy")]) == []


def test_before_it_is_known_what_is_closed_the_whole_scope_is_locked() -> None:
    """A close whose account cannot be read selects nothing: the lock that may be too wide is the stricter one."""
    interpreter = Interpreter(policies(close="side: both, where: position.bleed_rate > 1000000.0, where_unknown: keep, "
                                             "fraction: 100%"))  # fmt: skip
    interpreter.tick(book(after(), leg("A", "long", "0")))
    (decision,) = interpreter.tick(book(after(hours=1), leg("A", "long", "-7000"), equity="93000")).decisions
    assert decision.intents == ()
    assert decision.lock is not None and decision.lock.only == ()


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from(["long", "short"])), unique=True))
def test_the_parts_reach_what_is_closed_and_nothing_else(closed: list[tuple[str, str]]) -> None:
    """For every symbol and side; everything where nothing is closed."""
    parts = selected_parts(LockPart("reduce_only", END), closed)  # type: ignore[arg-type]  # literals
    for symbol in "ABC":
        for side in ("long", "short"):
            reached = any(part.reaches(side, symbol) for part in parts)
            assert reached == (not closed or (symbol, side) in closed)
