"""Crypto venues through ccxt's async clients.

One file per concern; what makes one venue different from another is in `venues/`, one file each. ccxt itself is
imported when the first request is made: it costs seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from killswitch.model.venue import AccountSpec, VenueAdapter


def adapter(spec: AccountSpec) -> VenueAdapter:
    """The adapter of `spec`, not yet connected.

    `spec.exchange` is the name that ccxt gives the venue. ValueError for a document that it cannot be made from: no
    exchange, a market or an environment that the venue does not have, credentials that are missing or unknown.
    """
    from killswitch_ccxt.validation import not_installed
    from killswitch_ccxt.venue import CcxtVenue
    from killswitch_ccxt.venues import dialect_of

    missing = not_installed()
    if missing is not None:
        raise ValueError(f"{missing.message}; {missing.fix}")
    if spec.exchange is None:
        raise ValueError("it needs an exchange, by its name in ccxt, as in exchange: binanceusdm")
    return CcxtVenue(spec, dialect_of(spec.exchange))
