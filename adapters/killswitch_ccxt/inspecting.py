"""What an account's venue says when it is asked before it is trusted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

from killswitch.model.inspection import Inspection, KeyRights
from killswitch.model.venue import CredentialsRefusedError, VenueError
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Dialect
from killswitch_ccxt.numbers import ODD, UnreadableError, needed

T = TypeVar("T")
LARGEST_SKEW: Final = 86_400_000.0
"""Milliseconds by which a venue's clock may differ from ours: what says more tells no time."""


async def inspection(client: Client, dialect: Dialect) -> Inspection:
    """Ask everything at once; what cannot be told is None, with a note that says why.

    CredentialsRefusedError where the key may not even read the account: a refusal of one question says less.
    """
    notes: list[str] = []
    refused: list[CredentialsRefusedError] = []

    async def asked(what: str, question: Awaitable[T]) -> T | None:
        try:
            return await question
        except (VenueError, UnreadableError, *ODD) as error:
            if isinstance(error, CredentialsRefusedError):
                refused.append(error)
            notes.append(f"{what}: {error}")
            return None

    skew, status, rights, position_mode, margin_mode = await asyncio.gather(
        asked("clock", clock_skew(client)),
        asked("status", dialect.status()),
        asked("key rights", dialect.rights()),
        asked("position mode", dialect.position_mode()),
        asked("margin mode", dialect.margin_mode()),
    )
    if refused and not await _reads(dialect):
        raise refused[0]
    return Inspection(
        status=status,
        clock_skew_ms=skew,
        rights=rights or KeyRights(note="could not be read"),
        position_mode=position_mode,
        margin_mode=margin_mode,
        capabilities=dialect.capabilities,
        notes=tuple(notes),
    )


async def _reads(dialect: Dialect) -> bool:
    """Whether the credentials are good for reading the account; an answer of another kind says nothing against them."""
    try:
        await dialect.account()
    except CredentialsRefusedError:
        return False
    except (VenueError, UnreadableError, *ODD):
        return True
    return True


async def clock_skew(client: Client) -> float | None:
    """The venue's clock minus ours, in milliseconds, against the middle of the round trip; None if it has no clock."""
    if not client.ccxt.has.get("fetchTime"):
        return None
    before = client.now()
    told = await client.call("fetch_time")
    after = client.now()
    middle = (before.timestamp() + after.timestamp()) / 2 * 1000
    if told is None:
        return None
    skew = float(needed(told, "the venue's time")) - middle
    if not abs(skew) <= LARGEST_SKEW:
        raise UnreadableError(f"the venue's time is {told}")
    return skew
