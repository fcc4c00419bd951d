"""Description of Alpaca for the entry-point group `killswitch.venues`.

The plug-in is also loaded to check documents at every save, so slow modules are imported where they are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from killswitch.model.fitting import Misfit, WrittenAccount
    from killswitch.model.inspection import BarHistory
    from killswitch.model.venue import VenueListing


class AlpacaFamily:
    """The one venue Alpaca: a VenueFamily and a FittingFamily."""

    def listings(self) -> Sequence[VenueListing]:
        from killswitch.model.venue import VenueListing
        from killswitch_alpaca.inspection import CAPABILITIES, traits_for
        from killswitch_alpaca.settings import CREDENTIALS, MARKETS, REQUESTS_PER_MINUTE

        return (
            VenueListing(
                adapter="alpaca",
                exchange=None,
                markets=MARKETS,
                capabilities=CAPABILITIES,
                traits=traits_for(REQUESTS_PER_MINUTE),
                credentials=CREDENTIALS,
                tried="a local server that speaks Alpaca's wire format",
            ),
        )

    def history(self, exchange: str, endpoint: str | None = None) -> BarHistory | None:
        """Alpaca's bars, for the exchange name `alpaca`."""
        if exchange != "alpaca":
            return None
        from killswitch_alpaca.bars import AlpacaBars

        return AlpacaBars(endpoint)

    def misfits(self, account: WrittenAccount) -> Sequence[Misfit]:
        """See `FittingFamily`."""
        from killswitch_alpaca.settings import misfits

        return list(misfits(account))

    def not_installed(self) -> Misfit | None:
        """See `FittingFamily`. The adapter needs no library of Alpaca's."""
        return None

    def keeps_apart(self, exchange: str | None) -> bool:
        """See `FittingFamily`. An account is valued in US dollars, and is one book."""
        return False


family = AlpacaFamily()
