"""Stocks, ETFs and crypto at Alpaca, through alpaca-py."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from killswitch.model.venue import AccountSpec, VenueAdapter


def adapter(spec: AccountSpec) -> VenueAdapter:
    """The adapter of `spec`; no connection is made yet, and alpaca-py is imported at the first call.

    ValueError for a document that it cannot be made from; the message says what to write.
    """
    from killswitch_alpaca.settings import not_installed, read_settings
    from killswitch_alpaca.venue import AlpacaVenue

    missing = not_installed()
    if missing is not None:
        raise ValueError(f"{missing.message}; {missing.fix}")
    return AlpacaVenue(read_settings(spec))
