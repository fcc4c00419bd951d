"""What was not done is never said to be done, and what leaves is what was decided, to the last digit.

Each of these was found by breaking the adapter on purpose: nothing else noticed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from killswitch.conformance.stand import Mishap
from killswitch.model.venue import OrderRejectedError, OrderRequest, VenueError
from tests.conformance.stands import WireStand
from tests.conformance.wires import WIRES

VENUES = [name for name, wired in WIRES.items() if wired.adapter == "ccxt"]
TEN = Decimal(10)


def _play(venue: str, story: Callable[[WireStand, Any, str], Awaitable[None]]) -> None:
    """Tell it of an account that is long 10 of the venue's first symbol."""
    stand = WireStand(WIRES[venue])
    symbol = stand.symbols[0]

    async def telling() -> None:
        adapter: Any = await stand.open({(symbol, "long"): TEN})
        try:
            await story(stand, adapter, symbol)
        finally:
            await adapter.close()
            await stand.close()

    stand.run(telling())


@pytest.mark.parametrize("mishap", ["down", "lost", "done", "garbled"])
@pytest.mark.parametrize("venue", VENUES)
def test_a_cancel_without_an_answer_is_not_said_to_be_done(venue: str, mishap: Mishap) -> None:
    """An order that may still rest is no success: closing would go on over a stop that covers the position."""

    async def story(stand: WireStand, adapter: Any, symbol: str) -> None:
        await stand.rest(symbol, "buy", Decimal(1))
        (order,) = await adapter.open_orders()
        stand.breaks("cancel", mishap)
        with pytest.raises(VenueError):
            await adapter.cancel(order.symbol, order.id)

    _play(venue, story)


@pytest.mark.parametrize("venue", VENUES)
def test_an_amount_between_the_venues_steps_is_refused_and_nothing_leaves(venue: str) -> None:
    """Steps are 0.001 on loopback: 1.0000005 would leave as 1, which nobody decided."""

    async def story(stand: WireStand, adapter: Any, symbol: str) -> None:
        await adapter.snapshot()
        with pytest.raises(OrderRejectedError):
            await adapter.submit(OrderRequest("ks1", symbol, "sell", "long", Decimal("1.0000005"), reduce_only=True))
        assert (stand.held((symbol, "long")), stand.taken("ks1")) == (TEN, 0)

    _play(venue, story)
