"""How an adapter behaves, whatever it is asked."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from killswitch.conformance.trial import READING, Case, flat, guarantee, outcome, sizes
from killswitch.model.inspection import InspectedVenue
from killswitch.model.venue import (
    traits_of,
)

ZERO = Decimal(0)


class OwnGuarantees:
    """It keeps secrets, works beside itself, and can be called off and closed."""

    @guarantee("G20")
    async def test_what_it_says_of_its_venue_holds_together(self, case: Case) -> None:
        """Every cost is of a limit that there is, within what that limit allows; ids of the longest form are taken."""
        traits = traits_of(case.venue)
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
        await case.venue.submit(case.closing(Decimal(1), name))
        assert case.stand.taken(name) == 1

    @guarantee("G21")
    async def test_no_credential_is_ever_said(self, case: Case) -> None:
        """Not in an error, not in a reason, not in what the adapter looks like."""
        said = [repr(case.venue), str(case.venue), repr(await case.venue.snapshot())]
        for call in READING if "faults" in case.stand.offers else ():
            case.stand.breaks(call, "garbled")
        said += [repr(await outcome(case.venue.snapshot()))]
        said += [repr(await outcome(case.venue.find_order(case.symbol, "ks0404")))]
        said += [repr(await outcome(case.venue.open_orders()))]
        for secret in case.stand.secrets:
            assert not [each for each in said if secret in each]

    @guarantee("G22")
    async def test_calls_go_on_beside_each_other(self, case: Case) -> None:
        """Reading, asking and sending at the same time disturb each other in nothing."""
        seen, sent, missing, resting = await asyncio.gather(
            case.venue.snapshot(),
            case.venue.submit(case.closing(Decimal(1), "ks0001")),
            case.venue.find_order(case.symbol, "ks0404"),
            case.venue.open_orders(),
        )
        assert seen.quality == "ok"
        assert (sent.client_order_id, missing, resting) == ("ks0001", None, ())
        assert case.held() == case.size - 1

    @guarantee("G23", "faults")
    async def test_a_call_that_is_called_off_leaves_it_whole(self, case: Case) -> None:
        """The next reading works as if nothing had been."""
        await case.venue.snapshot()
        case.stand.breaks("snapshot", "silent")
        task = asyncio.ensure_future(case.venue.snapshot())
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert sizes(await case.venue.snapshot()) == case.book

    @guarantee("G24")
    async def test_looking_changes_nothing(self, case: Case) -> None:
        """Reading and inspecting leave every position and every order as they are."""
        await case.stand.rest(case.symbol, "buy", Decimal(1))
        await case.venue.snapshot()
        await case.venue.open_orders()
        if isinstance(case.venue, InspectedVenue):
            found = await case.venue.inspect()
            assert len({each.name for each in found.capabilities}) == len(found.capabilities)
        assert (case.held(), case.stand.resting()) == (case.size, 1)

    @guarantee("G25", book=flat)
    async def test_it_can_be_closed_twice(self, case: Case) -> None:
        """Used or not; giving back is never an error."""
        await case.venue.snapshot()
        await case.venue.close()
