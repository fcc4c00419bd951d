"""One account at OKX through the adapter: what it reads, and what it does, against the venue on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.venue import FateUnknownError, MalformedAnswerError, OrderRejectedError, Push, VenueDownError
from tests.faults.exchange import Key, Market
from tests.faults.mishaps import Rule
from tests.wire.okx_desk import BTC, ETH, OkxDesk, order
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
    """The account's own figure knows nothing of isolated positions: cross ones need 1% of 900."""
    seen = desk(isolated=(BTC,)).run(lambda venue: venue.snapshot())
    assert seen.maintenance_margin == 9
    assert [it.margin for it in seen.positions] == [600, None]


def test_all_positions_missing_is_not_flat_while_margin_maintains_them() -> None:
    """An empty list beside a maintenance margin of 39 USDT is an answer that nobody believes."""
    seen = desk(Rule("snapshot", "empty")).run(lambda venue: venue.snapshot())
    assert (seen.quality, seen.positions, seen.equity) == ("malformed", None, None)


@pytest.mark.parametrize(("mishap", "word"), [("nan", "NaN"), ("sign", "calls itself long"), ("defect", "")])
def test_rows_without_sense_make_the_positions_unknown(mishap: Any, word: str) -> None:
    """No number, a long of less than nothing, and no list at all."""
    seen = desk(Rule("snapshot", mishap)).run(lambda venue: venue.snapshot())
    assert (seen.quality, seen.positions, word in seen.reason) == ("malformed", None, True)


def test_stops_and_limits_are_in_one_list_with_their_own_ids_and_triggers() -> None:
    """A limit order, a stop by hand, and a trigger order of ours that says what it waits for."""
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
    """OKX gives a hundred at a time: of 230 there are 230."""
    here = desk()
    for number in range(230):
        here.exchange.rest(BTC, "sell", D(1), reduce_only=True, price=D(70000 + number), type="limit")
    found = here.run(lambda venue: venue.open_orders())
    assert sorted(it.price for it in found) == [70000 + number for number in range(230)]


def test_an_order_that_a_stop_has_sent_is_found_by_the_stops_name() -> None:
    """The stop is done, and what it sent is filled: 5 at 54,000."""
    here = desk()

    async def talk(venue: Any) -> None:
        await venue.snapshot()
        await venue.submit(order("kswb1", amount="5", trigger_price=D(55000), trigger_when="falls"))
        assert (await venue.find_order(BTC, "kswb1")).state == "open"
        here.exchange.reprice(BTC, D(54000))
        found = await venue.find_order(BTC, "kswb1")
        assert (found.state, found.filled, found.average_price) == ("filled", 5, 54000)
        (fill,) = await venue.fills(BTC, "kswb1")
        assert (fill.amount, fill.price, fill.fee) == (5, 54000, D("135"))

    here.run(talk)


def test_our_name_arrives_unchanged_and_no_order_carries_a_brokers_tag() -> None:
    """ccxt would put its own name and tag on an order that has none."""
    here = desk()
    name = "kswd0123456789abcdef0123456789ab"

    async def talk(venue: Any) -> None:
        await venue.submit(order(name))
        await venue.submit_batch([order("kswe1"), order("kswe2", side="buy", symbol=ETH)])
        await venue.submit(order("kswf1", trigger_price=D(55000), trigger_when="falls"))

    here.run(talk)
    sent = [
        row for it in here.venue.seen if it.ask.method == "POST" for row in it.ask.params.get("rows", [it.ask.params])
    ]
    assert [row["clOrdId"] for row in sent] == [name, "kswe1", "kswe2", "kswf1"]
    assert sent[-1]["algoClOrdId"] == "kswf1"
    assert all("tag" not in row for row in sent)


