"""Orders that are delayed on their way, and when the venue's denial that it has them is accepted."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import pytest

from killswitch.execution.client_order_id import lapses_after, validity
from killswitch.execution.closing_pace import PACE
from killswitch.model.venue import OrderLife, VenueTraits
from tests.faults.exchange import Key, WithoutReduceOnly
from tests.faults.mishaps import Mishap, Rule
from tests.faults.scene import Scene

BTC: Key = ("BTC", "long")
ETH: Key = ("ETH", "long")
LIVES = {
    "says its validity": OrderLife(longest=60.0, names="open"),
    "valid for ten seconds": OrderLife(always=10.0, names="open"),
    "no bound, names for ever": OrderLife(names="ever"),
    "no bound, no names": OrderLife(names="none"),
}


def scene_with(
    life: OrderLife, *rules: Rule, mode: Literal["one_way", "spot"] = "one_way", latency: float = 0.04
) -> Scene:
    """A venue of which `life` is true."""
    scene = Scene({BTC: 10, ETH: 4}, *rules, mode=mode, traits=VenueTraits(order_life=life), latency=latency)
    scene.exchange.keeps_names = "ever" if life.names == "ever" else "open"
    scene.at(90.0, lambda: None)  # what is held up has arrived by then
    return scene


@pytest.mark.parametrize("mode", ["one_way", "spot"])
@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES)
def test_c2_a_half_is_a_half_however_late_its_order_arrives(life: OrderLife, mode: Literal["one_way", "spot"]) -> None:
    """The venue executes it eight seconds after it was sent, or refuses it then; no second order is executed too."""
    scene = scene_with(life, Rule("submit", "held", "BTC"), mode=mode)
    scene.decide({BTC: 5, ETH: 2})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC, ETH) == [5, 2]


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES)
def test_c2_a_half_is_a_half_where_the_first_query_is_lost_too(life: OrderLife) -> None:
    """The order is detached, and the next one has another id, which does not stop the first one."""
    scene = scene_with(life, Rule("submit", "held", "BTC"), Rule("find_order", "lost", "BTC", times=6))
    scene.decide({BTC: 5})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC) == [5]


@pytest.mark.parametrize("mishap", ["held", "silent", "done_silent"])
@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES)
def test_c2_a_full_close_waits_for_its_order_where_the_venue_ignores_reduce_only(
    life: OrderLife, mishap: Mishap
) -> None:
    """The first order is late or never answered; with a second one on its way the account would be short."""
    traits = VenueTraits(order_life=life, enforces_reduce_only=False)
    scene = Scene({BTC: 10}, Rule("submit", mishap, "BTC"), exchange=WithoutReduceOnly, traits=traits)
    scene.exchange.keeps_names = "ever" if life.names == "ever" else "open"
    scene.at(90.0, lambda: None)
    scene.decide({BTC: 0})
    scene.play()
    assert scene.held(BTC, ("BTC", "short")) == [0, 0]


def test_c2_the_id_of_an_order_that_may_arrive_late_is_kept_when_its_repeat_is_refused() -> None:
    """The first is delayed, its repeat meets a price band, and the one after that would fill under another id."""
    scene = scene_with(LIVES["no bound, names for ever"], Rule("submit", "held", "BTC"))
    market = scene.exchange.markets["BTC"]
    market.band = Decimal("0.01")
    scene.at(1.0, lambda: setattr(market, "slip", Decimal("0.05")))
    scene.at(3.0, lambda: setattr(market, "slip", Decimal(0)))
    scene.decide({BTC: 5})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC) == [5]
    assert [entry.data["reason"] for entry in scene.entries("rejected")] == ["price_band"]
    assert len({entry.client_order_id for entry in scene.entries("sending")}) == 1


def test_an_order_that_never_arrived_is_sent_again_as_soon_as_its_validity_has_ended() -> None:
    """Three seconds of validity, and one and a half for clocks and lists: not at the next poll but one."""
    scene = scene_with(LIVES["says its validity"], Rule("submit", "lost", "BTC"))
    scene.decide({BTC: 5})
    assert scene.play() == {"d1": "flat"}
    first, second = scene.entries("sending")
    assert 4.5 <= (second.at - first.at).total_seconds() <= 4.5 + PACE.poll_interval + 0.2


def test_c14_orders_that_expire_on_their_way_get_a_longer_validity() -> None:
    """Four seconds to the venue: the first order is refused there for its three, the next is valid for six."""
    scene = scene_with(LIVES["says its validity"], latency=8.0)
    scene.decide({BTC: 0})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC) == [0]
    assert [entry.data["valid_for"] for entry in scene.entries("sending")] == ["3", "6"]
    assert [entry.data["reason"] for entry in scene.entries("rejected")] == ["expired"]


@pytest.mark.parametrize(
    ("life", "expired", "seconds"),
    [
        (OrderLife(longest=60.0), 0, 3.0),
        (OrderLife(longest=60.0), 2, 12.0),
        (OrderLife(longest=60.0), 50, 24.0),
        (OrderLife(shortest=5.0, longest=60.0), 0, 5.0),
        (OrderLife(longest=2.0), 0, 2.0),
        (OrderLife(always=30.0), 0, None),
    ],
)
def test_validity_is_short_and_doubled_by_each_expired_order(
    life: OrderLife, expired: int, seconds: float | None
) -> None:
    """Within what the venue accepts; None where it accepts none."""
    assert validity(life, PACE, expired) == seconds


@pytest.mark.parametrize(
    ("life", "stated", "seconds"),
    [
        (OrderLife(longest=60.0, always=10.0), 3.0, 4.5),
        (OrderLife(longest=60.0, always=10.0), None, 11.5),
        (OrderLife(), None, 61.5),
        (OrderLife(always=0.1), None, 2.0),
    ],
)
def test_a_request_lapses_at_the_nearer_bound_plus_a_margin_for_clocks_and_lists(
    life: OrderLife, stated: float | None, seconds: float
) -> None:
    """The request's own validity, the venue's for all, or a minute where neither is known; never below two seconds."""
    assert lapses_after(life, PACE, stated) == seconds
