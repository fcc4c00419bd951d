"""Splits among Alpaca's activities, activities of a long downtime, and an equity that contradicts itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.parsing import UnreadableError
from killswitch_alpaca.activities import KnownActivities, read_splits
from killswitch_alpaca.client import Client
from killswitch_alpaca.queries import Queries
from killswitch_alpaca.settings import read_settings
from killswitch_alpaca.venue import AlpacaVenue
from tests.wire.alpaca.scene import AAPL, REGULAR, SPY, run, spec_of
from tests.wire.alpaca.venue import AlpacaWire

D = Decimal
SETTINGS = read_settings(spec_of(None))


def _leg(name: str, qty: str | None, **more: object) -> dict[str, Any]:
    row = {"id": name, "activity_type": "SPLIT", "symbol": AAPL, "date": "2021-05-19", "net_amount": "0", "qty": qty}
    return row | more


def test_a_split_is_a_corporate_action_and_no_flow() -> None:
    """Ten shares leave and forty arrive on one day: four for one. No money moved, so there is no flow."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        before = await venue.snapshot()
        assert before.corporate_actions == ()
        await asyncio.sleep(31)
        wire.moves[:0] = [_leg("9", "40"), _leg("8", "-10")]
        seen = await venue.snapshot()
        (action,) = seen.corporate_actions or ()
        assert (action.id, action.symbol, action.ratio, seen.flows) == ("8", AAPL, 4, ())
        assert (await venue.snapshot()).corporate_actions == ()

    run(case)


@pytest.mark.parametrize(
    ("legs", "ratio"),
    [
        ([_leg("1", "-100"), _leg("2", "10")], D("0.1")),
        # Of a short the old shares arrive and the new ones leave; the description tells which is which.
        ([_leg("1", "10", description="REMOVE, From QTY:-10"), _leg("2", "-30", description="ADD, To QTY:-30")], D(3)),
        ([_leg("1", "30")], None),
        ([_leg("1", "-10"), _leg("2", "20"), _leg("3", "20")], None),
        ([_leg("1", "-10"), _leg("2", "20", symbol=SPY)], None),
    ],
)
def test_the_ratio_of_a_split_is_new_shares_per_old_one(legs: list[dict[str, Any]], ratio: Decimal | None) -> None:
    """One for ten; a short; a row without its other half, and rows that are more than a pair, have no ratio."""
    found = read_splits(legs, REGULAR)
    assert {action.ratio for action in found} == {ratio}
    assert {(action.at, action.symbol) for action in found} <= {(REGULAR, AAPL), (REGULAR, SPY)}


def test_other_rows_and_canceled_ones_are_no_splits() -> None:
    """A dividend, and a split that was canceled; a split without a quantity is unreadable."""
    assert read_splits([_leg("1", "5", activity_type="DIV"), _leg("2", "-5", status="canceled")], REGULAR) == []
    with pytest.raises(UnreadableError, match="qty is missing"):
        read_splits([_leg("1", None)], REGULAR)


def test_an_equity_of_zero_next_to_positions_is_unknown_with_a_reason() -> None:
    """The account states 0, and next to it 75,600 in cash and shares of 1,000: the positions stay known."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        assert (await venue.snapshot()).equity == 100_000
        wire.account_flags["equity"] = "0"
        await asyncio.sleep(5)
        seen = await venue.snapshot()
        assert (seen.quality, seen.equity, seen.unrealized, len(seen.positions or ())) == ("ok", None, None, 3)
        assert seen.reason is not None and seen.reason.startswith("equity: it is 0 next to 3 positions")
        wire.failing.add("/v2/positions")
        assert (await venue.snapshot()).equity is None
        wire.failing.clear()
        del wire.account_flags["equity"]
        await asyncio.sleep(5)
        assert (await venue.snapshot()).equity == 100_000

    run(case)


def test_a_loss_of_everything_to_the_cent_is_an_equity_of_zero() -> None:
    """Money owed is exactly what the holdings are: −24,400 in cash next to 24,400 in market values."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.account_flags |= {"equity": "0", "cash": "-24400"}
        seen = await venue.snapshot()
        assert (seen.quality, seen.equity, seen.reason) == ("ok", 0, None)

    run(case)


class Listed(Client):
    """Activities of one second each, newest first, in pages; `requests` counts them."""

    def __init__(self, count: int) -> None:
        super().__init__(SETTINGS)
        self.rows = [
            {"id": f"{number:06}", "transaction_time": datetime.fromtimestamp(1_600_000_000 + number, UTC).isoformat()}
            for number in range(count)
        ]
        self.requests = 0

    async def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        assert query is not None
        self.requests += 1
        rows = self.rows[::-1]
        begin = [it["id"] for it in rows].index(query["page_token"]) + 1 if "page_token" in query else 0
        return rows[begin : begin + query["page_size"]]


def test_all_activities_of_a_long_downtime_are_read_in_several_turns() -> None:
    """2,500 rows since the previous run: after 1,000 and 2,000 they are unknown, then all of them are new."""
    listed, known = Listed(3_000), KnownActivities()
    queries = Queries(SETTINGS, listed)
    known.remember(datetime.fromtimestamp(1_600_000_000 + 500 + 3_600, UTC))
    for _ in range(2):
        with pytest.raises(UnreadableError, match="not all read yet"):
            asyncio.run(queries.activities(known, "/account/activities/FILL"))
    answer = asyncio.run(queries.activities(known, "/account/activities/FILL"))
    assert [row["id"] for row in known.new(answer)] == [f"{number:06}" for number in range(500, 3_000)]
    known.mark_returned(answer)
    assert listed.requests == 26
    assert asyncio.run(queries.activities(known, "/account/activities/FILL"))[-1]["id"] == "002999"


def test_without_a_previous_run_the_newest_activities_suffice() -> None:
    """A first run on an account with a long history: one page, of which nothing is new."""
    listed, known = Listed(3_000), KnownActivities()
    answer = asyncio.run(Queries(SETTINGS, listed).activities(known, "/account/activities/FILL"))
    assert (len(answer), known.new(answer), listed.requests) == (100, [], 1)
