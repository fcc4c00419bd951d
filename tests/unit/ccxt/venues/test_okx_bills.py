"""OKX's bills: all of them are requested, and each type is money in or out, profit or loss, or neither."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.venue import FateUnknownError
from killswitch_ccxt.venues.okx.codes import COSTS
from killswitch_ccxt.venues.okx.rows import flows
from tests.wire.okx.desk import BTC, OkxDesk, order
from tests.wire.server import Reply

D = Decimal


def _bill(told: str, number: str = "7", change: str = "-400", at: int = 1_621_425_120_000) -> dict[str, Any]:
    return {"billId": number, "type": told, "balChg": change, "posBalChg": "0", "ccy": "USDT", "ts": str(at)}


def _asked(desk: OkxDesk) -> list[Any]:
    return [it.ask.params for it in desk.venue.seen if it.ask.path.endswith("account/bills")]


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ("1", "transfer"), ("12", "transfer"), ("26", "transfer"), ("33", "transfer"), ("7", "interest"),
        ("8", "funding"), ("10", "insurance"), ("250", "fee"), ("251", "rebate"),
    ],
)  # fmt: skip
def test_a_bill_is_a_flow_of_its_kind(told: str, kind: str) -> None:
    """Money moves to and from bots, structured products and loans; a shared profit is a loss."""
    (flow,) = flows([_bill(told)])
    assert (flow.id, flow.kind, flow.amount) == ("7", kind, D(-400))


@pytest.mark.parametrize("told", ["2", "3", "5", "9", "14", "24", "32", "4", "16", "22", "27", "29", "6"])
def test_bills_of_fills_and_bills_that_leave_the_equity_unchanged_are_no_flows(told: str) -> None:
    """Trades and deliveries; conversions, debts and margin that moves within the account."""
    assert flows([_bill(told)]) == ()


@pytest.mark.parametrize(("change", "kind"), [("-4", "fee"), ("4", "rebate")])
def test_an_unknown_bill_type_is_profit_or_loss_and_named(change: str, kind: str) -> None:
    """It is not read as a withdrawal, so it hides no loss."""
    (flow,) = flows([_bill("999", change=change)])
    assert (flow.id, flow.kind, flow.amount) == ("type 999:7", kind, D(change))


def test_all_bills_are_fetched_in_one_request() -> None:
    """A transfer to a trading bot is included, and the request names no type."""
    desk = OkxDesk({})
    desk.venue.bills_told[:] = [_bill("12")]
    seen = desk.run(lambda venue: venue.snapshot())
    assert [(it.kind, it.amount) for it in seen.flows] == [("transfer", D(-400))]
    assert ["type" in it for it in _asked(desk)] == [False]


def test_among_very_many_trades_each_kind_of_flow_is_requested_separately() -> None:
    """Of 350 bills all but the oldest are trades: the transfer is found, with at most five requests in a second."""
    desk = OkxDesk({}, enforced=True)
    bills = [_bill("2", str(number), "-1", 1_621_425_120_000 + number) for number in range(350, 1, -1)]
    bills.append(_bill("1", "1"))
    usual = desk.venue.answer

    def answer(ask: Any) -> Reply:
        if ask.path.endswith("account/bills"):
            desk.venue.bills_told[:] = [it for it in bills if ask.params.get("type") in (None, it["type"])]
        return usual(ask)

    desk.venue.answer = answer  # type: ignore[method-assign] # of this one venue
    seen = desk.run(lambda venue: venue.snapshot())
    assert [(it.id, it.kind, it.amount) for it in seen.flows or ()] == [("1", "transfer", D(-400))]
    assert {it.get("type") for it in _asked(desk)} >= {"1", "7", "8", "10", "12", "26", "33"}


def test_fetching_all_orders_costs_five_requests_for_algo_orders() -> None:
    """Five every two seconds during activity: three a second, declared before they are spent."""
    desk = OkxDesk({(BTC, "long"): D(5)})
    desk.run(lambda venue: venue.snapshot())
    assert sum(it.ask.path.endswith("orders-algo-pending") for it in desk.venue.seen) == 5
    assert [it.units for it in COSTS if (it.call, it.limit) == ("snapshot", "algo pending")] == [3]


def test_a_batch_row_that_timed_out_has_an_unknown_status() -> None:
    """The other row is accepted; this one may be."""
    desk = OkxDesk({(BTC, "long"): D(5)})
    taken = {"clOrdId": "kswa1", "ordId": "11", "sCode": "0", "sMsg": ""}
    lost = {"clOrdId": "kswa2", "ordId": "", "sCode": "51149", "sMsg": "Order timed out. Please try again later."}
    desk.venue.instead["POST trade/batch-orders"] = Reply({"code": "2", "msg": "", "data": [taken, lost]})
    one, two = desk.run(lambda venue: venue.batches.submit([order("kswa1"), order("kswa2")]))
    assert (one.state, type(two)) == ("open", FateUnknownError)
