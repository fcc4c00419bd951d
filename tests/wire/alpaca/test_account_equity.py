"""The equity of an account at Alpaca in parts, and how soon its flows and fills are reported; over the wire."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal

import pytest

from killswitch.model.snapshot import AccountSnapshot, Mark
from killswitch.model.venue import Prices
from killswitch_alpaca.venue import AlpacaVenue
from tests.faults.mishaps import Rule, Script
from tests.wire.alpaca.scene import AAPL, BTC, REGULAR, SPY, run, sale
from tests.wire.alpaca.venue import AlpacaWire
from tests.wire.ledger import NEVER

D = Decimal
FILLS, MOVES = "/v2/account/activities/FILL", "/v2/account/activities"
LONG_AGO = "2021-05-17T15:00:00Z"


def _sum_of_parts(seen: AccountSnapshot) -> Decimal:
    assert seen.unrealized is not None and seen.balances is not None
    parts = [each.wallet * each.price for each in seen.balances if each.wallet is not None and each.price is not None]
    assert len(parts) == len(seen.balances)
    return sum(parts, D(0)) + seen.unrealized


def _query_times(wire: AlpacaWire, path: str) -> list[float]:
    return [it.at for it in wire.seen if it.ask.path == path]


def test_equity_is_cash_and_holdings_at_their_prices() -> None:
    """100,000 in all, of which 1,000 in shares, −1,600 in shorted shares and 25,000 in coins: 75,600 in cash."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        seen = await venue.snapshot()
        parts = {(each.asset, each.wallet, each.price) for each in seen.balances or ()}
        assert parts == {("USD", 75_600, 1), (AAPL, 10, 100), (SPY, -4, 400), ("BTC", D("0.5"), 50_000)}
        assert (seen.unrealized, _sum_of_parts(seen), seen.equity, seen.complete) == (0, 100_000, 100_000, True)

    run(case)


def test_the_parts_add_up_between_two_queries_of_the_account() -> None:
    """Shares rise by 5: the equity follows by 50 and the cash stays, dated with its query."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        await asyncio.sleep(2)
        wire.exchange.markets[AAPL].price = D(105)
        seen = await venue.snapshot()
        assert seen.equity == _sum_of_parts(seen) == 100_050
        assert (seen.wallet_as_of, seen.positions_as_of) == (REGULAR, REGULAR + timedelta(seconds=2))

    run(case)


def test_a_trade_between_the_two_answers_does_not_count_as_a_loss() -> None:
    """Five shares are bought between the answers for positions and account: both are queried once more."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        old, current = [wire.list_positions()], wire.list_positions
        wire.list_positions = lambda: old.pop() if old else current()  # type: ignore[method-assign] # the first is older than the trade
        wire.exchange.place(sale("5", side="buy", client_order_id="theirs"), by="hand")
        seen = await venue.snapshot()
        assert seen.equity == _sum_of_parts(seen) == 100_000
        assert (AAPL, 15) in {(p.symbol, p.contracts) for p in seen.positions or ()}
        assert (len(_query_times(wire, "/v2/account")), len(_query_times(wire, "/v2/positions"))) == (2, 2)

    run(case)


def test_equity_stays_known_when_positions_cannot_be_read() -> None:
    """Shares of 1,000 fall by a tenth: 99,900, from the parts held last, at the prices of the last trades."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        wire.failing.add("/v2/positions")
        wire.exchange.markets[AAPL].price = D(90)
        seen = await venue.snapshot()
        assert (seen.quality, seen.positions, seen.positions_as_of) == ("ok", None, None)
        assert seen.reason is not None and seen.reason.startswith("positions: ")
        assert seen.equity == _sum_of_parts(seen) == 99_900
        assert (AAPL, D(10), D(90)) in {(each.asset, each.wallet, each.price) for each in seen.balances or ()}
        wire.failing.clear()
        again = await venue.snapshot()
        assert (again.equity, again.reason, len(again.positions or ())) == (99_900, None, 3)

    run(case)


def test_parts_that_do_not_add_up_to_the_market_value_are_unknown() -> None:
    """All ten shares are sold while positions cannot be read: the parts held last are 1,000 too much."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        wire.failing.add("/v2/positions")
        wire.exchange.place(sale("10", client_order_id="theirs"), by="hand")
        await asyncio.sleep(5)
        seen = await venue.snapshot()
        assert (seen.quality, seen.equity, seen.positions) == ("ok", 100_000, None)
        assert (seen.balances, seen.unrealized, seen.complete) == (None, None, None)

    run(case)


def test_an_account_whose_positions_were_never_read_is_down() -> None:
    """The first snapshot fails as a whole: the holdings are unknown."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.failing.add("/v2/positions")
        seen = await venue.snapshot()
        assert (seen.quality, seen.equity, seen.positions) == ("down", None, None)

    run(case)


def test_a_withdrawal_is_reported_with_the_next_query_of_the_account() -> None:
    """3,000 leave with their row: reported within 4 s, and not only after the 30 s between queries of rows."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        wire.moves.insert(0, {"id": "2", "activity_type": "CSW", "net_amount": "-3000", "date": "2021-05-19"})
        for second in range(1, 6):
            await asyncio.sleep(1)
            seen = await venue.snapshot()
            if seen.equity == 97_000:
                assert [(row.kind, row.amount) for row in seen.flows or ()] == [("withdrawal", -3000)]
                assert second <= 4
                return
        pytest.fail("the withdrawal was never seen")

    run(case)


