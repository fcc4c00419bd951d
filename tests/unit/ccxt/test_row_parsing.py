"""Rows from ccxt become records exactly, or are rejected as unreadable."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.parsing import UnreadableError, decimal, flag, instant, positive
from killswitch.model.snapshot import Flow
from killswitch_ccxt.fills import fills, flows
from killswitch_ccxt.instruments import instruments
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


def test_a_notional_that_the_venue_omits_is_computed_from_the_mark() -> None:
    """3 contracts of 0.01 at 200 are 6; 3 inverse contracts of 10 are 30 ÷ 200."""
    (linear,) = positions([_position()], RULES)
    (inverse,) = positions([_position(symbol="A/USD:A")], RULES)
    assert (linear.notional, inverse.notional) == (Decimal(6), Decimal("0.15"))


def test_without_a_mark_the_notional_is_unknown() -> None:
    """Kraken Futures states neither; missing values are not substituted."""
    (found,) = positions([_position(markPrice=None)], RULES)
    assert (found.mark_price, found.notional, found.liquidation_price, found.leverage) == (None, None, None, None)


def test_a_row_of_size_zero_is_no_position_whatever_else_it_lacks() -> None:
    """For a flat symbol Bybit returns a row without side and symbol."""
    assert positions([{"symbol": None, "side": None, "contracts": Decimal(0)}], RULES) == ()


@pytest.mark.parametrize(
    "odd",
    [
        {"contracts": None}, {"side": None}, {"side": ""}, {"symbol": "B/USDT:USDT"}, {"symbol": None},
        {"contracts": Decimal("NaN")}, {"markPrice": "many"},
    ],
)  # fmt: skip
def test_an_unreadable_position_makes_the_whole_answer_unreadable(odd: dict[str, Any]) -> None:
    """Leaving it out would show a book smaller than the real one."""
    with pytest.raises(UnreadableError):
        positions([_position(), _position(**{"symbol": "A/USD:A", **odd})], RULES)


def test_a_duplicate_position_makes_the_whole_answer_unreadable() -> None:
    """It is unknown which of the two sizes is correct."""
    with pytest.raises(UnreadableError, match="twice"):
        positions([_position(), _position(contracts=Decimal(4))], RULES)


@pytest.mark.parametrize(
    ("value", "expected"),
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
def test_flags_are_parsed_in_every_notation_of_the_venues(value: object, expected: bool | None) -> None:
    """Bitget writes NO, OKX writes false: both are text, and non-empty text is true in Python."""
    assert flag(value) is expected


def test_numbers_are_parsed_exactly_or_rejected() -> None:
    """No float is involved; empty text is None; venues write a missing price as zero."""
    assert decimal("0.10000000000000000001") == Decimal("0.10000000000000000001")
    assert (decimal(""), decimal(None), positive("0"), positive("0.00")) == (None, None, None, None)
    for odd in ("1e", "NaN", "Infinity", "1,5"):
        with pytest.raises(UnreadableError):
            decimal(odd)


def test_times_are_aware_and_in_utc() -> None:
    """Milliseconds since 1970; a time beyond the calendar is unreadable."""
    assert instant("1621425600000") == datetime(2021, 5, 19, 12, tzinfo=UTC)
    with pytest.raises(UnreadableError):
        instant(10**20)


def _order(**more: Any) -> dict[str, Any]:
    return {
        "id": "7", "symbol": "A/USDT:USDT", "side": "sell", "amount": Decimal(2), "filled": Decimal(0),
        "status": "open", "reduceOnly": "true", **more,
    }  # fmt: skip


def test_a_stop_has_its_trigger_price_position_side_and_reduce_only_flag() -> None:
    """Under whichever of its names ccxt returns the trigger price."""
    for name in ("triggerPrice", "stopLossPrice", "takeProfitPrice"):
        (found,) = open_orders([_order(**{name: Decimal(90)})])
        assert (found.trigger_price, found.reduce_only, found.position_side) == (Decimal(90), True, "long")


def test_an_entry_order_with_an_attached_stop_is_not_conditional() -> None:
    """Its stop rests once the entry has filled; until then the entry is a plain order."""
    (found,) = open_orders([_order(reduceOnly=False, stopLossPrice=Decimal(90))])
    assert found.trigger_price is None


@pytest.mark.parametrize("odd", [{"side": None}, {"id": None}, {"symbol": None}, {"amount": None}])
def test_an_unreadable_order_makes_the_whole_list_unreadable(odd: dict[str, Any]) -> None:
    """A list without that order would claim that it does not exist."""
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
def test_the_fee_of_an_order_is_known_only_in_the_accounts_currency(fee: object, known: str | None) -> None:
    """0.001 BNB are not 0.001 USDT. A fee without an asset is in the account's currency."""
    row = {"id": "7", "status": "closed", "amount": Decimal(1), "filled": Decimal(1), "fee": fee}
    assert report(row, "A", "USDT").fee == (None if known is None else Decimal(known))


