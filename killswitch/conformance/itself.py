"""How an adapter behaves, whatever it is asked."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from killswitch.conformance.stand import Stand
from killswitch.conformance.trial import (
    READING,
    closing,
    guarantee,
    needs,
    one,
    outcome,
    sizes,
    tried,
)
from killswitch.model.inspection import InspectedVenue
from killswitch.model.venue import (
    VenueAdapter,
    traits_of,
)

ZERO = Decimal(0)


class OwnGuarantees:
    """It keeps secrets, works beside itself, and can be called off and closed."""

    @guarantee("G20")
    def test_what_it_says_of_its_venue_holds_together(self, stand: Stand) -> None:
        """Every cost is of a limit that there is, within what that limit allows; ids of the longest form are taken."""
        (key,) = book = one(stand)

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
            await venue.submit(closing(key, Decimal(1), name))
            assert stand.taken(name) == 1

        tried(stand, book, trial)

    @guarantee("G21")
    def test_no_credential_is_ever_said(self, stand: Stand) -> None:
        """Not in an error, not in a reason, not in what the adapter looks like."""
        (key,) = book = one(stand)

        async def trial(venue: VenueAdapter) -> None:
            said = [repr(venue), str(venue), repr(await venue.snapshot())]
            for call in READING if "faults" in stand.offers else ():
                stand.breaks(call, "garbled")
            said += [repr(await outcome(venue.snapshot()))]
            said += [repr(await outcome(venue.find_order(key[0], "ks0404")))]
            said += [repr(await outcome(venue.open_orders()))]
            for secret in stand.secrets:
                assert not [each for each in said if secret in each]

        tried(stand, book, trial)

    @guarantee("G22")
    def test_calls_go_on_beside_each_other(self, stand: Stand) -> None:
        """Reading, asking and sending at the same time disturb each other in nothing."""
        (key,) = book = one(stand)

        async def trial(venue: VenueAdapter) -> None:
            seen, sent, missing, resting = await asyncio.gather(
                venue.snapshot(),
                venue.submit(closing(key, Decimal(1), "ks0001")),
                venue.find_order(key[0], "ks0404"),
                venue.open_orders(),
            )
            assert seen.quality == "ok"
            assert (sent.client_order_id, missing, resting) == ("ks0001", None, ())
            assert stand.held(key) == book[key] - 1

        tried(stand, book, trial)

    @guarantee("G23")
    def test_a_call_that_is_called_off_leaves_it_whole(self, stand: Stand) -> None:
        """The next reading works as if nothing had been."""
        needs(stand, "faults")
        book = one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await venue.snapshot()
            stand.breaks("snapshot", "silent")
            task = asyncio.ensure_future(venue.snapshot())
            await asyncio.sleep(0.5)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert sizes(await venue.snapshot()) == book

        tried(stand, book, trial)

    @guarantee("G24")
    def test_looking_changes_nothing(self, stand: Stand) -> None:
        """Reading and inspecting leave every position and every order as they are."""
        (key,) = book = one(stand)

        async def trial(venue: VenueAdapter) -> None:
            await stand.rest(key[0], "buy", Decimal(1))
            await venue.snapshot()
            await venue.open_orders()
            if isinstance(venue, InspectedVenue):
                found = await venue.inspect()
                assert len({each.name for each in found.capabilities}) == len(found.capabilities)
            assert (stand.held(key), stand.resting()) == (book[key], 1)

        tried(stand, book, trial)

    @guarantee("G25")
    def test_it_can_be_closed_twice(self, stand: Stand) -> None:
        """Used or not; giving back is never an error."""

        async def trial(venue: VenueAdapter) -> None:
            await venue.snapshot()
            await venue.close()

        tried(stand, {}, trial)