def test_a_flow_whose_row_never_comes_is_queried_for_twenty_seconds() -> None:
    """3,000 leave without a row: rows are queried at once, and 1, 2, 5, 10 and some 20 s later.

    The query after five seconds may wait a little: requests are reserved for the last two.
    """

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        for _ in range(40):
            await venue.snapshot()
            await asyncio.sleep(1)
        before = len(wire.seen)
        wire.ledger.row_lag = NEVER
        wire.ledger.flow("transfer", D(-3000))
        seen_at = None
        for _ in range(27):
            if seen_at is None and (await venue.snapshot()).equity == 97_000:
                seen_at = wire.now()[0]
            elif seen_at is not None:
                await venue.snapshot()
            await asyncio.sleep(1)
        assert seen_at is not None
        delays = [round(it.at - seen_at) for it in wire.seen[before:] if it.ask.path == MOVES]
        assert (delays[:3], delays[4]) == ([0, 1, 2], 10)
        assert 5 <= delays[3] <= 7
        assert any(20 <= it <= 25 for it in delays)  # the last one when the budget allows it
        assert len(delays) <= 7  # one of them is the regular query

    run(case)


def test_a_foreign_close_is_explained_in_the_same_snapshot() -> None:
    """The snapshot has its fill and the price of what was sold, no further query follows, and no money is missing."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        await asyncio.sleep(1)
        wire.exchange.reprice(AAPL, D(90))
        wire.exchange.place(sale("10", client_order_id="theirs"), by="hand")
        seen = await venue.snapshot()
        assert [(fill.amount, fill.price) for fill in seen.fills or ()] == [(10, 90)]
        assert (seen.equity, seen.marks) == (99_900, (Mark(AAPL, D(90)),))
        assert seen.fills_as_of == REGULAR + timedelta(seconds=1)
        queries = len(_query_times(wire, FILLS)), len(_query_times(wire, MOVES))
        for _ in range(15):
            await asyncio.sleep(1)
            await venue.snapshot()
        assert (len(_query_times(wire, FILLS)), len(_query_times(wire, MOVES))) == queries

    run(case)


def test_prices_of_closed_positions_are_read_for_ten_seconds() -> None:
    """They follow the market, and end."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        wire.exchange.place(sale("10", client_order_id="theirs"), by="hand")
        await venue.snapshot()
        wire.exchange.markets[AAPL].price = D(80)
        await asyncio.sleep(5)
        assert (await venue.snapshot()).marks == (Mark(AAPL, D(80)),)
        await asyncio.sleep(6)
        assert (await venue.snapshot()).marks is None

    run(case)


def test_rows_are_complete_up_to_the_answered_query() -> None:
    """Fills up to their query; flows never for the last day, whose rows may still come."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        await asyncio.sleep(3)
        seen = await venue.snapshot()
        assert (seen.fills_as_of, seen.flows_as_of) == (REGULAR, REGULAR - timedelta(days=1))

    run(case)


def test_rows_that_cannot_be_read_have_no_completeness_time() -> None:
    """Fills fail: the time up to which they are complete is unknown."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        seen = await venue.snapshot()
        assert seen.quality == "ok"
        assert seen.fills_as_of is None
        assert seen.flows_as_of is not None

    run(case, mishaps=Script(Rule("fills", "down")))


async def _snapshot_with_late_fill(wire: AlpacaWire, venue: AlpacaVenue, seconds: float) -> AccountSnapshot:
    """A sale whose fill is missing from the answer half a second later, and shown `seconds` after that."""
    listed_fills = wire.list_fills
    newest = len(listed_fills({}))
    wire.list_fills = lambda params: listed_fills(params)[len(listed_fills(params)) - newest :]  # type: ignore[method-assign] # all but new
    wire.exchange.place(sale("1", client_order_id=f"late-{newest}"), by="hand")
    await asyncio.sleep(0.5)
    assert (await venue.snapshot()).fills == ()
    await asyncio.sleep(seconds)
    wire.list_fills = listed_fills  # type: ignore[method-assign] # as it was
    seen = await venue.snapshot()
    assert len(seen.fills or ()) == 1
    return seen


