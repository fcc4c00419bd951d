"""Venue plug-in of the exchanges that are reached through ccxt.

It is loaded at every check of a document, so slow imports happen where they are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from killswitch.model.fitting import Misfit, WrittenAccount
    from killswitch.model.inspection import BarHistory
    from killswitch.model.venue import VenueListing


class CcxtFamily:
    """A VenueFamily, and a FittingFamily."""

    def listings(self) -> Sequence[VenueListing]:
        """Every exchange with a dialect of its own. Others that ccxt knows use the generic dialect."""
        from killswitch_ccxt.venues import MODULES

        return [_listing(exchange) for exchange in MODULES]

    def listing(self, exchange: str) -> VenueListing | None:
        """What an exchange offers, by its own dialect or the generic one; None where ccxt does not know the name."""
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
            return None  # ccxt does not know the name

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
    from killswitch.model.venue import AccountSpec, VenueListing
    from killswitch_ccxt.venues import dialect_of

    dialect = dialect_of(exchange)
    spec = AccountSpec("", "ccxt", dialect.markets[0], "USDT", None, {}, {}, exchange=exchange)
    return VenueListing(
        "ccxt", exchange, dialect.markets, dialect.capabilities, dialect.traits_for(spec), dialect.tried,
        tuple(dialect.credentials),
    )  # fmt: skip


family = CcxtFamily()
