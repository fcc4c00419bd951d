"""What an adapter does with orders, and says of them."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs

from killswitch.conformance.stand import Key, Mishap, Stand
from killswitch.conformance.trial import (
    NOT_DONE,
    closing,
    guarantee,
    needs,
    one,
    other,
    outcome,
    sizes,
    tried,
)
from killswitch.model.venue import (
    BatchingVenue,
    FateUnknownError,
    MalformedAnswerError,
    OrderRejectedError,
    OrderReport,
    OrderRequest,
    RateLimitedError,
    VenueAdapter,
    VenueDownError,
    VenueError,
    traits_of,
)

ZERO = Decimal(0)
HELD, HELD_LONG = 8.0, 40.0
"""Seconds after which an order arrives that is held up."""
REDIRECTED = 7
"""Orders that are answered with a redirect, so that a stand may try each of its statuses."""


class OrderGuarantees:
    """An order is sent once, under its name, and its fate is told as it is known."""

    @guarantee("G09")
    def test_an_order_is_taken_once_and_found_by_its_own_id(self, stand: Stand) -> None:
        """The position shrinks by exactly the amount, and asking tells what sending told."""
        (key,) = book = one(stand)

        async def trial(venue: VenueAdapter) -> None:
            request = closing(key, Decimal("0.123"), "ks0001")
            await venue.submit(request)
            found = await venue.find_order(key[0], "ks0001")
            assert found is not None
            assert (found.state, found.filled) == ("filled", Decimal("0.123"))
            assert found.average_price in (None, Decimal(100))
            assert (stand.taken("ks0001"), stand.held(key)) == (1, book[key] - Decimal("0.123"))
            filled = await venue.fills(key[0], "ks0001")
            assert sum((fill.amount for fill in filled), ZERO) == Decimal("0.123")
            assert {(fill.side, fill.price, fill.symbol) for fill in filled} == {(request.side, Decimal(100), key[0])}

        tried(stand, book, trial)

    @guarantee("G10")
    def test_an_order_that_never_was_is_none(self, stand: Stand) -> None:
        """None is the venue's own word, also right after another order was sent."""
        (key,) = book = one(stand)

        async def trial(venue: VenueAdapter) -> None:
            assert await venue.find_order(key[0], "ks0404") is None
            await venue.submit(closing(key, Decimal(1), "ks0001"))
            assert await venue.find_order(key[0], "ks0404") is None
            assert await venue.fills(key[0], "ks0404") == ()

        tried(stand, book, trial)

    @guarantee("G11")
    @pytest.mark.parametrize("mishap", ["lost", "silent", "garbled", "down", "limited"])
    def test_an_order_that_cannot_be_asked_about_is_not_none(self, stand: Stand, mishap: Mishap) -> None:
        """No answer is an error: taken for absence, the order would be sent again."""
        needs(stand, "faults")
        (key,) = book = one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await venue.submit(closing(key, Decimal(1), "ks0001"))
            stand.breaks("find_order", mishap)
            try:
                found = await venue.find_order(key[0], "ks0001")
            except VenueError:
                return
            assert found is not None

        tried(stand, book, trial)

    @guarantee("G12")
    @pytest.mark.parametrize(
        "mishap", ["lost", "done", "silent", "done_silent", "garbled", "mispacked", "down", "limited"]
    )
    def test_what_is_said_of_a_broken_order_is_true(self, stand: Stand, mishap: Mishap) -> None:
        """Refused, limited and down are said only of what was not done; an order is never sent twice by itself."""
        needs(stand, "hostile" if mishap == "mispacked" else "faults")
        (key,) = book = one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await venue.snapshot()
            stand.breaks("submit", mishap)
            said = await outcome(venue.submit(closing(key, Decimal(1), "ks0001")))
            assert not isinstance(said, OrderReport), "an answer that never came was taken for one"
            assert stand.taken("ks0001") == (0 if mishap in NOT_DONE else 1)
            if isinstance(said, OrderRejectedError | RateLimitedError | VenueDownError):
                assert stand.taken("ks0001") == 0, f"{type(said).__name__}, and it was done"
            else:
                assert isinstance(said, FateUnknownError | MalformedAnswerError), repr(said)

        tried(stand, book, trial)

    @guarantee("G28")
    def test_a_redirect_is_followed_nowhere_and_answers_nothing(self, stand: Stand) -> None:
        """No status of 3xx sends a request on; of a change it leaves the fate unknown, and for a reading it is down."""
        needs(stand, "hostile")
        (key,) = book = one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await venue.snapshot()
            await stand.rest(key[0], "buy", Decimal(1))
            (resting,) = await venue.open_orders()
            for number in range(REDIRECTED):
                stand.breaks("submit", "redirected")
                sent = await outcome(venue.submit(closing(key, Decimal(1), f"ks000{number}")))
                assert isinstance(sent, FateUnknownError), repr(sent)
                assert stand.taken(f"ks000{number}") == 0
            stand.breaks("cancel", "redirected")
            assert isinstance(await outcome(venue.cancel(key[0], resting.id)), FateUnknownError)
            assert stand.resting() == 1
            stand.breaks("find_order", "redirected")
            assert isinstance(await outcome(venue.find_order(key[0], "ks0000")), VenueDownError)
            stand.breaks("open_orders", "redirected")
            assert isinstance(await outcome(venue.open_orders()), VenueDownError)
            stand.breaks("snapshot", "redirected")
            seen: Any = await outcome(venue.snapshot())
            assert isinstance(seen, VenueDownError) or (seen.quality == "down" or seen.positions is None), repr(seen)
            assert stand.strayed() == 0
            assert sizes(await venue.snapshot()) == book

        tried(stand, book, trial)

    @guarantee("G29")
    def test_an_answer_without_measure_is_no_answer(self, stand: Stand) -> None:
        """Beyond its largest size nothing is read of it, however small it was packed; the next answer is taken."""
        needs(stand, "hostile")
        (key,) = book = one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await venue.snapshot()
            stand.breaks("submit", "huge")
            sent = await outcome(venue.submit(closing(key, Decimal(1), "ks0001")))
            assert isinstance(sent, FateUnknownError | MalformedAnswerError), repr(sent)
            assert stand.taken("ks0001") == 1
            stand.breaks("snapshot", "huge")
            seen: Any = await outcome(venue.snapshot())
            assert isinstance(seen, VenueError) or (seen.quality != "ok" or seen.positions is None), repr(seen)
            assert sizes(await venue.snapshot()) == {key: book[key] - 1}

        tried(stand, book, trial)

    @guarantee("G13")
    def test_the_venue_takes_an_id_only_once(self, stand: Stand) -> None:
        """Sent again, it is refused as a duplicate: what is sent twice by mistake is done once."""
        (key,) = book = one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await venue.submit(closing(key, Decimal(1), "ks0001"))
            said = await outcome(venue.submit(closing(key, Decimal(1), "ks0001")))
            assert isinstance(said, OrderRejectedError)
            assert said.reason == "duplicate_client_order_id"
            assert stand.held(key) == book[key] - 1

        tried(stand, book, trial)

    @guarantee("G14")
    def test_a_reduce_only_order_never_turns_a_position(self, stand: Stand) -> None:
        """More than there is closes what there is, or is refused; nothing is opened on the other side."""
        (key,) = book = one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await outcome(venue.submit(closing(key, book[key] + 1, "ks0001")))
            assert stand.held(key) in (ZERO, book[key])
            assert stand.held(other(key)) == ZERO

        tried(stand, book, trial)

    @guarantee("G15")
    def test_reducing_what_is_flat_is_refused_as_such(self, stand: Stand) -> None:
        """`already_flat`, since that is good news and any other refusal is not."""
        first, second = stand.symbols

        async def trial(venue: VenueAdapter) -> None:
            await venue.snapshot()
            said = await outcome(venue.submit(closing((second, "long"), Decimal(1), "ks0001")))
            assert isinstance(said, OrderRejectedError)
            assert said.reason == "already_flat"

        tried(stand, {(first, "long"): Decimal(2)}, trial)

    @guarantee("G16")
    def test_too_small_and_too_large_are_told_apart(self, stand: Stand) -> None:
        """The close cuts what is too large, and leaves what is too small."""
        needs(stand, "minimum")
        (key,) = book = one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await venue.snapshot()
            small = await outcome(venue.submit(closing(key, Decimal("0.001"), "ks0001", reduce_only=False)))
            assert isinstance(small, OrderRejectedError)
            assert small.reason == "below_minimum"
            if "maximum" in stand.offers:
                large = await outcome(venue.submit(closing(key, Decimal(500), "ks0002")))
                assert isinstance(large, OrderRejectedError)
                assert large.reason == "above_maximum"

        tried(stand, {**book, key: Decimal(1000)}, trial)

    @guarantee("G17")
    def test_a_cancelled_order_is_gone_and_cancelling_again_is_no_error(self, stand: Stand) -> None:
        """A limit order and, where there are some, a stop."""
        (key,) = book = one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await stand.rest(key[0], "buy", Decimal(1))
            if "stops" in stand.offers:
                await stand.rest(key[0], "sell", book[key], trigger=Decimal(50))
            for order in await venue.open_orders():
                await venue.cancel(key[0], order.id)
                await venue.cancel(key[0], order.id)
            assert stand.resting() == 0
            assert await venue.open_orders() == ()

        tried(stand, book, trial)

    @guarantee("G18")
    def test_a_batch_answers_for_each_order_in_its_place(self, stand: Stand) -> None:
        """A refused one among good ones stays where it was asked, and the good ones are done."""
        (key,) = book = one(stand)

        async def trial(venue: VenueAdapter) -> None:
            if not isinstance(venue, BatchingVenue) or traits_of(venue).batch < 3:
                pytest.skip("not tried: it sends orders one by one")
            await venue.snapshot()
            flat: Key = (stand.symbols[1], "long")
            asked = [
                closing(key, Decimal("0.5"), "ks0001"),
                closing(flat, Decimal(1), "ks0002"),
                closing(key, Decimal("0.25"), "ks0003"),
            ]
            good, bad, last = await venue.submit_batch(asked)
            assert isinstance(good, OrderReport)
            assert isinstance(bad, OrderRejectedError)
            assert isinstance(last, OrderReport)
            assert (good.client_order_id, last.client_order_id) == ("ks0001", "ks0003")
            assert stand.held(key) == book[key] - Decimal("0.75")

        tried(stand, book, trial)

    @guarantee("G19")
    @pytest.mark.parametrize("side", ["long", "short"])
    def test_in_hedge_mode_one_side_is_closed_and_the_other_left(self, stand: Stand, side: Any) -> None:
        """Both sides of one symbol are two positions."""
        needs(stand, "hedge")
        symbol = stand.symbols[0]
        book: dict[Key, Decimal] = {(symbol, "long"): Decimal(2), (symbol, "short"): Decimal(3)}
        key: Key = (symbol, side)

        async def trial(venue: VenueAdapter) -> None:
            assert sizes(await venue.snapshot()) == book
            await venue.submit(closing(key, Decimal(1), "ks0001"))
            assert stand.held(key) == book[key] - 1
            assert stand.held(other(key)) == book[other(key)]

        tried(stand, book, trial, hedge=True)

    @guarantee("G26")
    def test_a_book_of_more_than_one_page_is_shown_whole(self, stand: Stand) -> None:
        """Positions and resting orders, however many the venue gives at once."""
        symbols = (*stand.symbols, *stand.more)
        book: dict[Key, Decimal] = {(symbol, "long"): Decimal(2) for symbol in symbols}

        async def trial(venue: VenueAdapter) -> None:
            for symbol in symbols:
                await stand.rest(symbol, "buy", Decimal(1))
            seen = await venue.snapshot()
            assert sizes(seen) == book
            assert sorted(order.symbol for order in seen.orders or ()) == sorted(symbols)
            assert sorted(order.symbol for order in await venue.open_orders()) == sorted(symbols)

        tried(stand, book, trial)

    @guarantee("G27")
    def test_a_limit_and_a_stop_of_ours_rest_as_they_were_sent(self, stand: Stand) -> None:
        """With their prices and sizes, the limit under its own id, the stop under that or none; neither has traded."""
        needs(stand, "stops")
        (key,) = book = one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await venue.snapshot()
            buy = OrderRequest("ks0001", key[0], "buy", "long", Decimal("0.5"), False, "limit", Decimal(60))
            stop = closing(key, Decimal("0.25"), "ks0002")
            await venue.submit(buy)
            await venue.submit(structs.replace(stop, trigger_price=Decimal(50), trigger_when="falls"))
            resting = sorted(await venue.open_orders(), key=lambda order: order.trigger_price is not None)
            assert len(resting) == 2, "they do not both rest"
            limit, trigger = resting
            assert (limit.side, limit.amount, limit.price, limit.trigger_price) == (
                "buy",
                Decimal("0.5"),
                Decimal(60),
                None,
            )
            assert (trigger.side, trigger.amount, trigger.trigger_price) == ("sell", Decimal("0.25"), Decimal(50))
            assert limit.client_order_id == "ks0001"
            assert trigger.client_order_id in ("ks0002", None)
            assert stand.held(key) == book[key]

        tried(stand, book, trial)

    @guarantee("G31")
    def test_an_order_that_arrives_late_is_refused_or_known_by_its_name(self, stand: Stand) -> None:
        """As the adapter says in `order_life`: not done after its time; or not beside another one of its name."""
        needs(stand, "faults")
        (key,) = book = one(stand)

        async def trial(venue: VenueAdapter) -> None:
            life = traits_of(venue).order_life
            said = None if life.longest is None else min(life.longest, max(life.shortest, 3.0))
            request = structs.replace(closing(key, Decimal(1), "ks0001"), valid_for=said)
            bounds = [bound for bound in (said, life.always) if bound is not None]
            bound = min(bounds, default=HELD_LONG)
            bounded = bound < HELD_LONG
            if not bounded and life.names != "ever":
                pytest.skip(f"not tried: it names no bound below {HELD_LONG:g} s")
            await venue.snapshot()
            stand.breaks("submit", "held" if bound < HELD else "held_long")
            assert not isinstance(await outcome(venue.submit(request)), OrderReport)
            if not bounded:
                await outcome(venue.submit(request))
            await asyncio.sleep(HELD_LONG + 5.0)
            taken = 0 if bounded else 1
            assert (stand.taken("ks0001"), stand.held(key)) == (taken, book[key] - taken)

        tried(stand, book, trial)
