"""C9, C19: spot holdings, their dust, and those that are sold over another coin."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.model.decision import Decision, Intent
from tests.faults.exchange import Key, Market
from tests.faults.mishaps import Mishap, Rule
from tests.faults.scene import Scene, long

X, COIN = long("X/BTC", "BTC/USDT")
MARKETS = (Market("X/BTC", price=Decimal("0.02")), Market("BTC/USDT", price=Decimal(30_000), step=Decimal("0.0001")))
PROCEEDS = Decimal("0.1999")
"""10 X at 0.02 BTC, less the fee of 0.05%."""


def hopping(held: Decimal) -> Callable[[Decision], Decision]:
    """The sale of X, and then of the BTC that it brings; `held` BTC were there before."""

    def with_hop(decision: Decision) -> Decision:
        hop = Intent(
            account="main", symbol="BTC/USDT", position_side="long", side="sell", contracts=Decimal("0.2"), target=held,
            reduce_only=False, rank=2, exact=False, purpose="hop", after=0,
        )  # fmt: skip
        return replace(decision, intents=(*decision.intents, hop))

    return with_hop


def scene_of(held: str, *rules: Rule) -> Scene:
    book: dict[Key, str | int] = {X: 10, COIN: held}
    return Scene(book, *rules, mode="spot", markets=MARKETS)


@pytest.mark.parametrize("held", ["0", "1"])
def test_c19_the_second_hop_sells_the_proceeds_of_the_first_and_nothing_held_before(held: str) -> None:
    """10 X bring 0.1999 BTC after the fee: so much is sold, in whole steps, and the BTC held before stay."""
    scene = scene_of(held)
    scene.decide({X: 0}, change=hopping(Decimal(held)))
    scene.play()
    assert scene.held(X) == [0]
    assert scene.held(COIN)[0] >= Decimal(held), "what was there before was sold"
    assert scene.held(COIN)[0] < Decimal(held) + Decimal("0.0002")


@pytest.mark.parametrize("mishap", ["done", "done_silent", "lost", "late", "twice", "garbled"])
@pytest.mark.parametrize("symbol", ["X/BTC", "BTC/USDT"])
def test_c19_a_hop_whose_answer_is_lost_is_not_sold_twice(symbol: str, mishap: Mishap) -> None:
    """Whichever of the two orders it is: the BTC held before stay."""
    scene = scene_of("1", Rule("submit", mishap, symbol))
    scene.decide({X: 0}, change=hopping(Decimal(1)))
    scene.play()
    assert scene.held(X) == [0]
    assert 1 <= scene.held(COIN)[0] < Decimal("1.0002")


@pytest.mark.parametrize("second", [0.03, 0.06, 0.09, 0.12, 0.15, 0.2])
def test_c19_killed_between_the_hops_the_second_is_done_once(second: float) -> None:
    """At any moment of the two."""
    scene = scene_of("1")
    scene.decide({X: 0}, change=hopping(Decimal(1)))
    scene.play(kills=[second])
    assert scene.held(X) == [0]
    assert 1 <= scene.held(COIN)[0] < Decimal("1.0002")


def test_c9_dust_of_a_holding_is_reported_and_is_no_error() -> None:
    """0.0004 X below the smallest order of 0.001: blocked from the start, and the rest is sold."""
    market = Market("DUST/USDT", minimum=Decimal("0.001"))
    scene = Scene({("DUST/USDT", "long"): "0.0004", COIN: 1}, mode="spot", markets=[market, *MARKETS])
    scene.decide({("DUST/USDT", "long"): 0, COIN: 0})
    assert scene.play() == {"d1": "blocked"}
    assert scene.held(COIN) == [0]
    (ended,) = scene.entries("finished")
    assert ended.data["left long DUST/USDT"] == "0.0004"
