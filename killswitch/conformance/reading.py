"""What an adapter says of an account."""

from __future__ import annotations

from decimal import Decimal

import pytest

from killswitch.conformance.stand import Key, Mishap, Stand
from killswitch.conformance.trial import (
    guarantee,
    needs,
    one,
    sizes,
    tried,
    until,
)
from killswitch.model.snapshot import (
    UNIT_FLOWS,
    AccountSnapshot,
    Snapshot,
    decode_snapshot,
    encode_snapshot,
)
from killswitch.model.venue import (
    VenueAdapter,
    VenueError,
)

ZERO = Decimal(0)


class ReadingGuarantees:
    """Flat is flat, unknown is unknown, and every number is the venue's."""

    @guarantee("G01")
    def test_an_empty_account_is_flat_and_says_so(self, stand: Stand) -> None:
        """No positions is an empty list of an answer that is `ok`, with what the account is worth."""

        async def trial(venue: VenueAdapter) -> None:
            seen = await venue.snapshot()
            assert (seen.quality, seen.positions) == ("ok", ())
            assert seen.equity == stand.equity()

        tried(stand, {}, trial)

    @guarantee("G02")
    def test_every_position_is_shown_with_its_side_and_size(self, stand: Stand) -> None:
        """Long and short, in contracts, never negative, each once; at the market's price, where that is told."""
        first, second = stand.symbols
        book: dict[Key, Decimal] = {(first, "long"): Decimal("1.5"), (second, "short"): Decimal(3)}

        async def trial(venue: VenueAdapter) -> None:
            seen = await venue.snapshot()
            assert sizes(seen) == book
            assert seen.equity == stand.equity()
            for position in seen.positions or ():
                assert position.mark_price in (None, Decimal(100))
                assert position.notional in (None, position.contracts * stand.contract_size * 100)

        tried(stand, book, trial)

    @guarantee("G03")
    @pytest.mark.parametrize("mishap", ["lost", "silent", "garbled", "down", "limited"])
    def test_a_failed_reading_is_never_an_empty_account_nor_an_old_one(self, stand: Stand, mishap: Mishap) -> None:
        """It is an error, or a quality that is not `ok`, with a reason; the next reading is whole again."""
        needs(stand, "faults")
        book = one(stand)

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
                assert seen.reason if seen.quality != "ok" or seen.positions is None else sizes(seen) == now
            assert sizes(await venue.snapshot()) == now

        tried(stand, book, trial)

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

        tried(stand, one(stand), trial)

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

        tried(stand, one(stand), trial)

    @guarantee("G06")
    def test_resting_orders_are_all_shown_conditional_ones_included(self, stand: Stand) -> None:
        """A limit order and a stop; the stop says at which price it wakes, and that it reduces."""
        needs(stand, "stops")
        (key,) = book = one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await stand.rest(key[0], "buy", Decimal(1))
            await stand.rest(key[0], "sell", book[key], trigger=Decimal(50))
            for found in (await venue.open_orders(), (await venue.snapshot()).orders):
                assert found is not None
                triggers = sorted(order.trigger_price or ZERO for order in found)
                assert triggers == [ZERO, Decimal(50)]
                assert [order.reduce_only for order in found if order.trigger_price] == [True]

        tried(stand, book, trial)

    @guarantee("G07")
    def test_what_another_hand_does_shows(self, stand: Stand) -> None:
        """A position that somebody changes is shown as it is now, within the stand's patience."""
        (key,) = book = one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await venue.snapshot()
            await stand.trade(key, Decimal(-1))
            await until(stand, venue, lambda seen: sizes(seen) == {key: book[key] - 1})

        tried(stand, book, trial)

    @guarantee("G08")
    @pytest.mark.parametrize("amount", ["5000", "-700"])
    def test_money_that_comes_and_goes_is_a_flow_with_its_sign(self, stand: Stand, amount: str) -> None:
        """One row of one id, in the account's currency, however often it is told."""
        needs(stand, "flows")

        async def trial(venue: VenueAdapter) -> None:
            told: dict[str, Decimal] = {}

            def shown(seen: AccountSnapshot) -> bool:
                for flow in seen.flows or ():
                    assert (flow.kind in UNIT_FLOWS, flow.currency) == (True, seen.currency)
                    told[flow.id] = flow.amount
                return bool(told)

            shown(await venue.snapshot())
            await stand.flow(Decimal(amount))
            await until(stand, venue, shown)
            shown(await venue.snapshot())
            assert list(told.values()) == [Decimal(amount)]

        tried(stand, one(stand), trial)
