"""Stocks, ETFs and crypto at Alpaca."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from killswitch.model.venue import AccountSpec, VenueAdapter


def adapter(spec: AccountSpec) -> VenueAdapter:
    """Build the adapter of `spec`, without connecting; aiohttp is imported at the first call.

    Raises ValueError, with what to write instead, for a document from which no adapter can be built.
    """
    from killswitch_alpaca.settings import read_settings
    from killswitch_alpaca.venue import AlpacaVenue

    return AlpacaVenue(read_settings(spec))
