"""The numbered guarantees of an adapter; each is a test. A number is never reused for another guarantee."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from killswitch.conformance.answers import AnswerGuarantees
from killswitch.conformance.case import NOT_DONE, READING, ConformanceCase, flat, guarantee, outcome, refusal, sizes
from killswitch.conformance.harness import Mishap, VenueHarness
from killswitch.conformance.orders import OrderGuarantees
from killswitch.conformance.snapshots import SnapshotGuarantees
from killswitch.model.venue import (
    OrderRejectedError,
    RateLimitedError,
    SentTransfer,
    Transfers,
    VenueDownError,
    VenueError,
)


class BehaviourGuarantees:
    """An adapter keeps credentials secret, serves concurrent calls, and can be cancelled and closed."""

    @guarantee("G20")
    async def test_declared_costs_limits_and_ids_are_consistent(self, case: ConformanceCase) -> None:
        """Every cost names a declared limit and fits into it; the venue accepts ids of the longest declared form."""
        traits = case.venue.traits
        allowed = {limit.name: limit.allowed for limit in traits.limits}
        for cost in traits.costs:
            assert cost.units + cost.each <= allowed[cost.limit], cost
        rule = traits.client_ids
        longest = {"plain": "k" * rule.longest, "hex": "0x" + "a" * 32, "uuid": "a" * 8 + "-aaaa" * 3 + "-" + "a" * 12}
        name = longest[rule.form]
        await case.venue.submit(case.closing(Decimal(1), name))
        assert case.harness.taken(name) == 1

    @guarantee("G21")
    async def test_no_credential_is_disclosed(self, case: ConformanceCase) -> None:
        """No credential appears in an error, in a reason, or in the text form of the adapter."""
        texts = [repr(case.venue), str(case.venue), repr(await case.venue.snapshot())]
        for call in READING if "faults" in case.harness.offers else ():
            case.harness.breaks(call, "garbled")
        texts += [repr(await outcome(case.venue.snapshot()))]
        texts += [repr(await outcome(case.venue.find_order(case.symbol, "ks0404")))]
        texts += [repr(await outcome(case.venue.open_orders()))]
        for secret in case.harness.secrets:
            assert not [each for each in texts if secret in each]

    @guarantee("G22")
    async def test_concurrent_calls_do_not_disturb_each_other(self, case: ConformanceCase) -> None:
        """Snapshots, queries and submissions at the same time do not disturb each other."""
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
    async def test_a_cancelled_call_leaves_the_adapter_usable(self, case: ConformanceCase) -> None:
        """After a cancelled call the next snapshot is complete."""
        await case.venue.snapshot()
        case.harness.breaks("snapshot", "silent")
        task = asyncio.ensure_future(case.venue.snapshot())
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert sizes(await case.venue.snapshot()) == case.book

    @guarantee("G24")
    async def test_reading_changes_nothing(self, case: ConformanceCase) -> None:
        """Snapshots and inspection leave every position and every order unchanged."""
        await case.harness.rest(case.symbol, "buy", Decimal(1))
        await case.venue.snapshot()
        await case.venue.open_orders()
        if case.venue.inspect is not None:
            found = await case.venue.inspect()
            assert len({each.name for each in found.capabilities}) == len(found.capabilities)
        assert (case.held(), case.harness.resting()) == (case.size, 1)

    @guarantee("G25", book=flat)
    async def test_it_can_be_closed_twice(self, case: ConformanceCase) -> None:
        """Closing an adapter, used or not, never raises."""
        await case.venue.snapshot()
        await case.venue.close()


class TransferGuarantees:
    """An adapter moves money to another account of its venue once, and states what became of it as it is known."""

    @guarantee("G33", "transfers", book=flat)
    async def test_a_transfer_moves_its_amount_once_and_is_found(self, case: ConformanceCase) -> None:
        """Exactly the amount leaves the account, and a query finds the transfer. One that the account cannot pay is
        refused, and moves nothing."""
        ways, amount = transfers_of(case), Decimal("12.5")
        await case.venue.snapshot()
        since = case.harness.now()
        assert await outcome(ways.send(case.harness.transfer_target, amount, "kstr0001")) is None
        assert case.harness.moved() == amount
        too_much = case.harness.equity() + 1
        await refusal(ways.send(case.harness.transfer_target, too_much, "kstr0002"))
        assert case.harness.moved() == amount
        if ways.find is not None:
            lost = SentTransfer(case.harness.transfer_target, too_much, "kstr0002", since)
            assert await ways.find(lost) in ("failed", "open")

    @guarantee("G34", "transfers", "faults", book=flat)
    @pytest.mark.parametrize("mishap", ["lost", "done", "silent", "done_silent", "garbled", "down", "limited"])
    async def test_a_failed_transfer_has_the_right_error(self, case: ConformanceCase, mishap: Mishap) -> None:
        """Rejected and rate-limited are raised only where nothing has moved; the adapter sends nothing twice by itself,
        and its query finds what has moved, and never states that it failed."""
        ways, amount = transfers_of(case), Decimal("12.5")
        await case.venue.snapshot()
        since = case.harness.now()
        case.harness.breaks("transfer", mishap)
        result = await outcome(ways.send(case.harness.transfer_target, amount, "kstr0001"))
        assert isinstance(result, VenueError), "a missing answer was reported as a transfer"
        assert case.harness.moved() == (0 if mishap in NOT_DONE else amount)
        if isinstance(result, OrderRejectedError | RateLimitedError | VenueDownError):
            assert case.harness.moved() == 0, f"{type(result).__name__}, and it was moved"
        if ways.find is not None:
            fate = await ways.find(SentTransfer(case.harness.transfer_target, amount, "kstr0001", since))
            assert fate in (("failed", "open") if case.harness.moved() == 0 else ("moved", "open"))


def transfers_of(case: ConformanceCase) -> Transfers:
    """The transfers that the adapter offers, without which nothing could be tried."""
    assert case.venue.transfers is not None, "the harness offers transfers, and the adapter has none"
    return case.venue.transfers


class AdapterGuarantees(SnapshotGuarantees, OrderGuarantees, BehaviourGuarantees, TransferGuarantees, AnswerGuarantees):
    """The guarantees of an adapter. Subclass it, and define a fixture `harness`."""

    @pytest.fixture
    def harness(self) -> VenueHarness:
        """The test bench: a venue that the test controls."""
        raise NotImplementedError(
            "a subclass of AdapterGuarantees must define a fixture `harness`; see docs/conformance.md"
        )
