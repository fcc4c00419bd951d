"""Guarantees about snapshots."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from killswitch.conformance.case import ZERO, Book, ConformanceCase, flat, guarantee, sizes
from killswitch.conformance.harness import Mishap, VenueHarness
from killswitch.model.snapshot import UNIT_FLOWS, AccountSnapshot, Snapshot, decode_snapshot, encode_snapshot
from killswitch.model.venue import VenueError


def long_and_short(harness: VenueHarness) -> Book:
    """Two positions: long in the first symbol, short in the second."""
    first, second = harness.symbols
    return {(first, "long"): Decimal("1.5"), (second, "short"): Decimal(3)}


class SnapshotGuarantees:
    """A flat account is shown as flat, an unknown value as unknown, and every number is the venue's."""

    @guarantee("G01", book=flat)
    async def test_an_empty_account_is_reported_flat(self, case: ConformanceCase) -> None:
        """An account without positions has an empty list of positions, quality `ok`, and its equity."""
        seen = await case.venue.snapshot()
        assert (seen.quality, seen.positions) == ("ok", ())
        assert seen.equity == case.harness.equity()

    @guarantee("G02", book=long_and_short)
    async def test_every_position_is_shown_with_its_side_and_size(self, case: ConformanceCase) -> None:
        """Long and short positions are listed once each, in contracts that are never negative, at the market price
        where the venue publishes one."""
        seen = await case.venue.snapshot()
        assert sizes(seen) == case.book
        assert seen.equity == case.harness.equity()
        for position in seen.positions or ():
            assert position.mark_price in (None, Decimal(100))
            assert position.notional in (None, position.contracts * case.harness.contract_size * 100)

    @guarantee("G03", "faults")
    @pytest.mark.parametrize("mishap", ["lost", "silent", "garbled", "down", "limited"])
    async def test_a_failed_snapshot_is_never_an_empty_or_an_old_account(
        self, case: ConformanceCase, mishap: Mishap
    ) -> None:
        """A failed request raises an error, or returns a quality other than `ok` with a reason; the next snapshot is
        complete again."""
        await case.venue.snapshot()
        await case.harness.trade(case.key, Decimal(-1))
        now = {case.key: case.size - 1}
        case.harness.breaks("snapshot", mishap)
        try:
            seen = await case.venue.snapshot()
        except VenueError as error:
            assert str(error)
        else:
            # A venue client may retry by itself: then the answer must be complete and current.
            assert seen.reason if seen.quality != "ok" or seen.positions is None else sizes(seen) == now
        assert sizes(await case.venue.snapshot()) == now

    @guarantee("G04")
    async def test_a_snapshot_fits_the_public_format(self, case: ConformanceCase) -> None:
        """A snapshot has the account's names, exact decimals and the time of observation, and is unchanged by
        encoding and decoding."""
        before = case.harness.now()
        seen = await case.venue.snapshot()
        assert seen.account == case.venue.account
        assert seen.observed_at is not None
        assert before <= seen.observed_at <= case.harness.now()
        document = Snapshot(seen.observed_at, (seen,), "killswitch.snapshot/v1")
        assert decode_snapshot(encode_snapshot(document)) == document

    @guarantee("G05")
    async def test_positions_carry_their_trading_rules(self, case: ConformanceCase) -> None:
        """Contract size and amount step of every position are present and true: without them no exact order can be
        built."""
        seen = await case.venue.snapshot()
        rules = {each.symbol: each for each in seen.instruments or ()}
        for position in seen.positions or ():
            rule = rules[position.symbol]
            assert (rule.contract_size, rule.amount_step, rule.inverse) == (
                case.harness.contract_size, case.harness.amount_step, False,
            )  # fmt: skip

    @guarantee("G06", "stops")
    async def test_resting_orders_are_all_shown_conditional_ones_included(self, case: ConformanceCase) -> None:
        """A limit order and a stop are both listed; the stop with its trigger price, and as reduce-only."""
        await case.harness.rest(case.symbol, "buy", Decimal(1))
        await case.harness.rest(case.symbol, "sell", case.size, trigger=Decimal(50))
        for found in (await case.venue.open_orders(), (await case.venue.snapshot()).orders):
            assert found is not None
            triggers = sorted(order.trigger_price or ZERO for order in found)
            assert triggers == [ZERO, Decimal(50)]
            assert [order.reduce_only for order in found if order.trigger_price] == [True]

    @guarantee("G07")
    async def test_changes_by_other_traders_are_shown(self, case: ConformanceCase) -> None:
        """A position that another trader changes is shown with its new size, within the harness's patience."""
        await case.venue.snapshot()
        await case.harness.trade(case.key, Decimal(-1))
        await case.until(lambda seen: sizes(seen) == {case.key: case.size - 1})

    @guarantee("G32", "watch", book=flat)
    async def test_watched_prices_are_shown_without_a_position(self, case: ConformanceCase) -> None:
        """Every snapshot has the prices of each symbol of the account's watch list, whether or not it is held: as mark
        or last price that of the market, and a bid and an ask that do not cross, where the venue publishes them."""
        for _ in range(3):
            seen = await case.venue.snapshot()
            assert {row.symbol for row in seen.watched or ()} == set(case.harness.symbols)
            for row in seen.watched or ():
                assert {row.mark_price, row.last_price} - {None} == {Decimal(100)}
                assert (row.bid or ZERO) <= 100 <= (row.ask or Decimal(100))
                assert row.at is None or row.at <= case.harness.now()
            await asyncio.sleep(1.0)

    @guarantee("G08", "flows")
    @pytest.mark.parametrize("amount", ["5000", "-700"])
    async def test_deposits_and_withdrawals_are_signed_flows(self, case: ConformanceCase, amount: str) -> None:
        """A deposit or withdrawal is one row with one id, in the account's currency, however often snapshots repeat
        it."""
        amounts: dict[str, Decimal] = {}

        def shown(seen: AccountSnapshot) -> bool:
            for flow in seen.flows or ():
                assert (flow.kind in UNIT_FLOWS, flow.currency) == (True, seen.currency)
                amounts[flow.id] = flow.amount
            return bool(amounts)

        shown(await case.venue.snapshot())
        await case.harness.flow(Decimal(amount))
        await case.until(shown)
        shown(await case.venue.snapshot())
        assert list(amounts.values()) == [Decimal(amount)]
