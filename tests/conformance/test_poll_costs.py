"""Polling an account each second stays within the venue's documented limits, and within the declared costs."""

from __future__ import annotations

from functools import cache
from typing import Final

import pytest

from killswitch.model.venue import AccountSpec
from tests.conformance.harnesses import Wired
from tests.conformance.poll_costs import Cost, measure_polling
from tests.conformance.wires import WIRES
from tests.rotation import taking_turns

TURN: Final = "what reading costs"
POLL_SHARE = 0.5
"""The share of a limit that is left to readings where orders are counted on it too; the rest is kept for closing."""
SAME_LIMITS = {"position/open_positions": ("positions", 1), "requests": ("fifths of requests", 5), "ip": ("address", 1)}
"""What MEXC counts by its paths and the adapter by a name; what Alpaca counts, and the adapter in fifths; what Bybit's
documents call an address and its answers an ip."""
EXECUTION_CALLS = frozenset({"submit", "submit_batch", "cancel", "find_order", "fills", "open_orders", "close_book"})


WATCHED = (0, 10)
"""Symbols of the watch list that are not held."""


@cache
def cost_at(name: str, watched: int) -> Cost:
    """Of three minutes at a venue; both tests use the same measurement."""
    return measure_polling(WIRES[name], watched=watched)


@pytest.mark.parametrize("watched", WATCHED)
@pytest.mark.parametrize("name", taking_turns(WIRES, TURN))
def test_a_snapshot_a_second_leaves_closing_its_half_of_every_limit(name: str, watched: int) -> None:
    """Three minutes of calm: no poll is refused or unwell, and closing keeps the share that it relies on."""
    cost = cost_at(name, watched)
    shared = {it.limit for it in _made(WIRES[name]).traits.costs if it.call in EXECUTION_CALLS}
    allowed = {limit: POLL_SHARE if SAME_LIMITS.get(limit, (limit, 1))[0] in shared else 1.0 for limit in cost.shares}
    assert (cost.refused, cost.unwell) == (0, 0)
    assert {limit: share for limit, share in cost.shares.items() if share > allowed[limit]} == {}


@pytest.mark.parametrize("watched", WATCHED)
@pytest.mark.parametrize("name", taking_turns(WIRES, TURN))
def test_a_snapshot_costs_no_more_than_its_adapter_declares(name: str, watched: int) -> None:
    """Of each limit that both know, the venue counts on average at most what the traits declare for a snapshot."""
    declared_units = {it.limit: it.units for it in _made(WIRES[name]).traits.costs if it.call == "snapshot"}
    counted = ((SAME_LIMITS.get(limit, (limit, 1)), mean) for limit, mean in cost_at(name, watched).means.items())
    means = {limit: mean * units for (limit, units), mean in counted}
    assert {
        limit: mean for limit, mean in means.items() if limit in declared_units and mean > declared_units[limit]
    } == {}
    assert means.keys() & declared_units.keys(), "the two know no limit in common"


def _made(wired: Wired) -> object:
    return wired.factory(
        AccountSpec(
            "main", wired.adapter, wired.market, wired.currency, None, {}, dict(wired.credentials),
            exchange=wired.exchange,
        )
    )  # fmt: skip
