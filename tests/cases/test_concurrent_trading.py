"""C20, C21, C23, L3: others trade on the account while we close, or the venue does, or another policy decides."""

from __future__ import annotations

from decimal import Decimal

import pytest

from killswitch.model.snapshot import FillCause
from tests.faults.exchange import Market
from tests.faults.mishaps import Rule
from tests.faults.scene import Scene, long

BTC, ETH = long("BTC", "ETH")


def test_c20_a_position_reopened_during_the_close_is_closed_and_later_left_to_another_decision() -> None:
    """A bot buys 3 back while everything is being closed: closed too. What it buys after the end is left alone."""
    scene = Scene({BTC: 10})
    scene.decide({BTC: 0})
    scene.at(0.1, lambda: scene.exchange.trade(BTC, Decimal(3)))
    scene.at(60.0, lambda: scene.exchange.trade(BTC, Decimal(2)))
    assert scene.play() == {"d1": "flat"}
    assert sum(order.filled for order in scene.orders()) == 13
    assert scene.held(BTC) == [2]


@pytest.mark.parametrize("cause", ["liquidation", "adl"])
@pytest.mark.parametrize("second", [0.01, 0.05, 0.09, 0.13, 0.3])
@pytest.mark.parametrize("target", [0, 5])
def test_c21_a_size_that_the_venue_changes_during_a_close_is_respected(
    cause: FillCause, second: float, target: int
) -> None:
    """A quarter of the first order fills; then the venue takes 4: our orders never close beyond the target."""
    scene = Scene({BTC: 10, ETH: 2}, markets=[Market("BTC", shares=[Decimal("0.25")])])
    scene.decide({BTC: target, ETH: 0})
    scene.at(second, lambda: scene.exchange.take_away(BTC, Decimal(4), cause))
    assert scene.play() == {"d1": "flat"}
    assert scene.held(ETH) == [0]
    ours = [deed for deed in scene.exchange.deeds if deed.actor == "ours" and deed.key == BTC]
    acted = next((deed.at for deed in scene.exchange.deeds if deed.actor == cause), scene.time.elapsed)
    # An order that was already on its way when the venue acted cannot reflect it; every later one must.
    late = [deed for deed in ours if deed.at > acted + 0.1]
    assert all(deed.after >= target for deed in late)
    assert scene.held(BTC)[0] <= target


@pytest.mark.parametrize("lost", [False, True])
def test_c23_two_policies_that_each_halve_leave_a_half(lost: bool) -> None:
    """Both decided on the same 10 contracts: 5 are left, also when the first order's answer is lost."""
    scene = Scene({BTC: 10}, *([Rule("submit", "done")] if lost else []))
    scene.decide({BTC: 5})
    scene.decide({BTC: 5})
    assert scene.play() == {"d1": "flat", "d2": "flat"}
    assert scene.held(BTC) == [5]


@pytest.mark.parametrize("second", [1.0])
def test_c23_two_policies_that_each_halve_do_not_close_what_others_open_meanwhile(second: float) -> None:
    """Both decided to close 5 of 10; a manual trade opens 3 more: together they close 5, and report what is left."""
    scene = Scene({BTC: 10, ETH: 1}, Rule("submit", "silent", "ETH", times=2))
    scene.decide({BTC: 5, ETH: 0})
    scene.decide({BTC: 5, ETH: 0})
    scene.at(second, lambda: scene.exchange.trade(BTC, Decimal(3)))
    scene.play()
    assert scene.held(BTC) == [8]


@pytest.mark.parametrize("second", [0.0, 0.03, 0.07, 0.12, 0.2, 0.5])
def test_c23_a_higher_level_supersedes_what_is_not_sent_and_reconciles_what_is(second: float) -> None:
    """Level 1 halves, fills a quarter at a time; level 3 closes all, at any moment: all is closed, once."""
    quarters = [Decimal("0.25")] * 3
    scene = Scene({BTC: 10}, markets=[Market("BTC", shares=quarters)])
    scene.decide({BTC: 5})
    scene.at(second, lambda: scene.decide({BTC: 0}))
    statuses = scene.play()
    assert statuses == {"d1": "flat", "d2": "flat"}
    assert scene.held(BTC) == [0]
    assert sum(order.filled for order in scene.orders()) == 10


def test_l3_a_bot_that_buys_while_the_switch_sells_is_outlasted_and_never_turned_short() -> None:
    """It buys 2 every half second for five seconds: all of it is closed, and nothing beyond."""
    scene = Scene({BTC: 10})
    scene.decide({BTC: 0})
    for step in range(1, 11):
        scene.at(0.5 * step, lambda: scene.exchange.trade(BTC, Decimal(2)))
    scene.play()
    assert scene.held(("BTC", "short")) == [0]
    # What it bought after the end of the close is not part of it; all else is closed.
    ended = (scene.entries("finished")[-1].at - scene.time.start).total_seconds()
    after = sum(2 for step in range(1, 11) if 0.5 * step > ended)
    assert scene.held(BTC) == [after]