def test_an_answer_with_only_an_order_id_is_an_open_order() -> None:
    """Bybit and OKX acknowledge an order with its id and nothing else."""
    acknowledged = report({"id": "7", "amount": Decimal(2)}, "A/USDT:USDT")
    assert (acknowledged.state, acknowledged.filled, acknowledged.amount) == ("open", 0, 2)


def test_an_order_that_ended_partially_filled_is_canceled_not_filled() -> None:
    """ccxt calls every ended market order closed, even one that the book filled by half."""
    ended = report(_order(status="closed", filled=Decimal(1)), "A/USDT:USDT")
    assert (ended.state, ended.filled) == ("canceled", Decimal(1))


def test_an_ended_order_without_a_filled_amount_is_unreadable() -> None:
    """Read as zero, it would be sent again; read as the full amount, the position would count as flat."""
    with pytest.raises(UnreadableError):
        report(_order(status="canceled", filled=None), "A/USDT:USDT")


def test_a_ledger_becomes_signed_flows_without_trades_and_fees() -> None:
    """Fees and realised profit are part of the fills; as flows they would count twice."""
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
    """A fee in another coin is not converted to the account's currency."""
    row = {
        "id": "f", "symbol": "A/USDT:USDT", "side": "buy", "amount": "1", "price": "10", "timestamp": 0,
        "fee": {"cost": "0.001", "currency": "BNB"}, "order": 7,
    }  # fmt: skip
    (found,) = fills([row, row])
    assert (found.fee, found.fee_currency, found.order) == (Decimal("0.001"), "BNB", "7")


def test_precision_in_decimals_or_in_steps_gives_the_same_instrument() -> None:
    """Three decimals and a step of 0.001 are equal."""
    rule = {**LINEAR, "precision": {"amount": 3, "price": 1}, "limits": {"amount": {"min": "0.001"}}, "active": False}
    (places,) = instruments([rule], tick_size=False)
    (steps,) = instruments([{**rule, "precision": {"amount": "0.001", "price": "0.1"}}])
    assert places == steps
    assert (steps.amount_step, steps.price_step, steps.min_amount, steps.state) == (
        Decimal("0.001"), Decimal("0.1"), Decimal("0.001"), "halted",
    )  # fmt: skip


LEDGER_ROWS: dict[str, tuple[Callable[[dict[str, Any]], object], dict[str, Any]]] = {
    "bitget": (bitget_flow, {"businessType": "contract_settle_fee", "amount": "1", "cTime": "1700000000000",
                             "coin": "USDT", "billId": "7"}),
    "bybit": (bybit_flow, {"type": "TRANSFER_IN", "change": "1", "transactionTime": "1700000000000",
                           "currency": "USDT", "id": "7"}),
    "okx": (lambda row: okx_flows([row]), {"type": "1", "balChg": "1", "ts": "1700000000000", "ccy": "USDT",
                                           "billId": "7"}),
}  # fmt: skip


@pytest.mark.parametrize("venue", LEDGER_ROWS)
@pytest.mark.parametrize("row_id", [0, None, "", False])
def test_a_ledger_row_without_an_id_is_unreadable(venue: str, row_id: object) -> None:
    """With the id 0 it would count a second time once the venue states its id."""
    parse, row = LEDGER_ROWS[venue]
    assert parse(row)
    with pytest.raises(UnreadableError):
        parse(row | {"id" if venue == "bybit" else "billId": row_id})


def test_an_error_about_missing_rows_names_the_request() -> None:
    """A snapshot consists of several answers: the message states which of them is damaged."""
    with pytest.raises(UnreadableError, match="the answer about the balance has no list `data`"):
        only_row({"data": None}, "the balance")
    with pytest.raises(UnreadableError, match="the answer about the balance has no row"):
        only_row({"data": []}, "the balance")
