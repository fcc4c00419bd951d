"""The guarantees, numbered; each is a test. Numbers are never used again for something else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs

from killswitch.conformance.stand import Key, Mishap, Offer, Stand
from killswitch.model.inspection import InspectedVenue
from killswitch.model.snapshot import (
    UNIT_FLOWS,
    AccountSnapshot,
    OrderSide,
    Snapshot,
    decode_snapshot,
    encode_snapshot,
)
from killswitch.model.venue import (
    BatchingVenue,
    Call,
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
READING: tuple[Call, ...] = ("snapshot", "find_order", "open_orders")
NOT_DONE: tuple[Mishap, ...] = ("lost", "silent", "down", "limited")
Trial = Callable[[VenueAdapter], Awaitable[None]]


def guarantee(number: str) -> pytest.MarkDecorator:
    """Says which guarantee a test holds an adapter against."""
    return pytest.mark.guarantee(number)


class AdapterGuarantees:
    """Subclass it, and give it a fixture `stand`."""

    @pytest.fixture
    def stand(self) -> Stand:
        """The venue in the tester's hands."""
        raise NotImplementedError("a subclass of AdapterGuarantees gives a fixture `stand`; see docs/conformance.md")

    # Reading

    @guarantee("G01")
    def test_an_empty_account_is_flat_and_says_so(self, stand: Stand) -> None:
        """No positions is an empty list of an answer that is `ok`, with what the account is worth."""

        async def trial(venue: VenueAdapter) -> None:
            seen = await venue.snapshot()
            assert (seen.quality, seen.positions) == ("ok", ())
            assert seen.equity == stand.equity()

        _try(stand, {}, trial)

    @guarantee("G02")
    def test_every_position_is_shown_with_its_side_and_size(self, stand: Stand) -> None:
        """Long and short, in contracts, never negative, each once; at the market's price, where that is told."""
        first, second = stand.symbols
        book: dict[Key, Decimal] = {(first, "long"): Decimal("1.5"), (second, "short"): Decimal(3)}

        async def trial(venue: VenueAdapter) -> None:
            seen = await venue.snapshot()
            assert _sizes(seen) == book
            assert seen.equity == stand.equity()
            for position in seen.positions or ():
                assert position.mark_price in (None, Decimal(100))
                assert position.notional in (None, position.contracts * stand.contract_size * 100)

        _try(stand, book, trial)

    @guarantee("G03")
    @pytest.mark.parametrize("mishap", ["lost", "silent", "garbled", "down", "limited"])
    def test_a_failed_reading_is_never_an_empty_account_nor_an_old_one(self, stand: Stand, mishap: Mishap) -> None:
        """It is an error, or a quality that is not `ok`, with a reason; the next reading is whole again."""
        _needs(stand, "faults")
        book = _one(stand)

        (key,) = book

        async def trial(venue: VenueAdapter) -> None:
            await venue.snapshot()
            await stand.trade(key, Decimal(-1))
            now = {key: book[key] - 1}
            stand.breaks("snapshot", mishap)
            try:
                seen = await venue.snapshot()
            except VenueError as error:
                assert str(error)
            else:
                # A venue client may ask again by itself: then the answer is good, and must be whole, and of now.
                assert seen.reason if seen.quality != "ok" else _sizes(seen) == now
            assert _sizes(await venue.snapshot()) == now

        _try(stand, book, trial)

    @guarantee("G04")
    def test_a_snapshot_fits_the_public_format(self, stand: Stand) -> None:
        """Names of the account, exact decimals, the time of the reading; written and read again it is the same."""

        async def trial(venue: VenueAdapter) -> None:
            before = stand.now()
            seen = await venue.snapshot()
            assert seen.account == venue.account
            assert seen.observed_at is not None
            assert before <= seen.observed_at <= stand.now()
            whole = Snapshot(seen.observed_at, (seen,), "killswitch.snapshot/v1")
            assert decode_snapshot(encode_snapshot(whole)) == whole

        _try(stand, _one(stand), trial)

    @guarantee("G05")
    def test_the_rules_of_a_position_are_told_with_it(self, stand: Stand) -> None:
        """Contract size and amount step are there and true, or no exact order could be made."""

        async def trial(venue: VenueAdapter) -> None:
            seen = await venue.snapshot()
            rules = {each.symbol: each for each in seen.instruments or ()}
            for position in seen.positions or ():
                rule = rules[position.symbol]
                assert (rule.contract_size, rule.amount_step, rule.inverse) == (
                    stand.contract_size, stand.amount_step, False,
                )  # fmt: skip

        _try(stand, _one(stand), trial)

    @guarantee("G06")
    def test_resting_orders_are_all_shown_conditional_ones_included(self, stand: Stand) -> None:
        """A limit order and a stop; the stop says at which price it wakes, and that it reduces."""
        _needs(stand, "stops")
        (key,) = book = _one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await stand.rest(key[0], "buy", Decimal(1))
            await stand.rest(key[0], "sell", book[key], trigger=Decimal(50))
            for found in (await venue.open_orders(), (await venue.snapshot()).orders):
                assert found is not None
                triggers = sorted(order.trigger_price or ZERO for order in found)
                assert triggers == [ZERO, Decimal(50)]
                assert [order.reduce_only for order in found if order.trigger_price] == [True]

        _try(stand, book, trial)

    @guarantee("G07")
    def test_what_another_hand_does_shows(self, stand: Stand) -> None:
        """A position that somebody changes is shown as it is now, within the stand's patience."""
        (key,) = book = _one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await venue.snapshot()
            await stand.trade(key, Decimal(-1))
            await _until(stand, venue, lambda seen: _sizes(seen) == {key: book[key] - 1})

        _try(stand, book, trial)

    @guarantee("G08")
    @pytest.mark.parametrize("amount", ["5000", "-700"])
    def test_money_that_comes_and_goes_is_a_flow_with_its_sign(self, stand: Stand, amount: str) -> None:
        """One row of one id, in the account's currency, however often it is told."""
        _needs(stand, "flows")

        async def trial(venue: VenueAdapter) -> None:
            told: dict[str, Decimal] = {}

            def shown(seen: AccountSnapshot) -> bool:
                for flow in seen.flows or ():
                    assert (flow.kind in UNIT_FLOWS, flow.currency) == (True, seen.currency)
                    told[flow.id] = flow.amount
                return bool(told)

            shown(await venue.snapshot())
            await stand.flow(Decimal(amount))
            await _until(stand, venue, shown)
            shown(await venue.snapshot())
            assert list(told.values()) == [Decimal(amount)]

        _try(stand, _one(stand), trial)

    # Orders

    @guarantee("G09")
    def test_an_order_is_taken_once_and_found_by_its_own_id(self, stand: Stand) -> None:
        """The position shrinks by exactly the amount, and asking tells what sending told."""
        (key,) = book = _one(stand)

        async def trial(venue: VenueAdapter) -> None:
            request = _closing(key, Decimal("0.123"), "ks0001")
            await venue.submit(request)
            found = await venue.find_order(key[0], "ks0001")
            assert found is not None
            assert (found.state, found.filled) == ("filled", Decimal("0.123"))
            assert found.average_price in (None, Decimal(100))
            assert (stand.taken("ks0001"), stand.held(key)) == (1, book[key] - Decimal("0.123"))
            filled = await venue.fills(key[0], "ks0001")
            assert sum((fill.amount for fill in filled), ZERO) == Decimal("0.123")
            assert {(fill.side, fill.price, fill.symbol) for fill in filled} == {(request.side, Decimal(100), key[0])}

        _try(stand, book, trial)

    @guarantee("G10")
    def test_an_order_that_never_was_is_none(self, stand: Stand) -> None:
        """None is the venue's own word, also right after another order was sent."""
        (key,) = book = _one(stand)

        async def trial(venue: VenueAdapter) -> None:
            assert await venue.find_order(key[0], "ks0404") is None
            await venue.submit(_closing(key, Decimal(1), "ks0001"))
            assert await venue.find_order(key[0], "ks0404") is None
            assert await venue.fills(key[0], "ks0404") == ()

        _try(stand, book, trial)

    @guarantee("G11")
    @pytest.mark.parametrize("mishap", ["lost", "silent", "garbled", "down", "limited"])
    def test_an_order_that_cannot_be_asked_about_is_not_none(self, stand: Stand, mishap: Mishap) -> None:
        """No answer is an error: taken for absence, the order would be sent again."""
        _needs(stand, "faults")
        (key,) = book = _one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await venue.submit(_closing(key, Decimal(1), "ks0001"))
            stand.breaks("find_order", mishap)
            try:
                found = await venue.find_order(key[0], "ks0001")
            except VenueError:
                return
            assert found is not None

        _try(stand, book, trial)

    @guarantee("G12")
    @pytest.mark.parametrize("mishap", ["lost", "done", "silent", "done_silent", "garbled", "down", "limited"])
    def test_what_is_said_of_a_broken_order_is_true(self, stand: Stand, mishap: Mishap) -> None:
        """Refused, limited and down are said only of what was not done; an order is never sent twice by itself."""
        _needs(stand, "faults")
        (key,) = book = _one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await venue.snapshot()
            stand.breaks("submit", mishap)
            said = await _outcome(venue.submit(_closing(key, Decimal(1), "ks0001")))
            assert not isinstance(said, OrderReport), "an answer that never came was taken for one"
            assert stand.taken("ks0001") == (0 if mishap in NOT_DONE else 1)
            if isinstance(said, OrderRejectedError | RateLimitedError | VenueDownError):
                assert stand.taken("ks0001") == 0, f"{type(said).__name__}, and it was done"
            else:
                assert isinstance(said, FateUnknownError | MalformedAnswerError), repr(said)

        _try(stand, book, trial)

    @guarantee("G13")
    def test_the_venue_takes_an_id_only_once(self, stand: Stand) -> None:
        """Sent again, it is refused as a duplicate: what is sent twice by mistake is done once."""
        (key,) = book = _one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await venue.submit(_closing(key, Decimal(1), "ks0001"))
            said = await _outcome(venue.submit(_closing(key, Decimal(1), "ks0001")))
            assert isinstance(said, OrderRejectedError)
            assert said.reason == "duplicate_client_order_id"
            assert stand.held(key) == book[key] - 1

        _try(stand, book, trial)

    @guarantee("G14")
    def test_a_reduce_only_order_never_turns_a_position(self, stand: Stand) -> None:
        """More than there is closes what there is, or is refused; nothing is opened on the other side."""
        (key,) = book = _one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await _outcome(venue.submit(_closing(key, book[key] + 1, "ks0001")))
            assert stand.held(key) in (ZERO, book[key])
            assert stand.held(_other(key)) == ZERO

        _try(stand, book, trial)

    @guarantee("G15")
    def test_reducing_what_is_flat_is_refused_as_such(self, stand: Stand) -> None:
        """`already_flat`, since that is good news and any other refusal is not."""
        first, second = stand.symbols

        async def trial(venue: VenueAdapter) -> None:
            await venue.snapshot()
            said = await _outcome(venue.submit(_closing((second, "long"), Decimal(1), "ks0001")))
            assert isinstance(said, OrderRejectedError)
            assert said.reason == "already_flat"

        _try(stand, {(first, "long"): Decimal(2)}, trial)

    @guarantee("G16")
    def test_too_small_and_too_large_are_told_apart(self, stand: Stand) -> None:
        """The close cuts what is too large, and leaves what is too small."""
        _needs(stand, "minimum")
        (key,) = book = _one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await venue.snapshot()
            small = await _outcome(venue.submit(_closing(key, Decimal("0.001"), "ks0001", reduce_only=False)))
            assert isinstance(small, OrderRejectedError)
            assert small.reason == "below_minimum"
            if "maximum" in stand.offers:
                large = await _outcome(venue.submit(_closing(key, Decimal(500), "ks0002")))
                assert isinstance(large, OrderRejectedError)
                assert large.reason == "above_maximum"

        _try(stand, {**book, key: Decimal(1000)}, trial)

    @guarantee("G17")
    def test_a_cancelled_order_is_gone_and_cancelling_again_is_no_error(self, stand: Stand) -> None:
        """A limit order and, where there are some, a stop."""
        (key,) = book = _one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await stand.rest(key[0], "buy", Decimal(1))
            if "stops" in stand.offers:
                await stand.rest(key[0], "sell", book[key], trigger=Decimal(50))
            for order in await venue.open_orders():
                await venue.cancel(key[0], order.id)
                await venue.cancel(key[0], order.id)
            assert stand.resting() == 0
            assert await venue.open_orders() == ()

        _try(stand, book, trial)

    @guarantee("G18")
    def test_a_batch_answers_for_each_order_in_its_place(self, stand: Stand) -> None:
        """A refused one among good ones stays where it was asked, and the good ones are done."""
        (key,) = book = _one(stand)

        async def trial(venue: VenueAdapter) -> None:
            if not isinstance(venue, BatchingVenue) or traits_of(venue).batch < 3:
                pytest.skip("not tried: it sends orders one by one")
            await venue.snapshot()
            flat: Key = (stand.symbols[1], "long")
            asked = [
                _closing(key, Decimal("0.5"), "ks0001"),
                _closing(flat, Decimal(1), "ks0002"),
                _closing(key, Decimal("0.25"), "ks0003"),
            ]
            good, bad, last = await venue.submit_batch(asked)
            assert isinstance(good, OrderReport)
            assert isinstance(bad, OrderRejectedError)
            assert isinstance(last, OrderReport)
            assert (good.client_order_id, last.client_order_id) == ("ks0001", "ks0003")
            assert stand.held(key) == book[key] - Decimal("0.75")

        _try(stand, book, trial)

    @guarantee("G19")
    @pytest.mark.parametrize("side", ["long", "short"])
    def test_in_hedge_mode_one_side_is_closed_and_the_other_left(self, stand: Stand, side: Any) -> None:
        """Both sides of one symbol are two positions."""
        _needs(stand, "hedge")
        symbol = stand.symbols[0]
        book: dict[Key, Decimal] = {(symbol, "long"): Decimal(2), (symbol, "short"): Decimal(3)}
        key: Key = (symbol, side)

        async def trial(venue: VenueAdapter) -> None:
            assert _sizes(await venue.snapshot()) == book
            await venue.submit(_closing(key, Decimal(1), "ks0001"))
            assert stand.held(key) == book[key] - 1
            assert stand.held(_other(key)) == book[_other(key)]

        _try(stand, book, trial, hedge=True)

    @guarantee("G26")
    def test_a_book_of_more_than_one_page_is_shown_whole(self, stand: Stand) -> None:
        """Positions and resting orders, however many the venue gives at once."""
        symbols = (*stand.symbols, *stand.more)
        book: dict[Key, Decimal] = {(symbol, "long"): Decimal(2) for symbol in symbols}

        async def trial(venue: VenueAdapter) -> None:
            for symbol in symbols:
                await stand.rest(symbol, "buy", Decimal(1))
            seen = await venue.snapshot()
            assert _sizes(seen) == book
            assert sorted(order.symbol for order in seen.orders or ()) == sorted(symbols)
            assert sorted(order.symbol for order in await venue.open_orders()) == sorted(symbols)

        _try(stand, book, trial)

    @guarantee("G27")
    def test_a_limit_and_a_stop_of_ours_rest_as_they_were_sent(self, stand: Stand) -> None:
        """With their prices and sizes, the limit under its own id, the stop under that or none; neither has traded."""
        _needs(stand, "stops")
        (key,) = book = _one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await venue.snapshot()
            buy = OrderRequest("ks0001", key[0], "buy", "long", Decimal("0.5"), False, "limit", Decimal(60))
            stop = _closing(key, Decimal("0.25"), "ks0002")
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

        _try(stand, book, trial)

    # The adapter itself

    @guarantee("G20")
    def test_what_it_says_of_its_venue_holds_together(self, stand: Stand) -> None:
        """Every cost is of a limit that there is, within what that limit allows; ids of the longest form are taken."""
        (key,) = book = _one(stand)

        async def trial(venue: VenueAdapter) -> None:
            traits = traits_of(venue)
            allowed = {limit.name: limit.allowed for limit in traits.limits}
            for cost in traits.costs:
                assert cost.units + cost.each <= allowed[cost.limit], cost
            rule = traits.client_ids
            longest = {
                "plain": "k" * rule.longest,
                "hex": "0x" + "a" * 32,
                "uuid": "a" * 8 + "-aaaa" * 3 + "-" + "a" * 12,
            }
            name = longest[rule.form]
            await venue.submit(_closing(key, Decimal(1), name))
            assert stand.taken(name) == 1

        _try(stand, book, trial)

    @guarantee("G21")
    def test_no_credential_is_ever_said(self, stand: Stand) -> None:
        """Not in an error, not in a reason, not in what the adapter looks like."""
        (key,) = book = _one(stand)

        async def trial(venue: VenueAdapter) -> None:
            said = [repr(venue), str(venue), repr(await venue.snapshot())]
            for call in READING if "faults" in stand.offers else ():
                stand.breaks(call, "garbled")
            said += [repr(await _outcome(venue.snapshot()))]
            said += [repr(await _outcome(venue.find_order(key[0], "ks0404")))]
            said += [repr(await _outcome(venue.open_orders()))]
            for secret in stand.secrets:
                assert not [each for each in said if secret in each]

        _try(stand, book, trial)

    @guarantee("G22")
    def test_calls_go_on_beside_each_other(self, stand: Stand) -> None:
        """Reading, asking and sending at the same time disturb each other in nothing."""
        (key,) = book = _one(stand)

        async def trial(venue: VenueAdapter) -> None:
            seen, sent, missing, resting = await asyncio.gather(
                venue.snapshot(),
                venue.submit(_closing(key, Decimal(1), "ks0001")),
                venue.find_order(key[0], "ks0404"),
                venue.open_orders(),
            )
            assert seen.quality == "ok"
            assert (sent.client_order_id, missing, resting) == ("ks0001", None, ())
            assert stand.held(key) == book[key] - 1

        _try(stand, book, trial)

    @guarantee("G23")
    def test_a_call_that_is_called_off_leaves_it_whole(self, stand: Stand) -> None:
        """The next reading works as if nothing had been."""
        _needs(stand, "faults")
        book = _one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await venue.snapshot()
            stand.breaks("snapshot", "silent")
            task = asyncio.ensure_future(venue.snapshot())
            await asyncio.sleep(0.5)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert _sizes(await venue.snapshot()) == book

        _try(stand, book, trial)

    @guarantee("G24")
    def test_looking_changes_nothing(self, stand: Stand) -> None:
        """Reading and inspecting leave every position and every order as they are."""
        (key,) = book = _one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await stand.rest(key[0], "buy", Decimal(1))
            await venue.snapshot()
            await venue.open_orders()
            if isinstance(venue, InspectedVenue):
                found = await venue.inspect()
                assert len({each.name for each in found.capabilities}) == len(found.capabilities)
            assert (stand.held(key), stand.resting()) == (book[key], 1)

        _try(stand, book, trial)

    @guarantee("G25")
    def test_it_can_be_closed_twice(self, stand: Stand) -> None:
        """Used or not; giving back is never an error."""

        async def trial(venue: VenueAdapter) -> None:
            await venue.snapshot()
            await venue.close()

        _try(stand, {}, trial)


