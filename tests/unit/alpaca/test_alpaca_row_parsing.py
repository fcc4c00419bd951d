"""Alpaca's rows become records exactly, or are rejected as unreadable."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.parsing import UnreadableError, written_instant
from killswitch.model.snapshot import Flow, Position
from killswitch_alpaca.activities import KnownActivities, read_fill, read_flow
from killswitch_alpaca.hours import Hours, read_calendar, read_clock
from killswitch_alpaca.instruments import instrument, read_asset
from killswitch_alpaca.orders import read_open, read_report
from killswitch_alpaca.positions import position_value, read_positions, symbol_of

D = Decimal
SHARES = {
    "symbol": "AAPL", "asset_class": "us_equity", "qty": "5", "side": "long", "avg_entry_price": "100.0",
    "market_value": "600.0", "unrealized_pl": "100.0", "current_price": "120.0",
}  # fmt: skip
"""The sample position from Alpaca's documentation."""
ORDER = {
    "id": "61e69015-8549-4bfd-b9c3-01e75843f47d", "client_order_id": "eb9e2aaa", "symbol": "AAPL",
    "asset_class": "us_equity", "qty": "15", "filled_qty": "0", "filled_avg_price": None, "type": "market",
    "side": "buy", "time_in_force": "day", "limit_price": "107.00", "stop_price": "106.00", "status": "accepted",
    "created_at": "2021-03-16T18:38:01.942282723Z", "legs": None,
}  # fmt: skip
"""The sample order."""


def test_a_position_is_read_exactly() -> None:
    """Five shares at 120: a value of 600, with a profit of 100."""
    (found,) = read_positions([SHARES])
    assert found == Position(
        "AAPL", "long", D(5), entry_price=D("100.0"), mark_price=D("120.0"), notional=D("600.0"),
        unrealized_pnl=D("100.0"),
    )  # fmt: skip


def test_a_short_is_negative_at_alpaca_and_positive_here() -> None:
    """The sign is the side; a short's value is subtracted from the value of the book."""
    short = SHARES | {"qty": "-5", "side": "short", "market_value": "-600"}
    (found,) = read_positions([short])
    assert (found.side, found.contracts, found.notional) == ("short", 5, 600)
    assert position_value([found]) == -600
    assert position_value(read_positions([SHARES | {"market_value": None}])) is None


@pytest.mark.parametrize(
    "row",
    [
        SHARES | {"qty": "-5"},
        SHARES | {"qty": None},
        SHARES | {"qty": "NaN"},
        SHARES | {"symbol": ""},
        SHARES | {"market_value": "much"},
    ],
)
def test_a_position_that_contradicts_itself_makes_the_book_unreadable(row: dict[str, Any]) -> None:
    """The book never has a wrong number or a missing position."""
    with pytest.raises(UnreadableError):
        read_positions([SHARES | {"symbol": "SPY"}, row])


def test_a_duplicate_position_makes_the_book_unreadable_and_zero_shares_are_no_position() -> None:
    """It is unknown which of the two rows is correct."""
    with pytest.raises(UnreadableError, match="twice"):
        read_positions([SHARES, SHARES])
    assert read_positions([SHARES | {"qty": "0"}]) == ()


@pytest.mark.parametrize(
    ("name", "symbol"),
    [("BTCUSD", "BTC/USD"), ("BTC/USD", "BTC/USD"), ("USDTUSD", "USDT/USD"), ("ETHUSDT", "ETH/USDT"),
     ("ETHBTC", "ETH/BTC"), ("BTCUSDC", "BTC/USDC")],
)  # fmt: skip
def test_coins_have_one_symbol(name: str, symbol: str) -> None:
    """Positions write them without a slash, orders with one."""
    assert symbol_of(name, "crypto") == symbol
    assert symbol_of("BTCUSD", "us_equity") == "BTCUSD"


@pytest.mark.parametrize(
    ("status", "state"),
    [("new", "open"), ("accepted", "open"), ("pending_new", "open"), ("partially_filled", "open"), ("held", "open"),
     ("done_for_day", "open"), ("pending_cancel", "open"), ("filled", "filled"), ("canceled", "canceled"),
     ("replaced", "canceled"), ("expired", "expired"), ("rejected", "rejected")],
)  # fmt: skip
def test_every_order_status_maps_to_a_state(status: str, state: str) -> None:
    """All statuses of Alpaca's order lifecycle; any other is not guessed."""
    filled = {"filled_qty": "15"} if status == "filled" else {}
    assert read_report(ORDER | filled | {"status": status}).state == state
    with pytest.raises(UnreadableError):
        read_report(ORDER | {"status": "dreaming"})


def test_a_filled_order_with_a_filled_amount_of_zero_is_unreadable() -> None:
    """Otherwise closing would send it again."""
    with pytest.raises(UnreadableError):
        read_report(ORDER | {"status": "filled"})


def test_an_order_by_notional_is_converted_to_shares() -> None:
    """300 dollars at a price of 120 are 2.5 shares; without a price the amount is unknown."""
    money = ORDER | {"qty": None, "notional": "300", "limit_price": None, "stop_price": None}
    (found,) = read_open([money], {"AAPL": D(120)})
    assert found.amount == D("2.5")
    with pytest.raises(UnreadableError, match="without a price"):
        read_open([money], {})


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"side": "sell", "position_intent": "sell_to_close"}, ("long", True)),
        ({"side": "buy", "position_intent": "buy_to_close"}, ("short", True)),
        ({"side": "buy", "position_intent": "buy_to_open"}, ("long", False)),
        ({"side": "sell"}, (None, None)),
        ({"side": "sell", "symbol": "BTC/USD", "asset_class": "crypto"}, ("long", True)),
        ({"side": "buy", "symbol": "BTC/USD", "asset_class": "crypto"}, ("long", False)),
    ],
)
def test_an_order_is_reduce_only_where_alpaca_enforces_it(
    more: dict[str, str], expected: tuple[object, object]
) -> None:
    """By its stated intent; a sale of shares without one may open a short."""
    (found,) = read_open([ORDER | more], {})
    assert (found.position_side, found.reduce_only) == expected


