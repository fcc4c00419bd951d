"""The venues that are reached through ccxt, by name.

A family is loaded to check documents too, at every save: what takes long is imported where it is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from killswitch.model.fitting import Misfit, WrittenAccount
    from killswitch.model.inspection import BarHistory, VenueListing


class CcxtFamily:
    """A VenueFamily, and a FittingFamily."""

    def listings(self) -> Sequence[VenueListing]:
        """Every exchange with a dialect of its own. Any other one that ccxt knows goes the generic way."""
        from killswitch_ccxt.venues import MODULES

        return [_listing(exchange) for exchange in MODULES]

    def listing(self, exchange: str) -> VenueListing | None:
        """What any exchange that ccxt knows offers, by its own dialect or the generic one; None for no such name."""
        try:
            return _listing(exchange)
        except ValueError:
            return None

    def history(self, exchange: str, endpoint: str | None = None) -> BarHistory | None:
        """Bars of any exchange that ccxt knows."""
        from killswitch_ccxt.bars import CcxtBars
        from killswitch_ccxt.venues import dialect_of

        try:
            return CcxtBars(dialect_of(exchange), endpoint)
        except ValueError:
            return None  # ccxt knows none of that name

    def misfits(self, account: WrittenAccount) -> Sequence[Misfit]:
        """See `FittingFamily`."""
        from killswitch_ccxt.validation import misfits

        return list(misfits(account))

    def not_installed(self) -> Misfit | None:
        """See `FittingFamily`."""
        from killswitch_ccxt.validation import not_installed

        return not_installed()

    def keeps_apart(self, exchange: str | None) -> bool:
        """See `FittingFamily`."""
        from killswitch_ccxt.validation import OFFERED

        offered = OFFERED.get(exchange or "")
        return offered is not None and offered.keeps_apart


def _listing(exchange: str) -> VenueListing:
    from killswitch.model.inspection import VenueListing
    from killswitch.model.venue import AccountSpec
    from killswitch_ccxt.venues import dialect_of

    dialect = dialect_of(exchange)
    spec = AccountSpec("", "ccxt", dialect.markets[0], "USDT", None, {}, {}, exchange=exchange)
    return VenueListing(
        "ccxt", exchange, dialect.markets, dialect.capabilities, dialect.traits_for(spec), dialect.tried
    )


family = CcxtFamily()
