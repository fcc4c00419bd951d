"""How a guarantee is tried: an adapter of the stand, a book to begin with, and what is looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal

import pytest

from killswitch.conformance.stand import Key, Mishap, Offer, Stand
from killswitch.model.snapshot import (
    AccountSnapshot,
    OrderSide,
)
from killswitch.model.venue import (
    Call,
    OrderRequest,
    VenueAdapter,
    VenueError,
)

ZERO = Decimal(0)

READING: tuple[Call, ...] = ("snapshot", "find_order", "open_orders")
NOT_DONE: tuple[Mishap, ...] = ("lost", "silent", "down", "limited")
Trial = Callable[[VenueAdapter], Awaitable[None]]


def guarantee(number: str) -> pytest.MarkDecorator:
    """Says which guarantee a test holds an adapter against."""
    return pytest.mark.guarantee(number)


def tried(stand: Stand, book: Mapping[Key, Decimal], trial: Trial, *, hedge: bool = False) -> None:
    """Play a trial with an adapter of the stand, whose account begins with `book`."""

    async def course() -> None:
        venue = await stand.open(book, hedge=hedge)
        try:
            await trial(venue)
        finally:
            await venue.close()
            await stand.close()

    stand.run(course())


def needs(stand: Stand, offer: Offer) -> None:
    """Skip, with the reason, where the stand cannot do what the trial wants."""
    if offer not in stand.offers:
        pytest.skip(f"not tried: the stand has no {offer}")


def one(stand: Stand) -> dict[Key, Decimal]:
    """A book of one long position of four contracts."""
    return {(stand.symbols[0], "long"): Decimal(4)}


def other(key: Key) -> Key:
    """The other side of the same symbol."""
    return (key[0], "short" if key[1] == "long" else "long")


def closing(key: Key, amount: Decimal, name: str, *, reduce_only: bool = True) -> OrderRequest:
    """An order that closes `amount` contracts of a position."""
    side: OrderSide = "sell" if key[1] == "long" else "buy"
    return OrderRequest(name, key[0], side, key[1], amount, reduce_only)


def sizes(seen: AccountSnapshot) -> dict[Key, Decimal]:
    """What is held, in contracts. The answer is `ok`, no size is negative, and each position is there once."""
    assert seen.quality == "ok", seen.reason
    assert seen.positions is not None
    assert all(position.contracts >= ZERO for position in seen.positions)
    held = {position.key: position.contracts for position in seen.positions if position.contracts}
    assert len({position.key for position in seen.positions}) == len(seen.positions)
    return held


async def until(stand: Stand, venue: VenueAdapter, shown: Callable[[AccountSnapshot], bool]) -> None:
    """Read until it shows, for as long as the stand allows."""
    waited = 0.0
    while not shown(await venue.snapshot()):
        assert waited < stand.patience, "it does not show"
        await asyncio.sleep(1.0)
        waited += 1.0


async def outcome(call: Awaitable[object]) -> object:
    """What a call gives, or the error that it raises."""
    try:
        return await call
    except VenueError as error:
        return error
