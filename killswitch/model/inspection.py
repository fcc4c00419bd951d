"""What a venue says before it is trusted, which rights its keys have, and what an adapter says of its venues."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct

from killswitch.model.snapshot import Market
from killswitch.model.venue import VenueTraits


class Capability(Struct, frozen=True):
    """One thing that the switch can, cannot or can only partly do at a venue, and what must be known about it.

    `unknown`: the venue could not be asked about this account.
    """

    name: str
    can: Literal["yes", "no", "partly", "unknown"]
    note: str = ""


class KeyRights(Struct, frozen=True):
    """What the credentials may do; None where the venue does not tell."""

    read: bool | None = None
    trade: bool | None = None
    withdraw: bool | None = None
    transfer: bool | None = None
    bound_to_addresses: bool | None = None
    expires_at: datetime | None = None
    note: str = ""


class Inspection(Struct, frozen=True):
    """What an account's venue says when it is asked before it is trusted. What could not be read is None, with a note.

    `clock_skew_ms`: the venue's clock minus ours. `status`: `ok`, or the venue's own word.
    """

    status: str | None
    clock_skew_ms: float | None
    rights: KeyRights
    position_mode: str | None
    margin_mode: str | None
    capabilities: tuple[Capability, ...]
    notes: tuple[str, ...] = ()


@runtime_checkable
class InspectedVenue(Protocol):
    """An adapter that can be asked what its account may do."""

    async def inspect(self) -> Inspection:
        """Ask the venue. Raises VenueError only where it cannot be reached at all, or refuses the credentials."""
        ...


class Bar(Struct, frozen=True, array_like=True):
    """One bar as the venue gives it. `ts` is its opening in UTC milliseconds."""

    ts: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


class BarHistory(Protocol):
    """A venue's public bars."""

    async def bars(self, symbol: str, timeframe: str, since: int, limit: int | None = None) -> Sequence[Bar]:
        """Bars from `since` (UTC ms) on, oldest first, as many as the venue gives at once; empty where none follow."""
        ...

    async def close(self) -> None: ...


class VenueListing(Struct, frozen=True):
    """One venue that an installed adapter reaches. `tried`: against what it was tried."""

    adapter: str
    exchange: str | None
    markets: tuple[Market, ...]
    capabilities: tuple[Capability, ...]
    traits: VenueTraits
    tried: str = ""


class VenueFamily(Protocol):
    """What the entry-point group `killswitch.venues` names: the venues of one adapter."""

    def listings(self) -> Sequence[VenueListing]:
        """Every venue that is supported by name."""
        ...

    def history(self, exchange: str, endpoint: str | None = None) -> BarHistory | None:
        """Its public bars; None if this family does not know the exchange, or has no bars of it."""
        ...


@runtime_checkable
class KeyedVenue(Protocol):
    """An adapter that can be asked for its key alone, by one request or two."""

    async def key_rights(self) -> KeyRights:
        """What the credentials may do. Raises VenueError where that cannot be read."""
        ...
