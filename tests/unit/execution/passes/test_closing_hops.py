"""C12, C19: a sale over another market counts by its fills; a second hop sells what all the first ones bring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal

from msgspec.structs import replace

from killswitch.model.decision import Decision, Intent
from tests.faults.exchange import Key, Market
from tests.faults.mishaps import Rule
from tests.faults.scene import Scene

D = Decimal
X: Key = ("X/BTC", "long")
Y: Key = ("Y/BTC", "long")
COIN: Key = ("BTC/USDT", "long")
MARKETS = (
    Market("X/BTC", price=D("0.02")),
    Market("Y/BTC", price=D("0.03")),
    Market("BTC/USDT", price=D(30_000), step=D("0.0001")),
)


def sale(symbol: str, contracts: str, target: str = "0", *, after: int | None = None, hop: bool = True) -> Intent:
    return Intent(
        account="main", symbol=symbol, position_side="long", side="sell", contracts=D(contracts), target=D(target),
        reduce_only=False, rank=1, purpose="hop" if hop else "reduce", after=after,
    )  # fmt: skip


def with_intents(intents: Sequence[Intent]) -> Callable[[Decision], Decision]:
    return lambda decision: replace(decision, intents=tuple(intents))


def scene_of(book: dict[Key, str | int], *rules: Rule) -> Scene:
    return Scene(book, *rules, mode="spot", markets=[replace(market) for market in MARKETS])


def test_c19_the_proceeds_of_two_holdings_are_sold_and_the_coin_held_before_is_not() -> None:
    """10 X bring 0.1999 BTC and 10 Y 0.29985 after fees: both are sold in whole steps, and the 1 BTC stays."""
    scene = scene_of({X: 10, Y: 10, COIN: 1})
    orders = [
        sale("X/BTC", "10", hop=False), sale("BTC/USDT", "0.2", "1", after=0),
        sale("Y/BTC", "10", hop=False), sale("BTC/USDT", "0.3", "1", after=2),
    ]  # fmt: skip
    scene.decide({X: 0, Y: 0}, change=with_intents(orders))
    scene.play()
    assert scene.held(X) == scene.held(Y) == [D(0)]
    assert D(1) <= scene.held(COIN)[0] < D("1.0002")


def test_c12_a_holding_is_sold_on_another_market_by_exactly_what_was_decided() -> None:
    """Of 10 X the decision sells 6 on X/BTC, where no position has a target: 4 are left, and BTC 1."""
    scene = scene_of({X: 10, COIN: 1})
    scene.decide({}, change=with_intents([sale("X/BTC", "6", "4"), sale("BTC/USDT", "0.12", "1", after=0)]))
    assert scene.play() == {"d1": "flat"}
    assert scene.held(X) == [D(4)]
    assert D(1) <= scene.held(COIN)[0] < D("1.0002")


def test_c12_a_refused_sale_on_another_market_is_not_reported_as_flat() -> None:
    """Nothing was sold, so nothing is flat: the close ends short, and the coin held before stays."""
    scene = scene_of({X: 10, COIN: 1})
    scene.exchange.markets["X/BTC"].state = "halted"
    scene.decide({}, change=with_intents([sale("X/BTC", "6", "4"), sale("BTC/USDT", "0.12", "1", after=0)]))
    assert scene.play().get("d1") != "flat"
    assert (scene.held(X), scene.held(COIN)) == ([D(10)], [D(1)])
