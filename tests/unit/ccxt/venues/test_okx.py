"""One account at OKX through the adapter: its snapshots, against the venue on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.venue import Push
from killswitch_ccxt.venues.okx.rows import account_equity
from tests.faults.exchange import Key, Market
from tests.faults.mishaps import Rule
from tests.wire.okx.desk import BTC, ETH, OkxDesk, order
from tests.wire.server import Reply

D = Decimal
BOOK: Mapping[Key, Decimal] = {(BTC, "long"): D(5), (ETH, "short"): D(3)}
SIZES = {BTC: D("0.01"), ETH: D("0.1")}
STEP = D("0.01")


def desk(*rules: Rule, held: Mapping[Key, Decimal] = BOOK, **more: Any) -> OkxDesk:
    """Long 5 contracts of 0.01 BTC at 60,000, short 3 of 0.1 ETH at 3,000."""
    markets = [Market(BTC, D(60000), step=STEP, maximum=D(1000)), Market(ETH, D(3000), step=STEP)]
    return OkxDesk(held, *rules, markets=markets, sizes=SIZES, **more)


def test_positions_are_contracts_and_their_notional_is_in_the_accounts_currency() -> None:
    """5 × 0.01 × 60,000 = 3,000 USDT and 3 × 0.1 × 3,000 = 900 USDT, whatever OKX calls it in dollars (0.999 each)."""
    seen = desk().run(lambda venue: venue.snapshot())
    told = [(it.symbol, it.side, it.contracts, it.notional, it.mark_price, it.adl_rank) for it in seen.positions]
    assert told == [(BTC, "long", 5, 3000, 60000, 1), (ETH, "short", 3, 900, 3000, 1)]
    assert (seen.quality, seen.reason, seen.equity, seen.position_mode) == ("ok", None, 100_000, "one_way")
    assert {it.symbol: (it.contract_size, it.max_amount) for it in seen.instruments} == {
        BTC: (D("0.01"), 1000),
        ETH: (D("0.1"), 100_000_000),
    }


def test_margin_of_isolated_positions_leaves_the_accounts_maintenance_unknown() -> None:
    """The account's own figure excludes isolated positions: cross positions need 1% of 900."""
    seen = desk(isolated=(BTC,)).run(lambda venue: venue.snapshot())
    assert seen.maintenance_margin == 9
    assert [it.margin for it in seen.positions] == [600, None]


def test_an_empty_position_list_with_maintenance_margin_is_not_flat() -> None:
    """An empty list contradicts a maintenance margin of 39 USDT."""
    seen = desk(Rule("snapshot", "empty")).run(lambda venue: venue.snapshot())
    assert (seen.quality, seen.positions, seen.equity) == ("malformed", None, None)


@pytest.mark.parametrize(("mishap", "word"), [("nan", "NaN"), ("sign", "contracts on the long side"), ("defect", "")])
def test_unreadable_rows_make_the_positions_unknown(mishap: Any, word: str) -> None:
    """No number, a long of negative size, and no list at all."""
    seen = desk(Rule("snapshot", mishap)).run(lambda venue: venue.snapshot())
    assert (seen.quality, seen.positions, word in seen.reason) == ("malformed", None, True)


def test_stops_and_limit_orders_are_in_one_list_with_ids_and_triggers() -> None:
    """A limit order, a manual stop, and a trigger order of ours with its trigger price."""
    here = desk()
    here.exchange.rest(BTC, "sell", D(5), reduce_only=True, price=D(70000), type="limit")
    here.exchange.rest(ETH, "buy", D(3), reduce_only=True, trigger_price=D(3300), trigger_when="rises")

    async def talk(venue: Any) -> None:
        await venue.snapshot()
        await venue.submit(order("kswb1", amount="5", trigger_price=D(55000), trigger_when="falls"))
        limit, *stops = await venue.open_orders()
        assert (limit.price, limit.trigger_price, limit.reduce_only) == (70000, None, True)
        told = [(it.symbol, it.type, it.trigger_price, it.price, it.client_order_id) for it in stops]
        assert told == [(BTC, "stop_market", 55000, None, "kswb1"), (ETH, "stop_market", 3300, None, None)]
        for each in (limit, *stops):
            await venue.cancel(each.symbol, each.id)
        assert here.exchange.resting() == ()

    here.run(talk)


