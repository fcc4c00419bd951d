"""Adapter for crypto exchanges that uses ccxt's async clients.

Each file has one concern; what distinguishes a venue is in its package in `venues/`. ccxt is imported at the first
request, because the import takes seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from killswitch.model.venue import AccountSpec, VenueAdapter


def adapter(spec: AccountSpec) -> VenueAdapter:
    """The adapter of `spec`, not yet connected.

    `spec.exchange` is ccxt's name of the venue. ValueError where the specification lacks an exchange, names a market or
    an environment that the venue does not have, or has missing or unknown credentials.
    """
    from killswitch_ccxt.validation import not_installed
    from killswitch_ccxt.venue import CcxtVenue
    from killswitch_ccxt.venues import dialect_of

    missing = not_installed()
    if missing is not None:
        raise ValueError(f"{missing.message}; {missing.fix}")
    if spec.exchange is None:
        raise ValueError("the account lacks an exchange: add its name in ccxt, as in exchange: binanceusdm")
    return CcxtVenue(spec, dialect_of(spec.exchange))
