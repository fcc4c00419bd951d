"""A close is recorded as flat as soon as no order that is lost can change it, and not before."""

from __future__ import annotations

from decimal import Decimal

import pytest

from killswitch.model.store import JournalEntry
from killswitch.model.venue import OrderLife, VenueDescription, VenueTraits
from tests.faults.exchange import Key, Mode
from tests.faults.mishaps import Mishap, Rule
from tests.faults.scene import Scene
from tests.faults.wire import BatchingWire

BTC: Key = ("BTC", "long")
ETH: Key = ("ETH", "short")
VALIDITY = 4.5
"""Seconds: three of validity and one and a half for clocks and lists, as ADR 0058 has it."""


DECLARED = OrderLife(longest=60.0, names="open")
"""Requests declare their validity, as at Binance and OKX."""


def scene_with(*rules: Rule, mode: Mode = "one_way", life: OrderLife = DECLARED) -> Scene:
    """A venue of which `life` is true."""
    scene = Scene({BTC: 10, ETH: 4}, *rules, mode=mode, traits=VenueTraits(order_life=life))
    scene.at(30.0, lambda: None)  # what is held up has arrived by then
    return scene


def second(scene: Scene, entry: JournalEntry) -> float:
    return (entry.at - scene.time.start).total_seconds()


def ended(scene: Scene) -> float:
    """The second of the play at which the close was recorded as ended."""
    (entry,) = scene.entries("finished")
    return second(scene, entry)


@pytest.mark.parametrize("mode", ["one_way", "hedge"])
@pytest.mark.parametrize(("mishap", "flat_by"), [("lost", 0.5), ("late", 0.5), ("held", 0.5), ("silent", 2.2)])
def test_flat_does_not_wait_for_a_lost_reduce_only_order(mishap: Mishap, flat_by: float, mode: Mode) -> None:
    """Its replacement closes everything, so the lost one can reduce nothing: a request without an answer is replaced
    after 1.5 s, one whose connection breaks at once, and the record says flat two round trips after that.
    """
    scene = scene_with(Rule("submit", mishap, "BTC"), mode=mode)
    scene.decide({BTC: 0, ETH: 0})
    assert scene.play() == {"d1": "flat"}
    assert ended(scene) <= flat_by
    assert [entry.data.get("early") for entry in scene.entries("absent")] == ["yes"]
    assert sum(order.filled for order in scene.orders("BTC")) == 10


def test_flat_does_not_wait_for_many_lost_orders() -> None:
    """The first batches, of ten, twenty and twenty orders, are lost; no further question about any delays the end."""
    book: dict[Key, str | int] = {(f"C{number}", "long"): 1 for number in range(60)}
    traits = VenueDescription(batch=20, order_life=DECLARED)
    scene = Scene(book, Rule("submit_batch", "lost", times=3), wire=BatchingWire, traits=traits)
    scene.decide(dict.fromkeys(book, 0))
    assert scene.play() == {"d1": "flat"}
    assert ended(scene) <= 0.5
    assert len(scene.entries("absent")) == 50


@pytest.mark.parametrize("mode", ["one_way", "spot"])
def test_a_trim_waits_until_its_lost_order_can_no_longer_arrive(mode: Mode) -> None:
    """The order for five of ten would close five more if it came after its replacement."""
    scene = scene_with(Rule("submit", "lost", "BTC"), mode=mode)
    scene.decide({BTC: 5})
    assert scene.play() == {"d1": "flat"}
    assert [second(scene, entry) >= VALIDITY for entry in scene.entries("absent")] == [True]


def test_a_sale_on_spot_waits_until_its_lost_order_can_no_longer_arrive() -> None:
    """Nothing limits it to reducing: what is bought later would be sold."""
    scene = scene_with(Rule("submit", "lost", "BTC"), mode="spot")
    scene.decide({BTC: 0})
    assert scene.play() == {"d1": "flat"}
    assert [second(scene, entry) >= VALIDITY for entry in scene.entries("absent")] == [True]


def test_flat_waits_for_the_lost_order_where_known_fills_do_not_explain_it() -> None:
    """Somebody else closes seven of ten: whether the lost order closed some of them, only the venue can say, which
    executes a request for thirty seconds, as Bitget does.
    """
    scene = scene_with(Rule("submit", "lost", "BTC"), life=OrderLife(always=30.0, names="open"))
    scene.at(0.06, lambda: scene.exchange.trade(BTC, Decimal(-7)))
    scene.decide({BTC: 0})
    assert scene.play() == {"d1": "flat"}
    assert ended(scene) >= 31.5


def test_flat_waits_until_the_venue_has_denied_the_lost_order_once() -> None:
    """Questions by name fail for two seconds; what the venue has not denied may have been executed."""
    scene = scene_with(Rule("submit", "lost", "BTC"), Rule("find_order", "lost", "BTC", times=4))
    scene.decide({BTC: 0})
    assert scene.play() == {"d1": "flat"}
    denied = [it for it in scene.wire.travelled if it.call == "find_order"]
    assert len(denied) >= 5
    assert ended(scene) >= denied[4].left
