"""What this adapter says of its one venue, for the entry-point group `killswitch.venues`."""

from __future__ import annotations

from collections.abc import Sequence

from killswitch.model.inspection import BarHistory, VenueListing
from killswitch_alpaca.settings import MARKETS, REQUESTS_PER_MINUTE
from killswitch_alpaca.traits import CAPABILITIES, traits_for


class AlpacaFamily:
    """Alpaca alone."""

    def listings(self) -> Sequence[VenueListing]:
        return (
            VenueListing(
                adapter="alpaca",
                exchange=None,
                markets=MARKETS,
                capabilities=CAPABILITIES,
                traits=traits_for(REQUESTS_PER_MINUTE),
                tried="a local server that speaks Alpaca's wire format",
            ),
        )

    def history(self, exchange: str, endpoint: str | None = None) -> BarHistory | None:
        """Alpaca's bars, under the name `alpaca`."""
        if exchange != "alpaca":
            return None
        from killswitch_alpaca.bars import AlpacaBars

        return AlpacaBars(endpoint)


family = AlpacaFamily()