def _try(stand: Stand, book: Mapping[Key, Decimal], trial: Trial, *, hedge: bool = False) -> None:
    async def course() -> None:
        venue = await stand.open(book, hedge=hedge)
        try:
            await trial(venue)
        finally:
            await venue.close()
            await stand.close()

    stand.run(course())


def _needs(stand: Stand, offer: Offer) -> None:
    if offer not in stand.offers:
        pytest.skip(f"not tried: the stand has no {offer}")


def _one(stand: Stand) -> dict[Key, Decimal]:
    return {(stand.symbols[0], "long"): Decimal(4)}


def _other(key: Key) -> Key:
    return (key[0], "short" if key[1] == "long" else "long")


def _closing(key: Key, amount: Decimal, name: str, *, reduce_only: bool = True) -> OrderRequest:
    side: OrderSide = "sell" if key[1] == "long" else "buy"
    return OrderRequest(name, key[0], side, key[1], amount, reduce_only)


def _sizes(seen: AccountSnapshot) -> dict[Key, Decimal]:
    assert seen.quality == "ok", seen.reason
    assert seen.positions is not None
    assert all(position.contracts >= ZERO for position in seen.positions)
    sizes = {position.key: position.contracts for position in seen.positions if position.contracts}
    assert len({position.key for position in seen.positions}) == len(seen.positions)
    return sizes


async def _until(stand: Stand, venue: VenueAdapter, shown: Callable[[AccountSnapshot], bool]) -> None:
    waited = 0.0
    while not shown(await venue.snapshot()):
        assert waited < stand.patience, "it does not show"
        await asyncio.sleep(1.0)
        waited += 1.0


async def _outcome(call: Awaitable[object]) -> object:
    try:
        return await call
    except VenueError as error:
        return error
