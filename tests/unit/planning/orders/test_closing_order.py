"""The sequence of a decision's orders, their times by the declared pace, and the variance on the way."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.graph.unwinding import UnwindingRule
from killswitch.model.decision import Intent, Schedule, Unwinding
from killswitch.model.instant import SECOND, to_micros
from killswitch.planning.orders.closing_order import ClosingOrder, schedule_of
from killswitch.planning.orders.unwind import Unwound, unwind
from killswitch.planning.targets.ranking import Ranked, candidates
from killswitch.planning.targets.selection import SelectedTarget
from killswitch.planning.targets.spread import BookRisk
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import START, account, position, rules

D = Decimal
IN_SLICES = UnwindingRule("calm", max_orders_per_minute=12, slices=4)


def closed(rule: UnwindingRule, *, is_risk_first: bool = False, knows_risk: bool = True) -> Unwound:
    """A close of long 100 A, short 90 B that moves with it at 0.9, and long 10 C that moves alone; ranked C, B, A."""
    rows = [
        position("A", "long", contracts="100", mark_price="1", notional="100"),
        position("B", "short", contracts="90", mark_price="1", notional="90"),
        position("C", "long", contracts="10", mark_price="1", notional="10"),
    ]
    known = {("main", symbol): rules(symbol) for symbol in "ABC"}
    book = candidates(ScopeView(to_micros(START), True, (account("1000", rows),), known, None), None)
    risk = BookRisk(
        tuple(each.key for each in book), (100.0, -90.0, 10.0),
        [[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]], (0.0, 0.0, 0.0),
    )  # fmt: skip
    view = ScopeView(to_micros(START), True, (account("1000", rows),), known, None)
    targets = [SelectedTarget(Ranked(each, n, 1.0), D(0)) for n, each in enumerate(reversed(book), start=1)]
    return unwind(view, targets, rule, order=ClosingOrder(is_risk_first, risk if knows_risk else None))


def sequence(found: Unwound) -> str:
    return "".join(intent.symbol for intent in found.intents)


def test_orders_go_by_rank_unless_declared() -> None:
    """The short leg before the long one: what is left after B is 100² of A, of 1,900 + 100 at the start."""
    found = closed(UnwindingRule("plain"))
    assert sequence(found) == "CBA"
    assert found.peak == pytest.approx(10_000 / 2_000)


def test_risk_first_begins_with_the_largest_component() -> None:
    """A has 100 × (100 − 81) = 1,900, B −90 × (90 − 90) = 0, C 100: then B is naked with 8,100."""
    found = closed(UnwindingRule("plain"), is_risk_first=True)
    assert sequence(found) == "ABC"
    assert found.peak == pytest.approx((8_100 + 100) / 2_000)


def test_order_by_risk_goes_by_rank_while_the_risk_is_unknown() -> None:
    found = closed(UnwindingRule("plain"), is_risk_first=True, knows_risk=False)
    assert (sequence(found), found.peak) == ("CBA", None)


def test_slices_of_all_go_in_turn_and_never_raise_the_variance() -> None:
    found = closed(IN_SLICES)
    turns = ["".join(sorted(sequence(found)[n : n + 3])) for n in range(0, 12, 3)]
    assert turns == ["ABC"] * 4
    assert sum(intent.contracts for intent in found.intents if intent.symbol == "B") == 90
    assert found.peak is not None
    assert found.peak < 1


def test_slices_go_in_turn_by_rank_while_the_risk_is_unknown() -> None:
    assert sequence(closed(IN_SLICES, knows_risk=False)) == "CBA" * 4


@given(st.integers(2, 12), st.booleans())
def test_every_order_closes_what_is_there_and_no_more(slices: int, knows_risk: bool) -> None:
    found = closed(replace(IN_SLICES, slices=slices), knows_risk=knows_risk)
    for symbol, held in (("A", D(100)), ("B", D(90)), ("C", D(10))):
        assert sum(intent.contracts for intent in found.intents if intent.symbol == symbol) == held


# When they go


def intent(symbol: str, name: str = "main") -> Intent:
    return Intent(
        account=name, symbol=symbol, position_side="long", side="sell", contracts=D(1), target=D(0), reduce_only=True,
        rank=1, score=None, exact=True,
    )  # fmt: skip


def test_orders_of_an_account_are_spaced_evenly_and_slices_of_a_position_by_the_pause() -> None:
    """12 a minute are 5 s apart; the second slice of A waits 20 s for the first, and B after it 5 s more."""
    pace = Unwinding("calm", max_orders_per_minute=12, pause=20.0)
    found = schedule_of([intent("A"), intent("B"), intent("A"), intent("B"), intent("A", "other")], pace, (), None)
    assert found == Schedule((0.0, 5.0, 20.0, 25.0, 0.0), 25.0)


def test_orders_without_a_pace_have_no_times() -> None:
    groups = (("A", "B"), ("C",))
    assert schedule_of([intent("A"), intent("B")], None, groups, 0.5) == Schedule((), None, D("0.5000"), groups)


def test_pause_of_an_unwinding_is_in_seconds() -> None:
    from killswitch.planning.orders.unwind import declared_unwinding

    declared = declared_unwinding(replace(IN_SLICES, pause=3 * SECOND))
    assert declared is not None
    assert declared.pause == 3.0