def test_each_order_of_a_batch_has_its_own_outcome_in_its_place() -> None:
    """The second of three is above the maximum, and then all of two are refused, each for its own reason."""
    here = desk()

    async def talk(venue: Any) -> None:
        await venue.snapshot()
        batch = [order("kswa1"), order("kswa2", amount="2000"), order("kswa3", side="buy", symbol=ETH)]
        one, two, three = await venue.submit_batch(batch)
        assert (one.client_order_id, two.reason, three.client_order_id) == ("kswa1", "above_maximum", "kswa3")
        refused = await venue.submit_batch([order("kswa1"), order("kswa4", amount="2000")])
        assert [it.reason for it in refused] == ["duplicate_client_order_id", "above_maximum"]

    here.run(talk)
    assert here.exchange.held == {(BTC, "long"): 4, (ETH, "short"): 2}


def test_in_long_short_mode_the_side_of_the_position_is_named() -> None:
    """Both sides of a symbol, each closed by its own order; more than is held is refused, and nothing turns."""
    here = desk(held={(BTC, "long"): D(5), (BTC, "short"): D(2)}, mode="hedge")

    async def talk(venue: Any) -> None:
        seen = await venue.snapshot()
        assert (seen.position_mode, [(it.side, it.contracts) for it in seen.positions]) == (
            "hedge",
            [("long", 5), ("short", 2)],
        )
        with pytest.raises(OrderRejectedError, match="51112") as said:
            await venue.submit(order("kswa0", amount="6"))
        assert said.value.reason == "blocked_by_order"
        await venue.submit(order("kswa1", amount="5"))
        await venue.submit(order("kswa2", side="buy", amount="2"))

    here.run(talk)
    assert set(here.exchange.held.values()) == {D(0)}
    assert here.exchange.turned == []
    assert [it.ask.params.get("reduceOnly") for it in here.venue.seen if it.call == "submit"] == [None, None, None]


def test_in_net_mode_no_order_opens_anything() -> None:
    """More than is held is reduce-only: 9 of 5 sell 5."""
    here = desk()
    here.run(lambda venue: venue.submit(order(amount="9")))
    assert here.exchange.held[BTC, "long"] == 0
    assert here.exchange.turned == []


def test_an_isolated_position_is_closed_in_its_own_margin_mode() -> None:
    """In cross mode OKX has no such position (51169): the order follows what the position said."""
    here = desk(isolated=(BTC,))

    async def talk(venue: Any) -> None:
        await venue.snapshot()
        await venue.submit(order("kswa1", amount="5"))
        await venue.submit(order("kswa2", side="buy", amount="3", symbol=ETH))

    here.run(talk)
    assert set(here.exchange.held.values()) == {D(0)}
    assert [it.ask.params["tdMode"] for it in here.venue.seen if it.call == "submit"] == ["isolated", "cross"]


def test_an_amount_that_the_lot_size_would_cut_is_not_sent() -> None:
    """1.005 of a lot of 0.01 is refused here: ccxt would send 1.00 without a word."""
    here = desk()

    async def talk(venue: Any) -> None:
        with pytest.raises(OrderRejectedError, match="step"):
            await venue.submit(order(amount="1.005"))

    here.run(talk)
    assert here.venue.calls("submit") == 0


def test_an_order_whose_answer_never_came_is_unknown_and_then_found() -> None:
    """The connection breaks after OKX took it: nothing is sent again, and its name tells the rest."""
    here = desk(Rule("submit", "done"))

    async def talk(venue: Any) -> None:
        await venue.snapshot()
        with pytest.raises(FateUnknownError):
            await venue.submit(order("kswa1", amount="5"))
        assert (await venue.find_order(BTC, "kswa1")).filled == 5

    here.run(talk)
    assert here.venue.calls("submit") == 1


def test_an_answer_about_another_order_is_malformed() -> None:
    """Whoever is told of an order that was not asked for knows nothing of the one that was."""
    here = desk(Rule("submit", "nonsense"), Rule("find_order", "nonsense"))

    async def talk(venue: Any) -> None:
        with pytest.raises(MalformedAnswerError):
            await venue.submit(order("kswa1"))
        with pytest.raises(MalformedAnswerError):
            await venue.find_order(BTC, "kswa1")

    here.run(talk)


