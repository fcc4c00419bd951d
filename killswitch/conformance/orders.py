"""Guarantees about orders."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.conformance.case import (
    NOT_DONE,
    ZERO,
    Book,
    ConformanceCase,
    closing,
    guarantee,
    needs,
    other,
    outcome,
    refusal,
    sizes,
)
from killswitch.conformance.harness import Key, Mishap, VenueHarness
from killswitch.model.venue import (
    FateUnknownError,
    MalformedAnswerError,
    OrderRejectedError,
    OrderReport,
    OrderRequest,
    RateLimitedError,
    VenueDownError,
    VenueError,
)

HELD, HELD_LONG = 8.0, 40.0
"""Seconds by which a delayed order arrives late."""
REDIRECTED = 7
"""Number of orders that are answered with a redirect, so that a harness may use each redirect status."""


def large(harness: VenueHarness) -> Book:
    """A position larger than the largest order."""
    return {(harness.symbols[0], "long"): Decimal(1000)}


def both_sides(harness: VenueHarness) -> Book:
    """Long and short in one symbol, as in hedge mode."""
    return {(harness.symbols[0], "long"): Decimal(2), (harness.symbols[0], "short"): Decimal(3)}


def everything(harness: VenueHarness) -> Book:
    """A long position in every symbol of the harness."""
    return {(symbol, "long"): Decimal(2) for symbol in (*harness.symbols, *harness.more)}


class OrderGuarantees:
    """An order is sent once, under its client order id, and its status is reported as it is known."""

    @guarantee("G09")
    async def test_an_order_executes_once_and_is_found_by_its_client_id(self, case: ConformanceCase) -> None:
        """The position shrinks by exactly the amount of the order, and a query returns what the submission returned."""
        request = case.closing(Decimal("0.123"), "ks0001")
        await case.venue.submit(request)
        found = await case.venue.find_order(case.symbol, "ks0001")
        assert found is not None
        assert (found.state, found.filled) == ("filled", Decimal("0.123"))
        assert found.average_price in (None, Decimal(100))
        assert (case.harness.taken("ks0001"), case.held()) == (1, case.size - Decimal("0.123"))
        filled = await case.venue.fills(case.symbol, "ks0001")
        assert sum((fill.amount for fill in filled), ZERO) == Decimal("0.123")
        assert {(fill.side, fill.price, fill.symbol) for fill in filled} == {(request.side, Decimal(100), case.symbol)}

    @guarantee("G10")
    async def test_an_order_that_was_never_sent_is_not_found(self, case: ConformanceCase) -> None:
        """`find_order` returns None only where the venue itself reports that there is no such order, also right
        after another order was sent."""
        assert await case.venue.find_order(case.symbol, "ks0404") is None
        await case.venue.submit(case.closing(Decimal(1), "ks0001"))
        assert await case.venue.find_order(case.symbol, "ks0404") is None
        assert await case.venue.fills(case.symbol, "ks0404") == ()

    @guarantee("G11", "faults")
    @pytest.mark.parametrize("mishap", ["lost", "silent", "garbled", "down", "limited"])
    async def test_a_failed_query_is_not_an_absent_order(self, case: ConformanceCase, mishap: Mishap) -> None:
        """A query without an answer raises an error: if it returned None, the order would be sent again."""
        await case.venue.submit(case.closing(Decimal(1), "ks0001"))
        case.harness.breaks("find_order", mishap)
        try:
            found = await case.venue.find_order(case.symbol, "ks0001")
        except VenueError:
            return
        assert found is not None

    @guarantee("G12")
    @pytest.mark.parametrize(
        "mishap", ["lost", "done", "silent", "done_silent", "garbled", "mispacked", "down", "limited"]
    )
    async def test_a_failed_submission_has_the_right_error(self, case: ConformanceCase, mishap: Mishap) -> None:
        """Rejected, rate-limited and down are raised only for an order that was not placed; the adapter never sends
        an order twice by itself."""
        needs(case.harness, "hostile" if mishap == "mispacked" else "faults")
        await case.venue.snapshot()
        result = await case.broken(mishap, "submit", case.closing(Decimal(1), "ks0001"))
        assert not isinstance(result, OrderReport), "a missing answer was reported as a result"
        assert case.harness.taken("ks0001") == (0 if mishap in NOT_DONE else 1)
        if isinstance(result, OrderRejectedError | RateLimitedError | VenueDownError):
            assert case.harness.taken("ks0001") == 0, f"{type(result).__name__}, and it was done"
        else:
            assert isinstance(result, FateUnknownError | MalformedAnswerError), repr(result)

    @guarantee("G28", "hostile")
    async def test_redirects_are_never_followed(self, case: ConformanceCase) -> None:
        """No 3xx status makes the adapter send a request elsewhere; a change then has status unknown, and a query is
        down."""
        await case.venue.snapshot()
        await case.harness.rest(case.symbol, "buy", Decimal(1))
        (resting,) = await case.venue.open_orders()
        for number in range(REDIRECTED):
            sent = await case.broken("redirected", "submit", case.closing(Decimal(1), f"ks000{number}"))
            assert isinstance(sent, FateUnknownError), repr(sent)
            assert case.harness.taken(f"ks000{number}") == 0
        assert isinstance(await case.broken("redirected", "cancel", case.symbol, resting.id), FateUnknownError)
        assert case.harness.resting() == 1
        assert isinstance(await case.broken("redirected", "find_order", case.symbol, "ks0000"), VenueDownError)
        assert isinstance(await case.broken("redirected", "open_orders"), VenueDownError)
        seen = await case.broken("redirected", "snapshot")
        assert isinstance(seen, VenueDownError) or (seen.quality == "down" or seen.positions is None), repr(seen)
        assert case.harness.strayed() == 0
        assert sizes(await case.venue.snapshot()) == case.book

    @guarantee("G29", "hostile")
    async def test_an_oversized_answer_is_no_answer(self, case: ConformanceCase) -> None:
        """Nothing is read of an answer beyond its largest size, however small it was when compressed; the next
        answer is read as usual."""
        await case.venue.snapshot()
        sent = await case.broken("huge", "submit", case.closing(Decimal(1), "ks0001"))
        assert isinstance(sent, FateUnknownError | MalformedAnswerError), repr(sent)
        assert case.harness.taken("ks0001") == 1
        seen = await case.broken("huge", "snapshot")
        assert isinstance(seen, VenueError) or (seen.quality != "ok" or seen.positions is None), repr(seen)
        assert sizes(await case.venue.snapshot()) == {case.key: case.size - 1}

    @guarantee("G13")
    async def test_the_venue_accepts_a_client_id_only_once(self, case: ConformanceCase) -> None:
        """An order that is sent again is refused as a duplicate, so that it takes effect once."""
        await case.venue.submit(case.closing(Decimal(1), "ks0001"))
        repeated = case.venue.submit(case.closing(Decimal(1), "ks0001"))
        assert await refusal(repeated) == "duplicate_client_order_id"
        assert case.held() == case.size - 1

    @guarantee("G14")
    async def test_a_reduce_only_order_never_turns_a_position(self, case: ConformanceCase) -> None:
        """A reduce-only order larger than the position closes it or is refused; nothing is opened on the other side."""
        await outcome(case.venue.submit(case.closing(case.size + 1, "ks0001")))
        assert case.held() in (ZERO, case.size)
        assert case.harness.held(other(case.key)) == ZERO

    @guarantee("G15")
    async def test_reducing_a_flat_position_is_refused_as_already_flat(self, case: ConformanceCase) -> None:
        """The reason is `already_flat`: it alone means that nothing is left to close."""
        second = case.harness.symbols[1]
        await case.venue.snapshot()
        assert await refusal(case.venue.submit(closing((second, "long"), Decimal(1), "ks0001"))) == "already_flat"

    @guarantee("G16", "minimum", book=large)
    async def test_too_small_and_too_large_have_different_reasons(self, case: ConformanceCase) -> None:
        """An order below the minimum and one above the maximum have different reasons: closing splits the large one
        and leaves the small one."""
        await case.venue.snapshot()
        small = case.closing(Decimal("0.001"), "ks0001", reduce_only=False)
        assert await refusal(case.venue.submit(small)) == "below_minimum"
        if "maximum" in case.harness.offers:
            assert await refusal(case.venue.submit(case.closing(Decimal(500), "ks0002"))) == "above_maximum"

    @guarantee("G17")
    async def test_a_cancelled_order_is_gone_and_cancelling_again_is_no_error(self, case: ConformanceCase) -> None:
        """A limit order and, where the venue has them, a stop order no longer rest after a cancel."""
        await case.harness.rest(case.symbol, "buy", Decimal(1))
        if "stops" in case.harness.offers:
            await case.harness.rest(case.symbol, "sell", case.size, trigger=Decimal(50))
        for order in await case.venue.open_orders():
            await case.venue.cancel(case.symbol, order.id)
            await case.venue.cancel(case.symbol, order.id)
        assert case.harness.resting() == 0
        assert await case.venue.open_orders() == ()

    @guarantee("G18")
    async def test_a_batch_returns_one_result_per_order_in_order(self, case: ConformanceCase) -> None:
        """A refused order keeps its position in the list of results, and the other orders of the batch are placed."""
        batches = case.venue.batches
        if batches is None or batches.most < 3:
            pytest.skip("not tried: it sends orders one by one")
        await case.venue.snapshot()
        flat: Key = (case.harness.symbols[1], "long")
        requests = [
            case.closing(Decimal("0.5"), "ks0001"),
            closing(flat, Decimal(1), "ks0002"),
            case.closing(Decimal("0.25"), "ks0003"),
        ]
        good, bad, last = await batches.submit(requests)
        assert isinstance(good, OrderReport)
        assert isinstance(bad, OrderRejectedError)
        assert isinstance(last, OrderReport)
        assert (good.client_order_id, last.client_order_id) == ("ks0001", "ks0003")
        assert case.held() == case.size - Decimal("0.75")

    @guarantee("G19", "hedge", book=both_sides, hedge=True)
    @pytest.mark.parametrize("side", ["long", "short"])
    async def test_in_hedge_mode_one_side_is_closed_and_the_other_left(self, case: ConformanceCase, side: Any) -> None:
        """Both sides of one symbol are two positions."""
        key: Key = (case.symbol, side)
        assert sizes(await case.venue.snapshot()) == case.book
        await case.venue.submit(closing(key, Decimal(1), "ks0001"))
        assert case.harness.held(key) == case.book[key] - 1
        assert case.harness.held(other(key)) == case.book[other(key)]

    @guarantee("G26", book=everything)
    async def test_a_book_of_several_pages_is_complete(self, case: ConformanceCase) -> None:
        """All positions and resting orders are listed, however many the venue returns at once."""
        symbols = (*case.harness.symbols, *case.harness.more)
        for symbol in symbols:
            await case.harness.rest(symbol, "buy", Decimal(1))
        seen = await case.venue.snapshot()
        assert sizes(seen) == case.book
        assert sorted(order.symbol for order in seen.orders or ()) == sorted(symbols)
        assert sorted(order.symbol for order in await case.venue.open_orders()) == sorted(symbols)

    @guarantee("G27", "stops")
    async def test_our_limit_and_stop_orders_rest_as_they_were_sent(self, case: ConformanceCase) -> None:
        """Both rest with their prices and sizes, the limit under its own id, the stop under its own id or none;
        neither has traded."""
        await case.venue.snapshot()
        buy = OrderRequest("ks0001", case.symbol, "buy", "long", Decimal("0.5"), False, "limit", Decimal(60))
        stop = case.closing(Decimal("0.25"), "ks0002")
        await case.venue.submit(buy)
        await case.venue.submit(replace(stop, trigger_price=Decimal(50), trigger_when="falls"))
        resting = sorted(await case.venue.open_orders(), key=lambda order: order.trigger_price is not None)
        assert len(resting) == 2, "they do not both rest"
        limit, trigger = resting
        assert (limit.side, limit.amount, limit.price, limit.trigger_price) == (buy.side, buy.amount, buy.price, None)
        assert (trigger.side, trigger.amount, trigger.trigger_price) == ("sell", Decimal("0.25"), Decimal(50))
        assert limit.client_order_id == "ks0001"
        assert trigger.client_order_id in ("ks0002", None)
        assert case.held() == case.size

    @guarantee("G31", "faults")
    async def test_a_late_order_is_refused_or_found_by_its_client_id(self, case: ConformanceCase) -> None:
        """As the adapter declares in `order_life`: a late order is not placed after its time, or not in addition to
        another one of the same name."""
        rule = case.venue.traits.order_life
        valid_seconds = None if rule.longest is None else min(rule.longest, max(rule.shortest, 3.0))
        request = replace(case.closing(Decimal(1), "ks0001"), valid_for=valid_seconds)
        bounds = [bound for bound in (valid_seconds, rule.always) if bound is not None]
        bound = min(bounds, default=HELD_LONG)
        bounded = bound < HELD_LONG
        if not bounded and rule.names != "ever":
            pytest.skip(f"not tried: it names no bound below {HELD_LONG:g} s")
        await case.venue.snapshot()
        late = await case.broken("held" if bound < HELD else "held_long", "submit", request)
        assert not isinstance(late, OrderReport)
        if not bounded:
            await outcome(case.venue.submit(request))
        await asyncio.sleep(HELD_LONG + 5.0)
        taken = 0 if bounded else 1
        assert (case.harness.taken("ks0001"), case.held()) == (taken, case.size - taken)
