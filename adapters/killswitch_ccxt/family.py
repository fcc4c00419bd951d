"""The venues that are reached through ccxt, by name."""

from __future__ import annotations

from collections.abc import Sequence

from killswitch.model.inspection import BarHistory, VenueListing
from killswitch_ccxt.bars import CcxtBars
from killswitch_ccxt.venues import MODULES, dialect_of


class CcxtFamily:
    """A VenueFamily."""

    def listings(self) -> Sequence[VenueListing]:
        """Every exchange with a dialect of its own. Any other one that ccxt knows goes the generic way."""
        return [_listing(exchange) for exchange in MODULES]

    def listing(self, exchange: str) -> VenueListing | None:
        """What any exchange that ccxt knows offers, by its own dialect or the generic one; None for no such name."""
        try:
            return _listing(exchange)
        except ValueError:
            return None

    def history(self, exchange: str, endpoint: str | None = None) -> BarHistory | None:
        """Bars of any exchange that ccxt knows."""
        try:
            return CcxtBars(dialect_of(exchange), endpoint)
        except ValueError:
            return None  # ccxt knows none of that name


def _listing(exchange: str) -> VenueListing:
    from killswitch.model.venue import AccountSpec

    dialect = dialect_of(exchange)
    spec = AccountSpec("", "ccxt", dialect.markets[0], "USDT", None, {}, {}, exchange=exchange)
    return VenueListing(
        "ccxt", exchange, dialect.markets, dialect.capabilities, dialect.traits_for(spec), dialect.tried
    )


family = CcxtFamily()
