"""Orders at OKX through the adapter: how they are sent, reported, found and cancelled."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.venue import FateUnknownError, MalformedAnswerError, OrderRejectedError, VenueDownError
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


def test_the_order_of_a_triggered_stop_is_found_by_the_stops_client_id() -> None:
    """The stop has ended, and the order that it sent is filled: 5 at 54,000."""
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


def test_our_client_id_arrives_unchanged_and_no_order_has_a_broker_tag() -> None:
    """ccxt would add its own client id and tag to an order without them."""
    here = desk()
    name = "kswd0123456789abcdef0123456789ab"

    async def talk(venue: Any) -> None:
        await venue.submit(order(name))
        await venue.batches.submit([order("kswe1"), order("kswe2", side="buy", symbol=ETH)])
        await venue.submit(order("kswf1", trigger_price=D(55000), trigger_when="falls"))

    here.run(talk)
    sent = [
        row for it in here.venue.seen if it.ask.method == "POST" for row in it.ask.params.get("rows", [it.ask.params])
    ]
    assert [row["clOrdId"] for row in sent] == [name, "kswe1", "kswe2", "kswf1"]
    assert sent[-1]["algoClOrdId"] == "kswf1"
    assert all("tag" not in row for row in sent)


def test_each_order_of_a_batch_has_its_own_outcome_at_its_index() -> None:
    """The second of three is above the maximum; then both of two are rejected, each for its own reason."""
    here = desk()

    async def talk(venue: Any) -> None:
        await venue.snapshot()
        batch = [order("kswa1"), order("kswa2", amount="2000"), order("kswa3", side="buy", symbol=ETH)]
        one, two, three = await venue.batches.submit(batch)
        assert (one.client_order_id, two.reason, three.client_order_id) == ("kswa1", "above_maximum", "kswa3")
        refused = await venue.batches.submit([order("kswa1"), order("kswa4", amount="2000")])
        assert [it.reason for it in refused] == ["duplicate_client_order_id", "above_maximum"]

    here.run(talk)
    assert here.exchange.held == {(BTC, "long"): 4, (ETH, "short"): 2}


def test_in_long_short_mode_the_side_of_the_position_is_named() -> None:
    """Each side of a symbol is closed by its own order; more than is held is rejected, and nothing reverses."""
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


def test_in_net_mode_no_order_opens_a_position() -> None:
    """An order for more than is held is reduce-only: 9 of 5 sell 5."""
    here = desk()
    here.run(lambda venue: venue.submit(order(amount="9")))
    assert here.exchange.held[BTC, "long"] == 0
    assert here.exchange.turned == []


def test_an_isolated_position_is_closed_in_its_own_margin_mode() -> None:
    """In cross mode OKX has no such position (51169): the order uses the position's margin mode."""
    here = desk(isolated=(BTC,))

    async def talk(venue: Any) -> None:
        await venue.snapshot()
        await venue.submit(order("kswa1", amount="5"))
        await venue.submit(order("kswa2", side="buy", amount="3", symbol=ETH))

    here.run(talk)
    assert set(here.exchange.held.values()) == {D(0)}
    assert [it.ask.params["tdMode"] for it in here.venue.seen if it.call == "submit"] == ["isolated", "cross"]


def test_an_amount_that_is_no_multiple_of_the_lot_size_is_not_sent() -> None:
    """1.005 with a lot of 0.01 is rejected here: ccxt would silently send 1.00."""
    here = desk()

    async def talk(venue: Any) -> None:
        with pytest.raises(OrderRejectedError, match="step"):
            await venue.submit(order(amount="1.005"))

    here.run(talk)
    assert here.venue.calls("submit") == 0


def test_an_order_whose_answer_is_lost_is_unknown_and_then_found() -> None:
    """The connection breaks after OKX accepted it: nothing is resent, and its client id finds it."""
    here = desk(Rule("submit", "done"))

    async def talk(venue: Any) -> None:
        await venue.snapshot()
        with pytest.raises(FateUnknownError):
            await venue.submit(order("kswa1", amount="5"))
        assert (await venue.find_order(BTC, "kswa1")).filled == 5

    here.run(talk)
    assert here.venue.calls("submit") == 1


def test_an_answer_about_another_order_is_malformed() -> None:
    """A report about another order says nothing about the requested one."""
    here = desk(Rule("submit", "nonsense"), Rule("find_order", "nonsense"))

    async def talk(venue: Any) -> None:
        with pytest.raises(MalformedAnswerError):
            await venue.submit(order("kswa1"))
        with pytest.raises(MalformedAnswerError):
            await venue.find_order(BTC, "kswa1")

    here.run(talk)


def test_without_the_position_mode_nothing_is_sent() -> None:
    """Reduce-only has no effect in long/short mode, so with an unknown mode an order may open a position."""
    here = desk()
    here.venue.instead["GET account/config"] = Reply({"code": "50026", "msg": "System error", "data": []}, 500)

    async def talk(venue: Any) -> None:
        with pytest.raises(VenueDownError, match="position mode"):
            await venue.submit(order())

    here.run(talk)
    assert here.venue.calls("submit") == 0


def test_the_timer_is_sent_in_whole_seconds_from_10_to_120_and_0_disarms_it() -> None:
    """OKX rejects every other number, and a rejected timer protects nothing."""
    here = desk()

    async def talk(venue: Any) -> None:
        for seconds in (5, 30, 600):
            await venue.dead_man.arm(seconds, (BTC,))
        await venue.dead_man.disarm(())

    here.run(talk)
    asked = [it.ask.params["timeOut"] for it in here.venue.seen if it.call == "dead_man"]
    assert (asked, here.venue.timer) == (["10", "30", "120", "0"], None)
