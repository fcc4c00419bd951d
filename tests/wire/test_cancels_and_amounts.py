"""A cancel without an answer is never reported as done, and an order leaves with the exact amount decided.

Each case was found by breaking the adapter on purpose: no other test noticed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from killswitch.conformance.harness import Mishap
from killswitch.model.venue import OrderRejectedError, OrderRequest, VenueError
from tests.conformance.harnesses import WireHarness
from tests.conformance.wires import WIRES

VENUES = [name for name, wired in WIRES.items() if wired.adapter == "ccxt"]
TEN = Decimal(10)


def _with_adapter(venue: str, scenario: Callable[[WireHarness, Any, str], Awaitable[None]]) -> None:
    """Run the scenario on an account that is long 10 of the venue's first symbol."""
    harness = WireHarness(WIRES[venue])
    symbol = harness.symbols[0]

    async def main() -> None:
        adapter: Any = await harness.open({(symbol, "long"): TEN})
        try:
            await scenario(harness, adapter, symbol)
        finally:
            await adapter.close()
            await harness.close()

    harness.run(main())


@pytest.mark.parametrize("mishap", ["down", "lost", "done", "garbled"])
@pytest.mark.parametrize("venue", VENUES)
def test_a_cancel_without_an_answer_is_not_reported_as_done(venue: str, mishap: Mishap) -> None:
    """An order that may still rest is no success: the close would continue over a stop that covers the position."""

    async def scenario(harness: WireHarness, adapter: Any, symbol: str) -> None:
        await harness.rest(symbol, "buy", Decimal(1))
        (order,) = await adapter.open_orders()
        harness.breaks("cancel", mishap)
        with pytest.raises(VenueError):
            await adapter.cancel(order.symbol, order.id)

    _with_adapter(venue, scenario)


@pytest.mark.parametrize("venue", VENUES)
def test_an_amount_between_the_venues_steps_is_refused_and_nothing_is_sent(venue: str) -> None:
    """Steps are 0.001 on loopback: 1.0000005 would leave as 1, which nobody decided."""

    async def scenario(harness: WireHarness, adapter: Any, symbol: str) -> None:
        await adapter.snapshot()
        with pytest.raises(OrderRejectedError):
            await adapter.submit(OrderRequest("ks1", symbol, "sell", "long", Decimal("1.0000005"), reduce_only=True))
        assert (harness.held((symbol, "long")), harness.taken("ks1")) == (TEN, 0)

    _with_adapter(venue, scenario)