def test_more_orders_than_one_page_are_all_read() -> None:
    """OKX returns a hundred at a time: all 230 of 230 are read."""
    here = desk()
    for number in range(230):
        here.exchange.rest(BTC, "sell", D(1), reduce_only=True, price=D(70000 + number), type="limit")
    found = here.run(lambda venue: venue.open_orders())
    assert sorted(it.price for it in found) == [70000 + number for number in range(230)]


def test_flows_are_transfers_funding_and_interest_and_no_trades() -> None:
    """1,000 USDT came in, 2.5 were paid for funding, 0.1 of it in an isolated position's margin; a trade is no flow."""
    here = desk()
    here.venue.bills_told[:] = [
        {"billId": "4", "type": "2", "balChg": "-30", "posBalChg": "0", "ccy": "USDT", "ts": "1621425480000"},
        {"billId": "3", "type": "8", "balChg": "0", "posBalChg": "-0.1", "ccy": "USDT", "ts": "1621425360000"},
        {"billId": "2", "type": "8", "balChg": "-2.4", "posBalChg": "0", "ccy": "USDT", "ts": "1621425240000"},
        {"billId": "1", "type": "1", "balChg": "1000", "posBalChg": "0", "ccy": "USDT", "ts": "1621425120000"},
    ]
    seen = here.run(lambda venue: venue.snapshot())
    told = sorted((it.id, it.kind, it.amount, it.currency) for it in seen.flows)
    assert told == [
        ("1", "transfer", 1000, "USDT"),
        ("2", "funding", D("-2.4"), "USDT"),
        ("3", "funding", D("-0.1"), "USDT"),
    ]


def test_fills_have_their_causes() -> None:
    """A liquidation and an ADL are no trades, and each instrument counts its trades by itself: both are number 1."""
    here = desk(mode="hedge")

    async def talk(venue: Any) -> Any:
        await venue.snapshot()
        here.exchange.take_away((BTC, "long"), D(1), "liquidation")
        here.exchange.take_away((ETH, "short"), D(2), "adl")
        await asyncio.sleep(5)
        return await venue.snapshot()

    told = {(it.symbol, it.side, it.amount, it.cause, it.position_side) for it in here.run(talk).fills}
    assert told == {(BTC, "sell", 1, "liquidation", "long"), (ETH, "buy", 2, "adl", "short")}


def test_the_keys_rights_are_read_from_the_account_configuration() -> None:
    """A key that may withdraw, and one that is bound to no address and will be deleted if unused."""
    told = desk(perm="read_only,withdraw,trade", ip="").run(lambda venue: venue.inspect()).rights
    assert (told.read, told.trade, told.withdraw, told.bound_to_addresses) == (True, True, True, False)
    assert "14 days" in told.note
    told = desk(perm="read_only").run(lambda venue: venue.inspect()).rights
    assert (told.read, told.trade, told.withdraw, told.transfer) == (True, False, False, False)


