"""Asking for what a key may do, and for nothing else: cheap enough for every start."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from killswitch.model.inspection import KeyRights


@runtime_checkable
class KeyedVenue(Protocol):
    """An adapter that can be asked for its key alone, by one request or two."""

    async def key_rights(self) -> KeyRights:
        """What the credentials may do. Raises VenueError where that cannot be read."""
        ...
