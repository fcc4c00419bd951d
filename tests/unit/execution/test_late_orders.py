"""Orders that are held up on their way, and when the venue's word that it has none of them is believed."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import pytest

from killswitch.execution.client_order_id import lapses_after, validity
from killswitch.execution.closing_pace import PACE
from killswitch.model.venue import OrderLife, VenueTraits
from tests.faults.exchange import Key
from tests.faults.mishaps import Rule
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
    """The venue carries it out eight seconds after it was sent, or refuses it then; never is another done beside it."""
    scene = scene_with(life, Rule("submit", "held", "BTC"), mode=mode)
    scene.decide({BTC: 5, ETH: 2})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC, ETH) == [5, 2]


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES)
def test_c2_a_half_is_a_half_where_the_first_question_is_lost_too(life: OrderLife) -> None:
    """So the order is set aside, and what follows has another name, which stops no order of the first one."""
    scene = scene_with(life, Rule("submit", "held", "BTC"), Rule("find_order", "lost", "BTC", times=6))
    scene.decide({BTC: 5})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC) == [5]


def test_c2_a_name_that_may_come_late_is_kept_when_its_repeat_is_refused() -> None:
    """The first is held up, its repeat meets a price band, and the one after that would fill under another name."""
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


def test_an_order_that_never_arrived_is_sent_again_as_soon_as_its_time_is_up() -> None:
    """Three seconds of validity, and one and a half for clocks and lists: not at the next poll but one."""
    scene = scene_with(LIVES["says its validity"], Rule("submit", "lost", "BTC"))
    scene.decide({BTC: 5})
    assert scene.play() == {"d1": "flat"}
    first, second = scene.entries("sending")
    assert 4.5 <= (second.at - first.at).total_seconds() <= 4.5 + PACE.poll_interval + 0.2


def test_c14_a_venue_that_takes_longer_than_an_order_is_valid_gets_orders_that_are_valid_for_longer() -> None:
    """Four seconds to the venue: the first order is refused there for its three, the next is good for six."""
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
def test_validity_is_short_and_doubled_by_each_refusal_for_lateness(
    life: OrderLife, expired: int, seconds: float | None
) -> None:
    """Within what the venue takes; None where it takes none."""
    assert validity(life, PACE, expired) == seconds


@pytest.mark.parametrize(
    ("life", "said", "seconds"),
    [
        (OrderLife(longest=60.0, always=10.0), 3.0, 4.5),
        (OrderLife(longest=60.0, always=10.0), None, 11.5),
        (OrderLife(), None, 61.5),
        (OrderLife(always=0.1), None, 2.0),
    ],
)
def test_a_request_is_over_when_the_nearer_bound_is_and_clocks_and_lists_have_had_their_time(
    life: OrderLife, said: float | None, seconds: float
) -> None:
    """What the request says, what the venue holds for all, or a minute where nobody knows; never below two seconds."""
    assert lapses_after(life, PACE, said) == seconds
