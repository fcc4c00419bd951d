"""The test case of a guarantee: an adapter connected to a venue of the harness, its initial book, and assertions."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, TypeVar

import pytest
from msgspec import Struct

from killswitch.conformance.harness import Key, Mishap, Offer, VenueHarness
from killswitch.model.snapshot import AccountSnapshot, OrderSide
from killswitch.model.venue import Call, OrderRejectedError, OrderRequest, RejectReason, VenueAdapter, VenueError

ZERO = Decimal(0)
C = TypeVar("C", VenueHarness, VenueAdapter)

READING: tuple[Call, ...] = ("snapshot", "find_order", "open_orders")
NOT_DONE: tuple[Mishap, ...] = ("lost", "silent", "down", "limited")
Book = Mapping[Key, Decimal]


def one(harness: VenueHarness) -> Book:
    """A book of one long position of four contracts."""
    return {(harness.symbols[0], "long"): Decimal(4)}


def flat(_: VenueHarness) -> Book:
    """A book without positions."""
    return {}


class ConformanceCase(Struct, frozen=True):
    """An adapter under test, and the venue that it is connected to, which began with `book`."""

    harness: VenueHarness
    venue: VenueAdapter
    book: Book

    @property
    def key(self) -> Key:
        """Symbol and side of the first position of the book."""
        return next(iter(self.book))

    @property
    def symbol(self) -> str:
        """The symbol of that position."""
        return self.key[0]

    @property
    def size(self) -> Decimal:
        """Contracts of that position at the beginning."""
        return self.book[self.key]

    def held(self) -> Decimal:
        """The true size of that position now, in contracts."""
        return self.harness.held(self.key)

    def closing(self, amount: Decimal, name: str, *, reduce_only: bool = True) -> OrderRequest:
        """An order that closes `amount` contracts of that position."""
        return closing(self.key, amount, name, reduce_only=reduce_only)

    async def broken(self, mishap: Mishap, call: Call, *arguments: object) -> Any:
        """The result of a call of the adapter that fails in this way, or the error that it raises."""
        self.harness.breaks(call, mishap)
        return await outcome(getattr(self.venue, call)(*arguments))

    async def until(self, shown: Callable[[AccountSnapshot], bool]) -> None:
        """Take snapshots until one satisfies `shown`; fail after the harness's `patience`."""
        waited = 0.0
        while not shown(await self.venue.snapshot()):
            assert waited < self.harness.patience, "it does not show"
            await asyncio.sleep(1.0)
            waited += 1.0


def guarantee(
    number: str, *needed: Offer, book: Callable[[VenueHarness], Book] = one, hedge: bool = False
) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], Callable[..., None]]:
    """Make a test of a coroutine that gets a `ConformanceCase`, and mark it with the number of its guarantee.

    The test opens the venue with `book`; it is skipped where the harness lacks one of the offers `needed`.
    """

    def test_of(body: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
        @functools.wraps(body)
        def test(self: object, harness: VenueHarness, *values: object, **named: object) -> None:
            for offer in needed:
                needs(harness, offer)
            harness.run(opened(self, harness, *values, **named))

        async def opened(self: object, harness: VenueHarness, *values: object, **named: object) -> None:
            positions = book(harness)
            watching = {"watch": True} if "watch" in needed else {}  # harnesses without the offer need not know it
            async with (
                closed_after(harness),
                closed_after(await harness.open(positions, hedge=hedge, **watching)) as venue,
            ):
                await body(self, ConformanceCase(harness, venue, positions), *values, **named)

        # pytest reads the fixtures and parameters of the test from this signature: `harness` replaces the case.
        owner, case, *further = inspect.signature(body).parameters.values()
        test.__signature__ = inspect.Signature([owner, case.replace(name="harness"), *further])  # type: ignore[attr-defined] # a function has one
        marked: Callable[..., None] = pytest.mark.guarantee(number)(test)
        return marked

    return test_of


@asynccontextmanager
async def closed_after(opened: C) -> AsyncIterator[C]:
    """Close a venue or its adapter at the end of a block."""
    try:
        yield opened
    finally:
        await opened.close()


def needs(harness: VenueHarness, offer: Offer) -> None:
    """Skip the test, with the reason, where the harness lacks the offer."""
    if offer not in harness.offers:
        pytest.skip(f"not tried: the harness has no {offer}")


def other(key: Key) -> Key:
    """The other side of the same symbol."""
    return (key[0], "short" if key[1] == "long" else "long")


def closing(key: Key, amount: Decimal, name: str, *, reduce_only: bool = True) -> OrderRequest:
    """An order that closes `amount` contracts of a position."""
    side: OrderSide = "sell" if key[1] == "long" else "buy"
    return OrderRequest(name, key[0], side, key[1], amount, reduce_only)


def sizes(seen: AccountSnapshot) -> dict[Key, Decimal]:
    """Contracts by position. Asserts that the answer is `ok`, no size is negative, and each position is there once."""
    assert seen.quality == "ok", seen.reason
    assert seen.positions is not None
    assert all(position.contracts >= ZERO for position in seen.positions)
    held = {position.key: position.contracts for position in seen.positions if position.contracts}
    assert len({position.key for position in seen.positions}) == len(seen.positions)
    return held


async def refusal(call: Awaitable[object]) -> RejectReason:
    """The reason for which the venue refuses the order of a call."""
    refused = await outcome(call)
    assert isinstance(refused, OrderRejectedError), repr(refused)
    return refused.reason


async def outcome(call: Awaitable[object]) -> object:
    """The result of a call, or the error that it raises."""
    try:
        return await call
    except VenueError as error:
        return error