def test_deposits_and_transfers_are_no_profit_and_other_activities_are() -> None:
    """Deposits, withdrawals and journals issue units; dividends, interest, fees and unknown types do not."""
    seen = datetime(2021, 5, 19, tzinfo=UTC)

    def kind(activity: str, amount: str = "5") -> str | None:
        flow = read_flow({"id": "x", "activity_type": activity, "net_amount": amount}, "USD", seen)
        return None if flow is None else flow.kind

    assert [kind(each) for each in ("CSD", "CSW", "JNLC", "ACATC")] == ["deposit", "withdrawal", "transfer", "transfer"]
    assert [kind(each) for each in ("DIV", "INT", "DIVNRA", "FEE", "MA", "BRANDNEW")] == [
        "interest", "interest", "interest", "fee", "interest", "interest",
    ]  # fmt: skip
    assert kind("SPLIT", "0") is None
    assert read_flow({"id": "x", "activity_type": "CSD", "net_amount": "5", "status": "canceled"}, "USD", seen) is None
    coins = {"id": "x", "activity_type": "CFEE", "net_amount": "0", "qty": "-0.0001", "symbol": "BTCUSD"}
    assert read_flow(coins, "USD", seen) == Flow("x", seen, "fee", D("-0.0001"), "BTC")


def test_a_trade_is_returned_once_and_stays_new_until_it_could_be_parsed() -> None:
    """A row that cannot be parsed stays new, so that it is not lost."""
    known, row = KnownActivities(), {"id": "a", "transaction_time": "2019-05-24T15:30:00Z"}
    assert known.new([row]) == []
    known.mark_returned([row])
    other = {"id": "b", "transaction_time": "2019-05-24T15:34:06.977Z", "side": "sell", "symbol": "BTCUSD", "qty": "1"}
    assert known.new([row, other]) == [other]
    with pytest.raises(UnreadableError):
        read_fill(other, {})
    assert known.new([row, other]) == [other]
    fill = read_fill(other | {"price": "1.63", "order_id": "o"}, {"BTCUSD": "BTC/USD"})
    assert (fill.symbol, fill.side, fill.price, fill.fee, fill.order) == ("BTC/USD", "sell", D("1.63"), None, "o")


def test_times_are_parsed_with_nanoseconds_and_never_without_a_zone() -> None:
    """Python has microseconds: the remaining digits are truncated."""
    at = datetime(2021, 3, 16, 18, 38, 1, 942282, tzinfo=UTC)
    assert written_instant("2021-03-16T18:38:01.942282723Z") == at
    assert written_instant("2021-03-16T14:38:01.942282723-04:00") == at
    assert written_instant("2021-03-16T18:38:01Z") == at.replace(microsecond=0)
    for text in ("noon", "2021-03-16T18:38:01"):
        with pytest.raises(UnreadableError):
            written_instant(text)


def test_the_session_follows_alpacas_clock_and_its_skew() -> None:
    """A clock read at 09:29 has the next open and close; ours is a minute behind; the calendar has extended hours."""
    ours = datetime(2021, 5, 19, 13, 28, tzinfo=UTC)
    answer = {
        "timestamp": "2021-05-19T09:29:00-04:00", "is_open": False, "next_open": "2021-05-19T09:30:00-04:00",
        "next_close": "2021-05-19T16:00:00-04:00",
    }  # fmt: skip
    clock = read_clock(answer, ours)
    assert clock.skew == timedelta(minutes=1)
    early_close = {"date": "2021-05-19", "session_open": "0400", "session_close": "1700"}
    hours = Hours(clock, read_calendar([early_close], clock.offset))
    sessions = [hours.session(ours + timedelta(minutes=minutes)) for minutes in (0, 1, 60, 389, 392, 450, 452)]
    assert sessions == ["extended", "regular", "regular", "regular", "extended", "extended", "closed"]
    assert Hours().session(ours) is None


def test_instrument_rules_depend_on_the_asset() -> None:
    """Fractional shares have nine decimals, shorts and others none; cents above a dollar; coins have own steps."""
    shares = {"class": "us_equity", "symbol": "AAPL", "status": "active", "tradable": True, "fractionable": True}
    long, short = (Position("AAPL", side, D(5), mark_price=D("0.5")) for side in ("long", "short"))
    as_long = instrument(read_asset(shares), long, "regular", extended=False, barred=False)
    assert (as_long.amount_step, as_long.price_step, as_long.state) == (D("1e-9"), D("0.0001"), "open")
    as_short = instrument(read_asset(shares), short, "closed", extended=True, barred=False)
    assert (as_short.amount_step, as_short.state) == (1, "halted")
    gone = instrument(read_asset(shares | {"status": "inactive"}), None, "regular", extended=False, barred=False)
    assert gone.state == "delisted"
    coins = read_asset({
        "class": "crypto", "symbol": "BTC/USD", "status": "active", "tradable": True, "min_order_size": "0.0001",
        "min_trade_increment": "0.0001", "price_increment": "1",
    })  # fmt: skip
    held = Position("BTC/USD", "long", D(9), mark_price=D(50_000))
    rules = instrument(coins, held, None, extended=False, barred=False)
    # 160,000 dollars at no more than 60,000 each.
    assert (rules.state, rules.amount_step, rules.min_amount, rules.max_amount) == (
        "open", D("0.0001"), D("0.0001"), D("2.6666"),
    )  # fmt: skip
