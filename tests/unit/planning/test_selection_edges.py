"""Which positions a close takes: sides, fallbacks, limits, names, and every signal of a position."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from killswitch.graph.lowering import lower_one
from killswitch.graph.nodes import AttributionRule, Close, Compare, ComparisonOp, Number, SignalRead, SignalRef
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import Position
from killswitch.planning.ranking import candidates
from killswitch.planning.selection import Selection, select
from killswitch.signals.view import ScopeView
from tests.graphs import FALL_15M, close, graph
from tests.worlds import START, account, position

D = Decimal
WORST = AttributionRule(0.65, "worst_ranked", "worst_ranked")


def chosen(
    action: Close, source: str, held: list[Position], rule: AttributionRule | None = WORST, signal: str | None = None,
    delta: dict[str, str] | None = None, **words: Any,
) -> Selection:  # fmt: skip
    """What is selected of an account of 100,000; `delta` is the change of P&L by symbol, by default all of it."""
    view = ScopeView(to_micros(START), True, (account("100000", held, **words),), {}, None)
    moved = {("main", p.symbol, p.side): p.unrealized_pnl or D(0) for p in held}
    moved |= {("main", p.symbol, p.side): D((delta or {})[p.symbol]) for p in held if p.symbol in (delta or {})}
    seen = (SignalRef(signal),) if signal else ()
    made = graph((FALL_15M,), (), (), position_signals=seen)
    all_if = lower_one(action.all_if) if action.all_if is not None else None
    return select(made, action, candidates(view, moved), source, rule, all_if)  # type: ignore[arg-type]  # literal


def left(found: Selection) -> dict[str, Decimal]:
    """Symbol → contracts that stay, in the order of closing."""
    return {target.ranked.candidate.position.symbol: target.contracts for target in found.targets}


def book() -> list[Position]:
    """Three longs that lost 500, 400, 300 and two shorts that lost 100 and 50; ten contracts each."""
    losses = {"L1": ("long", "-500"), "L2": ("long", "-400"), "L3": ("long", "-300"), "S1": ("short", "-100"),
              "S2": ("short", "-50")}  # fmt: skip
    return [position(name, side, pnl, contracts="10", notional="1000") for name, (side, pnl) in losses.items()]


@pytest.mark.parametrize(
    ("side", "source", "taken"),
    [
        ("both", "LONG", ["L1", "L2", "L3", "S1", "S2"]),
        ("long", "SHORT", ["L1", "L2", "L3"]),
        ("short", "LONG", ["S1", "S2"]),
        ("losing", "LONG", ["L1", "L2", "L3"]),
        ("losing", "SHORT", ["S1", "S2"]),
    ],
)
def test_a_close_takes_its_side_in_order_of_rank(side: str, source: str, taken: list[str]) -> None:
    """A side that is named is taken whatever lost; the losing one is the one that did."""
    assert list(left(chosen(close(side), source, book()))) == taken


@pytest.mark.parametrize(
    ("mixed", "unknown", "source", "count"),
    [
        ("worst_ranked", "none", "MIXED", 2),
        ("worst_ranked", "none", "UNKNOWN", 0),
        ("none", "worst_ranked", "MIXED", 0),
        ("none", "worst_ranked", "UNKNOWN", 2),
        ("both", "none", "MIXED", 5),
        ("none", "both", "UNKNOWN", 5),
    ],
)
def test_what_is_taken_where_no_side_lost_for_sure_is_declared(
    mixed: str, unknown: str, source: str, count: int
) -> None:
    """The worst two fifths, all of both sides, or nothing: each for mixed and for unknown."""
    rule = AttributionRule(0.65, mixed, unknown)  # type: ignore[arg-type]  # literal
    assert len(left(chosen(close("losing", worst=0.4), source, book(), rule))) == count


def test_without_a_rule_the_worst_ranked_are_taken() -> None:
    """A stage that declares no attribution: two fifths of five."""
    for source in ("MIXED", "UNKNOWN"):
        assert list(left(chosen(close("losing", worst=0.4), source, book(), None))) == ["L1", "L2"]


@pytest.mark.parametrize(
    ("top", "worst", "count"), [(1, None, 1), (9, None, 5), (None, 0.4, 2), (None, 0.01, 1), (3, 0.4, 2), (1, 0.4, 1)]
)
def test_of_two_limits_the_smaller_binds_and_at_least_one_is_taken(
    top: int | None, worst: float | None, count: int
) -> None:
    """A share of five is rounded down, but never to none."""
    assert len(left(chosen(close("losing", top=top, worst=worst), "MIXED", book()))) == count


def test_a_share_counts_exactly() -> None:
    """Three fifths of five are three, whatever floats make of 0.6 × 5; 0.7 of ten are seven."""
    many = [position(f"P{i}", "long", str(-100 + i), contracts="1", notional="100") for i in range(10)]
    assert len(left(chosen(close("losing", worst=0.6), "MIXED", book()))) == 3
    assert len(left(chosen(close("losing", worst=0.7), "MIXED", many))) == 7


@pytest.mark.parametrize(
    ("words", "taken"),
    [
        ({"symbols": ("BTC/USDT:USDT",)}, ["BTC/USDT:USDT"]),
        ({"symbols": ("BTC",)}, ["BTC/USDT:USDT", "BTC/USDC:USDC"]),
        ({"symbols": ()}, []),
        ({"except_assets": ("BTC",)}, ["ETH/USDT:USDT"]),
        ({"symbols": ("BTC",), "except_assets": ("BTC",)}, []),
        ({}, ["BTC/USDT:USDT", "BTC/USDC:USDC", "ETH/USDT:USDT"]),
    ],
)
def test_a_close_names_symbols_or_assets_and_leaves_assets_out(words: dict[str, Any], taken: list[str]) -> None:
    """What is left out stays though it is named."""
    held = [
        position("BTC/USDT:USDT", "long", "-500", contracts="1", notional="1000"),
        position("BTC/USDC:USDC", "long", "-400", contracts="1", notional="1000"),
        position("ETH/USDT:USDT", "long", "-300", contracts="1", notional="1000"),
    ]
    assert list(left(chosen(close("both", **words), "LONG", held))) == taken


@pytest.mark.parametrize(
    ("signal", "op", "level", "whole"),
    [
        ("position.loss", ">=", 450, ["L1"]),
        ("position.loss", "<=", 60, ["S2"]),
        ("position.pnl_delta", "<=", -350, ["L1", "L2"]),
        ("position.notional_share", ">=", 0.2, ["L1", "L2", "L3", "S1", "S2"]),
        ("position.notional_share", ">", 0.2, []),
    ],
)
def test_what_is_closed_wholly_is_told_by_the_position_itself(
    signal: str, op: ComparisonOp, level: float, whole: list[str]
) -> None:
    """Half of each is closed, and all of those of which the condition is surely true."""
    rule = Compare(op, SignalRead(0), Number(level))
    found = left(chosen(close("both", "0.5", all_if=rule), "LONG", book(), signal=signal))
    assert [symbol for symbol, contracts in found.items() if contracts == 0] == whole
    assert set(found.values()) <= {D(0), D(5)}


def test_a_gain_is_no_loss() -> None:
    """Of a position that has gained the loss is 0, and one whose P&L is not told has none that could be compared."""
    held = [
        position("UP", "long", "300", contracts="10", notional="1000"),
        position("BLIND", "long", None, contracts="10", notional="1000"),
    ]
    below = Compare("<=", SignalRead(0), Number(0))
    above = Compare(">=", SignalRead(0), Number(0.5))
    assert left(chosen(close("both", "0.5", all_if=below), "LONG", held, signal="position.loss")) == {
        "UP": D(0), "BLIND": D(5)
    }  # fmt: skip
    found = left(chosen(close("both", "0.5", all_if=above), "LONG", held, signal="position.loss"))
    assert found == {"UP": D(5), "BLIND": D(5)}


@pytest.mark.parametrize(("level", "whole"), [(0.25, ["NEAR"]), (0.05, ["NEAR", "FAR"]), (0.6, [])])
def test_the_loss_on_margin_is_that_of_the_position(level: float, whole: list[str]) -> None:
    """Half of 100 lost, and a tenth."""
    held = [
        position("NEAR", "long", "-50", contracts="10", notional="1000", margin="100"),
        position("FAR", "long", "-10", contracts="10", notional="1000", margin="100"),
    ]
    rule = Compare(">=", SignalRead(0), Number(level))
    found = left(chosen(close("both", "0.5", all_if=rule), "LONG", held, signal="position.margin_loss"))
    assert sorted(symbol for symbol, contracts in found.items() if contracts == 0) == sorted(whole)


def test_the_score_of_the_worst_is_the_greatest() -> None:
    """A score that only the worst ranked has closes it wholly, and no score is above one."""
    for level, whole in ((1.5, []), (-1.0, ["L1", "L2", "L3", "S1", "S2"])):
        rule = Compare(">=", SignalRead(0), Number(level))
        found = left(chosen(close("both", "0.5", all_if=rule), "LONG", book(), signal="position.score"))
        assert [symbol for symbol, contracts in found.items() if contracts == 0] == whole


def test_the_part_of_a_cut_by_rank_falls_on_the_worst_first() -> None:
    """A fifth of five equal positions, worst first: the worst goes, the others are not touched and not told."""
    found = chosen(close("both", "0.2", spread="by_rank"), "LONG", book())
    assert left(found) == {"L1": D(0)}
    assert left(chosen(close("both", "0.2"), "LONG", book())) == dict.fromkeys(("L1", "L2", "L3", "S1", "S2"), D(8))


def test_nothing_of_an_empty_book_is_nothing() -> None:
    """No target, and nothing to remark."""
    assert chosen(close("both"), "LONG", []) == Selection([], ())