def test_the_lag_of_rows_is_measured() -> None:
    """A fill that was queried a second too early was late; one that was listed at its first query was not."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        assert (await venue.snapshot()).row_lag_s is None
        wire.exchange.place(sale("1", client_order_id="a"), by="hand")
        seen = await venue.snapshot()
        assert (len(seen.fills or ()), seen.row_lag_s) == (1, 0)
        listed_fills = wire.list_fills
        wire.list_fills = lambda params: listed_fills(params)[1:]  # type: ignore[method-assign] # without the newest one
        await asyncio.sleep(1)
        wire.exchange.place(sale("1", client_order_id="b"), by="hand")
        await asyncio.sleep(0.5)
        assert (await venue.snapshot()).fills == ()
        await asyncio.sleep(1)
        wire.list_fills = listed_fills  # type: ignore[method-assign] # as it was
        seen = await venue.snapshot()
        assert (len(seen.fills or ()), seen.row_lag_s) == (1, 1.5)

    run(case)


def test_a_price_check_has_the_marks_and_only_fresh_last_prices() -> None:
    """Holdings at Alpaca's own price, and the last trade unless it is older than a second."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        assert venue.prices is not None
        wire.traded_at[SPY] = REGULAR - timedelta(seconds=2)
        wire.exchange.markets[AAPL].price = D(70)
        assert await venue.prices([AAPL, SPY, BTC, "NONE"]) == {
            AAPL: Prices(D(70), None, D(70), REGULAR),
            SPY: Prices(D(400), None, None, REGULAR),
            BTC: Prices(D(50_000), None, D(50_000), REGULAR),
        }

    run(case)


def test_a_lag_is_reported_for_an_hour() -> None:
    """One row was late by 1.5 s. Punctual rows do not hide it; an hour later it is forgotten, and they are not."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        assert (await _snapshot_with_late_fill(wire, venue, 1)).row_lag_s == D("1.5")
        await asyncio.sleep(1800)
        wire.exchange.place(sale("1", client_order_id="punctual"), by="hand")
        seen = await venue.snapshot()
        assert (len(seen.fills or ()), seen.row_lag_s) == (1, 1.5)
        await asyncio.sleep(1790)
        assert (await venue.snapshot()).row_lag_s == D("1.5")
        await asyncio.sleep(20)
        assert (await venue.snapshot()).row_lag_s == 0
        await asyncio.sleep(1800)
        assert (await venue.snapshot()).row_lag_s is None

    run(case)


def test_the_longest_lag_is_reported_up_to_three_minutes() -> None:
    """Twenty seconds, then eleven: 20 are reported. A row that is ten minutes late counts as three."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        assert (await _snapshot_with_late_fill(wire, venue, 19.5)).row_lag_s == 20
        await asyncio.sleep(60)
        assert (await _snapshot_with_late_fill(wire, venue, 10.5)).row_lag_s == 20
        await asyncio.sleep(60)
        assert (await _snapshot_with_late_fill(wire, venue, 599.5)).row_lag_s == 180

    run(case)


def test_rows_since_the_last_run_are_new() -> None:
    """The last run polled at 10:55. At 10:57 ten shares were sold at 100, and 1,000 left; both are reported.

    That run has seen the sale at 09:00, and the withdrawal of the day before yesterday.
    """

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await asyncio.sleep(1)
        assert venue.remember is not None
        venue.remember([AAPL], REGULAR - timedelta(minutes=5))
        wire.exchange.now = lambda: (0.0, REGULAR - timedelta(hours=2))
        wire.exchange.place(sale("1", client_order_id="before"), by="hand")
        wire.exchange.now = lambda: (0.0, REGULAR - timedelta(minutes=3))
        wire.exchange.place(sale("9", client_order_id="meanwhile"), by="hand")
        wire.moves += [
            {"id": "3", "activity_type": "CSW", "net_amount": "-1000", "date": "2021-05-19"},
            {"id": "2", "activity_type": "CSW", "net_amount": "-50", "date": "2021-05-17", "created_at": LONG_AGO},
            {"id": "1", "activity_type": "CSW", "net_amount": "-20", "date": "2021-05-16"},
        ]
        seen = await venue.snapshot()
        assert [(fill.amount, fill.at) for fill in seen.fills or ()] == [(9, REGULAR - timedelta(minutes=3))]
        assert [(row.id, row.amount) for row in seen.flows or ()] == [("3", -1000)]
        assert (await venue.snapshot()).flows == ()

    run(case)


def test_every_page_of_fills_since_the_last_run_is_read() -> None:
    """250 trades in a minute without a run take three pages."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        venue.remember([AAPL], REGULAR - timedelta(minutes=1))
        for number in range(250):
            side: Literal["buy", "sell"] = "buy" if number % 2 else "sell"
            wire.exchange.place(sale("1", side=side, client_order_id=f"n{number}"), by="hand")
        seen = await venue.snapshot()
        assert len(seen.fills or ()) == 250
        assert len(_query_times(wire, FILLS)) == 3

    run(case)


def test_a_first_run_dates_rows_that_have_only_a_date_before_its_start() -> None:
    """1,000 left this morning, before the first poll: by its id a run that starts at noon knows that it is not new."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.moves.append({"id": "3", "activity_type": "CSW", "net_amount": "-1000", "date": "2021-05-19"})
        (row,) = (await venue.snapshot()).flows or ()
        assert (row.id, row.at) == ("3", datetime(2021, 5, 19, tzinfo=UTC))

    run(case)
