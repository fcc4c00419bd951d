"""Selection: the losing side, in order of rank, how many positions, and how much of each."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from killswitch.graph.actions.close import Close
from killswitch.graph.lowering import ConditionEvaluator, lower_one
from killswitch.graph.nodes import AttributionRule, Compare, ComparisonOp, Number, SignalRead, SignalRef
from killswitch.model.instant import MINUTE, to_micros
from killswitch.model.snapshot import Position
from killswitch.planning.targets.ranking import candidates
from killswitch.planning.targets.selection import Selection, select
from killswitch.valuation.scope_view import ScopeView
from tests.graphs import FALL_15M, close, graph
from tests.worlds import START, account, position

RULE = AttributionRule(0.65, "worst_ranked", "worst_ranked")
NEAR = Compare("<=", SignalRead(0), Number(0.03))


def lowered(action: Close) -> dict[str, ConditionEvaluator]:
    """The compiled conditions of the action on positions."""
    conditions = {"all_if": action.all_if, "where": action.where}
    return {key: lower_one(condition) for key, condition in conditions.items() if condition is not None}


def targets(
    action: Close, source: str, positions: list[Position], rule: AttributionRule | None = RULE, market: str = "swap"
) -> dict[str, Decimal]:
    """Symbol → contracts to be left, in order of closing."""
    view = ScopeView(to_micros(START), True, (account("100000", positions, market=market),), {}, None)
    delta = {("main", p.symbol, p.side): p.unrealized_pnl or Decimal(0) for p in positions}
    made = graph((FALL_15M,), (), (), position_signals=(SignalRef("position.liquidation_distance"),))
    found = select(made, action, candidates(view, delta), source, rule, lowered(action))  # type: ignore[arg-type]  # literal
    return {target.ranked.candidate.position.symbol: target.contracts for target in found.targets}


def book() -> list[Position]:
    """Longs L1 (worst) to L5, shorts S1 and S2, ten contracts each."""
    longs = [position(f"L{i}", "long", str(-100 * (6 - i)), contracts="10", notional="1000") for i in range(1, 6)]
    shorts = [position(f"S{i}", "short", str(-50 * i), contracts="10", notional="1000") for i in (1, 2)]
    return longs + shorts


def test_the_top_three_of_the_losing_side_are_halved() -> None:
    """Source LONG: the three worst longs, nothing of the shorts."""
    found = targets(close("losing", "0.5", top=3), "LONG", book())
    assert found == {"L1": Decimal(5), "L2": Decimal(5), "L3": Decimal(5)}


def test_all_of_a_position_within_three_percent_of_liquidation_is_closed() -> None:
    """`all_if` overrides the fraction where it is surely true, and only there."""
    near = position("NEAR", "long", "-10", contracts="10", mark_price="100", liquidation_price="97.5", notional="1000")
    far = position("FAR", "long", "-20", contracts="10", mark_price="100", liquidation_price="90", notional="1000")
    blind = position("BLIND", "long", "-30", contracts="10", mark_price="100", notional="1000")
    found = targets(close("losing", "0.5", all_if=NEAR), "LONG", [near, far, blind])
    assert found == {"NEAR": Decimal(0), "FAR": Decimal(5), "BLIND": Decimal(5)}


@pytest.mark.parametrize("source", ["MIXED", "UNKNOWN"])
def test_mixed_and_unknown_select_the_worst_60_percent_but_at_least_one(source: str) -> None:
    """60% of 7 positions is 4; of one position, one."""
    action = close("losing", worst=0.6)
    assert list(targets(action, source, book())) == ["L1", "L2", "L3", "L4"]
    assert list(targets(action, source, book()[:1])) == ["L1"]


def test_a_known_side_is_closed_completely_whatever_worst_declares() -> None:
    """`worst` binds the fallback only."""
    assert list(targets(close("losing", worst=0.6), "SHORT", book())) == ["S2", "S1"]


def test_what_mixed_selects_is_declared() -> None:
    """`none` selects nothing, `both` everything."""
    action = close("losing")
    assert targets(action, "MIXED", book(), AttributionRule(0.65, "none", "both")) == {}
    assert len(targets(action, "UNKNOWN", book(), AttributionRule(0.65, "none", "both"))) == 7


def test_d6_every_position_is_long_or_short_and_none_is_counted_as_short_by_default() -> None:
    """A snapshot with a position without a side, or with another one, is refused as a whole: no side is guessed."""
    import msgspec

    from killswitch.model.snapshot import decode_snapshot

    for side in ("", '"side": "both", ', '"side": "", '):
        line = (
            '{"format": "killswitch.snapshot/v1", "as_of": "2024-01-01T00:00:00Z", "accounts": [{"account": "a",'
            '"venue": "v", "market": "swap", "currency": "USDT", "quality": "ok", "equity": "1",'
            f'"positions": [{{{side}"symbol": "BTC", "contracts": "1"}}]}}]}}'
        )
        with pytest.raises(msgspec.ValidationError):
            decode_snapshot(line.encode())


def test_spot_sells_a_declared_list_or_all_but_stable_coins() -> None:
    """Symbols by name or by base asset; excepted assets never."""
    holdings = [position(s, "long", "-1", contracts="10", notional="10") for s in ("BTC/USDT", "ETH/USDT", "USDC/USDT")]
    listed = close("both", symbols=("ETH",))
    assert list(targets(listed, "UNKNOWN", holdings, market="spot")) == ["ETH/USDT"]
    all_but = close("both", except_assets=("USDC",))
    assert set(targets(all_but, "UNKNOWN", holdings, market="spot")) == {"BTC/USDT", "ETH/USDT"}


D = Decimal
WINDOW = 15 * MINUTE
WORST = AttributionRule(0.65, "worst_ranked", "worst_ranked")


def select_from(
    action: Close, source: str, held: list[Position], rule: AttributionRule | None = WORST, signal: str | None = None,
    delta: dict[str, str] | None = None, **words: Any,
) -> Selection:  # fmt: skip
    """The selection in an account of 100,000; `delta` is the change of P&L by symbol, by default all of it."""
    view = ScopeView(to_micros(START), True, (account("100000", held, **words),), {}, None)
    moved = {("main", p.symbol, p.side): p.unrealized_pnl or D(0) for p in held}
    moved |= {("main", p.symbol, p.side): D((delta or {})[p.symbol]) for p in held if p.symbol in (delta or {})}
    signals = (SignalRef(signal, (WINDOW,) if signal == "position.pnl_delta" else ()),) if signal else ()
    made = graph((FALL_15M,), (), (), position_signals=signals)
    book = candidates(view, moved, changes={WINDOW: moved})
    return select(made, action, book, source, rule, lowered(action))  # type: ignore[arg-type]  # literal


def contracts_left(found: Selection) -> dict[str, Decimal]:
    """Symbol → contracts that stay, in the order of closing."""
    return {target.ranked.candidate.position.symbol: target.contracts for target in found.targets}


def losers() -> list[Position]:
    """Three longs that lost 500, 400, 300 and two shorts that lost 100 and 50; ten contracts each."""
    losses = {"L1": ("long", "-500"), "L2": ("long", "-400"), "L3": ("long", "-300"), "S1": ("short", "-100"),
              "S2": ("short", "-50")}  # fmt: skip
    return [position(name, side, pnl, contracts="10", notional="1000") for name, (side, pnl) in losses.items()]


@pytest.mark.parametrize(
    ("side", "source", "expected"),
    [
        ("both", "LONG", ["L1", "L2", "L3", "S1", "S2"]),
        ("long", "SHORT", ["L1", "L2", "L3"]),
        ("short", "LONG", ["S1", "S2"]),
        ("losing", "LONG", ["L1", "L2", "L3"]),
        ("losing", "SHORT", ["S1", "S2"]),
    ],
)
def test_a_close_selects_its_side_in_order_of_rank(side: str, source: str, expected: list[str]) -> None:
    """An explicit side is selected whichever side lost; `losing` is the side that did."""
    assert list(contracts_left(select_from(close(side), source, losers()))) == expected


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
def test_the_rule_declares_the_selection_without_a_certain_losing_side(
    mixed: str, unknown: str, source: str, count: int
) -> None:
    """The worst two fifths, all of both sides, or nothing: each for mixed and for unknown."""
    rule = AttributionRule(0.65, mixed, unknown)  # type: ignore[arg-type]  # literal
    assert len(contracts_left(select_from(close("losing", worst=0.4), source, losers(), rule))) == count


def test_without_a_rule_the_worst_ranked_are_selected() -> None:
    """A stage that declares no attribution: two fifths of five."""
    for source in ("MIXED", "UNKNOWN"):
        assert list(contracts_left(select_from(close("losing", worst=0.4), source, losers(), None))) == ["L1", "L2"]


@pytest.mark.parametrize(
    ("top", "worst", "count"), [(1, None, 1), (9, None, 5), (None, 0.4, 2), (None, 0.01, 1), (3, 0.4, 2), (1, 0.4, 1)]
)
def test_of_two_limits_the_smaller_binds_and_at_least_one_is_selected(
    top: int | None, worst: float | None, count: int
) -> None:
    """A share of five is rounded down, but never to none."""
    assert len(contracts_left(select_from(close("losing", top=top, worst=worst), "MIXED", losers()))) == count


def test_a_share_of_the_positions_is_counted_exactly() -> None:
    """Three fifths of five are three, whatever floats make of 0.6 × 5; 0.7 of ten are seven."""
    many = [position(f"P{i}", "long", str(-100 + i), contracts="1", notional="100") for i in range(10)]
    assert len(contracts_left(select_from(close("losing", worst=0.6), "MIXED", losers()))) == 3
    assert len(contracts_left(select_from(close("losing", worst=0.7), "MIXED", many))) == 7


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"symbols": ("BTC/USDT:USDT",)}, ["BTC/USDT:USDT"]),
        ({"symbols": ("BTC",)}, ["BTC/USDT:USDT", "BTC/USDC:USDC"]),
        ({"symbols": ()}, []),
        ({"except_assets": ("BTC",)}, ["ETH/USDT:USDT"]),
        ({"symbols": ("BTC",), "except_assets": ("BTC",)}, []),
        ({}, ["BTC/USDT:USDT", "BTC/USDC:USDC", "ETH/USDT:USDT"]),
    ],
)
def test_a_close_names_symbols_or_assets_and_leaves_assets_out(words: dict[str, Any], expected: list[str]) -> None:
    """An excepted asset stays even if it is named."""
    held = [
        position("BTC/USDT:USDT", "long", "-500", contracts="1", notional="1000"),
        position("BTC/USDC:USDC", "long", "-400", contracts="1", notional="1000"),
        position("ETH/USDT:USDT", "long", "-300", contracts="1", notional="1000"),
    ]
    assert list(contracts_left(select_from(close("both", **words), "LONG", held))) == expected


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
def test_all_if_is_evaluated_on_each_position(signal: str, op: ComparisonOp, level: float, whole: list[str]) -> None:
    """Half of each is closed, and all of those for which the condition is surely true."""
    rule = Compare(op, SignalRead(0), Number(level))
    found = contracts_left(select_from(close("both", "0.5", all_if=rule), "LONG", losers(), signal=signal))
    assert [symbol for symbol, contracts in found.items() if contracts == 0] == whole
    assert set(found.values()) <= {D(0), D(5)}


def test_a_gain_is_no_loss() -> None:
    """The loss of a position that has gained is 0; one whose P&L is unknown has none that could be compared."""
    held = [
        position("UP", "long", "300", contracts="10", notional="1000"),
        position("BLIND", "long", None, contracts="10", notional="1000"),
    ]
    below = Compare("<=", SignalRead(0), Number(0))
    above = Compare(">=", SignalRead(0), Number(0.5))
    assert contracts_left(select_from(close("both", "0.5", all_if=below), "LONG", held, signal="position.loss")) == {
        "UP": D(0), "BLIND": D(5)
    }  # fmt: skip
    found = contracts_left(select_from(close("both", "0.5", all_if=above), "LONG", held, signal="position.loss"))
    assert found == {"UP": D(5), "BLIND": D(5)}


@pytest.mark.parametrize(("level", "whole"), [(0.25, ["NEAR"]), (0.05, ["NEAR", "FAR"]), (0.6, [])])
def test_the_loss_on_margin_is_that_of_the_position(level: float, whole: list[str]) -> None:
    """Half of 100 lost, and a tenth."""
    held = [
        position("NEAR", "long", "-50", contracts="10", notional="1000", margin="100"),
        position("FAR", "long", "-10", contracts="10", notional="1000", margin="100"),
    ]
    rule = Compare(">=", SignalRead(0), Number(level))
    found = contracts_left(select_from(close("both", "0.5", all_if=rule), "LONG", held, signal="position.margin_loss"))
    assert sorted(symbol for symbol, contracts in found.items() if contracts == 0) == sorted(whole)


def test_the_score_of_the_worst_is_the_greatest() -> None:
    """A score that only the worst ranked has closes it completely, and no score is above one."""
    for level, whole in ((1.5, []), (-1.0, ["L1", "L2", "L3", "S1", "S2"])):
        rule = Compare(">=", SignalRead(0), Number(level))
        found = contracts_left(
            select_from(close("both", "0.5", all_if=rule), "LONG", losers(), signal="position.score")
        )
        assert [symbol for symbol, contracts in found.items() if contracts == 0] == whole


def test_the_part_of_a_cut_by_rank_falls_on_the_worst_first() -> None:
    """A fifth of five equal positions, worst first: the worst is closed, the others are neither touched nor listed."""
    found = select_from(close("both", "0.2", spread="by_rank"), "LONG", losers())
    assert contracts_left(found) == {"L1": D(0)}
    assert contracts_left(select_from(close("both", "0.2"), "LONG", losers())) == dict.fromkeys(
        ("L1", "L2", "L3", "S1", "S2"), D(8)
    )


def test_an_empty_book_selects_nothing() -> None:
    """No target and no remark."""
    assert select_from(close("both"), "LONG", []) == Selection([], (), is_held_back=False)


@pytest.mark.parametrize(("unknown", "expected"), [("close", ["NEAR", "BLIND"]), ("keep", ["NEAR"])])
def test_where_selects_the_positions_for_which_it_is_true_and_the_unknown_ones_as_declared(
    unknown: str, expected: list[str]
) -> None:
    """2.5% from liquidation, 10%, and a position without a liquidation price, which the remark names."""
    held = [
        position("NEAR", "long", "-30", contracts="10", mark_price="100", liquidation_price="97.5", notional="1000"),
        position("BLIND", "long", "-20", contracts="10", mark_price="100", notional="1000"),
        position("FAR", "long", "-10", contracts="10", mark_price="100", liquidation_price="90", notional="1000"),
    ]
    action = close("both", "1", where=NEAR, where_unknown=unknown)
    found = select_from(action, "LONG", held, signal="position.liquidation_distance")
    assert list(contracts_left(found)) == expected
    how = {"close": "closed nevertheless", "keep": "not closed"}[unknown]
    assert found.remarks == (f"where is unknown for BLIND long: {how} (where_unknown: {unknown})",)


def test_the_top_positions_are_counted_among_those_that_where_selects() -> None:
    """Of seven positions the worst three long ones lose 300 or more; the top one of those that lose less is L4."""
    small = Compare("<=", SignalRead(0), Number(250))
    found = select_from(
        close("long", "1", top=1, where=small, where_unknown="keep"), "LONG", book(), signal="position.loss"
    )
    assert list(contracts_left(found)) == ["L4"]


def test_where_that_selects_none_of_the_positions_is_marked_and_an_empty_side_is_not() -> None:
    """Nothing is held back where there is nothing to select."""
    never = Compare(">=", SignalRead(0), Number(10_000))
    longs = [each for each in book() if each.side == "long"]
    for side, is_held_back in (("long", True), ("short", False)):
        action = close(side, "1", where=never, where_unknown="keep")
        found = select_from(action, "LONG", longs, signal="position.loss")
        assert (found.targets, found.is_held_back) == ([], is_held_back)