def test_the_equity_of_several_currencies_is_okxs_total_in_the_accounts_currency() -> None:
    """1,998 USD in total, of which 999 USDT are 998.001 USD: at 0.999 USD a USDT this is 2,000 USDT."""
    here = desk()
    detail = {"cashBal": "0", "liab": "", "isoEq": "0", "mmr": "", "availEq": "1"}
    usdt = {**detail, "ccy": "USDT", "eq": "999", "eqUsd": "998.001"}
    btc = {**detail, "ccy": "BTC", "eq": "0.02", "eqUsd": "999.999"}
    row = {"totalEq": "1998", "details": [usdt, btc], "mmr": "", "imr": "", "availEq": "", "uTime": "0"}
    here.venue.instead["GET account/balance"] = Reply({"code": "0", "msg": "", "data": [row]})
    seen = here.run(lambda venue: venue.snapshot())
    assert seen.equity == 2000
    here.venue.instead["GET account/balance"] = Reply(
        {"code": "0", "msg": "", "data": [row | {"details": [btc], "totalEq": "999"}]}
    )
    seen = here.run(lambda venue: venue.snapshot())
    assert seen.equity == 1000  # by OKX's index, where the account holds none of its currency


@pytest.mark.parametrize(("kind", "words"), [("OPTION", "is an option"), ("MARGIN", "spot margin")])
def test_a_position_that_cannot_be_closed_makes_the_positions_unknown_with_a_reason(kind: str, words: str) -> None:
    """An option or a spot margin position is never silently left out."""
    here = desk()
    row = {"instType": kind, "instId": "BTC-USD-241217-92000-C", "pos": "1", "posSide": "net", "mgnMode": "cross"}
    here.venue.instead["GET account/positions"] = Reply({"code": "0", "msg": "", "data": [row]})
    seen = here.run(lambda venue: venue.snapshot())
    assert (seen.quality, seen.positions, words in seen.reason) == ("malformed", None, True)


def test_spot_holdings_are_positions_and_can_be_sold() -> None:
    """2 BTC at 60,000 and 100,000 USDT, sold at market without margin."""
    here = OkxDesk({("BTC/USDT", "long"): D(2)}, mode="spot", markets=[Market("BTC/USDT", D(60000), step=STEP)])

    async def talk(venue: Any) -> None:
        seen = await venue.snapshot()
        assert (seen.market, seen.equity, seen.position_mode) == ("spot", 220_000, "one_way")
        assert [(it.symbol, it.side, it.contracts) for it in seen.positions] == [("BTC/USDT", "long", 2)]
        await venue.submit(order(amount="2", symbol="BTC/USDT", reduce_only=False))

    here.run(talk)
    assert here.exchange.held["BTC/USDT", "long"] == 0


def test_the_private_stream_pushes_positions_and_orders() -> None:
    """One contract is sold manually, and the stream reports it."""
    here = desk()
    heard: list[Push] = []

    async def talk(venue: Any) -> None:
        listening = asyncio.ensure_future(venue.listen(heard.append))
        await asyncio.sleep(3)
        heard.clear()
        here.exchange.trade((BTC, "long"), D(-1))
        await asyncio.sleep(3)
        listening.cancel()
        await asyncio.wait([listening])

    here.run(talk, stream=True)
    assert {"positions", "balance"} <= {it.kind for it in heard}


@pytest.mark.parametrize(
    ("told", "used"),
    [
        ({"imr": "620"}, 500), ({"imr": ""}, 680), ({}, 680), ({"imr": "620", "isoEq": "100"}, 680),
        ({"imr": "120"}, 0), ({"imr": "620", "ordFrozen": ""}, None), ({"imr": "", "stgyEq": "50"}, None),
    ],
    ids=["futures-mode", "other-mode", "not-there", "isolated", "orders-only", "not-apart", "bots"],
)  # fmt: skip
def test_the_margin_in_use_is_that_of_positions_without_that_of_orders(told: dict[str, str], used: int | None) -> None:
    """In futures mode OKX states an initial margin of cross positions and orders; otherwise all frozen amounts."""
    detail = {"ccy": "USDT", "eq": "1000", "cashBal": "1000", "frozenBal": "800", "mmr": "310", "isoEq": "0",
              "ordFrozen": "120", **told}  # fmt: skip
    assert account_equity({"totalEq": "1000", "details": [detail]}, "USDT", None).margin_used == used
