"""Rows as ccxt gives them become our records exactly, or are named as what cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.snapshot import Flow
from killswitch_ccxt.fills import fills, flows
from killswitch_ccxt.instruments import instruments
from killswitch_ccxt.numbers import UnreadableError, decimal, flag, instant, positive
from killswitch_ccxt.orders import open_orders, report
from killswitch_ccxt.positions import positions
from killswitch_ccxt.venues.bitget.rows import flow_of as bitget_flow
from killswitch_ccxt.venues.bybit.flows import flow_of as bybit_flow
from killswitch_ccxt.venues.okx.rows import flows as okx_flows
from killswitch_ccxt.venues.okx.rows import only_row

LINEAR = {"symbol": "A/USDT:USDT", "contractSize": Decimal("0.01"), "swap": True, "linear": True, "inverse": False}
INVERSE = {"symbol": "A/USD:A", "contractSize": Decimal(10), "swap": True, "linear": False, "inverse": True}
RULES = {"A/USDT:USDT": LINEAR, "A/USD:A": INVERSE}


def _position(**more: Any) -> dict[str, Any]:
    return {"symbol": "A/USDT:USDT", "side": "long", "contracts": Decimal(3), "markPrice": Decimal(200), **more}


def test_a_notional_that_the_venue_does_not_tell_is_reckoned_from_its_mark() -> None:
    """3 contracts of 0.01 at 200 are 6; of an inverse contract of 10 each, 30 ÷ 200."""
    (linear,) = positions([_position()], RULES)
    (inverse,) = positions([_position(symbol="A/USD:A")], RULES)
    assert (linear.notional, inverse.notional) == (Decimal(6), Decimal("0.15"))


def test_without_a_mark_the_notional_is_unknown() -> None:
    """Kraken Futures tells neither; nothing is put in the place of what is missing."""
    (found,) = positions([_position(markPrice=None)], RULES)
    assert (found.mark_price, found.notional, found.liquidation_price, found.leverage) == (None, None, None, None)


def test_a_row_of_no_size_is_no_position_whatever_else_is_missing_in_it() -> None:
    """Bybit answers for a flat symbol with a row that has neither side nor symbol."""
    assert positions([{"symbol": None, "side": None, "contracts": Decimal(0)}], RULES) == ()


@pytest.mark.parametrize(
    "odd",
    [
        {"contracts": None}, {"side": None}, {"side": ""}, {"symbol": "B/USDT:USDT"}, {"symbol": None},
        {"contracts": Decimal("NaN")}, {"markPrice": "many"},
    ],
)  # fmt: skip
def test_a_position_that_cannot_be_read_spoils_the_answer(odd: dict[str, Any]) -> None:
    """Leaving it out would show a book that is smaller than it is."""
    with pytest.raises(UnreadableError):
        positions([_position(), _position(**{"symbol": "A/USD:A", **odd})], RULES)


def test_a_position_that_is_shown_twice_spoils_the_answer() -> None:
    """Of two sizes nobody knows which one is true."""
    with pytest.raises(UnreadableError, match="twice"):
        positions([_position(), _position(contracts=Decimal(4))], RULES)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (True, True),
        ("true", True),
        ("YES", True),
        ("false", False),
        ("NO", False),
        (0, False),
        ("", None),
        (None, None),
    ],
)
def test_flags_are_read_in_every_way_in_which_venues_write_them(written: object, read: bool | None) -> None:
    """Bitget writes NO, OKX writes false: both are text, and text is true in Python."""
    assert flag(written) is read


def test_numbers_are_exact_or_nothing() -> None:
    """No float comes between; an empty text is nothing; a zero price is how venues write that there is none."""
    assert decimal("0.10000000000000000001") == Decimal("0.10000000000000000001")
    assert (decimal(""), decimal(None), positive("0"), positive("0.00")) == (None, None, None, None)
    for odd in ("1e", "NaN", "Infinity", "1,5"):
        with pytest.raises(UnreadableError):
            decimal(odd)


def test_times_are_aware_and_in_utc() -> None:
    """Milliseconds since 1970; what is beyond the calendar is named."""
    assert instant("1621425600000") == datetime(2021, 5, 19, 12, tzinfo=UTC)
    with pytest.raises(UnreadableError):
        instant(10**20)


def _order(**more: Any) -> dict[str, Any]:
    return {
        "id": "7", "symbol": "A/USDT:USDT", "side": "sell", "amount": Decimal(2), "filled": Decimal(0),
        "status": "open", "reduceOnly": "true", **more,
    }  # fmt: skip


def test_a_stop_says_where_it_wakes_and_what_it_is_for() -> None:
    """Whichever of its names ccxt has put the price under."""
    for name in ("triggerPrice", "stopLossPrice", "takeProfitPrice"):
        (found,) = open_orders([_order(**{name: Decimal(90)})])
        assert (found.trigger_price, found.reduce_only, found.position_side) == (Decimal(90), True, "long")


def test_an_entry_with_a_stop_attached_for_later_is_no_conditional_order() -> None:
    """Its stop rests when the entry has filled; until then it is an order like any other."""
    (found,) = open_orders([_order(reduceOnly=False, stopLossPrice=Decimal(90))])
    assert found.trigger_price is None


@pytest.mark.parametrize("odd", [{"side": None}, {"id": None}, {"symbol": None}, {"amount": None}])
def test_an_order_that_cannot_be_read_spoils_the_list(odd: dict[str, Any]) -> None:
    """A list that leaves out an order looks like one without it."""
    with pytest.raises(UnreadableError):
        open_orders([_order(), _order(id="8", **odd) if "id" not in odd else _order(**odd)])


@pytest.mark.parametrize(
    ("fee", "known"),
    [
        ({"cost": "0.5", "currency": "USDT"}, "0.5"),
        ({"cost": "0.5", "currency": None}, "0.5"),
        ({"cost": "0.5"}, "0.5"),
        ({"cost": "0.001", "currency": "BNB"}, None),
        ({"cost": "0", "currency": "BNB"}, "0"),
        ({"cost": None, "currency": "USDT"}, None),
        (None, None),
    ],
)
def test_an_order_s_fee_is_known_in_the_account_s_currency_only(fee: object, known: str | None) -> None:
    """0.001 BNB are not 0.001 USDT. Without an asset it is what the account is counted in."""
    row = {"id": "7", "status": "closed", "amount": Decimal(1), "filled": Decimal(1), "fee": fee}
    assert report(row, "A", "USDT").fee == (None if known is None else Decimal(known))


def test_an_answer_that_only_says_taken_is_an_open_order() -> None:
    """Bybit and OKX answer an order with its id and nothing else."""
    said = report({"id": "7", "amount": Decimal(2)}, "A/USDT:USDT")
    assert (said.state, said.filled, said.amount) == ("open", 0, 2)


def test_an_order_that_ended_before_its_amount_is_not_called_filled() -> None:
    """ccxt calls every ended market order closed, also one of which the book took half."""
    said = report(_order(status="closed", filled=Decimal(1)), "A/USDT:USDT")
    assert (said.state, said.filled) == ("canceled", Decimal(1))


def test_an_ended_order_that_does_not_say_how_far_it_came_cannot_be_read() -> None:
    """Taken for nothing it would be sent again; taken for everything it would be called flat."""
    with pytest.raises(UnreadableError):
        report(_order(status="canceled", filled=None), "A/USDT:USDT")


def test_a_ledger_gives_flows_with_their_signs_and_leaves_trades_to_fills() -> None:
    """Fees and realised profit come with the fills; counted here too they would count twice."""
    at = 1621425600000
    rows = [
        {"id": "1", "type": "transfer", "direction": "out", "amount": Decimal(5), "currency": "USDT", "timestamp": at},
        {"id": "2", "type": "funding", "direction": "in", "amount": Decimal(2), "currency": "USDT", "timestamp": at},
        {"id": "3", "type": "trade", "direction": "out", "amount": Decimal(9), "currency": "USDT", "timestamp": at},
        {"id": "4", "type": "fee", "direction": "out", "amount": Decimal(1), "currency": "USDT", "timestamp": at},
    ]
    when = datetime(2021, 5, 19, 12, tzinfo=UTC)
    assert flows(rows) == (
        Flow("1", when, "transfer", Decimal(-5), "USDT"), Flow("2", when, "funding", Decimal(2), "USDT"),
    )  # fmt: skip


def test_a_fill_keeps_its_fee_in_its_own_currency() -> None:
    """A fee in another coin is not money of the account."""
    row = {
        "id": "f", "symbol": "A/USDT:USDT", "side": "buy", "amount": "1", "price": "10", "timestamp": 0,
        "fee": {"cost": "0.001", "currency": "BNB"}, "order": 7,
    }  # fmt: skip
    (found,) = fills([row, row])
    assert (found.fee, found.fee_currency, found.order) == (Decimal("0.001"), "BNB", "7")


def test_rules_become_steps_whichever_way_the_exchange_counts_precision() -> None:
    """Three decimals and a step of 0.001 are the same thing."""
    rule = {**LINEAR, "precision": {"amount": 3, "price": 1}, "limits": {"amount": {"min": "0.001"}}, "active": False}
    (places,) = instruments([rule], tick_size=False)
    (steps,) = instruments([{**rule, "precision": {"amount": "0.001", "price": "0.1"}}])
    assert places == steps
    assert (steps.amount_step, steps.price_step, steps.min_amount, steps.state) == (
        Decimal("0.001"), Decimal("0.1"), Decimal("0.001"), "halted",
    )  # fmt: skip


BILLS: dict[str, tuple[Callable[[dict[str, Any]], object], dict[str, Any]]] = {
    "bitget": (bitget_flow, {"businessType": "contract_settle_fee", "amount": "1", "cTime": "1700000000000",
                             "coin": "USDT", "billId": "7"}),
    "bybit": (bybit_flow, {"type": "TRANSFER_IN", "change": "1", "transactionTime": "1700000000000",
                           "currency": "USDT", "id": "7"}),
    "okx": (lambda row: okx_flows([row]), {"type": "1", "balChg": "1", "ts": "1700000000000", "ccy": "USDT",
                                           "billId": "7"}),
}  # fmt: skip


@pytest.mark.parametrize("venue", BILLS)
@pytest.mark.parametrize("number", [0, None, "", False])
def test_a_bill_without_a_number_is_unreadable(venue: str, number: object) -> None:
    """Under the id 0 it would count a second time once the venue states its number."""
    read, row = BILLS[venue]
    assert read(row)
    with pytest.raises(UnreadableError):
        read(row | {"id" if venue == "bybit" else "billId": number})


def test_an_answer_without_its_rows_is_named_by_its_request() -> None:
    """A snapshot consists of several answers: the message states which of them is damaged."""
    with pytest.raises(UnreadableError, match="the answer about the balance has no list `data`"):
        only_row({"data": None}, "the balance")
    with pytest.raises(UnreadableError, match="the answer about the balance has no row"):
        only_row({"data": []}, "the balance")
