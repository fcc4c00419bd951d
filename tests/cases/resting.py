"""Two reasons for which an order of ours rests: a post-only market, or a declared ladder."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Final, Literal

from msgspec.structs import replace

from killswitch.model.decision import Decision, Rung, Unwinding
from tests.faults.exchange import Market

Resting = Literal["post_only", "declared"]
RESTING: Final[tuple[Resting, ...]] = ("post_only", "declared")


def resting_market(why: Resting, *, makers_slip: str = "0.01") -> Market:
    """Takers get 99 for a mark of 100; in a post-only market the best prices are `makers_slip` away from it."""
    if why == "post_only":
        return Market("BTC", state="post_only", slip=Decimal(makers_slip))
    return Market("BTC", slip=Decimal("0.01"))


def resting_order(why: Resting) -> Callable[[Decision], Decision]:
    """The decision as it is, or with orders that rest at most half of one per cent below the mark."""

    def declared(decision: Decision) -> Decision:
        if why == "post_only":
            return decision
        intents = tuple(replace(intent, band=Decimal("0.005")) for intent in decision.intents)
        return replace(decision, intents=intents, unwinding=Unwinding("patient", (Rung("limit"),)))

    return declared