def test_without_the_position_mode_nothing_is_sent() -> None:
    """Reduce-only has no meaning in long/short mode, so not knowing it may open a position."""
    here = desk()
    here.venue.instead["GET account/config"] = Reply({"code": "50026", "msg": "System error", "data": []}, 500)

    async def talk(venue: Any) -> None:
        with pytest.raises(VenueDownError, match="position mode"):
            await venue.submit(order())

    here.run(talk)
    assert here.venue.calls("submit") == 0


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


def test_fills_say_what_brought_them_about() -> None:
    """A liquidation and an ADL are no trades, and each instrument counts its trades by itself: both are number 1."""
    here = desk(mode="hedge")

    async def talk(venue: Any) -> Any:
        await venue.snapshot()
        here.exchange.take_away((BTC, "long"), D(1), "liquidation")
        here.exchange.take_away((ETH, "short"), D(2), "adl")
        return await venue.snapshot()

    told = {(it.symbol, it.side, it.amount, it.cause, it.position_side) for it in here.run(talk).fills}
    assert told == {(BTC, "sell", 1, "liquidation", "long"), (ETH, "buy", 2, "adl", "short")}


def test_the_timer_takes_whole_seconds_from_10_to_120_and_0_stops_it() -> None:
    """OKX refuses every other number, and a refusal would be no guard at all."""
    here = desk()

    async def talk(venue: Any) -> None:
        for seconds in (5, 30, 600):
            await venue.arm_dead_man(seconds, (BTC,))
        await venue.disarm_dead_man(())

    here.run(talk)
    asked = [it.ask.params["timeOut"] for it in here.venue.seen if it.call == "dead_man"]
    assert (asked, here.venue.timer) == (["10", "30", "120", "0"], None)


def test_the_keys_rights_are_told_from_the_accounts_configuration() -> None:
    """One that may withdraw, and one that is bound to no address and will be deleted when it is not used."""
    told = desk(perm="read_only,withdraw,trade", ip="").run(lambda venue: venue.inspect()).rights
    assert (told.read, told.trade, told.withdraw, told.bound_to_addresses) == (True, True, True, False)
    assert "14 days" in told.note
    told = desk(perm="read_only").run(lambda venue: venue.inspect()).rights
    assert (told.read, told.trade, told.withdraw, told.transfer) == (True, False, False, False)


def test_an_account_in_several_currencies_is_worth_what_okx_says_in_its_own() -> None:
    """1,998 USD in all, of which 999 USDT are 998.001 USD: at 0.999 USD a USDT that is 2,000 USDT."""
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
def test_what_the_switch_cannot_close_makes_the_positions_unknown_and_says_so(kind: str, words: str) -> None:
    """An option or a spot margin position beside the others is never left out in silence."""
    here = desk()
    row = {"instType": kind, "instId": "BTC-USD-241217-92000-C", "pos": "1", "posSide": "net", "mgnMode": "cross"}
    here.venue.instead["GET account/positions"] = Reply({"code": "0", "msg": "", "data": [row]})
    seen = here.run(lambda venue: venue.snapshot())
    assert (seen.quality, seen.positions, words in seen.reason) == ("malformed", None, True)


def test_a_spot_account_holds_what_it_can_sell() -> None:
    """2 BTC at 60,000 beside 100,000 USDT, sold at market without any margin."""
    here = OkxDesk({("BTC/USDT", "long"): D(2)}, mode="spot", markets=[Market("BTC/USDT", D(60000), step=STEP)])

    async def talk(venue: Any) -> None:
        seen = await venue.snapshot()
        assert (seen.market, seen.equity, seen.position_mode) == ("spot", 220_000, "one_way")
        assert [(it.symbol, it.side, it.contracts) for it in seen.positions] == [("BTC/USDT", "long", 2)]
        await venue.submit(order(amount="2", symbol="BTC/USDT", reduce_only=False))

    here.run(talk)
    assert here.exchange.held["BTC/USDT", "long"] == 0


def test_the_private_stream_wakes_for_positions_and_orders() -> None:
    """A hand sells one contract, and the switch hears of it."""
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
