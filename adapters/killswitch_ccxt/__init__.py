"""Crypto venues through ccxt's async clients."""

from __future__ import annotations

from killswitch.model.venue import AccountSpec, VenueAdapter


def adapter(spec: AccountSpec) -> VenueAdapter:
    """The adapter of `spec`; ValueError for a document that it cannot be made from."""
    raise ValueError(f"account {spec.account}: ccxt is not there yet")
