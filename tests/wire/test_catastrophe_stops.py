"""Catastrophe stops over venues' own payloads, with the real clients: in step, never too large, never left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import Call
from tests.faults.exchange import Exchange
from tests.faults.mishaps import Mishap, Rule, Script
from tests.faults.wire import Wire
from tests.rotation import each_taking_turns, taking_turns
from tests.unit.stops.test_stops_of_a_run import LONG, SHORT, Site
from tests.wire.adapter_wire import wire_substitution
from tests.wire.closing_venues import CLOSING_VENUES

D = Decimal
WIRES = [name for name, each in CLOSING_VENUES.items() if each.names_stops]
"""MEXC gives conditional orders no client order id, and its adapter offers no catastrophe stops."""


def wire_of(name: str, exchange: Exchange) -> type[Any]:
    """The adapter of a venue on loopback, whose venue states that every position was entered at 100."""
    base = wire_substitution(CLOSING_VENUES[name])(Wire, exchange)

    async def snapshot(self: Any) -> AccountSnapshot:
        found: AccountSnapshot = await base.snapshot(self)
        entered = tuple(replace(each, entry_price=D(100)) for each in found.positions or ())
        return found if found.positions is None else replace(found, positions=entered)

    return type(base.__name__, (base,), {"snapshot": snapshot})


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.store.close()


def in_step(site: Site) -> list[Decimal]:
    """What the resting stops of the side that is held cover beyond the position: never above 0."""
    held = sum(site.exchange.held.values(), D(0))
    return [sum((amount for _, amount, _ in site.stops()), D(0)) - held]


@pytest.mark.parametrize("name", taking_turns(WIRES, "a catastrophe stop is in step"))
def test_a_stop_is_in_step_within_two_ticks_at_every_venue(name: str, site: Site) -> None:
    """Placed, made smaller, turned, and gone when the position is: two ticks after each change by others."""
    wire = wire_of(name, site.exchange)
    found: list[object] = []

    def look() -> None:
        found.append(site.stops())

    def flip() -> None:
        site.exchange.trade(LONG, D(-6))
        site.exchange.trade(SHORT, D(4))

    changes: dict[int, Callable[[], object]] = {
        4: look, 5: lambda: site.exchange.trade(LONG, D(-4)), 8: look, 9: flip, 12: look,
        13: lambda: site.exchange.trade(SHORT, D(-4)), 16: look,
    }  # fmt: skip
    site.run(site.runner(wire=wire), 18, changes)
    assert found == [[("sell", D(10), D(80))], [("sell", D(6), D(80))], [("buy", D(4), D(120))], []]


FAULTS: list[tuple[Call, Mishap]] = [
    ("submit", "lost"), ("submit", "late"), ("submit", "done"), ("submit", "garbled"), ("submit", "slow"),
    ("cancel", "lost"), ("cancel", "done"), ("cancel", "down"), ("find_order", "lost"), ("open_orders", "down"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "fault"), each_taking_turns(WIRES, "a fault and a catastrophe stop", FAULTS))
def test_a_fault_over_the_wire_leaves_the_stop_in_step(name: str, fault: tuple[Call, Mishap], site: Site) -> None:
    """The first and the third request of a kind fail: no more than the position rests, and it is in step again."""
    call, mishap = fault
    mishaps = Script(Rule(call, mishap), Rule(call, mishap, after=2))
    beyond: list[Decimal] = []
    changes: dict[int, Callable[[], object]] = {
        10: lambda: site.exchange.trade(LONG, D(-4)), 80: lambda: site.exchange.trade(LONG, D(6)),
    }  # fmt: skip
    for tick in (20, 40, 60, 79, 95, 130, 155):
        changes[tick] = lambda: beyond.extend(in_step(site))
    site.run(site.runner(mishaps, wire=wire_of(name, site.exchange)), 160, changes)
    assert sum((amount for _, amount, _ in site.stops()), D(0)) == 12
    assert {(side, trigger) for side, _, trigger in site.stops()} == {("sell", D(80))}
    assert max(beyond[1:]) <= 0
