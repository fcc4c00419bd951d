"""Selection: the side that lost, by rank, how many, how much of each."""

from __future__ import annotations

from decimal import Decimal

import pytest

from killswitch.graph.lowering import lower_one
from killswitch.graph.nodes import AttributionRule, Close, Compare, Number, SignalRead, SignalRef
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import Position
from killswitch.planning.ranking import candidates
from killswitch.planning.selection import select
from killswitch.signals.view import ScopeView
from tests.graphs import FALL_15M, close, graph
from tests.worlds import START, account, position

RULE = AttributionRule(0.65, "worst_ranked", "worst_ranked")
NEAR = Compare("<=", SignalRead(0), Number(0.03))


def targets(
    action: Close, source: str, positions: list[Position], rule: AttributionRule | None = RULE, market: str = "swap"
) -> dict[str, Decimal]:
    """Symbol → what should be left, in order of closing."""
    view = ScopeView(to_micros(START), True, (account("100000", positions, market=market),), {}, None)
    delta = {("main", p.symbol, p.side): p.unrealized_pnl or Decimal(0) for p in positions}
    made = graph((FALL_15M,), (), (), position_signals=(SignalRef("position.liquidation_distance"),))
    all_if = lower_one(action.all_if) if action.all_if is not None else None
    found = select(made, action, candidates(view, delta), source, rule, all_if)  # type: ignore[arg-type]  # literal
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
def test_mixed_and_unknown_take_the_worst_60_percent_but_at_least_one(source: str) -> None:
    """60% of 7 positions is 4; of one position, one."""
    action = close("losing", worst=0.6)
    assert list(targets(action, source, book())) == ["L1", "L2", "L3", "L4"]
    assert list(targets(action, source, book()[:1])) == ["L1"]


def test_a_known_side_is_closed_whole_whatever_worst_says() -> None:
    """`worst` binds the fallback only."""
    assert list(targets(close("losing", worst=0.6), "SHORT", book())) == ["S2", "S1"]


def test_what_mixed_selects_is_declared() -> None:
    """`none` selects nothing, `both` everything."""
    action = close("losing")
    assert targets(action, "MIXED", book(), AttributionRule(0.65, "none", "both")) == {}
    assert len(targets(action, "UNKNOWN", book(), AttributionRule(0.65, "none", "both"))) == 7


def test_d6_every_position_is_long_or_short_and_none_is_counted_as_short_by_default() -> None:
    """A snapshot whose position says no side, or another, is refused as a whole: nothing is guessed."""
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
