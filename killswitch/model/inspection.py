"""Inspection of venues and keys before they are trusted, and the public bars of venues."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal, Protocol

from msgspec import Struct


class Capability(Struct, frozen=True):
    """A capability of Killswitch at a venue, with a note.

    `unknown`: the venue could not be queried about this account.
    """

    name: str
    can: Literal["yes", "no", "partly", "unknown"]
    note: str = ""


class KeyRights(Struct, frozen=True):
    """The permissions of the credentials; None where the venue does not report one."""

    read: bool | None = None
    trade: bool | None = None
    withdraw: bool | None = None
    transfer: bool | None = None
    bound_to_addresses: bool | None = None
    expires_at: datetime | None = None
    note: str = ""


class Inspection(Struct, frozen=True):
    """The result of inspecting an account's venue; a value that could not be read is None, with a note.

    `clock_skew_ms`: the venue's clock minus ours. `status`: `ok`, or the venue's own status.
    """

    status: str | None
    clock_skew_ms: float | None
    rights: KeyRights
    position_mode: str | None
    margin_mode: str | None
    capabilities: tuple[Capability, ...]
    notes: tuple[str, ...] = ()


class Bar(Struct, frozen=True, array_like=True):
    """One bar of a venue. `ts` is its opening time in UTC milliseconds."""

    ts: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


class BarHistory(Protocol):
    """A venue's public bars."""

    async def bars(self, symbol: str, timeframe: str, since: int, limit: int | None = None) -> Sequence[Bar]:
        """Bars from `since` (UTC ms), oldest first, as many as one answer holds; empty if there are no more."""

    async def close(self) -> None: ...
